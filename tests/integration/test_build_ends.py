"""Whatever ends a build on a cloud of recorded answers: one error that tells why, and nothing left behind."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fakes.cloud import FakeCloud
from fakes.faults import Fate, Ran, Said
from fakes.site import Builder
from fakes.state import FLAVOR
from harness.https import FileServer
from harness.process import LOOPBACK, wait_for

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("build-ends")]

# Seconds: far more than a healthy step takes here, and far less than the usual limits.
LIMIT = 55
TOO_LONG, HUNG = f"for more than {LIMIT}s", f"it did not end within {LIMIT} s"
PATIENCE = 400
STEPS = ("wait-active", "wait-ssh", "wait-cloud-init", "script", "check", "clean", "snapshot", "teardown")


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory, files: FileServer) -> Iterator[Builder]:
    cloud = FakeCloud()
    cloud.start()
    folder = tmp_path_factory.mktemp("builder")
    made = Builder(folder, files, cloud, "--url-host", "localhost", limits=dict.fromkeys(STEPS, f"{LIMIT}s"))
    try:
        yield made
    finally:
        made.stop()
        cloud.stop()


@dataclass(frozen=True)
class End:
    """What becomes of the servers of a build, and what is said of it."""

    fate: Fate
    reasons: tuple[str, ...]
    check: str | None = None


ENDS = {
    "error": End(Fate(boot="error"), ("the server is ERROR: No valid host was found.",)),
    "stuck": End(Fate(boot="stuck"), (f"wait-active: the server is BUILD, {TOO_LONG}",)),
    "deaf": End(Fate(login="refused"), ("wait-ssh: no login at the server", "Connection refused", "console ends with")),
    "mute": End(Fate(login="silent"), ("wait-ssh: no login at the server", "console ends with")),
    "stranger": End(Fate(login="denied"), ("wait-ssh: no login at the server", "Permission denied")),
    "impostor": End(Fate(login="impostor"), ("wait-ssh: no login at the server", "Host key verification failed")),
    "flood": End(
        Fate(commands={r"^\s*true\s*$": Said(0, "x" * (2 << 20))}),
        ("wait-ssh: no login at the server", "says more than the 1 MiB"),
    ),
    "cloudinit": End(Fate(cloud_init="error"), ("cloud-init failed", "scripts_user", "console ends with")),
    "endless": End(Fate(cloud_init="running"), (f"wait-cloud-init: cloud-init runs, {TOO_LONG}",)),
    "exit3": End(
        Fate(units={"imagewright-script": Ran(exit=3, output=b"why it failed\n")}),
        ("spec.script: the script failed: exit status 3",),
    ),
    "hang": End(
        Fate(units={"imagewright-script": Ran(exit=None, seconds=0.1)}),
        (f"spec.script: the script failed: {HUNG}",),
    ),
    "dirty": End(
        Fate(units={"imagewright-clean": Ran(exit=1, output=b"no space left\n")}),
        ("the server could not be cleaned: exit status 1", "no space left"),
    ),
    "soiled": End(
        Fate(units={"imagewright-clean": Ran(exit=None, seconds=0.1)}),
        (f"the server could not be cleaned: {HUNG}",),
    ),
    "killed": End(Fate(snapshot="killed"), ("is killed",)),
    "saving": End(Fate(snapshot="saving"), ("snapshot: the image is made: image", f"is saving, {TOO_LONG}")),
    "vanishing": End(Fate(snapshot="gone"), ("the cloud dropped the image that it was to make 3 times",)),
    "unfit": End(
        Fate(units={"imagewright-check": Ran(exit=1, output=b"no marker\n")}),
        ("spec.check: the check failed: exit status 1",),
        "test -e /opt/marker",
    ),
    "unsure": End(
        Fate(units={"imagewright-check": Ran(exit=None, seconds=0.1)}),
        (f"spec.check: the check failed: {HUNG}",),
        "sleep infinity",
    ),
}


@pytest.fixture(scope="module")
def doomed(builder: Builder) -> dict[str, str]:
    """The builds of ENDS, all begun at once: most of their time is waiting."""
    for name, end in ENDS.items():
        builder.cloud.faults.server(f"^{name}-", end.fate)
    return {name: builder.build(name, *(["--check", end.check] if end.check else [])) for name, end in ENDS.items()}


@pytest.mark.parametrize("name", ENDS)
def test_what_ends_a_build_is_said_once_and_nothing_is_left(
    builder: Builder, doomed: dict[str, str], name: str
) -> None:
    reason = builder.client.buried(doomed[name], PATIENCE)["reason"]
    for words in ENDS[name].reasons:
        assert words in reason
    assert builder.left(name) == []
    # Nova itself leaves a killed one, which has no data.
    assert [one for one in builder.images(name) if one["status"] != "killed"] == []


def test_an_image_that_vanishes_each_time_is_asked_for_three_times(builder: Builder, doomed: dict[str, str]) -> None:
    builder.client.buried(doomed["vanishing"], PATIENCE)
    assert builder.told(doomed["vanishing"]).count("was asked for") == 3


def test_output_of_what_failed_is_in_the_log(builder: Builder, doomed: dict[str, str]) -> None:
    builder.client.buried(doomed["exit3"], PATIENCE)
    assert "why it failed" in builder.told(doomed["exit3"])


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("no-such-script", ["--script-url", "SITE/nothing.sh"], "spec.script.url"),
        (
            "another-script",
            ["--script-url", "SITE/provision.sh", "--script-sha256", "0" * 64],
            "spec.script.sha256: what is there has",
        ),
        ("no-such-flavor", ["--flavor", "Elsewhere"], f'spec.flavor: no flavor "Elsewhere"; there are: {FLAVOR}'),
        ("no-such-network", ["--network", "Elsewhere"], 'spec.network: no network "Elsewhere"'),
    ],
    ids=["script", "digest", "flavor", "network"],
)
def test_what_is_not_there_is_told_before_anything_is_made(
    builder: Builder, name: str, words: list[str], reason: str
) -> None:
    words = [word.replace("SITE", f"{builder.files.url}/files") for word in words]
    job = builder.build(name, *words, script=False, flavor="" if "--flavor" in words else FLAVOR)
    assert reason in builder.client.buried(job, 60)["reason"]
    assert builder.steps(job) == []


def test_a_host_that_redirects_to_another_gives_its_secrets_to_nobody(builder: Builder) -> None:
    elsewhere = builder.files.url.replace(LOOPBACK, "localhost")
    url = builder.files.redirect("/files/moved.sh", f"{elsewhere}/files/provision.sh")
    job = builder.build("moved", "--script-url", url, "--script-secret", "TOKEN", script=False)
    entry = builder.client.buried(job, 60)
    assert entry["field"] == "spec.script.secrets"
    assert f"came by {LOOPBACK}, localhost" in entry["reason"]
    assert builder.steps(job) == []


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/flavors", '{"flavors": []}', "spec.flavor: no flavor has 2 processors"),
        ("/networks", '{"networks": []}', "spec.network: the project has no network with a subnet"),
    ],
    ids=["no-flavor", "no-network"],
)
def test_a_cloud_without_what_a_build_needs_is_told_before_anything_is_made(
    builder: Builder, doomed: dict[str, str], path: str, body: str, reason: str
) -> None:
    for job in doomed.values():
        builder.client.ended(job, PATIENCE)
    fault = builder.cloud.faults.answer(
        "GET", path, 200, times=None, headers={"Content-Type": "application/json"}, body=body
    )
    try:
        job = builder.build(f"bare-{path[1:]}", script=False, flavor="" if path == "/flavors" else FLAVOR)
        assert reason in builder.client.buried(job, 60)["reason"]
        assert fault.met >= 1
        assert builder.steps(job) == []
    finally:
        builder.cloud.faults.http.remove(fault)


def test_the_deadline_of_a_job_ends_a_build_that_waits_and_nothing_is_left(builder: Builder) -> None:
    builder.cloud.faults.server("^patient-", Fate(boot="stuck"))
    job = builder.build("patient", "--deadline", "10s", script=False)
    assert builder.client.buried(job, 120)["field"] == "deadline"
    # It is buried before its servers are removed, lest they are what crashes workers.
    wait_for("nothing is left", lambda: builder.left("patient") == [], 60, every=0.2)


def test_a_build_is_cancelled_while_its_script_runs_and_nothing_is_left(builder: Builder) -> None:
    builder.cloud.faults.server("^halted-", Fate(units={"imagewright-script": Ran(exit=None)}))
    job = builder.build("halted")
    wait_for("its script runs", lambda: "the script runs" in builder.told(job), 120, every=0.3)
    builder.client.run("cancel", job, "--wait", seconds=90)
    assert builder.client.status(job)["state"] == "cancelled"
    wait_for("nothing is left", lambda: builder.left("halted") == [], 60, every=0.2)
    assert builder.images("halted") == []
