"""Base images: what a signed list vouches for, fetched once, from a mirror of the tests signed by keys of the tests."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.cli import Worker
from harness.images import sha512, small_qcow2
from harness.process import wait_for
from harness.signing import UBUNTU_ARCH, Mirror, SigningKey
from harness.site import Site

IMAGE = "ubuntu-24.04-server-cloudimg-amd64.img"


@dataclass(frozen=True)
class Upstream:
    """A site whose worker trusts `key` and `expired`, and does not know `stranger`."""

    site: Site
    worker: Worker
    folder: Path
    key: SigningKey
    stranger: SigningKey
    expired: SigningKey

    def mirror(self, name: str) -> Mirror:
        return Mirror(self.site.files, f"{self.site.namespace}/{name}")

    def disk(self, name: str) -> Path:
        return small_qcow2(self.folder / f"{name}.qcow2", size=128 * 1024)

    def ask(self, mirror: Mirror, name: str, *more: str, base: str = "noble", arch: str = "amd64") -> str:
        """Enqueues one job for cloud1."""
        words = ["--arch", arch, "--base", base, "--cloud", "cloud1", "--mirror", mirror.url, "--name", name]
        (job,) = self.site.client.run("base-image", *words, *more).out.split()
        return job

    def refused(self, mirror: Mirror, name: str) -> dict[str, Any]:
        """The dead entry of a job that must fail, after which no image is there."""
        entry = self.site.client.buried(self.ask(mirror, name))
        assert entry["field"] == "spec.mirror", entry
        assert not self.site.cloud().named(name)
        return entry


@pytest.fixture(scope="module")
def upstream(shared: tuple[Site, Worker], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    folder = tmp_path_factory.mktemp("keys")
    key = SigningKey(folder / "good", now="20240101T000000")
    stranger = SigningKey(folder / "stranger")
    expired = SigningKey(folder / "expired", expires="20250101T000000", now="20240101T000000")
    keyring = folder / "keyring.gpg"
    keyring.write_bytes(b"".join(one.keyring(folder / "one.gpg").read_bytes() for one in (expired, key)))
    site = shared[0].fork()
    worker = site.worker("--keyring", keyring, kinds="base-image,prune")
    yield Upstream(site, worker, folder, key, stranger, expired)
    assert worker.is_running(), worker.tail(60)
    site.stop()
    for one in (key, stranger, expired):
        one.stop()


def test_a_signed_image_is_uploaded_and_stamped(upstream: Upstream) -> None:
    site, mirror, disk = upstream.site, upstream.mirror("good"), upstream.disk("good")
    digest = mirror.publish(upstream.key, "noble", "amd64", disk)
    job = upstream.ask(mirror, "base-good", "--keep", "1")
    done = site.client.tree_ended(job)
    (image,) = site.cloud().active("base-good")
    assert done["result"]["image_id"] == image["id"]
    assert done["result"]["source_sha256"] == image["imagewright_source_sha256"] == digest
    assert done["result"]["signed_by"] == upstream.key.fingerprint
    assert image["os_hash_value"] == image["imagewright_verified"] == sha512(disk)
    assert (image["os_distro"], image["os_version"]) == ("ubuntu", "24.04")
    assert image["imagewright_kind"] == "base-image"
    assert [site.client.status(child)["kind"] for child in done["children"]] == ["prune"]


@pytest.mark.parametrize("arch", sorted(UBUNTU_ARCH))
def test_every_architecture_is_fetched_by_ubuntus_word_and_named_by_ours(upstream: Upstream, arch: str) -> None:
    site, mirror, disk = upstream.site, upstream.mirror(f"arch-{arch}"), upstream.disk(f"arch-{arch}")
    mirror.publish(upstream.key, "jammy", arch, disk)
    words = ["--arch", arch, "--base", "22.04", "--cloud", "cloud1", "--mirror", mirror.url]
    (job,) = site.client.run("base-image", *words).out.split()
    site.client.tree_ended(job)
    (image,) = site.cloud().of_job(job)
    assert image["name"] == f"imagewright-base-jammy-{arch}"
    assert image["imagewright_arch"] == arch


def test_nothing_is_uploaded_while_upstream_stays_the_same_and_a_change_is_followed(upstream: Upstream) -> None:
    site, mirror = upstream.site, upstream.mirror("refresh")
    mirror.publish(upstream.key, "noble", "amd64", upstream.disk("refresh-1"))
    first = site.client.tree_ended(upstream.ask(mirror, "base-refresh"))["result"]["image_id"]
    fetched = mirror.asked("noble", IMAGE)
    again = site.client.tree_ended(upstream.ask(mirror, "base-refresh"))["result"]
    assert (again["image_id"], again["up_to_date"]) == (first, True)
    assert mirror.asked("noble", IMAGE) == fetched
    assert len(site.cloud().named("base-refresh")) == 1

    digest = mirror.publish(upstream.key, "noble", "amd64", upstream.disk("refresh-2"))
    new = site.client.tree_ended(upstream.ask(mirror, "base-refresh"))["result"]
    assert new["image_id"] != first
    assert new["source_sha256"] == digest
    assert {image["id"] for image in site.cloud().active("base-refresh")} == {first, new["image_id"]}


def test_the_newest_image_decides_whether_upstream_is_there(upstream: Upstream) -> None:
    """Upstream that goes back to older bytes, as it does when it withdraws an image, is followed too."""
    site, mirror = upstream.site, upstream.mirror("back")
    disks = [upstream.disk("back-1"), upstream.disk("back-2")]
    ids: list[str] = []
    for disk in [*disks, disks[0]]:
        mirror.publish(upstream.key, "noble", "amd64", disk)
        ids.append(site.client.tree_ended(upstream.ask(mirror, "base-back"))["result"]["image_id"])
    assert len(set(ids)) == 3
    assert site.client.latest("base-back") == ids[2]


def test_a_stranger_may_not_sign(upstream: Upstream) -> None:
    mirror = upstream.mirror("stranger")
    mirror.publish(upstream.stranger, "noble", "amd64", upstream.disk("stranger"))
    reason = upstream.refused(mirror, "base-stranger")["reason"]
    assert "not in the keyring" in reason
    assert upstream.stranger.fingerprint in reason
    assert mirror.asked("noble", IMAGE) == 0


def test_a_list_that_was_changed_is_refused(upstream: Upstream) -> None:
    """As often as it is asked for: a mirror between two lists looks alike, and that passes."""
    site, mirror, disk = upstream.site, upstream.mirror("tampered"), upstream.disk("tampered")
    mirror.publish(upstream.key, "noble", "amd64", disk)
    mirror.change("noble", "SHA256SUMS", f"{'1' * 64} *{IMAGE}\n".encode())
    job = upstream.ask(mirror, "base-tampered")
    wait_for("it is refused again", lambda: site.client.status(job)["attempts"] > 1, 60, every=0.3)
    assert "bad signature" in site.client.run("log", job).out
    assert mirror.asked("noble", IMAGE) == 0
    assert not site.cloud().named("base-tampered")
    mirror.publish(upstream.key, "noble", "amd64", disk)
    site.client.tree_ended(job)
    (image,) = site.cloud().active("base-tampered")
    assert image["os_hash_value"] == sha512(disk)


def test_an_expired_key_is_refused(upstream: Upstream) -> None:
    mirror = upstream.mirror("expired")
    mirror.publish(
        upstream.expired, "noble", "amd64", upstream.disk("expired"), "--faked-system-time", "20240601T000000"
    )
    reason = upstream.refused(mirror, "base-expired")["reason"]
    assert "expired at 2025-01-01" in reason
    assert "--keyring" not in reason


def test_a_signature_that_has_expired_is_refused(upstream: Upstream) -> None:
    mirror = upstream.mirror("old")
    dated = ["--faked-system-time", "20250601T000000", "--default-sig-expire", "10d"]
    mirror.publish(upstream.key, "noble", "amd64", upstream.disk("old"), *dated)
    assert "expired at 2025-06-1" in upstream.refused(mirror, "base-old")["reason"]


@pytest.mark.parametrize(
    ("name", "file", "data", "said"),
    [
        ("no-signature", "SHA256SUMS.gpg", None, "404"),
        ("no-list", "SHA256SUMS", None, "404"),
        ("a-page-instead", "SHA256SUMS.gpg", b"<html>not here</html>", "no OpenPGP signature"),
        ("far-too-large", "SHA256SUMS.gpg", b"x" * 70_000, "at most 65536"),
    ],
    ids=["no-signature", "no-list", "a-page-instead", "far-too-large"],
)
def test_what_is_missing_is_named(upstream: Upstream, name: str, file: str, data: bytes | None, said: str) -> None:
    mirror = upstream.mirror(name)
    mirror.publish(upstream.key, "noble", "amd64", upstream.disk(name))
    mirror.change("noble", file, data)
    reason = upstream.refused(mirror, name)["reason"]
    assert said in reason
    assert file in reason


def test_an_architecture_that_the_list_lacks_is_named(upstream: Upstream) -> None:
    mirror = upstream.mirror("lacks")
    mirror.publish(upstream.key, "noble", "arm64", upstream.disk("lacks"))
    assert IMAGE in upstream.refused(mirror, "base-lacks")["reason"]


def test_an_image_that_is_not_what_the_list_says_is_tried_again_until_it_is(upstream: Upstream) -> None:
    site, mirror, disk = upstream.site, upstream.mirror("behind"), upstream.disk("behind")
    mirror.publish(upstream.key, "noble", "amd64", disk)
    mirror.change("noble", IMAGE, upstream.disk("behind-old").read_bytes())
    job = upstream.ask(mirror, "base-behind")
    wait_for("it is tried again", lambda: site.client.status(job)["attempts"] > 0, 60, every=0.3)
    mirror.change("noble", IMAGE, disk.read_bytes())
    site.client.tree_ended(job)
    (image,) = site.cloud().active("base-behind")
    assert image["os_hash_value"] == sha512(disk)


def test_any_other_image_is_taken_by_its_digest(upstream: Upstream) -> None:
    site, disk = upstream.site, upstream.disk("other")
    mirror = upstream.mirror("other")
    digest = mirror.publish(upstream.stranger, "noble", "amd64", disk)
    url = f"{site.files.url}/files/{mirror.place('noble', IMAGE)}"
    words = ["--arch", "amd64", "--base", "noble", "--cloud", "cloud1", "--url", url, "--sha256", digest]
    results: list[dict[str, Any]] = []
    for _ in range(2):
        (job,) = site.client.run("base-image", *words, "--name", "base-other").out.split()
        results.append(site.client.tree_ended(job)["result"])
    assert all("signed_by" not in result for result in results)
    assert ["up_to_date" in result for result in results] == [False, True]
    assert len(site.cloud().active("base-other")) == 1


def test_a_worker_without_a_keyring_says_what_is_missing(upstream: Upstream) -> None:
    mirror = upstream.mirror("keyless")
    mirror.publish(upstream.key, "noble", "amd64", upstream.disk("keyless"))
    site = upstream.site.fork()
    site.worker("--keyring", upstream.folder / "nothing.gpg", kinds="base-image")
    words = ["--arch", "amd64", "--base", "noble", "--cloud", "cloud1", "--mirror", mirror.url, "--name", "keyless"]
    (job,) = site.client.run("base-image", *words).out.split()
    reason = site.client.buried(job)["reason"]
    assert "nothing.gpg" in reason
    assert "--keyring" in reason


def test_several_releases_make_a_job_each(upstream: Upstream) -> None:
    client = upstream.site.fork().client
    words = ["--arch", "s390x", "--base", "noble,24.04,jammy", "--cloud", "cloud1,cloud2"]
    jobs = client.json("base-image", *words)["jobs"]
    assert [(job["kind"], job["cloud"]) for job in jobs] == [
        ("base-image", cloud) for cloud in ("cloud1", "cloud1", "cloud2", "cloud2")
    ]
    wrong = client.run("base-image", "--arch", "amd64", "--base", "bionic", "--cloud", "cloud1", code=64)
    assert "noble" in wrong.err
