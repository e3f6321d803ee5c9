"""The main job: from a message to an active, verified, pruned image."""

import re
from pathlib import Path

import pytest

from harness import images
from harness.cli import ARCHES
from harness.oracle import STAMPS
from harness.site import Site

GLANCE_ARCH = {"amd64": "x86_64", "arm64": "aarch64", "s390x": "s390x", "ppc64le": "ppc64le", "armhf": "aarch64"}


@pytest.mark.parametrize("arch", ARCHES)
def test_three_uploads_of_an_arch_leave_the_newest_two_active_and_verified(site: Site, arch: str) -> None:
    name = f"main-{arch}"
    disks = [site.qcow2() for _ in range(3)]
    jobs = [site.client.upload(name, disk, "--property", "os_distro=ubuntu", arch=arch, keep=2)[0] for disk in disks]
    found = site.cloud().named(name)
    assert [one["os_hash_value"] for one in found] == [images.sha512(disk) for disk in disks[1:]]
    for image, job, disk in zip(found, jobs[1:], disks[1:], strict=True):
        assert image["status"] == "active"
        assert image["architecture"] == GLANCE_ARCH[arch]
        assert image["disk_format"] == "qcow2"
        assert image["container_format"] == "bare"
        assert image["visibility"] == "private"
        assert image["os_distro"] == "ubuntu"
        assert image["size"] == disk.stat().st_size
        assert all(image[stamp] for stamp in STAMPS)
        assert image["imagewright_job"] == job
        assert image["imagewright_kind"] == "upload"
        assert image["imagewright_namespace"] == site.namespace
        assert image["imagewright_self"] == image["id"]
        assert image["imagewright_verified"] == image["os_hash_value"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", image["imagewright_asked_at"])
        assert site.client.status(job)["result"]["image_id"] == image["id"]
    assert site.client.latest(name) == found[-1]["id"]
    assert site.client.latest(name, "--arch", arch) == found[-1]["id"]


def test_revisions_are_counted_for_each_arch_by_itself(site: Site) -> None:
    jobs = [
        site.client.upload("one-name", site.qcow2(), arch=arch, keep=1)[0]
        for arch in ("amd64", "arm64", "armhf", "amd64")
    ]
    assert {image["imagewright_job"] for image in site.cloud().active("one-name")} == set(jobs[1:])
    newest = site.client.status(jobs[3])["result"]["image_id"]
    assert site.client.latest("one-name") == newest
    assert site.client.latest("one-name", "--arch", "amd64") == newest
    assert site.client.latest("one-name", "--arch", "armhf") == site.client.status(jobs[2])["result"]["image_id"]


def test_other_spellings_of_an_arch_mean_the_same(site: Site) -> None:
    (job,) = site.client.upload("alias", site.qcow2(), arch="x86_64")
    assert site.client.status(job)["arch"] == "amd64"
    assert site.cloud().active("alias")[0]["architecture"] == "x86_64"


@pytest.mark.parametrize("disk_format", images.FORMATS)
def test_the_disk_format_is_told_from_the_bytes(site: Site, disk_format: str) -> None:
    disk = images.FORMATS[disk_format](site.root / f"{disk_format}.img")
    site.client.upload(f"format-{disk_format}", disk)
    (image,) = site.cloud().active(f"format-{disk_format}")
    assert image["disk_format"] == disk_format


def test_one_command_reaches_three_clouds(site: Site) -> None:
    disk = site.qcow2()
    jobs = site.client.upload("everywhere", disk, cloud="cloud1,cloud2,cloud3")
    for cloud, job in zip(("cloud1", "cloud2", "cloud3"), jobs, strict=True):
        (image,) = site.cloud(cloud).active("everywhere")
        assert image["imagewright_job"] == job
        assert image["os_hash_value"] == images.sha512(disk)
    assert (
        len(
            {
                image["id"]
                for cloud in ("cloud1", "cloud2", "cloud3")
                for image in site.cloud(cloud).active("everywhere")
            }
        )
        == 3
    )


def test_visibility_and_properties_are_as_asked(site: Site) -> None:
    more = ["--visibility", "shared", "--property", "hw_disk_bus=scsi", "--property", "note=a=b"]
    site.client.upload("as-asked", site.qcow2(), *more)
    (image,) = site.cloud().active("as-asked")
    assert image["visibility"] == "shared"
    assert image["hw_disk_bus"] == "scsi"
    assert image["note"] == "a=b"


def test_an_image_by_url_is_fetched_checked_and_uploaded(site: Site) -> None:
    disk = site.qcow2()
    url = site.files.add(f"{site.namespace}-good", disk)
    moved = site.files.redirect(f"/{site.namespace}-moved", url)
    for name, source in (("by-url", url), ("by-redirect", moved)):
        words = ["upload", "--name", name, "--arch", "amd64", "--cloud", "cloud1", "--url", source]
        site.client.run(*words, "--sha256", images.sha256(disk), "--wait")
        (image,) = site.cloud().active(name)
        assert image["os_hash_value"] == images.sha512(disk)
        assert image["disk_format"] == "qcow2"


def test_an_image_goes_from_cloud_to_cloud_without_touching_the_disk(site: Site) -> None:
    size = 48 * images.MIB
    disk = images.qcow2(site.root / "to-copy.qcow2", images.noise(size))
    source = site.cloud("cloud1").add_file("to-copy", disk, disk_format="qcow2")
    lone = site.fork()
    worker = lone.worker()
    before = worker.bytes_written()
    words = ["upload", "--name", "copied", "--arch", "amd64", "--cloud", "cloud2", "--from", f"cloud1:{source['id']}"]
    lone.client.run(*words, "--wait")
    (image,) = lone.cloud("cloud2").active("copied")
    assert image["os_hash_value"] == source["os_hash_value"]
    assert image["disk_format"] == "qcow2"
    assert image["imagewright_verified"] == source["os_hash_value"]
    assert worker.bytes_written() - before < size // 4


def test_the_memory_of_a_worker_does_not_grow_with_the_image(site: Site) -> None:
    lone = site.fork()
    disk = images.big_qcow2(lone.root / "big.qcow2", images.GIB)
    worker = lone.worker()
    (job,) = lone.client.upload("big", disk, seconds=200)
    peak = worker.peak_memory()
    (image,) = lone.cloud().active("big")
    assert image["imagewright_job"] == job
    assert image["size"] == disk.stat().st_size
    assert image["imagewright_verified"] == image["os_hash_value"]
    assert peak < 48 * images.MIB, f"{peak / images.MIB:.1f} MiB"
    lone.cloud().delete(image["id"])


@pytest.mark.parametrize("make", [images.qcow2_with_backing_file, images.qcow2_with_data_file])
def test_a_qcow2_that_needs_another_file_is_refused_before_a_byte_is_sent(site: Site, make) -> None:  # noqa: ANN001
    name = f"refused-{make.__name__.replace('_', '-')}"
    (job,) = site.client.upload(name, make(site.root / f"{name}.img"), code=1)
    assert site.client.buried(job)["field"] == "spec.source.file"
    assert not site.cloud().named(name)


def test_a_file_that_is_not_what_it_is_said_to_be_is_refused(site: Site) -> None:
    (job,) = site.client.upload("lying", images.raw(site.root / "lying.raw"), "--disk-format", "qcow2", code=1)
    assert site.client.buried(job)["reason"]
    assert not site.cloud().named("lying")


def test_an_empty_file_is_refused(site: Site) -> None:
    empty = site.root / "empty.img"
    empty.touch()
    (job,) = site.client.upload("empty", empty, code=1)
    assert site.client.buried(job)["field"] == "spec.source.file"
    assert not site.cloud().named("empty")


def test_a_relative_path_is_a_usage_error(site: Site) -> None:
    words = ["upload", "--name", "relative", "--arch", "amd64", "--cloud", "cloud1", "--file", Path("disk.img")]
    done = site.client.run(*words, code=64)
    assert "disk.img" in done.err
    assert done.out == ""
