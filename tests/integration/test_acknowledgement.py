"""The broker's acknowledgement timeout, 30 minutes by default, here one minute: no transfer runs into it."""

from pathlib import Path

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker

from harness import images
from harness.https import FileServer
from harness.openstack import OpenStack
from harness.process import wait_for
from harness.proxy import Proxy
from harness.rabbitmq import Broker
from harness.site import Site
from harness.transfers import PUT, SIZE, only_active

TIMEOUT_MS = 60_000
LOST = ("broker is away", "broker ended a subscription", "left to come back", "worker that had it is gone")


@pytest.mark.xdist_group("acknowledgement")
@pytest.mark.timeout(600)
def test_a_transfer_of_three_minutes_ends_once_where_deliveries_time_out_after_one(
    stack: OpenStack, files: FileServer, tmp_path: Path
) -> None:
    # The broker looks every channel_tick_interval, by default once a minute.
    settings = f"{{consumer_timeout,{TIMEOUT_MS}}},{{channel_tick_interval,5000}}"
    broker = Broker(advanced=f"[{{rabbit,[{settings}]}}].")
    broker.start()
    with Proxy(stack.cloud("cloud1").port) as proxy:
        site = Site(stack, files, broker, tmp_path, proxies={"cloud1": proxy})
        try:
            holder = pika.BlockingConnection(pika.URLParameters(f"{broker.url}/%2F?heartbeat=0"))
            held = hold_a_delivery(holder)
            disk = site.qcow2(SIZE)
            worker = site.worker()
            proxy.throttle(SIZE / 180)
            (job,) = site.client.upload("three-minutes", disk, wait=False)
            # Not before: a node in its first seconds may close a connection that declares queues (541).
            wait_for("the transfer to begin", lambda: worker.log.read_text().count(" sending ") or None, seconds=60)
            start = len(worker.log.read_text())
            site.client.tree_ended(job, 300)
            assert proxy.count("PUT", PUT) == 1
            only_active(site, "three-minutes", images.sha512(disk))
            assert worker.is_running()
            told = worker.log.read_text()[start:]
            assert not [sign for sign in LOST if sign in told]
            # Who does hold a delivery that long has lost it: the timeout is real here.
            with pytest.raises((ChannelClosedByBroker, AMQPConnectionError), match=r"406|timed out"):
                held.basic_qos(prefetch_count=1)
        finally:
            site.stop()
            broker.stop()


def hold_a_delivery(connection: pika.BlockingConnection) -> BlockingChannel:
    channel = connection.channel()
    channel.queue_declare("held", durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_publish("", "held", b"never acknowledged")
    for method, _, _ in channel.consume("held", inactivity_timeout=10):
        assert method is not None
        break
    return channel
