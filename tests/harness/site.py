"""A whole installation under test: a queue of its own, clouds.yaml, policy, folders, and workers on request."""

import itertools
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from harness import images, sqlite
from harness.amqp import Amqp
from harness.cli import ARCHES, Client, Worker
from harness.https import FileServer
from harness.openstack import OpenStack
from harness.oracle import Images
from harness.process import wait_for
from harness.proxy import Proxy
from harness.rabbitmq import Broker

_numbers = itertools.count(1)


class Site:
    """One namespace on one backend. `fork` gives a separate one, for tests that break things: the broker has its queues
    and the oracle is logged in at cloud1 before anything of the test is under way.
    """

    def __init__(
        self,
        stack: OpenStack,
        files: FileServer,
        broker: Broker | None,
        folder: Path,
        proxies: Mapping[str, Proxy] | None = None,
        policy: Mapping[str, Any] | None = None,
        clouds: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.stack = stack
        self.files = files
        self.broker = broker
        self.namespace = f"t{next(_numbers)}-{uuid.uuid4().hex[:6]}"
        self.folder = folder / self.namespace
        self.root = self.folder / "images"
        self.root.mkdir(parents=True)
        changes = {name: dict(entry) for name, entry in (clouds or {}).items()}
        for name, proxy in (proxies or {}).items():
            changes.setdefault(name, {})["image_endpoint_override"] = proxy.url
        clouds_yaml = stack.write_clouds(self.folder / "clouds.yaml", changes)
        self.policy = self.folder / "policy.yaml"
        self.policy.write_text(yaml.safe_dump({"adopt": ["adopt-*"], **(policy or {})}))
        queue = broker.url if broker else f"sqlite:{self.folder / 'queue.db'}"
        self.client = Client(queue, self.namespace, clouds_yaml, self.folder, {"SSL_CERT_FILE": str(files.ca)})
        self._workers: list[Worker] = []
        self._forks: list[Site] = []
        self._declared = False
        self._images = itertools.count(1)
        self._oracles: dict[tuple[str, str], Images] = {}

    @property
    def backend(self) -> str:
        return "rabbitmq" if self.broker else "sqlite"

    def amqp(self) -> Amqp:
        assert self.broker is not None
        return Amqp(self.broker.url, self.namespace)

    def fork(
        self,
        proxies: Mapping[str, Proxy] | None = None,
        policy: Mapping[str, Any] | None = None,
        clouds: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> "Site":
        made = Site(self.stack, self.files, self.broker, self.folder, proxies, policy, clouds)
        self._forks.append(made)
        if self.broker:
            made.declare()
        made.cloud()
        return made

    def declare(self) -> None:
        """What is published to is there. A namespace is some eighty queues, and a command has nine seconds for them."""

        def declared() -> bool:
            done = self.client.try_run("queues")
            assert done.code == 0, done.err
            return True

        if not self._declared:
            wait_for(f"{self.namespace} is declared", declared, 60)
            self._declared = True

    def worker(
        self,
        *more: str | Path,
        kinds: str = "upload,prune,base-image",
        arches: Sequence[str] = ARCHES,
        env: Mapping[str, str] | None = None,
    ) -> Worker:
        """Starts a worker that may read `root` and fetch from the file server."""
        words = ["--kind", kinds, "--arch", ",".join(arches), "--file-root", self.root, "--policy", self.policy]
        worker = self.client.worker(*words, "--url-host", "127.0.0.1", *more, env=env)
        self._workers.append(worker)
        return worker

    def drain(self, seconds: float = 90.0) -> None:
        """Does all jobs there are, and insists that the worker then ends well."""
        worker = self.worker("--drain")
        code = worker.wait(seconds)
        assert code == 0, f"--drain ended with {code}\n{worker.tail(60)}"

    def stop(self) -> None:
        self.stop_forks()
        for worker in self._workers:
            worker.kill9()

    def stop_forks(self) -> None:
        for made in self._forks:
            made.stop()
        self._forks.clear()

    def logs(self) -> str:
        own = [f"--- {worker.log.parent.name}/{worker.log.name}\n{worker.tail(40)}" for worker in self._workers]
        return "\n".join([*own, *(made.logs() for made in self._forks)])

    def cloud(self, name: str = "cloud1", project: str = "images") -> Images:
        """The oracle's view of a cloud; the first logs in, which takes longer than a look."""
        key = (name, project)
        if key not in self._oracles:
            self._oracles[key] = Images(self.stack.connect(name, project))
        return self._oracles[key]

    def qcow2(self, size: int = 128 * 1024) -> Path:
        """A new real image with content of its own."""
        return images.small_qcow2(self.root / f"disk-{next(self._images)}.qcow2", size=size)

    def publish(self, message: Mapping[str, Any] | bytes, lane: str = "upload.amd64") -> None:
        """Puts a message on the queue behind the programs' backs."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.declare()
        if self.broker:
            self.amqp().publish(lane, body)
        else:
            sqlite.publish(self.folder / "queue.db", self.namespace, lane, body)


def message(spec: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A version 1 job as a foreign service would write it."""
    return {"version": 1, "id": str(uuid.uuid4()), "asked_at": now(), "spec": dict(spec), **more}


def now(in_seconds: float = 0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=in_seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def upload_spec(name: str, file: Path, **more: Any) -> dict[str, Any]:
    """Only the required fields, unless more are given."""
    return {"kind": "upload", "name": name, "arch": "amd64", "cloud": "cloud1", "source": {"file": str(file)}, **more}
