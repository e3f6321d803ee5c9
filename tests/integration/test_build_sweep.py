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

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("build-ends")]


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


def leave_group(builder: Builder, prefix: str) -> str:
    """A security group is there that belongs to a build that has ended; its job id."""
    job = builder.build("ended", "--flavor", "Elsewhere", script=False, flavor="", prefix=prefix)
    builder.client.buried(job, 60)
    builder.cloud.add_group(f"{prefix}-build-{job}-0")
    return job


def test_servers_that_are_never_deleted_are_named_and_swept_once_they_can_be(install: Callable[[str], Builder]) -> None:
    """Refused with 409, and accepted and not done."""
    ours = install("ours")
    ways: tuple[Literal["refused", "ignored"], ...] = ("refused", "ignored")
    for way in ways:
        ours.cloud.faults.server(f"^{way}-", Fate(delete=way, units={"imagewright-script": Ran(exit=3)}))
    jobs = {way: ours.build(way) for way in ways}
    for way, job in jobs.items():
        reason = ours.client.buried(job, 200)["reason"]
        (server,) = ours.cloud.servers(f"{way}-")
        assert "exit status 3" in reason
        assert f"left behind: server {server.id}" in reason
        server.guest.fate = Fate()
    wait_for("they are swept", lambda: ours.cloud.leftovers() == [], 60, every=0.2)


def test_another_installation_in_the_same_project_loses_no_live_build(install: Callable[[str], Builder]) -> None:
    """Two installations that even call their servers alike."""
    ours, theirs = install("ours"), install("theirs")
    cloud = ours.cloud
    cloud.faults.server("^shared-", Fate(units={"imagewright-script": Ran(exit=None)}))
    live = theirs.build("live", prefix="shared")
    wait_for("its script runs", lambda: "the script runs" in theirs.told(live), 120, every=0.3)
    alive = theirs.left(live)
    assert len(alive) == 3, "a server, a key pair, a group"
    assert theirs.left("shared") == alive
    # Each of these is removed by a sweep of ours, which saw the live build as well, twice at least.
    for _ in range(2):
        job = leave_group(ours, "shared")
        wait_for("it is swept", lambda job=job: ours.left(job) == [], 60, every=0.2)
        assert theirs.left(live) == alive
    (server,) = cloud.servers("shared")
    server.guest.shell.units["imagewright-script"] = Unit(Ran())
    theirs.client.tree_ended(live, 120)
    assert len(theirs.images("live")) == 1
    wait_for("nothing is left", lambda: cloud.leftovers() == [], 30, every=0.2)


def test_a_live_build_and_what_no_job_is_known_of_survive_the_own_sweeps(install: Callable[[str], Builder]) -> None:
    ours = install("ours")
    cloud = ours.cloud
    cloud.faults.server("^mine-", Fate(units={"imagewright-script": Ran(exit=None)}))
    live = ours.build("live", prefix="mine")
    unknown = f"mine-build-{uuid.uuid4()}-0"
    cloud.add_group(unknown)
    wait_for("its script runs", lambda: "the script runs" in ours.told(live), 120, every=0.3)
    alive = ours.left(live)
    job = leave_group(ours, "other")
    wait_for("it is swept", lambda: ours.left(job) == [], 60, every=0.2)
    assert ours.left(live) == alive
    (server,) = cloud.servers("mine")
    server.guest.shell.units["imagewright-script"] = Unit(Ran())
    ours.client.tree_ended(live, 120)
    wait_for("nothing else is left", lambda: cloud.leftovers() == [f"group {unknown}"], 30, every=0.2)
