"""A server that was stopped for its snapshot runs again, however the job ends."""

import pytest

from fakes.cloud import FakeCloud
from fakes.faults import Fate
from fakes.site import Builder
from fakes.state import BASE, FLAVOR, NETWORK, Server
from harness.process import wait_for

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("snapshot")]


def _running(cloud: FakeCloud, name: str) -> Server:
    with cloud.connect() as connection:
        image = connection.image.find_image(BASE, ignore_missing=False)
        flavor = connection.compute.find_flavor(FLAVOR, ignore_missing=False)
        network = connection.network.find_network(NETWORK, ignore_missing=False)
        connection.compute.create_server(
            name=name, image_id=image.id, flavor_id=flavor.id, networks=[{"uuid": network.id}]
        )
    (server,) = cloud.servers(name)
    _wait_up(server)
    return server


def _wait_up(server: Server) -> None:
    wait_for("the server is up", lambda: (server.status, server.task) == ("ACTIVE", None), 60)


def _snapshot(builder: Builder, server: Server, *more: str) -> str:
    """The job, enqueued."""
    words = ["--name", f"image-of-{server.name}", "--arch", "amd64", "--cloud", "fake", "--server", server.name]
    return builder.client.run("snapshot", *words, "--stop", "--keep", "1", *more).out.strip()


def test_cancelled_while_the_server_goes_off(builder: Builder) -> None:
    """Nova calls it ACTIVE until it is off, and refuses to start it."""
    server = _running(builder.cloud, "going-off")
    with builder.cloud.held():
        job = _snapshot(builder, server)
        wait_for("it goes off", lambda: server.task == "powering-off", 60)
        builder.client.run("cancel", job)
        wait_for("it is waited for", lambda: "cannot be removed yet" in builder.told(job), 60, every=0.3)
    assert builder.client.ended(job, 90)["state"] == "cancelled"
    _wait_up(server)
    assert builder.images("image-of-going-off") == []


def test_given_up_while_nova_reads_the_disk(builder: Builder) -> None:
    """Nova refuses to start it meanwhile, so the job has not ended yet."""
    builder.cloud.faults.server("^being-read$", Fate(snapshot="busy"))
    server = _running(builder.cloud, "being-read")
    job = _snapshot(builder, server, "--deadline", "15s")
    wait_for("it is waited for", lambda: "is to be started again first" in builder.told(job), 90, every=0.3)
    assert server.status == "SHUTOFF"
    assert builder.client.status(job)["state"] == "waiting"
    server.guest.fate = Fate()
    assert builder.client.buried(job, 90)["field"] == "deadline"
    _wait_up(server)
    assert builder.images("image-of-being-read") == []
