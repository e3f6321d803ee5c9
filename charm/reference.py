"""Writes docs/charm/reference.md from charmcraft.yaml."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent


def text() -> str:
    """The page."""
    charm = yaml.safe_load((ROOT / "charmcraft.yaml").read_text())
    lines = ["# Reference", "", "Written by `python charm/reference.py` from charmcraft.yaml.", "", "## Options", ""]
    lines += ["| option | type | default | |", "| --- | --- | --- | --- |"]
    for name, option in charm["config"]["options"].items():
        lines.append(f"| {name} | {option['type']} | {option.get('default', '')} | {option['description']} |")
    lines += ["", "## Actions", "", "| action | parameters | |", "| --- | --- | --- |"]
    for name, action in charm["actions"].items():
        lines.append(f"| {name} | {', '.join(action.get('params', {}))} | {action['description']} |")
    lines += ["", "## Relations", "", "| endpoint | interface |", "| --- | --- |"]
    for side in ("provides", "requires", "peers"):
        lines += [f"| {name} ({side}) | {relation['interface']} |" for name, relation in charm[side].items()]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    (ROOT.parent / "docs/charm/reference.md").write_text(text())
