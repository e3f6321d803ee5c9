"""The measurements of transfers: every client in turn, round after round, so that the machine's moods hit all alike."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import clouds, senders
from bench.clouds import Glances, Sinks, Target
from bench.measure import Cost, run_text
from bench.senders import Send, Whole
from bench.sink import SOURCE
from harness import images
from harness.cli import program
from harness.openstack import OpenStack
from harness.process import scratch_folder


@dataclass(frozen=True)
class Table:
    """What one measurement found: costs by client, a round each."""

    title: str
    what: str
    floor: str
    size: int
    costs: Mapping[str, Sequence[Cost]]
    server_cpu: Mapping[str, Sequence[float]]


@dataclass
class Sizes:
    """How much is measured."""

    mebibytes: int = 1024
    rounds: int = 3
    big_mebibytes: int = 8192
    rate: float = 100e6
    peers: bool = True


class Transfers:
    """Files, sinks and Glances of one run; each method is one measurement."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.folder = scratch_folder("bench")
        self.bytes = sizes.mebibytes * images.MIB
        (self.folder / "images").mkdir()
        self.file = clouds.image(self.folder / "images" / "disk.qcow2", self.bytes)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def hash_rates(self) -> dict[str, float]:
        """Bytes a second of each SHA-512 that needs no system library, on one core."""
        rounds = [json.loads(run_text([program("examples/bench_hash"), "512"])) for _ in range(self.sizes.rounds)]
        return {name: max(one[name] for one in rounds) for name in rounds[0]}

    def _rounds(
        self,
        title: str,
        what: str,
        target: Target,
        names: Sequence[str],
        who: Mapping[str, Send],
        file: Path | None = None,
        rounds: int | None = None,
    ) -> Table:
        costs: dict[str, list[Cost]] = {name: [] for name in who}
        servers: dict[str, list[float]] = {name: [] for name in who}
        sent = file or self.file
        for _ in range(rounds or self.sizes.rounds):
            for name, send in who.items():
                before = target.cpu()
                costs[name].append(send(target, names, sent))
                servers[name].append(target.cpu() - before)
                target.reset()
                print(f"  {title}: {name}: {costs[name][-1]}", flush=True)
        return Table(title, what, next(iter(who)), sent.stat().st_size, costs, servers)

    def _with(self, target: Target, measure: Callable[[Target], Table]) -> Table:
        try:
            return measure(target)
        finally:
            target.close()

    def sink(self, tls: bool) -> Table:
        who: dict[str, Send] = {
            "curl": senders.curl,
            "engine, digest known": senders.engine_unhashed,
            "engine, hashing": senders.engine,
        }
        if self.sizes.peers:
            who["openstacksdk 4.10"] = senders.sdk
            who["python-glanceclient"] = senders.glanceclient
            who["openstack CLI"] = senders.openstack
        kind = "HTTPS" if tls else "HTTP"
        what = (
            f"To one null sink over {kind}, unthrottled. curl sends the data alone; the others log in and create too."
        )
        target = Sinks(self.folder / f"sink-{kind}", tls=tls)
        return self._with(target, lambda it: self._rounds(f"Null sink, {kind}", what, it, it.names, who))

    def worker(self) -> Table:
        """The whole programs to a sink that tells the right digest, from a file and from another cloud."""
        target = Sinks(self.folder / "sink-whole", 2, served=self.file)
        copied = Whole(self.folder / "copies", source=f"sink2:{SOURCE}")
        who: dict[str, Send] = {
            "curl": senders.curl,
            "upload --file": Whole(self.folder / "uploads"),
            "upload --from": copied,
        }
        what = (
            "`imagewright upload --wait` with a worker: queue (SQLite), transfer, verification, log and prune. "
            "CPU and memory are the worker's; the second row hashes nothing."
        )
        return self._with(target, lambda it: self._rounds("The whole programs", what, it, ["sink1"], who))

    def throttled(self, count: int) -> Table:
        who: dict[str, Send] = {"curl at once": senders.curl, "engine": senders.engine}
        if self.sizes.peers and count == 3:
            who["openstacksdk 4.10, in turn"] = senders.sdk
        rate = self.sizes.rate / 1e6
        what = (
            f"{count} cloud(s), each held to {rate:.0f} MB/s by the sink: the network is the limit, not this machine."
        )
        target = Sinks(self.folder / f"throttled-{count}", count, rate=self.sizes.rate)
        title = f"{count} throttled cloud{'s' if count > 1 else ''}"
        rounds = self.sizes.rounds if count == 3 else 1
        return self._with(target, lambda it: self._rounds(title, what, it, it.names, who, rounds=rounds))

    def glance(self, count: int) -> Table:
        stack = OpenStack(count)
        stack.start()
        target = Glances(stack)
        who: dict[str, Send] = {
            "curl": senders.curl,
            "engine": senders.engine,
            "upload --file": Whole(self.folder / f"glance-{count}"),
        }
        if self.sizes.peers:
            who["openstacksdk 4.10"] = senders.sdk
            if count == 1:
                who["openstack CLI"] = senders.openstack
        what = f"To {count} real Glance{'s' if count > 1 else ''} with file stores on this machine."
        title = f"Real Glance, {count} cloud{'s' if count > 1 else ''}"
        return self._with(target, lambda it: self._rounds(title, what, it, it.names, who))

    def memory(self) -> Table:
        """Peak memory at two sizes; the files are holes, for no page cache holds the bigger one."""
        small = clouds.sparse(self.folder / "images" / "small.qcow2", self.bytes)
        big = clouds.sparse(self.folder / "images" / "big.qcow2", self.sizes.big_mebibytes * images.MIB)
        target = Sinks(self.folder / "sink-memory", served=small)
        uploads = self.folder / "memory"
        costs: dict[str, list[Cost]] = {}
        try:
            for name, file in [(f"{self.sizes.mebibytes} MiB", small), (f"{self.sizes.big_mebibytes} MiB", big)]:
                costs[f"engine, {name}"] = [senders.engine(target, target.names, file)]
        finally:
            target.close()
        for name, file in [(f"{self.sizes.mebibytes} MiB", small), (f"{self.sizes.big_mebibytes} MiB", big)]:
            target = Sinks(uploads / f"sink-{file.stem}", served=file)
            try:
                costs[f"worker, {name}"] = [Whole(uploads / file.stem)(target, target.names, file)]
            finally:
                target.close()
        what = "Peak memory at two sizes of image, to a null sink."
        return Table("Memory", what, next(iter(costs)), 0, costs, {})
