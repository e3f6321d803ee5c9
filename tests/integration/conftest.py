"""Every test here runs once on each queue backend, against one worker that stays up for all of them."""

from collections.abc import Generator, Iterator

import pytest

from fakes.cloud import FakeCloud
from fakes.site import Builder
from harness.cli import Worker
from harness.https import FileServer
from harness.openstack import OpenStack
from harness.site import Site


def backend(name: str) -> object:
    """With `pytest -n 4` each backend has two processes, with servers of their own: most of the time is waiting."""
    return pytest.param(name, marks=pytest.mark.xdist_group(name))


@pytest.fixture(scope="session", params=[backend("rabbitmq"), backend("sqlite")])
def queue(request: pytest.FixtureRequest) -> str:
    """The queue backend."""
    return request.param


@pytest.fixture(scope="session")
def shared(
    queue: str,
    request: pytest.FixtureRequest,
    stack: OpenStack,
    files: FileServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Site, Worker]]:
    broker = request.getfixturevalue("broker") if queue == "rabbitmq" else None
    made = Site(stack, files, broker, tmp_path_factory.mktemp(queue))
    made.declare()
    worker = made.worker()
    yield made, worker
    made.stop()


@pytest.fixture
def site(shared: tuple[Site, Worker]) -> Iterator[Site]:
    """The installation whose worker is running; tests keep apart by image name. It survives whatever they ask."""
    made, worker = shared
    yield made
    made.stop_forks()
    assert worker.is_running(), worker.tail(60)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory, files: FileServer) -> Iterator[Builder]:
    """Builds on a cloud of recorded answers; one for all tests of a module."""
    cloud = FakeCloud()
    cloud.start()
    made = Builder(tmp_path_factory.mktemp("builder"), files, cloud)
    try:
        yield made
    finally:
        made.stop()
        cloud.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    used = getattr(item, "funcargs", {}).get("site")
    if report.failed and isinstance(used, Site):
        report.sections.append(("workers", used.logs()))
    return report
