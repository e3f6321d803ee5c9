"""Builds and snapshots, on a cloud of recorded answers, and what must be there in the end."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from fakes.cloud import FakeCloud
from fakes.state import BASE, FLAVOR, NETWORK
from harness.cli import Client
from harness.process import wait_for
from harness.rabbitmq import Broker

END_SECONDS = 300.0
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Ground:
    """One fake cloud; each job has a folder of its own. `broker` is none for the embedded queue."""

    cloud: FakeCloud
    folder: Path
    broker: Broker | None

    @property
    def words(self) -> list[str | Path]:
        """What workers are started with."""
        return ["--policy", self.folder / "policy.yaml", "--kind", "build,snapshot,upload,prune"]

    def client(self, url: str, namespace: str | None) -> Client:
        """Everything reaches the cloud at this address; a namespace that was used before is empty again."""
        name = f"job{next(_numbers)}"
        folder = self.folder / name
        folder.mkdir()
        allowed = {"ssh_from": ["127.0.0.0/8"], "ssh_port": self.cloud.ssh_port, "servers": ["*"]}
        (self.folder / "policy.yaml").write_text(yaml.safe_dump(allowed))
        entry = self.cloud.entry()
        entry["auth"]["auth_url"] = f"{url}/identity/v3"
        clouds = folder / "clouds.yaml"
        clouds.write_text(yaml.safe_dump({"clouds": {"fake": entry}}))
        queue = self.broker.url if self.broker else f"sqlite:{folder / 'queue.db'}"
        return Client(queue, namespace or f"{self.folder.name}-{name}", clouds, folder)


AskFake = Callable[[Ground, Client], tuple[str, Callable[[], None]]]


def build(ground: Ground, client: Client) -> tuple[str, Callable[[], None]]:
    name = f"{client.folder.name}-x"
    words = ["--name", name, "--prefix", name, "--arch", "amd64", "--base", f"image:{BASE}", "--cloud", "fake"]
    words += ["--runner-version", "none", "--upload-to", "fake", "--flavor", FLAVOR, "--keep", "1"]
    job = json.loads(client.run("build", *words, "--json").out)["jobs"][0]["id"]

    def check() -> None:
        client.tree_ended(job, END_SECONDS)
        _one_image(ground, name)
        assert [one for one in ground.cloud.leftovers() if name in one] == []

    return job, check


def snapshot(ground: Ground, client: Client) -> tuple[str, Callable[[], None]]:
    """Of a server that is stopped for it, and runs again afterwards."""
    name = f"{client.folder.name}-x"
    with ground.cloud.connect() as connection:
        image = connection.image.find_image(BASE, ignore_missing=False)
        flavor = connection.compute.find_flavor(FLAVOR, ignore_missing=False)
        network = connection.network.find_network(NETWORK, ignore_missing=False)
        made = connection.compute.create_server(
            name=f"server-of-{name}", image_id=image.id, flavor_id=flavor.id, networks=[{"uuid": network.id}]
        )
    (server,) = [one for one in ground.cloud.servers() if one.id == made.id]
    wait_for("the server is up", lambda: server.status == "ACTIVE", 30)
    words = ["--name", name, "--arch", "amd64", "--cloud", "fake", "--server", made.id, "--stop", "--keep", "1"]
    job = client.run("snapshot", *words).out.strip()

    def check() -> None:
        client.tree_ended(job, END_SECONDS)
        _one_image(ground, name)
        wait_for("the server is up again", lambda: server.status == "ACTIVE", 30)

    return job, check


SERVERS: dict[str, AskFake] = {"snapshot": snapshot, "build": build}


def _one_image(ground: Ground, name: str) -> None:
    (image,) = [one for one in list(ground.cloud.state.images.values()) if one["name"] == name]
    assert image["status"] == "active"
    assert image["imagewright_verified"] == image["os_hash_value"]
    assert image["imagewright_self"] == image["id"]
