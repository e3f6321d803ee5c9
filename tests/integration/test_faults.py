"""Clouds that are down, full, slow, or wrong: the others go on, and what can still be done is done."""

import contextlib
import signal
import sqlite3

import pytest

from harness import images
from harness.process import wait_for
from harness.proxy import Proxy
from harness.site import Site
from harness.transfers import PUT, SIZE, SLOW, only_active, wait_saving

pytestmark = [pytest.mark.xdist_group("waits"), pytest.mark.timeout(600)]


def test_a_cloud_that_is_down_holds_up_no_other_and_gets_its_image_when_it_is_back(site: Site) -> None:
    cloud = site.stack.cloud("cloud3")
    lone = site.fork()
    disk = lone.qcow2()
    lone.worker()
    cloud.stop()
    try:
        jobs = lone.client.upload("one-down", disk, cloud="cloud3,cloud1,cloud2", wait=False)
        for job in jobs[1:]:
            lone.client.tree_ended(job, 30)
        wait_for("the attempt failed", lambda: lone.client.status(jobs[0])["attempts"] >= 1, 40, every=0.5)
        assert lone.client.status(jobs[0])["state"] not in ("succeeded", "failed")
    finally:
        cloud.start()
    lone.client.tree_ended(jobs[0], 90)
    made = [only_active(lone, "one-down", images.sha512(disk), name) for name in ("cloud3", "cloud1", "cloud2")]
    assert [one["imagewright_job"] for one in made] == jobs


def test_a_failing_cloud_costs_the_healthy_one_no_revision(site: Site) -> None:
    """Five attempts at a broken cloud: the healthy cloud has one new image and its old ones."""
    with Proxy(site.stack.cloud("cloud2").port) as proxy:
        lone = site.fork(proxies={"cloud2": proxy})
        lone.worker()
        old = [lone.client.upload("healthy", lone.qcow2(), keep=3)[0] for _ in range(2)]
        fault = proxy.fail("PUT", PUT, 503, times=3)
        jobs = lone.client.upload("healthy", lone.qcow2(), cloud="cloud2,cloud1", keep=3, wait=False)
        lone.client.tree_ended(jobs[1])
        assert [one["imagewright_job"] for one in lone.cloud().active("healthy")] == [*old, jobs[1]]
        lone.client.tree_ended(jobs[0], 90)
        assert fault.met == 3
        assert [one["imagewright_job"] for one in lone.cloud("cloud2").named("healthy")] == [jobs[0]]
        assert [one["imagewright_job"] for one in lone.cloud().named("healthy")] == [*old, jobs[1]]


def test_a_cut_connection_is_tried_again(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        disk = lone.qcow2(SIZE)
        lone.worker()
        proxy.throttle(SLOW)
        (job,) = lone.client.upload("cut", disk, wait=False)
        wait_saving(lone, "cut")
        proxy.cut()
        proxy.throttle(None)
        lone.client.tree_ended(job, 90)
        only_active(lone, "cut", images.sha512(disk))


def test_a_wait_that_the_cloud_asks_for_is_kept(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        lone.worker()
        disk = lone.qcow2()
        proxy.fail("POST", "^/v2/images$", 429, times=1, headers={"Retry-After": "3"})
        lone.client.upload("retry-after", disk)
        posts = [one.at for one in proxy.requests if one.method == "POST" and one.path == "/v2/images"]
        assert len(posts) == 2
        assert posts[1] - posts[0] >= 3
        only_active(lone, "retry-after", images.sha512(disk))


def test_a_full_quota_is_waited_for_and_does_not_fail_the_job(site: Site) -> None:
    cloud = site.stack.cloud("cloud3")
    lone = site.fork()
    lone.worker()
    disk = lone.qcow2()
    cloud.restart(user_storage_quota="1000B")
    try:
        (job,) = lone.client.upload("quota", disk, cloud="cloud3", wait=False)
        wait_for("the job waits", lambda: lone.client.status(job)["state"] == "waiting", 30, every=0.3)
    finally:
        cloud.restart()
    assert lone.client.status(job)["state"] not in ("failed", "succeeded")
    lone.client.tree_ended(job, 150)
    only_active(lone, "quota", images.sha512(disk), "cloud3")


def test_an_image_over_the_size_cap_is_buried_at_once(site: Site) -> None:
    cloud = site.stack.cloud("cloud3")
    lone = site.fork()
    lone.worker()
    cloud.restart(image_size_cap=1000)
    try:
        (job,) = lone.client.upload("too-big", lone.qcow2(), cloud="cloud3", code=1)
        assert lone.client.buried(job)["cloud"] == "cloud3"
        assert not [one for one in lone.cloud("cloud3").named("too-big") if one["status"] != "queued"]
    finally:
        cloud.restart()


def test_bytes_that_arrive_wrong_are_never_called_a_success(site: Site) -> None:
    """The cloud computes another digest than the file has: that image must not stay."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        lone.worker()
        disk = lone.qcow2(2 * images.MIB)
        proxy.corrupt_next("PUT", PUT)
        (job,) = lone.client.upload("corrupted", disk, wait=False)
        done = lone.client.ended(job, 90)
        assert done["state"] == "succeeded", done
        assert proxy.count("PUT", PUT) == 2
        only_active(lone, "corrupted", images.sha512(disk))


@pytest.mark.parametrize("queue", ["sqlite"], indirect=True)
def test_a_locked_queue_file_ends_no_worker(site: Site) -> None:
    """Another program that holds the file for long is waited for."""
    lone = site.fork()
    disk = lone.qcow2()
    worker = lone.worker()
    lone.client.upload("before-the-lock", disk)
    with contextlib.closing(sqlite3.connect(lone.folder / "queue.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        wait_for("the worker notices", lambda: "trying again" in worker.tail(50), 150)
        other.execute("ROLLBACK")
    lone.client.upload("after-the-lock", disk, seconds=60)
    assert worker.is_running()


def test_a_cloud_that_is_added_is_known_after_a_hangup(site: Site) -> None:
    """SIGHUP reads clouds.yaml again: what was an unknown cloud a moment ago gets its image."""
    lone = site.fork()
    worker = lone.worker()
    wait_for("the worker is ready", lambda: "ready" in worker.tail(50), 60)
    disk = lone.qcow2()
    entry = lone.stack.entry("cloud2")
    lone.stack.write_clouds(lone.client.clouds_yaml, {"new-cloud": entry})
    worker.signal(signal.SIGHUP)
    wait_for("the files are read", lambda: "read again" in worker.tail(50), 60)
    lone.client.upload("on-a-new-cloud", disk, cloud="new-cloud")
    assert lone.cloud("cloud2").active("on-a-new-cloud")
