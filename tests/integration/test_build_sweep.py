"""What builds have left is removed: that of ended jobs of the own namespace, and nothing else."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from fakes.cloud import FakeCloud
from fakes.commands import Unit
from fakes.faults import Fate, Ran
from fakes.site import Builder
from harness.https import FileServer
from harness.process import wait_for

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("build-ends")]


@pytest.fixture
def install(tmp_path: Path, files: FileServer) -> Iterator[Callable[[str], Builder]]:
    """Makes installations in one project; they sweep every second."""
    cloud = FakeCloud()
    cloud.start()
    made: list[Builder] = []

    def install(namespace: str) -> Builder:
        limits = {"teardown": "1s"}
        made.append(Builder(tmp_path / namespace, files, cloud, "--sweep", "1", namespace=namespace, limits=limits))
        return made[-1]

    try:
        yield install
    finally:
        for one in made:
            one.stop()
        cloud.stop()


def abandoned(builder: Builder, prefix: str, way: Literal["refused", "ignored"] = "refused") -> str:
    """A build that has ended and could not delete its server, which can be now; its job id."""
    builder.cloud.faults.server(f"^{prefix}-", Fate(delete=way, units={"imagewright-script": Ran(exit=3)}))
    job = builder.build("abandoned", prefix=prefix)
    reason = builder.client.buried(job, 120)["reason"]
    (server,) = [server for server in builder.cloud.servers(prefix) if job in server.name]
    assert "exit status 3" in reason
    assert f"left behind: server {server.id}" in reason
    server.guest.fate = Fate()
    return job


@pytest.mark.parametrize("way", ["refused", "ignored"])
def test_a_server_that_is_never_deleted_is_named_and_swept_once_it_can_be(
    install: Callable[[str], Builder], way: Literal["refused", "ignored"]
) -> None:
    ours = install("ours")
    abandoned(ours, "stuck", way)
    wait_for("it is swept", lambda: ours.cloud.leftovers() == [], 60, every=0.2)


def test_another_installation_in_the_same_project_loses_no_live_build(install: Callable[[str], Builder]) -> None:
    """Two installations that even call their servers alike."""
    ours, theirs = install("ours"), install("theirs")
    cloud = ours.cloud
    cloud.faults.server("^shared-", Fate(units={"imagewright-script": Ran(exit=None)}))
    live = theirs.build("live", prefix="shared")
    wait_for("its script runs", lambda: "the script runs" in theirs.told(live), 120, every=0.3)
    alive = theirs.left(live)
    assert len(alive) == 3, "a server, a key pair, a group"
    # Each of these is removed by a sweep of ours, which saw the live build as well, twice at least.
    for _ in range(2):
        job = abandoned(ours, "shared")
        wait_for("it is swept", lambda job=job: ours.left(job) == [], 60, every=0.2)
        assert theirs.left(live) == alive
    (server,) = cloud.servers("shared")
    server.guest.shell.units["imagewright-script"] = Unit(Ran())
    theirs.client.tree_ended(live, 120)
    assert len(theirs.images("live")) == 1
    assert cloud.leftovers() == []


def test_a_live_build_and_what_no_job_is_known_of_survive_the_own_sweeps(install: Callable[[str], Builder]) -> None:
    ours = install("ours")
    cloud = ours.cloud
    cloud.faults.server("^mine-", Fate(units={"imagewright-script": Ran(exit=None)}))
    live = ours.build("live", prefix="mine")
    unknown = f"mine-build-{uuid.uuid4()}-0"
    cloud.add_group(unknown)
    wait_for("its script runs", lambda: "the script runs" in ours.told(live), 120, every=0.3)
    alive = ours.left(live)
    job = abandoned(ours, "other")
    wait_for("it is swept", lambda: ours.left(job) == [], 60, every=0.2)
    assert ours.left(live) == alive
    (server,) = cloud.servers("mine")
    server.guest.shell.units["imagewright-script"] = Unit(Ran())
    ours.client.tree_ended(live, 120)
    assert cloud.leftovers() == [f"group {unknown}"]
