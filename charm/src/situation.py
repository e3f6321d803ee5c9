"""What Juju says, read once a hook: all that a unit's files are made from, or what hinders."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import ops

import broker
import clouds
import files
import image_relation
import peers
import results
import user_secrets
from config import Config, address, fits_namespace, load

T = TypeVar("T")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY")


@dataclass
class Situation:
    """`plan` is None while a status in `obstacles` says why; `unreadable` are options whose secret cannot be had."""

    plan: files.Plan | None = None
    embedded: bool = False
    obstacles: list[ops.StatusBase] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    config: Config | None = None

    def unless_unreadable(self, option: str, read: Callable[[], T], otherwise: T) -> T:
        """What `read` gives, or `otherwise` if the secret of the option cannot be had, which is an obstacle."""
        try:
            return read()
        except user_secrets.SecretError as error:
            self.unreadable.add(option)
            self.obstacles.append(ops.BlockedStatus(str(error)))
            return otherwise


def namespace(charm: ops.CharmBase, options: Config) -> str:
    """What queues are called after; the vhost has the same name."""
    return options.namespace or charm.app.name


def read(charm: ops.CharmBase) -> Situation:
    """Looks at options, secrets and relations; changes nothing but what was peeked at of secrets."""
    options, mistake = load(charm)
    if options is None:
        return Situation(obstacles=[ops.BlockedStatus(mistake)])
    found = Situation(config=options)
    if missing := options.missing():
        found.obstacles.append(ops.BlockedStatus(f"missing config: {', '.join(missing)}"))
    secret, option = options.openstack_password_secret, "openstack-password-secret"
    password = found.unless_unreadable(option, lambda: user_secrets.password(charm, secret), "") if secret else ""
    script = found.unless_unreadable(
        "script-secret-id", lambda: user_secrets.script(charm, options.script_secret_id), {}
    )
    found.obstacles += _wrong_names(charm, options)
    queue = _queue(charm, options, found)
    if not peers.ready(charm):
        found.obstacles.append(ops.WaitingStatus("waiting for peer data"))
        return found
    key = peers.build_key(charm)
    if not key:
        found.obstacles.append(ops.WaitingStatus("waiting for the leader's build key"))
    if not found.obstacles and queue:
        found.plan = files.Plan(
            config=options,
            unit=charm.unit.name,
            namespace=namespace(charm, options),
            names=results.names(options, charm.app.name),
            clouds=clouds.entries(charm, options, password),
            queue=queue.urls,
            ca=queue.ca,
            build_key=key,
            script_secrets=script,
            ssh_from=options.ssh_from or peers.subnets(charm),
            proxies=_proxies(),
        )
    return found


def _queue(charm: ops.CharmBase, options: Config, found: Situation) -> broker.Broker | None:
    option = "amqp-uri-secret"
    uri, ca = found.unless_unreadable(option, lambda: user_secrets.queue(charm, options.amqp_uri_secret), ("", ""))
    if option in found.unreadable:
        return None
    if uri and broker.related(charm):
        found.obstacles.append(ops.BlockedStatus("relation amqp and option amqp-uri-secret: remove one of them"))
        return None
    if uri:
        return broker.outside(uri, ca, files.CA_FILE)
    if broker.related(charm):
        queue = broker.read(charm, namespace(charm, options), files.CA_FILE)
        if queue is None:
            found.obstacles.append(ops.WaitingStatus("waiting for amqp credentials"))
        return queue
    if charm.app.planned_units() > 1:
        found.obstacles.append(ops.BlockedStatus("missing relation: amqp (several units need a shared queue)"))
        return None
    found.embedded = True
    return broker.Broker(f"sqlite:{files.STATE}/queue.db")


def waiting_for(charm: ops.CharmBase) -> ops.StatusBase | None:
    """What a unit that works is short of."""
    if not image_relation.related(charm):
        return ops.BlockedStatus("missing relation: image")
    if not image_relation.clouds(charm):
        return ops.WaitingStatus("waiting for cloud credentials on image")
    return None


def _proxies() -> dict[str, str]:
    found = {key: os.environ.get(f"JUJU_CHARM_{key}", "") for key in (*PROXIES, "NO_PROXY")}
    return {key: value for key, value in found.items() if value}


def _wrong_names(charm: ops.CharmBase, options: Config) -> list[ops.StatusBase]:
    """What comes from Juju and not from options, but is given to the programs like them."""
    wrong = [key for key in PROXIES if (proxy := _proxies().get(key)) and "[" in (address(proxy) or "[")]
    found: list[ops.StatusBase] = [
        ops.BlockedStatus(
            f"invalid model config juju-{key.lower().replace('_', '-')}: must be http://HOST:PORT, HOST no IPv6 address"
        )
        for key in wrong
    ]
    if not fits_namespace(namespace(charm, options)):
        found.append(ops.BlockedStatus("the application's name is too long for a namespace: set the option namespace"))
    return found
