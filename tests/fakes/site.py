"""An installation that builds on a fake cloud: its queue, its policy, its secrets, one worker."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fakes.cloud import FakeCloud
from fakes.state import BASE, FLAVOR
from harness.cli import Client, Worker
from harness.https import FileServer
from harness.process import LOOPBACK

SECRET = "s3cret-of-the-test"
SCRIPT = b"#!/bin/sh\necho provisioned > /opt/marker\n"


class Builder:
    """One worker that builds on `cloud`, with a queue and a namespace of its own."""

    def __init__(
        self,
        folder: Path,
        files: FileServer,
        cloud: FakeCloud,
        *more: str,
        namespace: str = "builds",
        limits: Mapping[str, str] | None = None,
        others: Mapping[str, FakeCloud] | None = None,
        url: str | None = None,
    ) -> None:
        """`others` are clouds beside `cloud`, which is called "fake" and reached at `url`; `limits` replace some
        `step_limits`.
        """
        self.cloud, self.files = cloud, files
        files.files["provision.sh"] = SCRIPT
        secrets = folder / "secrets"
        secrets.mkdir(parents=True)
        (secrets / "TOKEN").write_text(f"{SECRET}\n")
        (secrets / "TOKEN").chmod(0o600)
        allowed = {"ssh_from": ["127.0.0.0/8"], "ssh_port": cloud.ssh_port}
        if limits:
            allowed["step_limits"] = dict(limits)
        policy = folder / "policy.yaml"
        policy.write_text(yaml.safe_dump({**allowed, "secrets": {"TOKEN": {"hosts": [LOOPBACK]}}}))
        entries = {name: one.entry() for name, one in {"fake": cloud, **(others or {})}.items()}
        if url:
            entries["fake"]["auth"]["auth_url"] = f"{url}/identity/v3"
        clouds = folder / "clouds.yaml"
        clouds.write_text(yaml.safe_dump({"clouds": entries}))
        env = {"SSL_CERT_FILE": str(files.ca)}
        self.client = Client(f"sqlite:{folder / 'queue.db'}", namespace, clouds, folder, env)
        self._words = ["--policy", policy, "--secrets-dir", secrets, "--url-host", LOOPBACK, *more]
        self.worker: Worker = self.client.worker(*self._words)

    def build(self, name: str, *more: str, script: bool = True, flavor: str = FLAVOR, prefix: str | None = None) -> str:
        """Enqueues a build; its job id. What it makes begins with its name, or with `prefix`."""
        words = ["--name", name, "--prefix", prefix or name, "--arch", "amd64", "--base", f"image:{BASE}"]
        words += ["--cloud", "fake"]
        if "--runner-version" not in more:
            words += ["--runner-version", "none"]
        if "--upload-to" not in more:
            words += ["--upload-to", "fake"]
        if flavor:
            words += ["--flavor", flavor]
        if script:
            words += ["--script-url", f"{self.files.url}/files/provision.sh"]
        return json.loads(self.client.run("build", *words, *more, "--json").out)["jobs"][0]["id"]

    def told(self, job: str) -> str:
        """The log of a job."""
        return self.client.run("log", job).out

    def steps(self, job: str) -> list[str]:
        """The steps that a build has come to, in their order."""
        return re.findall(r"([a-z-]+) is next", self.told(job))

    def images(self, name: str) -> list[dict[str, Any]]:
        """Images of this name."""
        return [image for image in list(self.cloud.state.images.values()) if image["name"] == name]

    def left(self, build: str) -> list[str]:
        """What there is of builds that have this prefix, or of the one that has this job id."""
        words = re.compile(rf" {build}-build-|-build-{build}-")
        return [one for one in self.cloud.leftovers() if words.search(one)]

    def replace_worker(self) -> None:
        """Its worker dies, and another takes its place."""
        self.worker.kill9()
        self.worker = self.client.worker(*self._words)

    def stop(self) -> None:
        """Ends the worker, and shows what it has said last."""
        self.worker.kill9()
        print(f"--- worker\n{self.worker.tail(40)}")
