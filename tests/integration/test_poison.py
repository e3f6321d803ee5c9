"""A job that kills whichever worker has it, beside innocent ones."""

import pytest

from harness.process import wait_for
from harness.proxy import Proxy
from harness.site import Site, message, upload_spec

pytestmark = [pytest.mark.xdist_group("waits"), pytest.mark.timeout(600)]

INNOCENT = 10
ROOM = f"upload={INNOCENT + 2}"
LIST = r"/v2/images\?"


def test_a_job_that_kills_its_workers_is_buried_and_the_innocent_beside_it_succeed(site: Site) -> None:
    """It dies at the poison's first request to its cloud, again and again, with ten transfers under way at first."""
    cloud1, cloud2 = (site.stack.cloud(name).port for name in ("cloud1", "cloud2"))
    with Proxy(cloud1) as way, Proxy(cloud2) as bait:
        lone = site.fork(proxies={"cloud1": way, "cloud2": bait})
        way.throttle(20_000)
        words = ("--concurrency", ROOM, "--cloud-transfers", str(INNOCENT))
        worker = lone.worker(*words)
        names = [f"{lone.namespace}-{number}" for number in range(INNOCENT)]
        jobs = [lone.client.upload(name, lone.qcow2(512 * 1024), wait=False)[0] for name in names]

        def all_saving() -> bool:
            return [one["status"] for name in names for one in lone.cloud().named(name)] == ["saving"] * INNOCENT

        wait_for("ten transfers are under way", all_saving, 60, every=0.2)
        poison = message({**upload_spec("poison", lone.qcow2()), "cloud": "cloud2"})
        trap = bait.hold("GET", LIST)
        lone.publish(poison)
        kills = 0

        def sprung_or_buried() -> bool:
            return trap.met > 0 or poison["id"] in lone.client.dead()

        while True:
            wait_for("the poison is at work, or buried", sprung_or_buried, 150, every=0.1)
            if poison["id"] in lone.client.dead():
                break
            worker.kill9()
            kills += 1
            trap.let_go()
            assert kills < 15, "never buried"
            if kills == 3:
                way.throttle(None)
            trap = bait.hold("GET", LIST)
            worker = lone.worker(*words)
        trap.let_go()
        bait.forget()
        reason = lone.client.dead()[poison["id"]]["reason"]
        assert "5 of them died while it ran alone" in reason
        # A delivery can be lost in other ways than by these kills, so it may run alone after fewer than three of them.
        assert kills >= 6
        for job in jobs:
            assert lone.client.ended(job, 120)["state"] == "succeeded"
        assert all(len(lone.cloud().active(name)) == 1 for name in names)
        wait_for("nothing of it is left", lambda: not lone.cloud("cloud2").of_job(poison["id"]))
