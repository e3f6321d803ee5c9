"""Proxies that know one moment: the n-th request to a cloud, or the n-th publish or acknowledgement to a broker.

There the worker dies: either before the server has heard of it, or when the server has done it and before its answer.
"""

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import BinaryIO

from harness.process import LOOPBACK, free_port
from harness.proxy import Fault, Kind, Proxy

_CHUNK = 16 * 1024
_METHOD, _HEADER, _BODY = 1, 2, 3
_GREETING = 8  # a client's first bytes are no frame
_PUBLISH, _ACK = (60, 40), (60, 80)
_ANY = re.compile("")


class _Awaited:
    """The `number`-th moment; `done` tells whether the server does what it is asked for then. 0 never comes."""

    def __init__(self, number: int, done: bool) -> None:
        self._number = number
        self._done = done
        self._reached = threading.Event()

    def wait_reached(self, over: Callable[[], bool], seconds: float) -> bool:
        """Whether the moment came before the job was `over`."""
        end = time.monotonic() + seconds
        while not self._reached.wait(2.0):
            if over():
                return self._reached.is_set()
            if time.monotonic() > end:
                raise AssertionError(f"neither moment {self._number} nor the end of the job in {seconds:g} s")
        return True


class RequestBoundary(_Awaited, Proxy):
    """Before a cloud. With `number` 0 it only counts."""

    def __init__(self, target_port: int, number: int, done: bool) -> None:
        _Awaited.__init__(self, number, done)
        Proxy.__init__(self, target_port)

    def _read_head(self, client: socket.socket) -> bytes:
        """Each request on a connection of its own: only the first of each is looked at."""
        line, end, rest = super()._read_head(client).partition(b"\r\n")
        return line + end + b"Connection: close\r\n" + rest if line.endswith(b"HTTP/1.1") else line + end + rest

    def fault_of(self, method: str, path: str) -> Fault | None:
        if len(self.requests) != self._number:
            return super().fault_of(method, path)
        fault = Fault(method, _ANY, 0, 1, met=1, kind=Kind.HOLD_ANSWER if self._done else Kind.STALL)
        self._faults.append(fault)
        if self._done:
            fault.held = self._reached
        else:
            self._reached.set()
        return fault


class FrameBoundary(_Awaited):
    """Before a broker. It closes the connection at its moment, in order: what was passed on is read by the broker."""

    def __init__(self, target_port: int, number: int, done: bool) -> None:
        super().__init__(number, done)
        self._target_port = target_port
        self._lock = threading.Lock()
        self.frames: list[str] = []
        self.port = free_port()
        self._listener = socket.create_server((LOOPBACK, self.port), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "FrameBoundary":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._converse, args=(client,), daemon=True).start()

    def _converse(self, client: socket.socket) -> None:
        with client, socket.create_connection((LOOPBACK, self._target_port)) as server:
            back = threading.Thread(target=self._back, args=(server, client), daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                self._there(client, server)
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_WR)
            back.join()

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            # From the moment on nothing is answered, but all is read, so that the broker is not held up.
            while data := server.recv(_CHUNK):
                if not self._reached.is_set():
                    client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)

    def _there(self, client: socket.socket, server: socket.socket) -> None:
        stream = client.makefile("rb")
        server.sendall(_read(stream, _GREETING))
        last: _Content | None = None
        while True:
            frame = _frame(stream)
            if last is None:
                if self._reached.is_set():
                    return  # the moment came on another connection
                if self._is_moment(frame):
                    if not self._done:
                        break
                    last = _Content(frame)
            server.sendall(frame)
            if last is not None and last.ends_with(frame):
                break
        self._reached.set()

    def _is_moment(self, frame: bytes) -> bool:
        if frame[0] != _METHOD or _method(frame) not in (_PUBLISH, _ACK):
            return False
        with self._lock:
            self.frames.append(_name(frame))
            return len(self.frames) == self._number


class _Content:
    """What follows a publish on its channel: a header that tells a size, and bodies, if any."""

    def __init__(self, method: bytes) -> None:
        self._channel = method[1:3]
        self._missing = -1 if _method(method) == _PUBLISH else 0

    def ends_with(self, frame: bytes) -> bool:
        if frame[1:3] == self._channel and frame[0] == _HEADER:
            (self._missing,) = struct.unpack_from(">Q", frame, 7 + 4)
        elif frame[1:3] == self._channel and frame[0] == _BODY:
            self._missing -= len(frame) - 8
        return self._missing == 0


def _method(frame: bytes) -> tuple[int, int]:
    return struct.unpack_from(">HH", frame, 7)


def _name(frame: bytes) -> str:
    """`ack`, or `publish` with exchange and key."""
    if _method(frame) == _ACK:
        return "ack"
    words: list[str] = []
    at = 7 + 6
    for _ in range(2):
        end = at + 1 + frame[at]
        words.append(frame[at + 1 : end].decode())
        at = end
    return " ".join(["publish", *words])


def _frame(stream: BinaryIO) -> bytes:
    """The next frame: type, channel, size, payload, end octet."""
    head = _read(stream, 7)
    return head + _read(stream, struct.unpack_from(">I", head, 3)[0] + 1)


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ConnectionError("the client has gone")
    return data
