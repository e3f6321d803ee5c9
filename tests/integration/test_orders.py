"""Orders in which a job, its repetition, its cancellation and a later job may end, each forced at the exact request."""

import pytest

from harness.duel import duel
from harness.process import wait_for
from harness.proxy import Proxy
from harness.site import Site, message, upload_spec
from harness.transfers import PUT

pytestmark = [pytest.mark.xdist_group("waits"), pytest.mark.timeout(400)]


def test_a_late_duplicate_of_a_job_whose_image_was_pruned_uploads_nothing(site: Site) -> None:
    """The message comes again long after its image was there, superseded and deleted: the outcome stands."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        name = f"{lone.namespace}-late-duplicate"
        lone.worker()
        job = message(upload_spec(name, lone.qcow2(), keep=1))
        lone.publish(job)
        first = lone.client.tree_ended(job["id"])
        (newer,) = lone.client.upload(name, lone.qcow2(), keep=1)
        done = lone.client.tree_ended(newer)
        assert lone.cloud().get(first["result"]["image_id"]) is None
        lone.publish(job)
        lone.drain()
        again = lone.client.status(job["id"])
        assert (again["state"], again["result"]) == ("succeeded", first["result"])
        assert proxy.count("PUT", PUT) == 2
        assert [one["id"] for one in lone.cloud().named(name)] == [done["result"]["image_id"]]
        assert job["id"] not in lone.client.dead()


@pytest.mark.parametrize("first", ["older", "newer"])
def test_whichever_of_two_jobs_ends_first_the_one_asked_for_later_is_the_newest(site: Site, first: str) -> None:
    """Both transfers are done, and the answers come in the order that is forced."""
    with duel(site) as pair:
        lone = pair.site
        name = f"{lone.namespace}-{first}-first"
        answers = {"older": pair.one.hold_answer("PUT", PUT), "newer": pair.two.hold_answer("PUT", PUT)}
        pair.worker(pair.one)
        older = pair.upload(name, lone.qcow2(), keep=1)
        answers["older"].wait_met()
        pair.worker(pair.two)
        newer = pair.upload(name, lone.qcow2(), keep=1)
        answers["newer"].wait_met()
        jobs = {"older": older["id"], "newer": newer["id"]}
        last = "older" if first == "newer" else "newer"
        answers[first].let_go()
        ended = lone.client.tree_ended(jobs[first], 90)
        # Its message is put back after a while, and it goes on.
        assert lone.client.status(jobs[last])["state"] in ("running", "waiting")
        answers[last].let_go()
        lone.client.tree_ended(jobs[last], 90)
        lone.drain()
        kept = lone.client.succeeded(jobs["newer"])["result"]["image_id"]
        assert [one["id"] for one in lone.cloud().named(name)] == [kept]
        assert lone.client.latest(name) == kept
        assert (ended["result"]["image_id"] == kept) == (first == "newer")


def test_a_cancellation_that_comes_before_the_image_is_there_wins(site: Site) -> None:
    """Every byte was sent and nothing of it has reached the cloud; the cloud hears of it after the cancellation."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        name = f"{lone.namespace}-cancel-first"
        lone.worker()
        transfer = proxy.hold("PUT", PUT)
        (job,) = lone.client.upload(name, lone.qcow2(), wait=False)
        transfer.wait_met()
        lone.client.run("cancel", job, "--wait", seconds=75)
        transfer.let_go()
        lone.drain()
        assert lone.client.status(job)["state"] == "cancelled"
        assert lone.cloud().named(name) == []
        # Whoever has it and whoever hears of it may both say so; the first word counts.
        assert set(_ends(lone, job)) == {"cancelled"}


@pytest.mark.parametrize("moment", ["answer of the transfer", "verification"])
def test_a_cancellation_that_comes_once_the_image_is_verified_or_active_ends_in_one_of_the_two(
    site: Site, moment: str
) -> None:
    """The image is active; the cancellation comes before the job can say so."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        name = f"{lone.namespace}-complete-first"
        lone.worker()
        hold = proxy.hold_answer("PUT", PUT) if moment == "answer of the transfer" else proxy.hold_answer("PATCH", "")
        (job,) = lone.client.upload(name, lone.qcow2(), wait=False)
        hold.wait_met()
        wait_for("the image is active", lambda: lone.cloud().active(name), 30)
        asked = lone.client.try_run("cancel", job)
        assert asked.code == 0, asked
        hold.let_go()
        ended = lone.client.ended(job, 90)
        lone.drain()
        (outcome,) = _ends(lone, job)
        images_left = [(one["id"], one["status"]) for one in lone.cloud().named(name)]
        if outcome == "succeeded":
            assert images_left == [(ended["result"]["image_id"], "active")]
        else:
            assert (outcome, images_left) == ("cancelled", [])


def test_a_requeue_after_the_other_run_ended_well_uploads_nothing_and_ends_well(site: Site) -> None:
    """The same message twice, one of them past its deadline: one run ends well, the other is buried and requeued."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        name = f"{lone.namespace}-requeued"
        lone.worker()
        job = message(upload_spec(name, lone.qcow2()))
        lone.publish(job)
        first = lone.client.tree_ended(job["id"])
        lone.publish({**job, "deadline": "2026-01-01T00:00:00Z"})
        lone.drain()
        if job["id"] in lone.client.dead():
            lone.client.run("dead", "requeue", job["id"])
            lone.drain()
        again = lone.client.succeeded(job["id"])
        assert again["result"]["image_id"] == first["result"]["image_id"]
        assert proxy.count("PUT", PUT) == 1
        assert [one["id"] for one in lone.cloud().named(name)] == [first["result"]["image_id"]]
        assert lone.client.dead() == {}


def _ends(site: Site, job: str) -> list[str]:
    """The terminal events of a job."""
    told = [event["event"] for event in site.client.json("log", job)]
    return [event for event in told if event in ("succeeded", "failed", "cancelled")]
