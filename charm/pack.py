"""Packs the charm out of a clean copy of the repository: python charm/pack.py. Prints the path of the .charm.

On Ubuntu 24.04 this is `charmcraft pack --destructive-mode`. Elsewhere, as on Debian, charmcraft is shown Ubuntu's
os-release, for which it must be root; what comes out holds wheels for this machine's Python, so it is for tests and not
for a release. Needs charmcraft and uv (tests/requirements-pack.txt), cargo, and apt's module for Python.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "target" / "pack"
"""Everything that packing leaves; goes with `cargo clean`."""

NOBLE = 'NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\nUBUNTU_CODENAME=noble\n'
DEBIAN_MODULES = Path("/usr/lib/python3/dist-packages")


def main() -> None:
    """Copies, packs, and puts the .charm into target/pack."""
    tree = WORK / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    copy(tree)
    lend_apt()
    command = [str(Path(sys.executable).with_name("charmcraft")), "pack", "--destructive-mode", "--verbosity=brief"]
    if not is_noble():
        command = as_noble(command)
    subprocess.run(command, cwd=tree / "charm", env=environment(), check=True, stdout=sys.stderr)
    (made,) = (tree / "charm").glob("*.charm")
    final = WORK / "imagewright.charm"
    made.replace(final)
    shutil.rmtree(tree)
    print(final)


def copy(tree: Path) -> None:
    """The files that git knows of, as they are now; charmcraft would copy `target` and all."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def lend_apt() -> None:
    """charmcraft wants apt's module, which is no package of PyPI: the system's own is linked beside it."""
    place = Path(sysconfig.get_path("purelib"))
    for module in [*DEBIAN_MODULES.glob("apt"), *DEBIAN_MODULES.glob("apt_pkg*.so")]:
        if not (place / module.name).exists():
            (place / module.name).symlink_to(module)


def is_noble() -> bool:
    """Whether this is the system that the charm is for."""
    words = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return (words.get("ID"), words.get("VERSION_ID", "").strip('"')) == ("ubuntu", "24.04")


def as_noble(command: list[str]) -> list[str]:
    """The same command where the system says that it is Ubuntu 24.04, for nobody else on this machine."""
    if os.geteuid() != 0:
        sys.exit("pack.py: not Ubuntu 24.04, where charmcraft has to be deceived by a mount: run as root")
    release = WORK / "os-release"
    release.write_text(NOBLE)
    script = 'mount --make-rprivate / && mount --bind "$0" "$(readlink -f /etc/os-release)" && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(release), *command]


def environment() -> dict[str, str]:
    """cargo builds where it always does, so that a second pack takes less time than the first."""
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": tools, "CARGO_TARGET_DIR": target, "CHARMCRAFT_EXPERIMENTAL_MONOREPO": "1"}


if __name__ == "__main__":
    main()
