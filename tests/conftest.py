"""Servers shared by all suites. A server that can't be started fails the tests that need it: nothing is skipped."""

from collections.abc import Iterator

import pytest

from harness.https import FileServer
from harness.openstack import OpenStack
from harness.rabbitmq import Broker


@pytest.fixture(scope="session")
def stack() -> Iterator[OpenStack]:
    """A real Keystone and three real Glances."""
    started = OpenStack(3)
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """One private RabbitMQ node; tests keep apart by namespace."""
    started = Broker()
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """HTTPS source of images."""
    server = FileServer(tmp_path_factory.mktemp("https"))
    yield server
    server.stop()
