"""A small file system of its own, to fill up and to make read-only: a tmpfs, which takes root (or sudo) to mount."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from harness.process import HarnessError

_CHUNK = 4096


class Disk:
    """`size` bytes at `folder`, until closed."""

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._ballast = folder / "ballast"
        owner = f"size={size},mode=700,uid={os.getuid()},gid={os.getgid()}"
        _as_root("mount", "-t", "tmpfs", "-o", owner, "tmpfs", folder)

    def __enter__(self) -> "Disk":
        return self

    def __exit__(self, *_: object) -> None:
        _as_root("umount", "--lazy", self.folder)

    def fill(self) -> None:
        """Leaves not one block free."""
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as ballast:
            while ballast.write(b"\0" * _CHUNK):
                pass
        assert shutil.disk_usage(self.folder).free == 0

    def make_room(self) -> None:
        self._ballast.unlink()

    def read_only(self) -> None:
        """Nobody may have a file of it open for writing."""
        _as_root("mount", "-o", "remount,ro", self.folder)

    def writable(self) -> None:
        _as_root("mount", "-o", "remount,rw", self.folder)


def _as_root(*words: str | Path) -> None:
    root: list[str] = []
    if os.geteuid() != 0:
        sudo = shutil.which("sudo")
        if sudo is None:
            raise HarnessError(f"`{' '.join(map(str, words))}` needs root, and there is no sudo")
        root = [sudo]
    done = subprocess.run([*root, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HarnessError(f"`{' '.join(map(str, words))}` failed: {done.stderr.strip()}")
