"""What AMQP lets a client put around a message: whatever it is, the job is done, or buried with the reason."""

import datetime
import hashlib
import json
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pika
import pika.data
import pytest

from harness import images
from harness.cli import Worker
from harness.https import FileServer
from harness.openstack import OpenStack
from harness.process import wait_for
from harness.rabbitmq import Broker
from harness.site import Site, message, upload_spec

pytestmark = pytest.mark.xdist_group("rabbitmq")


@dataclass(frozen=True)
class Raw:
    """A field value of a type that pika never writes: its letter and its bytes (RabbitMQ's table of field types)."""

    letter: bytes
    value: bytes


NOON = datetime.datetime(2026, 11, 26, 12, tzinfo=datetime.UTC)
EVERY_TYPE: dict[str, Any] = {
    "a-boolean": True,
    "an-octet": Raw(b"b", struct.pack(">b", -1)),
    "an-unsigned-octet": Raw(b"B", struct.pack(">B", 255)),
    "a-short": Raw(b"s", struct.pack(">h", -2)),
    "an-unsigned-short": Raw(b"u", struct.pack(">H", 65535)),
    "an-int": Raw(b"I", struct.pack(">i", -3)),
    "an-unsigned-int": Raw(b"i", struct.pack(">I", 2**32 - 1)),
    "a-long-long": Raw(b"l", struct.pack(">q", -(2**63))),
    "a-float": Raw(b"f", struct.pack(">f", 0.5)),
    "a-double": Raw(b"d", struct.pack(">d", 1.5)),
    "a-decimal": Decimal("12.34"),
    "a-long-string": "ä text",
    "a-string-of-no-text": Raw(b"S", struct.pack(">I", 2) + b"\xff\xfe"),
    "bytes": b"\xff\xfe",
    "an-array": [1, "two", [3, None], {"four": True}],
    "a-timestamp": NOON,
    "a-table": {"in": {"a": {"table": [b"x", NOON]}}},
    "nothing": None,
    "ü": "no ascii",
}
# Arrays in arrays: five bytes a level, 18,000 levels.
DEEP = b"".join(struct.pack(">cI", b"A", 5 * level) for level in reversed(range(18_000)))
NO_TEXT = b"\xff\xfe \xc3"
OURS = ("attempt", "starts", "detached", "first-at", "last-at", "error", "due", "burial", "mark", "unknown")


@dataclass(frozen=True)
class Frame:
    """What stands around a job that could be done."""

    label: str
    properties: dict[str, Any] = field(default_factory=dict)
    lane: str | bytes = "upload.amd64"


def _ours(value: Any) -> dict[str, Any]:
    return {f"x-imagewright-{name}": value for name in OURS}


def _is_integer(value: Any) -> bool:
    return type(value) is int or (isinstance(value, Raw) and value.letter in b"bBsuIil")


# An integer means something in a header of ours, such as a first attempt in 1970.
OF_NO_MEANING = {label: value for label, value in EVERY_TYPE.items() if label.isascii() and not _is_integer(value)}
FRAMES = [
    Frame("no-properties"),
    Frame("every-type", {"headers": EVERY_TYPE}),
    Frame("many-headers", {"headers": {f"h{number}": "x" * 50 for number in range(1000)}}),
    Frame("one-header-of-100000", {"headers": {"big": "x" * 100_000}}),
    *[Frame(f"ours-{label}", {"headers": _ours(value)}) for label, value in OF_NO_MEANING.items()],
    Frame("broker-headers", {"headers": {"x-death": [{"count": 7, "queue": "x"}], "x-delivery-count": 2}}),
    Frame("broker-headers-of-wrong-types", {"headers": {"x-death": "often", "x-delivery-count": "many"}}),
    Frame("transient", {"delivery_mode": 1}),
    Frame("expires-late", {"expiration": "600000"}),
    Frame("priority", {"priority": 255}),
    Frame("other-content-type", {"content_type": "text/plain; charset=utf-16"}),
    Frame("content-encoding", {"content_encoding": "identity"}),
    Frame("message-id-of-another", {"message_id": str(uuid.uuid4())}),
    Frame("message-id-of-255", {"message_id": "m" * 255}),
    Frame("reply-to", {"reply_to": "amq.rabbitmq.reply-to.nowhere", "correlation_id": "c", "type": "t", "app_id": "a"}),
    Frame("timestamp-of-the-far-future", {"timestamp": 2**63 - 1}),
    Frame("message-id-of-no-text", {"message_id": NO_TEXT}),
    Frame("short-strings-of-no-text", dict.fromkeys(("content_type", "correlation_id", "type", "app_id"), NO_TEXT)),
    Frame("header-names-of-no-text", {"headers": {NO_TEXT: 1, "in": {NO_TEXT: NO_TEXT}}}),
    Frame("deep-headers", {"headers": {"deep": Raw(DEEP[:1], DEEP[1:])}}),
    Frame("routing-key-of-no-text", lane=b"upload." + NO_TEXT),
]


@pytest.fixture(scope="module")
def site(
    stack: OpenStack, files: FileServer, broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    made = Site(stack, files, broker, tmp_path_factory.mktemp("frames"))
    made.client.run("queues")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def worker(site: Site) -> Worker:
    return site.worker()


@pytest.fixture(scope="module")
def sent(site: Site, worker: Worker) -> dict[str, dict[str, Any]]:
    """All frames, sent one after the other to the worker that runs; their jobs by label."""
    assert worker.is_running()
    jobs: dict[str, dict[str, Any]] = {}
    for frame in FRAMES:
        job = message(upload_spec(f"frame-{frame.label}", site.qcow2()))
        _send(site, json.dumps(job).encode(), frame.properties, frame.lane)
        jobs[frame.label] = job
    return jobs


def _send(site: Site, body: bytes, properties: dict[str, Any], lane: str | bytes = "upload.amd64") -> None:
    """Confirmed, as pika sends it, with the field types that it lacks."""
    known = pika.data.encode_value

    def encode(pieces: list[bytes], value: Any) -> int:
        if not isinstance(value, Raw):
            return known(pieces, value)
        pieces.append(value.letter + value.value)
        return 1 + len(value.value)

    with pytest.MonkeyPatch.context() as patch, site.amqp().channel() as channel:
        patch.setattr(pika.data, "encode_value", encode)
        channel.confirm_delivery()
        key: Any = lane  # pika sends bytes too, whatever its types say
        channel.basic_publish(site.amqp().queue("jobs"), key, body, pika.BasicProperties(**properties), mandatory=True)


def _goes_on(site: Site, worker: Worker) -> None:
    """The same worker does the next job, over the same connections, and nothing lies about."""
    (job,) = site.client.upload("after-frames", site.qcow2())
    assert site.client.status(job)["state"] == "succeeded"
    assert worker.is_running()
    assert "panicked" not in worker.tail(5000)
    assert "broker is away" not in worker.tail(5000)
    for queue in ("lost", "upload.amd64", "upload.amd64.started"):
        wait_for(f"{queue} is empty", lambda queue=queue: site.amqp().ready(queue) == 0, 30, every=0.3)


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.label)
def test_a_job_is_done_whatever_stands_around_it(site: Site, sent: dict[str, dict[str, Any]], frame: Frame) -> None:
    job = sent[frame.label]
    site.client.tree_ended(job["id"])
    (image,) = site.cloud().named(job["spec"]["name"])
    assert (image["status"], image["imagewright_job"]) == ("active", job["id"])


def test_a_job_that_claims_to_have_begun_in_1970_is_buried_with_the_reason(site: Site, worker: Worker) -> None:
    for value in (-1, 0, Raw(b"u", struct.pack(">H", 65535))):
        job = message(upload_spec("frame-1970", site.qcow2()))
        _send(site, json.dumps(job).encode(), {"headers": _ours(value)})
        assert "deadline" in site.client.buried(job["id"])["reason"]
    _goes_on(site, worker)


def test_the_worker_goes_on_after_all_of_them(site: Site, worker: Worker, sent: dict[str, dict[str, Any]]) -> None:
    for job in sent.values():
        site.client.ended(job["id"])
    _goes_on(site, worker)
    assert not set(site.client.dead()) & {job["id"] for job in sent.values()}


BODIES = {
    "empty": b"",
    "16-mebibytes-of-text": b"x" * (16 * images.MIB),
    "16-mebibytes-of-json": b'{"version": 1, "k": "' + b"y" * (16 * images.MIB) + b'"}',
    "no-text": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_that_nobody_can_read_is_buried_with_the_reason(site: Site, worker: Worker, body: bytes) -> None:
    _send(site, body, {"headers": EVERY_TYPE, "delivery_mode": 1})
    entry = site.client.buried(f"msg-{hashlib.sha256(body).hexdigest()[:12]}")
    assert entry["reason"]
    assert entry["field"]
    _goes_on(site, worker)


def test_what_expires_before_a_worker_comes_is_done_all_the_same(site: Site) -> None:
    """The broker puts it among the lost, whence it goes back to its lane: accepted is accepted."""
    lone = site.fork()
    lone.client.run("queues")
    job = message(upload_spec("expired", lone.qcow2()))
    _send(lone, json.dumps(job).encode(), {"expiration": "1", "delivery_mode": 2})
    wait_for("it has expired", lambda: lone.amqp().ready("lost") == 1, 30, every=0.2)
    lone.worker()
    lone.client.tree_ended(job["id"])
    assert lone.amqp().ready("lost") == 0
