"""One chaos run on servers that are already there, from the first job to the verdict."""

import json
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pika.exceptions import AMQPError

from chaos import cluster, evidence, report, verdict
from chaos.faults import FaultMaker
from chaos.feed import Feed, Publisher
from chaos.killer import BrokerKiller, Work, WorkerKiller
from chaos.plan import CLOUDS, SLOW, Plan, Sizes
from chaos.report import Report
from chaos.slots import Slot, cloud_entries
from chaos.wire import Wire
from harness import images
from harness.cli import Worker
from harness.https import FileServer
from harness.openstack import OpenStack
from harness.process import wait_for
from harness.rabbitmq import Broker
from harness.servers import REPO
from harness.site import Site

KEPT = REPO / ".chaos"
_SLOW_SIZE = 1_000_000  # 25 s at the rate of the slow way
_LIMIT = 1800.0  # seconds for all kills and faults


class Chaos:
    """The servers, the workers, and those who hurt them."""

    def __init__(
        self,
        stack: OpenStack,
        broker: Broker,
        files: FileServer,
        folder: Path,
        seed: int,
        sizes: Sizes,
        later: Path | None = None,
    ) -> None:
        """`later` is a worker of a later version; every second worker then is one."""
        self.site = Site(stack, files, broker, folder)
        self.broker = broker
        self.seed = seed
        self.sizes = sizes
        self.wire = Wire(self.site.namespace)
        self.plan = Plan(seed, sizes, self._small_files(), self._slow_file(), len(broker.nodes))
        binaries = [later if number % 2 else None for number in range(sizes.workers)]
        self.slots = [Slot(number, self.site, broker, self.wire, binary) for number, binary in enumerate(binaries)]
        self.publisher = Publisher(broker, self.site.namespace)
        self.worker_killer = WorkerKiller(self.slots, self.plan.worker_kills)
        self.broker_killer = BrokerKiller(broker, self.site.namespace, self.wire, self.plan.broker_kills)
        self.fault_maker = FaultMaker(self.slots, self.plan.faults)
        hurters: Sequence[Work] = (self.worker_killer, self.broker_killer, self.fault_maker)
        self.feed = Feed(self.plan, self.publisher.publish, self.slots, lambda: any(one.is_alive() for one in hurters))
        self.threads: Sequence[Work] = (*hurters, self.feed)

    def _small_files(self) -> list[str]:
        made = [images.small_qcow2(self.site.root / f"small-{n}.qcow2", n, 60_000 * (n + 1)) for n in range(6)]
        made += [images.raw(self.site.root / f"small-{n}.raw", 50_000 * (n + 1), n) for n in range(4)]
        return [str(path) for path in made]

    def _slow_file(self) -> str:
        return str(images.raw(self.site.root / "slow.raw", _SLOW_SIZE, "slow"))

    def run(self) -> Report:
        """Raises with every breach of a promise; what is needed to find its cause is kept, and its place said."""
        began = time.monotonic()
        try:
            self._hurt()
            self._let_end()
            found = self._evidence()
            made = self._report(found, time.monotonic() - began)
            breaches = verdict.breaches(found)
            assert not breaches, "\n".join([f"{len(breaches)} breaches", *breaches, made.table()])
        except BaseException as error:
            kept = self._keep()
            raise AssertionError(f"seed {self.seed}; logs are kept in {kept}\n{error}") from error
        else:
            return made
        finally:
            self._stop()

    def _hurt(self) -> None:
        self.site.client.run("queues")
        cluster.wait_whole(self.broker, self.site.namespace)
        for node in self.broker.nodes:
            node.settle()
        for slot in self.slots:
            slot.start()
        for thread in (self.feed, self.worker_killer, self.broker_killer, self.fault_maker):
            thread.start()

        def over() -> bool:
            for thread in self.threads:
                if thread.failure is not None:
                    raise RuntimeError(f"the {thread.name} failed: {thread.failure}") from thread.failure
            return not any(thread.is_alive() for thread in self.threads)

        wait_for("all kills and faults are over", over, _LIMIT, every=0.2)

    def _let_end(self) -> None:
        self.fault_maker.heal()
        cluster.wait_whole(self.broker, self.site.namespace)
        deadline = time.monotonic() + self.sizes.deadline
        drain = self._drain()
        code = drain.wait(self.sizes.deadline)
        assert code == 0, f"--drain ended with {code}\n{drain.tail(20)}"
        evidence.wait_empty(self.broker, self.site.namespace, max(30.0, deadline - time.monotonic()))
        for slot in self.slots:
            assert slot.worker is not None
            assert slot.worker.is_running(), slot.worker.tail(20)

    def _drain(self) -> Worker:
        """A worker beside the others, which ends once nothing is queued, waiting or running anywhere."""
        site = self.site
        proxies = {name: self.slots[0].clouds[name] for name in SLOW}
        clouds = site.stack.write_clouds(site.folder / "drain.yaml", cloud_entries(site, proxies))
        words = site.client.words("--drain", "--drain-timeout", f"{self.sizes.deadline:.0f}")
        words += ["--file-root", str(site.root), "--policy", str(site.policy), "--log-format", "json"]
        env = {**site.client.env(), "OS_CLIENT_CONFIG_FILE": str(clouds)}
        return Worker(words, site.folder / "drain.log", env, site.folder)

    def _evidence(self) -> verdict.Evidence:
        site = self.site
        events = evidence.read_log(self.broker, f"{site.namespace}.log")
        glances = [site.stack.cloud(name) for name in CLOUDS]
        return verdict.Evidence(
            orders=self.feed.orders,
            stories=evidence.stories(events),
            history=[record for glance in glances for record in evidence.history(glance, site.namespace)],
            images={name: site.cloud(name) for name in CLOUDS},
            dead=[str(message.json()["id"]) for message in site.amqp().peek("dead")],
            namespace=site.namespace,
        )

    def _report(self, found: verdict.Evidence, seconds: float) -> Report:
        ids = {order.id for order in self.feed.orders}
        mixed = sum(1 for slot in self.slots if slot.binary)
        workers = f"{len(self.slots)}, {mixed} of them of a later version" if mixed else str(len(self.slots))
        return Report(
            seed=self.seed,
            jobs=len(self.feed.orders),
            children=sum(1 for job, _ in found.stories if job not in ids),
            workers=workers,
            worker_kills=self.worker_killer.done,
            moments=self.worker_killer.moments,
            broker_kills=self.broker_killer.done,
            away=self.broker_killer.away,
            cuts=self.fault_maker.cuts,
            faults=self.fault_maker.met(),
            redeliveries=sum(1 for one in self.wire.deliveries if one.redelivered),
            copies=self.feed.copies,
            suppressed=report.suppressed(self.wire.deliveries, found.stories),
            ended_again=report.ended_again(found.stories),
            carried=sum(1 for one in self.wire.deliveries if one.later),
            lost=verdict.lost(found),
            seconds=seconds,
        )

    def _keep(self) -> Path:
        """Logs of workers, brokers and Glances, and the plan's jobs."""
        kept = KEPT / f"seed-{self.seed}"
        shutil.rmtree(kept, ignore_errors=True)
        leave = shutil.ignore_patterns("images", "home", "mnesia", "store", "cache", "staging", "tasks")
        shutil.copytree(self.site.folder, kept / "workers", ignore=leave)
        for node in self.broker.nodes:
            shutil.copytree(node.folder, kept / "brokers" / node.name, ignore=leave)
        for glance in self.site.stack.clouds:
            shutil.copytree(glance.folder, kept / glance.name, ignore=leave)
        _write_lines(kept / "jobs.json", [order.message() for order in self.feed.orders])
        _write_lines(kept / "deliveries.json", [asdict(one) for one in self.wire.deliveries])
        try:
            (kept / "broker").write_text(cluster.describe(self.broker.nodes[0]))
            _write_lines(kept / "log.json", evidence.read_log(self.broker, f"{self.site.namespace}.log"))
        except (AssertionError, AMQPError) as error:
            (kept / "not-kept").write_text(repr(error))
        return kept

    def _stop(self) -> None:
        for thread in self.threads:
            thread.stopping.set()
        self.site.stop()
        for slot in self.slots:
            slot.stop()
        self.publisher.close()


def _write_lines(path: Path, documents: Iterable[Any]) -> None:
    path.write_text("".join(f"{json.dumps(document)}\n" for document in documents))
