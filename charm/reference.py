"""Writes docs/charm/reference.md from charmcraft.yaml and the alert rules."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent
RULES = [ROOT / f"src/cos/{name}/imagewright.rules" for name in ("prometheus_rules", "loki_rules")]


def text() -> str:
    """The page."""
    charm = yaml.safe_load((ROOT / "charmcraft.yaml").read_text())
    lines = [
        "# Reference",
        "",
        "Written by `python charm/reference.py` from charmcraft.yaml and the alert rules.",
        "",
        "## Options",
        "",
    ]
    lines += ["| option | type | default | |", "| --- | --- | --- | --- |"]
    for name, option in charm["config"]["options"].items():
        lines.append(f"| {name} | {option['type']} | {option.get('default', '')} | {option['description']} |")
    lines += ["", "## Actions", "", "| action | parameters | |", "| --- | --- | --- |"]
    for name, action in charm["actions"].items():
        lines.append(f"| {name} | {', '.join(action.get('params', {}))} | {action['description']} |")
    lines += ["", "## Relations", "", "| endpoint | interface |", "| --- | --- |"]
    for side in ("provides", "requires", "peers"):
        lines += [f"| {name} ({side}) | {relation['interface']} |" for name, relation in charm[side].items()]
    lines += ["", "## Alerts", "", "| alert | severity | after | |", "| --- | --- | --- | --- |"]
    lines += [_alert(rule) for path in RULES for rule in yaml.safe_load(path.read_text())["groups"][0]["rules"]]
    return "\n".join([*lines, ""])


def _alert(rule: dict[str, Any]) -> str:
    said = f"{rule['annotations']['summary']} {rule['annotations']['description']}"
    said = re.sub(r"\{\{ \$(?:labels\.)?(\w+) \}\}", lambda found: found[1].upper(), said)
    return f"| {rule['alert']} | {rule['labels']['severity']} | {rule.get('for', 'at once')} | {said} |"


if __name__ == "__main__":
    (ROOT.parent / "docs/charm/reference.md").write_text(text())
