"""A machine and a program that take notes, and a deployment as Juju would have it."""

import json
from pathlib import Path
from typing import Any

import pytest
from ops import testing

import charm
import program
import workload

CHARM = Path(__file__).resolve().parents[2]
LOGIN = {
    "auth_url": "https://keystone.example.org/v3",
    "password": "s3cr3t-of-edge",
    "project_domain_name": "Default",
    "project_name": "runners",
    "user_domain_name": "Default",
    "username": "runner",
}
OPTIONS = {
    "openstack-auth-url": "https://build.example.org/v3",
    "openstack-project-name": "build",
    "openstack-project-domain-name": "Default",
    "openstack-user-name": "builder",
    "openstack-user-domain-name": "Default",
}


class Machine:
    """Takes the place of `workload`: what would be on the disk, and what systemd was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.units: dict[str, str] = {}
        self.calls: list[str] = []
        self.outdated = True
        self.states = {workload.WORKER: "active"}
        self.results: dict[str, str] = {}

    def state(self, unit: str, what: str = "ActiveState") -> str:
        return self.states.get(unit, "inactive") if what == "ActiveState" else self.results.get(unit, "success")

    def read(self, name: str) -> str:
        return self.files.get(name, "")

    def written(self) -> dict[str, str]:
        return dict(self.files)

    def write(self, wanted: dict[str, str]) -> set[str]:
        changed = {path for path in {*wanted, *self.files} if wanted.get(path) != self.files.get(path)}
        self.files = dict(wanted)
        return changed

    def write_units(self, units: dict[str, str]) -> set[str]:
        changed = {name for name, text in units.items() if self.units.get(name) != text}
        self.units = dict(units)
        return changed

    def run_worker(self, restart: bool, reload: bool) -> None:
        self.outdated = self.outdated and not restart
        self.calls.append("restart" if restart else "reload" if reload else "run")


class Program:
    """Takes the place of `imagewright`: answers by subcommand, and remembers the words."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.images: list[dict[str, Any]] = []
        self.answers: dict[str, Any] = {"queues": []}
        self.error = ""
        self.away: set[str] = set()

    def call(self, *words: str) -> Any:
        self.calls.append(words)
        if self.error:
            raise program.ProgramError(self.error)
        if words[0] in self.answers:
            return self.answers[words[0]]
        return {"jobs": [{"id": f"job-{len(self.calls)}", "kind": words[0], "cloud": "build"}]}

    def partly(self, *words: str) -> tuple[list[dict[str, Any]], bool]:
        self.calls.append(words)
        clouds = words[words.index("--cloud") + 1].split(",")
        rows = [row for row in self.images if row["cloud"] in clouds and row["cloud"] not in self.away]
        complete = not self.away & set(clouds)
        if self.error or not (rows or complete):
            raise program.ProgramError(self.error or "away")
        return rows, complete

    def said(self, command: str) -> list[tuple[str, ...]]:
        return [words for words in self.calls if words[0] == command]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    for name in ("read", "state", "written", "write", "write_units", "run_worker"):
        monkeypatch.setattr(workload, name, getattr(made, name))
    for name in ("stop_worker", "drain_old_queue", "keep_own_queue", "schedule_now", "no_schedule", "remove"):
        monkeypatch.setattr(workload, name, lambda name=name: made.calls.append(name))
    monkeypatch.setattr(workload, "timers", lambda schedule: made.calls.append(f"schedule={schedule}"))
    monkeypatch.setattr(workload, "version", lambda: "0.1.0")
    monkeypatch.setattr(workload, "install", lambda _source: None)
    monkeypatch.setattr(workload, "outdated", lambda: made.outdated)
    return made


@pytest.fixture
def imagewright(monkeypatch: pytest.MonkeyPatch) -> Program:
    made = Program()
    monkeypatch.setattr(program, "call", made.call)
    monkeypatch.setattr(program, "partly", made.partly)
    return made


@pytest.fixture
def context(machine: Machine, imagewright: Program) -> testing.Context[charm.ImagewrightCharm]:
    return testing.Context(charm.ImagewrightCharm, charm_root=CHARM)


def row(cloud: str, image: str, **more: Any) -> dict[str, Any]:
    """A line of `imagewright images --json`."""
    made = {"cloud": cloud, "id": image, "name": "imagewright-noble-x64", "arch": "amd64", "status": "active"}
    return {**made, "created_at": "2026-11-26T10:00:00Z", "verified": True, "job": "j", **more}


def password(text: str = "pw-1") -> testing.Secret:
    return testing.Secret({"password": text}, id="secret:000000000000password", owner=None)


def image(number: int = 5, login: dict[str, str] | None = None) -> testing.Relation:
    bag = LOGIN if login is None else login
    return testing.Relation("image", id=number, remote_app_name=f"runner{number}", remote_units_data={0: bag})


def amqp(**bag: str) -> testing.Relation:
    return testing.Relation("amqp", id=9, remote_app_name="rabbitmq", remote_units_data={0: bag})


def cluster(
    mine: dict[str, str] | None = None,
    app: dict[str, str] | None = None,
    others: dict[int, dict[str, str]] | None = None,
) -> testing.PeerRelation:
    data = {"egress-subnets": "10.0.0.1/32", **(mine or {})}
    peers = {unit: dict(bag) for unit, bag in (others or {}).items()}
    return testing.PeerRelation("cluster", id=1, local_unit_data=data, local_app_data=app or {}, peers_data=peers)


def deployed(*relations: testing.RelationBase, **more: Any) -> testing.State:
    """One unit, the leader, with all options."""
    secret = more.pop("secret", password())
    config = {**OPTIONS, "openstack-password-secret": "secret:000000000000password", **more.pop("config", {})}
    there = list(relations)
    if not any(isinstance(relation, testing.PeerRelation) for relation in there):
        there.append(cluster())
    secrets = [secret, *more.pop("secrets", [])] if secret else []
    state = {"leader": True, "planned_units": 1, **more}
    return testing.State(config=config, relations=there, secrets=secrets, **state)


def published(state: testing.State, number: int = 5) -> dict[str, str]:
    """What the consumer of a relation reads of this unit."""
    return dict(state.get_relation(number).local_unit_data)


def ids(bag: dict[str, str]) -> list[str]:
    return [entry["id"] for entry in json.loads(bag["images"])]
