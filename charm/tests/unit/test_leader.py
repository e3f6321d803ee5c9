"""When the leader asks for builds at once, beside the timer."""

import dataclasses
import subprocess

import pytest
from conftest import cluster, deployed, image, row
from ops import testing

import workload

THERE = [row(f"image-{number}", f"there-{number}") for number in (5, 6, 7)]


def again(context, state, *relations, **options):
    """The next hook, with more relations or other options."""
    state = dataclasses.replace(state, config={**state.config, **options}, relations=[*state.relations, *relations])
    return context.run(context.on.config_changed(), state)


def test_clouds_that_have_every_image_need_no_build_one_after_the_other(context, machine, imagewright):
    imagewright.images = THERE
    state = context.run(context.on.config_changed(), deployed(image(5)))
    for number in (6, 7):
        state = again(context, state, image(number))
    assert "schedule_now" not in machine.calls
    state = again(context, state, image(8))
    assert machine.calls.count("schedule_now") == 1
    again(context, state)
    assert machine.calls.count("schedule_now") == 1


def test_a_changed_option_needs_a_build_whatever_is_there(context, machine, imagewright):
    imagewright.images = THERE
    state = context.run(context.on.config_changed(), deployed(image(5)))
    imagewright.error = "no cloud answers"
    again(context, state, **{"build-flavor": "large"})
    assert "schedule_now" in machine.calls


def test_nothing_is_decided_for_a_cloud_that_does_not_answer(context, machine, imagewright):
    imagewright.images, imagewright.away = THERE, {"image-6"}
    state = context.run(context.on.config_changed(), deployed(image(5), image(6)))
    assert "schedule_now" not in machine.calls
    imagewright.away = set()
    state = again(context, state)
    assert "schedule_now" not in machine.calls
    imagewright.away = {"image-6"}
    again(context, state, image(8))
    assert "schedule_now" in machine.calls


def test_what_is_asked_while_the_schedule_runs_is_asked_again(context, machine):
    machine.states[workload.SCHEDULE] = "activating"
    state = context.run(context.on.config_changed(), deployed(image()))
    assert "schedule_now" not in machine.calls
    machine.states[workload.SCHEDULE] = "inactive"
    state = context.run(context.on.update_status(), state)
    context.run(context.on.update_status(), state)
    assert machine.calls.count("schedule_now") == 1


@pytest.mark.parametrize(("paused", "asks"), [("base-image", False), ("build", True), ("", True)])
def test_the_schedule_waits_for_no_base_image_that_is_paused(context, machine, tmp_path, paused, asks):
    context.run(context.on.config_changed(), deployed(image()))
    rows = [f"imagewright.pause.{kind}  {int(kind == paused)}      0" for kind in ("base-image", "build")]
    table = "\\n".join(["QUEUE  READY  CONSUMERS", *rows])
    does = f'case "$2" in queues) printf "{table}\\n" ;; *) echo "$2" >> {tmp_path}/calls ;; esac'
    (tmp_path / "imagewright").write_text(f"#!/bin/sh\n{does}\n")
    (tmp_path / "imagewright").chmod(0o755)
    script = machine.files["schedule"].replace("/opt/imagewright/current/bin", str(tmp_path))
    subprocess.run(["/bin/sh", "-c", script], check=True, timeout=30)
    calls = tmp_path / "calls"
    assert (calls.read_text().split() if calls.exists() else []) == (["base-image", "build"] if asks else [])


@pytest.fixture
def look(context, machine, tmp_path):
    """Runs the script of the unit with a program that does as told; what is in the file then."""
    context.run(context.on.config_changed(), deployed(image()))
    seen = tmp_path / "images.json"
    seen.write_text("old")

    def run(does: str) -> str:
        (tmp_path / "imagewright").write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "imagewright").chmod(0o755)
        text = machine.files["look"].replace("/opt/imagewright/current/bin", str(tmp_path))
        subprocess.run(["/bin/sh", "-c", text.replace("/var/lib/imagewright", str(tmp_path))], check=True, timeout=30)
        return seen.read_text()

    return run


def test_the_timer_sees_what_some_clouds_say_and_forgets_nothing_when_none_does(look):
    assert look("echo []; exit 64") == "old"
    assert look("exit 69") == "old"
    assert look("""echo '[{"id": "a"}]'; exit 64""") == '[{"id": "a"}]\n'
    assert look("echo []") == "[]\n"


def test_a_follower_that_was_told_of_builds_asks_for_none(context, machine):
    key = testing.Secret({"key": "k"}, id="secret:00000000000buildkey", owner=None)
    peer = cluster(app={"build-key-secret": key.id or ""})
    context.run(context.on.config_changed(), deployed(image(), peer, leader=False, secrets=[key]))
    assert "schedule_now" not in machine.calls
