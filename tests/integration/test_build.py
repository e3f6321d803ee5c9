"""Builds on a cloud of recorded answers: what goes wrong there, each with its one error, and nothing left behind."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.cloud import FakeCloud
from fakes.faults import Fate, Ran
from fakes.state import BASE, FLAVOR
from harness.cli import Client, Worker
from harness.https import FileServer
from harness.process import LOOPBACK, wait_for

SECRET = "s3cret-of-the-test"
SCRIPT = b"#!/bin/sh\necho provisioned > /opt/marker\n"
pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("builds")]


class Builder:
    """One fake cloud, and a worker that builds on it."""

    def __init__(self, folder: Path, files: FileServer) -> None:
        self.cloud = FakeCloud()
        self.cloud.start()
        self.files = files
        files.files["provision.sh"] = SCRIPT
        secrets = folder / "secrets"
        secrets.mkdir()
        (secrets / "TOKEN").write_text(f"{SECRET}\n")
        (secrets / "TOKEN").chmod(0o600)
        allowed = {"ssh_from": ["127.0.0.0/8"], "ssh_port": self.cloud.ssh_port}
        self.policy = folder / "policy.yaml"
        self.policy.write_text(yaml.safe_dump({**allowed, "secrets": {"TOKEN": {"hosts": [LOOPBACK]}}}))
        clouds = self.cloud.write_clouds(folder / "clouds.yaml")
        env = {"SSL_CERT_FILE": str(files.ca)}
        self.client = Client(f"sqlite:{folder / 'queue.db'}", "builds", clouds, folder, env)
        self.words = ["--policy", self.policy, "--secrets-dir", secrets, "--url-host", LOOPBACK]
        self.worker: Worker = self.client.worker(*self.words)

    def build(self, name: str, *more: str, script: bool = True) -> str:
        """Enqueues a build; its job id."""
        words = ["--name", name, "--prefix", name, "--arch", "amd64", "--base", f"image:{BASE}", "--cloud", "fake"]
        words += ["--runner-version", "none", "--upload-to", "fake"]
        if "--flavor" not in more:
            words += ["--flavor", FLAVOR]
        if script:
            words += ["--script-url", f"{self.files.url}/files/provision.sh"]
        return json.loads(self.client.run("build", *words, *more, "--json").out)["jobs"][0]["id"]

    def images(self, name: str) -> list[dict[str, Any]]:
        return [image for image in list(self.cloud.state.images.values()) if image["name"] == name]

    def left(self, name: str) -> list[str]:
        return [one for one in self.cloud.leftovers() if name in one]

    def stop(self) -> None:
        self.worker.kill9()
        print(f"--- worker\n{self.worker.tail(40)}")
        self.cloud.stop()


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory, files: FileServer) -> Iterator[Builder]:
    made = Builder(tmp_path_factory.mktemp("builder"), files)
    try:
        yield made
    finally:
        made.stop()


def test_secrets_reach_the_script_and_nothing_else(builder: Builder) -> None:
    builder.cloud.faults.server("^good", Fate(units={"imagewright-script": Ran(output=f"it is {SECRET}\n".encode())}))
    seen: list[Any] = []

    def runs() -> bool:
        seen[:] = builder.cloud.servers("good")
        return bool(seen) and "/run/imagewright-script/environment" in seen[0].guest.shell.files

    job = builder.build("good", "--script-secret", "TOKEN")
    wait_for("the script has begun", runs, 120)
    server, guest = seen[0], seen[0].guest
    assert guest.shell.files["/run/imagewright-script/environment"] == f"export TOKEN='{SECRET}'\n".encode()
    assert guest.shell.files["/dev/shm/imagewright-script/script"] == SCRIPT
    asked = json.dumps(server.asked) + base64.b64decode(server.asked["user_data"]).decode("latin-1")
    assert SECRET not in asked
    assert not any(SECRET in text for text in guest.shell.asked)
    assert guest.login.host_key
    entry = builder.client.tree_ended(job, 200)
    (image,) = builder.images("good")
    assert entry["result"]["image_id"] == image["id"]
    assert image["imagewright_verified"] == image["os_hash_value"]
    told = builder.client.run("log", job).out
    assert "it is ***" in told
    assert SECRET not in told + builder.worker.log.read_text()
    assert builder.left("good") == []


FAILURES = {
    "error": (Fate(boot="error"), "the server is ERROR: No valid host was found."),
    "cloudinit": (Fate(cloud_init="error"), "scripts_user"),
    "exit3": (Fate(units={"imagewright-script": Ran(exit=3, output=b"why it failed\n")}), "exit status 3"),
    "hang": (Fate(units={"imagewright-script": Ran(exit=None, seconds=0.1)}), "did not end within 3600 s"),
    "killed": (Fate(snapshot="killed"), "is killed"),
}


@pytest.fixture(scope="module")
def doomed(builder: Builder) -> dict[str, str]:
    """The builds of FAILURES, all begun at once: most of their time is waiting."""
    for name, (fate, _) in FAILURES.items():
        builder.cloud.faults.server(f"^{name}-", fate)
    return {name: builder.build(name) for name in FAILURES}


@pytest.mark.parametrize("name", FAILURES)
def test_what_ends_a_build_is_said_once_and_nothing_is_left(
    builder: Builder, doomed: dict[str, str], name: str
) -> None:
    reason = FAILURES[name][1]
    assert reason in builder.client.buried(doomed[name], 200)["reason"]
    assert builder.left(name) == []
    assert [one for one in builder.images(name) if one["status"] != "killed"] == []


def test_a_failing_check_keeps_the_image_from_everybody(builder: Builder) -> None:
    builder.cloud.faults.server("^unfit-", Fate(units={"imagewright-check": Ran(exit=1, output=b"no marker\n")}))
    job = builder.build("unfit", "--check", "test -e /opt/marker")
    assert "spec.check: the check failed: exit status 1" in builder.client.buried(job, 200)["reason"]
    assert builder.images("unfit") == []
    assert builder.left("unfit") == []


def test_a_server_that_cannot_be_deleted_yet_is_deleted_later(builder: Builder) -> None:
    builder.cloud.faults.server("^stays-", Fate(delete="refused"))
    job = builder.build("stays", script=False)
    wait_for("it waits", lambda: "until it is gone" in builder.client.run("log", job).out, 200, every=0.5)
    (server,) = builder.cloud.servers("stays")
    server.guest.fate = Fate()
    builder.client.tree_ended(job, 100)
    assert builder.left("stays") == []


def test_a_busy_cloud_is_asked_again_when_it_says(builder: Builder) -> None:
    fault = builder.cloud.faults.answer("POST", "/os-keypairs$", 429, headers={"Retry-After": "2"}, times=2)
    job = builder.build("busy", script=False)
    builder.client.tree_ended(job, 200)
    assert fault.met == 2
    assert len(builder.images("busy")) == 1
    assert builder.left("busy") == []


def test_a_build_whose_worker_is_killed_in_every_step_ends_in_one_image(builder: Builder) -> None:
    builder.cloud.faults.server("^mortal", Fate(units={"imagewright-script": Ran(output=b"once\n")}))
    job = builder.build("mortal", "--check", "true")
    seen: set[str] = set()

    def next_step() -> str | None:
        """A step that no worker has died in yet, or `end`."""
        if builder.client.status(job)["state"] in ("succeeded", "failed"):
            return "end"
        steps = re.findall(r"([a-z-]+) is next", builder.client.run("log", job).out)
        return next((step for step in steps if step not in seen), None)

    while (step := wait_for("the next step", next_step, 120, every=0.1)) != "end":
        seen.add(step)
        builder.worker.kill9()
        builder.worker = builder.client.worker(*builder.words)
    builder.client.tree_ended(job, 60)
    assert len(seen) >= 12, seen
    (image,) = builder.images("mortal")
    assert image["imagewright_verified"] == image["os_hash_value"]
    assert builder.left("mortal") == []


def test_a_full_quota_is_waited_for(builder: Builder) -> None:
    builder.cloud.state.quota = len(builder.cloud.servers())
    try:
        job = builder.build("roomless", script=False)
        wait_for("it waits for room", lambda: "Quota exceeded" in builder.client.run("log", job).out, 60, every=0.3)
        assert builder.client.status(job)["state"] == "waiting"
        assert job not in builder.client.dead()
    finally:
        builder.cloud.state.quota = None
    builder.client.tree_ended(job, 200)
    assert len(builder.images("roomless")) == 1
    assert builder.left("roomless") == []


def test_an_image_that_vanishes_while_it_is_made_is_asked_for_again(builder: Builder) -> None:
    builder.cloud.faults.server("^vanishes-", Fate(snapshot="gone"))

    def asked() -> list[Any]:
        return [server for server in builder.cloud.servers("vanishes") if server.task and server.task[:6] == "image_"]

    job = builder.build("vanishes", script=False)
    (server,) = wait_for("an image is asked for", asked, 120, every=0.01)
    wait_for("it has vanished", lambda: server.task is None, 60, every=0.01)
    assert builder.images("vanishes") == []
    server.guest.fate = Fate()
    builder.client.tree_ended(job, 200)
    action = f"POST /compute/v2.1/servers/{server.id}/action"
    assert builder.cloud.seen[action] >= 2
    assert len(builder.images("vanishes")) == 1
    assert builder.left("vanishes") == []


@pytest.mark.parametrize(
    ("option", "reason"),
    [("--flavor", 'spec.flavor: no flavor "Elsewhere"'), ("--network", 'spec.network: no network "Elsewhere"')],
)
def test_names_that_are_not_there_are_told_before_anything_is_made(builder: Builder, option: str, reason: str) -> None:
    name = f"nowhere{option.replace('--', '-')}"
    job = builder.build(name, option, "Elsewhere", script=False)
    assert reason in builder.client.buried(job, 60)["reason"]
    assert builder.left(name) == []


def test_a_nova_that_fails_for_a_while_is_asked_again(builder: Builder) -> None:
    fault = builder.cloud.faults.answer("GET", "/servers/[0-9a-f-]+$", 503, times=3)
    job = builder.build("shaky", script=False)
    builder.client.tree_ended(job, 250)
    assert fault.met == 3
    assert len(builder.images("shaky")) == 1
    assert builder.left("shaky") == []


@pytest.mark.parametrize(
    ("name", "path"),
    [("lostboot", "/v2.1/servers$"), ("lostgroup", "/v2.0/security-groups$"), ("lostkey", "/os-keypairs$")],
)
def test_an_answer_that_is_lost_makes_nothing_twice(builder: Builder, name: str, path: str) -> None:
    fault = builder.cloud.faults.answer("POST", path, 504, after=True)
    job = builder.build(name, script=False)
    made: set[str] = set()

    def ended() -> bool:
        made.update(server.id for server in builder.cloud.servers(name))
        made.update(key for key, group in list(builder.cloud.state.groups.items()) if name in group["name"])
        return builder.client.status(job)["state"] == "succeeded"

    wait_for("it has succeeded", ended, 200, every=0.2)
    assert fault.met == 1
    assert len(made) == 2, "one server, one group"
    assert len(builder.images(name)) == 1
    assert builder.left(name) == []
