"""A real Keystone and several independent real Glances on loopback; each Glance is a cloud and a region of its own."""

import shutil
import sqlite3
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openstack
import requests
import yaml
from keystoneauth1.exceptions.connection import ConnectFailure
from openstack.connection import Connection
from openstack.exceptions import SDKException

from harness import config, servers
from harness.config import PASSWORD, PROJECTS
from harness.process import LOOPBACK, Process, free_port, remove_folder, scratch_folder, wait_for


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=60).status_code < 500
    except requests.ConnectionError:
        return False


def _log_in(connection: Connection) -> bool:
    """uWSGI now and then closes a connection that it has just accepted; the oracle must not fail for that."""
    try:
        return bool(connection.authorize())
    except (ConnectFailure, SDKException):
        return False


class Glance:
    """One cloud: its own database, store and port, which stays the same over restarts."""

    def __init__(self, stack: "OpenStack", number: int) -> None:
        self.name = f"cloud{number}"
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.folder = stack.folder / f"glance{number}"
        self._stack = stack
        self._number = number
        self._process: Process | None = None
        for part in ("images", "staging", "tasks", "cache"):
            (self.folder / part).mkdir(parents=True)
        shutil.copy(stack.template / "glance.db", self.folder / "glance.db")
        self.configure()

    def configure(self, **options: str | int) -> None:
        """Settings of [DEFAULT] for the next start; none: the usual ones."""
        text = config.glance(self.folder, self._stack.venv, self._number, self.port, self._stack.keystone_url, options)
        (self.folder / "glance-api.conf").write_text(text)

    def launch(self) -> None:
        self._process = servers.serve(self._stack.venv, "glance", "harness.glance_app", self.port, self.folder)

    def wait_ready(self) -> None:
        def ready() -> bool:
            # The children of a server that was just killed may hold its port for a moment longer than their parent.
            if not self.is_running():
                self.launch()
            return _answers(f"{self.url}/healthcheck")

        wait_for(f"{self.name} answers", ready, 180, every=0.2)

    def start(self) -> None:
        self.launch()
        self.wait_ready()

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def kill9(self) -> None:
        """As a crash of the machine: an upload in progress stays `saving` for ever."""
        if self._process is not None:
            self._process.kill9()

    def restart(self, **options: str | int) -> None:
        self.stop()
        self.configure(**options)
        self.start()

    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running()

    @property
    def pid(self) -> int:
        """Of the master; those that serve are its children."""
        assert self._process is not None
        return self._process.pid


class OpenStack:
    """Starts everything in its constructor's folder; `stop` ends it and removes the folder."""

    def __init__(self, clouds: int = 3) -> None:
        self.venv = servers.install()
        self.template = servers.template(self.venv)
        self.folder = scratch_folder("openstack")
        self.keystone_port = free_port()
        self.keystone_url = f"http://{LOOPBACK}:{self.keystone_port}/v3"
        self._keystones: list[Process] = []
        self.clouds = [Glance(self, number) for number in range(1, clouds + 1)]
        self._write_keystone()
        self._write_endpoints()
        self.clouds_yaml = self.write_clouds(self.folder / "clouds.yaml")

    def start(self) -> None:
        self._keystones.append(
            servers.serve(self.venv, "keystone", "keystone.wsgi.api", self.keystone_port, self.folder / "keystone")
        )
        for cloud in self.clouds:
            cloud.launch()
        with ThreadPoolExecutor() as pool:
            waits = [pool.submit(cloud.wait_ready) for cloud in self.clouds]
            wait_for("Keystone answers", lambda: _answers(self.keystone_url), 180)
            for wait in waits:
                wait.result()

    def stop(self) -> None:
        for process in self._keystones:
            process.kill9()
        for cloud in self.clouds:
            cloud.kill9()
        remove_folder(self.folder)

    def cloud(self, name: str) -> Glance:
        return next(cloud for cloud in self.clouds if cloud.name == name)

    def short_lived_tokens(self, seconds: int) -> str:
        """The URL of a second Keystone over the same database, whose tokens end after `seconds`."""
        port = free_port()
        folder = self.folder / f"keystone-{seconds}s-{port}"
        folder.mkdir()
        text = config.keystone(self.folder / "keystone", seconds)
        (folder / "keystone.conf").write_text(text)
        process = servers.serve(self.venv, "keystone", "keystone.wsgi.api", port, folder, threads=4)
        self._keystones.append(process)
        url = f"http://{LOOPBACK}:{port}/v3"
        wait_for("second Keystone answers", lambda: _answers(url), 180)
        return url

    def _write_keystone(self) -> None:
        folder = self.folder / "keystone"
        folder.mkdir()
        shutil.copy(self.template / "keystone.db", folder)
        for keys in ("fernet-keys", "credential-keys"):
            shutil.copytree(self.template / keys, folder / keys)
        (folder / "keystone.conf").write_text(config.keystone(folder, token_seconds=3600))

    def _write_endpoints(self) -> None:
        """The catalogue gets this run's ports before Keystone starts."""
        with sqlite3.connect(self.folder / "keystone" / "keystone.db") as database:
            database.execute(
                "UPDATE endpoint SET url = ? WHERE service_id = (SELECT id FROM service WHERE type = 'identity')",
                (self.keystone_url,),
            )
            for cloud in self.clouds:
                database.execute(
                    "UPDATE endpoint SET url = ? WHERE region_id = ?"
                    " AND service_id = (SELECT id FROM service WHERE type = 'image')",
                    (cloud.url, cloud.name),
                )
        database.close()

    def auth(self, project: str = "images") -> dict[str, str]:
        user = "admin" if project == "admin" else PROJECTS[project]
        return {
            "auth_url": self.keystone_url,
            "username": user,
            "password": PASSWORD,
            "project_name": project,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }

    def entry(self, cloud: str, project: str = "images", **more: Any) -> dict[str, Any]:
        """One cloud's entry of a clouds.yaml."""
        return {"region_name": cloud, "identity_api_version": 3, "auth": self.auth(project), **more}

    def write_clouds(self, path: Path, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
        """A clouds.yaml of all clouds as the plain user; `changes` adds to a cloud's entry, or adds a cloud."""
        entries = {cloud.name: self.entry(cloud.name) for cloud in self.clouds}
        for name, change in (changes or {}).items():
            entries[name] = {**entries.get(name, {}), **change}
        path.write_text(yaml.safe_dump({"clouds": entries}, sort_keys=False))
        return path

    def connect(self, cloud: str, project: str = "images") -> Connection:
        """openstacksdk, the independent oracle, with nothing read from the environment or from files."""
        connection = openstack.connect(
            load_yaml_config=False,
            load_envvars=False,
            auth=self.auth(project),
            region_name=cloud,
            identity_api_version="3",
        )
        wait_for("the oracle is logged in", lambda: _log_in(connection), 60)
        return connection

    def application_credential(self, name: str, project: str = "images") -> dict[str, str]:
        """The `auth` of a clouds.yaml entry with `auth_type: v3applicationcredential`."""
        connection = self.connect("cloud1", project)
        user = connection.current_user_id
        body = {"application_credential": {"name": name}}
        path = f"/users/{user}/application_credentials"
        made = connection.identity.post(path, json=body)
        made.raise_for_status()
        credential = made.json()["application_credential"]
        return {
            "auth_url": self.keystone_url,
            "application_credential_id": credential["id"],
            "application_credential_secret": credential["secret"],
        }
