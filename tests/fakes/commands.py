"""Answers to the commands that a builder is given. Nothing is executed: commands are recognised, and unknown ones fail
as in a shell that does not know them."""

import asyncio
import base64
import hashlib
import json
import re
import time
from dataclasses import dataclass, field

from fakes.faults import Fate, Ran, Said


@dataclass
class Unit:
    """A unit that systemd-run was given."""

    ran: Ran
    begun: float = field(default_factory=time.monotonic)

    def shows(self) -> dict[str, str]:
        """What `systemctl show` tells of it."""
        seconds = time.monotonic() - self.begun
        shown = {"LoadState": "loaded", "ActiveState": "activating", "Result": "success", "ExecMainStatus": "0"}
        if self.ran.exit is None:
            if 0 < self.ran.seconds <= seconds:
                shown.update(ActiveState="failed", Result="timeout")
        elif seconds >= self.ran.seconds:
            good = self.ran.exit == 0
            shown.update(ActiveState="active" if good else "failed", Result="success" if good else "exit-code")
            shown["ExecMainStatus"] = str(self.ran.exit)
        return shown


# What the list of packages of every server has as its SHA-256.
PACKAGES = hashlib.sha256(b"bash amd64 5.2.15-2\n").hexdigest()
_NO_UNIT = {"LoadState": "not-found", "ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}


class Shell:
    """Since one switching on."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.units: dict[str, Unit] = {}
        # What was written by `echo ... | base64 -d > FILE`: scripts, and the environment with their secrets.
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.off = False

    async def run(self, text: str) -> Said:
        """What a command or script comes to."""
        self.asked.append(text)
        for pattern, said in self.fate.commands.items():
            if re.search(pattern, text):
                return said
        known = (
            (r"systemd-run\b", self._begin),
            (r"systemctl show\b", self._look),
            (r"cloud-init status\b", self._cloud_init),
            (r"\bdpkg-query\b", lambda _: Said(0, f"{PACKAGES}\n")),
            (r"\b(poweroff|shutdown)\b", self._power_off),
            (r"^\s*cat \S+", self._cat),
            (r"^\s*(true|:)?\s*$", lambda _: Said()),
        )
        for pattern, answer in known:
            if re.search(pattern, text):
                while "--wait" in text and self.fate.cloud_init == "running":
                    await asyncio.sleep(3600)
                return answer(text)
        return Said(127, "", f"sh: 1: {text.split()[0]}: not found\n")

    def _begin(self, text: str) -> Said:
        name = re.search(r"--unit=(\S+)", text)
        if name is None:
            return Said(1, "", "Failed to start transient service unit: no name.\n")
        if name[1] in self.units:
            already = f"Failed to start transient service unit: Unit {name[1]}.service was already loaded.\n"
            return Said(0) if "LoadState" in text else Said(1, "", already)
        found = re.finditer(r"echo '([A-Za-z0-9+/=\s]*)' \| base64 -d > (\S+)", text)
        written = {one[2]: base64.b64decode(one[1]) for one in found}
        self.files.update(written)
        ran = self.fate.units.get(name[1], Ran())
        self.units[name[1]] = Unit(ran)
        self.off = ran.exit == 0 and any(b"poweroff" in data for data in written.values())
        return Said()

    def _look(self, text: str) -> Said:
        name = re.search(r"([\w@-]+)\.service", text)
        unit = self.units.get(name[1]) if name else None
        shown = unit.shows() if unit else _NO_UNIT
        wanted = re.findall(r"(?:--property=|-p )(\w+)", text) or list(shown)
        lines = [shown.get(key, "") if "--value" in text else f"{key}={shown.get(key, '')}" for key in wanted]
        out = "".join(f"{line}\n" for line in lines)
        if "echo --" in text:
            out += f"--\n{self._output(text)}"
        return Said(0, out)

    def _read(self, path: str) -> bytes | None:
        """A file, as far as it is written by now."""
        written = re.fullmatch(r"/run/([\w@-]+)/output", path)
        unit = self.units.get(written[1]) if written else None
        if unit is not None:
            done = 1.0
            if unit.ran.seconds and unit.ran.exit is not None:
                done = min(1.0, (time.monotonic() - unit.begun) / unit.ran.seconds)
            return unit.ran.output[: int(len(unit.ran.output) * done)]
        if path == "/run/cloud-init/result.json" and self.fate.cloud_init != "running":
            return json.dumps({"v1": {"datasource": "DataSourceConfigDrive", "errors": self._errors()}}).encode()
        if path == "/var/log/cloud-init-output.log":
            return self.fate.cloud_init_output
        return self.files.get(path)

    def _output(self, text: str) -> str:
        tail = re.search(r"tail -c (\+?)(\d+) (\S+)", text)
        data = (self._read(tail[3]) or b"") if tail else b""
        if tail:
            data = data[int(tail[2]) - 1 :] if tail[1] else data[-int(tail[2]) :]
        head = re.search(r"head -c (\d+)", text)
        if head:
            data = data[: int(head[1])]
        return base64.b64encode(data).decode() if "base64" in text else data.decode(errors="replace")

    def _errors(self) -> list[str]:
        return [self.fate.cloud_init_error] if self.fate.cloud_init == "error" else []

    def _cloud_init(self, text: str) -> Said:
        status = self.fate.cloud_init
        code = 1 if status == "error" else 0
        errors = self._errors()
        if "--format json" in text or "--format=json" in text:
            return Said(code, json.dumps({"status": status, "errors": errors, "extended_status": status}) + "\n")
        told = f"status: {status}\n" + "".join(f"detail: {error}\n" for error in errors)
        return Said(0 if "true" in text else code, f"status: {status}\n", told if ">&2" in text else "")

    def _power_off(self, _: str) -> Said:
        self.off = True
        return Said()

    def _cat(self, text: str) -> Said:
        """One file, and with `echo --` what is next in the text as well."""
        path = text.split()[1]
        data = self._read(path)
        told = (data or b"").decode(errors="replace")
        if "echo --" in text:
            return Said(0, f"{told}\n--\n{self._output(text)}")
        return Said(0, told) if data is not None else Said(1, "", f"cat: {path}: No such file or directory\n")
