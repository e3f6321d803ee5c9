"""What those who watch a worker see: pages, metrics, and what the service manager is told."""

import contextlib
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from harness.config import PASSWORD
from harness.process import LOOPBACK, wait_for
from harness.proxy import Proxy
from harness.rabbitmq import Broker
from harness.site import Site, message, upload_spec
from harness.transfers import PUT, SIZE, SLOW, STEADY, wait_saving
from harness.watching import Manager, Pages

pytestmark = pytest.mark.xdist_group("waits")

LISTEN = ("--listen", f"{LOOPBACK}:0")

# The contract, as the parser has it: it takes _total off the counters' names.
FAMILIES = {
    "imagewright_build_info",
    "imagewright_start_time_seconds",
    "imagewright_jobs",
    "imagewright_step_duration_seconds",
    "imagewright_queue_ready",
    "imagewright_in_flight",
    "imagewright_transfer_bytes",
    "imagewright_retries",
    "imagewright_dead_jobs",
    "imagewright_broker_connected",
    "imagewright_cloud_auth_failed",
    "imagewright_image_created_timestamp_seconds",
}


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


@pytest.fixture
def lazy_broker() -> Iterator[Broker]:
    """A broker that is not started yet."""
    made = Broker()
    yield made
    made.stop()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("queue", ["rabbitmq"], indirect=True)
def test_a_worker_may_start_before_its_broker_and_outlives_it(
    site: Site, lazy_broker: Broker, manager: Manager, tmp_path: Path
) -> None:
    lone = Site(site.stack, site.files, lazy_broker, tmp_path)
    try:
        worker = lone.worker(*LISTEN, env=manager.env())
        pages = Pages(worker)
        pages.wait_unready("waiting for the queue")
        assert pages.health() == 200
        assert pages.metrics().value("broker_connected") == 0
        assert manager.pending() == [["STATUS=waiting for the queue"]]

        lazy_broker.start()
        pages.wait_ready()
        manager.wait("READY=1")
        manager.wait("STATUS=taking jobs")
        pages.wait_value(1, "broker_connected")
        lone.client.upload("before-the-blip", lone.qcow2())

        lazy_broker.nodes[0].stop()
        pages.wait_unready("the queue is away; what runs goes on")
        manager.wait("STATUS=the queue is away")
        # Two seconds is what a scrape gives to a queue that is there.
        assert min(_took(pages.metrics) for _ in range(5)) < 1.5
        metrics = pages.metrics()
        assert metrics.value("broker_connected") == 0
        assert metrics.value("queue_ready") is None
        assert metrics.value("jobs_total", kind="upload", outcome="succeeded") == 1
        assert pages.health() == 200

        lazy_broker.nodes[0].start()
        pages.wait_ready()
        pages.wait_value(1, "broker_connected")
        manager.wait("STATUS=taking jobs")
        assert all("READY=1" not in lines for lines in manager.pending())
        lone.client.upload("after-the-blip", lone.qcow2())
        pages.wait_value(0, "queue_ready", queue=f"{lone.namespace}.upload.amd64")
        assert worker.is_running()
    finally:
        lone.stop()


def _took(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


@pytest.mark.parametrize("queue", ["sqlite"], indirect=True)
def test_a_locked_queue_file_is_away_until_it_is_free(site: Site) -> None:
    lone = site.fork()
    worker = lone.worker(*LISTEN)
    pages = Pages(worker)
    pages.wait_ready()
    assert pages.metrics().value("broker_connected") == 1
    with contextlib.closing(sqlite3.connect(lone.folder / "queue.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        pages.wait_unready("the queue is away; what runs goes on")
        assert pages.metrics().value("broker_connected") == 0
        assert pages.health() == 200
        other.execute("ROLLBACK")
    pages.wait_ready()
    assert pages.metrics().value("broker_connected") == 1
    lone.client.upload("unlocked", lone.qcow2())


def test_what_became_of_jobs_is_counted(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        pages = Pages(lone.worker(env={"IMAGEWRIGHT_LISTEN": f"{LOOPBACK}:0"}))
        pages.wait_ready()
        disks = [lone.qcow2(), lone.qcow2(512 * 1024)]
        good = [lone.client.upload("counted", disk, cloud="cloud2")[0] for disk in disks]
        proxy.fail("PUT", PUT, 503)
        proxy.fail("POST", r"/v2/images$", 429, headers={"Retry-After": "1"})
        good += lone.client.upload("counted", lone.qcow2(), arch="s390x")
        lost = message({**upload_spec("counted", lone.qcow2()), "cloud": "nowhere"})
        bad = message({**upload_spec("counted", lone.qcow2()), "keep": 0})
        odd = message({**upload_spec("counted", lone.qcow2()), "kind": "paint", "arch": "z80"})
        for one in (lost, bad, odd):
            lone.publish(one)
        for one in (lost, bad, odd):
            lone.client.buried(one["id"])
        for job in good:
            lone.client.tree_ended(job)

        metrics = pages.wait_value(3, "dead_jobs")
        jobs = {(kind, arch, outcome): count for kind, arch, outcome, count in _jobs(pages)}
        assert jobs == {
            ("upload", "amd64", "succeeded"): 2,
            ("upload", "s390x", "succeeded"): 1,
            ("prune", "amd64", "succeeded"): 2,
            ("prune", "s390x", "succeeded"): 1,
            ("upload", "amd64", "failed"): 2,
            ("unknown", "any", "failed"): 1,
        }
        assert metrics.value("retries_total", kind="upload", cause="transient") == 1
        assert metrics.value("retries_total", kind="upload", cause="busy") == 1
        assert metrics.value("retries_total", kind="upload", cause="unknown-cloud") == 2
        assert metrics.value("retries_total", cause="crash") == 0
        assert metrics.value("transfer_bytes_total", cloud="cloud2") == sum(disk.stat().st_size for disk in disks)
        assert metrics.value("in_flight") == 0
        assert metrics.value("step_duration_seconds_count", kind="prune") == 3
        assert (metrics.value("step_duration_seconds_sum", kind="upload") or 0) > 0
        assert metrics.value("queue_ready", queue=f"{lone.namespace}.upload.amd64") == 0
        assert metrics.value("build_info", version=_version(lone)) == 1
        assert set(metrics.families) == FAMILIES
        secrets = [PASSWORD, "nowhere", "paint", "z80", "guest", *good, *(one["id"] for one in (lost, bad, odd))]
        assert [word for word in secrets if word in metrics.text] == []


def _jobs(pages: Pages) -> list[tuple[str, str, str, float]]:
    labels = ("kind", "arch", "outcome")
    samples = pages.metrics().families["imagewright_jobs"].samples
    return [(*(one.labels[label] for label in labels), one.value) for one in samples if one.value]  # type: ignore[misc]


def _version(site: Site) -> str:
    return site.client.run("--version").out.split()[1]


def test_bytes_and_jobs_are_seen_while_they_are_under_way(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        disk = lone.qcow2(SIZE)
        pages = Pages(lone.worker(*LISTEN))
        pages.wait_value(0, "transfer_bytes_total", cloud="cloud1")
        proxy.throttle(STEADY)
        (job,) = lone.client.upload("under-way", disk, wait=False)
        wait_saving(lone, "under-way")
        first = pages.wait_value(1, "in_flight", kind="upload").value("transfer_bytes_total", cloud="cloud1") or 0

        def more() -> bool:
            return (pages.metrics().value("transfer_bytes_total", cloud="cloud1") or 0) > first

        wait_for("more bytes are counted", more, 20)
        assert first < disk.stat().st_size
        lone.client.tree_ended(job)
        metrics = pages.wait_value(0, "in_flight")
        assert metrics.value("transfer_bytes_total", cloud="cloud1") == disk.stat().st_size


def test_a_job_that_was_lost_with_its_worker_is_counted_as_a_crash(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        doomed = lone.worker()
        proxy.throttle(SLOW)
        lone.client.upload("crashed", lone.qcow2(SIZE), wait=False)
        wait_saving(lone, "crashed")
        doomed.kill9()
        proxy.throttle(None)
        pages = Pages(lone.worker(*LISTEN))
        pages.wait_value(1, "retries_total", kind="upload", cause="crash")


def _seconds(image: dict[str, Any]) -> float:
    return datetime.fromisoformat(image["created_at"]).timestamp()


def test_the_age_of_the_newest_image_is_that_of_the_cloud(site: Site) -> None:
    lone = site.fork()
    name = f"aged-{lone.namespace}"
    first = lone.worker(*LISTEN)
    pages = Pages(first)
    label = {"cloud": "cloud2", "name": name, "arch": "arm64"}
    lone.cloud("cloud2").add(name, architecture="aarch64")
    newest = None
    for _ in range(2):
        (job,) = lone.client.upload(name, lone.qcow2(), arch="arm64", cloud="cloud2")
        (image,) = lone.cloud("cloud2").of_job(job)
        newest = _seconds(image)
        pages.wait_value(newest, "image_created_timestamp_seconds", **label)
    first.terminate()
    assert first.wait(70) == 0
    metrics = Pages(lone.worker(*LISTEN)).wait_value(newest, "image_created_timestamp_seconds", **label)
    ours = metrics.families["imagewright_image_created_timestamp_seconds"].samples
    assert [one.labels for one in ours] == [label]


def test_refused_credentials_are_seen_until_they_are_right(site: Site) -> None:
    wrong = {**site.stack.auth(), "password": "out-of-date"}
    lone = site.fork(clouds={"cloud1": {"auth": wrong}})
    worker = lone.worker(*LISTEN)
    pages = Pages(worker)
    pages.wait_value(1, "cloud_auth_failed", cloud="cloud1")
    metrics = pages.wait_value(0, "cloud_auth_failed", cloud="cloud2")
    assert "out-of-date" not in metrics.text
    lone.stack.write_clouds(lone.client.clouds_yaml, {"cloud1": {"auth": {**wrong, "password": "also-wrong"}}})
    worker.signal(signal.SIGHUP)
    wait_for("the files were read", lambda: "read again" in worker.tail(), 60)
    assert pages.metrics().value("cloud_auth_failed", cloud="cloud1") == 1
    lone.stack.write_clouds(lone.client.clouds_yaml)
    worker.signal(signal.SIGHUP)
    pages.wait_value(0, "cloud_auth_failed", cloud="cloud1")


def test_the_service_manager_is_told(site: Site, manager: Manager) -> None:
    lone = site.fork()
    worker = lone.worker(env=manager.env(watchdog_seconds=1))
    manager.wait("READY=1")
    manager.wait("STATUS=taking jobs")
    manager.wait("WATCHDOG=1")
    began = time.monotonic_ns() // 1000
    worker.signal(signal.SIGHUP)
    lines = manager.wait("RELOADING=1")
    (usec,) = [int(line.removeprefix("MONOTONIC_USEC=")) for line in lines if line.startswith("MONOTONIC_USEC=")]
    assert began <= usec <= time.monotonic_ns() // 1000
    manager.wait("READY=1")

    worker.signal(signal.SIGSTOP)
    wait_for("the process is stopped", lambda: _state(worker.pid) == "T", 10)
    manager.pending()
    assert manager.next(2.5) is None, "a stopped process gives no sign of life"
    worker.signal(signal.SIGCONT)
    manager.wait("WATCHDOG=1")

    worker.terminate()
    assert "STATUS=stopping" in manager.wait("STOPPING=1")
    assert worker.wait(70) == 0


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_stopping_worker_says_so_and_a_second_signal_ends_it_at_once(site: Site, manager: Manager) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        worker = lone.worker(*LISTEN, env=manager.env(watchdog_seconds=1))
        pages = Pages(worker)
        proxy.throttle(SLOW / 10)
        lone.client.upload("twice-told", lone.qcow2(SIZE), wait=False)
        wait_saving(lone, "twice-told")
        manager.pending()  # a full socket takes no word more
        worker.terminate()
        pages.wait_unready("stopping")
        manager.wait("STOPPING=1")
        manager.wait("WATCHDOG=1")
        assert pages.health() == 200
        assert pages.metrics().value("in_flight", kind="upload") == 1
        worker.terminate()
        assert worker.wait(10) == 0  # of sixty seconds of grace
        assert "told twice to stop" in worker.tail()


def test_pages_refuse_what_they_are_not_for(site: Site) -> None:
    lone = site.fork()
    pages = Pages(lone.worker(*LISTEN))
    assert pages.get("").status_code == 404
    assert pages.get("metrics/more").status_code == 404
    refusal = pages.get("metrics", "POST")
    assert (refusal.status_code, refusal.headers["allow"]) == (405, "GET")
    with socket.create_connection((LOOPBACK, pages.port)) as talker:
        talker.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")
        assert b" 431 " in talker.recv(64)
    for taken in (f"{LOOPBACK}:{pages.port}", "nonsense"):
        second = lone.worker("--listen", taken)
        assert second.wait(20) == 64
        assert "--listen" in second.tail()
        assert taken in second.tail()
    assert pages.health() == 200


def test_clients_that_get_stuck_keep_nobody_from_the_pages(site: Site) -> None:
    pages = Pages(site.fork().worker(*LISTEN))
    pages.wait_ready()

    def all_pages() -> None:
        for page in ("healthz", "readyz", "metrics"):
            assert pages.get(page).status_code == 200

    seconds = 0.0
    for _ in range(3):
        with contextlib.ExitStack() as stack:
            stuck = [stack.enter_context(socket.create_connection((LOOPBACK, pages.port))) for _ in range(200)]
            for client in stuck:
                with contextlib.suppress(ConnectionError):  # the oldest have been given up by now
                    client.sendall(b"GET /metrics HTTP/1.1\r\n")
            seconds = _took(all_pages)
            stuck[-1].settimeout(15)
            with contextlib.suppress(ConnectionError):
                assert b" 200 " not in stuck[-1].recv(64)
        if seconds < 4:
            return
    raise AssertionError(f"three times after {seconds:.1f} s, as those that get stuck are given up after five")
