"""A model with one application of ours, which runs `./dispatch` as a unit agent would, one hook after the other.

What a hook writes counts only if it ends well. Changes of databags lead to the hooks that Juju would run, until
`settle` finds none left. Remote applications are objects that react after each hook.
"""

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from charm_stories import charm_tree
from charm_stories.machine import Machine
from harness.process import HarnessError

APP = "imagewright"
SECONDS = 60
"""What a hook may take at most on a busy machine; nothing waits for a job in one."""


class Remote(Protocol):
    """An application on the other side of a relation."""

    def react(self, model: "Model", number: str) -> None:
        """Looks at the relation of that number after each hook, and may `tell` something."""
        ...


@dataclass(frozen=True)
class Hook:
    """One hook of one unit, with the variables that tell what it is about."""

    unit: str
    name: str
    env: dict[str, str] = field(default_factory=dict, compare=True, hash=False)


@dataclass
class Action:
    """How an action ended."""

    results: dict[str, str]
    failure: str


class Model:
    """Begins without a unit; `charm_dirs` and `machines` are by unit, `seconds` is how long each hook took."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.machines: dict[str, Machine] = {}
        self.charm_dirs: dict[str, Path] = {}
        self.remotes: dict[str, Remote] = {}
        self.watchers: list[Callable[[Hook], None]] = []
        self.seconds: list[float] = []
        self._queue: list[Hook] = []
        self._uuid = str(uuid.uuid4())
        self._numbers = iter(range(100))
        self.state: dict[str, Any] = {
            "leader": "",
            "units": [],
            "config": {**charm_tree.options(), **config},
            "relations": {},
            "secrets": {},
            "status": {},
            "log": [],
        }
        self.relate("cluster", APP)

    def status(self, who: str) -> tuple[str, str]:
        """Of a unit or of the application: its word and its message."""
        found = self.state["status"][who]
        return found["status"], found["message"]

    def bag(self, number: str, who: str) -> dict[str, str]:
        """What a unit or application has written to a relation."""
        return self.state["relations"][number]["bags"].get(who, {})

    def members(self, number: str, app: str = APP) -> list[str]:
        """The units of an application that the other side of the relation sees."""
        return [unit for unit in self.state["relations"][number]["members"] if unit.startswith(f"{app}/")]

    def add_units(self, count: int) -> None:
        """Machines, and the first hooks of each unit; the first one ever leads."""
        begun = len(self.charm_dirs)
        names = [f"{APP}/{begun + number}" for number in range(count)]
        self.state["units"] += names
        self.state["leader"] = self.state["leader"] or names[0]
        for unit in names:
            place = self.folder / unit.replace("/", "-")
            self.machines[unit] = Machine(place)
            self.charm_dirs[unit] = place / "charm"
            self.charm_dirs[unit].mkdir()
            charm_tree.lay_out(self.charm_dirs[unit])
            self._add(Hook(unit, "install"), *(self._created(unit, number) for number in self.state["relations"]))
            if unit == self.state["leader"]:
                self._add(Hook(unit, "leader-elected"))
            self._add(Hook(unit, "config-changed"), Hook(unit, "start"))

    def remove_unit(self, unit: str, successor: str) -> None:
        """`juju remove-unit`; if it led, Juju makes somebody else the leader once it is gone."""
        self.state["units"].remove(unit)
        for number, relation in self.state["relations"].items():
            name = f"{relation['endpoint']}-relation"
            for other in [one for one in relation["members"] if one.startswith(f"{relation['app']}/") and one != unit]:
                about = {**self._about(number, relation, other), "JUJU_DEPARTING_UNIT": unit}
                self._add(Hook(unit, f"{name}-departed", about))
                if relation["app"] == APP:
                    about = {**self._about(number, relation, unit), "JUJU_DEPARTING_UNIT": unit}
                    self._add(Hook(other, f"{name}-departed", about))
            self._add(Hook(unit, f"{name}-broken", self._about(number, relation)))
        self._add(Hook(unit, "stop"), Hook(unit, "remove"))
        self.settle()
        for relation in self.state["relations"].values():
            relation["members"].remove(unit)
            relation["bags"].pop(unit, None)
        if self.state["leader"] == unit:
            self.state["leader"] = successor
            self._add(Hook(successor, "leader-elected"))

    def relate(self, endpoint: str, app: str, remote: Remote | None = None) -> str:
        """`juju integrate`; the number of the relation."""
        number = str(next(self._numbers))
        self.state["relations"][number] = {"endpoint": endpoint, "app": app, "bags": {}, "members": []}
        if remote:
            self.remotes[number] = remote
            self.state["relations"][number]["members"].append(f"{app}/0")
        for unit in self.state["units"]:
            self._add(self._created(unit, number))
        return number

    def unrelate(self, number: str) -> None:
        """`juju remove-relation`."""
        relation = self.state["relations"][number]
        for unit in self.state["units"]:
            gone = {
                **self._about(number, relation, f"{relation['app']}/0"),
                "JUJU_DEPARTING_UNIT": f"{relation['app']}/0",
            }
            self._add(Hook(unit, f"{relation['endpoint']}-relation-departed", gone))
            self._add(Hook(unit, f"{relation['endpoint']}-relation-broken", self._about(number, relation)))
        self.settle()
        del self.state["relations"][number], self.remotes[number]

    def tell(self, number: str, who: str, **data: str) -> None:
        """A remote unit writes; ours are told if it is something new."""
        bag = self.state["relations"][number]["bags"].setdefault(who, {})
        if any(bag.get(key) != value for key, value in data.items()):
            bag.update(data)
            self._changed(number, who)

    def configure(self, **options: Any) -> None:
        """`juju config`, with _ for -."""
        self.state["config"].update({key.replace("_", "-"): value for key, value in options.items()})
        self._add(*(Hook(unit, "config-changed") for unit in self.state["units"]))

    def add_secret(self, **content: str) -> str:
        """A user secret, granted to us."""
        number = f"user{len(self.state['secrets'])}".ljust(20, "0")
        self.state["secrets"][number] = {"content": content, "granted": True, "revision": 1, "label": None}
        return f"secret:{number}"

    def update_secret(self, secret: str, **content: str) -> None:
        """`juju update-secret`."""
        found = self.state["secrets"][secret.removeprefix("secret:")]
        found.update(content=content, revision=found["revision"] + 1)
        self._add(*(Hook(unit, "secret-changed", {"JUJU_SECRET_ID": secret}) for unit in self.state["units"]))

    def refresh(self, change: Callable[[Path], None]) -> None:
        """`juju refresh`: `change` makes another revision of each unit's charm folder."""
        for unit in self.state["units"]:
            change(self.charm_dirs[unit])
            self._add(Hook(unit, "upgrade-charm"), Hook(unit, "config-changed"))

    def action(self, unit: str, name: str, **params: Any) -> Action:
        """`juju run`, with _ for - in parameters."""
        given = {key.replace("_", "-"): value for key, value in params.items()}
        made = {"params": given, "results": {}, "failure": "", "log": []}
        self.state["action"] = made
        self.run(Hook(unit, name, {"JUJU_ACTION_NAME": name, "JUJU_ACTION_UUID": "1"}), f"actions/{name}")
        done = self.state.pop("action")
        return Action(done["results"], done["failure"])

    def update_status(self) -> None:
        """What Juju does every five minutes."""
        self._add(*(Hook(unit, "update-status") for unit in self.state["units"]))
        self.settle()

    def settle(self) -> None:
        """Runs hooks until none is left."""
        while self._queue:
            self.run(self._queue.pop(0))

    def run(self, hook: Hook, dispatch: str = "") -> None:
        """One dispatch; raises HarnessError if it fails."""
        if hook.name.endswith("-relation-created"):
            for number, relation in self.state["relations"].items():
                if hook.unit not in relation["members"]:
                    self._enter(hook.unit, number)  # all at once, before the first of these hooks runs
        before = json.loads(json.dumps(self.state["relations"]))
        done = self._dispatch(hook, dispatch or f"hooks/{hook.name}")
        if done.returncode != 0:
            raise HarnessError(f"{hook} ended with {done.returncode}:\n{done.stdout}{done.stderr}\n{self.log()}")
        for number, relation in self.state["relations"].items():
            for who, bag in relation["bags"].items():
                if bag != before[number]["bags"].get(who, {}):
                    self._changed(number, who)
            if number in self.remotes:
                self.remotes[number].react(self, number)
        for watch in self.watchers:
            watch(hook)

    def log(self) -> str:
        """The last lines of juju-log."""
        return "\n".join(" ".join(line) for line in self.state["log"][-20:])

    def stop(self) -> None:
        """Ends the machines."""
        for machine in self.machines.values():
            machine.stop()

    def _dispatch(self, hook: Hook, path: str) -> "subprocess.CompletedProcess[str]":
        machine, charm = self.machines[hook.unit], self.charm_dirs[hook.unit]
        file = self.folder / "state.json"
        file.write_text(json.dumps(self.state))
        real = Path(sys.executable).resolve().parent  # the dispatch of a packed charm links to the first python3
        env = {
            "PATH": f"{machine.tools}:{real}:/usr/sbin:/usr/bin:/sbin:/bin",
            "STORY_STATE": str(file),
            "JUJU_UNIT_NAME": hook.unit,
            "JUJU_MODEL_NAME": "stories",
            "JUJU_MODEL_UUID": self._uuid,
            "JUJU_VERSION": "3.6.11",
            "JUJU_CHARM_DIR": str(charm),
            "JUJU_DISPATCH_PATH": path,
            "JUJU_HOOK_NAME": "" if path.startswith("actions/") else hook.name,
            "LANG": "C.UTF-8",
            **hook.env,
        }
        began = time.monotonic()
        done = machine.run([str(charm / "dispatch")], env, cwd=str(charm))
        self.seconds.append(time.monotonic() - began)
        written = json.loads(file.read_text())
        if done.returncode == 0:
            self.state = written
        self.state["log"] = written["log"]
        return done

    def _enter(self, unit: str, number: str) -> None:
        """The unit comes into the scope of a relation; from now on the other side sees it."""
        relation = self.state["relations"][number]
        known = {"private-address": "127.0.0.1", "ingress-address": "127.0.0.1", "egress-subnets": "127.0.0.1/32"}
        relation["bags"].setdefault(unit, known)
        for other in list(relation["members"]):
            if other.startswith(f"{relation['app']}/"):
                self._meet(unit, number, other)
            if other.startswith(f"{APP}/") and relation["app"] == APP:
                self._meet(other, number, unit)
        relation["members"].append(unit)

    def _meet(self, unit: str, number: str, other: str) -> None:
        relation = self.state["relations"][number]
        about = self._about(number, relation, other)
        name = f"{relation['endpoint']}-relation"
        self._add(Hook(unit, f"{name}-joined", about), Hook(unit, f"{name}-changed", about))

    def _changed(self, number: str, who: str) -> None:
        """Hooks of those of our units that see the change: all but the writer."""
        relation = self.state["relations"][number]
        if who.partition("/")[0] != relation["app"]:
            return  # ours, on a relation to others: they react by themselves
        about = self._about(number, relation, who if "/" in who else "")
        for unit in self.members(number):
            leads = unit == self.state["leader"]
            if who != unit and not ("/" not in who and who == APP and leads):
                self._add(Hook(unit, f"{relation['endpoint']}-relation-changed", about))

    def _created(self, unit: str, number: str) -> Hook:
        relation = self.state["relations"][number]
        return Hook(unit, f"{relation['endpoint']}-relation-created", self._about(number, relation))

    @staticmethod
    def _about(number: str, relation: dict[str, Any], other: str = "") -> dict[str, str]:
        words = {"JUJU_RELATION": relation["endpoint"], "JUJU_RELATION_ID": f"{relation['endpoint']}:{number}"}
        words["JUJU_REMOTE_APP"] = relation["app"]
        return {**words, "JUJU_REMOTE_UNIT": other} if other else words

    def _add(self, *hooks: Hook) -> None:
        self._queue += [hook for hook in hooks if hook not in self._queue]
