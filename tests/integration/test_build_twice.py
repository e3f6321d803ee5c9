"""A build's message may come twice, when a worker dies between sending the next step and giving back the one before.

Both copies then go on, one of them late: there is one image, and whoever comes last says the same.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fakes.cloud import FakeCloud
from fakes.faults import Fate
from fakes.site import Builder
from harness.cli import ENDED
from harness.https import FileServer
from harness.process import wait_for
from harness.proxy import Proxy

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("builds")]

# What a build knows in each step, by the names of the message's `progress.state`.
PLAN = ("plan",)
SERVER = (*PLAN, "server")
KNOWN = {
    "plan": (),
    "access": PLAN,
    "boot": PLAN,
    "active": SERVER,
    "login": SERVER,
    "cloud-init": SERVER,
    "script": SERVER,
    "clean": (*SERVER, "provisioned"),
}
ROW = "namespace, tap, id, payload, attempt, crashes, detached, first_at, last_error"


@pytest.fixture(scope="module")
def cloud() -> Iterator[FakeCloud]:
    made = FakeCloud()
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def proxy(cloud: FakeCloud) -> Iterator[Proxy]:
    with Proxy(cloud.port) as made:
        yield made


@pytest.fixture(scope="module")
def builder(
    tmp_path_factory: pytest.TempPathFactory, files: FileServer, cloud: FakeCloud, proxy: Proxy
) -> Iterator[Builder]:
    made = Builder(tmp_path_factory.mktemp("twice"), files, cloud, url=proxy.url)
    yield made
    made.stop()


class Copies:
    """Copies of a job's message as they were in earlier steps."""

    def __init__(self, path: Path, job: str) -> None:
        self._path = path
        with closing(sqlite3.connect(path, timeout=30)) as database:
            found = database.execute(f"SELECT {ROW} FROM jobs WHERE id = ?", [job]).fetchone()
        self._row: list[Any] = list(found)
        self._message: dict[str, Any] = json.loads(self._row[3])

    def put_back(self, step: str) -> Callable[[], bool]:
        """Puts the message onto its lane as it was in `step`; tells whether its first step from there was done."""
        state = self._message["progress"]["state"]
        kept = {name: state[name] for name in KNOWN[step]}
        blank = {**dict.fromkeys(state), "children": [], "offset": 0, "provisioned": False, "cleaning": False}
        then = {**blank, "asked": 0, **kept, "phase": step, "since": state["since"]}
        self._row[3] = json.dumps({**self._message, "progress": {**self._message["progress"], "state": then}}).encode()
        places = ", ".join("?" * len(self._row))
        with closing(sqlite3.connect(self._path, timeout=30)) as database, database:
            place = database.execute(f"INSERT INTO jobs ({ROW}) VALUES ({places})", self._row).lastrowid

        def is_done() -> bool:
            with closing(sqlite3.connect(self._path, timeout=30)) as database:
                return not database.execute("SELECT 1 FROM jobs WHERE seq = ?", [place]).fetchall()

        return is_done


def _at_their_images(builder: Builder, name: str) -> dict[str, tuple[str, Copies]]:
    """A build for each step, all at once: their images are being made, for as long as their servers are not let go."""
    builder.cloud.faults.server(f"^{name}-", Fate(snapshot="busy"))
    jobs = {step: builder.build(f"{name}-{step}") for step in KNOWN}
    busy = "the server is still image_uploading"
    path = builder.client.folder / "queue.db"
    found: dict[str, tuple[str, Copies]] = {}
    for step, job in jobs.items():
        wait_for("its image is made", lambda job=job: busy in builder.told(job), 120, every=0.2)
        found[step] = job, wait_for("its message waits", lambda job=job: Copies(path, job), 30, every=0.05)
    return found


def _let_go(builder: Builder, name: str) -> None:
    for server in builder.cloud.servers(f"{name}-"):
        server.guest.fate = Fate()


def _ends_said(builder: Builder, job: str) -> list[str]:
    return [entry["event"] for entry in builder.client.json("log", job) if entry["event"] in ENDED]


def _is_queue_empty(builder: Builder) -> bool:
    path = builder.client.folder / "queue.db"
    with closing(sqlite3.connect(path, timeout=30)) as database:
        return not database.execute("SELECT 1 FROM jobs").fetchall()


def _has_ended_alike(builder: Builder, name: str, job: str) -> None:
    """Two that were at work at once both say it, unless one has heard the other."""
    assert set(_ends_said(builder, job)) == {"succeeded"}
    (image,) = builder.images(name)
    assert image["imagewright_verified"] == image["os_hash_value"]
    assert builder.client.dead() == {}
    assert builder.left(name) == []


def test_copies_that_are_behind_while_the_image_is_made(builder: Builder) -> None:
    builds = _at_their_images(builder, "behind")
    done = {step: copies.put_back(step) for step, (_, copies) in builds.items()}
    for step, is_done in done.items():
        wait_for(f"the copy is past {step}", is_done, 60)
    _let_go(builder, "behind")
    wait_for("all copies are done with", lambda: _is_queue_empty(builder), 150, every=0.3)
    for step, (job, _) in builds.items():
        _has_ended_alike(builder, f"behind-{step}", job)


def _ended_before(builder: Builder, name: str) -> dict[str, tuple[str, Copies]]:
    """A build for each step, all of which have ended well."""
    builds = _at_their_images(builder, name)
    _let_go(builder, name)
    for job, _ in builds.values():
        builder.client.tree_ended(job, 100)
    return builds


def test_copies_that_come_after_the_end(builder: Builder) -> None:
    builds = _ended_before(builder, "late")
    for step, (_, copies) in builds.items():
        copies.put_back(step)
    wait_for("all copies are done with", lambda: _is_queue_empty(builder), 120, every=0.3)
    for step, (job, _) in builds.items():
        _has_ended_alike(builder, f"late-{step}", job)
        assert len(_ends_said(builder, job)) == 1


def test_copies_that_come_after_the_image_was_pruned(builder: Builder) -> None:
    """By a worker that was not there when the builds ended, too."""
    builds = _ended_before(builder, "pruned")
    images = builder.cloud.connect().image
    for step in builds:
        (image,) = builder.images(f"pruned-{step}")
        images.delete_image(image["id"])
    builder.replace_worker()
    for step, (_, copies) in builds.items():
        copies.put_back(step)
    wait_for("all copies are done with", lambda: _is_queue_empty(builder), 120, every=0.3)
    for step, (job, _) in builds.items():
        name = f"pruned-{step}"
        assert (_ends_said(builder, job), builder.images(name)) == (["succeeded"], [])
        assert builder.left(name) == []
    assert builder.client.dead() == {}


def test_of_two_servers_that_are_asked_for_at_once_one_is_the_builder(
    builder: Builder, cloud: FakeCloud, proxy: Proxy
) -> None:
    first, second = (proxy.hold("POST", "/v2.1/servers$") for _ in range(2))
    job = builder.build("both")
    first.wait_met()
    Copies(builder.client.folder / "queue.db", job).put_back("boot")
    second.wait_met()
    second.let_go()
    first.let_go()
    wait_for("both servers are there", lambda: len(cloud.servers("both-")) == 2, 30, every=0.05)
    wait_for("both copies are done with", lambda: _is_queue_empty(builder), 120, every=0.3)
    _has_ended_alike(builder, "both", job)
