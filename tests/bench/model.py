"""A fleet as arithmetic on the measured points: `python -m bench.model` prints what docs/scaling.md says.

Every figure is either an assumption of the fleet, named in `Fleet`, or read from docs/benchmarks/measured.json.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import report
from harness.servers import REPO

POINTS = REPO / "docs" / "benchmarks" / "measured.json"
PAGE = REPO / "docs" / "scaling.md"
GIB = 1 << 30

# Messages a job costs the broker: an upload is published, queued, started, succeeded, taken and acknowledged, and so is
# its prune child; each event goes to the log and to the exchange. A transfer of more than 20 s is put on the ladder and
# comes back every 15 s.
PUBLISHES_PER_UPLOAD = 2 * (1 + 2 * 3)
LADDER_S = 15
HOLD_S = 20


@dataclass(frozen=True)
class Fleet:
    """What is wanted."""

    clouds: int = 1000
    arches: int = 5
    bases: int = 4
    hours: float = 6
    image_gib: float = 1.0
    cloud_bytes_per_s: float = 100e6
    uplink_bytes_per_s: float = 1.25e9
    concurrency: int = 8

    @property
    def images(self) -> int:
        return self.clouds * self.arches * self.bases

    @property
    def seconds(self) -> float:
        return self.hours * 3600


@dataclass(frozen=True)
class Measured:
    """What one worker, one broker and one core did."""

    cpu_per_gib: float
    cpu_per_gib_hashing: float
    bytes_per_s: float
    hash_bytes_per_s: float
    jobs_per_s: float
    cpu_per_job: float
    publishes_per_s: float
    peak: int
    throttled: dict[int, float]

    @classmethod
    def read(cls, path: Path = POINTS) -> "Measured":
        found: dict[str, Any] = json.loads(path.read_text())
        table = found["sink"]["Null sink, HTTPS"]
        sink, gib = table["clients"], table["size"] / GIB
        engine, hashing = sink["engine, digest known"], sink["engine, hashing"]
        ours = found["noops"]["ours, 8 in flight, log and events"]
        throttled = {
            count: median(found["throttled"][title]["clients"]["engine"]["wall"])
            for count, title in [(1, "1 throttled cloud"), (3, "3 throttled clouds"), (8, "8 throttled clouds")]
        }
        return cls(
            cpu_per_gib=median(engine["cpu"]) / gib,
            cpu_per_gib_hashing=median(hashing["cpu"]) / gib,
            bytes_per_s=table["size"] / median(engine["wall"]),
            hash_bytes_per_s=max(found["hashes"].values()),
            jobs_per_s=median(ours["rates"]),
            cpu_per_job=median(ours["cpu"]),
            publishes_per_s=found["publish"]["100"],
            peak=max(found["whole"]["The whole programs"]["clients"]["upload --file"]["peak"]),
            throttled=throttled,
        )


@dataclass(frozen=True)
class Need:
    """What the fleet takes of one resource, and what one unit of it gives."""

    resource: str
    needed: float
    one: float
    unit: str

    @property
    def units(self) -> float:
        return self.needed / self.one


def seconds_of(clouds: int, fleet: Fleet, measured: Measured, image: float = GIB) -> float:
    """One image to so many clouds at once from one worker: the slowest of link, hash, CPU and cloud."""
    waves = -(-clouds // fleet.concurrency)
    at_once = min(clouds, fleet.concurrency)
    return max(
        waves * image / fleet.cloud_bytes_per_s,
        clouds * image / measured.bytes_per_s,
        image / measured.hash_bytes_per_s,
        at_once * waves * image / fleet.uplink_bytes_per_s,
    )


def needs(fleet: Fleet, measured: Measured) -> list[Need]:
    """Of each resource, the part of one unit that is busy on average; what is largest saturates first."""
    image = fleet.image_gib * GIB
    per_second = fleet.images / fleet.seconds
    transfer = image / fleet.cloud_bytes_per_s
    away = max(0.0, transfer - HOLD_S) / LADDER_S
    publishes = per_second * (PUBLISHES_PER_UPLOAD + 2 * away)
    contents = fleet.arches * fleet.bases
    hashing = contents * image / measured.hash_bytes_per_s / fleet.seconds
    cpu = per_second * (fleet.image_gib * measured.cpu_per_gib + 2 * measured.cpu_per_job) + hashing
    return [
        Need("transfers at once", per_second * transfer, fleet.concurrency, "workers with 8 transfers each"),
        Need("bandwidth, bytes/s", per_second * image, fleet.uplink_bytes_per_s, "uplinks of 10 Gbit/s"),
        Need("client CPU, s/s", cpu, 1, "cores"),
        Need("broker publishes, 1/s", publishes, measured.publishes_per_s, "brokers"),
        Need("jobs, 1/s", 2 * per_second, measured.jobs_per_s, "processes that only take and settle"),
    ]


def table(fleet: Fleet, measured: Measured) -> str:
    lines = ["| resource | needed | one gives | so many busy |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {one.resource} | {one.needed:.4g} | {one.one:.4g} | {one.units:.3g} {one.unit} |"
        for one in needs(fleet, measured)
    ]
    return "\n".join(lines)


def check(fleet: Fleet, measured: Measured) -> str:
    """The model beside what was measured with throttled clouds."""
    lines = ["| clouds at 100 MB/s | model s | measured s | off by |", "| --- | --- | --- | --- |"]
    for clouds, seen in measured.throttled.items():
        said = seconds_of(clouds, fleet, measured)
        lines.append(f"| {clouds} | {said:.1f} | {seen:.1f} | {100 * (seen / said - 1):+.0f} % |")
    return "\n".join(lines)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.model", description=__doc__)
    for name in ("clouds", "arches", "bases", "concurrency"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Fleet, name))
    for name in ("hours", "image_gib", "cloud_bytes_per_s", "uplink_bytes_per_s"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(Fleet, name))
    parser.add_argument("--write-docs", action="store_true", help=f"put the tables into {PAGE.relative_to(REPO)}")
    asked = vars(parser.parse_args(words))
    write = asked.pop("write_docs")
    fleet, measured = Fleet(**asked), Measured.read()
    print(table(fleet, measured), check(fleet, measured), sep="\n\n")
    if write:
        report.put(PAGE, "needs", table(fleet, measured))
        report.put(PAGE, "check", check(fleet, measured))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
