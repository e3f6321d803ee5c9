"""`imagewright schedule`: what a file of desired images asks for is made once, and only where it lacks."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from harness import images
from harness.process import wait_for
from harness.proxy import Proxy
from harness.servers import REPO
from harness.site import Site, message, now, upload_spec

EXAMPLE = REPO / "docs" / "examples" / "images.yaml"
LIST_IMAGES = r"^/v2/images\?"
# So long that no slot ends while a test runs, but on one day of each year.
INTERVAL = "365d"
LONG_AGO = "2020-01-01T00:00:00.000Z"


def entry(name: str, disk: Path, clouds: str = "cloud1", **more: Any) -> dict[str, Any]:
    """One architecture, unless `sources` says otherwise."""
    source = {} if "sources" in more else {"arch": "amd64", "source": {"file": str(disk)}}
    return {"name": name, "clouds": clouds.split(","), "interval": INTERVAL, **source, **more}


def write(site: Site, *entries: dict[str, Any]) -> Path:
    path = site.folder / f"{entries[0]['name']}.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "images": list(entries)}))
    return path


def schedule(site: Site, file: Path, *more: str, code: int = 0) -> dict[str, Any]:
    return site.client.run("schedule", "--file", file, "--json", *more, code=code).json()


def states(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(one["arch"], one["cloud"], one["state"]) for one in document["targets"]]


def jobs(document: dict[str, Any]) -> list[str]:
    return [job["id"] for job in document["jobs"]]


def test_what_is_missing_is_made_once_and_then_fresh(site: Site) -> None:
    disks = {"amd64": site.qcow2(), "aarch64": site.qcow2()}
    sources = {arch: {"file": str(disk)} for arch, disk in disks.items()}
    wanted = entry("sched-new", disks["amd64"], "cloud1,cloud3", sources=sources, keep=2, visibility="shared")
    file = write(site, {**wanted, "properties": {"os_distro": "ubuntu"}})
    done = site.client.run("schedule", "--file", file)
    made = done.out.split()
    assert len(set(made)) == 4
    assert "4 images in all: 4 missing" in done.err
    for job in made:
        site.client.tree_ended(job)
    found = [one for cloud in ("cloud1", "cloud3") for one in site.cloud(cloud).active("sched-new")]
    assert {one["imagewright_job"] for one in found} == set(made)
    digests = {(one["architecture"], one["os_hash_value"]) for one in found}
    assert digests == {("x86_64", images.sha512(disks["amd64"])), ("aarch64", images.sha512(disks["aarch64"]))}
    assert {(one["visibility"], one["os_distro"]) for one in found} == {("shared", "ubuntu")}
    again = site.client.run("schedule", "--file", file)
    assert again.out == ""
    assert again.err.strip() == "4 images in all: 4 fresh"
    document = schedule(site, file)
    assert document["jobs"] == []
    assert {(one["state"], one["enqueue"], one["job"]) for one in document["targets"]} == {("fresh", False, None)}


def test_what_is_stale_gets_a_newer_revision(site: Site) -> None:
    disk = site.qcow2()
    old = message(upload_spec("sched-stale", disk), asked_at=LONG_AGO)
    site.publish(old)
    site.client.tree_ended(old["id"])
    file = write(site, entry("sched-stale", disk, keep=1))
    document = schedule(site, file, "--wait")
    assert states(document) == [("amd64", "cloud1", "stale")]
    upload = next(job for job in document["jobs"] if job["kind"] == "upload")
    assert (upload["id"], upload["state"]) == (document["targets"][0]["job"], "succeeded")
    # The new one sorts after the stale one, so that the prune that follows takes the old.
    (image,) = site.cloud().active("sched-stale")
    assert image["imagewright_job"] == upload["id"]
    asked_at = datetime.fromisoformat(image["imagewright_asked_at"])
    assert datetime.fromisoformat(LONG_AGO) < asked_at < datetime.now(UTC)
    assert asked_at.timestamp() % (365 * 86_400) == 0
    assert states(schedule(site, file)) == [("amd64", "cloud1", "fresh")]


def test_an_image_that_nobody_verified_is_not_what_was_asked_for(site: Site) -> None:
    disk = site.qcow2()
    site.cloud().add_file("sched-strange", disk, architecture="x86_64")
    file = write(site, entry("sched-strange", disk))
    document = schedule(site, file, "--wait")
    assert states(document) == [("amd64", "cloud1", "missing")]
    assert states(schedule(site, file)) == [("amd64", "cloud1", "fresh")]


def test_three_machines_at_once_do_the_work_of_one(site: Site) -> None:
    """All three have seen that the images are missing before any of them enqueues."""
    with Proxy(site.stack.cloud("cloud1").port) as first, Proxy(site.stack.cloud("cloud2").port) as second:
        lone = site.fork(proxies={"cloud1": first, "cloud2": second})
        file = write(lone, entry("sched-three", lone.qcow2(), "cloud1,cloud2"))
        for proxy in (first, second):
            proxy.pause()
        running = [lone.client.start("schedule", "--file", file, "--json") for _ in range(3)]
        for proxy in (first, second):
            wait_for("all three ask", lambda proxy=proxy: proxy.count("GET", LIST_IMAGES) == 3, 40)
        for proxy in (first, second):
            proxy.resume()
        outputs = [one.communicate(timeout=60) for one in running]
        assert [one.returncode for one in running] == [0, 0, 0], outputs
        documents = [json.loads(out) for out, _ in outputs]
        assert documents[0] == documents[1] == documents[2]
        made = jobs(documents[0])
        assert len(set(made)) == 2
        lone.drain()
        for cloud, job in zip(("cloud1", "cloud2"), made, strict=True):
            (image,) = lone.cloud(cloud).named("sched-three")
            assert (image["status"], image["imagewright_job"]) == ("active", job)
            assert lone.client.status(job)["state"] == "succeeded"


def test_a_job_that_has_not_ended_is_left_to_end(site: Site) -> None:
    lone = site.fork()
    disk = lone.qcow2()
    (by_hand,) = lone.client.upload("sched-way", disk, wait=False)
    file = write(lone, entry("sched-way", disk, "cloud1,cloud2"))
    document = schedule(lone, file)
    assert states(document) == [("amd64", "cloud1", "under-way"), ("amd64", "cloud2", "missing")]
    assert document["targets"][0]["job"] == by_hand
    (own,) = jobs(document)
    document = schedule(lone, file)
    assert document["jobs"] == []
    assert [(one["state"], one["job"]) for one in document["targets"]] == [("under-way", by_hand), ("under-way", own)]
    assert f"{by_hand} is queued" in document["targets"][0]["reason"]


def test_a_job_that_failed_is_not_enqueued_again_in_its_slot(site: Site) -> None:
    disk = site.qcow2()
    disk.unlink()
    file = write(site, entry("sched-failed", disk))
    done = site.client.run("schedule", "--file", file, "--wait", code=1)
    job = done.out.strip()
    again = site.client.run("schedule", "--file", file)
    assert again.out == ""
    assert f"warning: sched-failed amd64 on cloud1 is failed: job {job} failed" in again.err
    assert f"imagewright dead requeue {job}" in again.err
    (target,) = schedule(site, file, "--dry-run")["targets"]
    assert (target["state"], target["job"], target["enqueue"]) == ("failed", job, False)


def test_a_broken_cloud_hurts_no_healthy_one(site: Site) -> None:
    with Proxy(site.stack.cloud("cloud2").port) as proxy:
        lone = site.fork(proxies={"cloud2": proxy})
        disk = lone.qcow2()
        lone.worker()
        file = write(lone, entry("sched-broken", disk, "cloud2,cloud1,cloud3"))
        proxy.fail("GET", LIST_IMAGES, 503, times=1000)
        done = lone.client.run("schedule", "--file", file, "--json", "--wait", code=69)
        document = done.json()
        assert [state for _, _, state in states(document)] == ["unreachable", "missing", "missing"]
        assert [line for line in done.err.splitlines() if line.startswith("error: ") and "cloud2" in line]
        for cloud in ("cloud1", "cloud3"):
            assert len(lone.cloud(cloud).active("sched-broken")) == 1
        assert not lone.cloud("cloud2").named("sched-broken")
        proxy.forget()
        document = schedule(lone, file, "--wait")
        assert [state for _, _, state in states(document)] == ["missing", "fresh", "fresh"]
        assert len(lone.cloud("cloud2").active("sched-broken")) == 1


def test_a_dry_run_shows_the_plan_and_enqueues_nothing(site: Site) -> None:
    lone = site.fork()
    disk = lone.qcow2()
    file = write(lone, entry("sched-dry", disk, "cloud1,cloud2"))
    old = message(upload_spec("sched-dry", disk), asked_at=LONG_AGO)
    lone.publish(old)
    lone.drain()
    (image,) = lone.cloud().named("sched-dry")
    before = lone.client.json("status")
    document = schedule(lone, file, "--dry-run")
    assert document["jobs"] == []
    assert [(one["state"], one["enqueue"]) for one in document["targets"]] == [("stale", True), ("missing", True)]
    assert image["id"] in document["targets"][0]["reason"]
    table = lone.client.run("schedule", "--file", file, "--dry-run").out
    assert table.startswith("NAME")
    assert re.search(r"sched-dry +amd64 +cloud2 +missing +[0-9a-f-]{36} +no active, verified image\n", table)
    assert lone.client.json("status") == before
    assert all(queue["ready"] == 0 for queue in lone.client.json("queues"))
    assert lone.cloud().named("sched-dry") == [image]
    assert not lone.cloud("cloud2").named("sched-dry")
    assert jobs(schedule(lone, file)) == [one["job"] for one in document["targets"]]


@pytest.mark.parametrize("queue", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("images: [\n", "line 1, column 9"),
        ("images:\n- name: n\n  colour: red\n", "images[0].colour"),
        ("images:\n- {name: n, clouds: [cloud1], interval: 1d, build: {base: noble}}\n", "images[0].build.cloud"),
        ("images:\n- {name: n, clouds: [cloud1], interval: 1d, arch: amd64, source: {file: f}}\n", "images[0].source"),
        ("images:\n- {name: n, clouds: [cloud1], interval: soon, arch: amd64, source: {file: /f}}\n", "interval"),
    ],
)
def test_a_wrong_file_is_refused_with_the_path_of_the_key(site: Site, text: str, named: str) -> None:
    file = site.folder / "wrong.yaml"
    file.write_text(text)
    done = site.client.run("schedule", "--file", file, code=64)
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert line.startswith(f"error: {file}: ")
    assert named in line


@pytest.mark.parametrize("queue", ["sqlite"], indirect=True)
def test_the_schema_accepts_what_the_program_accepts(site: Site) -> None:
    validator = Draft202012Validator(site.client.json("schema", "schedule"))
    example = yaml.safe_load(EXAMPLE.read_text())
    validator.validate(example)
    first, second, built = example["images"]
    for wrong in (
        {**first, "colour": "red"},
        {**first, "arch": "amd64"},
        {**second, "sources": first["sources"]},
        {**second, "build": built["build"]},
        {**built, "visibility": "shared"},
        {**built, "build": {"cloud": "edge-1"}},
        {**second, "clouds": []},
        {**first, "sources": {"sparc": {"file": "/f"}}},
        {key: value for key, value in second.items() if key != "source"},
        {key: value for key, value in second.items() if key != "interval"},
    ):
        assert not validator.is_valid({"images": [wrong]}), wrong
        file = write(site, wrong)
        site.client.run("schedule", "--file", file, "--dry-run", code=64)


@pytest.mark.parametrize("queue", ["sqlite"], indirect=True)
def test_the_example_of_the_documentation_is_read(site: Site) -> None:
    """On clouds of its names: cloud1 is edge-1, cloud2 is edge-2."""
    lone = site.fork()
    entries = {"edge-1": lone.stack.entry("cloud1"), "edge-2": lone.stack.entry("cloud2")}
    lone.stack.write_clouds(lone.client.clouds_yaml, entries)
    document = schedule(lone, EXAMPLE, "--dry-run")
    assert [(one["name"], *state) for one, state in zip(document["targets"], states(document), strict=True)] == [
        ("noble", "amd64", "edge-1", "missing"),
        ("noble", "amd64", "edge-2", "missing"),
        ("noble", "arm64", "edge-1", "missing"),
        ("noble", "arm64", "edge-2", "missing"),
        ("rescue", "amd64", "edge-2", "missing"),
        ("runner-noble-amd64", "amd64", "edge-1", "missing"),
    ]


@pytest.mark.parametrize("queue", ["sqlite"], indirect=True)
def test_a_build_is_enqueued_once_for_all_its_clouds(site: Site) -> None:
    """No worker here builds: what is looked at is what is asked for."""
    lone = site.fork()
    build = {"cloud": "cloud1", "base": "noble", "runner_version": "none"}
    wanted = {"name": "sched-built", "arch": "amd64", "build": build, "clouds": ["cloud2", "cloud1"], "interval": "1d"}
    document = schedule(lone, write(lone, wanted))
    assert states(document) == [("amd64", "cloud1", "missing")]
    (job,) = document["jobs"]
    assert (job["kind"], job["cloud"]) == ("build", "cloud1")
    assert states(schedule(lone, write(lone, wanted))) == [("amd64", "cloud1", "under-way")]


def test_an_upload_by_hand_in_the_slot_stays_the_newest(site: Site) -> None:
    disk = site.qcow2()
    file = write(site, entry("sched-hand", disk))
    (planned,) = schedule(site, file, "--dry-run")["targets"]
    (by_hand,) = site.client.upload("sched-hand", site.qcow2())
    assert states(schedule(site, file)) == [("amd64", "cloud1", "fresh")]
    # Even if the slot's job had been enqueued before anybody saw the upload.
    start = datetime.now(UTC).timestamp() // (365 * 86_400) * 365 * 86_400
    asked_at = datetime.fromtimestamp(start, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    site.publish(message(upload_spec("sched-hand", disk), id=planned["job"], asked_at=asked_at))
    site.client.tree_ended(planned["job"])
    assert site.client.latest("sched-hand") == site.client.status(by_hand)["result"]["image_id"]
    assert asked_at < now()
