"""What goes between workers and brokers, read from the bytes that pass a proxy (AMQP 0-9-1, sections 2.3 and 4.2)."""

import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_METHOD, _HEADER, _BODY = 1, 2, 3
LATER_FIELD = b'"future"'
_DELIVER, _PUBLISH, _ACK = (60, 60), (60, 40), (60, 80)
_GREETING = 8  # a client's first bytes are no frame
# Properties before message-id, by their bit in the header's flags; all but the table `headers` are short strings.
_BEFORE_MESSAGE_ID = {15: "text", 14: "text", 13: "table", 12: "octet", 11: "octet", 10: "text", 9: "text", 8: "text"}
_MESSAGE_ID = 7


@dataclass(frozen=True)
class Delivery:
    """A job that a broker gave to a worker."""

    slot: int
    job: str
    redelivered: bool
    later: bool  # it carries what a later version of the worker writes
    at: float  # seconds since the epoch


class Wire:
    """What all connections of all workers carried for one namespace."""

    def __init__(self, namespace: str) -> None:
        self.jobs_exchange = f"{namespace}.jobs"
        self.log_queue = f"{namespace}.log"
        self.wait_prefix = f"{namespace}.wait."
        self.deliveries: list[Delivery] = []
        self._counts: Counter[tuple[int, str]] = Counter()
        self._lock = threading.Lock()

    def listener(self, slot: int) -> "Connection":
        return Connection(self, slot)

    def count(self, slot: int, what: str) -> int:
        """How often a worker's side carried a job taken (`delivered`), an event (`said`), a wait (`put back`)."""
        return self._counts[slot, what]

    def note(self, slot: int, what: str) -> None:
        with self._lock:
            self._counts[slot, what] += 1


class Connection:
    """One connection of one worker."""

    def __init__(self, wire: Wire, slot: int) -> None:
        self._wire = wire
        self._slot = slot
        self._up = _Frames(_GREETING)
        self._down = _Frames(0)
        # A message comes as method, header and body; by channel, until it is there.
        self._redelivered: dict[int, bool] = {}
        self._job: dict[int, str] = {}

    def upstream(self, data: bytes) -> None:
        for kind, _, payload in self._up.feed(data):
            if kind != _METHOD:
                continue
            method = struct.unpack_from(">HH", payload)
            if method == _PUBLISH:
                exchange, at = _text(payload, 6)
                key, _ = _text(payload, at)
                if key == self._wire.log_queue:
                    self._wire.note(self._slot, "said")
                elif exchange.startswith(self._wire.wait_prefix):
                    self._wire.note(self._slot, "put back")
            elif method == _ACK:
                self._wire.note(self._slot, "acknowledged")

    def downstream(self, data: bytes) -> None:
        for kind, channel, payload in self._down.feed(data):
            if kind == _METHOD and struct.unpack_from(">HH", payload) == _DELIVER:
                _, at = _text(payload, 4)
                redelivered = payload[at + 8] != 0
                exchange, _ = _text(payload, at + 9)
                if exchange == self._wire.jobs_exchange:
                    self._redelivered[channel] = redelivered
                    self._wire.note(self._slot, "delivered")
            elif kind == _HEADER and channel in self._redelivered:
                self._job[channel] = _message_id(payload)
            elif kind == _BODY and channel in self._job:
                job, redelivered = self._job.pop(channel), self._redelivered.pop(channel)
                made = Delivery(self._slot, job, redelivered, LATER_FIELD in payload, time.time())
                self._wire.deliveries.append(made)


class _Frames:
    """Cuts one direction of a connection into frames: type, channel, size, payload, end octet."""

    def __init__(self, skip: int) -> None:
        self._buffer = bytearray()
        self._skip = skip

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        self._buffer += data
        if self._skip:
            if len(self._buffer) < self._skip:
                return
            del self._buffer[: self._skip]
            self._skip = 0
        while len(self._buffer) >= 7:
            kind, channel, size = struct.unpack_from(">BHI", self._buffer)
            if len(self._buffer) < size + 8:
                return
            payload = bytes(self._buffer[7 : 7 + size])
            del self._buffer[: size + 8]
            yield kind, channel, payload


def _text(payload: bytes, at: int) -> tuple[str, int]:
    """A short string, and where the next field begins."""
    end = at + 1 + payload[at]
    return payload[at + 1 : end].decode("latin-1"), end


def _message_id(header: bytes) -> str:
    (flags,) = struct.unpack_from(">H", header, 12)
    at = 14
    for bit, form in _BEFORE_MESSAGE_ID.items():
        if not flags & 1 << bit:
            continue
        if form == "table":
            at += 4 + struct.unpack_from(">I", header, at)[0]
        else:
            at += 1 if form == "octet" else 1 + header[at]
    return _text(header, at)[0] if flags & 1 << _MESSAGE_ID else ""
