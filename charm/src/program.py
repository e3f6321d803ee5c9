"""Calls the program `imagewright` as the worker's user would, and reads its JSON."""

import json
import logging
import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

BINARY = Path("/opt/imagewright/current/bin/imagewright")
ENVIRONMENT = Path("/etc/imagewright/environment")
SECONDS = 25
"""The program gives up a queue or a cloud after 10 s; this is the last word."""

log = logging.getLogger(__name__)


class ProgramError(Exception):
    """The program failed; the text is what it said."""


def call(*words: str) -> Any:
    """The JSON that a command prints, None if it prints nothing. Raises ProgramError with its last line if it fails."""
    done = _run(words)
    if done.returncode != 0:
        raise ProgramError(_last_line(done))
    return json.loads(done.stdout) if done.stdout.strip() else None


def partly(*words: str) -> tuple[list[dict[str, Any]], bool]:
    """The rows of a command that asks several clouds, and whether every one answered.

    One that is away or refuses its login takes nothing from the others. Raises ProgramError if there is no row then.
    """
    done = _run(words)
    rows = json.loads(done.stdout) if done.stdout.lstrip().startswith("[") else []
    if done.returncode == 0:
        return rows, True
    if not rows:
        raise ProgramError(_last_line(done))
    log.warning("not every cloud answers: %s", done.stderr.strip())
    return rows, False


def _run(words: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
    command = [str(BINARY), "--json", "--quiet", *words]
    how: dict[str, Any] = {"capture_output": True, "text": True, "env": environment(), "cwd": "/", **_as_worker()}
    try:
        return subprocess.run(command, timeout=SECONDS, check=False, **how)
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"no answer within {SECONDS} s") from error
    except OSError as error:
        raise ProgramError(f"cannot start {BINARY}: {error.strerror}") from error


def _last_line(done: "subprocess.CompletedProcess[str]") -> str:
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


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
