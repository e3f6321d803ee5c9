"""What the cluster says of itself, asked by rabbitmqctl on a node."""

import json
import subprocess
from collections.abc import Callable
from typing import Any, TypeVar

from harness.process import HarnessError, wait_for
from harness.rabbitmq import Broker, Node

T = TypeVar("T")

# The last offset of each replica of a stream, the writer's first.
_OFFSETS = """
Rows = rabbit_stream_queue:status(<<"/">>, <<"{queue}">>),
io:format("~w", [[proplists:get_value(offset, Row, -2) || Role <- [writer, replica], Row <- Rows,
                  proplists:get_value(role, Row) =:= Role]]).
"""

# The replicated state of a quorum queue: who holds which message.
_STATE = """
{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)),
ra:leader_query(amqqueue:get_pid(Q), fun(State) -> State end).
"""


def queues(node: Node) -> list[dict[str, Any]]:
    counts = ("messages", "messages_ready", "messages_unacknowledged", "consumers")
    columns = ("name", *counts, "leader", "members", "online", "type")
    return json.loads(node.ctl("-q", "--formatter", "json", "list_queues", *columns))


def describe(node: Node) -> str:
    """Queues, and who holds what; for people who look for the cause of a failure."""
    wanted = {
        "list_queues": ("name", "messages_ready", "messages_unacknowledged", "consumers", "leader"),
        "list_channels": ("pid", "connection", "number", "consumer_count", "messages_unacknowledged"),
        "list_connections": ("pid", "name", "client_properties"),
        "list_consumers": (),
    }
    told = [(what, node.ctl(what, *columns)) for what, columns in wanted.items()]
    held = [str(one["name"]) for one in queues(node) if one["messages_unacknowledged"]]
    told += [(queue, node.ctl("eval", _STATE.format(queue=queue))) for queue in held]
    return "\n".join(f"{what}\n{text}" for what, text in told)


def leader(broker: Broker, queue: str) -> Node:
    """The node that leads a queue, or writes a stream."""
    name = next(one["leader"] for one in queues(broker.nodes[0]) if one["name"] == queue)
    return next(node for node in broker.nodes if node.name == name)


def wait_whole(broker: Broker, namespace: str, seconds: float = 180.0) -> None:
    """Until every node answers, every queue has a leader and all its members, and no replica of the log lags behind."""
    for node in broker.nodes:
        node.wait_ready(seconds)
    wait_for("every queue is whole", lambda: _queues_whole(broker, namespace), seconds, every=0.2)
    log = f"{namespace}.log"
    written = wait_for("the log has a writer", lambda: _offsets(broker, log), seconds)[0]

    def caught_up() -> bool:
        offsets = _offsets(broker, log)
        return len(offsets) == len(broker.nodes) and min(offsets) >= written

    wait_for(f"every replica of the log is at {written}", caught_up, seconds, every=0.2)


def _queues_whole(broker: Broker, namespace: str) -> bool:
    nodes = {node.name for node in broker.nodes}
    found = [one for one in _asked(lambda: queues(broker.nodes[0])) if one["name"].startswith(f"{namespace}.")]
    assert found, "no queue of the namespace"
    whole = [
        one["type"] == "classic"
        or (one["leader"] in nodes and set(one["online"] or ()) == set(one["members"] or ()) == nodes)
        for one in found
    ]
    assert all(whole), f"{whole.count(False)} of {len(found)} queues lack members"
    return True


def _offsets(broker: Broker, queue: str) -> list[int]:
    text = _asked(lambda: broker.nodes[0].ctl("eval", _OFFSETS.format(queue=queue)))
    return json.loads(text.splitlines()[0].removesuffix("ok"))


def _asked(question: Callable[[], T]) -> T:
    """A node that is just starting, or has just lost a peer, answers no question: that is "not yet"."""
    try:
        return question()
    except (HarnessError, subprocess.TimeoutExpired) as error:
        raise AssertionError(str(error)[-300:]) from error
