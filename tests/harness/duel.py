"""Two workers of one installation, each behind a proxy of its own, and images made older in Glance's own database."""

import contextlib
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.cli import Worker
from harness.proxy import Proxy
from harness.site import Site, message, upload_spec


class Duel:
    """`one` and `two` are the ways of two workers to cloud1; each worker does one upload at a time."""

    def __init__(self, site: Site, one: Proxy, two: Proxy) -> None:
        self.site = site.fork()
        self.one = one
        self.two = two

    def worker(self, proxy: Proxy) -> Worker:
        name = "one" if proxy is self.one else "two"
        entry = {**self.site.stack.entry("cloud1"), "image_endpoint_override": proxy.url}
        clouds = self.site.stack.write_clouds(self.site.folder / f"{name}.yaml", {"cloud1": entry})
        return self.site.worker("--concurrency", "upload=1", env={"OS_CLIENT_CONFIG_FILE": str(clouds)})

    def upload(self, name: str, disk: Path, **spec: Any) -> dict[str, Any]:
        """A job, published once."""
        job = message({**upload_spec(name, disk), **spec})
        self.site.publish(job)
        return job

    def age(self, image_id: str, seconds: int) -> None:
        """As if nobody had touched the image for so long."""
        changed = self._change(
            "UPDATE images SET updated_at = datetime(updated_at, ?) WHERE id = ?", (f"-{seconds} seconds", image_id)
        )
        assert changed == 1, f"no image {image_id}"

    def abandoned(self, job: Mapping[str, Any], number: int = 0, untouched: int = 60) -> str:
        """A generation of a job, as a worker leaves it that died behind a cloud that noticed nothing."""
        image_id = self._create(job, number, architecture="x86_64")
        self._change("UPDATE images SET status = 'saving' WHERE id = ?", (image_id,))
        self.age(image_id, untouched)
        return image_id

    def blocked(self, job: Mapping[str, Any], number: int = 0, untouched: int = 60) -> str:
        """The same of a worker that died while it withdrew the job: empty, and described as nothing."""
        image_id = self._create(job, number, disk_format="raw")
        self.age(image_id, untouched)
        return image_id

    def _create(self, job: Mapping[str, Any], number: int, **described: str) -> str:
        image_id = generation(job, number)
        stamps = {
            "imagewright_job": str(job["id"]),
            "imagewright_kind": "upload",
            "imagewright_asked_at": str(job["asked_at"]),
            "imagewright_version": "0.1.0",
            "imagewright_namespace": self.site.namespace,
            "imagewright_arch": str(job["spec"]["arch"]),
            "imagewright_self": image_id,
        }
        made = {"disk_format": "qcow2", **described, **stamps}
        self.site.cloud().create(str(job["spec"]["name"]), id=image_id, **made)
        return image_id

    def _change(self, statement: str, values: tuple[Any, ...]) -> int:
        path = self.site.stack.cloud("cloud1").folder / "glance.db"
        with contextlib.closing(sqlite3.connect(path, timeout=20)) as database, database:
            return database.execute(statement, values).rowcount


def generation(job: Mapping[str, Any], number: int) -> str:
    """The id of an attempt: uuid5 of the job, the cloud, the run and a number."""
    return str(uuid.uuid5(uuid.UUID(str(job["id"])), f"cloud1/0/{number}"))


@contextlib.contextmanager
def duel(site: Site) -> Iterator[Duel]:
    port = site.stack.cloud("cloud1").port
    with Proxy(port) as one, Proxy(port) as two:
        yield Duel(site, one, two)
