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
        assert "image=golden" in guest.run("cat /usr/share/imagewright/facts")
        assert guest.run("id -u runner") == guest.run("id -u ubuntu")
        # sudo logs what it runs, so that what is looked for comes by standard input.
        places = "/ --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev"
        assert guest.run(f"echo {SECRET} | sudo grep -rlF -f - {places} || true") == ""
        assert guest.run("getent passwd imagewright || true") == ""
        assert guest.run(f"echo {job} | sudo grep -rlF -f - /var /etc /home /root /opt || true") == ""
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


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--flavor", "M1.Build"], "spec.flavor: no flavor 'M1.Build'; there are: m1.build"),
        (["--network", "elsewhere"], "spec.network: no network 'elsewhere'; there are: provider"),
        (["--script-url", "https://10.20.0.2/x.sh"], "spec.script.url"),
        (["--script-url", "HERE", "--script-sha256", "0" * 64], "spec.script.sha256: what is there has"),
        (["--script-url", "HERE", "--script-secret", "OTHER"], "spec.script.secrets"),
    ],
)
def test_what_cannot_be_built_is_said_before_anything_is_made(
    site: Site, openstack: Lab, words: list[str], reason: str
) -> None:
    site.worker()
    url = site.script("refused.sh", "#!/bin/sh\n")
    job = site.build("refused", *(url if word == "HERE" else word for word in words))
    assert reason.replace("'", '"') in site.client.buried(job)["reason"]
    assert leftovers(openstack) == []


def test_a_server_that_no_host_takes_ends_the_build_at_once(site: Site, openstack: Lab) -> None:
    """Its disk is smaller than the base."""
    site.worker()
    cloud: Any = openstack.connect("build")
    cloud.create_flavor("too-small", ram=512, vcpus=1, disk=1)
    job = site.build("too-small", "--flavor", "too-small")
    assert "the server is ERROR" in site.client.buried(job, 300)["reason"]
    assert leftovers(openstack) == []


def test_a_full_quota_is_waited_for_and_a_build_can_be_cancelled(site: Site, openstack: Lab) -> None:
    site.worker()
    cloud: Any = openstack.connect("build")
    project = cloud.current_project_id
    cloud.set_compute_quotas(project, instances=0)
    try:
        job = site.build("no-room")

        def waits() -> bool:
            return "Quota exceeded" in site.client.run("log", job).out

        wait_for("it waits for room", waits, 120, every=1)
        assert site.client.status(job)["state"] == "waiting"
        site.client.run("cancel", job, "--wait", seconds=90)
        assert site.client.status(job)["state"] == "cancelled"
    finally:
        cloud.delete_compute_quotas(project)
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
