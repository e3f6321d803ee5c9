"""Connections to the broker: several hosts, brokers that come late, go away, stall, are short of memory."""

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import images
from harness.cli import ANSWER, Worker
from harness.https import FileServer
from harness.openstack import OpenStack
from harness.process import LOOPBACK, free_port, wait_for
from harness.proxy import Proxy
from harness.rabbitmq import Broker
from harness.site import Site
from harness.transfers import PUT, SIZE, STEADY, only_active, wait_saving

pytestmark = [pytest.mark.xdist_group("broker"), pytest.mark.timeout(600)]

AWAY, BACK = "broker is away", "broker is back"
# Two lines of the broker's log.
HASTY = re.compile(r".*\[warning\].* closing AMQP connection .*\n.*client unexpectedly closed TCP connection\n")


@pytest.fixture(scope="module")
def lab() -> Iterator[Broker]:
    """A broker to be stopped, starved and reconfigured."""
    made = Broker()
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def site(stack: OpenStack, files: FileServer, lab: Broker, tmp_path: Path) -> Iterator[Site]:
    made = Site(stack, files, lab, tmp_path)
    made.declare()  # a node in its first moments ends connections that do
    yield made
    made.stop()


def said(worker: Worker, text: str) -> list[str]:
    """The lines of its log that hold this."""
    return [line for line in worker.log.read_text().splitlines() if text in line]


def wait_said(worker: Worker, text: str, seconds: float = 60.0, times: int = 1) -> None:
    wait_for(f"the worker says {text!r}", lambda: len(said(worker, text)) >= times, seconds)


def through(site: Site, proxy: Proxy) -> None:
    """Workers that start from now on reach cloud1 by the proxy; the oracle is logged in there before they do."""
    site.cloud()
    changes = {"cloud1": {"image_endpoint_override": proxy.url}}
    site.client.clouds_yaml = site.stack.write_clouds(site.folder / "proxied.yaml", changes)


@pytest.mark.parametrize("how", ["dead", "silent", "refusing"])
def test_a_host_that_does_not_take_us_is_passed_over(site: Site, how: str) -> None:
    good = site.client.queue
    with socket.create_server((LOOPBACK, 0)) as silent:
        firsts = {
            "dead": f"amqp://{LOOPBACK}:{free_port()}",
            "silent": f"amqp://{LOOPBACK}:{silent.getsockname()[1]}",
            "refusing": good.replace("guest:guest", "guest:wrong"),
        }
        site.client.queue = f"{firsts[how]},{good}"
        (job,) = site.client.upload(f"past-{how}", site.qcow2(), wait=False, seconds=ANSWER)
        site.worker()
        site.client.queue = good
        site.client.tree_ended(job)


def test_a_login_that_every_host_refuses_is_a_wrong_configuration(site: Site) -> None:
    wrong = site.client.queue.replace("guest:guest", "guest:not-my-password")
    site.client.queue = f"{wrong},{wrong}"
    done = site.client.run("queues", code=64, seconds=ANSWER)
    assert done.err.count("ACCESS_REFUSED") == 2
    assert "not-my-password" not in done.err


def test_what_both_hosts_of_a_list_lack_is_said_within_ten_seconds(site: Site) -> None:
    ports = [free_port(), free_port()]
    site.client.queue = ",".join(f"amqp://{LOOPBACK}:{port}" for port in ports)
    done = site.client.run("queues", code=69, seconds=ANSWER)
    assert all(f"{LOOPBACK}:{port}" in done.err for port in ports)


def test_a_half_open_connection_is_noticed_and_replaced(site: Site) -> None:
    """Nothing moves and nothing is closed: only heartbeats tell. Those of the URL win."""
    direct = site.client.queue
    node = site.broker.nodes[0] if site.broker else None
    assert node is not None
    with Proxy(node.port) as proxy:
        site.client.queue = f"amqp://guest:guest@{LOOPBACK}:{proxy.port}?heartbeat=2,{direct}"
        worker = site.worker()
        wait_said(worker, "ready")
        wait_for("two connections beat", lambda: beats(site).count(2) == 2)
        proxy.pause()
        wait_said(worker, AWAY, 15, times=2)
        wait_said(worker, BACK, 15, times=2)
        assert all(f":{node.port}" in line for line in said(worker, BACK))
        wait_for("two connections beat", lambda: beats(site).count(15) == 2)
        site.client.queue = direct
        (job,) = site.client.upload("half-open", site.qcow2(), wait=False)
        site.client.tree_ended(job)
        assert len(said(worker, AWAY)) == 2
        worker.terminate()
        assert worker.wait(30) == 0


def beats(site: Site) -> list[int]:
    """The heartbeat intervals of the connections there are."""
    assert site.broker is not None
    return [one["timeout"] for one in site.broker.nodes[0].table("connections", ["timeout"])]


def test_a_killed_node_of_a_cluster_is_replaced_by_another(stack: OpenStack, files: FileServer, tmp_path: Path) -> None:
    cluster = Broker(nodes=3)
    cluster.start()
    with Proxy(stack.cloud("cloud1").port) as proxy:
        site = Site(stack, files, cluster, tmp_path, proxies={"cloud1": proxy})
        try:
            site.client.queue = ",".join(node.url for node in cluster.nodes)
            site.cloud()
            disk = site.qcow2(SIZE)
            worker = site.worker()
            wait_said(worker, "ready")
            for node in cluster.nodes:
                node.settle()
            proxy.throttle(STEADY)
            (job,) = site.client.upload("node-killed", disk, wait=False)
            wait_saving(site, "node-killed")
            cluster.nodes[0].kill9()
            wait_said(worker, BACK, times=2)
            assert all(f":{cluster.nodes[0].port}" not in line for line in said(worker, BACK))
            site.client.tree_ended(job, 90)
            assert proxy.count("PUT", PUT) == 1
            only_active(site, "node-killed", images.sha512(disk))
            assert worker.is_running()
            assert len(said(worker, AWAY)) == 2
        finally:
            site.stop()
            cluster.stop()


def test_a_worker_that_starts_before_its_broker_waits_and_says_so_once(site: Site) -> None:
    node = site.broker.nodes[0] if site.broker else None
    assert node is not None
    (job,) = site.client.upload("early-worker", site.qcow2(), wait=False)
    node.stop()
    try:
        worker = site.worker("-v")
        wait_said(worker, AWAY)
        wait_said(worker, "still no broker", times=3)
    finally:
        node.start()
    wait_said(worker, "ready")
    site.client.tree_ended(job)
    warned = [line for line in said(worker, AWAY) if "WARN" in line]
    assert len(warned) == 1, worker.tail(40)
    assert f":{node.port}" in warned[0]


def test_a_broker_away_for_a_minute_neither_aborts_nor_repeats_a_transfer(site: Site) -> None:
    node = site.broker.nodes[0] if site.broker else None
    assert node is not None
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        through(site, proxy)
        disk = site.qcow2(SIZE)
        worker = site.worker()
        proxy.throttle(SIZE / 90)
        (job,) = site.client.upload("broker-away", disk, wait=False)
        wait_saving(site, "broker-away")
        node.stop()
        gone = time.monotonic()
        try:
            wait_said(worker, AWAY, times=2)
            sent = proxy.upstream_bytes
            wait_for("a minute has passed", lambda: time.monotonic() - gone > 60, 70)
            assert proxy.upstream_bytes > sent + SIZE // 3
        finally:
            node.start()
        wait_said(worker, BACK, times=2)
        site.client.tree_ended(job, 100)
        assert proxy.count("PUT", PUT) == 1
        only_active(site, "broker-away", images.sha512(disk))
        assert worker.is_running()
        assert len(said(worker, AWAY)) == 2, worker.tail(60)
        # Slow clouds, and a node in its first moments, are not what this is about.
        others = (" cloud=", "the broker does not do it")
        warned = [line for line in said(worker, "WARN") if not any(word in line for word in others)]
        assert len(warned) == 2, worker.tail(60)


def test_a_broker_short_of_memory_delays_and_loses_nothing(site: Site) -> None:
    node = site.broker.nodes[0] if site.broker else None
    assert node is not None
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        through(site, proxy)
        worker = site.worker()
        disk = site.qcow2(SIZE)
        # Slower than any of what follows: only a worker that has something to say hears that nothing is taken.
        proxy.throttle(SIZE / 300)
        (job,) = site.client.upload("memory", disk, wait=False)
        wait_saving(site, "memory")
        node.ctl("set_vm_memory_high_watermark", "0.0000001")
        try:
            words = ["upload", "--name", "refused", "--arch", "amd64", "--cloud", "cloud2", "--file", disk]
            done = site.client.run(*words, code=69, seconds=ANSWER)
            assert "short of memory" in done.err
            assert "may still be taken" in done.err
            wait_said(worker, "takes no messages for now")
            # Read from no more is only who has published: acknowledgements have a connection of their own.
            assert {one["state"] for one in node.table("connections", ["state"])} == {"blocked", "blocking"}
        finally:
            node.ctl("set_vm_memory_high_watermark", "0.4")
        wait_said(worker, "takes messages again")
        proxy.throttle(None)
        site.client.tree_ended(job)
        assert proxy.count("PUT", PUT) == 1
        only_active(site, "memory", images.sha512(disk))
        assert worker.is_running()
        assert not said(worker, AWAY), worker.tail(60)


def test_connections_are_named_and_closed_in_order(site: Site) -> None:
    node = site.broker.nodes[0] if site.broker else None
    assert node is not None

    def names() -> list[str]:
        listed = node.table("connections", ["client_properties"])
        return [value for one in listed for name, _, value in one["client_properties"] if name == "connection_name"]

    def told() -> str:
        """What the broker logs of a worker and a few commands."""
        worker = site.worker()
        wait_said(worker, "ready")
        host = f"{socket.gethostname()}/{worker.pid}"
        wait_for(
            "both connections are there",
            lambda: {f"imagewright-worker/{role}@{host}" for role in ("publish", "consume")} <= set(names()),
        )
        before = node.log()
        site.client.run("status")
        site.client.run("dead", "list")
        site.client.upload("in-order", site.qcow2())
        worker.terminate()
        assert worker.wait(30) == 0
        wait_for("all connections are closed", lambda: not names())
        return node.log()[len(before) :]

    wait_for("those of other tests are gone", lambda: not names())
    after = told()
    if HASTY.search(after) and not faults(HASTY.sub("", after)):
        after = told()  # a goodbye has half a second, which a loaded machine may not find
    assert "imagewright/publish@" in after
    assert not faults(after), after


def faults(log: str) -> list[str]:
    return [line for line in log.splitlines() if "[warning]" in line or "[error]" in line]
