"""Builds on a real OpenStack, with real virtual machines."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.process import wait_for
from stack.conftest import SECRET, Site
from stack.guest import Guest
from stack.lab import Lab

pytestmark = pytest.mark.timeout(1800)

SCRIPT = f"""#!/bin/bash
set -eu
test "$TOKEN" = {SECRET}
echo "the token is $TOKEN"
echo provisioned >> /opt/marker
"""


def leftovers(openstack: Lab) -> list[str]:
    """Whatever a build may leave in the project."""
    cloud = openstack.connect("build")
    found = [f"server {one.name}" for one in cloud.compute.servers()]
    found += [f"key pair {one.name}" for one in cloud.compute.keypairs()]
    found += [f"group {one.name}" for one in cloud.network.security_groups() if one.name != "default"]
    found += [f"port {one.id}" for one in cloud.network.ports()]
    return found


def actives(openstack: Lab, cloud: str, name: str) -> list[str]:
    return [image.id for image in openstack.connect(cloud).image.images(name=name, status="active")]


def test_a_build_goes_everywhere_and_leaves_no_trace(site: Site, openstack: Lab, tmp_path: Path) -> None:
    worker = site.worker()
    url = site.script("provision.sh", SCRIPT)
    words = [
        "--upload-to",
        "build,edge",
        "--script-url",
        url,
        "--script-secret",
        "TOKEN",
        "--check",
        "test -e /opt/marker",
    ]
    job = site.build("golden", *words)
    entry = site.client.tree_ended(job, 1200)
    image = entry["result"]["image_id"]
    assert actives(openstack, "build", "golden") == [image]
    assert len(actives(openstack, "edge", "golden")) == 1
    assert leftovers(openstack) == []
    told = site.client.run("log", job).out
    assert "the token is ***" in told
    assert SECRET not in told + worker.log.read_text()
    guest = Guest(openstack.connect("build"), image, tmp_path)
    try:
        assert guest.run("cat /opt/marker") == "provisioned\n"
        assert guest.run(f"sudo grep -rIl {SECRET} / --exclude-dir=proc --exclude-dir=sys || true") == ""
        assert guest.run("getent passwd imagewright || true") == ""
        assert guest.run(f"sudo grep -rl {job} /var /etc /home /root /opt || true") == ""
        keys = guest.run("sudo cat /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys")
        assert set(re.findall(r"ssh-\S+ \S+", keys)) == set(
            re.findall(r"ssh-\S+ \S+", guest.key.with_suffix(".pub").read_text())
        )
    finally:
        guest.delete()
    again = site.client.tree_ended(site.build("golden", *words), 120)
    assert again["result"]["unchanged"]
    assert again["result"]["image_id"] == image


def test_a_script_that_fails_ends_the_build_and_leaves_nothing(site: Site, openstack: Lab) -> None:
    site.worker()
    job = site.build("broken", "--script-url", site.script("broken.sh", "#!/bin/sh\necho why it failed\nexit 3\n"))
    reason = site.client.buried(job, 900)["reason"]
    assert "exit status 3" in reason
    assert "why it failed" in site.client.run("log", job).out
    assert actives(openstack, "build", "broken") == []
    assert leftovers(openstack) == []


def test_a_build_whose_worker_dies_in_every_step_ends_in_one_image(site: Site, openstack: Lab) -> None:
    """Each step is entered by a worker that then dies; what the script did, it did once."""
    url = site.script("once.sh", "#!/bin/sh\necho provisioned >> /opt/marker\n")
    job = site.build(
        "killed", "--upload-to", "edge", "--script-url", url, "--check", 'test "$(wc -l < /opt/marker)" = 1'
    )
    phases: set[str] = set()
    worker = site.worker()

    def new_phase() -> str | None:
        """A step that no worker has died in yet, or the end."""
        entry = site.client.status(job)
        if entry["state"] in ("succeeded", "failed"):
            return "end"
        for line in site.client.run("log", job).out.splitlines():
            found = re.search(r"([a-z-]+) is next", line)
            if found and found[1] not in phases:
                return found[1]
        return None

    died: Callable[[], str | None] = new_phase
    while (phase := wait_for("the next step", died, 900, every=0.1)) != "end":
        phases.add(phase)
        worker.kill9()
        worker = site.worker()
    entry = site.client.tree_ended(job, 300)
    assert entry["state"] == "succeeded"
    assert len(phases) >= 12, phases
    assert actives(openstack, "build", "killed") == [entry["result"]["image_id"]]
    assert len(actives(openstack, "edge", "killed")) == 1
    assert leftovers(openstack) == []


def test_a_snapshot_stops_the_server_and_starts_it_again(site: Site, openstack: Lab, tmp_path: Path) -> None:
    site.worker()
    cloud: Any = openstack.connect("build")
    guest = Guest(cloud, cloud.get_image("base").id, tmp_path)
    try:
        words = ["--name", "snap", "--arch", "amd64", "--cloud", "build", "--server", guest.name, "--stop", "--json"]
        job = site.client.json("snapshot", *words[:-1])["jobs"][0]["id"]
        entry = site.client.tree_ended(job, 400)
        assert actives(openstack, "build", "snap") == [entry["result"]["image_id"]]
        wait_for("it runs again", lambda: cloud.get_server(guest.server.id).status == "ACTIVE", 60, every=1)
    finally:
        guest.delete()
