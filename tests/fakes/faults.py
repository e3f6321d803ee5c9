"""What goes wrong: for requests, and for servers by name. Tests set it, from any thread, while the cloud runs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass
class HttpFault:
    """Requests that are answered otherwise; with `stall` not at all until the client gives up; with `after` only when
    the cloud has done what was asked: its answer is lost."""

    method: str
    path: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    times: int | None = None
    stall: bool = False
    after: bool = False
    met: int = 0

    def takes(self, method: str, path: str) -> bool:
        """Whether this request is hit; counts it if so."""
        if self.times is not None and self.met >= self.times:
            return False
        if not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        self.met += 1
        return True


@dataclass(frozen=True)
class Ran:
    """How a unit under systemd goes: its output over so many seconds, then how it ends. With `exit` None it hangs, and
    its time limit has come after `seconds`; never, when that is 0."""

    exit: int | None = 0
    output: bytes = b""
    seconds: float = 0.0


@dataclass(frozen=True)
class Said:
    """What a command answers."""

    exit: int = 0
    stdout: str = ""
    stderr: str = ""


@dataclass(frozen=True)
class Fate:
    """What becomes of a server. The default: all goes well."""

    boot: Literal["active", "error", "stuck"] = "active"
    fault: str = "No valid host was found. "
    # "gone": the image vanishes; "killed": it gets that status; "saving": it stays so for ever; "busy": it is active,
    # and the server is still being read.
    snapshot: Literal["active", "gone", "killed", "saving", "busy"] = "active"
    # "refused": 409; "ignored": 204, and nothing happens.
    delete: Literal["done", "refused", "ignored"] = "done"
    # "refused": nobody listens; "silent": connections are taken and never answered; "denied": no key is good;
    # "impostor": who answers has another host key.
    login: Literal["open", "refused", "silent", "denied", "impostor"] = "open"
    cloud_init: Literal["done", "running", "error"] = "done"
    cloud_init_error: str = "('scripts_user', RuntimeError('Runparts: 1 failures in 1 attempted commands'))"
    cloud_init_output: bytes = b"Cloud-init finished at once.\n"
    units: Mapping[str, Ran] = field(default_factory=dict)
    # By regular expressions that are searched for in a command or script, before all others.
    commands: Mapping[str, Said] = field(default_factory=dict)


class Faults:
    """All that is set to go wrong."""

    def __init__(self) -> None:
        self.http: list[HttpFault] = []
        self._fates: list[tuple[str, Fate]] = []

    def answer(
        self,
        method: str,
        path: str,
        status: int,
        times: int | None = 1,
        headers: Mapping[str, str] | None = None,
        body: str = "",
        after: bool = False,
    ) -> HttpFault:
        """Answers requests whose path holds the regular expression `path` with `status`; `times` None is for ever."""
        fault = HttpFault(method, path, status, headers or {}, body, times, after=after)
        self.http.append(fault)
        return fault

    def stall(self, method: str, path: str, times: int | None = 1) -> HttpFault:
        """Takes such requests, and never answers them."""
        fault = HttpFault(method, path, times=times, stall=True)
        self.http.append(fault)
        return fault

    def server(self, name: str, fate: Fate) -> None:
        """For servers whose name holds the regular expression `name`; what was said last goes first."""
        self._fates.insert(0, (name, fate))

    def fate(self, name: str) -> Fate:
        """What becomes of the server of this name."""
        return next((fate for pattern, fate in self._fates if re.search(pattern, name)), Fate())

    def clear(self) -> None:
        """All goes well again."""
        self.http.clear()
        self._fates.clear()
