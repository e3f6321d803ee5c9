"""Everything that chance decides, from one seed: which jobs, which kills at which moments, which faults."""

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from harness.cli import ARCHES

CLOUDS = ("cloud1", "cloud2", "cloud3")
SLOW = {f"slow{number}": f"cloud{number}" for number in (1, 2, 3)}  # the same Glances behind a throttled way
SLOW_BYTES_PER_SECOND = 40_000
KEEP_MANY, KEEP_FEW = 99, 2


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    jobs: int = 300
    worker_kills: int = 60
    broker_kills: int = 10
    cuts: int = 40
    faults: int = 60
    workers: int = 4
    slow: int = 20  # of the jobs; each takes more than the 20 s after which a worker hands a transfer over
    spoilt: int = 3  # messages that no worker can do, which must be buried
    in_flight: int = 24  # jobs enqueued and not yet ended
    deadline: float = 600.0  # seconds from the last kill until every job has ended


SHORT = Sizes(jobs=40, worker_kills=8, broker_kills=2, cuts=5, faults=8, slow=2, spoilt=1, in_flight=16, deadline=300)


class Moment(Enum):
    """States in which a worker is killed, each observed before."""

    TAKEN = "the broker has just given it a job"
    STARTED = "its log has just said that a job started"
    CREATED = "it has just asked a cloud to create an image"
    SAVING = "a cloud is receiving an image from it"
    CHANGED = "it has just changed an image (the digest, or a sign of life)"
    DELETING = "it has just asked a cloud to delete an image"
    SAID = "it has just written to the log of the jobs"
    PUT_BACK = "it has just put a job on the ladder"
    ACKNOWLEDGED = "it has just acknowledged a job"
    REQUESTS = "it has sent some more requests to clouds"


@dataclass(frozen=True)
class WorkerKill:
    slots: tuple[int, ...]  # the first is watched, all are killed
    moment: Moment
    requests: int


@dataclass(frozen=True)
class BrokerKill:
    node: int | None  # none: the one that writes the log of the jobs
    after: int  # deliveries to workers since the cluster was last whole
    away: int  # deliveries to workers by the other nodes before it comes back


class Ill(Enum):
    """What happens between a worker and a server."""

    CUT_BROKER = "connections to a broker are reset"
    CUT_CLOUD = "connections to a cloud are reset"
    ANSWER = "a cloud answers 5xx"
    STALL = "a cloud does not answer"
    LOSE = "a cloud does what is asked, and its answer is lost"
    FREEZE = "a transfer stops, and the cloud does not notice"


@dataclass(frozen=True)
class Fault:
    ill: Ill
    slot: int
    place: int  # a number for the node or the cloud
    method: str
    path: str
    status: int
    after: int  # deliveries to this worker since the last fault


@dataclass(frozen=True)
class Order:
    """One job to enqueue."""

    id: str
    lane: str
    spec: dict[str, Any]
    asked_at: str
    copies: int = 1
    spoilt: bool = False

    def message(self) -> dict[str, Any]:
        return {"version": 1, "id": self.id, "asked_at": self.asked_at, "spec": self.spec}

    @property
    def series(self) -> tuple[str, str, str]:
        """What retention counts an upload's image by: name, architecture and Glance."""
        cloud = str(self.spec["cloud"])
        return self.spec["name"], self.spec["arch"], SLOW.get(cloud, cloud)


@dataclass
class Plan:
    seed: int
    sizes: Sizes
    files: list[str]
    slow_file: str
    nodes: int = 3
    worker_kills: list[WorkerKill] = field(init=False)
    broker_kills: list[BrokerKill] = field(init=False)
    faults: list[Fault] = field(init=False)

    def __post_init__(self) -> None:
        self.worker_kills = [self._worker_kill(self._dice(f"worker {n}")) for n in range(self.sizes.worker_kills)]
        self.broker_kills = [self._broker_kill(self._dice(f"broker {n}")) for n in range(self.sizes.broker_kills)]
        ills = [Ill.CUT_BROKER, Ill.CUT_CLOUD] * self.sizes.cuts
        others = [Ill.ANSWER, Ill.ANSWER, Ill.LOSE, Ill.STALL, Ill.FREEZE] * self.sizes.faults
        chosen = ills[: self.sizes.cuts] + others[: self.sizes.faults]
        self._dice("order of faults").shuffle(chosen)
        self.faults = [self._fault(ill, self._dice(f"fault {n}")) for n, ill in enumerate(chosen)]

    def _dice(self, purpose: str) -> random.Random:
        return random.Random(f"{self.seed}/{purpose}")

    def _worker_kill(self, dice: random.Random) -> WorkerKill:
        slots = dice.sample(range(self.sizes.workers), 2 if dice.random() < 0.15 else 1)
        return WorkerKill(tuple(slots), dice.choice(list(Moment)), dice.randint(1, 25))

    def _broker_kill(self, dice: random.Random) -> BrokerKill:
        node = dice.randrange(self.nodes) if dice.random() < 0.5 else None
        return BrokerKill(node, dice.randint(1, 20), dice.randint(1, 20))

    def _fault(self, ill: Ill, dice: random.Random) -> Fault:
        image = "/v2/images/[0-9a-f-]{36}$"
        asked = [("GET", image), ("GET", r"/v2/images\?"), ("PATCH", image), ("DELETE", image), ("POST", "/v2/images$")]
        method, path = dice.choice([*asked, ("PUT", "/file$"), ("PUT", "/file$")])
        if ill is Ill.FREEZE:
            method, path = "PUT", "/file$"
        status = dice.choice((500, 502, 503, 504))
        slot, place = dice.randrange(self.sizes.workers), dice.randrange(60)
        return Fault(ill, slot, place, method, path, status, dice.randint(1, 6))

    def orders(self) -> Iterator[Order]:
        """The jobs in the order of enqueueing, more than enough of them; the special ones come early."""
        dice = self._dice("jobs")
        sizes = self.sizes
        places = dice.sample(range(sizes.jobs * 2 // 3), sizes.slow + sizes.spoilt)
        slow, spoilt = set(places[: sizes.slow]), set(places[sizes.slow :])
        # Asked for at different moments of the last hour, and not in the order of enqueueing.
        first = datetime.now(UTC) - timedelta(hours=1)
        number = 0
        while True:
            asked = first + timedelta(milliseconds=number * 100 + dice.randint(-2000, 2000) // 100 * 100 + number)
            at = asked.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            if number in slow:
                yield self._slow(dice, at)
            elif number in spoilt:
                order = self._upload(dice, at)
                yield replace(order, spec={**order.spec, "keep": 0}, spoilt=True, copies=1)
            else:
                yield self._upload(dice, at) if dice.random() < 0.85 else self._prune(dice, at)
            number += 1

    def _upload(self, dice: random.Random, at: str) -> Order:
        arch, cloud = dice.choice(ARCHES), dice.choice(CLOUDS)
        if dice.random() < 0.4:
            # Few names, so that several jobs make revisions of one.
            arch = dice.choice(ARCHES[:2])
            name, keep = f"few-{dice.randrange(2)}", KEEP_FEW
        else:
            name, keep = f"many-{dice.randrange(6)}", KEEP_MANY
        spec = {"kind": "upload", "name": name, "arch": arch, "cloud": cloud, "keep": keep}
        spec["source"] = {"file": dice.choice(self.files)}
        return Order(_id(dice), f"upload.{arch}", spec, at, copies=2 if dice.random() < 0.15 else 1)

    def _slow(self, dice: random.Random, at: str) -> Order:
        arch, cloud = dice.choice(ARCHES), dice.choice(sorted(SLOW))
        spec = {"kind": "upload", "name": "slow", "arch": arch, "cloud": cloud, "keep": KEEP_MANY}
        spec["source"] = {"file": self.slow_file}
        return Order(_id(dice), f"upload.{arch}", spec, at)

    def _prune(self, dice: random.Random, at: str) -> Order:
        few = dice.random() < 0.6
        name = f"few-{dice.randrange(2)}" if few else f"many-{dice.randrange(6)}"
        spec = {"kind": "prune", "name": name, "cloud": dice.choice(CLOUDS), "keep": KEEP_FEW if few else KEEP_MANY}
        return Order(_id(dice), "prune.any", spec, at, copies=2 if dice.random() < 0.15 else 1)


def _id(dice: random.Random) -> str:
    return str(uuid.UUID(int=dice.getrandbits(128), version=4))
