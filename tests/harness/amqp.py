"""A plain AMQP client (pika), independent of the programs under test."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker


@dataclass(frozen=True)
class Message:
    body: bytes
    headers: dict[str, Any]
    message_id: str | None
    routing_key: str
    persistent: bool

    def json(self) -> Any:
        return json.loads(self.body)


class Amqp:
    """What a foreign service would do with a `namespace` of one broker."""

    def __init__(self, url: str, namespace: str) -> None:
        self.url = url
        self.namespace = namespace

    @contextlib.contextmanager
    def channel(self) -> Iterator[BlockingChannel]:
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()

    def queue(self, name: str) -> str:
        return f"{self.namespace}.{name}"

    def publish(self, routing_key: str, body: bytes, headers: dict[str, Any] | None = None) -> None:
        """Persistent, confirmed and mandatory, as the documentation asks of foreign clients."""
        properties = pika.BasicProperties(content_type="application/json", delivery_mode=2, headers=headers)
        with self.channel() as channel:
            channel.confirm_delivery()
            channel.basic_publish(self.queue("jobs"), routing_key, body, properties, mandatory=True)

    def ready(self, name: str) -> int:
        """Messages waiting in a queue; an absent queue is an error."""
        with self.channel() as channel:
            found = channel.queue_declare(self.queue(name), passive=True)
            return int(found.method.message_count)

    def exists(self, name: str) -> bool:
        with self.channel() as channel:
            try:
                channel.queue_declare(self.queue(name), passive=True)
            except ChannelClosedByBroker:
                return False
            return True

    def peek(self, name: str, limit: int = 1000) -> list[Message]:
        """Looks at the messages of a queue and leaves them there."""
        messages: list[Message] = []
        with self.channel() as channel:
            last = 0
            while len(messages) < limit:
                method, properties, body = channel.basic_get(self.queue(name))
                if method is None or properties is None or body is None or method.delivery_tag is None:
                    break
                last = method.delivery_tag
                messages.append(
                    Message(
                        body=body,
                        headers=dict(properties.headers or {}),
                        message_id=properties.message_id,
                        routing_key=method.routing_key or "",
                        persistent=properties.delivery_mode == 2,
                    )
                )
            if last:
                channel.basic_nack(last, multiple=True, requeue=True)
        return messages

    def log(self, idle_seconds: float = 1.0) -> list[Message]:
        """The stream of job transitions from its beginning; the end is where nothing comes for `idle_seconds`."""
        messages: list[Message] = []
        with self.channel() as channel:
            channel.basic_qos(prefetch_count=200)
            stream = channel.consume(
                self.queue("log"), arguments={"x-stream-offset": "first"}, inactivity_timeout=idle_seconds
            )
            for method, properties, body in stream:
                if method is None or properties is None or body is None:
                    break
                channel.basic_ack(method.delivery_tag or 0)
                headers = dict(properties.headers or {})
                messages.append(Message(body, headers, properties.message_id, method.routing_key or "", True))
        return messages

    def delete_queues(self, names: list[str]) -> None:
        """At the end of a namespace, so that a long run does not fill the broker."""
        with self.channel() as channel:
            for name in names:
                channel.queue_delete(name)
