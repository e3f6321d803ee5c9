"""Jobs that were given up: shown with all that is known of them, put back under the same id, or removed."""

import json
import subprocess
import uuid

from harness import images
from harness.process import wait_for
from harness.proxy import Proxy
from harness.site import Site, message, upload_spec
from harness.transfers import PUT


def buried_for_want_of_its_file(site: Site, name: str) -> str:
    (job,) = site.client.upload(name, site.root / f"{name}.qcow2", wait=False)
    site.client.buried(job)
    return job


def test_a_dead_job_is_shown_with_its_message_and_every_attempt(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        lone.worker()
        disk = lone.qcow2()
        proxy.fail("PUT", PUT, 503, headers={"Retry-After": "1"}, times=2)
        refused = b"<html><body>415 Unsupported Media Type: raw is not accepted here</body></html>"
        headers = {"x-openstack-request-id": "req-6a1d9c55-1111-4222-8333-444455556666"}
        fault = proxy.fail("PUT", PUT, 415, headers=headers, body=refused)
        wait_for_attempts = lone.client.upload("shown", disk, wait=False)
        (job,) = wait_for_attempts
        lone.client.buried(job, 60)
        assert fault.met == 1
        shown = lone.client.json("dead", "show", job)
        assert shown["id"] == job
        assert shown["message"]["id"] == job
        assert shown["message"]["spec"]["source"] == {"file": str(disk)}
        assert [entry["step"] for entry in shown["failures"]] == ["send"] * 3
        assert [entry["attempt"] for entry in shown["failures"]] == [1, 2, 2]
        assert "503" in shown["failures"][0]["error"]
        assert shown["failures"][2]["request_id"] == "req-6a1d9c55-1111-4222-8333-444455556666"
        assert all("/" in entry["worker"] for entry in shown["failures"])
        text = lone.client.run("dead", "show", job).out
        assert "failed in send" in text
        assert shown["failures"][2]["request_id"] in text


def test_showing_what_is_not_dead_ends_with_66(site: Site) -> None:
    site.client.run("dead", "show", str(uuid.uuid4()), code=66)


def test_a_requeued_job_keeps_its_id_and_its_history_and_ends_well_once_the_cause_is_gone(site: Site) -> None:
    job = buried_for_want_of_its_file(site, "requeued")
    disk = images.small_qcow2(site.root / "requeued.qcow2")
    assert site.client.run("dead", "requeue", job).out.split() == [job]
    site.client.tree_ended(job)
    assert job not in site.client.dead()
    assert [one["imagewright_job"] for one in site.cloud().active("requeued")] == [job]
    assert site.cloud().active("requeued")[0]["os_hash_value"] == images.sha512(disk)
    told = [event["event"] for event in site.client.json("log", job)]
    assert told.index("failed") < told.index("succeeded")
    assert told.count("queued") == 2


def test_a_job_may_be_requeued_again_and_again(site: Site) -> None:
    job = buried_for_want_of_its_file(site, "again")
    for run in (1, 2):
        site.client.run("dead", "requeue", job)
        wait_for("it failed again", lambda run=run: _failures(site, job) == run + 1, 30, every=0.3)
        entry = site.client.buried(job)
        assert entry["field"] == "spec.source.file"
    assert len([entry for entry in site.client.json("dead", "list") if entry["id"] == job]) == 1
    assert site.client.status(job)["state"] == "failed"


def _failures(site: Site, job: str) -> int:
    return [event["event"] for event in site.client.json("log", job)].count("failed")


def test_a_requeued_job_whose_deadline_has_passed_gets_a_new_one(site: Site) -> None:
    disk = site.qcow2()
    job = message(upload_spec("past-deadline", disk), deadline="2026-01-01T00:00:00Z")
    site.publish(job)
    assert site.client.buried(job["id"])["field"] == "deadline"
    site.client.run("dead", "requeue", job["id"])
    site.client.tree_ended(job["id"])


def test_requeue_does_not_upload_again_what_was_verified(site: Site) -> None:
    """A job that was buried although its image is there: the image ends it."""
    with Proxy(site.stack.cloud("cloud1").port) as proxy:
        lone = site.fork(proxies={"cloud1": proxy})
        (job,) = lone.client.upload("verified", lone.qcow2(), wait=False)
        lone.drain()
        late = json.loads(
            json.dumps(message(upload_spec("verified", lone.qcow2()), id=job, deadline="2026-01-01T00:00:00Z"))
        )
        lone.publish(late)
        lone.worker()
        lone.client.buried(job)
        lone.client.run("dead", "requeue", job)
        wait_for("both runs ended", lambda: _ends(lone, job) >= 3, 40, every=0.3)
        assert proxy.count("PUT", PUT) == 1
        assert [one["imagewright_job"] for one in lone.cloud().named("verified")] == [job]
        assert lone.client.status(job)["state"] == "succeeded"


def _ends(site: Site, job: str) -> int:
    told = [event["event"] for event in site.client.json("log", job)]
    return sum(told.count(word) for word in ("succeeded", "failed", "cancelled"))


def test_what_nobody_can_read_is_shown_not_requeued_and_discarded(site: Site) -> None:
    lone = site.fork()
    lone.worker()
    lone.publish(b'{"version": 1, "id": 7')
    (unreadable,) = wait_for("it is buried", lone.client.dead, 30)
    assert unreadable.startswith("msg-")
    assert lone.client.json("dead", "show", unreadable)["message"] == '{"version": 1, "id": 7'
    refused = lone.client.run("dead", "requeue", unreadable, code=64)
    assert "not JSON" in refused.err
    assert list(lone.client.dead()) == [unreadable]
    assert lone.client.run("dead", "discard", unreadable).out.split() == [unreadable]
    assert lone.client.json("dead", "list") == []


def test_all_the_dead_are_requeued_or_discarded_at_once(site: Site) -> None:
    lone = site.fork()
    lone.worker()
    jobs = [buried_for_want_of_its_file(lone, f"all-{number}") for number in range(3)]
    for number in range(2):
        images.small_qcow2(lone.root / f"all-{number}.qcow2")
    document = lone.client.json("dead", "requeue", "--all")
    assert sorted(entry["id"] for entry in document["jobs"]) == sorted(jobs)
    for job in jobs[:2]:
        lone.client.tree_ended(job)
    lone.client.buried(jobs[2])
    wait_for("only one is dead", lambda: list(lone.client.dead()) == [jobs[2]], 30, every=0.3)
    assert lone.client.run("dead", "discard", "--all").out.split() == [jobs[2]]
    assert lone.client.json("dead", "list") == []
    lone.client.run("dead", "discard", jobs[2], code=66)


def test_the_dead_are_all_found_fifty_times_from_two_processes_at_once(site: Site) -> None:
    lone = site.fork()
    lone.worker()
    jobs = sorted(buried_for_want_of_its_file(lone, f"found-{number}") for number in range(5))
    for _ in range(25):
        lists = [lone.client.start("dead", "list", "--json") for _ in range(2)]
        for running in lists:
            out, err = _communicate(running)
            assert sorted(entry["id"] for entry in json.loads(out)) == jobs, err


def _communicate(running: "subprocess.Popen[str]") -> tuple[str, str]:
    try:
        return running.communicate(timeout=30)
    finally:
        running.kill()
