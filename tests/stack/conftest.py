"""One OpenStack for the session, an https server that its workers fetch scripts from, and an installation on it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from harness.cli import Client, Worker
from harness.https import FileServer
from harness.process import HarnessError, scratch_folder
from harness.servers import REPO
from stack import lab
from stack.lab import ADDRESS, Lab

SECRET = "s3cret-of-the-test"


@pytest.fixture(scope="session")
def openstack() -> Iterator[Lab]:
    reason = lab.is_possible()
    if reason:
        raise HarnessError(reason)
    cache = Path(os.environ.get("IMAGEWRIGHT_TEST_CACHE") or REPO / ".tox" / "stack")
    made = Lab(scratch_folder("openstack"), cache)
    made.prepare()
    lab.enter_namespace()
    try:
        made.start()
        yield made
    finally:
        made.stop()


class Site:
    """The programs on that OpenStack, with a queue of their own."""

    def __init__(self, openstack: Lab, files: FileServer, folder: Path) -> None:
        self.openstack = openstack
        self.files = files
        clouds = openstack.write_clouds(folder / "clouds.yaml")
        (folder / "secrets").mkdir()
        secret = folder / "secrets" / "TOKEN"
        secret.write_text(f"{SECRET}\n")
        secret.chmod(0o600)
        self.policy = folder / "policy.yaml"
        self.policy.write_text(
            yaml.safe_dump({"ssh_from": [f"{ADDRESS}/32"], "secrets": {"TOKEN": {"hosts": [ADDRESS]}}})
        )
        self.folder = folder
        # No guest reaches a package server: an empty file takes away what needs one.
        self.content = folder / "content"
        self.content.mkdir()
        for name in ("10-apt.sh", "20-packages.sh", "80-snaps.sh"):
            (self.content / name).write_text("")
        self.client = Client(f"sqlite:{folder / 'queue.db'}", "stack", clouds, folder, {"SSL_CERT_FILE": str(files.ca)})
        self.workers: list[Worker] = []

    def worker(self, *more: str) -> Worker:
        words = ["--url-host", ADDRESS, "--policy", self.policy, "--secrets-dir", self.folder / "secrets"]
        made = self.client.worker(*words, "--content-dir", self.content, *more)
        self.workers.append(made)
        return made

    def script(self, name: str, text: str) -> str:
        """The address of a script."""
        self.files.files[name] = text.encode()
        return f"{self.files.url}/files/{name}"

    def build(self, name: str, *more: str) -> str:
        """Enqueues a build; its job id."""
        words = ["--arch", "amd64", "--base", f"image:{lab.BASE}", "--cloud", "build", "--runner-version", "none"]
        if "--flavor" not in more:
            words += ["--flavor", lab.FLAVOR]
        done = self.client.run("build", "--name", name, *words, *more, "--json")
        return json.loads(done.out)["jobs"][0]["id"]


@pytest.fixture
def site(openstack: Lab, tmp_path: Path) -> Iterator[Site]:
    files = FileServer(tmp_path, ADDRESS)
    made = Site(openstack, files, tmp_path)
    try:
        yield made
    finally:
        for worker in made.workers:
            worker.kill9()
            print(f"--- {worker.log.name}\n{worker.tail(60)}")
        files.stop()
