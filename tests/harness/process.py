"""Child processes that never outlive the run, free ports, and waiting for a condition with a deadline."""

import atexit
import contextlib
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
# Below the ephemeral range, so that no outgoing connection takes the port of a server that is down for a moment.
PORTS = range(20_000, 32_000)


class HarnessError(AssertionError):
    """A server or a program under test did not do what the harness needs."""


class DeadlinePassed(HarnessError):
    """A condition did not come true in time."""


def wait_for(what: str, condition: Callable[[], T | None], seconds: float = 30.0, every: float = 0.05) -> T:
    """Polls until `condition` returns something true, and returns that; its AssertionErrors count as "not yet"."""
    end = time.monotonic() + seconds
    while True:
        reason = ""
        value: T | None = None
        try:
            value = condition()
        except AssertionError as error:
            reason = f": {error}"
        if value:
            return value
        if time.monotonic() >= end:
            raise DeadlinePassed(f"not within {seconds:g} s: {what}{reason} (last: {value!r})")
        time.sleep(every)


def is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1.0):
        return True
    return False


_claims: list[socket.socket] = []


def free_port() -> int:
    """A port nobody listens on, that no test run on this machine is given while this one lives."""
    for port in random.sample(PORTS, 500):
        claim = socket.socket(socket.AF_UNIX)
        try:
            # An abstract name: one owner at a time, gone with the process.
            claim.bind(f"\0imagewright-test-port-{port}")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((LOOPBACK, port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return port
    raise HarnessError("no free port on loopback")


class _Guard:
    """The other end of guard.py's pipe; started with the first process or folder."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = os.getpid()

    def tell(self, line: str) -> None:
        with self._lock:
            if self._process is None:
                script = Path(__file__).with_name("guard.py")
                self._process = subprocess.Popen(
                    [sys.executable, "-E", "-S", str(script)], stdin=subprocess.PIPE, text=True, start_new_session=True
                )
            pipe = self._process.stdin
            if pipe is not None:
                pipe.write(line + "\n")
                pipe.flush()

    def close(self) -> None:
        with self._lock:
            if self._process is not None and self._process.stdin is not None and os.getpid() == self._owner:
                self._process.stdin.close()
                self._process.wait(30)
                self._process = None


_guard = _Guard()


def scratch_folder(label: str) -> Path:
    """A temporary folder that goes when the run ends (kept with IMAGEWRIGHT_TEST_KEEP=1)."""
    folder = Path(tempfile.mkdtemp(prefix=f"imagewright-{label}-"))
    if not os.environ.get("IMAGEWRIGHT_TEST_KEEP"):
        _guard.tell(f"dir {folder}")
    return folder


def remove_folder(folder: Path) -> None:
    if not os.environ.get("IMAGEWRIGHT_TEST_KEEP"):
        shutil.rmtree(folder, ignore_errors=True)


class Process:
    """One child in a session of its own, with its output in a file."""

    def __init__(
        self, command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.command = [str(word) for word in command]
        self.log = log
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(env) if env is not None else None,
                cwd=cwd,
                start_new_session=True,
            )
        _guard.tell(f"+{self._popen.pid}")
        _running.add(self)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def exit_code(self) -> int | None:
        """Leaves an ended child to `kill9`: from when it is reaped on, its number may be somebody else's."""
        if self._popen.returncode is not None:
            return self._popen.returncode
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # another thread reaps it just now
            return self._popen.wait(15)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def is_running(self) -> bool:
        return self.exit_code() is None

    def tail(self, lines: int = 30) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def signal(self, number: int) -> None:
        """To the child alone, not to what it started."""
        if self.is_running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> int:
        """The exit code; a child still running after `seconds` is an error (and stays)."""
        if self.is_running():
            ended = os.pidfd_open(self.pid)
            try:
                poll = select.poll()
                poll.register(ended, select.POLLIN)
                poll.poll(seconds * 1000)
            finally:
                os.close(ended)
        code = self.exit_code()
        if code is None:
            name = Path(self.command[0]).name
            raise DeadlinePassed(f"{name} still runs after {seconds:g} s:\n{self.tail()}")
        return code

    def stop(self, seconds: float = 15.0) -> None:
        """SIGTERM, then SIGKILL for the whole group after `seconds`."""
        if self.is_running():
            self.signal(signal.SIGTERM)
            with contextlib.suppress(DeadlinePassed):
                self.wait(seconds)
        self.kill9()

    def kill9(self) -> None:
        """SIGKILL for the child and everything it started, once: the number of its group is then free for others."""
        if self._popen.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait(15)
        _running.discard(self)
        _guard.tell(f"-{self.pid}")


_running: set[Process] = set()


@atexit.register
def _end_of_run() -> None:
    """What a test or fixture left behind dies with the run."""
    for process in list(_running):
        process.kill9()
    _guard.close()
