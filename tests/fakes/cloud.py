"""The whole cloud in a thread of its own, with an event loop of its own."""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import openstack
import yaml
from aiohttp import web
from openstack.connection import Connection

from fakes import glance, keystone, neutron, nova
from fakes.faults import Faults
from fakes.state import Server, State
from fakes.web import SEEN, STATE, middleware
from harness.process import LOOPBACK, free_port

T = TypeVar("T")
# All of 127.0.0.0/8 is this machine, so that every server has an address of its own and all the same port.
SUBNET = "127.80.0.0/16"


class FakeCloud:
    """Keystone, Glance, Nova and Neutron at one address, and an SSH server for each server. `stop` ends it all."""

    def __init__(self, pace: float = 0.05) -> None:
        """`pace` is how long everything takes that a cloud does by itself, in seconds a step."""
        self.port, self.ssh_port = free_port(), free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.faults = Faults()
        self.seen: Counter[str] = Counter()
        self._pace = pace
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake cloud", daemon=True)
        self._runner: web.AppRunner | None = None

    def start(self) -> None:
        """Returns when it listens."""
        self._thread.start()
        self._do(self._serve())

    def stop(self) -> None:
        """Nothing listens any more."""
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _serve(self) -> None:
        self.state = State(self.faults, self.ssh_port, SUBNET, self._pace)
        app = web.Application(middlewares=[middleware, nova.versioned], client_max_size=1 << 30)
        app[STATE], app[SEEN] = self.state, self.seen
        app.add_routes([*keystone.ROUTES, *nova.ROUTES, *neutron.ROUTES, *glance.ROUTES])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self.port).start()

    async def _close(self) -> None:
        await self.state.close()
        if self._runner is not None:
            await self._runner.cleanup()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Meanwhile nothing comes on by itself: servers and images stay as they are."""
        self._loop.call_soon_threadsafe(self.state.gate.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self.state.gate.set)

    def servers(self, name: str = "") -> list[Server]:
        """Those whose name begins so."""
        return [server for server in list(self.state.servers.values()) if server.name.startswith(name)]

    def leftovers(self) -> list[str]:
        """All that a build may leave: servers, key pairs, groups."""
        found = [f"server {server.name}" for server in self.servers()]
        found += [f"key pair {name}" for name in list(self.state.key_pairs)]
        groups = list(self.state.groups.values())
        return found + [f"group {group['name']}" for group in groups if group["name"] != "default"]

    def add_image(self, name: str, data: bytes, **properties: Any) -> str:
        """An active image of the project; its id."""

        async def add() -> str:
            return self.state.add_image(name, data, **properties)["id"]

        return self._do(add())

    def add_group(self, name: str) -> None:
        """A security group that some other program has made."""

        async def add() -> None:
            self.state.add_group(name)

        self._do(add())

    def entry(self) -> dict[str, Any]:
        """This cloud in a clouds.yaml."""
        auth = {
            "auth_url": f"{self.url}/identity/v3",
            "username": "builder",
            "password": "any",
            "project_name": "images",
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }
        return {"region_name": keystone.REGION, "identity_api_version": 3, "auth": auth}

    def write_clouds(self, path: Path, name: str = "fake") -> Path:
        """A clouds.yaml with this cloud alone."""
        path.write_text(yaml.safe_dump({"clouds": {name: self.entry()}}, sort_keys=False))
        return path

    def connect(self) -> Connection:
        """openstacksdk, with nothing read from the environment or from files."""
        made = self.entry()
        return openstack.connect(
            load_yaml_config=False,
            load_envvars=False,
            auth=made["auth"],
            region_name=made["region_name"],
            identity_api_version="3",
        )
