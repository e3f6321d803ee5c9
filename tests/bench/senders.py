"""Each client, sending one file to one or several clouds: what is run, and how it is measured."""

import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench import peers
from bench.clouds import Target
from bench.measure import Cost, Watch, cpu_seconds, high_water, run
from harness.cli import Client, program
from harness.process import wait_for

HERE = Path(__file__).parent
Send = Callable[[Target, Sequence[str], Path], Cost]


def curl(target: Target, clouds: Sequence[str], file: Path) -> Cost:
    """The floor: only the data, to images that were made before, to all clouds at once."""
    commands = []
    for cloud in clouds:
        url, token = target.prepared(cloud)
        words = ["curl", "-sS", "--fail", "-T", file, "-H", f"X-Auth-Token: {token}", "-H", "Expect:"]
        trusted = ["--cacert", target.ca] if target.ca else []
        commands.append([*words, "-H", "Content-Type: application/octet-stream", *trusted, url])
    with ThreadPoolExecutor(len(commands)) as pool:
        costs = list(pool.map(run, commands))
    total = costs[0]
    for cost in costs[1:]:
        total = total.beside(cost)
    return total


def _engine(*options: str) -> Send:
    def send(target: Target, clouds: Sequence[str], file: Path) -> Cost:
        command = [program("examples/bench_transfer"), *options, f"engine-{uuid.uuid4().hex[:8]}", file, *clouds]
        return run(command, target.env())

    return send


def sdk(target: Target, clouds: Sequence[str], file: Path) -> Cost:
    """openstacksdk 4.10.0 as the predecessor calls it, cloud after cloud."""
    python = peers.install("sdk") / "python"
    return run([python, HERE / "peer_sdk.py", "sdk", file, *clouds], target.env())


def glanceclient(target: Target, clouds: Sequence[str], file: Path) -> Cost:
    (cloud,) = clouds
    entry = yaml.safe_load(target.clouds_yaml.read_text())["clouds"][cloud]
    login = {f"OS_{key.upper()}": str(value) for key, value in entry["auth"].items()}
    env = {**login, "OS_REGION_NAME": entry["region_name"], "OS_IDENTITY_API_VERSION": "3"}
    trusted = {"OS_CACERT": str(target.ca)} if target.ca else {}
    words = ["image-create", "--name", "glanceclient", "--disk-format", "qcow2", "--container-format", "bare"]
    return run([peers.install("glanceclient") / "glance", *words, "--file", file], {**env, **trusted})


def openstack(target: Target, clouds: Sequence[str], file: Path) -> Cost:
    (cloud,) = clouds
    words = ["--os-cloud", cloud, "image", "create", "--disk-format", "qcow2", "--file", file, "openstack"]
    return run([peers.install("osc") / "openstack", *words], target.env())


@dataclass(frozen=True)
class Whole:
    """The programs as they are used: `imagewright upload --wait`, and a worker that was there before.

    The wall time is that of the command: queue, transfer, verification, log, prune. CPU and memory are the worker's.
    """

    folder: Path
    queue: str = ""
    source: str = ""
    patience: float = 600

    def __call__(self, target: Target, clouds: Sequence[str], file: Path) -> Cost:
        folder = self.folder / uuid.uuid4().hex[:8]
        folder.mkdir(parents=True)
        queue = self.queue or f"sqlite:{folder / 'queue.db'}"
        client = Client(queue, f"bench-{uuid.uuid4().hex[:6]}", target.clouds_yaml, folder)
        client.run("queues")
        worker = client.worker("--file-root", file.parent, "--concurrency", "upload=8", "--cloud-transfers", "8")
        try:
            wait_for("the worker is ready", lambda: " ready" in worker.log.read_text(), 20)
            before, watch, began = cpu_seconds(worker.pid), Watch(worker.pid), time.monotonic()
            where = ["--from", self.source] if self.source else ["--file", file]
            words = ["upload", "--name", "bench", "--arch", "amd64", "--cloud", ",".join(clouds), *where]
            client.run(*words, "--wait", seconds=self.patience)
            wall = time.monotonic() - began
            watch.stop()
            return Cost(wall, cpu_seconds(worker.pid) - before, high_water(worker.pid))
        finally:
            worker.kill9()


engine = _engine()
engine_unhashed = _engine("--no-digest")
