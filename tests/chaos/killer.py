"""Kills workers and brokers, each at a moment that was observed."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from chaos import cluster
from chaos.plan import BrokerKill, Moment, WorkerKill
from chaos.slots import Slot
from chaos.wire import Wire
from harness.process import DeadlinePassed, wait_for
from harness.rabbitmq import Broker

_SHARP = 0.004  # seconds between looks: a moment is over soon
_PATIENCE = 12.0  # seconds for the planned moment; then the next worker to do anything is killed


class Work(threading.Thread):
    """A thread whose failure ends the run."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.failure: BaseException | None = None
        self.stopping = threading.Event()

    def run(self) -> None:
        try:
            self.work()
        except BaseException as error:
            self.failure = error

    def work(self) -> None:
        raise NotImplementedError


class WorkerKiller(Work):
    """Kills workers as planned, and starts each again at once."""

    def __init__(self, slots: Sequence[Slot], kills: Sequence[WorkerKill]) -> None:
        super().__init__("worker killer")
        self.done = 0
        self.moments: Counter[Moment] = Counter()
        self._slots = slots
        self._kills = kills

    def work(self) -> None:
        for kill in self._kills:
            if self.stopping.is_set():
                return
            self.moments[self._await(kill)] += 1
            for number in kill.slots:
                self._slots[number].kill9()
                self.done += 1
            for number in kill.slots:
                self._slots[number].start()
            if self.done >= len(self._kills):
                return

    def _await(self, kill: WorkerKill) -> Moment:
        slot = self._slots[kill.slots[0]]
        moment = watch(slot, kill.moment, kill.requests)
        try:
            wait_for(f"worker {slot.number}: {kill.moment.value}", moment, _PATIENCE, every=_SHARP)
        except DeadlinePassed:
            anything = watch(slot, Moment.REQUESTS, 1)
            wait_for(f"worker {slot.number} does anything at all", anything, 120, every=_SHARP)
            return Moment.REQUESTS
        return kill.moment


def watch(slot: Slot, moment: Moment, requests: int) -> Callable[[], bool]:
    """A condition that is false now, and true once the moment has come."""
    if moment is Moment.SAVING:
        return slot.is_sending
    counts: dict[Moment, Callable[[], int]] = {
        Moment.TAKEN: lambda: slot.wire.count(slot.number, "delivered"),
        Moment.STARTED: lambda: sum(1 for said in slot.follow() if said["event"] == "started"),
        Moment.CREATED: lambda: slot.requests("POST", "/v2/images$"),
        Moment.CHANGED: lambda: slot.requests("PATCH"),
        Moment.DELETING: lambda: slot.requests("DELETE"),
        Moment.SAID: lambda: slot.wire.count(slot.number, "said"),
        Moment.PUT_BACK: lambda: slot.wire.count(slot.number, "put back"),
        Moment.ACKNOWLEDGED: lambda: slot.wire.count(slot.number, "acknowledged"),
        Moment.REQUESTS: slot.requests,
    }
    count = counts[moment]
    target = count() + (requests if moment is Moment.REQUESTS else 1)

    def has_come() -> bool:
        slot.check_alive()
        return count() >= target

    return has_come


class BrokerKiller(Work):
    """Kills nodes of the cluster one after the other, the next only when the cluster is whole again."""

    def __init__(self, broker: Broker, namespace: str, wire: Wire, kills: Sequence[BrokerKill]) -> None:
        super().__init__("broker killer")
        self.done = 0
        self.away: list[float] = []  # seconds from each kill until the cluster was whole again
        self._broker = broker
        self._namespace = namespace
        self._wire = wire
        self._kills = kills

    def work(self) -> None:
        for kill in self._kills:
            if self.stopping.is_set():
                return
            self._await_deliveries(kill.after, "the cluster is at work", 120)
            log = f"{self._namespace}.log"
            node = cluster.leader(self._broker, log) if kill.node is None else self._broker.nodes[kill.node]
            began = time.monotonic()
            node.kill9()
            self.done += 1
            self._await_deliveries(kill.away, f"work goes on without {node.name}", 180)
            node.launch()
            cluster.wait_whole(self._broker, self._namespace)
            self.away.append(time.monotonic() - began)

    def _await_deliveries(self, count: int, what: str, seconds: float) -> None:
        target = len(self._wire.deliveries) + count
        wait_for(f"{what} ({count} deliveries)", lambda: len(self._wire.deliveries) >= target, seconds)
