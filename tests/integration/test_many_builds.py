"""Many builds at once on one worker: little memory, and none waits for another."""

import json
import os
from pathlib import Path

import pytest
import yaml

from fakes.cloud import FakeCloud
from fakes.state import BASE, FLAVOR
from harness.cli import Client
from harness.process import wait_for

# Two hundred in the environment of tox that is about builds alone.
BUILDS = int(os.environ.get("IMAGEWRIGHT_TEST_BUILDS") or 60)
MEMORY_MAX = 64 * 1024 * 1024


@pytest.mark.timeout(1500)
@pytest.mark.xdist_group("many-builds")
def test_many_builds_at_once_take_little_memory_and_none_waits_for_another(tmp_path: Path) -> None:
    cloud = FakeCloud(pace=1.0)
    cloud.start()
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump({"ssh_from": ["127.0.0.0/8"], "ssh_port": cloud.ssh_port}))
    clouds = cloud.write_clouds(tmp_path / "clouds.yaml")
    client = Client(f"sqlite:{tmp_path / 'queue.db'}", "many", clouds, tmp_path)
    words = ["--arch", "amd64", "--base", f"image:{BASE}", "--cloud", "fake", "--upload-to", "fake", "--flavor", FLAVOR]
    for number in range(BUILDS):
        client.run("build", "--name", f"many-{number}", *words, "--runner-version", "none")
    worker = client.worker("--policy", policy)
    try:
        # No server is ready before every build has asked for its own: nobody waits for another.
        with cloud.held():
            wait_for("every build has a server", lambda: len(cloud.servers()) == BUILDS, 300, every=1)

        def images() -> bool:
            made = list(cloud.state.images.values())
            return len({image["name"] for image in made if "imagewright_verified" in image}) == BUILDS

        wait_for("every build has its image", images, 1200, every=1)
        wait_for("nothing is left", lambda: not cloud.leftovers(), 300, every=1)
        assert worker.peak_memory() < MEMORY_MAX
        assert not json.loads(client.run("dead", "list", "--json").out)
        print(f"{BUILDS} builds: {worker.peak_memory() >> 20} MiB at most")
    finally:
        worker.kill9()
        cloud.stop()
