"""How much is queued, given up and paused, and how many workers there are: for a status and an action."""

import re
from dataclasses import dataclass, field

import ops

import program

ASIDE = re.compile(r"\.(log|wait(\.\d+)?)$")
"""Queues that hold no job which waits for a worker."""


@dataclass
class Counts:
    """Of the whole installation: jobs that wait for a worker, those that were given up, workers, paused kinds."""

    ready: int = 0
    failed: int = 0
    workers: int = 0
    paused: list[str] = field(default_factory=list)


def read() -> Counts:
    """Asks the queue; raises ProgramError if it does not answer."""
    counts = Counts()
    for row in program.call("queues"):
        name = row["queue"]
        if ".pause." in name:
            counts.paused += [name.rpartition(".")[2]] if row["ready"] else []
        elif name.endswith(".dead"):
            counts.failed = row["ready"]
        elif name.endswith(".lost"):
            counts.workers = row["consumers"]  # each worker has one there, whatever it does or may not begin
        elif not ASIDE.search(name):
            counts.ready += row["ready"]
    return counts


def statuses(first: ops.ActiveStatus | None) -> list[ops.StatusBase]:
    """What the leader says of the application; ops shows the most urgent one. `first` is shown beside the counts."""
    try:
        counts = read()
    except program.ProgramError as error:
        return [ops.WaitingStatus(f"the queue does not answer: {error}")]
    found: list[ops.StatusBase] = []
    if counts.paused:
        found.append(ops.MaintenanceStatus(f"paused: {', '.join(counts.paused)}; end it with the resume action"))
    elif counts.ready and counts.workers == 0:
        found.append(ops.WaitingStatus(f"{counts.ready} queued, and no worker takes jobs"))
    words = [first.message] if first else []
    words += [f"{counts.workers} worker(s)", f"{counts.ready} queued"]
    words += [f"{counts.failed} given up: run list-failed"] if counts.failed else []
    return [*found, ops.ActiveStatus(", ".join(words))]
