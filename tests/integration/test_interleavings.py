"""Workers that meet in the worst moment, which is forced: requests are held until the other side has acted."""

import pytest

from harness import images
from harness.duel import duel, generation
from harness.process import wait_for
from harness.proxy import Proxy
from harness.site import Site, message, upload_spec
from harness.transfers import PUT, SIZE, SLOW, only_active, wait_saving

pytestmark = [pytest.mark.xdist_group("waits"), pytest.mark.timeout(400)]

CREATE = "/v2/images$"


def exactly(image_id: str) -> str:
    return f"/v2/images/{image_id}$"


def test_of_two_workers_that_take_over_at_once_one_goes_on(site: Site) -> None:
    with duel(site) as pair:
        lone = pair.site
        name, disk = f"{lone.namespace}-both", lone.qcow2()
        job = message(upload_spec(name, disk))
        dead = pair.abandoned(job)
        held = [proxy.hold("POST", CREATE) for proxy in (pair.one, pair.two)]
        pair.worker(pair.one)
        lone.publish(job)
        held[0].wait_met()
        pair.worker(pair.two)
        lone.publish(job)
        held[1].wait_met()
        for one in held:
            one.let_go()
        lone.client.tree_ended(job["id"], 120)
        assert only_active(lone, name, images.sha512(disk))["id"] == generation(job, 1)
        assert lone.cloud().get(dead) is None
        assert pair.one.count("PUT", PUT) + pair.two.count("PUT", PUT) == 1


def test_an_upload_that_becomes_active_while_it_is_taken_over_wins(site: Site) -> None:
    """The successor is made, and before its maker looks, the slow transfer ends well: that image stays."""
    with duel(site) as pair:
        lone = pair.site
        name, disk = f"{lone.namespace}-late", lone.qcow2(SIZE)
        pair.one.throttle(SLOW)
        pair.worker(pair.one)
        job = pair.upload(name, disk)
        wait_saving(lone, name)
        pair.one.pause()
        first = generation(job, 0)
        pair.age(first, 60)
        look = pair.two.hold("GET", exactly(first))
        pair.worker(pair.two)
        lone.publish(job)
        look.wait_met()
        assert lone.cloud().get(generation(job, 1)) is not None
        pair.one.throttle(None)
        pair.one.resume()
        wait_for("the first image is active", lambda: len(lone.cloud().active(name)) == 1, 60)
        look.let_go()
        done = lone.client.tree_ended(job["id"], 150)
        assert done["result"]["image_id"] == first
        assert only_active(lone, name, images.sha512(disk))["id"] == first
        assert pair.one.count("DELETE", exactly(first)) + pair.two.count("DELETE", exactly(first)) == 0


def test_nobody_says_success_of_an_image_whose_deletion_is_under_way(site: Site) -> None:
    """The deletion was sent when the image was unfinished, and arrives after it is verified."""
    with duel(site) as pair:
        lone = pair.site
        name, disk = f"{lone.namespace}-doomed", lone.qcow2(SIZE)
        pair.one.throttle(SLOW)
        pair.worker(pair.one)
        job = pair.upload(name, disk)
        wait_saving(lone, name)
        pair.one.pause()
        first, second = generation(job, 0), generation(job, 1)
        pair.age(first, 60)
        deletion = pair.two.hold("DELETE", exactly(first))
        pair.worker(pair.two)
        lone.publish(job)
        deletion.wait_met()
        pair.age(second, 11)  # of the ten after which its maker may be gone, and the sixty after which it is
        pair.one.throttle(None)
        pair.one.resume()
        why = "a later attempt may still be under way"
        wait_for("its sender waits", lambda: why in lone.client.run("log", job["id"]).out, 60, every=0.3)
        assert lone.client.status(job["id"])["state"] != "succeeded"
        deletion.let_go()
        done = lone.client.tree_ended(job["id"], 150)
        assert done["result"]["image_id"] == second
        assert only_active(lone, name, images.sha512(disk))["id"] == second


def test_what_was_made_to_block_an_upload_is_not_filled_with_it(site: Site) -> None:
    """Whoever withdrew the job died before it removed that. Filled, a qcow2 image would be called raw."""
    with duel(site) as pair:
        lone = pair.site
        name, disk = f"{lone.namespace}-blocked", lone.qcow2()
        job = message(upload_spec(name, disk))
        blocker = pair.blocked(job)
        pair.worker(pair.one)
        lone.publish(job)
        lone.client.tree_ended(job["id"], 120)
        image = only_active(lone, name, images.sha512(disk))
        assert (image["id"], image["disk_format"], image["architecture"]) == (generation(job, 1), "qcow2", "x86_64")
        assert lone.cloud().get(blocker) is None


def test_an_upload_that_ends_while_a_prune_deletes_is_safe(site: Site) -> None:
    """The prune planned before the newest image was there: the newest and the next stay, the planned one goes."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        name = f"{lone.namespace}-planned"
        lone.worker()
        oldest, newest = _two_revisions(lone, name)
        deletion = proxy.hold("DELETE", exactly(oldest))
        prune = _prune_to_one(lone, name)
        deletion.wait_met()
        (latest,) = lone.client.upload(name, lone.qcow2(), keep=9)
        deletion.let_go()
        done = lone.client.succeeded(prune)
        assert [one["id"] for one in done["result"]["deleted"]] == [oldest]
        left = {one["id"] for one in lone.cloud().active(name)}
        assert left == {newest, lone.client.succeeded(latest)["result"]["image_id"]}


def test_a_prune_plans_anew_when_a_kept_image_is_gone_before_it_deletes(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        name = f"{lone.namespace}-anew"
        lone.worker()
        oldest, newest = _two_revisions(lone, name)
        look = proxy.hold("GET", exactly(newest))
        prune = _prune_to_one(lone, name)
        look.wait_met()
        lone.cloud().delete(newest)
        look.let_go()
        assert lone.client.succeeded(prune)["result"]["deleted"] == []
        assert [one["id"] for one in lone.cloud().active(name)] == [oldest]


def test_a_copy_whose_source_is_gone_is_buried_unless_something_newer_is_there(site: Site) -> None:
    lone = site.fork()
    lone.worker()
    name = f"{lone.namespace}-copy"
    lone.client.upload(name, lone.qcow2())
    (source,) = lone.cloud().active(name)
    spec = {**upload_spec(name, lone.qcow2()), "cloud": "cloud2"}
    spec["source"] = {"image": {"cloud": "cloud1", "id": source["id"]}}
    alone, superseded = message(spec), message(spec)
    lone.cloud().delete(source["id"])
    lone.publish(alone)
    assert "spec.source.image" in lone.client.buried(alone["id"])["reason"]
    lone.client.upload(name, lone.qcow2(), cloud="cloud2")
    (newer,) = lone.cloud("cloud2").active(name)
    lone.publish(superseded)
    done = lone.client.succeeded(superseded["id"])
    assert done["result"]["image_id"] == newer["id"]
    assert done["result"]["superseded"] is True


def _two_revisions(site: Site, name: str) -> tuple[str, str]:
    """Ids of the older and the newer one."""
    for _ in range(2):
        site.client.upload(name, site.qcow2(), keep=9)
    older, newer = (str(one["id"]) for one in site.cloud().active(name))
    return older, newer


def _prune_to_one(site: Site, name: str) -> str:
    """The job, enqueued."""
    return site.client.json("prune", "--name", name, "--cloud", "cloud1", "--keep", "1")["jobs"][0]["id"]


def test_the_last_attempt_of_all_is_not_taken_back_while_somebody_may_be_at_it(site: Site) -> None:
    """Every other id is used up, so nothing can be put in the way of whoever fills this one."""
    with duel(site) as pair:
        lone = pair.site
        name = f"{lone.namespace}-last"
        job = message(upload_spec(name, lone.qcow2()))
        worker = pair.worker(pair.one)
        wait_for("the worker is ready", lambda: " ready" in worker.log.read_text(), 60)
        for number in range(7):
            lone.cloud().delete(pair.abandoned(job, number))
        last = pair.abandoned(job, 7, untouched=0)
        lone.publish(job)
        wait_for("the job is known", lambda: lone.client.status(job["id"])["state"] == "waiting", 30, every=0.3)
        lone.client.run("cancel", job["id"])
        wait_for("it is left alone", lambda: "other workers are still at it" in worker.log.read_text(), 40, every=0.3)
        assert lone.cloud().get(last) is not None
        pair.age(last, 60)
        assert lone.client.ended(job["id"], 60)["state"] == "cancelled"
        assert lone.cloud().named(name) == []
