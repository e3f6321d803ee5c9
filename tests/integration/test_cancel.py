"""Cancelling: within seconds wherever the job is, nothing left behind, and never both cancelled and done."""

import uuid

import pytest

from harness.process import wait_for
from harness.proxy import Proxy
from harness.site import Site, message, upload_spec
from harness.transfers import PUT, SIZE, wait_saving

pytestmark = [pytest.mark.xdist_group("waits"), pytest.mark.timeout(400)]


def cancelled(site: Site, job: str) -> None:
    site.client.run("cancel", job, "--wait", seconds=75)
    assert site.client.status(job)["state"] == "cancelled"


def test_a_queued_job_that_no_worker_took_is_cancelled_by_the_first_one(site: Site) -> None:
    lone = site.fork()
    (job,) = lone.client.upload("cancel-queued", lone.qcow2(), wait=False)
    lone.client.run("cancel", job)
    lone.drain()
    assert lone.client.status(job)["state"] == "cancelled"
    assert not lone.cloud().named("cancel-queued")


def test_a_transfer_is_cancelled_in_its_middle(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        lone.worker()
        proxy.throttle(SIZE / 60)
        (job,) = lone.client.upload("cancel-running", lone.qcow2(SIZE), wait=False)
        wait_saving(lone, "cancel-running")
        cancelled(lone, job)
        assert not lone.cloud().named("cancel-running")
        proxy.throttle(None)
        lone.drain()
        assert proxy.count("PUT", PUT) == 1
        assert lone.client.status(job)["state"] == "cancelled"


def test_a_transfer_that_goes_on_without_its_message_is_cancelled(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        lone.worker()
        lone.worker()
        proxy.throttle(SIZE / 90)
        (job,) = lone.client.upload("cancel-long", lone.qcow2(SIZE), wait=False)
        wait_for("the message was put back", lambda: lone.client.status(job)["state"] == "waiting", 50, every=0.5)
        assert lone.cloud().named("cancel-long")[0]["status"] == "saving"
        cancelled(lone, job)
        wait_for("the slower worker's mark is removed too", lambda: not lone.cloud().named("cancel-long"), 20)
        proxy.throttle(None)
        lone.drain()
        assert proxy.count("PUT", PUT) == 1
        assert not lone.cloud().named("cancel-long")


def test_a_job_that_waits_for_its_next_attempt_is_cancelled_at_once(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        lone.worker()
        proxy.fail("PUT", PUT, 503, headers={"Retry-After": "600"})
        (job,) = lone.client.upload("cancel-waiting", lone.qcow2(), wait=False)
        wait_for("it waits", lambda: lone.client.status(job)["state"] == "waiting", 30, every=0.3)
        cancelled(lone, job)
        assert not lone.cloud().named("cancel-waiting")


def test_cancelling_a_job_cancels_what_it_led_to(site: Site) -> None:
    lone = site.fork()
    (job,) = lone.client.upload("cancel-parent", lone.qcow2(), wait=False)
    child = message(upload_spec("cancel-child", lone.qcow2()), parent=job)
    lone.publish(child)
    lone.client.run("cancel", job)
    lone.drain()
    assert lone.client.status(job)["state"] == "cancelled"
    assert lone.client.status(child["id"])["state"] == "cancelled"
    assert not lone.cloud().named("cancel-child")


def test_a_job_that_has_ended_is_not_cancelled(site: Site) -> None:
    (job,) = site.client.upload("cancel-ended", site.qcow2())
    refused = site.client.run("cancel", job, code=64)
    assert "succeeded" in refused.err
    assert site.client.status(job)["state"] == "succeeded"
    assert len(site.cloud().active("cancel-ended")) == 1


def test_a_worker_told_to_stop_ends_what_it_is_taking_back(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        worker = lone.worker()
        proxy.fail("PUT", PUT, 503, headers={"Retry-After": "600"})
        (job,) = lone.client.upload("cancel-stopped", lone.qcow2(), wait=False)
        wait_for("it waits", lambda: lone.client.status(job)["state"] == "waiting", 30, every=0.3)
        held = proxy.hold("DELETE", r"^/v2/images/")
        lone.client.run("cancel", job)
        held.wait_met()
        worker.terminate()
        wait_for("it stops", lambda: "stopping" in worker.tail(1000), 30)
        held.let_go()
        assert worker.wait(30) == 0
        assert not lone.cloud().named("cancel-stopped")
        assert lone.client.status(job)["state"] == "cancelled"


def test_cancelling_what_nobody_knows_ends_with_66(site: Site) -> None:
    site.client.run("cancel", str(uuid.uuid4()), code=66)


def test_cancelling_against_completion_ends_in_exactly_one_of_the_two(site: Site) -> None:
    """Requests that meet their jobs at every stage: each job has its image, or is cancelled and has none."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        workers = [lone.worker(), lone.worker()]
        proxy.throttle(SIZE / 8)
        jobs: list[str] = []
        for number in range(16):
            (job,) = lone.client.upload(f"{lone.namespace}-{number}", lone.qcow2(), keep=99, wait=False)
            jobs.append(job)
            if number % 4 == 0:
                # Asked again for what may have ended: refused, or heeded.
                for earlier in jobs[-3:]:
                    lone.client.try_run("cancel", earlier)
        for job in jobs:
            lone.client.try_run("cancel", job)
        ended = [lone.client.ended(job, 60) for job in jobs]
        # Of two workers that cancel at once, the slower one removes its mark after the faster one has said so; a worker
        # that is told to stop waits for what it is removing.
        for worker in workers:
            worker.terminate()
        assert [worker.wait(30) for worker in workers] == [0, 0]
    for number, (job, entry) in enumerate(zip(jobs, ended, strict=True)):
        images = lone.cloud().named(f"{lone.namespace}-{number}")
        if entry["state"] == "succeeded":
            assert [image["id"] for image in images] == [entry["result"]["image_id"]]
            assert images[0]["status"] == "active"
        else:
            assert (entry["state"], images) == ("cancelled", []), job
