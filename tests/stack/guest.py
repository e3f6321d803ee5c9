"""A server that the tests boot themselves, to look into an image: independent of everything under test."""

import subprocess
import uuid
from pathlib import Path

from openstack.connection import Connection

from harness.process import wait_for
from stack.lab import FLAVOR, NETWORK


class Guest:
    """A server booted from an image by openstacksdk, reached by ssh with a key of its own."""

    def __init__(self, cloud: Connection, image: str, folder: Path) -> None:
        self.cloud = cloud
        self.name = f"look-{uuid.uuid4().hex[:8]}"
        self.key = folder / self.name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        cloud.create_keypair(self.name, self.key.with_suffix(".pub").read_text())
        group = cloud.create_security_group(self.name, "the test's own")
        cloud.create_security_group_rule(group.id, port_range_min=22, port_range_max=22, protocol="tcp")
        self.server = cloud.create_server(
            self.name,
            image=image,
            flavor=FLAVOR,
            network=NETWORK,
            key_name=self.name,
            security_groups=[self.name],
            config_drive=True,
            auto_ip=False,
            wait=True,
            timeout=300,
        )
        addresses = [one["addr"] for many in self.server.addresses.values() for one in many]
        self.address = addresses[0]
        wait_for("the server lets us in", lambda: self._ssh("true").returncode == 0, 400, every=3)

    def _ssh(self, command: str) -> "subprocess.CompletedProcess[str]":
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "ConnectTimeout=5"]
        words = [word for option in options for word in ("-o", option)]
        line = ["ssh", "-q", "-i", str(self.key), *words, f"ubuntu@{self.address}", command]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)

    def run(self, command: str) -> str:
        done = self._ssh(command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def delete(self) -> None:
        self.cloud.delete_server(self.server.id, wait=True)
        self.cloud.delete_security_group(self.name)
        self.cloud.delete_keypair(self.name)
