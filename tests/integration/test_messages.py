"""What a message may say, who may have written it, and what becomes of the ones that can't be done."""

import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from harness import images
from harness.site import Site, message, upload_spec


def test_a_foreign_message_with_only_the_required_fields_is_done_like_our_own(site: Site) -> None:
    disk = site.qcow2()
    job = message(upload_spec("foreign", disk))
    del job["asked_at"]
    site.publish(job)
    done = site.client.tree_ended(job["id"])
    (image,) = site.cloud().active("foreign")
    assert done["result"]["image_id"] == image["id"]
    assert image["os_hash_value"] == image["imagewright_verified"] == images.sha512(disk)
    assert image["imagewright_job"] == job["id"]
    assert image["architecture"] == "x86_64"
    assert image["visibility"] == "private"
    assert [site.client.status(child)["kind"] for child in done["children"]] == ["prune"]


def test_a_foreign_message_may_use_every_documented_field_and_an_arch_alias(site: Site) -> None:
    spec = upload_spec(
        "foreign-full",
        site.qcow2(),
        arch="aarch64",
        keep=1,
        disk_format="qcow2",
        visibility="shared",
        properties={"os_distro": "ubuntu"},
    )
    job = message(spec, parent=str(uuid.uuid4()))
    site.publish(job, "upload.arm64")
    site.client.tree_ended(job["id"])
    (image,) = site.cloud().active("foreign-full")
    assert image["architecture"] == "aarch64"
    assert image["imagewright_asked_at"] == job["asked_at"]
    assert image["os_distro"] == "ubuntu"


def test_a_foreign_prune_is_done_like_our_own(site: Site) -> None:
    for _ in range(2):
        site.client.upload("foreign-prune", site.qcow2())
    job = message({"kind": "prune", "name": "foreign-prune", "cloud": "cloud1", "keep": 1})
    site.publish(job, "prune.any")
    done = site.client.succeeded(job["id"])
    assert len(done["result"]["kept"]) == len(done["result"]["deleted"]) == 1
    assert [one["id"] for one in site.cloud().active("foreign-prune")] == [done["result"]["kept"][0]["id"]]


def test_a_message_on_the_wrong_lane_is_done_on_the_right_one(site: Site) -> None:
    job = message(upload_spec("wrong-lane", site.qcow2(), arch="s390x"))
    site.publish(job, "upload.amd64")
    site.client.tree_ended(job["id"])
    assert site.cloud().active("wrong-lane")[0]["architecture"] == "s390x"


def test_the_published_schema_describes_the_message(site: Site) -> None:
    schema = json.loads(site.client.run("schema").out)
    assert "2020-12" in schema["$schema"]
    assert {"version", "id", "spec"} <= set(schema["required"])
    assert {"version", "id", "spec", "parent", "asked_at"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


@dataclass(frozen=True)
class Bad:
    """A message that must be buried, and the field that the reason must name."""

    label: str
    field: str
    change: Callable[[dict[str, Any]], Any]
    seconds: float = 30.0


def _spec(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda job: job["spec"].update(fields)


def _set(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda job: job.update(fields)


def _url(url: str, sha256: str = "0" * 64) -> Callable[[dict[str, Any]], None]:
    return _spec(source={"url": url, "sha256": sha256})


BAD = [
    Bad("unknown-version", "version", _set(version=99)),
    Bad("no-version", "version", lambda job: job.pop("version")),
    Bad("unknown-kind", "spec.kind", _spec(kind="bake")),
    Bad("no-kind", "spec.kind", lambda job: job["spec"].pop("kind")),
    Bad("unknown-field", "colour", _set(colour="blue")),
    Bad("unknown-spec-field", "spec.colour", _spec(colour="blue")),
    Bad("no-name", "spec.name", lambda job: job["spec"].pop("name")),
    Bad("wrong-arch", "spec.arch", _spec(arch="sparc9")),
    Bad("keep-0", "spec.keep", _spec(keep=0)),
    Bad("keep-100", "spec.keep", _spec(keep=100)),
    Bad("keep-text", "spec.keep", _spec(keep="five")),
    Bad("far-future", "asked_at", _set(asked_at="2999-01-01T00:00:00.000Z")),
    Bad("asked-at-text", "asked_at", _set(asked_at="yesterday")),
    Bad("visibility-public", "spec.visibility", _spec(visibility="public")),
    Bad("our-property", "spec.properties.imagewright_job", _spec(properties={"imagewright_job": "mine"})),
    Bad("owner-property", "spec.properties.owner", _spec(properties={"owner": "me"})),
    Bad("hash-property", "spec.properties.os_hash_value", _spec(properties={"os_hash_value": "0"})),
    Bad("core-property", "spec.properties.size", _spec(properties={"size": "1"})),
    Bad(
        "two-sources",
        "spec.source",
        lambda job: job["spec"]["source"].update(url="https://127.0.0.1/", sha256="0" * 64),
    ),
    Bad("no-source", "spec.source", lambda job: job["spec"].pop("source")),
    Bad("outside-the-roots", "spec.source.file", _spec(source={"file": "/etc/passwd"})),
    Bad("dots-out-of-the-root", "spec.source.file", lambda job: _dots(job)),
    Bad("missing-file", "spec.source.file", lambda job: _dots(job, "/missing.img")),
    Bad("plain-http", "spec.source.url", _url("http://127.0.0.1:1/disk")),
    Bad("host-not-allowed", "spec.source.url", _url("https://example.org/disk")),
    Bad("loopback-by-another-name", "spec.source.url", _url("https://localhost:1/disk")),
    Bad("url-with-user", "spec.source.url", _url("https://me:secret@127.0.0.1:1/disk")),
    Bad("url-without-digest", "spec.source", _spec(source={"url": "https://127.0.0.1:1/disk"})),
    Bad("short-digest", "spec.source", _url("https://127.0.0.1:1/disk", "abc")),
    Bad("unknown-cloud", "spec.cloud", _spec(cloud="nowhere"), seconds=80.0),
    Bad("unknown-source-cloud", "spec.source.image", _spec(source={"image": {"cloud": "nowhere", "id": "x"}}), 80.0),
]


def _dots(job: dict[str, Any], tail: str = "/../../../../../../etc/passwd") -> None:
    file = job["spec"]["source"]["file"]
    job["spec"]["source"]["file"] = file.rsplit("/", 1)[0] + tail


@pytest.fixture(scope="module")
def bad_jobs(shared: tuple[Site, object]) -> dict[str, str]:
    """All bad messages, published at once in front of a good one; their ids by label."""
    site = shared[0]
    jobs: dict[str, str] = {}
    for bad in BAD:
        job = message(upload_spec(f"bad-{bad.label}", site.qcow2()))
        bad.change(job)
        site.publish(job)
        jobs[bad.label] = job["id"]
    return jobs


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.label)
def test_a_bad_message_is_buried_with_the_field_named(site: Site, bad_jobs: dict[str, str], bad: Bad) -> None:
    job = bad_jobs[bad.label]
    entry = site.client.buried(job, bad.seconds)
    assert entry["field"].startswith(bad.field), entry
    assert bad.field.rsplit(".", 1)[-1] in entry["reason"], entry
    assert entry["first_at"]
    assert entry["last_at"]
    status = site.client.status(job)
    assert status["state"] == "failed"
    assert status["error"]
    assert not site.cloud().named(f"bad-{bad.label}")
    assert not site.cloud().of_job(job)


def test_the_worker_goes_on_after_bad_messages(site: Site, bad_jobs: dict[str, str]) -> None:
    assert bad_jobs
    site.client.upload("after-the-bad", site.qcow2())
    assert site.cloud().active("after-the-bad")


@pytest.mark.parametrize(
    "body", [b"\xff\xfe not text", b"{", b"[]", b'"text"', b""], ids=["bytes", "cut", "list", "text", "empty"]
)
def test_a_message_that_is_no_json_object_is_buried_under_a_made_up_id(site: Site, body: bytes) -> None:
    site.publish(body)
    entry = site.client.buried(f"msg-{hashlib.sha256(body).hexdigest()[:12]}")
    assert entry["field"] == "message"
    assert entry["id"] in site.client.run("dead", "list").out


def test_the_dead_queue_holds_what_the_dead_list_shows(site: Site, bad_jobs: dict[str, str]) -> None:
    """By the other AMQP client, where the queue is RabbitMQ; twice, as looking changes nothing."""
    for bad in BAD:
        site.client.buried(bad_jobs[bad.label], bad.seconds)
    listed = {entry["id"] for entry in site.client.json("dead", "list")}
    assert set(bad_jobs.values()) <= listed
    assert {entry["id"] for entry in site.client.json("dead", "list")} == listed
    if site.broker:
        bodies = [one.body for one in site.amqp().peek("dead")]
        ids = [json.loads(body).get("id") for body in bodies if body.startswith(b"{") and body.endswith(b"}")]
        assert set(bad_jobs.values()) <= set(ids)


def test_a_wrong_digest_leaves_nothing_behind(site: Site) -> None:
    disk = site.qcow2()
    url = site.files.add(f"{site.namespace}-changed", disk)
    job = message(upload_spec("wrong-digest", disk, source={"url": url, "sha256": "0" * 64}))
    site.publish(job)
    assert site.client.buried(job["id"])["field"] == "spec.source.sha256"
    assert not site.cloud().named("wrong-digest")


@pytest.mark.parametrize("how", ["chunked", "missing"])
def test_a_url_without_a_length_or_without_a_file_is_buried(site: Site, how: str) -> None:
    disk = site.qcow2()
    site.files.add(f"{site.namespace}-odd", disk)
    path = {"chunked": f"/chunked/{site.namespace}-odd", "missing": "/files/no-such-file"}[how]
    source = {"url": site.files.url + path, "sha256": images.sha256(disk)}
    job = message(upload_spec(f"odd-url-{how}", disk, source=source))
    site.publish(job)
    assert site.client.buried(job["id"])["field"] == "spec.source.url"
    assert not site.cloud().named(f"odd-url-{how}")


def test_a_redirect_to_a_host_that_is_not_allowed_is_refused(site: Site) -> None:
    disk = site.qcow2()
    url = site.files.redirect(f"/{site.namespace}-away", f"https://localhost:{site.files.port}/files/x")
    job = message(upload_spec("redirected-away", disk, source={"url": url, "sha256": images.sha256(disk)}))
    site.publish(job)
    assert site.client.buried(job["id"])["field"] == "spec.source.url"
    assert not site.cloud().named("redirected-away")


def test_the_policy_decides_about_names_clouds_and_copies(site: Site) -> None:
    policy = {"names": ["fine-*"], "clouds": ["cloud1"], "copy_from": ["cloud1"], "visibilities": ["private"]}
    lone = site.fork(policy=policy)
    lone.worker()
    disk = lone.qcow2()
    image = {"image": {"cloud": "cloud2", "id": str(uuid.uuid4())}}
    wanted = {
        "spec.name": upload_spec("other", disk),
        "spec.cloud": upload_spec("fine-cloud", disk, cloud="cloud2"),
        "spec.visibility": upload_spec("fine-visibility", disk, visibility="shared"),
        "spec.source.image": upload_spec("fine-copy", disk, source=image),
    }
    jobs = {field: message(spec) for field, spec in wanted.items()}
    for job in jobs.values():
        lone.publish(job)
    for field, job in jobs.items():
        assert lone.client.buried(job["id"])["field"].startswith(field)
    lone.client.upload("fine-name", disk)
    assert lone.cloud().active("fine-name")


def test_a_symlink_out_of_the_root_is_not_followed(site: Site) -> None:
    outside = images.small_qcow2(site.folder / "outside.qcow2")
    link = site.root / "link.qcow2"
    link.symlink_to(outside)
    (job,) = site.client.upload("by-link", link, code=1)
    assert site.client.buried(job)["field"] == "spec.source.file"
    assert not site.cloud().named("by-link")


def test_a_field_name_of_200000_characters_is_buried_like_any_other(site: Site) -> None:
    """What a refusal repeats must fit a header; a frame that is too large would cost the worker its connection."""
    job = message(upload_spec("long-field", site.qcow2()))
    site.publish({**job, "k" * 200_000: 1}, "upload.amd64")
    assert site.client.buried(job["id"])["field"].startswith("kkk")
    good = message(upload_spec("after-long-field", site.qcow2()))
    site.publish(good)
    site.client.tree_ended(good["id"])
    assert len(site.cloud().active("after-long-field")) == 1
