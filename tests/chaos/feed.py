"""Enqueues jobs as a foreign client would (pika, confirmed), so that there is always work while things are killed."""

import contextlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

from chaos.killer import Work
from chaos.plan import Order, Plan
from chaos.slots import Slot
from harness.process import LOOPBACK, wait_for
from harness.proxy import Proxy
from harness.rabbitmq import Broker

_CONFIRM = 20.0  # seconds for a confirm; then the connection is given up and the job published again
ENDS = ("succeeded", "failed", "cancelled")


class Publisher:
    """Publishes until confirmed, at whichever node answers: a repeat may leave two copies, which jobs bear."""

    def __init__(self, broker: Broker, namespace: str) -> None:
        self.repeats = 0
        self._exchange = f"{namespace}.jobs"
        # pika waits for a confirm without end; cutting the way there ends the wait.
        self._ways = [Proxy(node.port) for node in broker.nodes]
        self._turn = itertools.cycle(self._ways)
        self._way = next(self._turn)
        self._channel: BlockingChannel | None = None

    def publish(self, order: Order) -> None:
        body = json.dumps(order.message()).encode()
        properties = pika.BasicProperties(content_type="application/json", delivery_mode=2, message_id=order.id)

        def confirmed() -> bool:
            try:
                with self._patience():
                    self._open().basic_publish(self._exchange, order.lane, body, properties, mandatory=True)
            except (AMQPError, OSError) as error:
                self.repeats += 1
                self._channel = None
                self._way = next(self._turn)
                raise AssertionError(repr(error)) from error
            return True

        wait_for(f"job {order.id} is accepted", confirmed, 120, every=0.5)

    def close(self) -> None:
        for way in self._ways:
            way.close()

    def _open(self) -> BlockingChannel:
        if self._channel is None or not self._channel.is_open:
            url = f"amqp://guest:guest@{LOOPBACK}:{self._way.port}?heartbeat=0&socket_timeout=10"
            self._channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
            self._channel.confirm_delivery()
        return self._channel

    @contextlib.contextmanager
    def _patience(self) -> Iterator[None]:
        timer = threading.Timer(_CONFIRM, self._way.cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


class Feed(Work):
    """Keeps so many jobs in flight until all are enqueued and `busy` says that nobody needs more."""

    def __init__(
        self, plan: Plan, publish: Callable[[Order], None], slots: Sequence[Slot], busy: Callable[[], bool]
    ) -> None:
        super().__init__("feed")
        self.orders: list[Order] = []
        self.copies = 0  # published a second time on purpose
        self._plan = plan
        self._publish = publish
        self._slots = slots
        self._busy = busy

    def work(self) -> None:
        sizes = self._plan.sizes
        later: list[Order] = []
        for order in self._plan.orders():
            self._await_room(sizes.in_flight)
            if self.stopping.is_set() or (len(self.orders) >= sizes.jobs and not self._busy()):
                break
            self.orders.append(order)
            self._publish(order)
            # The copies of a job come at once, or after some others.
            later += [order] * (order.copies - 1)
            if later and len(self.orders) % 3 == 0:
                self._repeat(later.pop(0))
        for order in later:
            self._repeat(order)

    def _repeat(self, order: Order) -> None:
        self._publish(order)
        self.copies += 1

    def _await_room(self, in_flight: int) -> None:
        def room() -> bool:
            if self.stopping.is_set():
                return True
            ended = self.ended()
            done = len(self.orders) >= self._plan.sizes.jobs and not self._busy()
            return done or sum(1 for one in self.orders if one.id not in ended) < in_flight

        wait_for("jobs end", room, 300, every=0.1)

    def ended(self) -> set[str]:
        """As the workers' own logs say; good enough to go by, and not what the verdict is based on."""
        return {said["job.id"] for slot in self._slots for said in slot.follow() if said["event"] in ENDS}
