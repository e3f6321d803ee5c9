"""The machine: user, programs, files and services. Knows nothing of Juju."""

import filecmp
import grp
import hashlib
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import files

USER = "imagewright"
OPT = Path("/opt/imagewright")
ETC = Path(files.FOLDER)
STATE = Path(files.STATE)
SYSTEMD = Path("/etc/systemd/system")
WORKER = "imagewright-worker.service"
SCHEDULE = "imagewright-schedule.service"
PROGRAMS = ["imagewright", "imagewright-worker"]
SECONDS = 60
"""What a command of the system may take; none waits for a job."""

UP = ("active", "activating", "reloading")
LIVE = {"clouds.yaml", "policy.yaml", "schedule", "look", "drain", files.NAMESPACES}
"""Files that need no restart: the worker reads them again when told, scripts at each run."""


def install(source: Path) -> None:
    """Copies the programs out of the charm, which is overwritten while they run."""
    _user()
    digest = hashlib.sha256(b"".join((source / name).read_bytes() for name in PROGRAMS)).hexdigest()[:12]
    folder = OPT / digest / "bin"
    current = OPT / "current"
    if current.is_symlink() and current.readlink() == Path(digest) and folder.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        shutil.copy2(source / name, folder / f"{name}.new")
        (folder / f"{name}.new").chmod(0o755)
        (folder / f"{name}.new").rename(folder / name)
    new = OPT / "current.new"
    new.unlink(missing_ok=True)
    new.symlink_to(digest)
    new.rename(current)
    _remove_older(keep=digest)


def outdated() -> bool:
    """Whether the worker was last started from other programs than those of now."""
    note = OPT / "started"
    return not note.exists() or note.read_text() != str((OPT / "current").readlink())


def version() -> str:
    """What the worker calls itself."""
    return _run(str(OPT / "current/bin/imagewright-worker"), "--version").stdout.split()[-1]


def read(name: str) -> str:
    """The text of a file beneath /etc/imagewright, empty if there is none."""
    path = ETC / name
    return path.read_text() if path.exists() else ""


def written() -> dict[str, str]:
    """All files beneath /etc/imagewright, by their paths from there."""
    return {str(path.relative_to(ETC)): path.read_text() for path in ETC.rglob("*") if path.is_file()}


def write(wanted: dict[str, str]) -> set[str]:
    """Makes /etc/imagewright hold exactly these files, 0640 root:imagewright. Returns what changed."""
    changed = {path for path, text in wanted.items() if _put(ETC / path, text, 0o640)}
    for path in ETC.rglob("*"):
        name = str(path.relative_to(ETC))
        if path.is_file() and name not in wanted:
            path.unlink()
            changed.add(name)
    return changed


def write_units(units: dict[str, str]) -> set[str]:
    """Writes the systemd units. Returns which changed; systemd knows of them then."""
    changed = {name for name, text in units.items() if _put(SYSTEMD / name, text, 0o644)}
    if changed:
        _systemctl("daemon-reload")
    return changed


def run_worker(restart: bool, reload: bool) -> None:
    """Keeps the worker running. Never waits: a stop may take a minute."""
    _systemctl("enable", "--quiet", WORKER)
    now = state(WORKER)
    if restart or (reload and now == "activating"):  # systemd drops a reload before the start is done
        _systemctl("restart", "--no-block", WORKER)
        (OPT / "started").write_text(str((OPT / "current").readlink()))
    elif now not in UP:
        _systemctl("start", "--no-block", WORKER)
    elif reload:
        _systemctl("reload", "--no-block", WORKER)


def stop_worker() -> None:
    """Stops it, also after a reboot, if there is one. What it has in hand goes back to the queue."""
    _systemctl("disable", "--quiet", WORKER, check=False)
    _systemctl("stop", "--no-block", WORKER, check=False)


def state(unit: str, what: str = "ActiveState") -> str:
    """What systemd says of a unit; a worker that is about to be up counts as up, one that cannot start does not."""
    return _systemctl("show", f"--property={what}", "--value", unit, check=False).strip()


def drain_old_queue() -> None:
    """Starts what works off the embedded queue, if there is one."""
    if (STATE / "queue.db").exists():
        _systemctl("start", "--no-block", "imagewright-drain.service")


def keep_own_queue() -> None:
    """The queue is in use again: nothing may put it aside."""
    _systemctl("stop", "--no-block", "imagewright-drain.service")


def timers(schedule: bool) -> None:
    """Every unit looks at the clouds; `schedule` is for the leader."""
    _systemctl("enable", "--now", "--quiet", "imagewright-look.timer", "imagewright-published.path")
    _systemctl("enable" if schedule else "disable", "--now", "--quiet", "imagewright-schedule.timer")


def no_schedule() -> None:
    """Takes the timer from a unit that is not to ask for builds, also if it has none."""
    _systemctl("disable", "--now", "--quiet", "imagewright-schedule.timer", check=False)


def schedule_now() -> None:
    """Asks for builds at once, outside of the hook."""
    _systemctl("start", "--no-block", SCHEDULE)


def remove() -> None:
    """Takes away what is ours: services, credentials, programs, state. Waits for nobody to finish work."""
    for name in files.UNITS:
        if (SYSTEMD / name).exists():
            _systemctl("kill", "--signal=SIGKILL", name, check=False)
            _systemctl("disable", "--now", "--quiet", name, check=False)
            (SYSTEMD / name).unlink()
    _systemctl("daemon-reload", check=False)
    for folder in (ETC, OPT, STATE):
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> None:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        words = ["/usr/sbin/useradd", "--system", "--user-group", "--home-dir", str(STATE)]
        _run(*words, "--shell", "/usr/sbin/nologin", USER)
    if not STATE.exists():  # the program may be called before systemd has made it for a service
        STATE.mkdir(mode=0o750)
        shutil.chown(STATE, USER, USER)


def _remove_older(keep: str) -> None:
    for path in OPT.iterdir():
        if path.is_dir() and not path.is_symlink() and path.name != keep:
            shutil.rmtree(path)


def _put(path: Path, text: str, mode: int) -> bool:
    """Whole or not at all; readable for the user of the worker, never for everybody before that."""
    new = path.with_name(f".{path.name}.new")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent.is_relative_to(ETC):
        path.parent.chmod(0o750)
        os.chown(path.parent, 0, grp.getgrnam(USER).gr_gid)
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(text)
    if path.exists() and filecmp.cmp(new, path, shallow=False):
        new.unlink()
        return False
    if mode == 0o640:
        os.chown(new, 0, grp.getgrnam(USER).gr_gid)
    new.chmod(mode)
    new.rename(path)
    return True


def _systemctl(*words: str, check: bool = True) -> str:
    try:
        return _run("/usr/bin/systemctl", *words).stdout
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        if check:
            raise
        return ""


def _run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=SECONDS)
