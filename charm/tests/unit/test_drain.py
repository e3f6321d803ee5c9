"""The queue of the time before the broker: how it is worked off, and when it is put aside."""

import shlex
import subprocess

import pytest
from conftest import deployed, image

import files


@pytest.fixture
def drain(context, machine, tmp_path):
    """Runs the script of the unit with a worker that does as told; the exit code, and what was called."""
    context.run(context.on.config_changed(), deployed(image(), config={"namespace": "first"}))
    context.run(context.on.config_changed(), deployed(image(), config={"namespace": "second"}))
    calls = tmp_path / "calls"

    def run(worker: str, resume: str = "exit 0") -> tuple[int, list[str]]:
        for name, does in (("imagewright", resume), ("imagewright-worker", worker)):
            text = f'#!/bin/sh\necho "{name} $IMAGEWRIGHT_NAMESPACE" "$@" >> {calls}\n{does}\n'
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        script = machine.files["drain"].replace("/opt/imagewright/current/bin", str(tmp_path))
        done = subprocess.run(["/bin/sh", "-c", script], check=False, timeout=30)
        return done.returncode, calls.read_text().splitlines()

    return run


def test_a_drain_ends_pauses_and_ends_well_only_when_nothing_is_left(drain):
    code, calls = drain(worker="exit 0")
    assert code == 0
    queue = "--queue sqlite:/var/lib/imagewright/queue.db"
    assert calls == [
        line
        for name in ("first", "second")
        for line in (
            f"imagewright {name} --quiet {queue} resume",
            f"imagewright-worker {name} {queue} --listen 127.0.0.1:9470 --drain",
        )
    ]


@pytest.mark.parametrize(
    ("worker", "resume", "wanted"),
    [("exit 75", "exit 0", 75), ("kill -TERM $PPID; exit 0", "exit 0", 75), ("exit 0", "exit 69", 69)],
)
def test_a_drain_that_is_interrupted_does_not_end_well(drain, worker, resume, wanted):
    assert drain(worker, resume)[0] == wanted


def test_the_old_queue_is_put_aside_only_after_a_good_end(context, machine, tmp_path):
    context.run(context.on.config_changed(), deployed(image()))
    lines = machine.units["imagewright-drain.service"].splitlines()
    (after,) = [line.removeprefix("ExecStopPost=") for line in lines if line.startswith("ExecStopPost=")]
    words = shlex.split(after.replace("$$", "$").replace(files.STATE, str(tmp_path)))
    for status in ("75", "TERM", "69", ""):
        (tmp_path / "queue.db").touch()
        subprocess.run(words, env={"EXIT_STATUS": status, "PATH": "/usr/bin:/bin"}, check=True)
        assert (tmp_path / "queue.db").exists()
    subprocess.run(words, env={"EXIT_STATUS": "0", "PATH": "/usr/bin:/bin"}, check=True)
    assert not (tmp_path / "queue.db").exists()
    assert (tmp_path / "drained/queue.db").exists()
    assert "Restart=on-failure" in lines
