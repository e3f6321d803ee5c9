"""Children, and the numbers that they leave to others."""

import os
import signal
import sys
from pathlib import Path

import pytest

from harness.process import DeadlinePassed, Process


def _python(folder: Path, code: str) -> Process:
    return Process([sys.executable, "-c", code], folder / "log")


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_how_a_child_ended_is_told_before_and_after_it_is_reaped(tmp_path: Path) -> None:
    ended = _python(tmp_path, "raise SystemExit(7)")
    assert (ended.wait(20), ended.exit_code(), ended.is_running()) == (7, 7, False)
    ended.kill9()
    assert (ended.wait(20), ended.exit_code()) == (7, 7)
    killed = _python(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(DeadlinePassed):
        killed.wait(0.1)
    killed.kill9()
    assert killed.wait(1) == -signal.SIGKILL


def test_the_number_of_a_child_is_nobody_elses_until_its_group_was_killed(tmp_path: Path) -> None:
    """One that has ended keeps it; and no group is killed twice, for its number is free then."""
    child = _python(tmp_path, "pass")
    assert child.wait(20) == 0
    assert _exists(child.pid)
    child.kill9()
    killed: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "killpg", lambda group, _: killed.append(group))
        child.kill9()
        child.stop()
    assert killed == []
