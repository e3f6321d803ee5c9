"""`python -m chaos.build` builds a worker as a later version may be: it adds a field of its own to `progress`.

It shares all compiled dependencies with the usual build, which the suites make after this one. The program is copied,
as the usual build puts its own in the same place.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from harness.process import HarnessError
from harness.servers import REPO

FEATURE = "imagewright-worker/future-progress"


def _target() -> Path:
    return Path(os.environ.get("CARGO_TARGET_DIR") or REPO / "target")


def later_worker() -> Path:
    """The program that `python -m chaos.build` made."""
    path = _target() / "future-progress" / "imagewright-worker"
    if not path.exists():
        raise HarnessError(f"{path} is not built: python -m chaos.build, then cargo build --bins")
    return path


def main() -> int:
    cargo = [os.environ.get("CARGO", "cargo"), "build", "--bins", "--features", FEATURE]
    done = subprocess.run(cargo, cwd=REPO, check=False)
    if done.returncode == 0:
        folder = _target() / "future-progress"
        folder.mkdir(exist_ok=True)
        # A new file each time: the old one may be running.
        (folder / "imagewright-worker").unlink(missing_ok=True)
        shutil.copy2(_target() / "debug" / "imagewright-worker", folder)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
