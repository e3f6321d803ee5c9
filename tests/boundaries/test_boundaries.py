"""All moments of all kinds, on both queues: `tests/tox -e boundaries`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from boundaries.cases import CASES, BaseImage
from boundaries.kill import Rig, everywhere, fake_rig, site_rig
from boundaries.servers import SERVERS, Ground
from fakes.cloud import FakeCloud
from harness.https import FileServer
from harness.openstack import OpenStack
from harness.signing import SigningKey
from harness.site import Site

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module", params=["rabbitmq", "sqlite"])
def site(
    request: pytest.FixtureRequest, stack: OpenStack, files: FileServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    broker = request.getfixturevalue("broker") if request.param == "rabbitmq" else None
    made = Site(stack, files, broker, tmp_path_factory.mktemp(request.param))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def base_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseImage]:
    folder = tmp_path_factory.mktemp("keys")
    key = SigningKey(folder / "key")
    key.keyring(folder / "keyring.gpg")
    yield BaseImage(key, folder)
    key.stop()


def _rig(site: Site, kind: str, base_image: BaseImage) -> Rig:
    if kind == "base-image":
        return site_rig(site, base_image, ["--keyring", base_image.folder / "keyring.gpg"])
    return site_rig(site, CASES[kind])


@pytest.mark.parametrize("kind", [*CASES, "base-image"])
def test_a_worker_killed_at_any_request_to_the_cloud_changes_nothing(
    site: Site, kind: str, base_image: BaseImage
) -> None:
    count = everywhere(_rig(site, kind, base_image), "cloud")
    assert count >= 4, f"{kind} asked the cloud {count} times"


@pytest.mark.parametrize("kind", [*CASES, "base-image"])
@pytest.mark.parametrize("site", ["rabbitmq"], indirect=True)
def test_a_worker_killed_at_any_word_to_the_broker_changes_nothing(
    site: Site, kind: str, base_image: BaseImage
) -> None:
    count = everywhere(_rig(site, kind, base_image), "broker")
    assert count >= 4, f"{kind} said {count} things to the broker"


@pytest.fixture(params=["rabbitmq", "sqlite"])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    cloud = FakeCloud()
    cloud.start()
    yield Ground(cloud, tmp_path, request.getfixturevalue("broker") if request.param == "rabbitmq" else None)
    cloud.stop()


@pytest.mark.parametrize("kind", SERVERS)
def test_a_worker_killed_at_any_request_about_a_server_changes_nothing(ground: Ground, kind: str) -> None:
    count = everywhere(fake_rig(ground, SERVERS[kind]), "cloud")
    assert count >= 10, f"{kind} asked the cloud {count} times"


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("ground", ["rabbitmq"], indirect=True)
def test_a_worker_killed_at_any_word_about_a_server_changes_nothing(ground: Ground, kind: str) -> None:
    count = everywhere(fake_rig(ground, SERVERS[kind]), "broker")
    assert count >= 10, f"{kind} said {count} things to the broker"
