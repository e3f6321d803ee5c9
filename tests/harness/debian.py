"""`python -m harness.debian` installs RabbitMQ, GnuPG, ssh, systemd-analyze and libfaketime where they are missing."""

import os
import shutil
import subprocess
import sys

from harness import clock
from harness.rabbitmq import BIN, MISSING

# A package's scripts ask policy-rc.d whether they may start a service; 101 says no.
INSTALL = """set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\\nexit 101\\n' > $policy
    chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends rabbitmq-server gpg gpg-agent openssh-client systemd libfaketime
"""


def is_there() -> bool:
    programs = ("gpg", "gpg-agent", "ssh", "systemd-analyze")
    return (BIN / "rabbitmq-server").exists() and clock.is_there() and all(shutil.which(one) for one in programs)


def main() -> int:
    if is_there():
        return 0
    root: list[str] = []
    if os.geteuid() != 0:
        sudo = shutil.which("sudo")
        if sudo is None:
            print(f"{MISSING}\nThis is the only step that needs root, and there is no sudo.", file=sys.stderr)
            return 1
        root = [sudo]
    if shutil.which("apt-get") is None:
        print(f"{MISSING}\nThere is no apt-get here: install RabbitMQ 3.10 or newer yourself.", file=sys.stderr)
        return 1
    print("installing rabbitmq-server (not started), gpg, ssh, systemd and libfaketime", file=sys.stderr, flush=True)
    done = subprocess.run([*root, "sh", "-c", INSTALL], stdout=subprocess.DEVNULL, check=False)
    if done.returncode != 0 or not is_there():
        print(f"the installation failed ({done.returncode}). {MISSING}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
