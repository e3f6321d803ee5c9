"""Juju's hook commands over a JSON file: one program under many names, as `jujuc` is. STORY_STATE names the file.

It refuses what Juju refuses: secrets that were not granted, and a follower's hand on what is the leader's.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

STATE = Path(os.environ.get("STORY_STATE", ""))
UNIT = os.environ.get("JUJU_UNIT_NAME", "")
APP = UNIT.partition("/")[0]
VALUED = {"-r", "--format", "--file", "--label", "--owner", "--relation", "--unit", "--log-level"}

NAMES = [
    *["action-fail", "action-get", "action-log", "action-set", "application-version-set", "config-get", "goal-state"],
    *["is-leader", "juju-log", "network-get", "relation-get", "relation-ids", "relation-list", "relation-model-get"],
    *["relation-set", "secret-add", "secret-get", "secret-info-get", "status-get", "status-set"],
]


class Refused(Exception):
    """Juju would say no."""


def split(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options by name (`true` if they have no value), and the other words."""
    options: dict[str, str] = {}
    rest: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            return options, rest + queue
        if not word.startswith("-") or word == "-":
            rest.append(word)
        elif "=" in word:
            key, _, value = word.partition("=")
            options[key] = value
        else:
            options[word] = queue.pop(0) if word in VALUED else "true"
    return options, rest


class Tool:
    """One call of one command."""

    def __init__(self, state: dict[str, Any], words: list[str]) -> None:
        self.state = state
        self.options, self.words = split(words)

    @property
    def leads(self) -> bool:
        return self.state["leader"] == UNIT

    def relation(self) -> dict[str, Any]:
        number = (self.options.get("-r") or os.environ["JUJU_RELATION_ID"]).rpartition(":")[2]
        if UNIT not in self.state["relations"].get(number, {}).get("members", []):
            raise Refused(f"relation not found: {number}")
        return self.state["relations"][number]

    def only_leader(self, what: str) -> None:
        if not self.leads:
            raise Refused(f"{what}: {UNIT} is not the leader")

    def keyed(self, data: dict[str, Any]) -> Any:
        return data.get(self.words[0]) if self.words and self.words[0] != "-" else data

    def relation_ids(self) -> Any:
        """Those that the unit has come into, which it does after `install`."""
        found = [(number, one) for number, one in self.state["relations"].items() if UNIT in one["members"]]
        return [f"{one['endpoint']}:{number}" for number, one in found if one["endpoint"] == self.words[0]]

    def relation_list(self) -> Any:
        relation = self.relation()
        if "--app" in self.options:
            return relation["app"]
        return [unit for unit in relation["members"] if unit != UNIT and unit.startswith(f"{relation['app']}/")]

    def relation_get(self) -> Any:
        relation = self.relation()
        whose = self.words[1]
        who = whose.partition("/")[0] if "--app" in self.options else whose
        if who == APP and relation["app"] != APP:
            self.only_leader("relation-get of the own application")
        if "/" in who and who not in relation["members"]:
            raise Refused(f"cannot read settings for unit {who}: unit not in scope")
        return self.keyed(relation["bags"].get(who, {}))

    def relation_model_get(self) -> Any:
        return {"uuid": os.environ["JUJU_MODEL_UUID"]}

    def relation_set(self) -> None:
        if "--app" in self.options:
            self.only_leader("relation-set of the application")
        bag = self.relation()["bags"].setdefault(APP if "--app" in self.options else UNIT, {})
        for key, value in read_yaml(sys.stdin.read()).items():
            if value:
                bag[key] = value
            else:
                bag.pop(key, None)

    def config_get(self) -> Any:
        return self.keyed(self.state["config"])

    def goal_state(self) -> Any:
        units = {name: {"status": "active", "since": "2026-11-26 10:00:00Z"} for name in self.state["units"]}
        return {"units": units, "relations": {}}

    def is_leader(self) -> Any:
        return self.leads

    def network_get(self) -> Any:
        return {"bind-addresses": [], "egress-subnets": ["127.0.0.1/32"], "ingress-addresses": ["127.0.0.1"]}

    def status_get(self) -> Any:
        return self.state["status"].get(UNIT, {"status": "unknown", "message": ""})

    def status_set(self) -> None:
        who = UNIT
        if self.options.get("--application", "false").lower() == "true":
            self.only_leader("status-set --application")
            who = APP
        self.state["status"][who] = {"status": self.words[0], "message": "".join(self.words[1:])}

    def application_version_set(self) -> None:
        self.state["version"] = self.words[0]

    def juju_log(self) -> None:
        self.state["log"].append([UNIT, self.options.get("--log-level", "INFO"), " ".join(self.words)])

    def secret_get(self) -> Any:
        return self.secret()["content"]

    def secret_info_get(self) -> Any:
        return {self.words[0].removeprefix("secret:"): {"revision": self.secret()["revision"], "owner": "application"}}

    def secret(self) -> dict[str, Any]:
        name = self.words[0].removeprefix("secret:") if self.words else ""
        label = self.options.get("--label")
        for key, found in self.state["secrets"].items():
            if key == name or (label and found.get("label") == label):
                if not found["granted"]:
                    raise Refused("permission denied")
                return found
        raise Refused(f"secret {name or label!r} not found")

    def secret_add(self) -> str:
        self.only_leader("secret-add")
        number = f"own{len(self.state['secrets'])}".ljust(20, "0")
        content = {}
        for word in self.words:
            key, _, path = word.partition("#file=")
            content[key] = Path(path).read_text()
        made = {"content": content, "granted": True, "revision": 1, "label": self.options.get("--label")}
        self.state["secrets"][number] = made
        return f"secret:{number}\n"

    def action_get(self) -> Any:
        return self.keyed(self.state["action"]["params"])

    def action_set(self) -> None:
        self.state["action"]["results"].update(dict(word.split("=", 1) for word in self.words))

    def action_fail(self) -> None:
        self.state["action"]["failure"] = " ".join(self.words)

    def action_log(self) -> None:
        self.state["action"]["log"].append(" ".join(self.words))


def read_yaml(text: str) -> dict[str, str]:
    """A mapping. A hook makes dozens of calls, so only the one that needs it finds its packages and loads this."""
    import site

    site.main()
    import yaml

    return yaml.safe_load(text) or {}


def main() -> None:
    state = json.loads(STATE.read_text())
    before = json.dumps(state)
    tool = Tool(state, sys.argv[1:])
    try:
        answer = getattr(tool, Path(sys.argv[0]).name.replace("-", "_"))()
    except Refused as refusal:
        sys.exit(f"ERROR {refusal}")
    if json.dumps(state) != before:
        STATE.write_text(json.dumps(state))
    if isinstance(answer, str) and answer.startswith("secret:"):
        sys.stdout.write(answer)
    elif answer is not None or tool.options.get("--format") == "json":
        json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
