"""The time of day jumps ahead and back under the embedded queue: what was accepted is done once, or refused clearly."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import images
from harness.clock import Clock
from harness.https import FileServer
from harness.openstack import OpenStack
from harness.proxy import Proxy
from harness.site import Site
from harness.transfers import PUT, SIZE, STEADY, only_active, wait_saving

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("sqlite")]

AHEAD, BEHIND = 20, -20  # hours; a job has 24 until its deadline


@pytest.fixture
def site(stack: OpenStack, files: FileServer, tmp_path: Path) -> Iterator[Site]:
    made = Site(stack, files, None, tmp_path)
    yield made
    made.stop()


def _ends(site: Site, job: str) -> list[str]:
    return [entry["event"] for entry in site.client.json("log", job) if entry["event"] in ("succeeded", "failed")]


def test_jobs_in_transfer_waiting_and_queued_end_once_while_the_clock_jumps(site: Site) -> None:
    clock = Clock(site.folder / "clock")
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        lone.worker("--concurrency", "upload=2", env=clock.env)
        disks = {name: lone.qcow2(SIZE if name == "sent" else 128 * 1024) for name in ("sent", "waits", "queued")}
        named = {name: f"{lone.namespace}-{name}" for name in disks}
        proxy.throttle(STEADY)
        jobs = {"sent": lone.client.upload(named["sent"], disks["sent"], wait=False)[0]}
        wait_saving(lone, named["sent"])
        failing = proxy.fail("PUT", PUT, 503, times=2)
        jobs["waits"] = lone.client.upload(named["waits"], disks["waits"], wait=False)[0]
        failing.wait_met()
        clock.set(AHEAD)
        jobs["queued"] = lone.client.upload(named["queued"], disks["queued"], wait=False)[0]
        lone.client.tree_ended(jobs["sent"], 100)
        clock.set(0)
        proxy.throttle(None)
        for name, job in jobs.items():
            lone.client.tree_ended(job, 100)
            only_active(lone, named[name], images.sha512(disks[name]))
            assert _ends(lone, job) == ["succeeded"]


def test_a_job_from_the_future_is_refused_clearly_and_done_once_the_clock_is_right(site: Site) -> None:
    clock = Clock(site.folder / "clock")
    clock.set(BEHIND)
    lone = site.fork()
    lone.worker(env=clock.env)
    disk = lone.qcow2()
    (job,) = lone.client.upload("future", disk, wait=False)
    refused = lone.client.buried(job)
    assert refused["field"] == "asked_at"
    assert "in the future" in refused["reason"]
    clock.set(0)
    lone.client.run("dead", "requeue", job)
    lone.client.tree_ended(job)
    assert only_active(lone, "future", images.sha512(disk))["imagewright_job"] == job
