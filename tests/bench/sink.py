"""A null sink: just enough Keystone and Glance for every client under test, which throws images away.

A body over HTTP is discarded in the kernel (MSG_TRUNC), so that the sink is never what limits a client. It tells the
digest that it was given for whatever it "stored", and can be held to a rate per connection.
"""

import argparse
import contextlib
import json
import re
import socket
import ssl
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_PIECE = 1 << 20
_FILE = re.compile(r"/image/v2/images/([0-9a-f-]{36})/file$")
_IMAGE = re.compile(r"/image/v2/images/([0-9a-f-]{36})$")
PROJECT = "5" * 32
SOURCE = "00000000-0000-4000-8000-000000000001"


@dataclass
class State:
    """What all connections share."""

    url: str
    rate: float | None
    digest: str
    served: Path | None
    images: dict[str, dict[str, Any]] = field(default_factory=dict)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _token(state: State) -> dict[str, Any]:
    """Half a day of it, so that a long run needs no second one."""
    now = datetime.now(UTC)
    faces = ("public", "internal", "admin")

    def service(kind: str, path: str) -> dict[str, Any]:
        ends = [{"id": face, "interface": face, "region": "sink", "region_id": "sink"} for face in faces]
        return {"type": kind, "id": kind, "name": kind, "endpoints": [{**end, "url": state.url + path} for end in ends]}

    domain = {"id": "default", "name": "Default"}
    return {
        "token": {
            "methods": ["password"],
            "user": {"id": "6" * 32, "name": "sink", "domain": domain},
            "project": {"id": PROJECT, "name": "sink", "domain": domain},
            "roles": [{"id": "7" * 32, "name": "member"}],
            "issued_at": now.strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
            "expires_at": (now + timedelta(hours=12)).strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
            "catalog": [service("identity", "/v3"), service("image", "/image")],
        }
    }


def _versions(state: State, path: str) -> dict[str, Any]:
    def version(name: str, path: str) -> dict[str, Any]:
        return {"id": name, "status": "CURRENT", "links": [{"rel": "self", "href": state.url + path}]}

    if path.startswith("/v3"):
        return {"version": {**version("v3.14", "/v3/"), "status": "stable", "media-types": []}}
    return {"versions": [version("v2.17", "/image/v2/")]}


class Connection:
    """One client, as many requests as it sends."""

    def __init__(self, state: State, sock: socket.socket) -> None:
        self.state = state
        self.sock = sock
        # Over TLS the bytes must be decrypted, else nobody looks at them at all.
        self.flags = 0 if isinstance(sock, ssl.SSLSocket) else socket.MSG_TRUNC
        self.room = memoryview(bytearray(_PIECE))
        self.ahead = b""

    def serve(self) -> None:
        with contextlib.suppress(OSError), self.sock:
            while self._request():
                pass

    def _request(self) -> bool:
        head = self._head()
        if not head:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("expect"):
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        stays = headers.get("connection", "").lower() != "close"
        split = urlsplit(target)
        if method == "PUT" and (found := _FILE.match(split.path)):
            size = self._discard_chunks() if "transfer-encoding" in headers else self._discard(headers)
            self._store(found[1], size)
            self._answer(204, None, stays)
            return stays
        body = self._body(int(headers.get("content-length") or 0))
        if method == "GET" and (found := _FILE.match(split.path)):
            return self._send_file(stays)
        status, answer, more = self._route(method, split.path.rstrip("/") or "/", split.query, body)
        self._answer(status, answer, stays, more)
        return stays

    def _head(self) -> bytes:
        while b"\r\n\r\n" not in self.ahead:
            got = self.sock.recv(65_536)
            if not got:
                return b""
            self.ahead += got
        head, _, self.ahead = self.ahead.partition(b"\r\n\r\n")
        return head

    def _body(self, length: int) -> bytes:
        while len(self.ahead) < length:
            got = self.sock.recv(65_536)
            if not got:
                raise ConnectionResetError
            self.ahead += got
        body, self.ahead = self.ahead[:length], self.ahead[length:]
        return body

    def _discard(self, headers: dict[str, str]) -> int:
        length = int(headers["content-length"])
        self._drop(length, time.monotonic(), 0)
        return length

    def _drop(self, length: int, began: float, before: int) -> None:
        """Throws `length` bytes away; `before` have gone since `began`."""
        rate = self.state.rate
        piece = min(_PIECE, int(rate / 200)) if rate else _PIECE
        gone = min(len(self.ahead), length)
        self.ahead = self.ahead[gone:]
        while gone < length:
            got = self.sock.recv_into(self.room, min(piece, length - gone), self.flags)
            if not got:
                raise ConnectionResetError
            gone += got
            if rate and (left := began + (before + gone) / rate - time.monotonic()) > 0:
                time.sleep(left)

    def _discard_chunks(self) -> int:
        total, began = 0, time.monotonic()
        while True:
            while b"\r\n" not in self.ahead:
                self.ahead += self.sock.recv(64)
            line, _, self.ahead = self.ahead.partition(b"\r\n")
            size = int(line.split(b";")[0], 16)
            self._drop(size, began, total)
            self._body(2)
            if size == 0:
                return total
            total += size

    def _store(self, key: str, size: int) -> None:
        image = self.state.images.setdefault(key, {"id": key})
        digest = self.state.digest
        image.update(status="active", size=size, os_hash_algo="sha512", os_hash_value=digest, checksum=digest[:32])
        image["updated_at"] = _now()

    def _send_file(self, stays: bool) -> bool:
        assert self.state.served is not None
        with self.state.served.open("rb") as source:
            length = self.state.served.stat().st_size
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nContent-Type: application/octet-stream\r\n\r\n"
            self.sock.sendall(head.encode())
            self.sock.sendfile(source)
        return stays

    def _route(self, method: str, path: str, query: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if path == "/v3/auth/tokens":
            return 201, _token(self.state), {"X-Subject-Token": uuid.uuid4().hex}
        if path in ("/", "/v3", "/image", "/image/versions"):
            return (200 if path in ("/v3", "/image/versions") else 300), _versions(self.state, path), {}
        if path == "/image/v2/images":
            status, answer = self._create(body) if method == "POST" else (200, self._list(query))
            return status, answer, {}
        if path == "/image/v2/schemas/image":
            return 200, {"name": "image", "properties": {}}, {}
        found = _IMAGE.match(path)
        image = self.state.images.get(found[1]) if found else None
        if image is None:
            return 404, {"message": "no such image"}, {}
        if method == "PATCH":
            for change in json.loads(body):
                image[change["path"].lstrip("/")] = change.get("value")
        if method == "DELETE":
            self.state.images.pop(image["id"], None)
            return 204, None, {}
        return 200, image, {}

    def _create(self, body: bytes) -> tuple[int, Any]:
        asked = json.loads(body)
        key = asked.get("id") or str(uuid.uuid4())
        if key in self.state.images:
            return 409, {"message": "there is such an image"}
        now = _now()
        basis = {"visibility": "private", "status": "queued", "size": None, "tags": [], "protected": False}
        made = {"owner": PROJECT, "created_at": now, "updated_at": now, "min_disk": 0, "min_ram": 0}
        links = {"self": f"/v2/images/{key}", "file": f"/v2/images/{key}/file", "schema": "/v2/schemas/image"}
        self.state.images[key] = {**basis, **made, **links, **asked, "id": key}
        return 201, self.state.images[key]

    def _list(self, query: str) -> dict[str, Any]:
        wanted = [(key, value) for key, value in parse_qsl(query) if key == "name" or key.startswith("imagewright_")]
        images = list(self.state.images.values())
        found = [image for image in images if all(image.get(key) == value for key, value in wanted)]
        return {"images": found, "schema": "/v2/schemas/images", "first": "/v2/images"}

    def _answer(self, status: int, body: Any, stays: bool, more: dict[str, str] | None = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = {"Date": date, "Connection": "keep-alive" if stays else "close", **(more or {})}
        if body is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        lines = [f"HTTP/1.1 {status} Sink", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self.sock.sendall("\r\n".join(lines).encode() + content)


def _accept(listener: socket.socket, context: ssl.SSLContext | None, state: State) -> None:
    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Connection(state, context.wrap_socket(sock, server_side=True) if context else sock).serve()

    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock,), daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, help="bytes a second of each connection")
    parser.add_argument("--digest", default="0" * 128, help="the SHA-512 to tell of every image")
    parser.add_argument("--served", type=Path, help=f"the data of image {SOURCE}")
    parser.add_argument("--cert", type=Path)
    parser.add_argument("--key", type=Path)
    asked = parser.parse_args()
    context = None
    if asked.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(asked.cert, asked.key)
    state = State(f"http{'s' if context else ''}://127.0.0.1:{asked.port}", asked.rate, asked.digest, asked.served)
    if asked.served:
        size = asked.served.stat().st_size
        hashed = {"os_hash_algo": "sha512", "os_hash_value": asked.digest, "status": "active", "size": size}
        basis = {"id": SOURCE, "name": "source", "disk_format": "qcow2", "container_format": "bare", "owner": PROJECT}
        state.images[SOURCE] = {**basis, **hashed, "created_at": _now(), "updated_at": _now(), "visibility": "private"}
    listener = socket.create_server(("127.0.0.1", asked.port), backlog=128)
    _accept(listener, context, state)


if __name__ == "__main__":
    main()
