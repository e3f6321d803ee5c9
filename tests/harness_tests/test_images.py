"""The images that the suites upload are what they claim to be."""

from pathlib import Path

import pytest
from requests import HTTPError

from harness import images
from harness.openstack import OpenStack
from harness.oracle import Images


@pytest.mark.parametrize(("data", "holes"), [(0, 0), (1, 0), (128 * 1024, 0), (5 * images.MIB, 3), (70_000, 70_000)])
def test_a_qcow2_of_ours_passes_qemu_img_check(tmp_path: Path, data: int, holes: int) -> None:
    path = images.qcow2(tmp_path / "disk", images.noise(data), holes)
    assert images.qemu_img_check(path) is None
    assert path.stat().st_blocks * 512 < data + 40 * images.CLUSTER


def test_a_big_image_takes_no_space_and_has_its_size(tmp_path: Path) -> None:
    path = images.big_qcow2(tmp_path / "disk", 4 * images.GIB)
    assert 4 * images.GIB < path.stat().st_size < 4 * images.GIB + 30 * images.CLUSTER
    assert path.stat().st_blocks * 512 < images.MIB
    assert images.qemu_img_check(path) is None


@pytest.mark.parametrize("disk_format", images.FORMATS)
def test_glance_accepts_every_format(tmp_path: Path, stack: OpenStack, disk_format: str) -> None:
    path = images.FORMATS[disk_format](tmp_path / "disk")
    cloud = Images(stack.connect("cloud1"))
    made = cloud.add_file(f"format-{disk_format}", path, disk_format=disk_format)
    assert made["status"] == "active"
    assert made["size"] == path.stat().st_size
    assert made["os_hash_value"] == images.sha512(path)
    if disk_format != "raw":
        wrong = cloud.create("wrong", disk_format="qcow2" if disk_format != "qcow2" else "vmdk")
        with pytest.raises(HTTPError, match="415"):
            cloud.put(wrong["id"], path.read_bytes())


@pytest.mark.parametrize("make", [images.qcow2_with_backing_file, images.qcow2_with_data_file])
def test_glance_itself_refuses_a_qcow2_that_is_not_self_contained(tmp_path: Path, stack: OpenStack, make) -> None:  # noqa: ANN001
    cloud = Images(stack.connect("cloud1"))
    made = cloud.create("malformed", disk_format="qcow2")
    with pytest.raises(HTTPError, match="415"):
        cloud.put(made["id"], make(tmp_path / "disk").read_bytes())
