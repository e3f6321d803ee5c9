"""Actions: their words to the program, and their results."""

import json

import pytest
from conftest import deployed, image, row
from ops import testing


def run(context, name, params=None, **more):
    context.run(context.on.action(name, params=params or {}), deployed(image(), **more))
    return context.action_results


def refused(context, name, params=None, **more):
    with pytest.raises(testing.ActionFailed) as failure:
        run(context, name, params, **more)
    return failure.value.message


@pytest.mark.parametrize("name", ["build", "run"])
def test_build_enqueues_and_gives_ids(context, imagewright, name):
    config = {"base-image": "jammy,noble", "build-flavor": "m1.small", "revision-history-limit": 3}
    assert run(context, name, {"force": True}, config=config) == {"enqueued": "2", "job-ids": "job-1,job-2"}
    first = " ".join(imagewright.said("build")[0])
    assert first == (
        "build --name imagewright-jammy-x64 --arch amd64 --base jammy --cloud build --keep 3 --deadline 1440m"
        " --upload-to image-5 --flavor m1.small --force"
    )


def test_build_of_one_base(context):
    assert run(context, "build", {"base": "noble"})["enqueued"] == "1"
    assert "is not in the option base-image: noble" in refused(context, "build", {"base": "jammy"})


def test_upload_copies_from_the_build_cloud(context, imagewright):
    assert run(context, "upload", {"image-id": "abc", "base": "noble"})["enqueued"] == "1"
    words = imagewright.said("upload")[0]
    assert words[words.index("--from") + 1] == "build:abc"
    assert words[words.index("--cloud") + 1] == "image-5"
    assert "is not known" in refused(context, "upload", {"image-id": "abc", "base": "noble", "cloud": "x"})
    assert "base-image" in refused(context, "upload", {"image-id": "abc", "base": "focal"})


def test_prune_and_its_plan(context, imagewright):
    assert run(context, "prune", {"keep": 2, "cloud": "build"})["enqueued"] == "1"
    assert imagewright.said("prune")[-1][-2:] == ("--keep", "2")
    imagewright.answers["prune"] = {"plans": [{"cloud": "build", "images": []}]}
    assert json.loads(run(context, "prune", {"dry-run": True})["plans"]) == [{"cloud": "build", "images": []}]
    assert imagewright.said("prune")[-1][-1] == "--dry-run"


def test_images_are_listed(context, imagewright):
    imagewright.images = [row("image-5", "b"), row("image-5", "a"), row("image-5", "c", name="other")]
    assert run(context, "list-images")["count"] == "2"
    latest = run(context, "list-images", {"latest-only": True, "cloud": "image-5"})
    assert [entry["id"] for entry in json.loads(latest["images"])] == ["b"]


def test_the_queue_is_counted(context, imagewright):
    imagewright.answers["queues"] = [
        {"queue": "imagewright.upload.amd64", "ready": 3, "consumers": 2},
        {"queue": "imagewright.dead", "ready": 4, "consumers": 0},
        {"queue": "imagewright.wait.15", "ready": 7, "consumers": 0},
        {"queue": "imagewright.lost", "ready": 0, "consumers": 9},
        {"queue": "imagewright.pause.build", "ready": 1, "consumers": 0},
        {"queue": "imagewright.pause.upload", "ready": 0, "consumers": 0},
    ]
    imagewright.answers["status"] = [{"state": "running"}, {"state": "waiting"}, {"state": "succeeded"}]
    wanted = {"ready": "3", "in-flight": "2", "failed": "4", "consumers": "9", "paused": "build"}
    assert run(context, "queue-status") == wanted


def test_failed_jobs_are_listed(context, imagewright):
    imagewright.answers["dead"] = [{"id": "1"}, {"id": "2"}]
    found = run(context, "list-failed", {"limit": 1})
    assert (found["count"], json.loads(found["jobs"])) == ("2", [{"id": "1"}])


@pytest.mark.parametrize(("verb", "past"), [("requeue", "requeued"), ("discard", "discarded")])
def test_failed_jobs_are_settled(context, imagewright, verb, past):
    assert run(context, f"{verb}-failed", {"job-id": "1"}) == {past: "1"}
    assert run(context, f"{verb}-failed", {"all": True}) == {past: "all"}
    assert [words[1:] for words in imagewright.said("dead")] == [(verb, "1"), (verb, "--all")]
    assert refused(context, f"{verb}-failed") == "give either job-id or all=true"
    assert refused(context, f"{verb}-failed", {"job-id": "1", "all": True}) == "give either job-id or all=true"


def test_what_the_program_says_is_the_reason(context, imagewright):
    imagewright.error = "the queue is away"
    assert refused(context, "build") == "the queue is away"


def test_a_unit_that_is_not_set_up_says_so(context):
    assert refused(context, "build", config={"log-level": "loud"}) == "the unit is not set up: see its status"


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_pause_is_the_queues_own(context, imagewright, verb):
    imagewright.answers[verb] = {"paused": ["build", "upload"]}
    assert run(context, verb) == {"paused": "build,upload"}
    assert run(context, verb, {"kind": "build"}) == {"paused": "build,upload"}
    assert imagewright.said(verb) == [(verb,), (verb, "--kind", "build")]


def test_upload_needs_a_related_cloud(context):
    with pytest.raises(testing.ActionFailed, match="no cloud is related"):
        context.run(context.on.action("upload", params={"image-id": "a", "base": "noble"}), deployed())
