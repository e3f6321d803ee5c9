"""The fake cloud does what the real one did when it was recorded, as openstacksdk and OpenSSH see it."""

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from openstack.exceptions import BadRequestException, ConflictException, ForbiddenException, NotFoundException

from fakes.cloud import FakeCloud
from fakes.faults import Fate, Ran
from fakes.state import BASE, FLAVOR, NETWORK, Server
from harness.process import wait_for

USER = "imagewright"


@pytest.fixture
def cloud() -> Iterator[FakeCloud]:
    made = FakeCloud(pace=0.02)
    made.start()
    try:
        yield made
    finally:
        made.stop()


class Keys:
    """A key to log in with, and one for the host to show."""

    def __init__(self, folder: Path) -> None:
        self.user, self.host = folder / "user", folder / "host"
        for path in (self.user, self.host):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True)

    def public(self, path: Path) -> str:
        return path.with_suffix(".pub").read_text().strip()

    def user_data(self) -> str:
        users = [{"name": USER, "ssh_authorized_keys": [self.public(self.user)]}]
        keys = {"ed25519_private": self.host.read_text(), "ed25519_public": self.public(self.host)}
        text = f"#cloud-config\n{yaml.safe_dump({'users': users, 'ssh_keys': keys})}"
        return base64.b64encode(text.encode()).decode()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


def boot(sdk: Any, name: str, **more: Any) -> Any:
    return sdk.compute.create_server(
        name=name,
        image_id=sdk.image.find_image(BASE).id,
        flavor_id=sdk.compute.find_flavor(FLAVOR).id,
        networks=[{"uuid": sdk.network.find_network(NETWORK).id}],
        **more,
    )


def ssh(
    cloud: FakeCloud, server: Server, keys: Keys, script: str, user: str = USER
) -> subprocess.CompletedProcess[str]:
    """Runs a script as a builder does: by OpenSSH, as root, from standard input, the host key known beforehand."""
    known = keys.user.parent / f"known-{server.id}"
    known.write_text(f"[{server.address}]:{cloud.ssh_port} {keys.public(keys.host)}\n")
    options = ["-F", "none", "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes"]
    options += ["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=5", "-i", str(keys.user)]
    command = ["ssh", *options, "-p", str(cloud.ssh_port), f"{user}@{server.address}", "sudo -n sh -s"]
    return subprocess.run(command, input=script, capture_output=True, text=True, timeout=30, check=False)


def running(cloud: FakeCloud, sdk: Any, name: str, keys: Keys) -> Server:
    made = boot(sdk, name, user_data=keys.user_data())
    sdk.compute.wait_for_server(made, wait=20, interval=0.05)
    return cloud.servers(name)[0]


def test_the_life_of_a_server(cloud: FakeCloud) -> None:
    sdk: Any = cloud.connect()
    sdk.compute.create_keypair(name="key", public_key="ssh-ed25519 AAAA test")
    group = sdk.network.create_security_group(name="group")
    rule = {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22, "direction": "ingress"}
    sdk.network.create_security_group_rule(security_group_id=group.id, ethertype="IPv4", **rule)
    with pytest.raises(ConflictException, match="already exists"):
        sdk.network.create_security_group_rule(security_group_id=group.id, ethertype="IPv4", **rule)
    with cloud.held():
        made = boot(sdk, "life", security_groups=[{"name": "group"}], metadata={"imagewright_job": "one"})
        assert sdk.compute.get_server(made.id).status == "BUILD"
    seen = sdk.compute.wait_for_server(made, wait=20, interval=0.05)
    assert (seen.vm_state, seen.task_state, seen.metadata) == ("active", None, {"imagewright_job": "one"})
    assert seen.addresses[NETWORK][0]["addr"].startswith("127.80.")
    assert [port.device_id for port in sdk.network.ports(device_id=made.id)] == [made.id]
    with pytest.raises(ConflictException, match="in use"):
        sdk.network.delete_security_group(group.id)
    assert "SSH HOST KEY" in sdk.compute.get_server_console_output(made.id)["output"]
    with cloud.held():
        sdk.compute.stop_server(made.id)
        with pytest.raises(ConflictException, match="task_state powering-off"):
            sdk.compute.stop_server(made.id)
    sdk.compute.wait_for_server(made, status="SHUTOFF", wait=20, interval=0.05)
    with pytest.raises(NotFoundException, match="console"):
        sdk.compute.get_server_console_output(made.id)
    sdk.compute.start_server(made.id)
    sdk.compute.wait_for_server(made, wait=20, interval=0.05)
    sdk.compute.delete_server(made.id)
    sdk.compute.wait_for_delete(made, wait=20, interval=0.05)
    sdk.network.delete_security_group(group.id)
    sdk.compute.delete_keypair("key")
    assert cloud.leftovers() == []


def test_an_image_of_a_server_and_the_moment_when_nova_is_not_done_yet(cloud: FakeCloud) -> None:
    sdk: Any = cloud.connect()
    cloud.state.images[sdk.image.find_image(BASE).id]["os_distro"] = "debian"
    made = boot(sdk, "snap")
    sdk.compute.wait_for_server(made, wait=20, interval=0.05)
    with cloud.held():
        made_image = sdk.compute.create_server_image(made.id, "golden", metadata={"imagewright_job": "one"})
        assert sdk.image.get_image(made_image.id).status == "queued"
        with pytest.raises(ConflictException, match="task_state image_"):
            sdk.compute.create_server_image(made.id, "second")
    states: list[tuple[str, str | None]] = []

    def done() -> bool:
        task = sdk.compute.get_server(made.id).task_state
        states.append((sdk.image.get_image(made_image.id).status, task))
        return task is None

    wait_for("Nova is done", done, 20, every=0.001)
    assert {"queued", "saving", "active"} >= {status for status, _ in states}
    image = sdk.image.get_image(made_image.id)
    assert image.status == "active"
    assert image.min_disk == 4
    own = sdk.image.get(f"/images/{image.id}").json()
    assert (own["instance_uuid"], own["image_type"], own["imagewright_job"]) == (made.id, "snapshot", "one")
    assert (own["os_distro"], own["base_image_ref"]) == ("debian", sdk.image.find_image(BASE).id)
    data = sdk.image.download_image(image).content
    assert len(data) == image.size
    assert [one.id for one in sdk.image.images(name="golden", status="active")] == [image.id]


def test_deleting_a_server_takes_its_unfinished_image_along(cloud: FakeCloud) -> None:
    sdk: Any = cloud.connect()
    made = boot(sdk, "gone")
    sdk.compute.wait_for_server(made, wait=20, interval=0.05)
    with cloud.held():
        image = sdk.compute.create_server_image(made.id, "never")
        sdk.compute.delete_server(made.id)
    wait_for("the image is gone", lambda: image.id not in cloud.state.images, 10)


def test_pages_names_and_microversions(cloud: FakeCloud) -> None:
    sdk: Any = cloud.connect()
    for number in range(5):
        boot(sdk, f"many-{number}")
    assert len(list(sdk.compute.servers(limit=2))) == 5
    assert [one.name for one in sdk.compute.servers(name="^many-3$")] == ["many-3"]
    head = {"X-Auth-Token": str(sdk.auth_token)}
    url = f"{cloud.url}/compute/v2.1/servers"
    answer = requests.get(url, headers={**head, "OpenStack-API-Version": "compute 2.79"}, timeout=10)
    assert answer.headers["OpenStack-API-Version"] == "compute 2.79"
    assert requests.get(url, headers={**head, "OpenStack-API-Version": "compute 2.999"}, timeout=10).status_code == 406
    assert requests.get(url, timeout=10).status_code == 401


def test_what_nova_refuses(cloud: FakeCloud) -> None:
    sdk: Any = cloud.connect()
    flavor, network = sdk.compute.find_flavor(FLAVOR).id, sdk.network.find_network(NETWORK).id
    with pytest.raises(BadRequestException, match="Can not find requested image"):
        sdk.compute.create_server(name="x", image_id="none", flavor_id=flavor, networks=[{"uuid": network}])
    with pytest.raises(BadRequestException, match="Invalid key_name"):
        boot(sdk, "x", key_name="none")
    for _ in range(2):
        sdk.network.create_security_group(name="twice")
    with pytest.raises(ConflictException, match="Multiple security_group matches"):
        boot(sdk, "x", security_groups=[{"name": "twice"}])
    cloud.state.quota = 0
    with pytest.raises(ForbiddenException, match="Quota exceeded for instances"):
        boot(sdk, "x")


def test_servers_go_wrong_as_they_are_told(cloud: FakeCloud) -> None:
    sdk: Any = cloud.connect()
    cloud.faults.server("lost", Fate(boot="error"))
    cloud.faults.server("slow", Fate(boot="stuck"))
    cloud.faults.server("kept", Fate(delete="refused"))
    cloud.faults.server("empty", Fate(snapshot="gone"))
    lost, slow, kept, empty = (boot(sdk, name) for name in ("lost", "slow", "kept", "empty"))
    wait_for("it is in ERROR", lambda: sdk.compute.get_server(lost.id).status == "ERROR", 10)
    assert sdk.compute.get_server(lost.id).fault["message"] == "No valid host was found. "
    sdk.compute.wait_for_server(kept, wait=20, interval=0.05)
    with pytest.raises(ConflictException):
        sdk.compute.delete_server(kept.id)
    sdk.compute.wait_for_server(empty, wait=20, interval=0.05)
    image = sdk.compute.create_server_image(empty.id, "none")
    wait_for("the image is gone", lambda: image.id not in cloud.state.images, 10)
    assert sdk.compute.get_server(slow.id).status == "BUILD"


def test_requests_go_wrong_as_they_are_told(cloud: FakeCloud) -> None:
    head = {"X-Auth-Token": str(cloud.connect().auth_token)}
    url = f"{cloud.url}/compute/v2.1/servers"
    fault = cloud.faults.answer("GET", "/servers$", 429, headers={"Retry-After": "7"})
    first, second = (requests.get(url, headers=head, timeout=10) for _ in range(2))
    assert (first.status_code, first.headers["Retry-After"], second.status_code) == (429, "7", 200)
    assert fault.met == 1
    cloud.faults.stall("GET", "/servers$")
    with pytest.raises(requests.Timeout):
        requests.get(url, headers=head, timeout=0.5)


BEGIN = """set -eu
if [ "$(systemctl show --property=LoadState --value job.service)" = loaded ]; then exit 0; fi
echo 'IyEvYmluL3NoCg==' | base64 -d > /run/job/script
systemd-run --quiet --no-block --unit=job --property=TimeoutStartSec=60 /bin/sh -c 'exec /run/job/script'
"""
LOOK = """systemctl show --property=LoadState --property=ActiveState --property=ExecMainStatus job.service
echo --
tail -c +4 /run/job/output | head -c 100 | base64 -w0
"""


def test_a_server_is_logged_in_at_and_runs_what_it_is_told(cloud: FakeCloud, keys: Keys) -> None:
    sdk: Any = cloud.connect()
    cloud.faults.server("guest", Fate(units={"job": Ran(exit=3, output=b"it failed")}))
    server = running(cloud, sdk, "guest", keys)
    assert ssh(cloud, server, keys, "true").returncode == 0
    assert ssh(cloud, server, keys, "cloud-init status").stdout == "status: done\n"
    result = ssh(cloud, server, keys, "cat /run/cloud-init/result.json").stdout
    assert json.loads(result)["v1"]["errors"] == []
    assert ssh(cloud, server, keys, LOOK).stdout.startswith("LoadState=not-found\n")
    assert ssh(cloud, server, keys, BEGIN).returncode == 0
    assert server.guest.shell.files["/run/job/script"] == b"#!/bin/sh\n"
    head, output = ssh(cloud, server, keys, LOOK).stdout.split("--\n")
    assert head == "LoadState=loaded\nActiveState=failed\nExecMainStatus=3\n"
    assert base64.b64decode(output) == b"failed"
    assert ssh(cloud, server, keys, "no-such-command").returncode == 127
    assert ssh(cloud, server, keys, "true", user="somebody").returncode == 255
    assert ssh(cloud, server, keys, "poweroff").returncode == 0
    sdk.compute.wait_for_server(sdk.compute.get_server(server.id), status="SHUTOFF", wait=20, interval=0.05)
    assert ssh(cloud, server, keys, "true").returncode == 255


def test_a_host_key_that_nobody_gave_is_on_the_console(cloud: FakeCloud, keys: Keys) -> None:
    sdk: Any = cloud.connect()
    made = boot(sdk, "unknown")
    sdk.compute.wait_for_server(made, wait=20, interval=0.05)
    server = cloud.servers("unknown")[0]
    scanned = subprocess.run(
        ["ssh-keyscan", "-p", str(cloud.ssh_port), server.address], capture_output=True, text=True, check=True
    ).stdout
    key = re.search(r"ssh-ed25519 \S+", scanned)
    assert key
    assert key[0] in sdk.compute.get_server_console_output(made.id)["output"]
    answer = ssh(cloud, server, keys, "true")
    assert "Host key verification failed" in answer.stderr


@pytest.mark.parametrize("login", ["refused", "silent", "denied"])
def test_nobody_gets_in(cloud: FakeCloud, keys: Keys, login: Any) -> None:
    cloud.faults.server("shut", Fate(login=login))
    server = running(cloud, cloud.connect(), "shut", keys)
    assert ssh(cloud, server, keys, "true").returncode == 255


def test_two_hundred_servers_at_once(cloud: FakeCloud, keys: Keys) -> None:
    sdk: Any = cloud.connect()
    image, flavor = sdk.image.find_image(BASE).id, sdk.compute.find_flavor(FLAVOR).id
    data = keys.user_data()
    with ThreadPoolExecutor(8) as pool:
        names = [f"crowd-{number}" for number in range(200)]
        made = list(
            pool.map(
                lambda name: sdk.compute.create_server(
                    name=name, image_id=image, flavor_id=flavor, networks="none", user_data=data
                ),
                names,
            )
        )
    assert len({one.id for one in made}) == 200
    wait_for("all run", lambda: all(one.status == "ACTIVE" for one in cloud.servers("crowd")), 60)
    assert len({one.address for one in cloud.servers("crowd")}) == 200
    last = cloud.servers("crowd-199")[0]
    assert ssh(cloud, last, keys, "true").returncode == 0
