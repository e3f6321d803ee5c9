"""What a command costs: wall time, CPU time of everything it started and waited for, and peak memory."""

import contextlib
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.process import HarnessError

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """One run: seconds, CPU seconds, bytes at the peak."""

    wall: float
    cpu: float
    peak: int

    def beside(self, other: "Cost") -> "Cost":
        """Both at once: the longer time, the sum of the rest."""
        return Cost(max(self.wall, other.wall), self.cpu + other.cpu, self.peak + other.peak)


@dataclass(frozen=True)
class Spread:
    """Several rounds of one figure."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        return f"{self.median:.{digits}f} ({self.least:.{digits}f} to {self.most:.{digits}f})"


def high_water(pid: int) -> int:
    """Peak resident memory so far, in bytes; 0 of a process that has ended.

    Not ru_maxrss: a child begins with that of whoever forked it.
    """
    return _status(pid, "VmHWM")


def resident(pid: int) -> int:
    return _status(pid, "VmRSS")


def _status(pid: int, key: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid: int) -> float:
    """CPU time of a running process and of those of its children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += [int(child) for child in (task / "children").read_text().split()]
    return [pid, *(below for child in children for below in tree(child))]


class Watch:
    """The peak memory of a process and its descendants, looked at a hundred times a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks: dict[int, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.01):
            for pid in tree(self._pid):
                self._peaks[pid] = max(high_water(pid), self._peaks.get(pid, 0))

    def stop(self) -> int:
        self._ended.set()
        self._thread.join()
        return sum(self._peaks.values())


def run(command: Sequence[str | Path], env: Mapping[str, str] | None = None, seconds: float = 600) -> Cost:
    """Runs a command to its end and insists that it went well."""
    began = time.monotonic()
    with subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **(env or {})},
    ) as child:
        watch = Watch(child.pid)
        killer = threading.Timer(seconds, child.kill)
        killer.start()
        error = child.stderr.read() if child.stderr else b""
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - began
        killer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        peak = watch.stop()
    if child.returncode != 0:
        words = " ".join(map(str, command))
        raise HarnessError(f"{words[:300]} ended with {child.returncode}: {error.decode(errors='replace')[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, peak)


def run_text(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> str:
    """Runs a command and gives what it printed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})})
    if done.returncode != 0:
        raise HarnessError(f"{' '.join(words)[:300]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
