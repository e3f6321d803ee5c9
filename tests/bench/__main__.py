"""`python -m bench` (tox -e bench): measures everything, or the parts that are named, and prints the tables."""

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import log_size, report
from bench.queues import Counts, Queues
from bench.transfers import Sizes, Table, Transfers
from harness.servers import REPO

PAGE = REPO / "docs" / "benchmarks.md"
PLOTS = REPO / "docs" / "benchmarks"
POINTS = PLOTS / "measured.json"


@dataclass
class Part:
    """What one part says: text for the page, points for the model, tables for the plot."""

    text: str
    points: Any = None
    tables: tuple[Table, ...] = ()


def _tables(*tables: Table) -> Part:
    points = {
        table.title: {"size": table.size, "clients": {name: _client(table, name) for name in table.costs}}
        for table in tables
    }
    return Part("\n".join(report.transfer(table) for table in tables), points, tables)


def _client(table: Table, name: str) -> dict[str, list[float]]:
    figures = {what: [getattr(cost, what) for cost in table.costs[name]] for what in ("wall", "cpu", "peak")}
    return {**figures, "servers": list(table.server_cpu.get(name, []))}


def _hashes(it: Transfers) -> Part:
    rates = it.hash_rates()
    return Part(report.hashes(rates), rates)


TRANSFERS: dict[str, Callable[[Transfers], Part]] = {
    "hashes": _hashes,
    "sink": lambda it: _tables(it.sink(tls=False), it.sink(tls=True)),
    "whole": lambda it: _tables(it.worker()),
    "throttled": lambda it: _tables(it.throttled(1), it.throttled(3), it.throttled(8)),
    "glance": lambda it: _tables(it.glance(1)),
    "glances": lambda it: _tables(it.glance(3)),
    "memory": lambda it: _tables(it.memory()),
}


def _publish(it: Queues) -> Part:
    rates = it.publish_rates()
    lines = [f"- {window} unconfirmed at most: {rate.text(0)} a second" for window, rate in rates.items()]
    if it.counts.peers:
        lines.append(f"- Celery, `delay` with confirms: {it.celery_publish_rate().text(0)} a second")
    return Part("\n".join(lines), {str(window): rate.median for window, rate in rates.items()})


def _no_ops(it: Queues) -> Part:
    found = it.no_ops()
    points = {
        name: {"rates": one.rates, "cpu": one.cpu_per_job, "resident": one.resident} for name, one in found.items()
    }
    return Part(report.no_ops(found), points)


def _scale_out(it: Queues) -> Part:
    found = it.scale_out()
    return Part(report.scale_out(found), {str(count): one.rates for count, one in found.items()})


def _backlog(it: Queues) -> Part:
    points = it.backlog()
    PLOTS.mkdir(exist_ok=True)
    report.line(PLOTS / "backlog.png", points)
    return Part(report.backlog(points) + "\n![a backlog](benchmarks/backlog.png)\n", points)


def _worker(it: Queues) -> Part:
    found = it.worker()
    return Part(report.worker(found), dict(found))


def _recovery(it: Queues) -> Part:
    found = it.recovery()
    return Part(report.recovery(found), dict(found))


def _log_size(it: Queues) -> Part:
    found = log_size.measure(it.broker, it.counts.events, it.counts.rounds)
    points = {
        name: {question: [cost.wall for cost in costs] for question, costs in one.costs.items()}
        for name, one in found.items()
    }
    return Part(report.log_size(found), points)


QUEUES: dict[str, Callable[[Queues], Part]] = {
    "publish": _publish,
    "noops": _no_ops,
    "scale-out": _scale_out,
    "backlog": _backlog,
    "worker": _worker,
    "recovery": _recovery,
    "log-size": _log_size,
}


def options(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tox -e bench --", description=__doc__)
    names = [*TRANSFERS, *QUEUES]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--mebibytes", type=int, default=1024, help="size of the image")
    parser.add_argument("--big-mebibytes", type=int, default=8192, help="size of the big image, for memory")
    parser.add_argument("--rate", type=float, default=100e6, help="bytes a second of a throttled cloud")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=1_000_000, help="size of the log")
    parser.add_argument("--no-peers", action="store_true", help="only curl and ours: installs nothing")
    parser.add_argument(
        "--write-docs", action="store_true", help=f"put what was measured into {PAGE.relative_to(REPO)}"
    )
    asked = parser.parse_args(words)
    if unknown := set(asked.parts) - set(names):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return asked


def machine() -> str:
    """What it was measured on, and how busy that was before."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    commit = subprocess.run(
        ["git", "-C", str(REPO), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"{when}, commit {commit.stdout.strip()}, {os.cpu_count()} x {model}, load before {load}"


def measure(asked: argparse.Namespace) -> dict[str, Part]:
    """The parts that were asked for."""
    wanted = asked.parts or [*TRANSFERS, *QUEUES]
    peers = not asked.no_peers
    found: dict[str, Part] = {}
    if any(part in TRANSFERS for part in wanted):
        sizes = Sizes(asked.mebibytes, asked.rounds, asked.big_mebibytes, asked.rate, peers)
        with closing(Transfers(sizes)) as transfers:
            for part in [part for part in TRANSFERS if part in wanted]:
                found[part] = TRANSFERS[part](transfers)
    if any(part in QUEUES for part in wanted):
        counts = Counts(
            asked.jobs, asked.jobs // 2, max(20, asked.jobs // 20), asked.backlog, asked.events, asked.rounds, peers
        )
        with closing(Queues(counts)) as queues:
            for part in [part for part in QUEUES if part in wanted]:
                print(f"  {part}", flush=True)
                found[part] = QUEUES[part](queues)
    return found


def main(words: list[str]) -> int:
    asked = options(words)
    where = machine()
    print(where, flush=True)
    for name, part in measure(asked).items():
        print(part.text, flush=True)
        if not asked.write_docs:
            continue
        PLOTS.mkdir(exist_ok=True)
        text = f"Measured {where}, after `tests/tox -e bench -- {' '.join(words)}`.\n\n{part.text}"
        if part.tables:
            report.bars(PLOTS / f"{name}.png", part.tables)
            text += f"\n![{name}](benchmarks/{name}.png)\n"
        report.put(PAGE, name, text)
        report.put(PAGE, "targets", report.targets(report.save(POINTS, {name: part.points})))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
