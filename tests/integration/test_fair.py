"""Room: as many at once as was said, none starved, nothing hoarded, and a shutdown costs nothing."""

import pytest

from harness import images
from harness.process import wait_for
from harness.proxy import Proxy
from harness.site import Site
from harness.transfers import PUT, SIZE, only_active, wait_saving

pytestmark = [pytest.mark.xdist_group("waits"), pytest.mark.timeout(600)]


def test_one_place_serves_every_architecture(site: Site) -> None:
    """A lane without jobs keeps no place from the others."""
    lone = site.fork()
    lone.worker("--concurrency", "upload=1,prune=1")
    for arch in ("ppc64le", "amd64", "armhf"):
        lone.client.upload("one-place", lone.qcow2(), arch=arch, seconds=40)


def test_one_architecture_may_use_every_place(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        lone.worker("--concurrency", "upload=5", "--cloud-transfers", "5")
        proxy.throttle(SIZE / 60)
        disk = lone.qcow2(SIZE)
        jobs = [lone.client.upload("all-places", disk, keep=99, wait=False)[0] for _ in range(5)]
        wait_saving(lone, "all-places", count=5)
        proxy.throttle(None)
        for job in jobs:
            lone.client.tree_ended(job)


def test_a_cloud_with_all_its_places_taken_delays_no_other(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        lone.worker("--cloud-transfers", "2")
        proxy.throttle(SIZE / 150)
        disk = lone.qcow2(SIZE)
        slow = [lone.client.upload("slow-cloud", disk, keep=99, wait=False)[0] for _ in range(12)]
        wait_saving(lone, "slow-cloud", count=2)
        fast = [lone.client.upload("fast-cloud", lone.qcow2(), cloud="cloud2", keep=99, seconds=60) for _ in range(3)]
        assert len(lone.cloud("cloud2").active("fast-cloud")) == len(fast)
        assert sum(one["status"] == "saving" for one in lone.cloud().named("slow-cloud")) == 2
        proxy.throttle(None)
        for job in slow:
            lone.client.tree_ended(job, 90)
        assert len(lone.cloud().active("slow-cloud")) == 12


def test_what_a_busy_worker_cannot_do_now_another_one_does(site: Site) -> None:
    """Prefetch hoards nothing: one worker is full of long transfers, the other has room."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        lone.worker("--concurrency", "upload=2")
        proxy.throttle(SIZE / 150)
        disk = lone.qcow2(SIZE)
        slow = [lone.client.upload("hoard", disk, keep=99, wait=False)[0] for _ in range(2)]
        wait_saving(lone, "hoard", count=2)
        waiting = [
            lone.client.upload("not-hoarded", lone.qcow2(), cloud="cloud2", keep=99, wait=False)[0] for _ in range(6)
        ]
        lone.worker()
        for job in waiting:
            lone.client.tree_ended(job, 60)
        proxy.throttle(None)
        for job in slow:
            lone.client.tree_ended(job, 90)


def test_a_pause_holds_for_every_worker_until_it_is_ended(site: Site) -> None:
    """New jobs wait, what has begun goes on, a worker that starts later heeds it, and other kinds are not touched."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        proxy.throttle(SIZE / 40)
        disk = lone.qcow2(SIZE)
        first = lone.worker()
        (begun,) = lone.client.upload("begun", disk, keep=99, wait=False)
        wait_saving(lone, "begun", count=1)
        assert lone.client.json("pause", "--kind", "upload") == {"paused": ["upload"]}
        wait_for("the worker heeds it", lambda: "paused: no new jobs" in first.log.read_text() or None)
        late = lone.worker()
        wait_for("the second one is ready", lambda: " ready" in late.log.read_text() or None)
        (held,) = lone.client.upload("held", lone.qcow2(), keep=99, wait=False)
        lone.client.prune("begun", 99)
        proxy.throttle(None)
        lone.client.tree_ended(begun, 90)
        assert lone.client.status(held)["state"] == "queued"
        assert lone.cloud().named("held") == []
        assert lone.client.json("resume") == {"paused": []}
        lone.client.tree_ended(held, 30)
        only_active(lone, "held", images.sha512(lone.root / "disk-2.qcow2"))


def test_a_pause_of_an_unknown_kind_is_a_usage_error(site: Site) -> None:
    refused = site.client.try_run("pause", "--kind", "uploads")
    assert refused.code == 64
    assert "uploads" in refused.err
    assert "upload, prune" in refused.err


def test_a_shutdown_burns_no_attempt(site: Site) -> None:
    """Before the message is put back and after: whoever stops hands the job back, and it was its first attempt."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        disk = lone.qcow2(SIZE)
        proxy.throttle(SIZE / 120)
        (job,) = lone.client.upload("stopped", disk, wait=False)
        for transfers, put_back in enumerate((False, True), start=1):
            worker = lone.worker("--grace", "1")
            wait_for("a transfer runs", lambda n=transfers: proxy.count("PUT", PUT) == n and _sending(lone), 100)
            if put_back:
                wait_for("the message was put back", lambda: lone.client.json("log", job)[-1].get("detached"), 60)
            worker.terminate()
            assert worker.wait(60) == 0
        proxy.throttle(None)
        lone.worker()
        lone.client.tree_ended(job, 100)
        assert lone.client.status(job)["attempts"] == 1
        assert not [event for event in lone.client.json("log", job) if event["event"] == "retrying"]
        assert only_active(lone, "stopped", images.sha512(disk))["imagewright_job"] == job


def _sending(site: Site) -> bool:
    return any(one["status"] == "saving" for one in site.cloud().named("stopped"))


def test_a_long_transfer_that_fails_counts_once_and_backs_off(site: Site) -> None:
    """After the message was put back, too: the log tells the next worker how many attempts there were."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        disk = lone.qcow2(SIZE)
        lone.worker()
        lone.worker()
        proxy.throttle(SIZE / 90)
        (job,) = lone.client.upload("long-failure", disk, wait=False)
        wait_for("the message was put back", lambda: lone.client.status(job)["state"] == "waiting", 60, every=0.5)
        proxy.cut()
        proxy.throttle(None)
        lone.client.tree_ended(job, 120)
        retried = [event for event in lone.client.json("log", job) if event["event"] == "retrying"]
        assert [event["attempt"] for event in retried] == [1]
        assert retried[0]["step"] == "send"
        only_active(lone, "long-failure", images.sha512(disk))
