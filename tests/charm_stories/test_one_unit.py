"""Stories of a unit without a broker: what it says, secrets, bad options, a migration, an upgrade."""

import stat
from pathlib import Path

from charm_stories.applications import Runner
from charm_stories.conftest import Deploy
from charm_stories.juju import SECONDS, Model
from harness.oracle import Images

UNIT = "imagewright/0"


def settled(model: Model, login: dict[str, str]) -> tuple[str, Runner]:
    """One unit that is related to a consumer; the relation's number, and the consumer."""
    runner = Runner(login)
    model.add_units(1)
    model.settle()
    number = model.relate("image", "runner", runner)
    model.settle()
    return number, runner


def test_a_unit_says_what_is_missing_until_all_is_there(deploy: Deploy, login: dict[str, str]) -> None:
    model = deploy(openstack_user_name="")
    model.add_units(1)
    model.settle()
    assert model.status(UNIT) == ("blocked", "missing config: openstack-user-name")
    model.configure(openstack_user_name=login["username"])
    model.settle()
    assert model.status(UNIT) == ("blocked", "missing relation: image")
    number = model.relate("image", "runner", Runner(login))
    model.settle()
    assert model.status(UNIT) == ("active", f"waiting for the first image of image-{number}")
    machine = model.machines[UNIT]
    assert "restart --no-block imagewright-worker.service" in machine.asked()
    assert "enable --now --quiet imagewright-schedule.timer" in machine.asked()
    assert model.state["version"]


def test_a_rotated_secret_reaches_the_worker_without_a_restart(deploy: Deploy, login: dict[str, str]) -> None:
    model = deploy()
    settled(model, login)
    machine = model.machines[UNIT]
    clouds = machine.path("/etc/imagewright/clouds.yaml")
    assert stat.S_IMODE(clouds.stat().st_mode) == 0o640
    machine.forget()
    model.update_secret(model.state["config"]["openstack-password-secret"], password="rotated-word")
    model.settle()
    assert "rotated-word" in clouds.read_text()
    assert "reload --no-block imagewright-worker.service" in machine.asked()
    assert not [line for line in machine.asked() if line.startswith("restart")]
    everything = str(model.state["relations"]) + model.log() + str(machine.asked())
    assert "rotated-word" not in everything


def test_a_bad_option_changes_nothing_and_is_said_until_it_is_good(deploy: Deploy, login: dict[str, str]) -> None:
    model = deploy()
    settled(model, login)
    machine = model.machines[UNIT]
    before = machine.path("/etc/imagewright/schedule").read_text()
    machine.forget()
    model.configure(base_image="noble,trusty")
    model.settle()
    word, message = model.status(UNIT)
    assert (word, message.partition(":")[0]) == ("blocked", "invalid config base-image")
    assert machine.path("/etc/imagewright/schedule").read_text() == before
    assert not [line for line in machine.asked() if "worker" in line]
    assert model.action(UNIT, "queue-status").failure == "the unit is not set up: see its status"
    model.configure(base_image="noble,jammy")
    model.settle()
    assert model.status(UNIT)[0] == "active"
    assert "--base jammy" in machine.path("/etc/imagewright/schedule").read_text()
    assert (
        machine.asked().count("start --no-block imagewright-schedule.service") == 1
    )  # a changed option asks for a build


def test_a_migration_publishes_the_predecessors_images_at_once(
    deploy: Deploy, login: dict[str, str], edge: Images, disk: bytes
) -> None:
    edge.add("old-builder-noble-x64", disk, architecture="x86_64")
    newest = edge.add("old-builder-noble-x64", disk + b"newer", architecture="x86_64")
    edge.create("old-builder-noble-x64", architecture="x86_64")  # a later one that never became active
    model = deploy(image_name_prefix="old-builder")
    number, runner = settled(model, login)
    assert runner.seen, "nothing was published"
    assert set.union(*runner.seen) == {newest["id"]}
    assert model.bag(number, UNIT)["tags"] == "x64,noble"
    assert model.status(UNIT) == ("active", "")
    machine = model.machines[UNIT]
    assert "start --no-block imagewright-schedule.service" not in machine.asked()
    queue = model.action(UNIT, "queue-status").results
    assert (queue["ready"], queue["in-flight"]) == ("0", "0")
    edge.deactivate(newest["id"])
    edge.delete(newest["id"])
    model.update_status()
    assert None not in set.union(*runner.seen), "a good id was taken back"


def test_actions_enqueue_at_once_and_a_pause_is_in_the_status(deploy: Deploy, login: dict[str, str]) -> None:
    model = deploy(base_image="noble,jammy")
    settled(model, login)
    built = model.action(UNIT, "build", force=True)
    assert (built.failure, built.results["enqueued"]) == ("", "2")
    assert len(built.results["job-ids"].split(",")) == 2
    assert model.action(UNIT, "run", base="jammy").results["enqueued"] == "1"
    assert model.action(UNIT, "queue-status").results["ready"] == "3"
    assert "not in the option base-image" in model.action(UNIT, "build", base="focal").failure
    assert model.action(UNIT, "pause", kind="build").results["paused"] == "build"
    model.update_status()
    assert model.status("imagewright") == ("maintenance", "paused: build; end it with the resume action")
    assert model.action(UNIT, "resume").results["paused"] == ""
    model.update_status()
    assert model.status("imagewright") == ("waiting", "3 queued, and no worker takes jobs")
    queue = model.machines[UNIT].path("/var/lib/imagewright/queue.db")
    assert queue.stat().st_uid == queue.parent.stat().st_uid != 0, "the worker could not write to it"


def test_an_upgrade_replaces_the_programs_and_restarts_without_waiting(deploy: Deploy, login: dict[str, str]) -> None:
    model = deploy()
    settled(model, login)
    machine = model.machines[UNIT]
    before = machine.path("/opt/imagewright/current").readlink()
    machine.forget()

    def newer(charm: Path) -> None:
        with (charm / "workload/bin/imagewright-worker").open("ab") as program:
            program.write(b"\x00")

    model.refresh(newer)
    model.settle()
    assert machine.path("/opt/imagewright/current").readlink() != before
    assert [line for line in machine.asked() if "worker" in line and "restart" in line] == [
        "restart --no-block imagewright-worker.service"
    ]
    assert model.status(UNIT)[0] == "active"


def test_removal_leaves_nothing_on_the_machine(deploy: Deploy, login: dict[str, str]) -> None:
    model = deploy()
    settled(model, login)
    machine = model.machines[UNIT]
    model.remove_unit(UNIT, "")
    assert not [path for path in ("/etc/imagewright", "/opt/imagewright") if machine.path(path).exists()]
    assert not list(machine.path("/etc/systemd/system").glob("imagewright*"))


def test_no_hook_takes_long_while_the_clouds_are_away(deploy: Deploy, login: dict[str, str]) -> None:
    model = deploy(openstack_auth_url="http://127.0.0.1:9/v3")
    number, _ = settled(model, {**login, "auth_url": "http://127.0.0.1:9/v3"})
    assert model.status(UNIT) == ("active", f"waiting for the first image of image-{number}")
    assert max(model.seconds) < SECONDS
