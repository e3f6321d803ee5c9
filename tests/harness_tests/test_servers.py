"""The servers behave as the suites rely on, and nothing of them stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from harness import images
from harness.amqp import Amqp
from harness.https import FileServer
from harness.openstack import OpenStack
from harness.oracle import Images
from harness.process import wait_for
from harness.proxy import Proxy
from harness.rabbitmq import Broker

TESTS = Path(__file__).resolve().parents[1]


def test_clouds_are_independent_of_each_other(stack: OpenStack) -> None:
    Images(stack.connect("cloud1")).add("only-here")
    assert Images(stack.connect("cloud1")).active("only-here")
    assert not Images(stack.connect("cloud2")).named("only-here")


def test_projects_do_not_see_each_other_unless_shared(stack: OpenStack) -> None:
    ours, theirs = Images(stack.connect("cloud1")), Images(stack.connect("cloud1", "other"))
    made = theirs.add("theirs", visibility="shared")
    assert ours.get(made["id"]) is None
    theirs.share(made["id"], ours.project_id)
    ours.accept(made["id"])
    assert [one["id"] for one in ours.find(name="theirs", member_status="accepted")] == [made["id"]]
    assert not ours.named("theirs")


def test_one_cloud_can_be_killed_and_comes_back_with_its_images(stack: OpenStack) -> None:
    cloud = stack.cloud("cloud3")
    made = Images(stack.connect("cloud3")).add("survivor")
    cloud.kill9()
    with pytest.raises(requests.ConnectionError):
        requests.get(cloud.url, timeout=5)
    cloud.start()
    assert Images(stack.connect("cloud3")).get(made["id"]) == made


def test_a_size_cap_can_be_set_and_taken_away(stack: OpenStack) -> None:
    cloud = stack.cloud("cloud3")
    cloud.restart(image_size_cap=10)
    glance = Images(stack.connect("cloud3"))
    with pytest.raises(requests.HTTPError, match="413"):
        glance.add("too big", b"more than ten bytes")
    cloud.restart()
    assert glance.add("no longer too big", b"more than ten bytes")["status"] == "active"


def test_application_credentials_and_short_lived_tokens_work(stack: OpenStack) -> None:
    auth = {"methods": ["application_credential"]}
    made = stack.application_credential("harness")
    secret = {"id": made["application_credential_id"], "secret": made["application_credential_secret"]}
    body = {"auth": {"identity": {**auth, "application_credential": secret}}}
    url = stack.short_lived_tokens(8)
    token = requests.post(f"{url}/auth/tokens", json=body, timeout=30).headers["X-Subject-Token"]

    def status() -> int:
        headers = {"X-Auth-Token": token}
        return requests.get(f"{stack.cloud('cloud1').url}/v2/images", headers=headers, timeout=30).status_code

    assert status() == 200
    wait_for("the token has ended", lambda: status() == 401, 30)


def test_a_slow_upload_is_seen_saving_and_ends_queued_when_cut(stack: OpenStack, tmp_path: Path) -> None:
    glance = Images(stack.connect("cloud1"))
    data = images.raw(tmp_path / "disk", 4 * images.MIB).read_bytes()
    with Proxy(stack.cloud("cloud1").port) as proxy:
        proxy.throttle(500_000)
        made = glance.create("slow")
        token = stack.connect("cloud1").auth_token
        script = (
            "import sys, requests\n"
            f"requests.put('{proxy.url}/v2/images/{made['id']}/file', data=open('{tmp_path}/disk', 'rb'),\n"
            f" headers={{'X-Auth-Token': '{token}', 'Content-Type': 'application/octet-stream'}})"
        )
        client = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        wait_for("saving", lambda: (glance.get(made["id"]) or {})["status"] == "saving")
        assert proxy.count("PUT", f"{made['id']}/file") == 1
        proxy.cut()
        wait_for("queued", lambda: (glance.get(made["id"]) or {})["status"] == "queued")
        assert client.wait(10) != 0
        proxy.throttle(None)
        assert proxy.upstream_bytes < len(data)


def test_scripted_faults_answer_only_the_wanted_requests(stack: OpenStack) -> None:
    with Proxy(stack.cloud("cloud1").port) as proxy:
        fault = proxy.fail("GET", "/healthcheck", 503, times=2, headers={"Retry-After": "1"})
        answers = [requests.get(f"{proxy.url}/healthcheck", timeout=10) for _ in range(3)]
        assert [one.status_code for one in answers] == [503, 503, 200]
        assert answers[0].headers["Retry-After"] == "1"
        assert fault.met == 2
        proxy.stall("GET", "/healthcheck")
        with pytest.raises(requests.Timeout):
            requests.get(f"{proxy.url}/healthcheck", timeout=0.5)


def test_the_file_server_speaks_tls_with_its_own_authority(files: FileServer, tmp_path: Path) -> None:
    disk = images.raw(tmp_path / "disk")
    url = files.add("disk", disk)
    files.redirect("/moved", url)
    got = requests.get(f"{files.url}/moved", verify=str(files.ca), timeout=10)
    assert got.content == disk.read_bytes()
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(url, timeout=10)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(f"{files.url}/truncated/disk", verify=str(files.ca), timeout=10)
    unsized = requests.get(f"{files.url}/chunked/disk", verify=str(files.ca), timeout=10)
    assert unsized.content == disk.read_bytes()
    assert "Content-Length" not in unsized.headers


def test_messages_survive_a_killed_broker(broker: Broker) -> None:
    client = Amqp(broker.url, "harness")
    with client.channel() as channel:
        channel.exchange_declare("harness.jobs", "topic", durable=True)
        channel.queue_declare("harness.q", durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_bind("harness.q", "harness.jobs", "#")
    client.publish("upload.amd64", b'{"one": 1}', {"x": 1})
    broker.nodes[0].settle()
    broker.nodes[0].kill9()
    broker.nodes[0].start()
    # In its first moments after a crash a quorum queue has no leader, and basic.get would hang for a minute.
    wait_for("the queue has its message back", lambda: client.ready("q") == 1, 30)
    found = client.peek("q")
    assert [one.json() for one in found] == [{"one": 1}]
    assert [one.json() for one in client.peek("q")] == [{"one": 1}]
    client.delete_queues(["harness.q"])


def running_in(folder: str) -> list[str]:
    """Command lines that mention a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if folder in line and "harness_left" not in line:
            found.append(line)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_stays_behind_when_the_run_is_killed(number: int) -> None:
    # A run that was started in the background of a script inherits an ignored SIGINT.
    script = (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from harness.rabbitmq import Broker\nfrom harness.openstack import OpenStack\n"
        "one, two = OpenStack(1), Broker()\none.start()\ntwo.start()\n"
        "print(one.folder, two.folder, flush=True)\ntime.sleep(100)  # harness_left\n"
    )
    command = [sys.executable, "-c", script]
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=TESTS, start_new_session=True
    )
    assert run.stdout is not None
    folders = run.stdout.readline().split()
    assert len(folders) == 2
    assert all(Path(folder).exists() for folder in folders)
    ports = [line for folder in folders for line in running_in(folder)]
    assert ports
    os.killpg(run.pid, number)
    run.wait(20)
    began = time.monotonic()
    wait_for("all processes are gone", lambda: not any(running_in(folder) for folder in folders), 20)
    wait_for("all folders are gone", lambda: not any(Path(folder).exists() for folder in folders), 20)
    assert time.monotonic() - began < 20


def test_a_corrupted_request_changes_the_digest_once(stack: OpenStack, tmp_path: Path) -> None:
    glance = Images(stack.connect("cloud1"))
    disk = images.raw(tmp_path / "disk", images.MIB)
    token = stack.connect("cloud1").auth_token
    headers = {"X-Auth-Token": str(token), "Content-Type": "application/octet-stream"}
    with Proxy(stack.cloud("cloud1").port) as proxy:
        fault = proxy.corrupt_next("PUT", "/file$")
        digests = []
        for name in ("wrong", "right"):
            made = glance.create(name)
            url = f"{proxy.url}/v2/images/{made['id']}/file"
            requests.put(url, data=disk.read_bytes(), headers=headers, timeout=30).raise_for_status()
            digests.append((glance.get(made["id"]) or {})["os_hash_value"])
        assert fault.met == 1
        assert digests[0] != images.sha512(disk)
        assert digests[1] == images.sha512(disk)


def test_cloud2_lists_in_small_pages(stack: OpenStack) -> None:
    glance = Images(stack.connect("cloud2"))
    made = {glance.create("many")["id"] for _ in range(23)}
    assert {one["id"] for one in glance.named("many")} == made
    answer = stack.connect("cloud2").image.get("/images?name=many&limit=100").json()
    assert len(answer["images"]) == 20
    assert "next" in answer
