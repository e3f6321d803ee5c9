"""Some of the moments of `tests/boundaries`, in which a worker is killed: the ends of the work and a few between."""

from collections.abc import Iterator

import pytest

from boundaries.cases import CASES
from boundaries.kill import everywhere, site_rig
from harness.site import Site

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("boundaries")]


def _some(count: int) -> Iterator[int]:
    """Where most is at stake: about the creation of the image, and at the end."""
    yield from sorted({3, count})


def test_a_worker_killed_at_a_request_of_an_upload_changes_nothing(site: Site) -> None:
    assert everywhere(site_rig(site, CASES["upload-file"]), "cloud", _some) >= 6


def test_a_worker_killed_at_its_last_words_to_the_broker_changes_nothing(site: Site) -> None:
    """The embedded queue has no connection: there it is the last requests of a prune."""
    where = "broker" if site.broker else "cloud"
    assert everywhere(site_rig(site, CASES["prune"]), where, _some) >= 3
