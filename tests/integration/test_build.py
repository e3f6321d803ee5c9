"""Builds on a cloud of recorded answers: what it takes, and what only costs time there."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from fakes.cloud import FakeCloud
from fakes.commands import PACKAGES, Unit
from fakes.faults import Fate, Ran, Said
from fakes.site import SCRIPT, SECRET, Builder
from harness.https import FileServer
from harness.process import wait_for

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("builds")]


def test_secrets_reach_the_script_and_nothing_else(builder: Builder) -> None:
    builder.cloud.faults.server("^good-", Fate(units={"imagewright-script": Ran(output=f"it is {SECRET}\n".encode())}))
    seen: list[Any] = []

    def runs() -> bool:
        seen[:] = builder.cloud.servers("good-")
        return bool(seen) and "/run/imagewright-script/environment" in seen[0].guest.shell.files

    job = builder.build("good", "--script-secret", "TOKEN")
    wait_for("the script has begun", runs, 120)
    server, guest = seen[0], seen[0].guest
    assert guest.shell.files["/run/imagewright-script/environment"] == f"export TOKEN='{SECRET}'\n".encode()
    assert guest.shell.files["/dev/shm/imagewright-script/script"] == SCRIPT
    asked = json.dumps(server.asked) + base64.b64decode(server.asked["user_data"]).decode("latin-1")
    assert SECRET not in asked
    assert not any(SECRET in text for text in guest.shell.asked)
    assert guest.login.host_key
    entry = builder.client.tree_ended(job, 200)
    (image,) = builder.images("good")
    assert entry["result"]["image_id"] == image["id"]
    assert image["imagewright_verified"] == image["os_hash_value"]
    assert server.imaged == ["SHUTOFF"]
    assert image["imagewright_packages_digest"] == PACKAGES
    told = builder.told(job)
    assert "it is ***" in told
    assert SECRET not in told + builder.worker.log.read_text()
    assert builder.left("good") == []


def test_a_secret_that_lies_across_two_looks_at_the_output_is_hidden(builder: Builder) -> None:
    """Of more than 256 KiB only what is written last follows; that does not begin in a secret either."""
    piece = 16 * 1024
    output = b"".join(b"x" * (piece - 9) + SECRET.encode() + b"y" * 50 for _ in range(20))
    output += SECRET.encode() + b"z" * (8 * 1024 - 9)
    builder.cloud.faults.server("^across-", Fate(units={"imagewright-script": Ran(output=output)}))
    job = builder.build("across", "--script-secret", "TOKEN")
    builder.client.tree_ended(job, 200)
    told = builder.told(job)
    assert not [part for part in (SECRET[:6], SECRET[-6:]) if part in told]
    assert told.count("***") > 10


def test_a_builder_is_open_to_the_workers_alone_and_a_stranger_to_other_builds(builder: Builder) -> None:
    builder.cloud.faults.server("^closed[12]-", Fate(units={"imagewright-script": Ran(exit=None)}))
    jobs = [builder.build(name) for name in ("closed1", "closed2")]
    for job in jobs:
        wait_for("its script runs", lambda job=job: "the script runs" in builder.told(job), 120, every=0.2)
    servers = builder.cloud.servers("closed")
    keys = {builder.cloud.state.key_pairs[server.name]["public_key"] for server in servers}
    assert len(keys) == len({server.guest.host_key for server in servers}) == 2
    for server in servers:
        (group,) = (builder.cloud.state.groups[one] for one in server.groups)
        assert group["name"] == server.name
        rules = [rule for rule in group["security_group_rules"] if rule["direction"] == "ingress"]
        ways = {
            (rule["protocol"], rule["port_range_min"], rule["port_range_max"], rule["remote_ip_prefix"])
            for rule in rules
        }
        assert ways == {("tcp", builder.cloud.ssh_port, builder.cloud.ssh_port, "127.0.0.0/8")}
    for server in servers:
        server.guest.shell.units["imagewright-script"] = Unit(Ran())
    for job in jobs:
        builder.client.tree_ended(job, 100)
    assert builder.left("closed") == []


def test_a_server_whose_image_is_still_read_is_left_alone(builder: Builder) -> None:
    builder.cloud.faults.server("^read-", Fate(snapshot="busy"))
    job = builder.build("read", script=False)
    wait_for("it waits", lambda: "the server is still image_uploading" in builder.told(job), 100, every=0.2)
    (image,) = builder.images("read")
    (server,) = builder.cloud.servers("read-")
    assert image["status"] == "active"
    assert image["imagewright_verified"] == "none"
    assert server.task == "image_uploading"
    server.guest.fate = Fate()
    builder.client.tree_ended(job, 100)
    assert builder.images("read") == [image]
    assert builder.left("read") == []


def test_nothing_is_built_until_an_input_changes_and_keep_counts_builds(builder: Builder) -> None:
    builder.files.files["changing.sh"] = SCRIPT
    words = ["--keep", "2", "--script-url", f"{builder.files.url}/files/changing.sh"]

    def built() -> dict[str, Any]:
        return builder.client.tree_ended(builder.build("inputs", *words, script=False), 100)["result"]

    first = built()
    again = built()
    assert (again["unchanged"], again["image_id"]) == (True, first["image_id"])
    assert "--force" in again["why"]
    newest = [first["image_id"]]
    for number in range(2):
        builder.files.files["changing.sh"] = SCRIPT + b"# %d\n" % number
        newest.append(built()["image_id"])
    assert {image["id"] for image in builder.images("inputs")} == set(newest[-2:])


def release(version: str) -> bytes:
    """What GitHub says of a release of the runner agent."""
    archive = f"actions-runner-linux-x64-{version}.tar.gz"
    asset = {"name": archive, "browser_download_url": f"https://github.com/{archive}", "digest": "sha256:" + "ab" * 32}
    return json.dumps({"tag_name": f"v{version}", "assets": [asset]}).encode()


def test_a_new_release_of_the_runner_agent_is_built_in_and_recorded(tmp_path: Path, files: FileServer) -> None:
    """Though nothing else has changed: GitHub gives no jobs to an agent that is 30 days behind."""
    cloud = FakeCloud()
    cloud.start()
    made = Builder(tmp_path, files, cloud, "--runner-releases", f"{files.url}/files/releases")

    def built() -> dict[str, Any]:
        job = made.build("agent", "--runner-version", "latest", script=False)
        return made.client.tree_ended(job, 100)["result"]

    try:
        files.files["releases/latest"] = release("2.330.0")
        first = built()
        assert built()["image_id"] == first["image_id"]
        assert files.counts["/files/releases/latest"] == 1
        files.files["releases/latest"] = release("2.331.0")
        # A worker asks again after minutes, and another one at once.
        made.replace_worker()
        second = built()
        images = {image["id"]: image["imagewright_runner_version"] for image in made.images("agent")}
        assert images == {first["image_id"]: "2.330.0", second["image_id"]: "2.331.0"}
    finally:
        made.stop()
        cloud.stop()


def test_a_script_without_a_digest_is_warned_of(builder: Builder) -> None:
    job = builder.build("unsigned")
    told = wait_for("it is told", lambda: builder.told(job) if "access is next" in builder.told(job) else None, 60)
    assert f"the script has no sha256 of its own; what was fetched has {hashlib.sha256(SCRIPT).hexdigest()}" in told
    events = builder.client.run("log", job, "--json").out
    assert '"event":"warning"' in events.replace(" ", "")
    builder.client.run("cancel", job, "--wait", seconds=90)


def test_a_server_that_cannot_list_its_packages_becomes_an_image_all_the_same(builder: Builder) -> None:
    """Exit status 127 is what a shell says that does not find a command."""
    builder.cloud.faults.server("^bare-", Fate(commands={"dpkg-query": Said(127, "", "sh: 9: sed: not found\n")}))
    builder.client.tree_ended(builder.build("bare", script=False), 100)
    (image,) = builder.images("bare")
    assert "imagewright_packages_digest" not in image
    assert builder.left("bare") == []


def test_a_server_that_cannot_be_deleted_yet_is_deleted_later(builder: Builder) -> None:
    builder.cloud.faults.server("^stays-", Fate(delete="refused"))
    job = builder.build("stays", script=False)
    wait_for("it waits", lambda: "until it is gone" in builder.told(job), 200, every=0.5)
    (server,) = builder.cloud.servers("stays")
    server.guest.fate = Fate()
    builder.client.tree_ended(job, 100)
    assert builder.left("stays") == []


def test_a_busy_cloud_is_asked_again_when_it_says(builder: Builder) -> None:
    fault = builder.cloud.faults.answer("POST", "/os-keypairs$", 429, headers={"Retry-After": "2"}, times=2)
    job = builder.build("busy", script=False)
    builder.client.tree_ended(job, 200)
    assert fault.met == 2
    assert len(builder.images("busy")) == 1
    assert builder.left("busy") == []


def test_a_build_whose_worker_is_killed_in_every_step_ends_in_one_image(builder: Builder) -> None:
    builder.cloud.faults.server("^mortal", Fate(units={"imagewright-script": Ran(output=b"once\n")}))
    job = builder.build("mortal", "--check", "true")
    seen: set[str] = set()

    def next_step() -> str | None:
        """A step that no worker has died in yet, or `end`."""
        if builder.client.status(job)["state"] in ("succeeded", "failed"):
            return "end"
        return next((step for step in builder.steps(job) if step not in seen), None)

    while (step := wait_for("the next step", next_step, 120, every=0.1)) != "end":
        seen.add(step)
        builder.replace_worker()
    builder.client.tree_ended(job, 60)
    assert len(seen) >= 12, seen
    (image,) = builder.images("mortal")
    assert image["imagewright_verified"] == image["os_hash_value"]
    assert builder.left("mortal") == []


def test_a_full_quota_is_waited_for(builder: Builder) -> None:
    builder.cloud.state.quota = len(builder.cloud.servers())
    try:
        job = builder.build("roomless", script=False)
        wait_for("it waits for room", lambda: "Quota exceeded" in builder.told(job), 60, every=0.3)
        assert builder.client.status(job)["state"] == "waiting"
        assert job not in builder.client.dead()
    finally:
        builder.cloud.state.quota = None
    builder.client.tree_ended(job, 200)
    assert len(builder.images("roomless")) == 1
    assert builder.left("roomless") == []


def test_an_image_that_vanishes_while_it_is_made_is_asked_for_again(builder: Builder) -> None:
    builder.cloud.faults.server("^vanishes-", Fate(snapshot="gone"))

    def asked() -> list[Any]:
        return [server for server in builder.cloud.servers("vanishes") if server.task and server.task[:6] == "image_"]

    job = builder.build("vanishes", script=False)
    (server,) = wait_for("an image is asked for", asked, 120, every=0.01)
    wait_for("it has vanished", lambda: server.task is None, 60, every=0.01)
    assert builder.images("vanishes") == []
    server.guest.fate = Fate()
    builder.client.tree_ended(job, 200)
    action = f"POST /compute/v2.1/servers/{server.id}/action"
    assert builder.cloud.seen[action] >= 2
    assert len(builder.images("vanishes")) == 1
    assert builder.left("vanishes") == []


def test_a_nova_that_fails_for_a_while_is_asked_again(builder: Builder) -> None:
    fault = builder.cloud.faults.answer("GET", "/servers/[0-9a-f-]+$", 503, times=3)
    job = builder.build("shaky", script=False)
    builder.client.tree_ended(job, 250)
    assert fault.met == 3
    assert len(builder.images("shaky")) == 1
    assert builder.left("shaky") == []


@pytest.mark.parametrize(
    ("name", "path"),
    [("lostboot", "/v2.1/servers$"), ("lostgroup", "/v2.0/security-groups$"), ("lostkey", "/os-keypairs$")],
)
def test_an_answer_that_is_lost_makes_nothing_twice(builder: Builder, name: str, path: str) -> None:
    fault = builder.cloud.faults.answer("POST", path, 504, after=True)
    job = builder.build(name, script=False)
    made: set[str] = set()

    def ended() -> bool:
        made.update(server.id for server in builder.cloud.servers(name))
        made.update(key for key, group in list(builder.cloud.state.groups.items()) if name in group["name"])
        return builder.client.status(job)["state"] == "succeeded"

    wait_for("it has succeeded", ended, 200, every=0.2)
    assert fault.met == 1
    assert len(made) == 2, "one server, one group"
    assert len(builder.images(name)) == 1
    assert builder.left(name) == []
