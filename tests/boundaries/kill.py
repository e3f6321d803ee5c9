"""One job, whose worker is killed at one moment; a second worker then has to bring everything to the same end."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from boundaries.cases import Ask, Case
from harness.boundary import FrameBoundary, RequestBoundary
from harness.cli import ENDED, Worker
from harness.process import LOOPBACK, wait_for
from harness.site import Site

AT_ONCE = 6  # most of the time is waiting
REACH_SECONDS = 60.0
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Moment:
    """The `number`-th request to cloud1, or publish or acknowledgement to the broker; 0 is never."""

    where: str  # "cloud" or "broker"
    number: int
    done: bool  # by the server, whose answer does not come

    def __str__(self) -> str:
        return f"{self.where} {self.number} {'done, unanswered' if self.done else 'not done'}"


@dataclass(frozen=True)
class Rig:
    """Where jobs of one kind run."""

    site: Site
    ask: Ask
    words: Sequence[str | Path] = ()
    count: Callable[[], int] = field(default=lambda: next(_numbers))

    def counted(self, where: str) -> int:
        """How many moments a run has in which nobody is killed."""
        boundary, reached = self.run(Moment(where, 0, done=False))
        assert not reached
        return len(boundary.frames if isinstance(boundary, FrameBoundary) else boundary.requests)

    def run(self, moment: Moment) -> tuple[RequestBoundary | FrameBoundary, bool]:
        """Insists on the end; whether the moment came."""
        with _boundary(self.site, moment) as boundary:
            lone = self.site.fork({"cloud1": boundary} if isinstance(boundary, RequestBoundary) else None)
            case = Case(lone, f"adopt-{lone.namespace}")
            job, check = self.ask(case)
            worker = self._worker(lone, boundary)
            try:
                reached = boundary.wait_reached(lambda: _is_over(lone, job), REACH_SECONDS)
                if reached:
                    worker.kill9()
                    worker = self._worker(lone, None)
                check()
                _alike(lone, job)
                wait_for("nothing is on the lanes", lambda: not _lies(lone), 30)
            except BaseException as error:
                error.add_note(f"{moment}\n{lone.logs()}")
                raise
            finally:
                worker.kill9()
            return boundary, reached

    def _worker(self, lone: Site, boundary: RequestBoundary | FrameBoundary | None) -> Worker:
        direct = lone.client.queue
        if isinstance(boundary, FrameBoundary):
            lone.client.queue = f"amqp://guest:guest@{LOOPBACK}:{boundary.port}"
        try:
            return lone.worker(*self.words)
        finally:
            lone.client.queue = direct


def everywhere(rig: Rig, where: str, numbers: Callable[[int], Iterator[int]] | None = None) -> int:
    """Kills at every moment there is, or at those that `numbers` picks; how many there were in a run without a kill."""
    count = rig.counted(where)
    print(f"{rig.site.backend}: {count} moments between worker and {where}")
    picked = list(numbers(count)) if numbers else list(range(1, count + 1))
    moments = [Moment(where, number, done) for number in picked for done in (False, True)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        came = list(pool.map(lambda moment: rig.run(moment)[1], moments))
    # What a run does varies by a request or two, by who looks when; not by more.
    assert sum(came) >= len(moments) - 4, [str(moment) for moment, one in zip(moments, came, strict=True) if not one]
    return count


def _boundary(site: Site, moment: Moment) -> RequestBoundary | FrameBoundary:
    if moment.where == "cloud":
        return RequestBoundary(site.stack.cloud("cloud1").port, moment.number, moment.done)
    assert site.broker is not None
    return FrameBoundary(site.broker.nodes[0].port, moment.number, moment.done)


def _is_over(site: Site, job: str) -> bool:
    """The job and its children have ended, and nothing of them is on the queue."""
    entry = site.client.status(job)
    ended = entry["state"] in ENDED
    return ended and all(site.client.status(child)["state"] in ENDED for child in entry["children"]) and not _lies(site)


def _lies(site: Site) -> list[dict[str, object]]:
    return [one for one in site.client.json("queues") if one["ready"] and not str(one["queue"]).endswith("log")]


def _alike(site: Site, job: str) -> None:
    """However often the end was said, it was said alike, and nothing was given up."""
    told = [entry["event"] for entry in site.client.json("log", job) if entry["event"] in ENDED]
    assert set(told) == {"succeeded"}, told
    assert site.client.dead() == {}
