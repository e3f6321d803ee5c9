"""The newest usable image of each name on each cloud: what the clouds say, as the relation `image` wants it."""

from dataclasses import dataclass, field
from typing import Any

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


@dataclass(frozen=True)
class Seen:
    """What clouds said: the images of each, in the order of the bases, and which ones have said anything."""

    images: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)


def look(config: Config, app: str, known: list[str]) -> Seen:
    """Asks all in one call, so that a cloud answers for all bases or for none."""
    if not known:
        return Seen()
    rows, complete = program.partly("images", "--cloud", ",".join(known))
    usable_rows = newest(rows)
    images: dict[str, list[dict[str, str]]] = {}
    for base, name in names(config, app).items():
        for row in usable_rows:
            if row["name"] == name:
                image = {"id": row["id"], "tags": f"{config.runner_arch},{base}"}
                images.setdefault(row["cloud"], []).append(image)
    return Seen(images, set(known) if complete else {row["cloud"] for row in rows})


def merge(old: dict[str, list[dict[str, str]]], seen: Seen, known: list[str]) -> dict[str, list[dict[str, str]]]:
    """What to publish: the new where a cloud has something, else the old; nothing of clouds that are gone."""
    both = {**old, **seen.images}
    return {cloud: images for cloud, images in both.items() if cloud in known}
