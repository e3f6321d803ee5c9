"""What was meant to be reached, and what was: computed from the measured points, whatever the last run says."""

from collections.abc import Callable
from statistics import median
from typing import Any

Points = dict[str, Any]
MIB = 1 << 20


def _clients(points: Points, part: str, title: str) -> dict[str, Any]:
    return points[part][title]["clients"]


def _ratio(clients: dict[str, Any], one: str, other: str, what: str = "wall") -> float:
    """Median of the ratios of each round."""
    return median(mine / theirs for mine, theirs in zip(clients[one][what], clients[other][what], strict=False))


def _hashing(points: Points) -> float:
    table = points["sink"]["Null sink, HTTP"]
    floor = table["size"] / max(points["hashes"].values())
    return median(table["clients"]["engine, hashing"]["wall"]) / floor


def _memory(points: Points) -> tuple[float, float]:
    peaks = {name: one["peak"][0] / MIB for name, one in _clients(points, "memory", "Memory").items()}
    sizes = [peak for name, peak in peaks.items() if name.startswith("worker")]
    return max(sizes), max(sizes) / min(sizes)


def _worst_round(clients: dict[str, Any], one: str, other: str) -> float:
    return max(mine / theirs for mine, theirs in zip(clients[one]["wall"], clients[other]["wall"], strict=False))


def _no_ops(points: Points, said: str, rival: str) -> float:
    rates = {name: median(one["rates"]) for name, one in points["noops"].items() if name.endswith(said)}
    ours = max(rate for name, rate in rates.items() if name.startswith("ours"))
    theirs = [rate for name, rate in rates.items() if name.startswith("Celery " + rival)]
    return ours / max(theirs)


def _p99_ms(points: Points) -> float:
    latency = sorted(points["worker"]["latency"])
    return latency[min(len(latency) - 1, int(0.99 * len(latency)))] * 1000


def _throttled(points: Points, title: str) -> dict[str, Any]:
    return _clients(points, "throttled", title)


def _eight(points: Points) -> float:
    one = median(_throttled(points, "1 throttled cloud")["engine"]["wall"])
    return median(_throttled(points, "8 throttled clouds")["engine"]["wall"]) / one


KNOWN, HASHING = "engine, digest known", "engine, hashing"
SINKS = ("Null sink, HTTP", "Null sink, HTTPS")
GLANCES = "Real Glance, 3 clouds"
SAID, QUIET = "log and events", "no events"

# What, the figure, the limit, and whether the figure must be at least that (else at most).
TARGETS: list[tuple[str, Callable[[Points], float], float, bool]] = [
    *[
        (
            f"{sink}, digest known: wall / curl",
            lambda p, s=sink: _ratio(_clients(p, "sink", s), KNOWN, "curl"),
            1.05,
            False,
        )
        for sink in SINKS
    ],
    *[
        (
            f"{sink}, digest known: CPU / openstacksdk 4.10",
            lambda p, s=sink: _ratio(_clients(p, "sink", s), KNOWN, "openstacksdk 4.10", "cpu"),
            0.6,
            False,
        )
        for sink in SINKS
    ],
    ("Null sink, hashing: wall / (size / SHA-512 alone)", _hashing, 1.05, False),
    (
        "Real Glance, hashing: wall / curl",
        lambda p: _ratio(_clients(p, "glance", "Real Glance, 1 cloud"), "engine", "curl"),
        1.10,
        False,
    ),
    ("peak memory of the worker at the bigger size, MiB", lambda p: _memory(p)[0], 32, False),
    ("the same / at the smaller size", lambda p: _memory(p)[1], 1.10, False),
    (
        "3 throttled clouds: wall / curl at once",
        lambda p: _ratio(_throttled(p, "3 throttled clouds"), "engine", "curl at once"),
        1.05,
        False,
    ),
    ("8 throttled clouds: wall / one", _eight, 1.15, False),
    ("3 real Glances: wall / curl", lambda p: _ratio(_clients(p, "glances", GLANCES), "engine", "curl"), 1.1, False),
    (
        "3 real Glances: wall / openstacksdk 4.10, worst round",
        lambda p: _worst_round(_clients(p, "glances", GLANCES), "engine", "openstacksdk 4.10"),
        1.0,
        False,
    ),
    ("no-op jobs a second, log and events / Celery prefork", lambda p: _no_ops(p, SAID, "prefork"), 5, True),
    ("no-op jobs a second, log and events / Celery's best pool", lambda p: _no_ops(p, SAID, ""), 1.5, True),
    ("no-op jobs a second, no events / Celery prefork", lambda p: _no_ops(p, QUIET, "prefork"), 3, True),
    ("enqueue to start while idle, p99, ms", _p99_ms, 50, False),
    ("idle worker, resident MiB", lambda p: median(p["worker"]["idle"]) / MIB, 15, False),
    ("start to ready, s", lambda p: median(p["worker"]["start"]), 0.3, False),
    *[
        (f"{queue}, {question}, s", lambda p, q=queue, w=question: median(p["log-size"][q][w]), limit, False)
        for queue in ("SQLite", "RabbitMQ")
        for question, limit in (("status JOB, fresh", 1.0), ("status JOB, the oldest", 1.0), ("status", 5.0))
    ],
    ("a killed worker's job is in other hands, s", lambda p: max(p["recovery"]["taken"]), 5, False),
]


def rows(points: Points) -> list[list[str]]:
    """One row a target; what was not measured says so."""
    found = []
    for what, figure, limit, at_least in TARGETS:
        bound = f"{'at least' if at_least else 'at most'} {limit:g}"
        try:
            value = figure(points)
        except (KeyError, ValueError):
            found.append([what, bound, "not measured", ""])
            continue
        is_reached = value >= limit if at_least else value <= limit
        found.append([what, bound, f"{value:.2f}", "yes" if is_reached else "**no**"])
    return found
