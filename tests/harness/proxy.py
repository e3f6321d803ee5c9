"""A loopback proxy before a cloud or a broker: counts, slows down, pauses, cuts, and answers in the server's place."""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol, Self

from harness.process import LOOPBACK, free_port, wait_for

_CHUNK = 16 * 1024
_MIDDLE = 400_000  # bytes into a body: past every header of a small image


class Kind(Enum):
    """What happens to a request that is met."""

    ANSWER = auto()  # an answer of our own
    STALL = auto()  # no answer, until the connection is cut
    CORRUPT = auto()  # it arrives with other bytes
    LOSE = auto()  # it arrives and is done, but the answer is lost with the connection
    HOLD = auto()  # it waits here until it is let go
    HOLD_ANSWER = auto()  # it is done, and its answer waits here until it is let go
    FREEZE = auto()  # it stops in its body, until the server gives up or the connection is cut


@dataclass
class Fault:
    """For the next `times` requests that match."""

    method: str
    path: re.Pattern[str]
    status: int
    times: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    met: int = 0
    kind: Kind = Kind.ANSWER
    gate: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)  # the answer has begun to come, and is kept

    def wait_met(self, seconds: float = 60.0) -> None:
        wait_for(f"{self.method} {self.path.pattern} comes", lambda: self.met > 0, seconds, every=0.01)

    def let_go(self) -> None:
        self.gate.set()


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    at: float


class Listener(Protocol):
    """Hears one connection, each direction by itself; raises nothing."""

    def upstream(self, data: bytes) -> None: ...

    def downstream(self, data: bytes) -> None: ...


class Proxy:
    """TCP through and through; the first request of each connection is read as HTTP (the servers close after each)."""

    def __init__(self, target_port: int, listen: Callable[[], Listener] | None = None) -> None:
        """`listen` is asked for a listener at each connection."""
        self.target_port = target_port
        self._listen = listen
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.requests: list[Request] = []
        self.upstream_bytes = 0
        self._rate: float | None = None
        self._faults: list[Fault] = []
        self._open: set[socket.socket] = set()
        self._running = threading.Event()
        self._running.set()
        self._closed = False
        self._lock = threading.Lock()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Small buffers: what a client has written is not far from what the server has read.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * _CHUNK)
        self._listener.bind((LOOPBACK, self.port))
        self._listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def throttle(self, bytes_per_second: float | None) -> None:
        """Towards the server, each connection by itself; None lifts it, also for transfers under way."""
        self._rate = bytes_per_second

    def pause(self) -> None:
        """Nothing moves in either direction, connections stay open."""
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    def cut(self) -> None:
        """Resets every open connection; new ones are still taken."""
        with self._lock:
            doomed, self._open = self._open, set()
        for one in doomed:
            _reset(one)

    def close(self) -> None:
        self._closed = True
        self.resume()
        with self._lock:
            held = list(self._faults)
        for fault in held:
            fault.let_go()
        # A thread blocked in accept() is only woken by shutdown().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def fail(
        self,
        method: str,
        path: str,
        status: int,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Fault:
        """Answers the next `times` requests itself; `path` is a regular expression searched in the request target."""
        return self._add(Fault(method, re.compile(path), status, times, dict(headers or {}), body))

    def stall(self, method: str, path: str, times: int = 1) -> Fault:
        """The next `times` requests get no answer, until `cut` or the client gives up."""
        return self._add(Fault(method, re.compile(path), 0, times, kind=Kind.STALL))

    def corrupt_next(self, method: str, path: str) -> Fault:
        """Lets the next such request through with a few bytes in the middle of its body inverted."""
        return self._add(Fault(method, re.compile(path), 0, 1, kind=Kind.CORRUPT))

    def lose_answer(self, method: str, path: str) -> Fault:
        """The next such request is done, and its client never hears of it."""
        return self._add(Fault(method, re.compile(path), 0, 1, kind=Kind.LOSE))

    def freeze_next(self, method: str, path: str) -> Fault:
        """The next such request stops in its body; that the client goes meanwhile is not passed on."""
        return self._add(Fault(method, re.compile(path), 0, 1, kind=Kind.FREEZE))

    def hold(self, method: str, path: str) -> Fault:
        """Keeps the next such request from the server until it is let go."""
        return self._add(Fault(method, re.compile(path), 0, 1, kind=Kind.HOLD))

    def hold_answer(self, method: str, path: str) -> Fault:
        """Lets the server do the next such request, and keeps the answer until it is let go."""
        return self._add(Fault(method, re.compile(path), 0, 1, kind=Kind.HOLD_ANSWER))

    def _add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def count(self, method: str, path: str = "") -> int:
        """Requests so far; `path` is a regular expression searched in the request target."""
        with self._lock:
            return sum(1 for one in self.requests if one.method == method and re.search(path, one.path))

    def forget(self) -> None:
        """Counts from zero and drops the faults not yet met."""
        with self._lock:
            self.requests.clear()
            self._faults.clear()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self._open.add(client)
        try:
            with contextlib.suppress(OSError):
                self._converse(client)
        finally:
            self._drop(client)

    def _converse(self, client: socket.socket) -> None:
        head = self._read_head(client)
        fault = self._note(head)
        kind = fault.kind if fault is not None else None
        if fault is not None and kind in (Kind.ANSWER, Kind.STALL):
            self._answer(client, fault)
            return
        if fault is not None and kind is Kind.HOLD:
            fault.gate.wait()
        server = socket.create_connection((LOOPBACK, self.target_port), timeout=10)
        server.settimeout(None)
        with self._lock:
            self._open.add(server)
        hear = self._listen() if self._listen else None
        answers = _swallow if kind is Kind.LOSE else self._pump_back
        holds = fault if kind is Kind.HOLD_ANSWER else None
        back = threading.Thread(target=answers, args=(server, client, hear, holds), daemon=True)
        try:
            back.start()
            if hear:
                hear.upstream(head)
            server.sendall(head)
            self._pump_there(client, server, hear, kind, back)
            back.join()
        finally:
            self._drop(server)

    def _read_head(self, client: socket.socket) -> bytes:
        """Bytes up to the end of an HTTP head; the first bytes of anything else."""
        head = client.recv(_CHUNK)
        while re.match(rb"[A-Z]{3,7} /", head) and b"\r\n\r\n" not in head and len(head) < 65_536:
            more = client.recv(_CHUNK)
            if not more:
                break
            head += more
        return head

    def _note(self, head: bytes) -> Fault | None:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3:
            return None
        method, path = words[0], words[1]
        with self._lock:
            self.requests.append(Request(method, path, time.monotonic()))
            return self.fault_of(method, path)

    def fault_of(self, method: str, path: str) -> Fault | None:
        """What happens to the last of `requests`."""
        for fault in self._faults:
            if fault.method == method and fault.path.search(path) and fault.met < fault.times:
                fault.met += 1
                return fault
        return None

    def _answer(self, client: socket.socket, fault: Fault) -> None:
        if fault.kind is Kind.STALL:
            while client.recv(_CHUNK):
                pass
            return
        headers = {"Content-Length": str(len(fault.body)), "Connection": "close", **fault.headers}
        lines = [f"HTTP/1.1 {fault.status} Scripted", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        client.sendall("\r\n".join(lines).encode() + fault.body)
        client.shutdown(socket.SHUT_WR)
        client.settimeout(5)
        while client.recv(_CHUNK):
            pass

    def _pump_there(
        self,
        client: socket.socket,
        server: socket.socket,
        hear: Listener | None,
        kind: Kind | None,
        back: threading.Thread,
    ) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := self._receive(client):
                if kind is Kind.CORRUPT and passed <= _MIDDLE < passed + len(data):
                    data = bytes(255 - byte for byte in data[:8]) + data[8:]
                if hear:
                    hear.upstream(data)
                passed += len(data)
                server.sendall(data)
                self.upstream_bytes += len(data)
                self._hold_back(len(data))
                if kind is Kind.FREEZE:
                    back.join()
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _pump_back(
        self, server: socket.socket, client: socket.socket, hear: Listener | None, holds: Fault | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := self._receive(server):
                if holds is not None:
                    holds.held.set()
                    holds.gate.wait()
                if hear:
                    hear.downstream(data)
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)

    def _receive(self, source: socket.socket) -> bytes:
        self._running.wait()
        data = source.recv(_CHUNK)
        self._running.wait()
        return data

    def _hold_back(self, sent: int) -> None:
        """Waits as long as `sent` bytes take at the present rate, and looks at the rate again meanwhile."""
        began = time.monotonic()
        while (rate := self._rate) is not None and not self._closed:
            left = began + sent / rate - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.1))

    def _drop(self, one: socket.socket) -> None:
        with self._lock:
            self._open.discard(one)
        with contextlib.suppress(OSError):
            one.close()


def _swallow(server: socket.socket, client: socket.socket, _: Listener | None, __: Fault | None) -> None:
    """Waits for the whole answer, and resets the client instead of passing it on."""
    with contextlib.suppress(OSError):
        while server.recv(_CHUNK):
            pass
    _reset(client)


def _reset(one: socket.socket) -> None:
    """RST instead of FIN; shutdown first, so that a thread blocked in recv() wakes."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        one.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        one.close()
