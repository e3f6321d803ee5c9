"""What is declared on the broker, read from the broker itself, and declared again when it is lost."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.amqp import Amqp
from harness.cli import ARCHES
from harness.https import FileServer
from harness.openstack import OpenStack
from harness.process import wait_for
from harness.rabbitmq import Broker, Node
from harness.site import Site, message, upload_spec

pytestmark = [pytest.mark.xdist_group("topology"), pytest.mark.timeout(400)]

# The arguments that RabbitMQ 3.10, 3.11, 3.12, 3.13 and 4.0 to 4.3 all accept for a type, with the type of their value
# (documentation of each version). Not here, because a version refuses, ignores or reads them otherwise:
# x-max-priority and x-queue-mode (refused), x-consumer-timeout (ignored before 3.12, part of the equivalence check
# from 4.3), x-delayed-retry-* (4.3), x-queue-leader-locator on quorum queues (refused by 3.9).
QUORUM = {
    "x-queue-type": str,
    "x-delivery-limit": int,
    "x-dead-letter-exchange": str,
    "x-dead-letter-routing-key": str,
    "x-dead-letter-strategy": str,
    "x-message-ttl": int,
    "x-expires": int,
    "x-overflow": str,
    "x-max-length": int,
    "x-max-length-bytes": int,
}
STREAM = {
    "x-queue-type": str,
    "x-max-age": str,
    "x-max-length-bytes": int,
    "x-stream-max-segment-size-bytes": int,
}
EXCHANGE = {"alternate-exchange": str}

NO_LIMIT = 2_147_483_647
RUNGS = (1, 5, 15, 60, 300, 1800, 7200)
VHOST = "lab"


@pytest.fixture(scope="module")
def lab() -> Iterator[Broker]:
    """A broker with users and virtual hosts that come and go."""
    made = Broker()
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def node(lab: Broker) -> Iterator[Node]:
    """Its node, with an empty virtual host."""
    found = lab.nodes[0]
    make_vhost(found)
    yield found
    found.ctl("delete_vhost", VHOST)


@pytest.fixture
def site(stack: OpenStack, files: FileServer, lab: Broker, node: Node, tmp_path: Path) -> Iterator[Site]:
    """An installation on that virtual host."""
    made = Site(stack, files, lab, tmp_path)
    made.client.queue = f"{node.url}/{VHOST}"
    yield made
    made.stop()


def make_vhost(node: Node) -> None:
    node.ctl("add_vhost", VHOST)
    node.ctl("set_permissions", "-p", VHOST, "guest", ".*", ".*", ".*")


def arguments(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, _, value in entry["arguments"]}


def declared(site: Site, node: Node) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Queues and exchanges of the namespace by the rest of their name."""
    site.client.run("queues")
    prefix = f"{site.namespace}."
    queues = node.table("queues", ["name", "durable", "auto_delete", "exclusive", "arguments"], VHOST)
    exchanges = node.table("exchanges", ["name", "type", "durable", "arguments"], VHOST)
    return (
        {one["name"].removeprefix(prefix): one for one in queues},
        {one["name"].removeprefix(prefix): one for one in exchanges if one["name"].startswith(prefix)},
    )


def allowed(kind: dict[str, type], given: dict[str, Any]) -> bool:
    return all(name in kind and isinstance(value, kind[name]) for name, value in given.items())


def test_every_argument_is_one_that_all_supported_brokers_accept(site: Site, node: Node) -> None:
    queues, exchanges = declared(site, node)
    for name, queue in queues.items():
        given = arguments(queue)
        kind = {"quorum": QUORUM, "stream": STREAM}[given["x-queue-type"]]
        assert allowed(kind, given), (name, given)
        # Transient and classic queues that are shared are refused by 4.x.
        assert queue["durable"], name
        assert not queue["auto_delete"], name
        assert not queue["exclusive"], name
        # -1 is "no limit" on 4.x and "no second delivery" on 3.10; without any, 4.x sets 20.
        assert given["x-queue-type"] == "stream" or given["x-delivery-limit"] > 0, name
        # At-least-once dead-lettering needs both others.
        if given.get("x-dead-letter-strategy") == "at-least-once":
            assert given["x-overflow"] == "reject-publish"
            assert given["x-dead-letter-exchange"]
    for name, exchange in exchanges.items():
        assert allowed(EXCHANGE, arguments(exchange)), name
        assert exchange["durable"], name
        assert exchange["type"] in ("topic", "fanout", "direct", "headers")


def test_what_is_declared_is_what_the_design_asks_for(site: Site, node: Node) -> None:
    queues, exchanges = declared(site, node)
    ours = site.namespace
    quorum = {"x-queue-type": "quorum", "x-overflow": "reject-publish"}
    sure = {**quorum, "x-dead-letter-strategy": "at-least-once"}
    lanes = {f"{kind}.{arch}" for kind in ("upload", "snapshot", "build", "base-image") for arch in ARCHES}
    lanes |= {"prune.any"}
    wanted: dict[str, dict[str, Any]] = {"dead": {**quorum, "x-delivery-limit": NO_LIMIT}}
    wanted["lost"] = wanted["dead"]
    wanted |= {f"pause.{kind}": wanted["dead"] for kind in ("upload", "prune", "snapshot", "build", "base-image")}
    wanted["log"] = {
        "x-queue-type": "stream",
        "x-max-age": "30D",
        "x-max-length-bytes": 2_000_000_000,
        "x-stream-max-segment-size-bytes": 50_000_000,
    }
    for seconds in RUNGS:
        wanted[f"wait.{seconds}"] = {
            **sure,
            "x-delivery-limit": NO_LIMIT,
            "x-message-ttl": seconds * 1000,
            "x-dead-letter-exchange": f"{ours}.jobs",
        }
    lane = {**sure, "x-delivery-limit": 20, "x-dead-letter-exchange": f"{ours}.lost"}
    found = {name: arguments(queue) for name, queue in queues.items()}
    kinds = {name.partition(".")[0] for name in found} & {name.partition(".")[0] for name in lanes}
    for name in (name for name in lanes if name.partition(".")[0] in kinds):
        wanted[name] = wanted[f"{name}.started"] = lane
    assert found == wanted
    assert {"upload", "prune"} <= kinds
    assert {name: (one["type"], arguments(one)) for name, one in exchanges.items()} == {
        "jobs": ("topic", {"alternate-exchange": f"{ours}.lost"}),
        "events": ("topic", {}),
        "lost": ("fanout", {}),
        **{f"wait.{seconds}": ("topic", {}) for seconds in RUNGS},
    }
    assert bindings(site, node) == {
        ("lost", "lost", "#"),
        *((f"wait.{seconds}", f"wait.{seconds}", "#") for seconds in RUNGS),
        *(("jobs", name, name) for name in wanted if name.removesuffix(".started") in lanes),
    }


def bindings(site: Site, node: Node) -> set[tuple[str, str, str]]:
    prefix = f"{site.namespace}."
    listed = node.table("bindings", ["source_name", "destination_name", "routing_key"], VHOST)
    return {
        (
            one["source_name"].removeprefix(prefix),
            one["destination_name"].removeprefix(prefix),
            one["routing_key"],
        )
        for one in listed
        if one["source_name"]
    }


def test_a_virtual_host_that_was_deleted_and_made_again_is_filled_again(site: Site, node: Node) -> None:
    worker = site.worker()
    (job,) = site.client.upload("before", site.qcow2(), wait=False)
    site.client.tree_ended(job)
    node.ctl("delete_vhost", VHOST)
    wait_for("the worker has noticed", lambda: "broker is away" in worker.tail(1000))
    make_vhost(node)
    wait_for("the worker has declared its lanes", lambda: consumers(site, node).get("upload.amd64", 0) == 1, 60)
    (job,) = site.client.upload("after", site.qcow2(), wait=False)
    site.client.tree_ended(job)
    assert worker.is_running()


def consumers(site: Site, node: Node) -> dict[str, int]:
    listed = node.table("queues", ["name", "consumers"], VHOST)
    return {one["name"].removeprefix(f"{site.namespace}."): int(one["consumers"]) for one in listed}


@pytest.mark.parametrize("lost", ["upload.amd64", "prune.any", "log", "lost"])
def test_a_queue_that_was_deleted_by_hand_is_declared_again(site: Site, node: Node, lost: str) -> None:
    worker = site.worker()
    (job,) = site.client.upload("before", site.qcow2(), wait=False)
    site.client.tree_ended(job)
    amqp = Amqp(site.client.queue, site.namespace)
    amqp.delete_queues([amqp.queue(lost)])
    if lost != "log":
        # What is consumed from comes back by itself.
        wait_for(f"{lost} is consumed from", lambda: consumers(site, node).get(lost, 0) == 1, 40)
    (job,) = site.client.upload("after", site.qcow2(), wait=False)
    site.client.tree_ended(job, 90)
    assert worker.is_running()


def test_exchanges_that_were_deleted_by_hand_are_declared_again(site: Site, node: Node) -> None:
    """The worker misses them when it puts a job off; no command runs that would declare them."""
    site.worker()
    disk = site.qcow2()
    # Lanes are taken from when all is declared.
    wait_for("the worker takes jobs", lambda: consumers(site, node).get("upload.amd64", 0) == 1)
    amqp = Amqp(site.client.queue, site.namespace)
    with amqp.channel() as channel:
        for seconds in RUNGS:
            channel.exchange_delete(amqp.queue(f"wait.{seconds}"))
    assert not ladder(site, node)
    job = message(upload_spec("put-off", disk, cloud="unheard-of"))
    amqp.publish("upload.amd64", json.dumps(job).encode())
    wait_for("the wait ladder is there again", lambda: len(ladder(site, node)) == len(RUNGS), 40)
    assert site.client.buried(job["id"], 90)["field"] == "spec.cloud"


def ladder(site: Site, node: Node) -> set[str]:
    names = {one["name"] for one in node.table("exchanges", ["name"], VHOST)}
    return {name for name in names if name.startswith(f"{site.namespace}.wait.")}
