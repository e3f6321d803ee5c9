"""These tests need a controller and a packed charm; without one of them they are skipped, with the reason."""

import os
import shutil
import subprocess

import pytest


def missing() -> str:
    """What is not there, in one line; empty if all is."""
    if not os.environ.get("CHARM_PATH"):
        return "CHARM_PATH names no packed charm (tests/tox -e pack makes one)"
    if not shutil.which("juju"):
        return "there is no juju client"
    done = subprocess.run(["juju", "show-controller"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"no controller answers: {done.stderr.strip().splitlines()[-1:]}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One reason for all, so that the last line of the run tells it."""
    if reason := missing():
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))
