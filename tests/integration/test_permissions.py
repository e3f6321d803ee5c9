"""Users of RabbitMQ with no more rights than they need, and with less."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.amqp import Amqp
from harness.https import FileServer
from harness.openstack import OpenStack
from harness.process import LOOPBACK
from harness.rabbitmq import Broker, Node
from harness.servers import REPO
from harness.site import Site

pytestmark = pytest.mark.xdist_group("rabbitmq")

PASSWORD = "pass-of-the-test"
NOTHING = "^$"

OPERATIONS = REPO / "docs" / "operations.md"


def _documented(who: str) -> tuple[str, str, str]:
    """The rights in the row of `who` in docs/operations.md, with NS for the namespace."""
    (row,) = (line for line in OPERATIONS.read_text().splitlines() if line.startswith(f"| {who}"))
    cells = [cell.strip().strip("`").replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", row)[2:5]]
    configure, write, read = (cell.replace("imagewright", "NS") for cell in cells)
    return configure, write, read


WORKER = _documented("workers |")
PERSON = _documented("people")
MINE = _documented("whoever runs")


@dataclass(frozen=True)
class Lack:
    """A person without one right, what they try, and the right as the error must name it."""

    words: tuple[str, ...]
    rights: tuple[str, str, str]
    right: str
    thing: str


def _without(expression: str, word: str) -> str:
    left = re.sub(rf"\b{re.escape(word)}\|?", "", expression).replace("|)", ")")
    assert left != expression
    return left


def _person(configure: str = "", write: str = "", read: str = "") -> tuple[str, str, str]:
    """A person without what is named."""
    lacks = (configure, write, read)
    return tuple(_without(all_, lack) if lack else all_ for all_, lack in zip(PERSON, lacks, strict=True))  # pyright: ignore[reportReturnType]


LACKS = [
    Lack(("status",), _person(read="log"), "read", "queue 'NS.log'"),
    Lack(("status", "JOB"), _person(read="log"), "read", "queue 'NS.log'"),
    Lack(("dead", "list"), (r"^amq\.gen.*$", *PERSON[1:]), "configure", "queue 'NS.dead.reader'"),
    Lack(("dead", "list"), _person(read="dead"), "read", "queue 'NS.dead'"),
    Lack(("dead", "requeue", "JOB"), _person(read="dead"), "read", "queue 'NS.dead'"),
    Lack(("dead", "requeue", "JOB"), _person(write="jobs"), "write", "exchange 'NS.jobs'"),
    Lack(("dead", "discard", "JOB"), _person(read="dead"), "read", "queue 'NS.dead'"),
    Lack(("cancel", "JOB"), _person(read="log"), "read", "queue 'NS.log'"),
    Lack(("pause", "--kind", "build"), _person(write="default"), "write", "exchange 'amq.default'"),
    Lack(("resume", "--kind", "prune"), _person(read=r"pause\..*"), "read", "queue 'NS.pause.prune'"),
]


class Rights:
    """Users of one broker, made for one installation."""

    def __init__(self, site: Site, node: Node) -> None:
        self._site = site
        self._node = node
        self._names: list[str] = []

    def become(self, who: str, rights: tuple[str, str, str]) -> None:
        """The programs that start from now on are this user."""
        namespace = self._site.namespace
        name = f"{who}-{namespace}"
        self._node.ctl("add_user", name, PASSWORD)
        self._names.append(name)
        self._node.ctl("set_permissions", name, *(one.replace("NS", namespace) for one in rights))
        self._site.client.queue = f"amqp://{name}:{PASSWORD}@{LOOPBACK}:{self._node.port}"

    def change(self, who: str, rights: tuple[str, str, str]) -> None:
        """Somebody who has already been has other rights from now on."""
        namespace = self._site.namespace
        self._node.ctl("set_permissions", f"{who}-{namespace}", *(one.replace("NS", namespace) for one in rights))

    def forget(self) -> None:
        for name in self._names:
            self._node.ctl("delete_user", name)


@pytest.fixture
def site(stack: OpenStack, files: FileServer, broker: Broker, tmp_path: Path) -> Iterator[Site]:
    made = Site(stack, files, broker, tmp_path)
    yield made
    made.stop()


@pytest.fixture
def rights(site: Site, broker: Broker) -> Iterator[Rights]:
    made = Rights(site, broker.nodes[0])
    yield made
    site.stop()
    made.forget()


def test_the_rights_that_the_documentation_lists_are_enough(site: Site, rights: Rights) -> None:
    rights.become("admin", MINE)
    site.client.run("queues")
    rights.become("worker", WORKER)
    worker = site.worker()
    rights.become("person", PERSON)
    (job,) = site.client.upload("with-rights", site.qcow2())
    site.client.tree_ended(job)
    assert site.client.status(job)["state"] == "succeeded"
    (missing,) = site.client.upload("with-rights", site.root / "absent.img", code=1)
    assert missing in site.client.dead()
    assert site.client.json("queues")
    assert site.client.json("pause", "--kind", "prune,build") == {"paused": ["prune", "build"]}
    assert site.client.json("resume", "--kind", "build") == {"paused": ["prune"]}
    assert site.client.json("resume") == {"paused": []}
    assert site.client.run("log", missing).out
    assert site.client.json("dead", "show", missing)["id"] == missing
    assert site.client.json("dead", "requeue", missing)["jobs"][0]["id"] == missing
    site.client.buried(missing)
    assert site.client.json("dead", "discard", "--all")["jobs"][0]["id"] == missing
    assert worker.is_running()


def test_who_may_not_publish_is_told_so(site: Site, rights: Rights) -> None:
    rights.become("admin", MINE)
    site.client.run("queues")
    rights.become("reader", (PERSON[0], r"^amq\.default$", PERSON[2]))
    words = ["upload", "--name", "x", "--arch", "amd64", "--cloud", "cloud1", "--file", site.qcow2()]
    done = site.client.run(*words, code=64, seconds=11)
    assert f"access to exchange '{site.namespace}.jobs'" in done.err
    assert PASSWORD not in done.err


def test_who_may_not_read_the_log_is_told_so(site: Site, rights: Rights) -> None:
    rights.become("admin", MINE)
    site.client.run("queues")
    rights.become("writer", (PERSON[0], PERSON[1], NOTHING))
    done = site.client.run("status", code=64, seconds=11)
    assert f"access to queue '{site.namespace}.log'" in done.err


def test_who_may_not_declare_what_is_missing_is_told_what_and_how(site: Site, rights: Rights) -> None:
    rights.become("admin", MINE)
    site.client.run("queues")
    amqp = Amqp(site.client.queue, site.namespace)
    amqp.delete_queues([amqp.queue("wait.300")])
    rights.become("person", PERSON)
    done = site.client.run("queues", code=64, seconds=11)
    assert f"{site.namespace}.wait.300" in done.err
    assert "`imagewright queues` as a user who may configure" in done.err


def test_a_worker_that_may_not_read_its_lanes_ends_and_says_which(site: Site, rights: Rights) -> None:
    rights.become("admin", MINE)
    site.client.run("queues")
    rights.become("worker", (NOTHING, WORKER[1], r"^NS\.(prune\..*|lost|log)$"))
    worker = site.worker()
    assert worker.wait(30) == 64
    told = worker.tail()
    assert any(f"access to queue '{site.namespace}.{kind}." in told for kind in ("upload", "base-image"))
    assert PASSWORD not in worker.tail(200)


def test_an_operator_who_lacks_one_right_is_told_which_and_changes_nothing(site: Site, rights: Rights) -> None:
    rights.become("admin", MINE)
    site.client.run("queues")
    rights.become("person", PERSON)
    full = site.client.queue
    site.client.run("pause", "--kind", "prune")
    (job,) = site.client.upload("few-rights", site.root / "absent.img", wait=False)
    rights.become("worker", WORKER)
    site.drain()
    rights.become("lacking", PERSON)
    for lack in LACKS:
        rights.change("lacking", lack.rights)
        words = [job if word == "JOB" else word for word in lack.words]
        done = site.client.run(*words, code=64, seconds=11)
        assert done.out == "", lack
        (line,) = done.err.strip().splitlines()
        assert f"{lack.right} access to {lack.thing.replace('NS', site.namespace)}" in line, lack
        assert f"'lacking-{site.namespace}'" in line, lack
        assert PASSWORD not in line
    site.client.queue = full
    assert site.client.json("resume", "--kind", "build") == {"paused": ["prune"]}
    assert list(site.client.dead()) == [job]
    assert site.client.status(job)["state"] == "failed"
