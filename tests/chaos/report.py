"""The figures of a run, as a table for people; and the same in the documentation."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.evidence import Story
from chaos.faults import CUTS
from chaos.plan import Ill, Moment
from chaos.verdict import Stories
from chaos.wire import Delivery

_BEGIN, _END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass(frozen=True)
class Report:
    seed: int
    jobs: int
    children: int
    workers: str
    worker_kills: int
    moments: Counter[Moment]
    broker_kills: int
    away: Sequence[float]
    cuts: Counter[Ill]
    faults: Counter[Ill]
    redeliveries: int
    copies: int
    suppressed: int
    ended_again: int
    carried: int
    lost: int
    seconds: float

    def rows(self) -> list[tuple[str, str]]:
        moments = ", ".join(f"{count} {moment.name.lower().replace('_', ' ')}" for moment, count in self._moments())
        away = f"; whole again after {min(self.away):.0f} to {max(self.away):.0f} s" if self.away else ""
        faults = ", ".join(f"{self.faults[ill]} {ill.name.lower()}" for ill in Ill if ill not in CUTS)
        cuts = f"{self.cuts[Ill.CUT_BROKER]} to brokers, {self.cuts[Ill.CUT_CLOUD]} to clouds"
        return [
            ("jobs enqueued, and children of theirs", f"{self.jobs} + {self.children}"),
            ("workers", self.workers),
            ("workers killed (kill -9)", f"{self.worker_kills}: {moments}"),
            ("broker nodes killed (kill -9)", f"{self.broker_kills}{away}"),
            ("all connections of a worker cut", f"{sum(self.cuts.values())}: {cuts}"),
            ("faults met by requests to clouds", f"{sum(self.faults.values())}: {faults}"),
            ("redeliveries", str(self.redeliveries)),
            ("jobs enqueued a second time", str(self.copies)),
            ("duplicates suppressed", str(self.suppressed)),
            ("ends said again, and ignored", str(self.ended_again)),
            ("deliveries that carried a field of the later version", str(self.carried)),
            ("lost", str(self.lost)),
            ("time", f"{self.seconds:.0f} s"),
        ]

    def _moments(self) -> list[tuple[Moment, int]]:
        return [(moment, self.moments[moment]) for moment in Moment if self.moments[moment]]

    def table(self) -> str:
        rows = [("seed", str(self.seed)), *self.rows()]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def write_into(self, page: Path, command: str) -> None:
        """Replaces what stands between the two marks of the page."""
        rows = [f"`{command}`", "", "| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in self.rows())]
        text = "\n".join([_BEGIN, *rows, _END])
        page.write_text(re.sub(f"{_BEGIN}.*{_END}", lambda _: text, page.read_text(), flags=re.DOTALL))


def suppressed(deliveries: Sequence[Delivery], stories: Stories) -> int:
    """Deliveries of jobs that had ended, by the log, when a worker got them: there was nothing left to be done."""
    ends = {job: ended for (job, _), story in stories.items() if (ended := story.ended_at()) is not None}
    return sum(1 for one in deliveries if one.job in ends and one.at > ends[one.job])


def ended_again(stories: Stories) -> int:
    def again(story: Story) -> int:
        return max(0, len(story.ends) - 1)

    return sum(again(story) for story in stories.values())
