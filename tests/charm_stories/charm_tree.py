"""The charm to run: an unpacked .charm that IMAGEWRIGHT_TEST_CHARM names, or one laid out from the repository."""

import os
import shutil
import sys
import zipfile
from pathlib import Path

import yaml

from harness.cli import program
from harness.servers import REPO

DISPATCH = """#!/bin/sh
# As the one that charmcraft writes, with the interpreter of the tests.
here=$(dirname "$(realpath "$0")")
PYTHONPATH="$here/src" exec {python} "$here/src/charm.py"
"""


def packed() -> Path | None:
    """The .charm, if the run is about one."""
    named = os.environ.get("IMAGEWRIGHT_TEST_CHARM")
    return Path(named).absolute() if named else None


def options() -> dict[str, object]:
    """The options with a default, as `config-get` shows them after a deployment."""
    declared = yaml.safe_load((REPO / "charm/charmcraft.yaml").read_text())["config"]["options"]
    return {name: option["default"] for name, option in declared.items() if "default" in option}


def lay_out(folder: Path) -> None:
    """Fills the charm folder of one unit."""
    if archive := packed():
        unpack(archive, folder)
        return
    shutil.copytree(REPO / "charm/src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    declared = yaml.safe_load((REPO / "charm/charmcraft.yaml").read_text())
    parts = {"actions": declared.pop("actions"), "config": declared.pop("config"), "metadata": declared}
    for name, part in parts.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(part))
    (folder / "workload/bin").mkdir(parents=True)
    for name in ("imagewright", "imagewright-worker"):
        shutil.copy2(program(name), folder / "workload/bin" / name)
    (folder / "dispatch").write_text(DISPATCH.format(python=sys.executable))
    (folder / "dispatch").chmod(0o755)


def unpack(archive: Path, folder: Path) -> None:
    """As Juju does: modes are kept."""
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            path = Path(opened.extract(entry, folder))
            if mode := (entry.external_attr >> 16) & 0o777:
                path.chmod(mode)
