"""A long log costs whoever asks for one job nothing: what was said before that job was enqueued is not read."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.https import FileServer
from harness.openstack import OpenStack
from harness.site import Site

pytestmark = pytest.mark.xdist_group("sqlite")

EVENTS = 20_000
HOUR_NS = 3600 * 10**9
UNREADABLE = "{}"  # whoever reads such a line says so
COMPLAINT = "an event of the log cannot be read"


@pytest.fixture
def site(stack: OpenStack, files: FileServer, tmp_path: Path) -> Iterator[Site]:
    made = Site(stack, files, None, tmp_path)
    yield made
    made.stop()


def _fill(site: Site, since_ns: int, step_ns: int) -> None:
    rows = ((site.namespace, since_ns + number * step_ns, UNREADABLE) for number in range(EVENTS))
    with contextlib.closing(sqlite3.connect(site.folder / "queue.db", timeout=30)) as database, database:
        database.executemany("INSERT INTO log (namespace, at_ns, passing, event) VALUES (?, ?, 0, ?)", rows)


def test_of_a_log_of_20000_events_only_those_since_the_job_are_read(site: Site) -> None:
    site.client.run("queues")
    _fill(site, time.time_ns() - 20 * HOUR_NS, 3 * 10**9)
    (job,) = site.client.upload("recent", site.qcow2(), wait=False)
    done = site.client.run("status", job)
    assert job in done.out
    assert done.err.count(COMPLAINT) == 0
    everything = site.client.run("status")
    assert job in everything.out
    assert everything.err.count(COMPLAINT) == EVENTS
    assert site.client.run("log", job).err.count(COMPLAINT) == 0
