"""Keystone and Glance from PyPI in a virtual environment of their own, and their initialised databases as a template.

Both are made once and kept in the cache folder. `python -m harness.servers` does only that.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import config
from harness.identity import Identity
from harness.process import LOOPBACK, HarnessError, Process, free_port, is_listening, wait_for

PACKAGES = ["keystone==30.0.0", "glance==33.0.0", "pyuwsgi==2.0.30.post1"]
REPO = Path(__file__).resolve().parents[2]
CLOUDS = 4  # how many clouds the template knows; a run starts as many as it wants

Say = Callable[[str], None]


def cache_folder() -> Path:
    folder = Path(os.environ.get("IMAGEWRIGHT_TEST_CACHE") or REPO / ".tox" / "servers").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join([sys.version, *texts]).encode()).hexdigest()[:12]


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _quiet(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def install(say: Say = _quiet) -> Path:
    """The virtual environment with the servers; about a minute the first time, nothing after."""
    cache = cache_folder()
    venv = cache / f"venv-{_digest(*PACKAGES, str(cache))}"
    with _locked(cache):
        if (venv / "complete").exists():
            return venv
        began = time.monotonic()
        say(f"installing {' '.join(PACKAGES)} (once, about a minute)")
        shutil.rmtree(venv, ignore_errors=True)
        _run([sys.executable, "-m", "virtualenv", "-q", str(venv)])
        _run([str(venv / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", *PACKAGES])
        (venv / "complete").touch()
        say(f"installed in {time.monotonic() - began:.0f} s")
    return venv


def _run(command: list[str], env: dict[str, str] | None = None) -> None:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", **(env or {})}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise HarnessError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )


def serve(venv: Path, name: str, module: str, port: int, folder: Path, threads: int = 16) -> Process:
    """One WSGI service under uWSGI, as clouds host it; `Connection: close` because http-socket closes anyway."""
    variable = "OS_KEYSTONE_CONFIG_DIR" if module.startswith("keystone.") else "OS_GLANCE_CONFIG_DIR"
    return Process(
        [
            *[venv / "bin" / "uwsgi", "--http-socket", f"{LOOPBACK}:{port}", "--module", f"{module}:application"],
            *["--pythonpath", Path(__file__).parents[1]],
            *["--master", "--no-orphans", "--processes", "1", "--threads", str(threads), "--enable-threads"],
            *["--lazy-apps", "--need-app", "--die-on-term", "--buffer-size", "65535", "--thunder-lock"],
            *["--socket-timeout", "60", "--add-header", "Connection: close", "--disable-logging"],
        ],
        log=folder / f"{name}.uwsgi.log",
        env={**os.environ, "PYTHONWARNINGS": "ignore", variable: str(folder)},
    )


def wait_listening(process: Process, port: int, seconds: float = 60.0) -> None:
    def ready() -> bool:
        if not process.is_running():
            raise HarnessError(f"{process.command[0]} ended while starting:\n{process.tail()}")
        return is_listening(port)

    wait_for(f"{process.log.name} listens on {port}", ready, seconds, every=0.05)


def template(venv: Path, say: Say = _quiet) -> Path:
    """A folder with the databases and keys of a Keystone (projects, users, catalogue) and of an empty Glance."""
    cache = cache_folder()
    sources = [Path(__file__), Path(config.__file__), Path(__file__).with_name("identity.py")]
    final = cache / f"template-{_digest(venv.name, *(path.read_text() for path in sources))}"
    with _locked(cache):
        if final.exists():
            return final
        began = time.monotonic()
        say("initialising Keystone and Glance databases (once)")
        for old in cache.glob("template-*"):
            shutil.rmtree(old, ignore_errors=True)
        draft = cache / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        _initialise(venv, draft)
        draft.rename(final)
        say(f"initialised in {time.monotonic() - began:.0f} s")
    return final


def _initialise(venv: Path, draft: Path) -> None:
    port = free_port()
    url = f"http://{LOOPBACK}:{port}/v3"
    (draft / "keystone.conf").write_text(config.keystone(draft, token_seconds=3600))
    glance = ["--config-file", str(draft / "glance-api.conf")]
    (draft / "glance-api.conf").write_text(config.glance(draft, venv, 1, free_port(), url, {}))
    migrate = subprocess.Popen(
        [str(venv / "bin" / "glance-manage"), *glance, "db_sync"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    owner = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
    manage = [str(venv / "bin" / "keystone-manage"), "--config-file", str(draft / "keystone.conf")]
    env = {"OS_KEYSTONE_CONFIG_DIR": str(draft)}
    _run([*manage, "db_sync"], env)
    _run([*manage, "fernet_setup", *owner], env)
    _run([*manage, "credential_setup", *owner], env)
    urls = [word for kind in ("public", "internal", "admin") for word in (f"--bootstrap-{kind}-url", url)]
    login = [
        "--bootstrap-username",
        "admin",
        "--bootstrap-password",
        config.PASSWORD,
        "--bootstrap-project-name",
        "admin",
    ]
    _run(
        [
            *manage,
            "bootstrap",
            *login,
            "--bootstrap-service-name",
            "keystone",
            "--bootstrap-region-id",
            "cloud1",
            *urls,
        ],
        env,
    )
    if migrate.wait(120) != 0:
        raise HarnessError("glance-manage db_sync failed")
    keystone = serve(venv, "keystone", "keystone.wsgi.api", port, draft)
    try:
        wait_listening(keystone, port)
        Identity(url).fill(CLOUDS)
    finally:
        keystone.stop()
    for database in ("keystone.db", "glance.db"):
        write_ahead(draft / database)


def write_ahead(path: Path) -> None:
    """Readers and a writer at once, as with a real database server; the mode stays with the file and its copies."""
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode = WAL")
    database.close()


if __name__ == "__main__":
    template(install())
