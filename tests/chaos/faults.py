"""Cuts connections, and makes clouds answer wrongly, late, or not at all."""

from collections import Counter
from collections.abc import Sequence

from chaos.killer import Work
from chaos.plan import Fault, Ill
from chaos.slots import Slot
from harness import proxy
from harness.process import DeadlinePassed, wait_for

_PATIENCE = 10.0  # seconds to wait for the worker to be at work; an idle one is hurt as well
CUTS = (Ill.CUT_BROKER, Ill.CUT_CLOUD)
HANGS = (Ill.STALL, Ill.FREEZE)


class FaultMaker(Work):
    """Brings the planned faults in turn, each once its worker has taken so many more jobs."""

    def __init__(self, slots: Sequence[Slot], faults: Sequence[Fault]) -> None:
        super().__init__("fault maker")
        self.cuts: Counter[Ill] = Counter()
        self._slots = slots
        self._faults = faults
        self._injected: list[tuple[Ill, proxy.Proxy, proxy.Fault]] = []

    def work(self) -> None:
        for fault in self._faults:
            if self.stopping.is_set():
                return
            slot = self._slots[fault.slot]
            self._await_work(slot, fault.after)
            if fault.ill in CUTS:
                proxies = slot.brokers if fault.ill is Ill.CUT_BROKER else list(slot.clouds.values())
                for one in proxies:
                    one.cut()
                self.cuts[fault.ill] += 1
            else:
                self._inject(slot, fault)

    @staticmethod
    def _await_work(slot: Slot, jobs: int) -> None:
        target = slot.wire.count(slot.number, "delivered") + jobs
        try:
            wait_for("work", lambda: slot.wire.count(slot.number, "delivered") >= target, _PATIENCE)
        except DeadlinePassed:
            return

    def _inject(self, slot: Slot, fault: Fault) -> None:
        place = list(slot.clouds.values())[fault.place % len(slot.clouds)]
        if fault.ill is Ill.ANSWER:
            made = place.fail(fault.method, fault.path, fault.status)
        elif fault.ill is Ill.STALL:
            made = place.stall(fault.method, fault.path)
        elif fault.ill is Ill.LOSE:
            made = place.lose_answer(fault.method, fault.path)
        else:
            made = place.freeze_next(fault.method, fault.path)
        self._injected.append((fault.ill, place, made))

    def heal(self) -> None:
        """No more faults; what hangs is cut, so that it is tried again."""
        for slot in self._slots:
            for place in slot.clouds.values():
                place.forget()
        for place in {place for ill, place, fault in self._injected if ill in HANGS and fault.met}:
            place.cut()

    def met(self) -> Counter[Ill]:
        """The faults that a request has really met."""
        met: Counter[Ill] = Counter()
        for ill, _, fault in self._injected:
            met[ill] += fault.met
        return met
