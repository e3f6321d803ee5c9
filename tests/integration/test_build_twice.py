"""A build's message may come twice, when a worker dies between sending the next step and giving back the one before.

Both copies then go on, one of them late: there is one image, and whoever comes last says the same.
"""

import json
import sqlite3
from collections.abc import Iterator
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

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("builds")]

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
def builder(tmp_path_factory: pytest.TempPathFactory, files: FileServer) -> Iterator[Builder]:
    cloud = FakeCloud()
    cloud.start()
    made = Builder(tmp_path_factory.mktemp("twice"), files, cloud)
    try:
        yield made
    finally:
        made.stop()
        cloud.stop()


class Copies:
    """Copies of a job's message as they were in earlier steps."""

    def __init__(self, path: Path, job: str) -> None:
        self._path = path
        with closing(sqlite3.connect(path, timeout=30)) as database:
            found = database.execute(f"SELECT {ROW} FROM jobs WHERE id = ?", [job]).fetchone()
        self._row: list[Any] = list(found)
        self._message: dict[str, Any] = json.loads(self._row[3])

    def put_back(self, step: str) -> None:
        """Puts the message onto its lane as it was in `step`, and waits until its first step from there was done."""
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

        wait_for(f"the copy is past {step}", is_done, 60)


def _at_its_image(builder: Builder, name: str) -> tuple[str, Any, Copies]:
    """A build whose image is being made, for as long as its server is not let go: the job, the server, the copies."""
    builder.cloud.faults.server(f"^{name}-", Fate(snapshot="busy"))
    job = builder.build(name)
    wait_for("its image is made", lambda: "the server is still image_uploading" in builder.told(job), 120, every=0.2)
    (server,) = builder.cloud.servers(f"{name}-")
    copies = wait_for("its message waits", lambda: Copies(builder.client.folder / "queue.db", job), 30, every=0.05)
    return job, server, copies


def _has_ended_alike(builder: Builder, name: str, job: str, times: int) -> None:
    def said() -> list[str]:
        return [entry["event"] for entry in builder.client.json("log", job) if entry["event"] in ENDED]

    wait_for(f"its end is said {times} times", lambda: len(said()) == times, 120, every=0.3)
    assert set(said()) == {"succeeded"}
    (image,) = builder.images(name)
    assert image["imagewright_verified"] == image["os_hash_value"]
    assert builder.client.dead() == {}
    assert builder.left(name) == []


@pytest.mark.parametrize("step", KNOWN)
def test_a_copy_that_is_behind_while_the_image_is_made(builder: Builder, step: str) -> None:
    name = f"behind-{step}"
    job, server, copies = _at_its_image(builder, name)
    copies.put_back(step)
    server.guest.fate = Fate()
    _has_ended_alike(builder, name, job, 2)


@pytest.mark.parametrize("step", KNOWN)
def test_a_copy_that_comes_after_the_end(builder: Builder, step: str) -> None:
    name = f"late-{step}"
    job, server, copies = _at_its_image(builder, name)
    server.guest.fate = Fate()
    builder.client.tree_ended(job, 100)
    copies.put_back(step)
    _has_ended_alike(builder, name, job, 2)
