"""The store as a library, without a queue: `upload_image` and `get_latest_build_id` through a small example program."""

import json
import os
import subprocess
from pathlib import Path

from harness import images
from harness.cli import program
from harness.openstack import OpenStack
from harness.oracle import Images


def upload_image(clouds: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(clouds)}
    command = [program("examples/upload_image"), *map(str, words)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_library_uploads_verifies_prunes_and_finds_the_latest(stack: OpenStack, tmp_path: Path) -> None:
    clouds = stack.write_clouds(tmp_path / "clouds.yaml", {})
    cloud = Images(stack.connect("cloud1"))
    made = []
    for number in range(3):
        disk = images.qcow2(tmp_path / f"{number}.qcow2", os.urandom(200_000))
        done = upload_image(clouds, "ppc64le", "cloud1", "by-library", disk, "2")
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        image = cloud.get(said["id"])
        assert image is not None
        assert image["status"] == "active"
        assert image["architecture"] == "ppc64le"
        assert image["os_hash_value"] == image["imagewright_verified"] == said["os_hash_value"] == images.sha512(disk)
        assert said["latest"] == said["id"]
        made.append(said["id"])
    assert [one["id"] for one in cloud.active("by-library")] == made[1:]


def test_an_upload_error_names_what_is_wrong_and_leaves_nothing(stack: OpenStack, tmp_path: Path) -> None:
    clouds = stack.write_clouds(tmp_path / "clouds.yaml", {})
    empty = tmp_path / "empty.img"
    empty.touch()
    for words, expected in (
        (("amd64", "cloud1", "by-library-bad", empty, "2"), "empty"),
        (("amd64", "cloud9", "by-library-bad", empty, "2"), "cloud9"),
        (("amd64", "cloud1", "by-library-bad", tmp_path / "missing.img", "2"), "no such file"),
    ):
        done = upload_image(clouds, *words)
        assert done.returncode != 0
        assert expected in done.stderr
    assert not Images(stack.connect("cloud1")).named("by-library-bad")
