"""The embedded queue's file in trouble: no room, no writing, damage.

Every program says which file, why, and what to do; what was accepted before is done once the trouble is over.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import images
from harness.cli import ANSWER
from harness.disk import Disk
from harness.https import FileServer
from harness.openstack import OpenStack
from harness.process import wait_for
from harness.proxy import Proxy
from harness.site import Site
from harness.transfers import PUT, SIZE, STEADY, wait_saving

pytestmark = [pytest.mark.xdist_group("sqlite"), pytest.mark.timeout(400)]

UNUSABLE, UNREACHABLE = 64, 69
ROOM = 2 * images.MIB


class Place:
    """An installation whose queue lies on a small disk of its own."""

    def __init__(self, site: Site, disk: Disk) -> None:
        self.site = site
        self.disk = disk
        self.file = disk.folder / "queue.db"
        site.client.queue = f"sqlite:{self.file}"

    def accept(self, name: str) -> str:
        """A job that was accepted, and that nobody has begun; the file alone is now the whole queue."""
        (job,) = self.site.client.upload(name, self.site.qcow2(), wait=False)
        with contextlib.closing(sqlite3.connect(self.file)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return job

    def refused(self, code: int, *told: str) -> None:
        """Each program ends with `code` and with one error, which names the file and says what is told of here."""
        job = "0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55"
        spec = ["--name", "x", "--arch", "amd64", "--cloud", "cloud1", "--file", self.site.qcow2()]
        for words in (["upload", *spec], ["status"], ["status", job], ["dead", "list"], ["cancel", job], ["queues"]):
            done = self.site.client.run(*words, code=code, seconds=ANSWER)
            assert done.out == "", words
            self._is_one_error(done.err, told)
        worker = self.site.worker()
        assert worker.wait(ANSWER) == code, worker.tail(20)
        self._is_one_error(worker.tail(20), told)

    def _is_one_error(self, text: str, told: tuple[str, ...]) -> None:
        (line,) = text.strip().splitlines()
        assert all(word in line for word in (str(self.file), *told)), line
        assert "panicked" not in line

    def does(self, *names: str) -> None:
        """Does all there is; each name has then exactly one image."""
        self.site.drain()
        for name in names:
            assert [one["status"] for one in self.site.cloud().named(name)] == ["active"], name


@pytest.fixture
def place(stack: OpenStack, files: FileServer, tmp_path: Path) -> Iterator[Place]:
    made = Site(stack, files, None, tmp_path)
    with Disk(tmp_path / "disk", ROOM) as disk:
        yield Place(made, disk)
        made.stop()


def test_a_full_disk_is_said_and_what_was_accepted_is_done_once_there_is_room(place: Place) -> None:
    job = place.accept("full-before")
    place.disk.fill()
    place.refused(UNREACHABLE, "free", "space")
    place.disk.make_room()
    after = place.accept("full-after")
    place.does("full-before", "full-after")
    assert [place.site.client.status(one)["state"] for one in (job, after)] == ["succeeded"] * 2


def test_a_disk_that_fills_up_beneath_a_worker_stops_neither_it_nor_its_transfers(
    place: Place, stack: OpenStack
) -> None:
    with Proxy(stack.cloud("cloud1").port) as proxy:
        entry = {**stack.entry("cloud1"), "image_endpoint_override": proxy.url}
        stack.write_clouds(place.site.client.clouds_yaml, {"cloud1": entry})
        place.site.cloud()
        worker = place.site.worker()
        proxy.throttle(STEADY)
        (job,) = place.site.client.upload("fills-up", place.site.qcow2(SIZE), wait=False)
        wait_saving(place.site, "fills-up")
        place.disk.fill()
        wait_for("the worker says it", lambda: "free some space" in worker.tail(200), 60, every=0.2)
        done = place.site.client.try_run("queues", seconds=ANSWER)
        assert done.code in (0, UNREACHABLE), done
        wait_for("the image is there", lambda: place.site.cloud().active("fills-up"), 60, every=0.2)
        place.disk.make_room()
        place.site.client.tree_ended(job, 90)
        assert worker.is_running()
        assert proxy.count("PUT", PUT) == 1
        assert [one["status"] for one in place.site.cloud().named("fills-up")] == ["active"]
        place.site.client.upload("fills-up-after", place.site.qcow2())


def test_a_disk_that_may_only_be_read_is_said_and_loses_nothing(place: Place) -> None:
    job = place.accept("read-only")
    place.disk.read_only()
    place.refused(UNUSABLE, "cannot be written", "write permission")
    place.disk.writable()
    place.does("read-only")
    assert place.site.client.status(job)["state"] == "succeeded"


def test_a_file_that_cannot_be_made_is_said(place: Place) -> None:
    place.disk.read_only()
    place.refused(UNUSABLE, "Read-only file system", "name another file")


@dataclass(frozen=True)
class Damage:
    """What somebody did to the file, and what is said of it."""

    label: str
    harm: Callable[[Path], None]
    told: tuple[str, ...]


def _overwrite_header(file: Path) -> None:
    with file.open("r+b") as there:
        there.write(b"\xa5" * 100)


def _overwrite_first_page(file: Path) -> None:
    with file.open("r+b") as there:
        there.seek(100)
        there.write(b"\xa5" * 3996)


def _cut(file: Path, share: float) -> None:
    with file.open("r+b") as there:
        there.truncate(int(file.stat().st_size * share))


DAMAGES = [
    Damage("header", _overwrite_header, ("not a SQLite database", "name another file")),
    Damage("first-page", _overwrite_first_page, ("damaged", "recover")),
    Damage("cut-in-half", lambda file: _cut(file, 0.5), ("damaged", "recover")),
    Damage("cut-within-a-page", lambda file: _cut(file, 0.37), ("damaged", "recover")),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.label)
def test_a_damaged_file_is_said_left_as_it_is_and_good_again_once_restored(place: Place, damage: Damage) -> None:
    name = f"damaged-{damage.label}"
    job = place.accept(name)
    kept = place.site.folder / "kept.db"
    shutil.copy2(place.file, kept)
    damage.harm(place.file)
    harmed = place.file.read_bytes()
    place.refused(UNUSABLE, *damage.told)
    assert place.file.read_bytes() == harmed
    for beside in place.disk.folder.glob("queue.db-*"):
        beside.unlink()
    shutil.copy2(kept, place.file)
    place.does(name)
    assert place.site.client.status(job)["state"] == "succeeded"
