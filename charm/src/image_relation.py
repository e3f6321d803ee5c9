"""The relation `image` (interface github_runner_image_v0): clouds that come in, images that go out."""

import json
from typing import Any

import ops

RELATION = "image"
KEYS = ["auth_url", "password", "project_domain_name", "project_name", "user_domain_name", "username"]


def cloud_name(relation: ops.Relation) -> str:
    """One cloud for each relation, so that equal projects and users on two clouds never meet."""
    return f"image-{relation.id}"


def clouds(charm: ops.CharmBase) -> dict[str, dict[str, str]]:
    """The login of each related cloud, by name; relations that have not sent all of it are left out."""
    found = {}
    for relation in _active(charm):
        for unit in sorted(relation.units, key=lambda unit: unit.name):
            login = {key: relation.data[unit].get(key, "") for key in KEYS}
            if all(login.values()):
                found[cloud_name(relation)] = login
                break
    return found


def related(charm: ops.CharmBase) -> bool:
    """Whether anybody wants images."""
    return bool(_active(charm))


def publish(charm: ops.CharmBase, images: dict[str, list[dict[str, Any]]]) -> None:
    """Writes each relation's images, on real change only. An id is never taken back."""
    for relation in _active(charm):
        wanted = images.get(cloud_name(relation))
        if not wanted:
            continue
        bag = relation.data[charm.unit]
        data = {"id": wanted[0]["id"], "tags": wanted[0]["tags"], "images": json.dumps(wanted)}
        if any(bag.get(key) != value for key, value in data.items()):
            bag.update(data)


def _active(charm: ops.CharmBase) -> list[ops.Relation]:
    return [relation for relation in charm.model.relations[RELATION] if relation.active]
