"""The machine's part on a real file system, with a systemctl that takes notes."""

import grp
import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

import files
import program
import workload

EXPOSED = [f"imagewright-{name}.service" for name in ("worker", "drain", "schedule", "look")]
"""Services of the worker's user; the one that calls juju-exec has to be root."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    monkeypatch.setattr(workload, "_systemctl", lambda *words, **_: found.append(words) or "")
    monkeypatch.setattr(workload, "_user", lambda: None)
    monkeypatch.setattr(workload, "USER", grp.getgrgid(os.getgid()).gr_name)
    monkeypatch.setattr(os, "chown", lambda *_: None)
    for name in ("ETC", "OPT", "STATE", "SYSTEMD"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(workload, name, tmp_path / name)
    return found


def programs(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in workload.PROGRAMS:
        (folder / name).write_text(f"#!/bin/sh\necho {name} {text}\n")
    return folder


def test_programs_are_copied_out_of_the_charm_and_replaced_whole(asked, tmp_path):
    source = programs(tmp_path / "charm", "1.0")
    workload.install(source)
    assert workload.version() == "1.0"
    programs(source, "2.0")
    workload.install(source)
    workload.install(source)
    assert workload.version() == "2.0"
    assert len([path for path in (tmp_path / "OPT").iterdir() if not path.is_symlink()]) == 1


def test_credentials_are_not_readable_for_everybody_and_go_when_not_wanted(asked, tmp_path):
    assert workload.write({"clouds.yaml": "a", "secrets/TOKEN": "b"}) == {"clouds.yaml", "secrets/TOKEN"}
    assert workload.written() == {"clouds.yaml": "a", "secrets/TOKEN": "b"}
    assert stat.S_IMODE((tmp_path / "ETC/secrets/TOKEN").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "ETC/secrets").stat().st_mode) == 0o750
    assert workload.write({"clouds.yaml": "a"}) == {"secrets/TOKEN"}
    assert not (tmp_path / "ETC/secrets/TOKEN").exists()
    assert workload.write({"clouds.yaml": "a"}) == set()
    assert (workload.read("clouds.yaml"), workload.read("queue")) == ("a", "")


def test_units_are_told_to_systemd_only_when_they_change(asked):
    assert workload.write_units({"x.service": "a"}) == {"x.service"}
    assert workload.write_units({"x.service": "a"}) == set()
    assert asked == [("daemon-reload",)]


@pytest.fixture
def current(asked, tmp_path):
    """Programs are there."""
    workload.install(programs(tmp_path / "charm", "1.0"))


def test_no_hook_waits_for_the_worker(asked, current, monkeypatch):
    monkeypatch.setattr(workload, "state", lambda _: "active")
    workload.run_worker(restart=True, reload=True)
    workload.run_worker(restart=False, reload=True)
    workload.stop_worker()
    workload.schedule_now()
    monkeypatch.setattr(workload, "state", lambda _: "deactivating")
    workload.run_worker(restart=False, reload=True)
    verbs = ("restart", "reload", "start", "stop")
    acts = [words for words in asked if words[0] in verbs]
    assert [words[0] for words in acts] == ["restart", "reload", "stop", "start", "start"]
    assert all("--no-block" in words for words in acts)


def test_a_worker_that_is_starting_is_started_again_to_read_its_files(asked, current, monkeypatch):
    monkeypatch.setattr(workload, "state", lambda _: "activating")
    workload.run_worker(restart=False, reload=True)
    assert asked[-1][0] == "restart"
    workload.run_worker(restart=False, reload=False)
    assert asked[-1][0] == "enable"


def test_programs_are_outdated_until_the_worker_was_started_from_them(asked, current, tmp_path):
    assert workload.outdated()
    workload.run_worker(restart=True, reload=False)
    assert not workload.outdated()
    workload.install(programs(tmp_path / "charm", "2.0"))
    workload.install(tmp_path / "charm")
    assert workload.outdated()


@pytest.fixture
def refusing(monkeypatch, tmp_path):
    """A systemd that knows none of our units, or none that answers."""
    how: dict[str, object] = {}

    def run(words, **given):
        how.update(given)
        if how.get("silent"):
            raise subprocess.TimeoutExpired(words, 60)
        raise subprocess.CalledProcessError(1, words)

    monkeypatch.setattr(subprocess, "run", run)
    for name in ("ETC", "OPT", "STATE", "SYSTEMD"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(workload, name, tmp_path / name)
    return how


@pytest.mark.parametrize("silent", [False, True])
def test_an_application_that_never_was_set_up_can_be_removed(refusing, silent):
    refusing["silent"] = silent
    workload.stop_worker()
    workload.remove()
    assert workload.state(workload.WORKER) == ""
    assert refusing["timeout"]
    with pytest.raises(subprocess.SubprocessError):
        workload.schedule_now()


def test_the_old_queue_is_worked_off_only_if_there_is_one(asked, tmp_path):
    workload.drain_old_queue()
    assert not asked
    (tmp_path / "STATE/queue.db").touch()
    workload.drain_old_queue()
    workload.keep_own_queue()
    assert asked == [(verb, "--no-block", "imagewright-drain.service") for verb in ("start", "stop")]


def test_only_a_leader_has_the_schedule(asked):
    workload.timers(schedule=True)
    workload.timers(schedule=False)
    workload.no_schedule()
    acts = [words[0] for words in asked if words[-1] == "imagewright-schedule.timer"]
    assert acts == ["enable", "disable", "disable"]


def test_remove_leaves_nothing(asked, tmp_path):
    workload.write({"clouds.yaml": "a"})
    workload.write_units({workload.WORKER: "a"})
    workload.remove()
    assert [words[0] for words in asked if workload.WORKER in words] == ["kill", "disable"]
    assert not any((tmp_path / name).exists() for name in ("ETC", "OPT", "STATE"))
    assert not (tmp_path / "SYSTEMD" / workload.WORKER).exists()


def test_a_user_is_made_when_there_is_none(monkeypatch, tmp_path):
    ran: list[list[str]] = []
    monkeypatch.setattr(workload, "STATE", tmp_path / "state")
    monkeypatch.setattr(shutil, "chown", lambda *_: None)
    monkeypatch.setattr(workload, "USER", "nobody-of-this-name")
    monkeypatch.setattr(subprocess, "run", lambda words, **how: ran.append([*words, how["timeout"]]))
    workload._user()
    assert ran[0][0] == "/usr/sbin/useradd"
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o750
    monkeypatch.setattr(workload, "USER", "root")
    workload._user()
    assert len(ran) == 1


def test_the_program_runs_as_the_workers_user(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(program.pwd, "getpwnam", lambda _: nobody)
    asked: list[dict] = []

    def run(_words, **how):
        asked.append(how)
        return subprocess.CompletedProcess([], 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    program.call("queues")
    wanted = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    assert {key: asked[0].get(key) for key in wanted} == wanted


def test_the_program_answers_in_json_or_says_why(tmp_path, monkeypatch, caplog):
    script = tmp_path / "imagewright"
    monkeypatch.setattr(program, "BINARY", script)
    (tmp_path / "environment").write_text("IMAGEWRIGHT_NAMESPACE=there\n")
    monkeypatch.setattr(program, "ENVIRONMENT", tmp_path / "environment")

    def says(text: str) -> None:
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)

    with pytest.raises(program.ProgramError, match="cannot start"):
        program.call("queues")
    says('echo "[\\"$IMAGEWRIGHT_NAMESPACE\\", \\"$1\\"]"')
    assert program.call("queues") == ["there", "--json"]
    for code in (64, 69):
        says(f"""echo '[{{"id": "a"}}]'; echo cloud away >&2; exit {code}""")
        assert program.partly("images") == ([{"id": "a"}], False)
        assert "cloud away" in caplog.text
        with pytest.raises(program.ProgramError, match="cloud away"):
            program.call("images")
    for nothing in ("echo []", ":", "echo Usage"):
        says(f"{nothing}; echo cloud away >&2; exit 64")
        with pytest.raises(program.ProgramError, match="cloud away"):
            program.partly("images")
    says("echo []")
    assert program.partly("images") == ([], True)
    says("exit 0")
    assert program.call("dead") is None
    says("exec sleep 5")
    monkeypatch.setattr(program, "SECONDS", 0.2)
    with pytest.raises(program.ProgramError, match="no answer"):
        program.call("queues")


@pytest.mark.parametrize("interval", [0, 1, 5, 6, 23, 24])
def test_the_units_are_what_systemd_understands(context, machine, tmp_path, interval):
    from conftest import deployed, image

    context.run(context.on.config_changed(), deployed(image(), config={"build-interval": interval}))
    assert set(machine.units) == set(files.UNITS)
    for name, text in machine.units.items():
        text = text.replace("/opt/imagewright/current/bin/imagewright-worker", shutil.which("true") or "")
        (tmp_path / name).write_text(text.replace("/usr/bin/juju-exec", shutil.which("true") or ""))
    words = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in machine.units)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "imagewright" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize("name", [name for name in files.UNITS if name in EXPOSED])
def test_what_runs_as_the_worker_is_exposed_little(context, machine, tmp_path, name):
    from conftest import deployed, image

    context.run(context.on.config_changed(), deployed(image()))
    (tmp_path / name).write_text(machine.units[name])
    words = ["systemd-analyze", "security", "--offline=yes", "--threshold=15", "--no-pager", str(tmp_path / name)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]
