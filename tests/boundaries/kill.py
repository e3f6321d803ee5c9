"""One job, whose worker is killed at one moment; a second worker then has to bring everything to the same end."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from boundaries.cases import Ask, Case
from boundaries.servers import AskFake, Ground
from harness.boundary import FrameBoundary, RequestBoundary
from harness.cli import ENDED, Client, Worker
from harness.process import LOOPBACK, wait_for
from harness.rabbitmq import Broker
from harness.site import Site

AT_ONCE = 6  # most of the time is waiting
REACH_SECONDS = 200.0
Boundary = RequestBoundary | FrameBoundary


@dataclass(frozen=True)
class Moment:
    """The `number`-th request to cloud1, or publish or acknowledgement to the broker; 0 is never."""

    where: str  # "cloud" or "broker"
    number: int
    done: bool  # by the server, whose answer does not come

    def __str__(self) -> str:
        return f"{self.where} {self.number} {'done, unanswered' if self.done else 'not done'}"


@dataclass(frozen=True)
class Trial:
    """One job where nobody else works."""

    client: Client
    start: Callable[[Boundary | None], Worker]  # a worker, behind a boundary or not
    job: str
    check: Callable[[], None]  # waits for the end, and insists on it
    release: Callable[[], None] = lambda: None  # all is as before, but for images of other names


@dataclass(frozen=True)
class Rig:
    """Where jobs of one kind run."""

    label: str
    boundary: Callable[[Moment], Boundary]
    begin: Callable[[Boundary], Trial]

    def counted(self, where: str) -> int:
        """How many moments a run has in which nobody is killed."""
        boundary, reached = self.run(Moment(where, 0, done=False))
        assert not reached
        return len(boundary.frames if isinstance(boundary, FrameBoundary) else boundary.requests)

    def run(self, moment: Moment) -> tuple[Boundary, bool]:
        """Insists on the end; whether the moment came."""
        with self.boundary(moment) as boundary:
            trial = self.begin(boundary)
            workers = [trial.start(boundary)]
            try:
                reached = boundary.wait_reached(lambda: _is_over(trial), REACH_SECONDS)
                if reached:
                    workers[0].kill9()
                    workers.append(trial.start(None))
                trial.check()
                _alike(trial)
                wait_for("nothing is on the lanes", lambda: not _lies(trial), 30)
            except BaseException as error:
                error.add_note("\n".join([str(moment), *(worker.tail(60) for worker in workers)]))
                raise
            finally:
                for worker in workers:
                    worker.kill9()
            trial.release()
            return boundary, reached


def site_rig(site: Site, ask: Ask, words: Sequence[str | Path] = ()) -> Rig:
    """Jobs on real clouds."""

    def boundary(moment: Moment) -> Boundary:
        return _boundary(moment, site.stack.cloud("cloud1").port, site.broker)

    # A namespace is some eighty queues: as many as are in use at once.
    spare: list[Site] = []
    numbers = itertools.count(1)

    def begin(boundary: Boundary) -> Trial:
        try:
            lone = spare.pop()
        except IndexError:
            lone = site.fork()
        endpoint = {"image_endpoint_override": boundary.url} if isinstance(boundary, RequestBoundary) else {}
        number = next(numbers)
        lone.client.clouds_yaml = site.stack.write_clouds(lone.folder / f"clouds-{number}.yaml", {"cloud1": endpoint})
        job, check = ask(Case(lone, f"adopt-{lone.namespace}-{number}"))
        start = partial(_behind, lone.client, lambda: lone.worker(*words))
        return Trial(lone.client, start, job, check, lambda: spare.append(lone))

    return Rig(site.backend, boundary, begin)


def fake_rig(ground: Ground, ask: AskFake) -> Rig:
    """Jobs with servers, on a cloud of recorded answers."""

    def boundary(moment: Moment) -> Boundary:
        return _boundary(moment, ground.cloud.port, ground.broker)

    spare: list[str] = []

    def begin(boundary: Boundary) -> Trial:
        url = boundary.url if isinstance(boundary, RequestBoundary) else ground.cloud.url
        try:
            client = ground.client(url, spare.pop())
        except IndexError:
            client = ground.client(url, None)
        job, check = ask(ground, client)
        start = partial(_behind, client, lambda: client.worker(*ground.words))
        return Trial(client, start, job, check, lambda: spare.append(client.namespace))

    return Rig("rabbitmq" if ground.broker else "sqlite", boundary, begin)


def _behind(client: Client, start: Callable[[], Worker], boundary: Boundary | None) -> Worker:
    direct = client.queue
    if isinstance(boundary, FrameBoundary):
        client.queue = f"amqp://guest:guest@{LOOPBACK}:{boundary.port}"
    try:
        return start()
    finally:
        client.queue = direct


def everywhere(rig: Rig, where: str, numbers: Callable[[int], Iterator[int]] | None = None) -> int:
    """Kills at every moment there is, or at those that `numbers` picks; how many there were in a run without a kill."""
    count = rig.counted(where)
    print(f"{rig.label}: {count} moments between worker and {where}")
    picked = list(numbers(count)) if numbers else list(range(1, count + 1))
    moments = [Moment(where, number, done) for number in picked for done in (False, True)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        came = list(pool.map(lambda moment: rig.run(moment)[1], moments))
    # What a run does varies by a request or two, by who looks when: the last two of a longer run may not come.
    missed = [moment for moment, one in zip(moments, came, strict=True) if not one]
    assert all(moment.number > count - 2 for moment in missed), [str(moment) for moment in missed]
    return count


def _boundary(moment: Moment, cloud_port: int, broker: Broker | None) -> Boundary:
    if moment.where == "cloud":
        return RequestBoundary(cloud_port, moment.number, moment.done)
    assert broker is not None
    return FrameBoundary(broker.nodes[0].port, moment.number, moment.done)


def _is_over(trial: Trial) -> bool:
    """The job and its children have ended, and nothing of them is on the queue."""
    entry = trial.client.status(trial.job)
    all_of_it = [entry, *(trial.client.status(child) for child in entry["children"])]
    return all(one["state"] in ENDED for one in all_of_it) and not _lies(trial)


def _lies(trial: Trial) -> list[dict[str, object]]:
    return [one for one in trial.client.json("queues") if one["ready"] and not str(one["queue"]).endswith("log")]


def _alike(trial: Trial) -> None:
    """However often the end was said, it was said alike, and nothing was given up."""
    told = [entry["event"] for entry in trial.client.json("log", trial.job) if entry["event"] in ENDED]
    assert set(told) == {"succeeded"}, told
    assert trial.client.dead() == {}
