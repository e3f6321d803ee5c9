"""The story of a unit that had a queue of its own before there was a broker."""

from charm_stories.applications import RabbitMQ, Runner
from charm_stories.conftest import Deploy
from harness.oracle import Images

UNIT = "imagewright/0"
NAME = "later-noble-x64"


def test_a_broker_that_comes_later_loses_no_job(
    deploy: Deploy, rabbitmq: RabbitMQ, login: dict[str, str], build_cloud: Images, edge: Images, disk: bytes
) -> None:
    model = deploy(build_interval=0, image_name_prefix="later", namespace="later")
    model.add_units(1)
    model.settle()
    model.relate("image", "runner", Runner(login))
    model.settle()
    source = build_cloud.add("made-before", disk, architecture="x86_64")
    job = model.action(UNIT, "upload", image_id=source["id"], base="noble").results["job-ids"]

    # What would hide it from a drain: a pause, and another namespace from now on.
    assert model.action(UNIT, "pause", kind="upload").results["paused"] == "upload"
    model.configure(namespace="later-still")
    model.settle()
    machine = model.machines[UNIT]
    machine.forget()
    model.relate("amqp", "rabbitmq-server", rabbitmq)
    model.settle()
    assert "start --no-block imagewright-drain.service" in machine.asked()
    assert machine.path("/etc/imagewright/queue").read_text().startswith("amqps://")
    assert model.action(UNIT, "queue-status").results["ready"] == "0", "that is the broker's"

    done = machine.service("imagewright-drain.service").run_and_stop()
    assert done.returncode == 0, done.stderr
    (image,) = edge.active(NAME)
    assert image["imagewright_job"] == job
    state = machine.path("/var/lib/imagewright")
    assert not (state / "queue.db").exists()
    assert (state / "drained/queue.db").exists()
    machine.forget()
    model.update_status()
    assert "start --no-block imagewright-drain.service" not in machine.asked()
