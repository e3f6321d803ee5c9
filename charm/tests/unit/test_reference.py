"""The page of options and actions is the one that charmcraft.yaml gives."""

import runpy

from conftest import CHARM


def test_the_reference_is_current():
    made = runpy.run_path(str(CHARM / "reference.py"))["text"]()
    assert (CHARM.parent / "docs/charm/reference.md").read_text() == made
