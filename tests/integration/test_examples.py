"""The programs that the documentation shows, run as a reader would run them."""

import subprocess
import sys

import pytest

from harness import images
from harness.servers import REPO
from harness.site import Site

ENQUEUE = REPO / "docs" / "examples" / "enqueue.py"


@pytest.mark.parametrize("queue", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize("arch", ["amd64", "aarch64"])
def test_the_python_example_enqueues_an_upload(site: Site, arch: str) -> None:
    """Once with an alias, for which there is no lane of that name: the job finds its own."""
    assert site.broker is not None
    site.client.run("queues")
    disk = site.qcow2()
    words = [site.broker.url, site.namespace, f"example-{arch}", arch, "cloud1", str(disk)]
    command = [sys.executable, str(ENQUEUE), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    job = done.stdout.strip()
    site.client.tree_ended(job)
    (image,) = site.cloud().active(f"example-{arch}")
    assert image["imagewright_job"] == job
    assert image["os_hash_value"] == images.sha512(disk)


def test_the_documentation_shows_the_example_as_it_is() -> None:
    assert ENQUEUE.read_text() in (REPO / "docs" / "messages.md").read_text()
