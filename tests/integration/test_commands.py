"""What people and scripts see of the command line."""

import json
import re
import uuid

import pytest

from harness.cli import ANSWER
from harness.process import free_port
from harness.site import Site

ID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
STATUS = ["id", "kind", "name", "arch", "cloud", "state", "attempts", "created_at", "updated_at"]


def test_enqueueing_prints_one_id_a_line_and_nothing_else(site: Site) -> None:
    words = ["upload", "--name", "ids", "--arch", "amd64", "--cloud", "cloud1,cloud2", "--file", site.qcow2()]
    done = site.client.run(*words)
    assert re.fullmatch(f"{ID}\n{ID}\n", done.out)
    for job in done.out.split():
        site.client.tree_ended(job)


def test_enqueueing_prints_its_jobs_as_json(site: Site) -> None:
    words = ["upload", "--name", "ids-json", "--arch", "amd64", "--cloud", "cloud1,cloud2", "--file", site.qcow2()]
    document = site.client.json(*words)
    assert [(job["kind"], job["cloud"]) for job in document["jobs"]] == [("upload", "cloud1"), ("upload", "cloud2")]
    for job in document["jobs"]:
        site.client.tree_ended(job["id"])


def test_global_options_work_before_and_after_the_subcommand(site: Site) -> None:
    assert isinstance(site.client.run("queues", "--json").json(), list)
    assert isinstance(site.client.run("--json", "queues").json(), list)
    assert isinstance(site.client.run("queues", "-f", "json").json(), list)


def test_status_tells_all_about_a_job_and_its_children(site: Site) -> None:
    (job,) = site.client.upload("status", site.qcow2())
    entry = site.client.status(job)
    assert set(STATUS) | {"error", "result", "parent", "children"} <= set(entry)
    assert [entry[key] for key in STATUS[:6]] == [job, "upload", "status", "amd64", "cloud1", "succeeded"]
    assert entry["error"] is None
    assert entry["parent"] is None
    assert STAMP.fullmatch(entry["created_at"])
    assert STAMP.fullmatch(entry["updated_at"])
    (child,) = entry["children"]
    prune = site.client.status(child)
    assert (prune["kind"], prune["parent"], prune["state"]) == ("prune", job, "succeeded")
    assert [one["id"] for one in prune["result"]["kept"]] == [entry["result"]["image_id"]]


def test_status_answers_for_each_id_in_the_order_asked(site: Site) -> None:
    (known,) = site.client.upload("order", site.qcow2())
    unknown = str(uuid.uuid4())
    entries = site.client.try_run("status", unknown, known, "--json").json()
    assert [(entry["id"], entry["state"]) for entry in entries] == [(unknown, "unknown"), (known, "succeeded")]


def test_waiting_for_a_job_that_fails_ends_with_1(site: Site) -> None:
    missing = site.root / "never-there.img"
    (job,) = site.client.upload("missing", missing, code=1)
    entry = site.client.buried(job)
    assert entry["field"] == "spec.source.file"
    assert entry["kind"] == "upload"
    assert entry["name"] == "missing"
    assert entry["cloud"] == "cloud1"


def test_latest_build_id_prints_the_id_without_a_newline(site: Site) -> None:
    (job,) = site.client.upload("newest", site.qcow2())
    assert site.client.latest("newest") == site.client.status(job)["result"]["image_id"]
    assert site.client.latest("newest", "--arch", "s390x") == ""


def test_images_lists_what_the_clouds_hold(site: Site) -> None:
    site.client.upload("listed", site.qcow2(), cloud="cloud1,cloud3")
    found = site.client.json("images", "--name", "listed")
    wanted = {site.cloud(cloud).active("listed")[0]["id"] for cloud in ("cloud1", "cloud3")}
    assert {one["id"] for one in found} == wanted
    assert {one["cloud"] for one in found} == {"cloud1", "cloud3"}
    assert [one["cloud"] for one in site.client.json("images", "--name", "listed", "--cloud", "cloud3")] == ["cloud3"]
    assert site.client.json("images", "--name", "no-such-image") == []


def test_queues_lists_every_queue(site: Site) -> None:
    lone = site.fork()
    queues = lone.client.json("queues")
    assert all({"queue", "ready", "consumers"} <= set(entry) for entry in queues)
    lone.client.upload("counted", lone.qcow2(), wait=False)
    counts = {entry["queue"]: entry["ready"] for entry in lone.client.json("queues")}
    assert sum(count for queue, count in counts.items() if "upload.amd64" in queue) == 1
    if lone.broker:
        assert lone.amqp().exists("upload.s390x.started")
        assert lone.amqp().exists("wait.7200")
        assert lone.amqp().exists("dead")
        assert f"{lone.namespace}.upload.amd64" in counts


def test_an_empty_dead_list_is_an_empty_list(site: Site) -> None:
    assert site.fork().client.json("dead", "list") == []


def test_the_deadline_of_a_job_buries_it(site: Site) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    lone = site.fork(clouds={"dark": site.stack.entry("cloud1", image_endpoint_override=nobody)})
    lone.worker()
    (job,) = lone.client.upload("late", lone.qcow2(), "--deadline", "3s", cloud="dark", code=1)
    assert lone.client.buried(job)["field"] == "deadline"


@pytest.mark.parametrize(
    "words",
    [
        ["upload", "--name", "x", "--arch", "sparc9", "--cloud", "cloud1", "--file", "/x"],
        ["upload", "--name", "x", "--arch", "amd64", "--cloud", "cloud1", "--file", "/x", "--keep", "0"],
        ["upload", "--name", "x", "--arch", "amd64", "--cloud", "cloud1"],
        ["upload", "--name", "x", "--arch", "amd64", "--cloud", "cloud1", "--file", "/x", "--colour", "blue"],
        ["upload", "--arch", "amd64", "--cloud", "cloud1", "--file", "/x"],
        ["upload", "--name", "x", "--arch", "amd64", "--cloud", "cloud1", "--url", "https://h/x"],
        ["bake"],
    ],
    ids=["arch", "keep", "no-source", "option", "no-name", "url-without-digest", "command"],
)
def test_a_usage_error_ends_with_64_and_enqueues_nothing(site: Site, words: list[str]) -> None:
    done = site.client.run(*words, code=64)
    assert done.out == ""
    assert done.err


def test_a_queue_that_does_not_answer_is_said_within_ten_seconds(site: Site) -> None:
    lone = site.fork()
    lone.client.queue = f"amqp://guest:guest@127.0.0.1:{free_port()}"
    done = lone.client.run("queues", code=69, seconds=ANSWER)
    assert done.err


def test_a_cloud_that_does_not_answer_is_said_within_ten_seconds(site: Site) -> None:
    entry = site.stack.entry("cloud1")
    entry["auth"]["auth_url"] = f"http://127.0.0.1:{free_port()}/v3"
    lone = site.fork(clouds={"dark": entry})
    done = lone.client.run("latest-build-id", "x", "--cloud", "dark", code=69, seconds=ANSWER)
    assert "dark" in done.err
    assert done.out == ""


def test_a_cloud_that_is_not_in_clouds_yaml_is_a_configuration_error(site: Site) -> None:
    done = site.client.run("latest-build-id", "x", "--cloud", "nowhere", code=64)
    assert "nowhere" in done.err


def test_no_secret_is_shown(site: Site) -> None:
    """The query of a URL is often a key."""
    url = f"{site.files.url}/files/none?token=topsecret"
    words = ["upload", "--name", "secret", "--arch", "amd64", "--cloud", "cloud1", "--url", url, "--sha256", "0" * 64]
    done = site.client.try_run(*words, "--wait", "--json")
    assert done.code == 1
    job = done.json()["jobs"][0]["id"]
    site.client.buried(job)
    shown = [done.out, done.err, json.dumps(site.client.dead()[job]), site.client.run("dead", "list").out]
    assert not [text for text in shown if "topsecret" in text]
    assert "topsecret" not in site.logs()
