"""An HTTPS file server with a certificate authority of its own, as source of images by URL."""

import http.server
import ssl
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import trustme

from harness.process import LOOPBACK, free_port


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    redirects: dict[str, str]
    counts: Counter[str]

    def do_GET(self) -> None:
        """The first folder of the path says how: files, chunked (no length), truncated (a length that lies)."""
        path = self.path.split("?")[0]
        self.counts[self.path] += 1
        if path in self.redirects:
            self._reply(302, {"Location": self.redirects[path], "Content-Length": "0"})
            return
        how, _, name = path.strip("/").partition("/")
        data = self.files.get(name)
        if data is None:
            self._reply(404, {"Content-Length": "0"})
        elif how == "chunked":
            self._reply(200, {"Transfer-Encoding": "chunked"})
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n")
        elif how == "truncated":
            self._reply(200, {"Content-Length": str(len(data)), "Connection": "close"})
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            self._reply(200, {"Content-Length": str(len(data))})
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        data = self.files.get(self.path.split("?")[0].strip("/").partition("/")[2])
        self._reply(404 if data is None else 200, {"Content-Length": str(len(data or b""))})

    def _reply(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


class FileServer:
    """Serves `files` (name to bytes) at https://ADDRESS:PORT/files/NAME, loopback by default; `ca` is to be trusted."""

    def __init__(self, folder: Path, address: str = LOOPBACK) -> None:
        self.port = free_port()
        self.url = f"https://{address}:{self.port}"
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.ca = folder / "files-ca.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(address, "localhost").configure_cert(context)
        shared = {"files": self.files, "redirects": self.redirects, "counts": self.counts}
        self._server = _TlsServer((address, self.port), type("Handler", (_Handler,), shared), context)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, name: str, path: Path) -> str:
        """The URL that serves a copy of that file."""
        self.files[name] = path.read_bytes()
        return f"{self.url}/files/{name}"

    def redirect(self, path: str, location: str) -> str:
        self.redirects[path] = location
        return f"{self.url}{path}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _TlsServer(http.server.ThreadingHTTPServer):
    """The handshake happens in the request's thread, so that a silent client holds up nobody."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[_Handler], context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(address, handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        try:
            with self._context.wrap_socket(request, server_side=True) as secure:
                super().finish_request(secure, client_address)  # pyright: ignore[reportArgumentType]
        except (ssl.SSLError, OSError):
            return
