"""`python -m harness.shell` checks the scripts of images with shellcheck, which the lint requirements bring."""

import subprocess
import sys

from harness.servers import REPO


def main() -> int:
    content = REPO / "worker" / "content"
    scripts = sorted([*content.glob("*.sh"), content / "provision", REPO / "worker/src/guest/manifest.sh"])
    return subprocess.run(["shellcheck", *map(str, scripts)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
