"""A builder without a machine: runs the user-data of an image in a folder, with programs that only note what they were
asked to do."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.servers import REPO

CONTENT = REPO / "worker" / "content"
GOLDEN = REPO / "worker" / "tests" / "golden" / "user-data"
FOLDER = "/run/imagewright-content"

# One line a call in $CALLS. A call whose line begins with a line of $FAIL ends with 9.
FAKE = """#!/bin/bash
line="${0##*/} $*"
printf '%s\\n' "$line" >> "$CALLS"
while read -r start; do
  if [[ -n $start && $line == "$start"* ]]; then exit 9; fi
done < "$FAIL"
"""

ANSWERS = {
    "apt-cache": "printf 'libicu70\\nlibicu74\\nlibicu-dev\\nlibicu9\\n'",
    "dpkg-query": "printf 'ii  jq amd64 1.7\\nrc  gone amd64 1\\nii  bash amd64 5.2\\n'",
    "id": "echo 1000",
    "getent": "[[ $2 == ubuntu || $2 == docker ]]",
    "systemctl": "[[ $1 != cat || $2 == apt-daily.timer ]]",
    # The last word is the address, the word after --output the file: it gives out files of $SERVED.
    "curl": 'for word; do [[ $last == --output ]] && file=$word; last=$word; done; cp "$SERVED/${last##*/}" "$file"',
}

FAKES = (
    *("apt-cache", "apt-get", "chown", "curl", "dpkg", "dpkg-query", "getent", "groupadd", "id", "modprobe", "snap"),
    *("sysctl", "systemctl", "useradd", "usermod"),
)

SOURCES = {
    "sources.list": "deb http://nova.clouds.archive.ubuntu.com/ubuntu/ jammy main\n"
    "deb http://security.ubuntu.com/ubuntu jammy-security main\n"
    "deb http://ports.ubuntu.com/ubuntu-ports jammy main\n"
    "deb https://packages.example.org/ubuntu other main\n",
    "sources.list.d/ubuntu.sources": "Types: deb\nURIs: http://archive.ubuntu.com/ubuntu/\nSuites: noble\n",
}


def golden(name: str) -> dict[str, Any]:
    """What cloud-init is told, from a golden file; the scripts of an abridged one from where they stand."""
    config = yaml.safe_load((GOLDEN / name).read_text())
    for file in config["write_files"]:
        body = file["content"]
        if isinstance(body, list):
            file["content"] = "".join(f"{line}\n" for line in body)
        elif body.startswith("sha256:"):
            text = (CONTENT / file["path"].rsplit("/", 1)[1]).read_text()
            assert body == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}", file["path"]
            file["content"] = text
    return config


def archive(version: str = "2.330.0", *, config: bool = True) -> bytes:
    """A runner agent, as small as one can be."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name in ["bin/installdependencies.sh", *(["config.sh"] if config else [])]:
            text = f"#!/bin/bash\nprintf '%s\\n' 'installdependencies {version}' >> \"$CALLS\"\n".encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o755
            tar.addfile(entry, io.BytesIO(text))
    return made.getvalue()


@dataclass
class Builder:
    """`root` is its disk, `work` its memory. Change `variables` or `config` before `run`."""

    folder: Path
    config: dict[str, Any]
    variables: dict[str, str] = field(default_factory=dict)
    fail: str = ""

    def __post_init__(self) -> None:
        self.root = self.folder / "root"
        self.work = self.folder / "work"
        self.served = self.folder / "served"
        for name in (*("etc/apt/apt.conf.d", "etc/sudoers.d", "etc/sysctl.d", "etc/modules-load.d"), "home/ubuntu"):
            (self.root / name).mkdir(parents=True)
        (self.root / "var/lib/apt/lists").mkdir(parents=True)
        (self.root / "var/lib/apt/lists/some_list").touch()
        for name, text in SOURCES.items():
            (self.root / "etc/apt" / name).parent.mkdir(exist_ok=True)
            (self.root / "etc/apt" / name).write_text(text)
        self.served.mkdir()
        (self.folder / "bin").mkdir()
        for name in FAKES:
            path = self.folder / "bin" / name
            path.write_text(f"{FAKE}{ANSWERS.get(name, '')}\n")
            path.chmod(0o755)

    def serve_runner(self, data: bytes) -> None:
        """Puts the archive at the address that the user-data names, and its digest into the user-data."""
        self.variables.setdefault("RUNNER_SHA256", hashlib.sha256(data).hexdigest())
        url = next(line for line in self.environment().splitlines() if line.startswith("RUNNER_URL="))
        (self.served / url.strip("'").rsplit("/", 1)[1]).write_bytes(data)

    def environment(self) -> str:
        """The variables of the scripts, as the user-data has them."""
        return next(file["content"] for file in self.config["write_files"] if file["path"].endswith("/environment"))

    def run(self) -> "subprocess.CompletedProcess[str]":
        """What cloud-init does: writes the files, then runs the command."""
        for file in self.config["write_files"]:
            path = self.work / Path(file["path"]).relative_to(FOLDER)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file["content"])
        more = "".join(f"{name}='{value}'\n" for name, value in self.variables.items())
        (self.work / "environment").write_text(self.environment() + more)
        ((program, script),) = self.config["runcmd"]
        return self.run_script(self.work / Path(script).relative_to(FOLDER), program)

    def run_script(self, path: Path, program: str = "sh") -> "subprocess.CompletedProcess[str]":
        """A script, with the disk and the programs of this builder."""
        (self.folder / "fail").write_text(f"{self.fail}\n")
        env = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "ROOT": str(self.root),
            "WORK": str(self.work),
            "CALLS": str(self.folder / "calls"),
            "FAIL": str(self.folder / "fail"),
            "SERVED": str(self.served),
        }
        return subprocess.run([program, path], env=env, capture_output=True, text=True, check=False, timeout=60)

    def calls(self, start: str = "") -> list[str]:
        """What was asked of programs, in order."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(start)]

    def read(self, name: str) -> str:
        """A file of the disk."""
        return (self.root / name).read_text()


def shown(config: dict[str, Any]) -> str:
    """All of it, for searches."""
    return json.dumps(config)
