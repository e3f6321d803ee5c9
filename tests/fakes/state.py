"""What the cloud holds, and how it comes on by itself: the states of servers and of the images made of them."""

import asyncio
import hashlib
import ipaddress
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fakes.faults import Faults
from fakes.guest import Guest
from fakes.recorded import recorded
from harness.images import small_qcow2

PROJECT, USER = uuid.uuid4().hex, uuid.uuid4().hex
BASE, FLAVOR, NETWORK = "base", "m1.build", "provider"
# What Nova hands on from the base to the image of a server is all but this, which is about the base's own bytes.
_OF_BASE_ALONE = {"instance_uuid", "image_type", "base_image_ref", "user_id"}
# Attributes of Glance itself; all else on an image is a property.
_BYTES = {"disk_format", "container_format", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value"}
_LINKS = {"self", "file", "schema", "direct_url", "locations"}
_OWN = {"id", "name", "status", "visibility", "protected", "owner", "os_hidden", "tags", "min_ram", "min_disk"}
CORE = _BYTES | _LINKS | _OWN | {"created_at", "updated_at"}


def now() -> str:
    """The time as OpenStack writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Server:
    """A server as Nova shows it."""

    id: str
    name: str
    asked: dict[str, Any]
    flavor: dict[str, Any]
    address: str
    guest: Guest
    groups: list[str]
    port: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: str = field(default_factory=now)
    updated: str = field(default_factory=now)
    status: str = "BUILD"
    vm_state: str = "building"
    task: str | None = "scheduling"
    fault: str | None = None
    # What it was each time that an image of it was asked for.
    imaged: list[str] = field(default_factory=list)

    def become(self, status: str, vm_state: str, task: str | None = None) -> None:
        """A new state."""
        self.status, self.vm_state, self.task, self.updated = status, vm_state, task, now()


class State:
    """One cloud. Only its event loop changes it, except for `faults`, `quota` and `pace`, which any thread may set."""

    def __init__(self, faults: Faults, ssh_port: int, subnet: str, pace: float) -> None:
        self.faults, self.ssh_port, self.pace = faults, ssh_port, pace
        self.quota: int | None = None
        self.most_servers = 0
        # Closed, nothing comes on by itself.
        self.gate = asyncio.Event()
        self.gate.set()
        self._addresses = iter(ipaddress.ip_network(subnet).hosts())
        self.servers: dict[str, Server] = {}
        self.key_pairs: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.data: dict[str, bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        with tempfile.TemporaryDirectory() as folder:
            self._disk = small_qcow2(Path(folder) / "disk", seed=1).read_bytes()
        known = {"project": PROJECT, "user": USER, "network": str(uuid.uuid4()), "flavor": str(uuid.uuid4())}
        self.known = {**known, "subnet": str(uuid.uuid4())}
        self.flavors: list[dict[str, Any]] = recorded("flavors", **self.known).body["flavors"]
        self.networks: list[dict[str, Any]] = recorded("networks", **self.known).body["networks"]
        self.subnets: list[dict[str, Any]] = recorded("subnets", **self.known).body["subnets"]
        self.add_image(BASE, self._disk)
        self.add_group("default", "Default security group")

    def add_image(self, name: str, data: bytes, **properties: Any) -> dict[str, Any]:
        """An image that is whole."""
        image = self.new_image({"name": name, "disk_format": "qcow2", "container_format": "bare", **properties})
        self.fill(image, data)
        return image

    def new_image(self, asked: dict[str, Any]) -> dict[str, Any]:
        """An image without data."""
        image_id = str(asked.get("id") or uuid.uuid4())
        made = recorded("image-queued", image=image_id, project=PROJECT).body
        core = {key: value for key, value in made.items() if key in CORE}
        usual = {"name": None, "min_disk": 0, "created_at": now(), "updated_at": now(), "visibility": "shared"}
        image = {**core, **usual, **asked, "id": image_id}
        self.images[image_id] = image
        return image

    def fill(self, image: dict[str, Any], data: bytes) -> None:
        """The image is whole with this data."""
        self.data[image["id"]] = data
        digests = {"checksum": hashlib.md5(data).hexdigest(), "os_hash_value": hashlib.sha512(data).hexdigest()}
        image.update(status="active", size=len(data), os_hash_algo="sha512", updated_at=now(), **digests)

    def drop_image(self, image_id: str) -> bool:
        """Whether there was one."""
        self.data.pop(image_id, None)
        return self.images.pop(image_id, None) is not None

    def add_group(self, name: str, description: str = "") -> dict[str, Any]:
        """A security group with the rules that every one has at first."""
        group_id = str(uuid.uuid4())
        made = recorded("group-created", group=group_id, group_name=name, project=PROJECT).body["security_group"]
        for rule in made["security_group_rules"]:
            rule["id"] = str(uuid.uuid4())
        made.update(description=description, created_at=now(), updated_at=now())
        self.groups[group_id] = made
        return made

    def add_server(self, asked: dict[str, Any], flavor: dict[str, Any], groups: list[str]) -> Server:
        """A server that begins to boot."""
        key = self.key_pairs.get(asked.get("key_name") or "")
        address = str(next(self._addresses))
        fate = self.faults.fate(asked["name"])
        guest = Guest(fate, address, self.ssh_port, asked.get("user_data"), key["public_key"] if key else None)
        server = Server(str(uuid.uuid4()), asked["name"], asked, flavor, address, guest, groups)
        guest.power_off = lambda: self.run(self._switch_off(server))
        self.servers[server.id] = server
        self.most_servers = max(self.most_servers, len(self.servers))
        self.run(self._boot(server))
        return server

    def run(self, work: Any) -> None:
        """Lets something come on by itself."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _later(self) -> None:
        await asyncio.sleep(self.pace)
        await self.gate.wait()

    async def _boot(self, server: Server) -> None:
        for task in (None, "networking", "spawning"):
            await self._later()
            if server.guest.fate.boot == "error":
                server.fault = server.guest.fate.fault
                server.become("ERROR", "error")
                return
            server.task = task
        if server.guest.fate.boot == "active":
            await self._later()
            await self._switch_on(server)

    async def _switch_on(self, server: Server) -> None:
        if server.id in self.servers and server.task != "deleting":
            await server.guest.start()
            server.become("ACTIVE", "active")

    async def start(self, server: Server) -> None:
        """`os-start`."""
        server.task = "powering-on"
        await self._later()
        await self._switch_on(server)

    async def stop(self, server: Server) -> None:
        """`os-stop`."""
        server.task = "powering-off"
        await self._switch_off(server)

    async def _switch_off(self, server: Server) -> None:
        await self._later()
        await server.guest.stop()
        if server.task != "deleting":
            server.become("SHUTOFF", "stopped")

    def begin_snapshot(self, server: Server, name: str, metadata: dict[str, Any]) -> dict[str, Any]:
        """`createImage`: the image that will be, with what Nova puts on it."""
        server.imaged.append(server.status)
        base_id = server.asked["imageRef"]
        base = self.images.get(base_id, {})
        inherited = {key: value for key, value in base.items() if key not in CORE | _OF_BASE_ALONE}
        seen = recorded("image-queued", server=server.id, base=base_id, user=USER, project=PROJECT).body
        by_nova = {key: seen[key] for key in (*_OF_BASE_ALONE, "boot_roles", "owner_user_name", "owner_project_name")}
        shape = {"min_disk": server.flavor["disk"], "visibility": "private", "name": name}
        image = self.new_image({**inherited, **by_nova, **metadata, **shape})
        server.task = "image_snapshot_pending"
        self.run(self._snapshot(server, image))
        return image

    async def _snapshot(self, server: Server, image: dict[str, Any]) -> None:
        def gone() -> bool:
            if server.task == "deleting" or server.id not in self.servers:
                self.drop_image(image["id"])
                return True
            return False

        steps: list[Callable[[], object]] = [
            lambda: setattr(server, "task", "image_snapshot"),
            lambda: setattr(server, "task", "image_pending_upload"),
            lambda: setattr(server, "task", "image_uploading"),
            lambda: image.update(status="saving", disk_format="qcow2", container_format="bare", updated_at=now()),
            lambda: self._end_snapshot(server, image),
            # For a moment the image is active and the server still busy: so does the real one.
            lambda: setattr(server, "task", None),
        ]
        for step in steps:
            await self._later()
            if gone():
                return
            if server.guest.fate.snapshot == "saving" and image["status"] == "saving":
                return
            while server.guest.fate.snapshot == "busy" and image["status"] == "active":
                await self._later()
            step()

    def _end_snapshot(self, server: Server, image: dict[str, Any]) -> None:
        fate = server.guest.fate.snapshot
        if fate == "gone":
            self.drop_image(image["id"])
        elif fate == "killed":
            image.update(status="killed", updated_at=now())
        else:
            image.update(image_location="snapshot", image_state="available", owner_id=PROJECT)
            self.fill(image, self._disk + server.id.encode())

    async def delete(self, server: Server) -> None:
        """`DELETE`: first it is being deleted, then it is gone, and its port with it."""
        server.task = "deleting"
        await self._later()
        await server.guest.stop()
        self.servers.pop(server.id, None)

    async def close(self) -> None:
        """Ends all guests."""
        for task in list(self._tasks):
            task.cancel()
        for server in list(self.servers.values()):
            await server.guest.stop()
