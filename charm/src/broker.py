"""The relation `amqp` (interface rabbitmq): asking for a user and a vhost, and the address of the queue."""

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import quote

import ops

RELATION = "amqp"
USER = "imagewright"


@dataclass(frozen=True)
class Broker:
    """Where the queue is, and whom to trust. `urls` holds a password."""

    urls: str
    ca: str = ""


def request(charm: ops.CharmBase, vhost: str) -> None:
    """Asks for access: rabbitmq-server reads our unit's data, rabbitmq-k8s the application's."""
    for relation in _active(charm):
        wanted = {"username": f"{USER}-{vhost}", "vhost": vhost}
        relation.data[charm.unit].update(wanted)
        if charm.unit.is_leader():
            relation.data[charm.app].update(wanted)


def related(charm: ops.CharmBase) -> bool:
    """Whether there is such a relation."""
    return bool(_active(charm))


def read(charm: ops.CharmBase, vhost: str, ca_file: str) -> Broker | None:
    """The broker, once it has given a password; with TLS its authority is expected at `ca_file`."""
    for relation in _active(charm):
        bags = [dict(relation.data[unit]) for unit in relation.units]
        if relation.app:
            bags.append(dict(relation.data[relation.app]))
        ready = [bag for bag in bags if bag.get("password") and _host(bag)]
        if ready:
            return _broker(ready, f"{USER}-{vhost}", vhost, ca_file)
    return None


def outside(uri: str, ca: str, ca_file: str) -> Broker:
    """A RabbitMQ that is named by its address; an authority is expected at `ca_file`."""
    urls = [_trusting(url.strip(), ca_file) if ca else url.strip() for url in uri.split(",")]
    return Broker(",".join(urls), ca)


def _trusting(url: str, ca_file: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}cacertfile={quote(ca_file)}" if url.startswith("amqps:") else url


def _active(charm: ops.CharmBase) -> list[ops.Relation]:
    return [relation for relation in charm.model.relations[RELATION] if relation.active]


def _host(bag: dict[str, str]) -> str:
    if bag.get("clustered") and bag.get("vip") and not bag.get("ha-vip-only"):
        return bag["vip"]
    return bag.get("hostname") or bag.get("private-address", "")


def _broker(bags: list[dict[str, str]], user: str, vhost: str, ca_file: str) -> Broker:
    bags = sorted(bags, key=_host)
    ca = next((_pem(bag["ssl_ca"]) for bag in bags if bag.get("ssl_ca")), "")
    trust = f"?cacertfile={quote(ca_file)}" if ca else ""
    urls = []
    for bag in bags:
        host, port = _host(bag), bag.get("ssl_port")
        login = f"{quote(user, safe='')}:{quote(bag['password'], safe='')}"
        where = f"[{host}]" if ":" in host else host
        scheme = "amqps" if port else "amqp"
        urls.append(f"{scheme}://{login}@{where}:{port or 5672}/{quote(vhost, safe='')}{trust if port else ''}")
    return Broker(",".join(dict.fromkeys(urls)), ca)


def _pem(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return text  # some providers give the PEM as it is
