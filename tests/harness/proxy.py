"""A loopback proxy before a cloud or a broker: counts, slows down, pauses, cuts, and answers in the server's place."""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.process import LOOPBACK, free_port

_CHUNK = 16 * 1024
_MIDDLE = 400_000  # bytes into a body: past every header of a small image


@dataclass
class Fault:
    """For the next `times` requests that match: an answer of our own, or none at all (`status` 0: stall, then cut)."""

    method: str
    path: re.Pattern[str]
    status: int
    times: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    met: int = 0
    corrupt: bool = False


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    at: float


class Proxy:
    """TCP through and through; the first request of each connection is read as HTTP (the servers close after each)."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
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

    def __enter__(self) -> "Proxy":
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
        fault = Fault(method, re.compile(path), status, times, dict(headers or {}), body)
        with self._lock:
            self._faults.append(fault)
        return fault

    def stall(self, method: str, path: str, times: int = 1) -> Fault:
        """The next `times` requests get no answer, until `cut` or the client gives up."""
        return self.fail(method, path, 0, times)

    def corrupt_next(self, method: str, path: str) -> Fault:
        """Lets the next such request through with a few bytes in the middle of its body inverted."""
        fault = self.fail(method, path, 0)
        fault.corrupt = True
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
        if fault is not None and not fault.corrupt:
            self._answer(client, fault)
            return
        server = socket.create_connection((LOOPBACK, self.target_port), timeout=10)
        server.settimeout(None)
        with self._lock:
            self._open.add(server)
        back = threading.Thread(target=self._pump, args=(server, client, False), daemon=True)
        try:
            back.start()
            server.sendall(head)
            self._pump(client, server, True, corrupt_at=_MIDDLE if fault is not None else None)
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
            for fault in self._faults:
                if fault.method == method and fault.path.search(path) and fault.met < fault.times:
                    fault.met += 1
                    return fault
        return None

    def _answer(self, client: socket.socket, fault: Fault) -> None:
        if fault.status == 0:
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

    def _pump(self, source: socket.socket, sink: socket.socket, upstream: bool, corrupt_at: int | None = None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while True:
                self._running.wait()
                data = source.recv(_CHUNK)
                self._running.wait()
                if not data:
                    break
                if corrupt_at is not None and passed <= corrupt_at < passed + len(data):
                    data = bytes(255 - byte for byte in data[:8]) + data[8:]
                passed += len(data)
                sink.sendall(data)
                if upstream:
                    self.upstream_bytes += len(data)
                    self._hold_back(len(data))
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

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


def _reset(one: socket.socket) -> None:
    """RST instead of FIN; shutdown first, so that a thread blocked in recv() wakes."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        one.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        one.close()
