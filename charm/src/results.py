"""The newest usable image of each name on each cloud: what the clouds say, as the relation `image` wants it."""

from typing import Any

import clouds
import program
from config import Config


def names(config: Config, app: str) -> dict[str, str]:
    """The image name of each base, in the order of the option; the first is the primary one."""
    prefix = config.image_name_prefix or app
    return {base: f"{prefix}-{base}-{config.runner_arch}" for base in config.base_image}


def usable(row: dict[str, Any]) -> bool:
    """Whether a runner may start from it: active, and verified if it is ours."""
    return row["status"] == "active" and (row.get("job") is None or bool(row.get("verified")))


def newest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first usable row of each cloud and name; rows come newest first."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if usable(row):
            found.setdefault((row["cloud"], row["name"]), row)
    return list(found.values())


def look(config: Config, app: str, known: list[str]) -> dict[str, list[dict[str, str]]]:
    """The images of each related cloud, in the order of the bases. Clouds that do not answer are left out."""
    targets = [name for name in known if name != clouds.BUILD]
    if not targets:
        return {}
    found: dict[str, list[dict[str, str]]] = {}
    for base, name in names(config, app).items():
        rows = program.call("images", "--name", name, "--cloud", ",".join(targets), partial=True)
        for row in newest(rows or []):
            image = {"id": row["id"], "tags": f"{config.runner_arch},{base}"}
            found.setdefault(row["cloud"], []).append(image)
    return found


def merge(
    old: dict[str, list[dict[str, str]]], new: dict[str, list[dict[str, str]]], known: list[str]
) -> dict[str, list[dict[str, str]]]:
    """What to publish: the new where there is something, else the old; nothing of clouds that are gone."""
    both = {**old, **{cloud: images for cloud, images in new.items() if images}}
    return {cloud: images for cloud, images in both.items() if cloud in known}
