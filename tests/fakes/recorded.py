"""Answers of a real Nova, Neutron and Glance, with ids and names to fill in."""

import copy
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

FOLDER = Path(__file__).parent / "recordings"


@dataclass(frozen=True)
class Answer:
    """What is sent back: `body` is a JSON document, or text as it stands."""

    status: int
    body: Any = ""
    headers: tuple[tuple[str, str], ...] = ()


@cache
def _load(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def _filled(value: Any, values: dict[str, Any]) -> Any:
    if isinstance(value, str):
        return Template(value).safe_substitute(values) if "$" in value else value
    if isinstance(value, list):
        return [_filled(one, values) for one in value]
    if isinstance(value, dict):
        return {key: _filled(one, values) for key, one in value.items()}
    return value


def recorded(name: str, /, **values: Any) -> Answer:
    """The recording `name` with its placeholders filled in; those not given stay."""
    found = _load(name)
    headers = tuple((key, str(_filled(value, values))) for key, value in found["headers"].items())
    return Answer(found["status"], _filled(copy.deepcopy(found["body"]), values), headers)
