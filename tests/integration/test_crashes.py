"""Crashes in the middle of the work: one image in the end, and nothing lost."""

import signal
import subprocess
import uuid
from pathlib import Path

import pytest

from harness import images
from harness.process import wait_for
from harness.proxy import Proxy
from harness.site import Site, message, upload_spec
from harness.transfers import PUT, SIZE, SLOW, STEADY, only_active, wait_saving

pytestmark = [pytest.mark.xdist_group("waits"), pytest.mark.timeout(600)]


def test_a_worker_killed_in_an_upload_leaves_one_image_after_its_restart(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        disk = lone.qcow2(SIZE)
        worker = lone.worker()
        proxy.throttle(SLOW)
        (job,) = lone.client.upload("killed-worker", disk, wait=False)
        wait_saving(lone, "killed-worker")
        worker.kill9()
        proxy.throttle(None)
        lone.worker()
        lone.client.tree_ended(job, 100)
        assert only_active(lone, "killed-worker", images.sha512(disk))["imagewright_job"] == job


def test_a_worker_killed_behind_a_cloud_that_noticed_nothing_is_taken_over(site: Site) -> None:
    """The connection stays open behind the proxy, so the image stays `saving` until somebody takes over."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        disk = lone.qcow2(SIZE)
        worker = lone.worker()
        proxy.throttle(200_000)
        (job,) = lone.client.upload("taken-over", disk, wait=False)
        wait_saving(lone, "taken-over")
        proxy.pause()
        worker.kill9()
        lone.client.clouds_yaml = lone.stack.write_clouds(lone.folder / "direct.yaml")
        lone.worker()
        lone.client.tree_ended(job, 150)
        proxy.cut()
        wait_for("one image is left", lambda: len(lone.cloud().named("taken-over")) == 1)
        assert only_active(lone, "taken-over", images.sha512(disk))["imagewright_job"] == job


def test_a_cloud_killed_in_an_upload_has_one_image_after_its_restart(site: Site) -> None:
    """Killed, Glance leaves the image `saving` for ever: only a new one can be filled."""
    cloud = site.stack.cloud("cloud3")
    with Proxy(cloud.port) as proxy:
        lone = site.fork(proxies={"cloud3": proxy})
        disk = lone.qcow2(SIZE)
        lone.worker()
        proxy.throttle(SLOW)
        (job,) = lone.client.upload("killed-cloud", disk, cloud="cloud3", wait=False)
        wait_saving(lone, "killed-cloud", "cloud3")
        try:
            cloud.kill9()
            proxy.throttle(None)
        finally:
            cloud.start()
        lone.client.tree_ended(job, 150)
        assert only_active(lone, "killed-cloud", images.sha512(disk), "cloud3")["imagewright_job"] == job


def test_two_workers_with_the_same_job_make_one_image(site: Site) -> None:
    """Five copies of the message, two workers, and a transfer slow enough that they meet."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        disk = lone.qcow2(4 * images.MIB)
        proxy.throttle(SIZE / 8)
        job = message(upload_spec("two-workers", disk))
        for _ in range(5):
            lone.publish(job)
        workers = [lone.worker(), lone.worker()]
        lone.client.tree_ended(job["id"], 100)
        proxy.throttle(None)
        for worker in workers:
            worker.terminate()
            assert worker.wait(70) == 0
        lone.drain()
        only_active(lone, "two-workers", images.sha512(disk))
        assert [one["imagewright_job"] for one in lone.cloud().of_job(job["id"])] == [job["id"]]


def test_a_successor_whose_maker_died_is_removed_when_the_first_image_won(site: Site) -> None:
    """Generation 0 is verified, generation 1 was created and abandoned: the job ends with 0, and 1 goes."""
    lone = site.fork()
    lone.worker()
    job = message(upload_spec("abandoned-successor", lone.qcow2()))
    lone.publish(job)
    lone.client.tree_ended(job["id"])
    (first,) = lone.cloud().active("abandoned-successor")
    ids = [str(uuid.uuid5(uuid.UUID(job["id"]), f"cloud1/0/{generation}")) for generation in range(2)]
    assert first["id"] == ids[0]
    stamps = {key: value for key, value in first.items() if key.startswith("imagewright_")}
    del stamps["imagewright_verified"]
    lone.cloud().create("abandoned-successor", id=ids[1], **{**stamps, "imagewright_self": ids[1]})
    lone.publish(job)
    wait_for("the successor is gone", lambda: lone.cloud().get(ids[1]) is None, 120)
    assert only_active(lone, "abandoned-successor", first["os_hash_value"])["id"] == ids[0]


def test_a_worker_told_to_end_finishes_what_it_began(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        disk = lone.qcow2(SIZE)
        worker = lone.worker()
        proxy.throttle(STEADY)
        (job,) = lone.client.upload("terminated", disk, wait=False)
        wait_saving(lone, "terminated")
        worker.terminate()
        assert worker.wait(65) == 0
        lone.drain()
        lone.client.tree_ended(job)
        only_active(lone, "terminated", images.sha512(disk))


def test_a_draining_worker_ends_when_all_is_done(site: Site) -> None:
    lone = site.fork()
    jobs = [
        lone.client.upload(f"drained-{arch}", lone.qcow2(), arch=arch, wait=False)[0] for arch in ("amd64", "s390x")
    ]
    bad = message({**upload_spec("drained-bad", lone.qcow2()), "keep": 0})
    lone.publish(bad)
    lone.drain()
    for job in jobs:
        assert lone.client.status(job)["state"] == "succeeded"
    assert lone.client.status(bad["id"])["state"] == "failed"
    lone.drain()


def test_jobs_of_other_arches_and_kinds_stay_on_the_queue(site: Site) -> None:
    lone = site.fork()
    (other,) = lone.client.upload("other-arch", lone.qcow2(), arch="arm64", wait=False)
    (ours,) = lone.client.upload("our-arch", lone.qcow2(), wait=False)
    lone.worker(kinds="upload", arches=["amd64"])
    done = lone.client.succeeded(ours)
    assert lone.client.status(other)["state"] == "queued"
    (prune,) = done["children"]
    assert lone.client.status(prune)["state"] == "queued"
    assert not lone.cloud().named("other-arch")


def test_a_long_upload_beats_and_is_done_once(site: Site) -> None:
    """A transfer of more than twenty seconds is looked at by the other worker, which leaves it alone."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        disk = lone.qcow2(SIZE)
        lone.worker()
        lone.worker()
        proxy.throttle(SIZE / 40)
        (job,) = lone.client.upload("long", disk, seconds=110)
        assert proxy.count("PUT", PUT) == 1
        assert proxy.count("PATCH") >= 2
        assert only_active(lone, "long", images.sha512(disk))["imagewright_job"] == job


@pytest.mark.parametrize("queue", ["rabbitmq"], indirect=True)
def test_losing_the_broker_aborts_no_transfer_and_ends_no_worker(site: Site) -> None:
    broker = Proxy(site.broker.nodes[0].port) if site.broker else None
    assert broker is not None
    with broker, Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        direct = lone.client.queue
        lone.client.queue = f"amqp://guest:guest@127.0.0.1:{broker.port}"
        disk = lone.qcow2(SIZE)
        worker = lone.worker()
        proxy.throttle(STEADY)
        lone.client.queue = direct
        (job,) = lone.client.upload("broker-blip", disk, wait=False)
        wait_saving(lone, "broker-blip")
        broker.cut()
        lone.client.tree_ended(job, 90)
        assert worker.is_running()
        assert proxy.count("PUT", PUT) == 1
        only_active(lone, "broker-blip", images.sha512(disk))


def test_a_command_that_is_interrupted_while_it_waits_leaves_the_job_going(site: Site) -> None:
    lone = site.fork()
    disk = lone.qcow2()
    words = [
        "upload",
        "--name",
        "interrupted",
        "--arch",
        "amd64",
        "--cloud",
        "cloud1",
        "--file",
        disk,
        "--wait",
        "--json",
    ]
    running = lone.client.start(*words)
    wait_for("the job is queued", lambda: _queued(lone) == 1, 60, every=0.2)
    wait_for("the command minds the signal", lambda: _minds(running.pid, signal.SIGINT), 60)
    running.send_signal(signal.SIGINT)
    try:
        assert running.wait(20) == 130
    except subprocess.TimeoutExpired:
        running.kill()
        raise
    lone.drain()
    only_active(lone, "interrupted", images.sha512(disk))


def _minds(pid: int, number: int) -> bool:
    """Whether a process catches a signal."""
    text = Path(f"/proc/{pid}/status").read_text()
    (caught,) = [int(line.split()[1], 16) for line in text.splitlines() if line.startswith("SigCgt:")]
    return bool(caught >> (number - 1) & 1)


def _queued(site: Site) -> int:
    queues = {entry["queue"]: entry["ready"] for entry in site.client.json("queues")}
    return sum(ready for queue, ready in queues.items() if "upload.amd64" in queue)
