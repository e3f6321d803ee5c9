"""The programs under test: `imagewright` as a command, `imagewright-worker` as a process."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.process import HarnessError, Process, wait_for
from harness.servers import REPO

ENDED = ("succeeded", "failed", "cancelled")
ARCHES = ("amd64", "arm64", "s390x", "ppc64le", "armhf")
ANSWER = 13.0  # seconds: what cannot be reached is said within ten, and a loaded machine is slow to start a program


def program(name: str) -> Path:
    """A built binary; IMAGEWRIGHT_TEST_BIN names another folder than target/debug."""
    folder = os.environ.get("IMAGEWRIGHT_TEST_BIN")
    target = Path(os.environ.get("CARGO_TARGET_DIR") or REPO / "target") / "debug"
    path = (Path(folder) if folder else target) / name
    if not path.exists():
        raise HarnessError(f"{path} is not built: cargo build --bins")
    return path


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        try:
            return json.loads(self.out)
        except json.JSONDecodeError as error:
            raise HarnessError(f"not one JSON document: {self.out!r}\n{self.err}") from error


class Client:
    """Runs `imagewright` against one queue, with nothing else from the caller's environment."""

    def __init__(
        self, queue: str, namespace: str, clouds_yaml: Path, folder: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.queue = queue
        self.namespace = namespace
        self.clouds_yaml = clouds_yaml
        self.folder = folder
        self._extra = dict(env or {})
        self._workers = 0

    def env(self) -> dict[str, str]:
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "OS_CLIENT_CONFIG_FILE": str(self.clouds_yaml),
            "RUST_BACKTRACE": "1",
            **self._extra,
        }

    def words(self, *more: str | Path) -> list[str]:
        return ["--queue", self.queue, "--namespace", self.namespace, *(str(word) for word in more)]

    def start(self, *words: str | Path) -> "subprocess.Popen[str]":
        """The command in the background, with its output in pipes."""
        return subprocess.Popen(
            [str(program("imagewright")), *self.words(*words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env(),
            cwd=self.folder,
        )

    def try_run(self, *words: str | Path, seconds: float = 90.0) -> Done:
        """Runs to its end, whatever the exit code."""
        running = self.start(*words)
        try:
            out, err = running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            running.kill()
            out, err = running.communicate()
            text = f"imagewright {' '.join(map(str, words))} still runs after {seconds:g} s"
            raise HarnessError(f"{text}\nstdout: {out[-2000:]}\nstderr: {err[-4000:]}") from error
        return Done(running.returncode, out, err)

    def run(self, *words: str | Path, code: int = 0, seconds: float = 90.0) -> Done:
        """Runs to its end and insists on the exit code."""
        done = self.try_run(*words, seconds=seconds)
        if done.code != code:
            text = f"imagewright {' '.join(map(str, words))} ended with {done.code} instead of {code}"
            raise HarnessError(f"{text}\nstdout: {done.out[-2000:]}\nstderr: {done.err[-4000:]}")
        return done

    def json(self, *words: str | Path, code: int = 0) -> Any:
        return self.run(*words, "--json", code=code).json()

    def upload(
        self,
        name: str,
        file: Path,
        *more: str | Path,
        arch: str = "amd64",
        cloud: str = "cloud1",
        keep: int = 5,
        wait: bool = True,
        code: int = 0,
        seconds: float = 90.0,
    ) -> list[str]:
        """Enqueues uploads of a file, one a cloud; the job ids in the clouds' order."""
        words = ["upload", "--name", name, "--arch", arch, "--cloud", cloud, "--file", file, "--keep", str(keep), *more]
        done = self.run(*words, "--json", *(["--wait"] if wait else []), code=code, seconds=seconds)
        # With --wait the children are listed as well.
        jobs = {job["cloud"]: job["id"] for job in done.json()["jobs"] if job["kind"] == "upload"}
        return [jobs[one] for one in cloud.split(",")]

    def latest(self, name: str, *more: str, cloud: str = "cloud1") -> str:
        return self.run("latest-build-id", name, "--cloud", cloud, *more).out

    def prune(self, name: str, keep: int, *more: str, cloud: str = "cloud1") -> dict[str, Any]:
        """Runs a prune job to its end; its result, {"kept": [...], "deleted": [...]}."""
        words = ["prune", "--name", name, "--cloud", cloud, "--keep", str(keep), "--wait", *more]
        job = self.json(*words)["jobs"][0]["id"]
        return self.status(job)["result"]

    def status(self, job: str) -> dict[str, Any]:
        (entry,) = self.json("status", job)
        return entry

    def ended(self, job: str, seconds: float = 60.0) -> dict[str, Any]:
        """The status of a job once it has ended."""

        def entry() -> dict[str, Any]:
            found = self.status(job)
            assert found["state"] in ENDED, found
            return found

        return wait_for(f"job {job} has ended", entry, seconds, every=0.2)

    def succeeded(self, job: str, seconds: float = 60.0) -> dict[str, Any]:
        found = self.ended(job, seconds)
        assert found["state"] == "succeeded", found
        return found

    def tree_ended(self, job: str, seconds: float = 60.0) -> dict[str, Any]:
        """A job that succeeded, once its children have ended too."""
        found = self.succeeded(job, seconds)
        for child in found["children"]:
            self.ended(child, seconds)
        return found

    def dead(self) -> dict[str, dict[str, Any]]:
        return {entry["id"]: entry for entry in self.json("dead", "list")}

    def buried(self, job: str, seconds: float = 60.0) -> dict[str, Any]:
        """The entry of a job in the dead list, once it is there."""
        return wait_for(f"{job} is buried", lambda: self.dead().get(job), seconds, every=0.3)

    def worker(self, *words: str | Path, env: Mapping[str, str] | None = None) -> "Worker":
        self._workers += 1
        log = self.folder / f"worker-{self._workers}.log"
        return Worker(self.words(*words), log, {**self.env(), **(env or {})}, self.folder)


class Worker(Process):
    """A running `imagewright-worker`."""

    def __init__(
        self, words: list[str], log: Path, env: Mapping[str, str], folder: Path, binary: Path | None = None
    ) -> None:
        super().__init__([binary or program("imagewright-worker"), *words], log, env=env, cwd=folder)
        self.began = time.monotonic()

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def peak_memory(self) -> int:
        """The most resident memory so far, in bytes."""
        return self._status("VmHWM") * 1024

    def bytes_written(self) -> int:
        """What it has caused to be written to disk so far."""
        text = Path(f"/proc/{self.pid}/io").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("write_bytes"))

    def _status(self, key: str) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{key}:"))
