"""The applications on the other side: rabbitmq-server, and github-runner, the consumer of `image`."""

import base64
import secrets

from charm_stories.juju import APP, Model
from harness.process import LOOPBACK
from harness.rabbitmq import Broker


class RabbitMQ:
    """Gives a user and a vhost to who asks for them, as the charm rabbitmq-server does, by TLS."""

    def __init__(self, broker: Broker, ca: bytes) -> None:
        self.node = broker.nodes[0]
        self.password = secrets.token_hex(8)
        self.vhosts: set[str] = set()
        self._ca = base64.b64encode(ca).decode()

    def react(self, model: Model, number: str) -> None:
        """Answers the first unit that asks."""
        for unit in model.members(number):
            asked = model.bag(number, unit)
            if "vhost" in asked and asked["vhost"] not in self.vhosts:
                self.vhosts.add(asked["vhost"])
                self.node.ctl("add_vhost", asked["vhost"])
                self.grant(asked["username"], self.password, asked["vhost"])
        if self.vhosts:
            data = {"hostname": LOOPBACK, "password": self.password, "ssl_port": str(self.node.tls_port)}
            model.tell(number, "rabbitmq-server/0", **data, ssl_ca=self._ca)

    def grant(self, user: str, password: str, vhost: str) -> None:
        """All rights on a vhost, which is what rabbitmq-server gives."""
        self.node.ctl("add_user", user, password)
        self.node.ctl("set_permissions", "-p", vhost, user, ".*", ".*", ".*")

    def url(self, user: str, password: str, vhost: str) -> str:
        """The address without TLS."""
        return f"amqp://{user}:{password}@{LOOPBACK}:{self.node.port}/{vhost}"


class Runner:
    """A github-runner: writes its login once a unit of ours joins; takes the id of the first unit that it meets.

    `seen` holds what it would have read of any unit, after each hook since every unit published its first image.
    """

    def __init__(self, login: dict[str, str]) -> None:
        self.login = login
        self.seen: list[set[str | None]] = []

    def react(self, model: Model, number: str) -> None:
        """It has one relation `image`, and Juju gives it our units in no order."""
        if model.members(number):
            model.tell(number, "runner/0", **self.login)
        found = self.reading(model, number)
        if self.seen or (found and None not in found):
            self.seen.append(found)

    @staticmethod
    def reading(model: Model, number: str) -> set[str | None]:
        """The ids that the consumer's code may end up with: a bag that is not empty counts, with or without an id."""
        bags = [model.bag(number, unit) for unit in model.members(number, APP)]
        return {bag.get("id") for bag in bags if bag}
