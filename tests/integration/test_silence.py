"""A cloud that takes connections and never answers: what waits for it ends in its time, and nobody else waits."""

import pytest

from harness import images
from harness.proxy import Proxy
from harness.site import Site, message, now, upload_spec
from harness.transfers import only_active

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("waits")]


def test_many_jobs_for_a_silent_cloud_do_not_keep_others_from_their_turn(site: Site) -> None:
    """A call is given up after a minute; six of them, two at a time, would be three."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        proxy.pause()
        disk = lone.qcow2()
        silent = [lone.client.upload("silent", disk, keep=99, wait=False)[0] for _ in range(6)]
        lone.worker("--concurrency", "upload=2")
        lone.client.upload("answered", lone.qcow2(), cloud="cloud2", seconds=110)
        asked = proxy.count("GET")
        assert 0 < asked <= 4, "two before it was known, and one that looks"
        proxy.resume()
        for job in silent:
            lone.client.tree_ended(job, 120)
        assert len(lone.cloud().active("silent")) == 6


def test_a_source_that_never_answers_holds_a_job_until_its_deadline_at_most(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        lone.worker()
        disk = lone.qcow2()
        lone.client.upload("mute", disk)
        (source,) = lone.cloud().active("mute")
        stalled = proxy.stall("GET", "/file$")
        spec = {
            **upload_spec("mute", disk),
            "cloud": "cloud2",
            "source": {"image": {"cloud": "cloud1", "id": source["id"]}},
        }
        job = message(spec, deadline=now(in_seconds=25))
        lone.publish(job)
        stalled.wait_met()
        assert lone.client.buried(job["id"], 45)["field"] == "deadline"
        assert lone.cloud("cloud2").named("mute") == []
        again = message(spec)
        lone.publish(again)
        lone.client.tree_ended(again["id"])
        only_active(lone, "mute", images.sha512(disk), cloud="cloud2")
