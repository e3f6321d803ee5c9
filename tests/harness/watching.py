"""What a worker tells those who watch it: its pages, its metrics, and its datagrams to the service manager."""

import contextlib
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import requests
from prometheus_client.parser import text_string_to_metric_families

from harness.cli import Worker
from harness.process import DeadlinePassed, wait_for

_BOUND = re.compile(r"listening: .* address=(?:\x1b\[\d+m|=)*(\S+:\d+)")
_COLOURS = re.compile(r"\x1b\[\d+m")


class Metrics:
    """One scrape, as the official parser reads it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, /, **labels: str) -> float | None:
        """The sum of the samples with these labels, whatever the others; none where there are none."""
        found = [
            sample.value
            for sample in self._samples
            if sample.name == f"imagewright_{name}" and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None


class Pages:
    """The pages of a worker that was started with --listen; its log tells where."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.url = f"http://{wait_for('the worker listens', self._bound, 20)}"

    def _bound(self) -> str | None:
        found = _BOUND.search(_COLOURS.sub("", self.worker.log.read_text(errors="replace")))
        assert found or self.worker.is_running(), self.worker.tail()
        return found and found[1]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def get(self, page: str, method: str = "GET") -> requests.Response:
        return requests.request(method, f"{self.url}/{page}", timeout=10)

    def health(self) -> int:
        return self.get("healthz").status_code

    def readiness(self) -> tuple[int, str]:
        answer = self.get("readyz")
        return answer.status_code, answer.text

    def wait_ready(self, seconds: float = 60.0) -> None:
        wait_for("the worker is ready", lambda: self.readiness() == (200, "ok\n"), seconds)

    def wait_unready(self, reason: str, seconds: float = 60.0) -> None:
        wait_for(f"not ready: {reason}", lambda: self.readiness() == (503, f"{reason}\n"), seconds)

    def metrics(self) -> Metrics:
        answer = self.get("metrics")
        answer.raise_for_status()
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return Metrics(answer.text)

    def wait_value(self, expected: float | None, name: str, /, **labels: str) -> Metrics:
        """Until a metric has that value, a minute at most; the scrape that said so."""

        def scrape() -> Metrics | None:
            metrics = self.metrics()
            value = metrics.value(name, **labels)
            assert value == expected, f"it is {value}"
            return metrics

        return wait_for(f"{name}{labels} is {expected}", scrape, 60, every=0.2)


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def env(self, watchdog_seconds: float | None = None) -> Mapping[str, str]:
        usec = {} if watchdog_seconds is None else {"WATCHDOG_USEC": str(int(watchdog_seconds * 1_000_000))}
        return {"NOTIFY_SOCKET": str(self._path), **usec}

    def next(self, seconds: float) -> list[str] | None:
        """The lines of the next datagram, if one comes in that time."""
        self._socket.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            return self._socket.recv(4096).decode().splitlines()
        return None

    def wait(self, line: str, seconds: float = 30.0) -> list[str]:
        """The first datagram from now on with a line that begins so."""
        passed: list[list[str]] = []
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and (lines := self.next(left)) is not None:
            if any(one.startswith(line) for one in lines):
                return lines
            passed.append(lines)
        raise DeadlinePassed(f"no {line} within {seconds:g} s, but {passed[-8:]}")

    def pending(self) -> list[list[str]]:
        """What has come so far."""
        come: list[list[str]] = []
        while (lines := self.next(0.001)) is not None:
            come.append(lines)
        return come

    def close(self) -> None:
        self._socket.close()
