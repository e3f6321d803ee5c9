"""The main job before your eyes: five architectures, three revisions each, on two real clouds that keep two.

Builds the programs, installs and starts a Keystone and two Glances on loopback, uploads, and shows what the clouds
hold. Needs no root. Everything it makes lies in `.try/` and, for the servers' packages, in `.tox/`.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness import images, servers
from harness.cli import ARCHES, Client, Worker
from harness.openstack import OpenStack
from harness.oracle import Images
from harness.process import HarnessError, wait_for

FOLDER = servers.REPO / ".try"
CLOUDS = ("cloud1", "cloud2")
KEEP = 2
ROUNDS = 3
BEGAN = time.monotonic()

OWN_CLOUD = """
On your own cloud (MYCLOUD is a name in your clouds.yaml; the queue is a file in your state folder):
  cargo build --release --bins
  target/release/imagewright-worker --file-root "$PWD" &
  target/release/imagewright upload --name my-image --arch amd64 --cloud MYCLOUD \\
      --file "$PWD/disk.qcow2" --keep 2 --wait
"""

_print_lock = threading.Lock()


def say(text: str) -> None:
    with _print_lock:
        print(f"[{time.monotonic() - BEGAN:5.1f} s] {text}", flush=True)


def build() -> None:
    """cargo build --bins; its own words are shown only if it fails, and now and then the crate it is at."""
    began = time.monotonic()
    command = [os.environ.get("CARGO", "cargo"), "build", "--bins", "--color", "never"]
    running = subprocess.Popen(
        command,
        cwd=servers.REPO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    last = began
    for line in running.stderr or ():
        lines.append(line)
        if line.strip().startswith("Compiling") and time.monotonic() - last > 15:
            last = time.monotonic()
            say(f"  still building: {line.split()[1]} ({len(lines)} packages so far)")
    if running.wait() != 0:
        raise HarnessError("cargo build --bins failed:\n" + "".join(lines[-40:]))
    say(f"the programs are built ({time.monotonic() - began:.0f} s)")


def prepare() -> None:
    """Build and installation at the same time."""
    say("building the programs (cargo build --bins) while Keystone and Glance are installed")
    say("  (about two minutes the first time, nothing later)")
    with ThreadPoolExecutor() as pool:
        work = [pool.submit(build), pool.submit(lambda: servers.template(servers.install(say), say))]
        for one in work:
            one.result()


def fresh_folder() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "images").mkdir(parents=True)


def upload(client: Client, arch: str, disk: Path) -> None:
    """One command for both clouds; what it says while it waits is shown as it comes."""
    words = ["upload", "--name", f"try-{arch}", "--arch", arch, "--cloud", ",".join(CLOUDS), "--file", disk]
    running = client.start(*words, "--keep", str(KEEP), "--wait")
    said: list[str] = []
    for line in running.stderr or ():
        said.append(line)
        say(f"  {arch:8} {line.rstrip()}")
    if running.wait() != 0:
        raise HarnessError(f"imagewright upload for {arch} ended with {running.returncode}\n{''.join(said)}")


def rounds(client: Client) -> dict[str, list[Path]]:
    """Three revisions of each architecture; the files by architecture, oldest first."""
    disks: dict[str, list[Path]] = {arch: [] for arch in ARCHES}
    for number in range(1, ROUNDS + 1):
        say(f"round {number} of {ROUNDS}: {len(ARCHES)} commands at once, each for {' and '.join(CLOUDS)}, keep {KEEP}")
        for arch in ARCHES:
            disks[arch].append(images.small_qcow2(FOLDER / "images" / f"{arch}-{number}.qcow2"))
        with ThreadPoolExecutor(len(ARCHES)) as pool:
            work = [pool.submit(upload, client, arch, disks[arch][-1]) for arch in ARCHES]
            for one in work:
                one.result()
    return disks


def show(client: Client, stack: OpenStack, disks: dict[str, list[Path]]) -> None:
    """The table by `imagewright images`; every line of it is checked against what openstacksdk sees."""
    listed = {(one["cloud"], one["id"]) for one in client.json("images")}
    print(f"\n{'cloud':8} {'image':14} {'arch':9} {'revision':36} {'of round':8} asked at")
    expected: set[tuple[str, Any]] = set()
    for cloud in CLOUDS:
        oracle = Images(stack.connect(cloud))
        for arch in ARCHES:
            digests = [images.sha512(disk) for disk in disks[arch]]
            found = oracle.named(f"try-{arch}")
            for one in found:
                number = digests.index(one["os_hash_value"]) + 1
                words = [f"{cloud:8} {one['name']:14} {one['architecture']:9} {one['id']} {number:8}"]
                print(*words, one["imagewright_asked_at"])
                expected.add((cloud, one["id"]))
            if [one["os_hash_value"] for one in found if one["status"] == "active"] != digests[-KEEP:]:
                raise HarnessError(f"{cloud} should hold the newest {KEEP} revisions of try-{arch}, and holds: {found}")
    if listed != expected:
        raise HarnessError(f"`imagewright images` and openstacksdk differ: {listed ^ expected}")
    print(
        f"{len(expected)} images, as they should be: the newest {KEEP} of {ROUNDS} each, every digest right.",
        flush=True,
    )


def stop_worker(worker: Worker) -> None:
    worker.terminate()
    if worker.wait(70) != 0:
        raise HarnessError(f"the worker did not end well:\n{worker.tail()}")


def main() -> int:
    prepare()
    fresh_folder()
    say(f"starting Keystone and {len(CLOUDS)} Glances on loopback")
    stack = OpenStack(len(CLOUDS))
    try:
        stack.start()
        shutil.copy(stack.clouds_yaml, FOLDER / "clouds.yaml")
        say(f"the clouds are up; clouds.yaml, queue and images are in {FOLDER.relative_to(servers.REPO)}/")
        client = Client(f"sqlite:{FOLDER / 'queue.db'}", "try", FOLDER / "clouds.yaml", FOLDER)
        worker = client.worker("--file-root", FOLDER / "images")
        disks = rounds(client)
        show(client, stack, disks)
        stop_worker(worker)
    finally:
        stack.stop()
    wait_for("the clouds are gone", lambda: not any(cloud.is_running() for cloud in stack.clouds), 10)
    say("everything is stopped again")
    print(OWN_CLOUD, end="")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except HarnessError as error:
        print(f"\nNot as it should be: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
