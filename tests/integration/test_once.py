"""The id of a job is its idempotency key, and when a result was wanted orders the revisions."""

from harness.process import wait_for
from harness.site import Site, message, now, upload_spec


def _ready(site: Site, lane: str) -> int:
    queues = {entry["queue"]: entry["ready"] for entry in site.client.json("queues")}
    return sum(ready for queue, ready in queues.items() if lane in queue)


def test_the_same_id_five_times_makes_one_image(site: Site) -> None:
    job = message(upload_spec("five-times", site.qcow2()))
    for _ in range(5):
        site.publish(job)
    site.client.tree_ended(job["id"])
    wait_for("the lane is empty", lambda: _ready(site, "upload.amd64") == 0)
    site.client.upload("five-times-after", site.qcow2())
    (image,) = site.cloud().named("five-times")
    assert image["status"] == "active"
    assert image["imagewright_job"] == job["id"]


def test_an_id_enqueued_again_after_its_image_was_pruned_creates_nothing(site: Site) -> None:
    job = message(upload_spec("again", site.qcow2()))
    site.publish(job)
    site.client.tree_ended(job["id"])
    site.client.upload("again", site.qcow2(), keep=1)
    (kept,) = site.cloud().named("again")
    site.publish(job)
    wait_for("the lane is empty", lambda: _ready(site, "upload.amd64") == 0)
    site.client.upload("again-after", site.qcow2())
    assert site.cloud().named("again") == [kept]
    assert site.client.status(job["id"])["state"] == "succeeded"


def test_an_ended_job_that_comes_again_after_its_file_is_gone_is_not_buried(site: Site) -> None:
    disk = site.qcow2()
    job = message(upload_spec("again-no-file", disk))
    site.publish(job)
    site.client.tree_ended(job["id"])
    site.client.upload("again-no-file", site.qcow2(), keep=1)
    disk.unlink()
    site.publish(job)
    wait_for("the lane is empty", lambda: _ready(site, "upload.amd64") == 0)
    site.client.upload("again-after-no-file", site.qcow2())
    assert job["id"] not in site.client.dead()
    assert site.client.status(job["id"])["state"] == "succeeded"


def test_an_older_request_that_is_done_later_is_the_older_revision(site: Site) -> None:
    asked_at = now()
    site.client.upload("late", site.qcow2())
    (newest,) = site.cloud().active("late")
    job = message(upload_spec("late", site.qcow2()), asked_at=asked_at)
    site.publish(job)
    site.client.tree_ended(job["id"])
    assert len(site.cloud().active("late")) == 2
    assert site.client.latest("late") == newest["id"]
    site.client.prune("late", 1)
    assert [one["id"] for one in site.cloud().active("late")] == [newest["id"]]
