"""A long log costs whoever asks for one job little: what cannot be about it is not read, or not parsed."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from bench.log_size import STORY, fill_stream, stories
from harness.boundary import FrameBoundary
from harness.https import FileServer
from harness.openstack import OpenStack
from harness.process import LOOPBACK
from harness.rabbitmq import Broker
from harness.site import Site

pytestmark = pytest.mark.xdist_group("sqlite")

EVENTS = 20_000
NEWEST = 30_000  # entries of a stream that `status` reads of its own accord
PAGE = 2_000  # lines that are read at once
HOUR_NS = 3600 * 10**9
UNREADABLE = "{}"  # whoever reads such a line says so
COMPLAINT = "an event of the log cannot be read"


@pytest.fixture
def site(stack: OpenStack, files: FileServer, tmp_path: Path) -> Iterator[Site]:
    made = Site(stack, files, None, tmp_path)
    yield made
    made.stop()


def _fill(site: Site, since_ns: int, step_ns: int, line: str = UNREADABLE) -> None:
    rows = ((site.namespace, since_ns + number * step_ns, line) for number in range(EVENTS))
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


def test_what_was_said_later_of_other_jobs_is_not_parsed(site: Site) -> None:
    (job,) = site.client.upload("first", site.qcow2(), wait=False)
    _fill(site, time.time_ns(), 1)
    for command in ("status", "log"):
        done = site.client.run(command, job)
        assert "queued" in done.out
        assert done.err.count(COMPLAINT) == 0
    assert site.client.run("status", "--tree", job).err.count(COMPLAINT) == EVENTS


def test_of_a_job_that_has_succeeded_the_rest_of_the_log_is_not_read(site: Site) -> None:
    site.worker()
    (job,) = site.client.upload("succeeded", site.qcow2())
    _fill(site, time.time_ns(), 1, f'{{"id":"{job}"}}')
    done = site.client.run("status", job)
    assert "succeeded" in done.out
    assert done.err.count(COMPLAINT) <= PAGE


@pytest.fixture
def on_rabbitmq(stack: OpenStack, files: FileServer, broker: Broker, tmp_path: Path) -> Iterator[Site]:
    made = Site(stack, files, broker, tmp_path)
    yield made
    made.stop()


def _stream(broker: Broker, namespace: str, events: int) -> None:
    fill_stream(broker.url, f"{namespace}.log", stories(events, timedelta(hours=1)))


def test_of_a_long_stream_status_reads_the_newest_unless_told_how_far_back(on_rabbitmq: Site, broker: Broker) -> None:
    site = on_rabbitmq
    site.client.run("queues")
    _stream(broker, site.namespace, NEWEST + 10 * STORY)
    (job,) = site.client.upload("after-many", site.qcow2(), wait=False)
    done = site.client.run("status")
    assert job in done.out
    assert "the newest 30000 entries of the log, since 20" in done.err
    assert "--since 24h reads further back" in done.err
    assert "entries of the log" not in site.client.run("status", "--since", "24h").err
    jobs = {entry["id"] for entry in site.client.json("status")}
    all_jobs = {entry["id"] for entry in site.client.json("status", "--since", "24h")}
    assert jobs < all_jobs
    assert job in jobs
    # All of the log, and all but the first stories: a story that was cut in the middle may be among them.
    assert len(all_jobs) == (NEWEST // STORY + 10) * 2 + 1
    assert NEWEST // STORY * 2 - 20 <= len(jobs) <= NEWEST // STORY * 2 + 20


def test_a_stream_is_acknowledged_by_the_thousand(on_rabbitmq: Site, broker: Broker) -> None:
    site = on_rabbitmq
    (job,) = site.client.upload("among-many", site.qcow2(), wait=False)
    _stream(broker, site.namespace, EVENTS)
    with FrameBoundary(broker.nodes[0].port, 0, done=False) as counter:
        site.client.queue = f"amqp://guest:guest@{LOOPBACK}:{counter.port}"
        jobs = {entry["id"] for entry in site.client.json("status")}
        # Each message singly would be as many as there are events.
        assert counter.frames.count("ack") <= EVENTS // 10
    assert job in jobs
    assert len(jobs) == EVENTS // STORY * 2 + 1
