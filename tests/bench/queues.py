"""The queue beside Celery, both on one RabbitMQ with quorum queues: jobs that do nothing, which leaves the queue."""

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pika

from bench import clouds, peers
from bench.clouds import Sinks
from bench.measure import Spread, cpu_seconds, resident, run_text, tree
from harness.cli import Client, program
from harness.process import Process, scratch_folder, wait_for
from harness.rabbitmq import Broker

HERE = Path(__file__).parent


@dataclass
class Counts:
    """How many jobs."""

    jobs: int = 4000
    celery_jobs: int = 2000
    idle_jobs: int = 200
    backlog: int = 100_000
    events: int = 1_000_000
    rounds: int = 3
    peers: bool = True


@dataclass
class Rates:
    """Jobs a second, and resident bytes of the process (with its children) at the end."""

    rates: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    cpu_per_job: list[float] = field(default_factory=list)

    def spread(self) -> Spread:
        return Spread.of(self.rates)


class Queues:
    """One broker for all measurements; each has names of its own."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.folder = scratch_folder("bench-queue")
        self.broker = Broker()
        self.broker.start()

    def close(self) -> None:
        self.broker.stop()

    def _depth(self, queue: str) -> int:
        with pika.BlockingConnection(pika.URLParameters(self.broker.url)) as connection:
            return connection.channel().queue_declare(queue, passive=True).method.message_count

    def _namespace(self) -> str:
        return f"b{uuid.uuid4().hex[:6]}"

    def _client(self, namespace: str, clouds_yaml: Path | None = None) -> Client:
        folder = self.folder / namespace
        folder.mkdir(parents=True, exist_ok=True)
        return Client(self.broker.url, namespace, clouds_yaml or folder / "clouds.yaml", folder)

    def _publish(self, namespace: str, count: int, window: int) -> float:
        words = ["publish", self.broker.url, namespace, str(count), str(window)]
        return float(run_text([program("examples/bench_queue"), *words]))

    def publish_rates(self) -> dict[int, Spread]:
        """Confirmed publishes a second, by how many may be unconfirmed at once."""
        namespace = self._namespace()
        count = self.counts.jobs
        found = {
            window: [
                self._publish(namespace, count if window > 1 else count // 8, window) for _ in range(self.counts.rounds)
            ]
            for window in (1, 10, 100)
        }
        return {window: Spread.of(rates) for window, rates in found.items()}

    def celery_publish_rate(self) -> Spread:
        rates = [
            self._celery_publish(self._namespace(), self.counts.celery_jobs // 4, False)
            for _ in range(self.counts.rounds)
        ]
        return Spread.of(rates)

    def _celery_env(self, queue: str, events: bool) -> dict[str, str]:
        more = {"BENCH_BROKER": self.broker.url, "BENCH_QUEUE": queue, "BENCH_EVENTS": "1" if events else "0"}
        return {**os.environ, "PYTHONPATH": str(HERE), **more}

    def _celery_publish(self, queue: str, count: int, events: bool) -> float:
        python = peers.install("celery") / "python"
        env = {**self._celery_env(queue, events), "BENCH_CONFIRM": "1"}
        return float(run_text([python, HERE / "peer_celery.py", "publish", str(count)], env))

    def _drained(self, queue: str, count: int, start: Callable[[], Sequence[Process]], into: Rates) -> None:
        """Time from a tenth of the jobs being gone to all being gone: start-up does not count."""
        processes: list[Process] = []
        try:
            processes += start()
            head = wait_for("jobs go", lambda: self._below(queue, int(count * 0.9)), 90, every=0.01)
            began = time.monotonic()
            cpu = sum(cpu_seconds(pid) for one in processes for pid in tree(one.pid))
            left = head[0]
            wait_for("all jobs are gone", lambda: self._below(queue, 0), 300, every=0.01)
            took = time.monotonic() - began
            spent = sum(cpu_seconds(pid) for one in processes for pid in tree(one.pid)) - cpu
            into.rates.append(left / took)
            into.cpu_per_job.append(spent / left)
            into.resident.append(sum(resident(pid) for one in processes for pid in tree(one.pid)))
        finally:
            for process in processes:
                process.kill9()

    def _below(self, queue: str, limit: int) -> tuple[int] | None:
        depth = self._depth(queue)
        return (depth,) if depth <= limit else None

    def _own(self, in_flight: int, speaks: bool, processes: int, into: Rates) -> None:
        namespace = self._namespace()
        self._publish(namespace, self.counts.jobs, 200)
        words = ["work", self.broker.url, namespace, str(in_flight), *([] if speaks else ["quiet"])]
        log = self.folder / f"{namespace}.log"
        command = [program("examples/bench_queue"), *words]
        self._drained(
            f"{namespace}.prune.any", self.counts.jobs, lambda: [Process(command, log) for _ in range(processes)], into
        )

    def _celery(self, pool: Sequence[str], events: bool, into: Rates) -> None:
        queue = self._namespace()
        self._celery_publish(queue, self.counts.celery_jobs, events)
        words = ["-A", "peer_celery", "worker", "--loglevel", "WARNING", "--without-mingle", "--without-gossip"]
        command = [peers.install("celery") / "celery", *words, *pool, *(["-E"] if events else [])]
        env = self._celery_env(queue, events)
        log = self.folder / f"{queue}.log"
        self._drained(queue, self.counts.celery_jobs, lambda: [Process(command, log, env=env)], into)

    def no_ops(self) -> Mapping[str, Rates]:
        """Jobs a second of one process, in turn; `log` and `events` are what each says about its jobs."""
        found: dict[str, Rates] = {}
        pools = {
            "prefork 1": ["--pool", "prefork", "--concurrency", "1"],
            "solo": ["--pool", "solo"],
            "threads 8": ["--pool", "threads", "--concurrency", "8"],
            "gevent 100": ["--pool", "gevent", "--concurrency", "100"],
        }
        for _ in range(self.counts.rounds):
            for speaks in (True, False):
                said = "log and events" if speaks else "no events"
                for in_flight in (8, 32):
                    self._own(in_flight, speaks, 1, found.setdefault(f"ours, {in_flight} in flight, {said}", Rates()))
                for pool, words in pools.items() if self.counts.peers else ():
                    self._celery(words, speaks, found.setdefault(f"Celery {pool}, {said}", Rates()))
        return found

    def scale_out(self) -> Mapping[int, Rates]:
        found: dict[int, Rates] = {1: Rates(), 2: Rates(), 4: Rates()}
        for _ in range(self.counts.rounds):
            for processes, rates in found.items():
                self._own(8, True, processes, rates)
        return found

    def backlog(self, windows: int = 10) -> list[tuple[int, float, int]]:
        """Jobs left, jobs a second, resident bytes: at even steps from a full backlog on."""
        namespace = self._namespace()
        self._publish(namespace, self.counts.backlog, 500)
        queue = f"{namespace}.prune.any"
        command = [program("examples/bench_queue"), "work", self.broker.url, namespace, "32"]
        worker = Process(command, self.folder / "backlog.log")
        step = self.counts.backlog // windows
        points: list[tuple[int, float, int]] = []
        try:
            wait_for("jobs go", lambda: self._below(queue, self.counts.backlog - 1), 60, every=0.01)
            before, since = self._depth(queue), time.monotonic()
            while before > 0:
                goal = max(0, before - step)
                (left,) = wait_for("jobs go", lambda goal=goal: self._below(queue, goal), 300, every=0.02)
                now = time.monotonic()
                points.append((left, (before - left) / (now - since), resident(worker.pid)))
                before, since = left, now
        finally:
            worker.kill9()
        return points

    def worker(self) -> Mapping[str, Sequence[float]]:
        """The worker itself, on a topology that exists: start to ready, idle memory, enqueue to start while idle."""
        found: dict[str, list[float]] = {"start": [], "idle": [], "latency": []}
        sinks = Sinks(self.folder / "sinks")
        try:
            client = self._client(self._namespace(), sinks.clouds_yaml)
            client.run("queues")
            for number in range(self.counts.rounds + 2):
                began = time.monotonic()
                worker = client.worker()
                wait_for("the worker is ready", lambda log=worker.log: " ready" in log.read_text(), 20, every=0.002)
                found["start"].append(time.monotonic() - began)
                try:
                    if number == 0:
                        found["latency"] += self._latencies(client)
                    else:
                        time.sleep(2)  # what start-up needed has been given back by then, or never is
                        found["idle"].append(resident(worker.pid))
                finally:
                    worker.kill9()
        finally:
            sinks.close()
        return found

    def _latencies(self, client: Client) -> list[float]:
        """From publishing a prune job to the worker having said that it started; one job at a time."""
        found = []
        with pika.BlockingConnection(pika.URLParameters(self.broker.url)) as connection:
            channel = connection.channel()
            own = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(own, f"{client.namespace}.events", "event.prune.started")
            channel.confirm_delivery()
            spec = '{"kind": "prune", "name": "bench", "cloud": "sink1", "keep": 5}'
            started = channel.consume(own, auto_ack=True)
            for _ in range(self.counts.idle_jobs):
                body = f'{{"version": 1, "id": "{uuid.uuid4()}", "spec": {spec}}}'
                began = time.monotonic()
                channel.basic_publish(f"{client.namespace}.jobs", "prune.any", body.encode())
                next(started)
                found.append(time.monotonic() - began)
        return found

    def recovery(self) -> Mapping[str, Sequence[float]]:
        """A worker dies in a transfer; the time until another has the job in hand, and until it sends again."""
        found: dict[str, list[float]] = {"taken": [], "sends": []}
        images = self.folder / "images"
        images.mkdir()
        file = clouds.sparse(images / "disk.qcow2", 64 << 20)
        for number in range(self.counts.rounds):
            with ExitStack() as stack:
                sinks = Sinks(self.folder / f"slow-{number}", rate=4e6)
                stack.callback(sinks.close)
                client = self._client(self._namespace(), sinks.clouds_yaml)
                workers = [client.worker("--file-root", images) for _ in range(2)]
                for worker in workers:
                    stack.callback(worker.kill9)
                    wait_for("a worker is ready", lambda log=worker.log: " ready" in log.read_text(), 20)
                client.upload("bench", file, cloud="sink1", wait=False)
                victim = wait_for(
                    "one sends", lambda ws=workers: next((w for w in ws if "sending" in w.log.read_text()), None)
                )
                other = next(worker for worker in workers if worker is not victim)
                began = time.monotonic()
                victim.kill9()
                wait_for("another has it", lambda w=other: "job.id" in w.log.read_text(), 60, every=0.005)
                found["taken"].append(time.monotonic() - began)
                wait_for("another sends", lambda w=other: "sending" in w.log.read_text(), 90, every=0.01)
                found["sends"].append(time.monotonic() - began)
        return found
