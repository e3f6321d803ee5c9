"""Gathers the licences of all crates that are in the programs: licences.py FOLDER. Run by charmcraft at the root."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("LICENSE*", "LICENCE*", "COPYING*", "COPYRIGHT*", "NOTICE*", "UNLICENSE*")


def main() -> None:
    """One folder a crate, with its texts; what it says of itself goes to index.txt."""
    target = Path(sys.argv[1])
    (host,) = [line.split()[1] for line in output("rustc", "-vV").splitlines() if line.startswith("host:")]
    command = ["cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={host}"]
    packages = json.loads(output(*command))["packages"]
    lines = []
    for package in sorted(packages, key=lambda one: (one["name"], one["version"])):
        if package["source"] is None:
            continue  # ours: LICENSE is beside the charm
        folder = target / f"{package['name']}-{package['version']}"
        folder.mkdir(parents=True)
        for name in NAMES:
            for path in Path(package["manifest_path"]).parent.glob(name):
                if path.is_file():
                    shutil.copy(path, folder / path.name)
        lines.append(f"{package['name']} {package['version']}: {package['license'] or 'see its file'}\n")
    (target / "index.txt").write_text("".join(lines))


def output(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
