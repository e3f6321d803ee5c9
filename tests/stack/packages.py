"""`python -m stack.packages` installs OpenStack, libvirt and QEMU from Debian 12, starting no service. Needs root."""

import os
import subprocess
import sys
from pathlib import Path

_PACKAGES = [
    "keystone",
    "glance-api",
    "placement-api",
    "nova-api",
    "nova-conductor",
    "nova-scheduler",
    "nova-compute-lxc",
    "neutron-server",
    "neutron-linuxbridge-agent",
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt-clients",
    "rabbitmq-server",
    "mariadb-server",
    "uwsgi-core",
    "uwsgi-plugin-python3",
    "python3-pymysql",
    "genisoimage",
    "iptables",
    "ebtables",
    "ipset",
    "bridge-utils",
    "conntrack",
    "iproute2",
    "sudo",
    "openssh-client",
    "mmdebstrap",
    "grub-pc-bin",
    "grub2-common",
    "fdisk",
    "e2fsprogs",
]
_QEMU = ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "qemu-utils", "seabios")
_POLICY = Path("/usr/sbin/policy-rc.d")
_BACKPORTS = Path("/etc/apt/sources.list.d/imagewright-backports.list")
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _qemu() -> list[str]:
    """All of QEMU from where its utilities come from: a machine may have those from backports, and they don't mix."""
    if "~bpo12" not in _output("dpkg-query", "-W", "-f", "${Version}", "qemu-utils"):
        return ["qemu-system-x86", "qemu-utils"]
    source = _output("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").splitlines()[0]
    _BACKPORTS.write_text(f"deb [signed-by={_KEYRING}] {source} bookworm-backports main\n")
    return [f"{name}/bookworm-backports" for name in _QEMU]


def main() -> int:
    if os.geteuid() != 0:
        print("the OpenStack under test needs root: network namespaces, bridges, libvirt", file=sys.stderr)
        return 1
    if Path("/usr/bin/nova-compute").exists() and Path("/usr/bin/mmdebstrap").exists():
        return 0
    made = not _POLICY.exists()
    if made:
        # A package's scripts ask policy-rc.d whether they may start a service; 101 says no.
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=600", "-o", "Dpkg::Options::=--force-confold"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        print("installing OpenStack (some 400 packages)", file=sys.stderr, flush=True)
        qemu = _qemu()
        subprocess.run([*apt, "update"], check=True, stdout=subprocess.DEVNULL, env=env)
        install = [*apt, "install", "--no-install-recommends", *_PACKAGES, *qemu]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL, env=env)
    finally:
        if made:
            _POLICY.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
