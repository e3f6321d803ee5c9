"""What Juju says, read once a hook: all that a unit's files are made from, or what hinders."""

import os
from dataclasses import dataclass, field

import ops

import broker
import clouds
import files
import image_relation
import peers
import results
import user_secrets
from config import Config, load


@dataclass
class Situation:
    """`plan` is None while a status in `obstacles` says why."""

    plan: files.Plan | None = None
    embedded: bool = False
    obstacles: list[ops.StatusBase] = field(default_factory=list)
    config: Config | None = None


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
    password, script = "", {}
    try:
        if options.openstack_password_secret:
            password = user_secrets.password(charm, options.openstack_password_secret)
        script = user_secrets.script(charm, options.script_secret_id)
    except user_secrets.SecretError as error:
        found.obstacles.append(ops.BlockedStatus(str(error)))
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
    try:
        uri, ca = user_secrets.queue(charm, options.amqp_uri_secret)
    except user_secrets.SecretError as error:
        found.obstacles.append(ops.BlockedStatus(str(error)))
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
    found = {key: os.environ.get(f"JUJU_CHARM_{key}", "") for key in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")}
    return {key: value for key, value in found.items() if value}
