"""Places for workers: each has proxies of its own to brokers and clouds, so that each is seen and hurt apart."""

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chaos.plan import CLOUDS, SLOW, SLOW_BYTES_PER_SECOND
from chaos.wire import Wire
from harness.cli import Worker
from harness.process import LOOPBACK, HarnessError
from harness.proxy import Proxy
from harness.rabbitmq import Broker
from harness.site import Site

_FILE = re.compile(r"^/v2/images/([0-9a-f-]{36})/file$")


class Slot:
    """A worker that is started again whenever it was killed; all its lives write one log."""

    def __init__(self, number: int, site: Site, broker: Broker | None, wire: Wire, binary: Path | None) -> None:
        self.number = number
        self.binary = binary
        self.wire = wire
        self.folder = site.client.folder / f"slot{number}"
        self.folder.mkdir()
        self.log = self.folder / "worker.log"
        self._site = site
        nodes = broker.nodes if broker else []
        self.brokers = [Proxy(node.port, lambda: wire.listener(number)) for node in nodes]
        self.clouds = {name: Proxy(site.stack.cloud(SLOW.get(name, name)).port) for name in (*CLOUDS, *SLOW)}
        for name in SLOW:
            self.clouds[name].throttle(SLOW_BYTES_PER_SECOND)
        self._clouds_yaml = site.stack.write_clouds(self.folder / "clouds.yaml", cloud_entries(site, self.clouds))
        # Each begins with another node.
        turned = self.brokers[number % 3 :] + self.brokers[: number % 3]
        urls = [f"amqp://guest:guest@{LOOPBACK}:{proxy.port}" for proxy in turned]
        self.queue = ",".join(urls) or site.client.queue
        self.worker: Worker | None = None
        self.kills = 0
        self._read = 0
        self.events: list[dict[str, Any]] = []

    def start(self) -> None:
        site = self._site
        words = ["--queue", self.queue, "--namespace", site.namespace, "--log-format", "json", "-v"]
        words += ["--file-root", str(site.root), "--policy", str(site.policy)]
        env = {**site.client.env(), "OS_CLIENT_CONFIG_FILE": str(self._clouds_yaml)}
        self.worker = Worker(words, self.log, env, self.folder, self.binary)

    def check_alive(self) -> None:
        if self.worker is not None and not self.worker.is_running():
            code = self.worker.exit_code()
            raise HarnessError(f"worker {self.number} ended by itself with {code}:\n{self.worker.tail(20)}")

    def kill9(self) -> None:
        self.check_alive()
        if self.worker is not None:
            self.worker.kill9()
            self.kills += 1

    def stop(self) -> None:
        if self.worker is not None:
            self.worker.kill9()
        for proxy in self.proxies():
            proxy.close()

    def proxies(self) -> list[Proxy]:
        return [*self.brokers, *self.clouds.values()]

    def requests(self, method: str = "", path: str = "") -> int:
        """Requests to clouds so far."""
        found = (one for proxy in self.clouds.values() for one in list(proxy.requests))
        return sum(1 for one in found if method in ("", one.method) and re.search(path, one.path))

    def is_sending(self) -> bool:
        """Whether a cloud says that it is receiving an image for which this worker sent the last PUT."""
        for name, proxy in self.clouds.items():
            sent = [
                match[1] for one in list(proxy.requests) if one.method == "PUT" and (match := _FILE.match(one.path))
            ]
            if sent and _is_saving(self._site, SLOW.get(name, name), sent[-8:]):
                return True
        return False

    def follow(self) -> list[dict[str, Any]]:
        """All that its lives have said about jobs."""
        if self.log.exists():
            with self.log.open("rb") as lines:
                lines.seek(self._read)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    self.events += _job_events(line)
        return self.events


def cloud_entries(site: Site, proxies: Mapping[str, Proxy]) -> dict[str, dict[str, Any]]:
    """Changes to clouds.yaml that lead each cloud through its proxy."""
    return {
        name: {**site.stack.entry(SLOW.get(name, name)), "image_endpoint_override": proxy.url}
        for name, proxy in proxies.items()
    }


def _job_events(line: bytes) -> Iterator[dict[str, Any]]:
    # A killed worker may leave half a line, with the next life's first line behind it.
    try:
        said = json.loads(line)
    except ValueError:
        return
    if isinstance(said, dict) and "job.id" in said and "event" in said:
        yield said


def _is_saving(site: Site, cloud: str, images: list[str]) -> bool:
    path = site.stack.cloud(cloud).folder / "glance.db"
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        marks = ",".join("?" * len(images))
        query = f"SELECT count(*) FROM images WHERE status = 'saving' AND deleted = 0 AND id IN ({marks})"
        return database.execute(query, images).fetchone()[0] > 0
    finally:
        database.close()
