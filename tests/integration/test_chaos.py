"""A short chaos run; `tox -e chaos` is the long one, of the same parts."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import build
from chaos.plan import SHORT
from chaos.run import Chaos
from harness.https import FileServer
from harness.openstack import OpenStack
from harness.rabbitmq import Broker

pytestmark = pytest.mark.xdist_group("chaos")


@pytest.fixture
def cluster() -> Iterator[Broker]:
    """Three nodes of its own: they are killed."""
    started = Broker(3)
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.mark.timeout(1200)
def test_nothing_is_lost_while_workers_brokers_and_connections_die(
    stack: OpenStack, cluster: Broker, files: FileServer, tmp_path: Path
) -> None:
    """Old and new workers share the queue."""
    seed = random.SystemRandom().randrange(1 << 32)
    report = Chaos(stack, cluster, files, tmp_path, seed, SHORT, build.later_worker()).run()
    print(report.table())
    assert report.worker_kills >= SHORT.worker_kills
    assert report.broker_kills == SHORT.broker_kills
    assert report.jobs >= SHORT.jobs
    assert report.redeliveries > 0
    assert report.carried > 0, "no message of a later worker came back"
