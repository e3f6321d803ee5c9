"""Calls the program `imagewright` as the worker's user would, and reads its JSON."""

import json
import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

BINARY = Path("/opt/imagewright/current/bin/imagewright")
ENVIRONMENT = Path("/etc/imagewright/environment")
SECONDS = 25
"""The program gives up a queue or a cloud after 10 s; this is the last word."""

UNREACHABLE = 69


class ProgramError(Exception):
    """The program failed; the text is what it said."""


def call(*words: str, partial: bool = False) -> Any:
    """The JSON that a command prints, None if it prints nothing.

    With `partial` an answer counts although a cloud is away.
    Raises ProgramError with the program's last line otherwise.
    """
    command = [str(BINARY), "--json", "--quiet", *words]
    how: dict[str, Any] = {"capture_output": True, "text": True, "env": environment(), "cwd": "/", **_as_worker()}
    try:
        done = subprocess.run(command, timeout=SECONDS, check=False, **how)
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"no answer within {SECONDS} s") from error
    except OSError as error:
        raise ProgramError(f"cannot start {BINARY}: {error.strerror}") from error
    if done.returncode != 0 and not (partial and done.returncode == UNREACHABLE and done.stdout):
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ProgramError(lines[-1])
    return json.loads(done.stdout) if done.stdout.strip() else None


def environment() -> dict[str, str]:
    """What the services have in their environment."""
    found = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": "/var/lib/imagewright"}
    if ENVIRONMENT.exists():
        for line in ENVIRONMENT.read_text().splitlines():
            key, _, value = line.partition("=")
            found[key] = value.strip('"')
    return found


def _as_worker() -> dict[str, Any]:
    """Root runs it as the worker's user, so that no file of an embedded queue ends up as root's."""
    try:
        user = pwd.getpwnam("imagewright")
    except KeyError:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
