"""The alternatives, each in a virtual environment of its own beneath the test cache."""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

from harness.process import HarnessError
from harness.servers import cache_folder

# openstacksdk is of the version that the predecessor pins.
PACKAGES = {
    "sdk": ["openstacksdk==4.10.0"],
    "glanceclient": ["python-glanceclient==4.13.0"],
    "osc": ["python-openstackclient==10.5.0"],
    "celery": ["celery==5.7.0", "gevent==26.9.0"],
}


def install(name: str) -> Path:
    """The `bin` folder of a peer; made once."""
    packages = PACKAGES[name]
    venv = cache_folder() / "peers" / f"{name}-{packages[0].rpartition('=')[2]}"
    venv.parent.mkdir(exist_ok=True)
    with (venv.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (venv / "complete").exists():
            print(f"installing {' '.join(packages)}", file=sys.stderr, flush=True)
            shutil.rmtree(venv, ignore_errors=True)
            _run([sys.executable, "-m", "virtualenv", "-q", str(venv)])
            _run([str(venv / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", *packages])
            (venv / "complete").touch()
    return venv / "bin"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise HarnessError(f"{' '.join(command)}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
