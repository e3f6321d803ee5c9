"""Tables and plots of a run, between markers of docs/benchmarks.md."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.log_size import Reading
from bench.measure import Spread
from bench.queues import Rates
from bench.targets import rows
from bench.transfers import Table

MIB = 1 << 20


def put(page: Path, name: str, text: str) -> None:
    """Replaces what stands between the markers of one part."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = page.read_text()
    if begin not in old or end not in old:
        raise ValueError(f"{page.name} has no markers for {name}")
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    page.write_text(pattern.sub(lambda _: f"{begin}\n{text.strip()}\n{end}", old))


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def transfer(table: Table) -> str:
    """Medians with the least and the most; ratios are taken within a round."""
    cells = []
    floors = table.costs[table.floor]
    for name, costs in table.costs.items():
        pairs = [cost.wall / floor.wall for cost, floor in zip(costs, floors, strict=False)]
        server = table.server_cpu.get(name, [])
        cells.append(
            [
                name,
                Spread.of([cost.wall for cost in costs]).text(),
                Spread.of(pairs).text() if table.size else "",
                Spread.of([cost.cpu for cost in costs]).text(),
                f"{Spread.of([cost.peak / MIB for cost in costs]).median:.1f}",
                f"{Spread.of(server).median:.2f}" if server else "",
            ]
        )
    header = ["client", "wall s", f"wall / {table.floor}", "CPU s", "peak MiB", "servers' CPU s"]
    size = f" {table.size / MIB:.0f} MiB, {len(floors)} rounds." if table.size else ""
    return f"### {table.title}\n\n{table.what}{size}\n\n{_rows(header, cells)}\n"


def targets(points: Mapping[str, Any]) -> str:
    return _rows(["target", "limit", "measured", "reached"], rows(dict(points))) + "\n"


def hashes(rates: Mapping[str, float]) -> str:
    cells = [[name, f"{rate / 1e6:.0f}"] for name, rate in sorted(rates.items(), key=lambda pair: -pair[1])]
    return "### SHA-512 on one core\n\n" + _rows(["implementation", "MB/s"], cells) + "\n"


def no_ops(found: Mapping[str, Rates]) -> str:
    cells = [
        [
            name,
            one.spread().text(0),
            f"{1e6 * sum(one.cpu_per_job) / len(one.cpu_per_job):.0f}",
            f"{max(one.resident) / MIB:.1f}",
        ]
        for name, one in found.items()
    ]
    return _rows(["one process", "jobs a second", "CPU µs a job", "resident MiB"], cells) + "\n"


def scale_out(found: Mapping[int, Rates]) -> str:
    cells = [[str(count), one.spread().text(0), f"{max(one.resident) / MIB:.1f}"] for count, one in found.items()]
    return _rows(["processes", "jobs a second, all together", "resident MiB, all together"], cells) + "\n"


def backlog(points: Sequence[tuple[int, float, int]]) -> str:
    cells = [[str(left), f"{rate:.0f}", f"{memory / MIB:.1f}"] for left, rate, memory in points]
    return _rows(["jobs left", "jobs a second", "resident MiB"], cells) + "\n"


def worker(found: Mapping[str, Sequence[float]]) -> str:
    latency = sorted(found["latency"])
    at = lambda part: latency[min(len(latency) - 1, int(part * len(latency)))] * 1000  # noqa: E731
    cells = [
        ["start to ready, on a topology that exists", f"{Spread.of(found['start']).text(3)} s"],
        ["idle, resident", f"{Spread.of([one / MIB for one in found['idle']]).text(1)} MiB"],
        [f"enqueue to start while idle, {len(latency)} jobs", f"p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms"],
    ]
    return _rows(["the worker", ""], cells) + "\n"


def recovery(found: Mapping[str, Sequence[float]]) -> str:
    cells = [
        ["another worker has the job in hand", f"{Spread.of(found['taken']).text()} s"],
        ["it sends the image again", f"{Spread.of(found['sends']).text()} s"],
    ]
    return _rows(["after kill -9 in a transfer", ""], cells) + "\n"


def log_size(found: Mapping[str, Reading]) -> str:
    cells = [
        [
            f"{queue}, `{question}`",
            str(one.events),
            Spread.of([cost.wall for cost in costs]).text(),
            Spread.of([cost.cpu for cost in costs]).text(),
            f"{max(cost.peak for cost in costs) / MIB:.1f}",
        ]
        for queue, one in found.items()
        for question, costs in one.costs.items()
    ]
    return _rows(["question", "events in the log", "wall s", "CPU s", "peak MiB"], cells) + "\n"


def bars(path: Path, tables: Sequence[Table]) -> None:
    """Wall and CPU time of each client, medians, with the least and the most as whiskers."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, rows = plt.subplots(len(tables), 2, figsize=(11, 0.9 + 2.2 * len(tables)), squeeze=False)
    for table, axes in zip(tables, rows, strict=True):
        names = list(table.costs)
        for axis, what in zip(axes, ("wall", "cpu"), strict=True):
            spreads = [Spread.of([getattr(cost, what) for cost in table.costs[name]]) for name in names]
            middles = [one.median for one in spreads]
            whiskers = [[one.median - one.least for one in spreads], [one.most - one.median for one in spreads]]
            colours = [
                "#999999" if name == table.floor else "#cc7722" if _is_ours(name) else "#4477aa" for name in names
            ]
            axis.barh(names, middles, xerr=whiskers, color=colours)
            axis.invert_yaxis()
            axis.set_title(f"{table.title}: {'wall' if what == 'wall' else 'CPU'} seconds", fontsize=9)
            axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def line(path: Path, points: Sequence[tuple[int, float, int]]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 3))
    left = [point[0] for point in points]
    axis.plot(left, [point[1] for point in points], "o-", color="#cc7722", label="jobs a second")
    axis.plot(left, [point[2] / MIB for point in points], "s-", color="#4477aa", label="resident MiB")
    axis.set_xlabel("jobs left in the queue")
    axis.set_ylim(bottom=0)
    axis.invert_xaxis()
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _is_ours(name: str) -> bool:
    return name.startswith(("engine", "upload", "worker", "ours"))


def save(path: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """The measured points, old and new; a part that was not measured keeps those it had."""
    old = json.loads(path.read_text()) if path.exists() else {}
    points = {**old, **found}
    path.write_text(json.dumps(points, indent=1, sort_keys=True) + "\n")
    return points
