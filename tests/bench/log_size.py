"""A log of a million events, and how long `imagewright status` takes over it.

The events are those of uploads and their prunes, as workers say them, spread evenly over a span of time that ends now.
"""

import contextlib
import json
import random
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pika

from bench.measure import Cost, run
from harness.cli import Client, program
from harness.process import scratch_folder, wait_for
from harness.rabbitmq import Broker

# Events of one upload with its prune.
STORY = 10
SLACK = 125.0  # seconds by which readers of a stream begin too early: by the id's clock and by the broker's chunks
BATCH = 5000


@dataclass
class Told:
    """A log as it was filled."""

    client: Client
    events: int
    oldest: str = ""
    fresh: str = ""


@dataclass
class Reading:
    """How long each question took."""

    events: int
    costs: dict[str, list[Cost]] = field(default_factory=dict)


def job_id(at: datetime, random_: random.Random) -> uuid.UUID:
    """A version 7 UUID of that time."""
    milliseconds = int(at.timestamp() * 1000)
    value = milliseconds << 80 | 7 << 76 | random_.getrandbits(12) << 64 | 2 << 62 | random_.getrandbits(62)
    return uuid.UUID(int=value)


def story(begin: datetime, random_: random.Random) -> list[dict[str, object]]:
    """What a worker and a producer say of one upload and its prune."""
    name, cloud = f"runner-noble-{random_.randrange(40)}", f"edge-{random_.randrange(100)}"
    arch = random_.choice(["amd64", "arm64", "s390x"])
    job = str(job_id(begin, random_))
    child, image = str(uuid.UUID(int=random_.getrandbits(128), version=5)), str(uuid.UUID(int=random_.getrandbits(128)))
    worker = f"worker-{random_.randrange(20)}/{random_.randrange(1 << 22)}"
    upload = {"id": job, "run": 0, "kind": "upload", "name": name, "arch": arch, "cloud": cloud, "by": worker}
    prune = {**upload, "id": child, "parent": job, "kind": "prune", "arch": None}
    until = _text(begin + timedelta(seconds=50))
    why, error = "a transfer goes on", "send: PUT /v2/images/x/file: 503 Service Unavailable"
    said: list[dict[str, object]] = [
        {**upload, "event": "queued"},
        {**upload, "event": "started", "attempt": 0},
        {**upload, "event": "retrying", "until": until, "error": error, "attempt": 1, "step": "send"},
        {**upload, "event": "started", "attempt": 1},
        {**upload, "event": "waiting", "until": until, "why": why, "attempt": 1, "detached": True},
        {**upload, "event": "started", "attempt": 1},
        {**upload, "event": "succeeded", "result": {"image_id": image, "children": [child]}},
        {**prune, "event": "started", "attempt": 0},
        {**prune, "event": "waiting", "until": until, "why": "the cloud is busy", "attempt": 0},
        {**prune, "event": "succeeded", "result": {"kept": [{"id": image, "rule": "newest"}], "deleted": []}},
    ]
    return [{"at": _text(begin + timedelta(seconds=7 * number)), **event} for number, event in enumerate(said)]


def stories(events: int, span: timedelta, seed: int = 1) -> Iterator[dict[str, object]]:
    """Exactly so many events, in the order of time but for stories that overlap."""
    random_ = random.Random(seed)
    count = events // STORY
    begin = datetime.now(UTC) - span
    for number in range(count):
        yield from story(begin + span * number / count, random_)


def fill_sqlite(client: Client, path: Path, events: int, span: timedelta) -> Told:
    """The whole log in one transaction."""
    client.run("queues")
    told = Told(client, events)
    rows = ((client.namespace, _nanoseconds(event), json.dumps(event)) for event in _noted(told, stories(events, span)))
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as database, database:
        database.executemany("INSERT INTO log (namespace, at_ns, passing, event) VALUES (?, ?, 0, ?)", rows)
    told.fresh = _fresh(client)
    return told


def fill_stream(url: str, stream: str, events: Iterable[dict[str, object]]) -> None:
    """Publishes without waiting for each, until the stream says that it holds all of them."""
    properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()

        def holds() -> int:
            return channel.queue_declare(stream, passive=True).method.message_count

        wanted = holds()
        for event in events:
            channel.basic_publish("", stream, json.dumps(event).encode(), properties)
            wanted += 1
        wait_for(f"{stream} holds {wanted} events", lambda: holds() >= wanted, 300, every=0.2)


def fill_rabbitmq(client: Client, events: int, span: timedelta) -> Told:
    """The whole log, and then a job of its own."""
    client.run("queues")
    told = Told(client, events)
    fill_stream(client.queue, f"{client.namespace}.log", _noted(told, stories(events, span)))
    end = time.monotonic()
    wait_for("a fresh job is told from what was filled in", lambda: time.monotonic() - end > SLACK, 2 * SLACK, every=1)
    told.fresh = _fresh(client)
    return told


def read(told: Told, rounds: int) -> Reading:
    """Each question as a command of its own, from its start to its end."""
    reading = Reading(told.events)
    questions = {"status JOB, fresh": [told.fresh], "status JOB, the oldest": [told.oldest], "status": []}
    for _ in range(rounds):
        for question, words in questions.items():
            command = [program("imagewright"), *told.client.words("status", *words)]
            reading.costs.setdefault(question, []).append(run(command, told.client.env()))
    return reading


def measure(broker: Broker, events: int, rounds: int) -> dict[str, Reading]:
    """All that `status` reads by default: the events of the last 23 hours."""
    span = timedelta(hours=23)
    folder = scratch_folder("bench-log")
    path = folder / "queue.db"
    namespace = f"b{uuid.uuid4().hex[:6]}"
    embedded = Client(f"sqlite:{path}", namespace, folder / "clouds.yaml", folder)
    found = {"SQLite": read(fill_sqlite(embedded, path, events, span), rounds)}
    client = Client(broker.url, namespace, folder / "clouds.yaml", folder)
    found["RabbitMQ"] = read(fill_rabbitmq(client, events, span), rounds)
    return found


def _noted(told: Told, events: Iterator[dict[str, object]]) -> Iterator[dict[str, object]]:
    for event in events:
        told.oldest = told.oldest or str(event["id"])
        yield event


def _fresh(client: Client) -> str:
    """A job that was enqueued just now."""
    words = ["--name", "fresh", "--arch", "amd64", "--cloud", "cloud1", "--file", "/srv/fresh.img"]
    return client.run("upload", *words).out.strip()


def _text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _nanoseconds(event: dict[str, object]) -> int:
    return int(datetime.fromisoformat(str(event["at"])).timestamp() * 1000) * 1_000_000
