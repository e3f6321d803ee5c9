"""Answers to the commands that a builder is given. Nothing is executed: commands are recognised, and unknown ones fail
as in a shell that does not know them."""

import asyncio
import base64
import json
import re
import time
from dataclasses import dataclass, field

from fakes.faults import Fate, Ran, Said


@dataclass
class Unit:
    """A unit that systemd-run was given."""

    ran: Ran
    limit: float | None
    begun: float = field(default_factory=time.monotonic)

    def shows(self) -> dict[str, str]:
        """What `systemctl show` tells of it."""
        seconds = time.monotonic() - self.begun
        shown = {"LoadState": "loaded", "ActiveState": "activating", "Result": "success", "ExecMainStatus": "0"}
        if self.ran.exit is None:
            if self.limit is not None and seconds >= self.limit:
                shown.update(ActiveState="failed", Result="timeout")
        elif seconds >= self.ran.seconds:
            good = self.ran.exit == 0
            shown.update(ActiveState="active" if good else "failed", Result="success" if good else "exit-code")
            shown["ExecMainStatus"] = str(self.ran.exit)
        return shown


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
            (r"\b(poweroff|shutdown)\b", self._power_off),
            (r"^\s*cat (\S+)\s*$", self._cat),
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
        limit = re.search(r"(?:TimeoutStartSec|RuntimeMaxSec)=(\d+)", text)
        ran = self.fate.units.get(name[1], Ran())
        self.units[name[1]] = Unit(ran, float(limit[1]) if limit else None)
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
            out += f"--\n{self._output(text, unit)}"
        return Said(0, out)

    def _output(self, text: str, unit: Unit | None) -> str:
        data = unit.ran.output if unit else b""
        if unit and unit.ran.seconds and unit.ran.exit is not None:
            done = min(1.0, (time.monotonic() - unit.begun) / unit.ran.seconds)
            data = data[: int(len(data) * done)]
        tail = re.search(r"tail -c (\+?)(\d+)", text)
        if tail:
            data = data[int(tail[2]) - 1 :] if tail[1] else data[-int(tail[2]) :]
        head = re.search(r"head -c (\d+)", text)
        if head:
            data = data[: int(head[1])]
        return base64.b64encode(data).decode() if "base64" in text else data.decode(errors="replace")

    def _cloud_init(self, text: str) -> Said:
        status = self.fate.cloud_init
        code = 1 if status == "error" else 0
        errors = [self.fate.cloud_init_error] if status == "error" else []
        if "--format json" in text or "--format=json" in text:
            return Said(code, json.dumps({"status": status, "errors": errors, "extended_status": status}) + "\n")
        told = f"status: {status}\n" + "".join(f"detail: {error}\n" for error in errors)
        return Said(0 if "true" in text else code, f"status: {status}\n", told if ">&2" in text else "")

    def _power_off(self, _: str) -> Said:
        self.off = True
        return Said()

    def _cat(self, text: str) -> Said:
        path = text.split()[1]
        if path not in self.files:
            return Said(1, "", f"cat: {path}: No such file or directory\n")
        return Said(0, self.files[path].decode(errors="replace"))
