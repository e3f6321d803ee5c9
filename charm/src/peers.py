"""What units tell each other: by the leader, the published images; by each unit, which clouds it knows."""

import json
import secrets
from typing import Any

import ops

RELATION = "cluster"
KEY_LABEL = "build-key"


def ready(charm: ops.CharmBase) -> bool:
    """Whether the relation is there yet."""
    return _relation(charm) is not None


def published(charm: ops.CharmBase) -> dict[str, list[dict[str, Any]]]:
    """The images of each cloud, as the leader saw them last."""
    return json.loads(_app(charm).get("published", "{}"))


def set_published(charm: ops.CharmBase, images: dict[str, list[dict[str, Any]]]) -> None:
    """For the leader."""
    _write(charm, "published", json.dumps(images, sort_keys=True))


def asked(charm: ops.CharmBase) -> tuple[str, list[str]]:
    """For which options, as a digest, and for which clouds a build was last asked for or not needed."""
    bag = _app(charm)
    return bag.get("asked", ""), bag.get("asked-clouds", "").split()


def set_asked(charm: ops.CharmBase, digest: str, clouds: list[str]) -> None:
    """For the leader."""
    _write(charm, "asked", digest)
    _write(charm, "asked-clouds", " ".join(clouds))


def build_key(charm: ops.CharmBase) -> str:
    """The bytes that SSH keys of builds are derived from, the same on every unit; empty until the leader made them."""
    identity = _app(charm).get("build-key-secret")
    if identity:
        return charm.model.get_secret(id=identity).get_content(refresh=True)["key"]
    if not charm.unit.is_leader():
        return ""
    key = secrets.token_hex(32)
    secret = charm.app.add_secret({"key": key}, label=KEY_LABEL)
    _write(charm, "build-key-secret", secret.id or "")
    return key


def tell_clouds(charm: ops.CharmBase, digest: str) -> None:
    """Says that this unit's worker has the clouds of this digest."""
    relation = _relation(charm)
    if relation and relation.data[charm.unit].get("clouds") != digest:
        relation.data[charm.unit]["clouds"] = digest


def all_know(charm: ops.CharmBase, digest: str) -> bool:
    """Whether every unit has said so."""
    relation = _relation(charm)
    return relation is not None and all(relation.data[unit].get("clouds") == digest for unit in relation.units)


def subnets(charm: ops.CharmBase) -> list[str]:
    """Where the units come from when they log in somewhere, as CIDR blocks."""
    relation = _relation(charm)
    if relation is None:
        return []
    found = set()
    for unit in [charm.unit, *relation.units]:
        blocks = relation.data[unit].get("egress-subnets", "")
        found.update(block.strip() for block in blocks.split(",") if block.strip())
    return sorted(found)


def _relation(charm: ops.CharmBase) -> ops.Relation | None:
    return charm.model.get_relation(RELATION)


def _app(charm: ops.CharmBase) -> dict[str, str]:
    relation = _relation(charm)
    return dict(relation.data[charm.app]) if relation else {}


def _write(charm: ops.CharmBase, key: str, value: str) -> None:
    relation = _relation(charm)
    if relation and relation.data[charm.app].get(key) != value:
        relation.data[charm.app][key] = value
