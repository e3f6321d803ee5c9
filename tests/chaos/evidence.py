"""What is there in the end, read without the programs under test: the log, the broker's queues, the clouds, and
Glance's own databases."""

import json
import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pika

from chaos import cluster
from chaos.feed import ENDS
from harness.openstack import Glance
from harness.process import wait_for
from harness.rabbitmq import Broker

_MARK = "x-chaos-mark"


@dataclass
class Story:
    """What the log says of one run of one job."""

    job: str
    run: int
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ends(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] in ENDS]

    @property
    def outcome(self) -> str | None:
        """The first terminal event in the order of the log; later ones mean nothing."""
        return self.ends[0]["event"] if self.ends else None

    def ended_at(self) -> float | None:
        return datetime.fromisoformat(self.ends[0]["at"]).timestamp() if self.ends else None


def read_log(broker: Broker, queue: str) -> list[dict[str, Any]]:
    """Every event in the stream, in its order, up to a mark written now."""
    events: list[dict[str, Any]] = []
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        mark = uuid.uuid4().hex
        channel.basic_publish("", queue, b"", pika.BasicProperties(headers={_MARK: mark}), mandatory=True)
        channel.basic_qos(prefetch_count=500)
        offset = {"x-stream-offset": "first"}
        for method, properties, body in channel.consume(queue, arguments=offset, inactivity_timeout=30):
            assert method is not None, f"{queue} gives nothing for 30 s before its end"
            assert properties is not None
            channel.basic_ack(method.delivery_tag or 0)
            if (properties.headers or {}).get(_MARK) == mark:
                return events
            if body:
                events.append(json.loads(body))
    finally:
        connection.close()
    raise AssertionError(f"{queue} ended without its mark")


def stories(events: list[dict[str, Any]]) -> dict[tuple[str, int], Story]:
    found: dict[tuple[str, int], Story] = {}
    for event in events:
        key = event["id"], event.get("run", 0)
        found.setdefault(key, Story(*key)).events.append(event)
    return found


def wait_empty(broker: Broker, namespace: str, seconds: float) -> None:
    """Until every lane, `lost` and every rung of the ladder is empty, messages in workers' hands included."""
    kept = {f"{namespace}.dead", f"{namespace}.log"}

    def empty() -> bool:
        left = {one["name"]: one["messages"] for one in cluster.queues(broker.nodes[0]) if one["messages"]}
        ours = {name: count for name, count in left.items() if name.startswith(f"{namespace}.") and name not in kept}
        assert not ours, str(ours)
        return True

    wait_for("every lane and wait queue is empty", empty, seconds, every=0.5)


@dataclass(frozen=True)
class Record:
    """An image in Glance's own database, deleted ones included."""

    image: str
    name: str
    cloud: str  # the Glance, whatever clouds.yaml calls it
    job: str
    status: str
    deleted: bool
    was_active: bool


_HISTORY = """
SELECT images.id, images.name, stamp.value, images.status, images.deleted, images.os_hash_value IS NOT NULL
FROM images JOIN image_properties AS stamp ON stamp.image_id = images.id AND stamp.name = 'imagewright_job'
JOIN image_properties AS space ON space.image_id = images.id AND space.name = 'imagewright_namespace'
WHERE space.value = ?
"""


def history(glance: Glance, namespace: str) -> list[Record]:
    """Every image that was ever made for a job of the namespace.

    Glance writes size and digest in the one change that makes an image `active`, and leaves them when it is deleted: an
    image with a digest was active, one without never was.
    """
    path = glance.folder / "glance.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        rows = database.execute(_HISTORY, (namespace,)).fetchall()
    return [
        Record(image, name, glance.name, job, status, bool(deleted), bool(active))
        for image, name, job, status, deleted, active in rows
    ]
