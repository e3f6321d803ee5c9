"""The story of three units on RabbitMQ, with a real worker started from the files that the charm wrote."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from charm_stories.applications import RabbitMQ, Runner
from charm_stories.conftest import Deploy
from charm_stories.juju import APP, Hook, Model
from harness.oracle import Images
from harness.process import Process, wait_for
from harness.servers import REPO

NAME = "imagewright-noble-x64"
EXAMPLE = REPO / "docs" / "examples" / "enqueue_copy.py"


class Story:
    """Three units, related to a broker and a consumer, and the worker of one of them."""

    def __init__(self, model: Model, rabbitmq: RabbitMQ, runner: Runner) -> None:
        self.model = model
        self.rabbitmq = rabbitmq
        self.runner = runner
        model.add_units(3)
        model.settle()
        self.before_broker = {unit: model.status(unit) for unit in model.state["units"]}
        self.amqp = model.relate("amqp", "rabbitmq-server", rabbitmq)
        model.settle()
        self.image = model.relate("image", "runner", runner)
        model.settle()
        self._worker: Process | None = None

    def work(self, unit: str) -> Process:
        """Starts the unit's worker as systemd would."""
        machine = self.model.machines[unit]
        self._worker = machine.service("imagewright-worker.service").start(machine.folder / "worker.log")
        return self._worker

    def look(self, unit: str) -> None:
        """What timer, path unit and juju-exec do on a unit."""
        machine = self.model.machines[unit]
        seen = machine.path("/var/lib/imagewright/images.json")
        before = seen.read_text() if seen.exists() else ""
        done = machine.service("imagewright-look.service").run()
        assert done.returncode == 0, done.stderr
        if seen.exists() and seen.read_text() != before:
            text = machine.path("/etc/systemd/system/imagewright-published.service").read_text()
            (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=/usr/bin/juju-exec ")]
            whose, variable, command = line.split()[1:]
            assert (whose, command) == (unit, "./dispatch")
            path = variable.removeprefix("JUJU_DISPATCH_PATH=")
            self.model.run(Hook(unit, path.removeprefix("hooks/")), path)

    def publish(self, image: str) -> None:
        """Looks on every unit until the consumer reads that id of all of them."""

        def read() -> bool:
            for unit in self.model.state["units"]:
                self.look(unit)
            self.model.settle()
            return self.runner.reading(self.model, self.image) == {image}

        tail = self._worker.tail() if self._worker else ""
        wait_for(f"every unit publishes {image}; the worker says:\n{tail}", read, 60, every=1.0)

    def stop(self) -> None:
        """Ends the worker; the model ends by itself."""
        if self._worker:
            self._worker.kill9()


@pytest.fixture
def story(deploy: Deploy, rabbitmq: RabbitMQ, login: dict[str, str]) -> Iterator[Story]:
    told = Story(deploy(build_interval=0), rabbitmq, Runner(login))
    yield told
    told.stop()


def active(cloud: Images, but: set[str]) -> str:
    """The id of the one new image of the consumer's cloud, once it is verified."""

    def found() -> str:
        new = [one for one in cloud.active(NAME) if one["id"] not in but and one.get("imagewright_verified")]
        assert len(new) == 1, new
        return new[0]["id"]

    return wait_for("the image is on the consumer's cloud", found, 60, every=0.3)


@pytest.mark.timeout(2400)
def test_three_units_and_a_consumer_from_the_first_image_to_the_loss_of_the_leader(
    story: Story, build_cloud: Images, edge: Images, disk: bytes
) -> None:
    model, runner = story.model, story.runner
    blocked = ("blocked", "missing relation: amqp (several units need a shared queue)")
    assert set(story.before_broker.values()) == {blocked}
    for unit in model.state["units"]:
        assert model.status(unit) == ("active", f"waiting for the first image of image-{story.image}")
        queue = model.machines[unit].path("/etc/imagewright/queue")
        assert queue.read_text().startswith("amqps://")
        assert story.rabbitmq.password not in str(model.machines[unit].asked())
    leader = [unit for unit in model.state["units"] if "enable --now" in str(model.machines[unit].asked())]
    assert leader, "nobody looks"

    # Any unit enqueues; the worker of another one does it; the id that Glance has reaches every unit's databag.
    story.work(f"{APP}/1")
    source = build_cloud.add("made-elsewhere", disk, architecture="x86_64")
    asked = model.action(f"{APP}/2", "upload", image_id=source["id"], base="noble")
    assert (asked.failure, asked.results["enqueued"]) == ("", "1")
    assert not runner.seen
    first = active(edge, set())
    story.publish(first)
    assert model.status(f"{APP}/0") == ("active", "")

    # A new unit, and the loss of the leader: whichever unit the consumer meets, it reads that id.
    model.add_units(1)
    model.settle()
    model.remove_unit(f"{APP}/0", f"{APP}/2")
    model.settle()
    assert model.state["leader"] == f"{APP}/2"
    assert runner.reading(model, story.image) == {first}

    # Another application of the broker enqueues by the documented message; the new leader publishes.
    story.rabbitmq.grant("other", "other-word", APP)
    words = [story.rabbitmq.url("other", "other-word", APP), APP, NAME, "amd64", f"build:{source['id']}"]
    cloud = f"image-{story.image}"
    done = subprocess.run([sys.executable, EXAMPLE, *words, cloud], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    second = active(edge, {first})
    story.publish(second)
    allowed = {first, second}
    assert all(seen <= allowed for seen in runner.seen), runner.seen

    # Nothing was given up, and the one worker that runs is counted.
    assert model.action(f"{APP}/3", "list-failed").results["count"] == "0"
    counted = model.action(f"{APP}/1", "queue-status").results
    assert (counted["ready"], counted["failed"], counted["consumers"]) == ("0", "0", "1")


def test_the_consumer_would_notice_a_unit_without_an_id(deploy: Deploy, login: dict[str, str]) -> None:
    """The story's own oracle: a bag that Juju filled counts as the first one, so a missing id is seen."""
    model = deploy()
    model.state["relations"]["5"] = {
        "endpoint": "image",
        "app": "runner",
        "members": [f"{APP}/0", f"{APP}/1"],
        "bags": {f"{APP}/0": {"id": "a"}, f"{APP}/1": {"private-address": "127.0.0.1"}},
    }
    assert Runner(login).reading(model, "5") == {"a", None}
