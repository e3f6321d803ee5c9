"""A unit's machine: /etc, /opt and /var/lib of its own over this machine's, and a systemctl that only takes notes."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from charm_stories import hook_tool
from harness.process import HarnessError, Process, wait_for

FOLDERS = ("/etc", "/opt", "/var/lib")

SYSTEMCTL = """#!/bin/sh
# Takes notes; the state of the worker is what was last asked for.
case "$*" in
    show*Result*) echo success; exit 0 ;;
    show*imagewright-schedule.service) echo inactive; exit 0 ;;
    show*) cat {active} 2>/dev/null || echo inactive; exit 0 ;;
    start*imagewright-worker.service | restart*imagewright-worker.service) echo active > {active} ;;
    stop*imagewright-worker.service) echo inactive > {active} ;;
esac
echo "$*" >> {notes}
"""

SETUP = """set -eu
mount -t tmpfs -o mode=755 machine {root}
for folder in {folders}; do
    mkdir -p {root}/upper$folder {root}/work$folder
    mount -t overlay -o lowerdir=$folder,upperdir={root}/upper$folder,workdir={root}/work$folder unit $folder
done
mount --bind {systemctl} /usr/bin/systemctl
touch {ready}
exec sleep infinity
"""


class Machine:
    """A mount namespace that lives until `stop`. Needs root."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0:
            raise HarnessError("stories of the charm give each unit a file system of its own: run them as root")
        self.folder = folder
        self.notes = folder / "systemctl.notes"
        self.tools = folder / "tools"
        (folder / "root").mkdir(parents=True)
        self.notes.touch()
        systemctl = folder / "systemctl"
        systemctl.write_text(SYSTEMCTL.format(active=folder / "active", notes=self.notes))
        systemctl.chmod(0o755)
        self._make_tools()
        ready = folder / "ready"
        script = SETUP.format(root=folder / "root", folders=" ".join(FOLDERS), systemctl=systemctl, ready=ready)
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
        self._holder = Process(words, folder / "machine.log")
        wait_for("the machine of a unit is there", lambda: ready.exists() or not self._holder.is_running())
        if not ready.exists():
            raise HarnessError(f"cannot give a unit a file system of its own:\n{self._holder.tail()}")

    def _make_tools(self) -> None:
        self.tools.mkdir()
        source = Path(hook_tool.__file__).read_text()
        tool = self.folder / "hook_tool.py"
        tool.write_text(f"#!{sys.executable} -SE\n{source}")
        tool.chmod(0o755)
        for name in hook_tool.NAMES:
            (self.tools / name).symlink_to(tool)

    def inside(self, words: Sequence[str], user: str = "root", cwd: str = "/") -> list[str]:
        """The same command as the machine would run it."""
        enter = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--", "env", f"--chdir={cwd}"]
        if user == "root":
            return [*enter, *words]
        return [*enter, "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs", *words]

    def run(
        self, words: Sequence[str], env: Mapping[str, str], user: str = "root", cwd: str = "/"
    ) -> "subprocess.CompletedProcess[str]":
        """To its end, whatever that is."""
        return subprocess.run(
            self.inside(words, user, cwd),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def path(self, path: str) -> Path:
        """A file of the machine, as seen from outside."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def asked(self) -> list[str]:
        """What systemctl was asked for, oldest first."""
        return self.notes.read_text().splitlines()

    def forget(self) -> None:
        """Only what comes from now on is of interest."""
        self.notes.write_text("")

    def service(self, name: str) -> "Service":
        """A rendered unit file."""
        return Service(self, self.path(f"/etc/systemd/system/{name}").read_text())

    def stop(self) -> None:
        """Ends all that was started in it."""
        self._holder.signal(signal.SIGTERM)
        self._holder.kill9()


class Service:
    """What systemd would do with the ExecStart, User and EnvironmentFile of a unit file."""

    def __init__(self, machine: Machine, text: str) -> None:
        self.machine = machine
        pairs = [line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#")]
        keys = ("ExecStart", "ExecStopPost", "User", "EnvironmentFile")
        self.words = {key: value.replace("$$", "$") for key, value in pairs if key in keys}
        self.command = shlex.split(self.words["ExecStart"])

    def env(self) -> dict[str, str]:
        """Of the rendered file alone, with what systemd gives to everybody."""
        lines = self.machine.path(self.words["EnvironmentFile"]).read_text().splitlines()
        given = dict(line.split("=", 1) for line in lines)
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/var/lib/imagewright", **given}

    def _state_directory(self) -> None:
        user = self.words["User"]
        self.machine.run(["install", "-d", "-m", "750", "-o", user, "-g", user, "/var/lib/imagewright"], os.environ)

    def run(self) -> "subprocess.CompletedProcess[str]":
        """A oneshot."""
        self._state_directory()
        return self.machine.run(self.command, self.env(), self.words["User"])

    def run_and_stop(self) -> "subprocess.CompletedProcess[str]":
        """A service that ends by itself, and what systemd runs then."""
        done = self.run()
        after = shlex.split(self.words["ExecStopPost"])
        return self.machine.run(after, {**self.env(), "EXIT_STATUS": str(done.returncode)}, self.words["User"])

    def start(self, log: Path) -> Process:
        """A service that goes on."""
        self._state_directory()
        return Process(self.machine.inside(self.command, self.words["User"]), log, env=self.env())
