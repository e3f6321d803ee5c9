"""A small Debian with cloud-init and SSH, as base of builds: what a cloud image is, made here."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

_SUITE = "trixie"
_PACKAGES = (
    "linux-image-cloud-amd64,systemd-sysv,udev,dbus,cloud-init,openssh-server,sudo,iproute2,ifupdown,netbase,"
    "ca-certificates,cloud-guest-utils,e2fsprogs,procps,acpid"
)
_START = 2048  # the first sector of the only partition
_CLOUD_CFG = """
datasource_list: [ConfigDrive, None]
system_info:
  distro: debian
  default_user: {name: ubuntu, lock_passwd: true, sudo: ["ALL=(ALL) NOPASSWD:ALL"], shell: /bin/bash}
locale: false
apt: {preserve_sources_list: true}
cloud_init_modules: [seed_random, growpart, resizefs, set_hostname, update_etc_hosts, users_groups, ssh, write_files]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts_user, final_message]
"""
# Emulated guests are slow: no mitigations, no audit. Without net.ifnames the card is eth0, as the config drive says.
_KERNEL = "root=LABEL=cloudroot rw console=ttyS0,115200n8 net.ifnames=0 mitigations=off audit=0 apparmor=0"
# After `cloud-init clean --machine-id` the next boot is systemd's first: its presets would enable networkd beside
# ifupdown, and wait two minutes for it.
_MASKED = ("systemd-networkd.service", "systemd-networkd.socket", "systemd-networkd-wait-online.service")


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr[-2000:]}"
    return done.stdout.strip()


@contextlib.contextmanager
def _loop(disk: Path, *options: str) -> Iterator[str]:
    device = _run("losetup", "--show", "-f", *options, disk)
    try:
        yield device
    finally:
        _run("losetup", "-d", device)


def build(image: Path) -> None:
    """Makes `image`, a qcow2 of about 160 MB, in some 90 s."""
    folder = image.parent
    folder.mkdir(parents=True, exist_ok=True)
    tree, disk, mount = folder / "tree.tar", folder / "disk.raw", folder / "mount"
    mount.mkdir(exist_ok=True)
    slim = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]
    _run("mmdebstrap", "--variant=minbase", "--mode=root", f"--include={_PACKAGES}", *slim, _SUITE, tree)
    with disk.open("wb") as file:
        file.truncate(2 << 30)
    subprocess.run(["sfdisk", "-q", str(disk)], input=f"{_START},,L,*\n", text=True, check=True)
    with _loop(disk, "-P") as whole, _loop(disk, "-o", str(_START * 512)) as partition:
        _run("mkfs.ext4", "-q", "-L", "cloudroot", partition)
        _run("mount", partition, mount)
        try:
            _run("tar", "-C", mount, "-xpf", tree, "--numeric-owner")
            _furnish(mount)
            grub = ["--modules=part_msdos ext2 biosdisk search search_label serial", f"--boot-directory={mount}/boot"]
            _run("grub-install", "--target=i386-pc", *grub, whole)
        finally:
            _run("umount", mount)
    part = image.with_suffix(".part")
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", disk, part)
    part.rename(image)
    tree.unlink()
    disk.unlink()


def _furnish(root: Path) -> None:
    (root / "etc/fstab").write_text("LABEL=cloudroot / ext4 rw,noatime 0 1\n")
    (root / "etc/hostname").write_text("localhost\n")
    (root / "etc/machine-id").write_text("")
    (root / "etc/cloud/cloud.cfg.d/90_test.cfg").write_text(_CLOUD_CFG)
    for name in _MASKED:
        (root / "etc/systemd/system" / name).symlink_to("/dev/null")
    for name in (
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "e2scrub_all.timer",
        "dpkg-db-backup.timer",
        "fstrim.timer",
    ):
        for link in (root / "etc/systemd/system").glob(f"*.wants/{name}"):
            link.unlink()
    version = next((root / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")
    menu = f"""serial --unit=0 --speed=115200
terminal_output serial console
set timeout=0
menuentry "linux" {{
  search --no-floppy --label cloudroot --set=root
  linux /boot/vmlinuz-{version} {_KERNEL}
  initrd /boot/initrd.img-{version}
}}
"""
    (root / "boot/grub").mkdir(exist_ok=True)
    (root / "boot/grub/grub.cfg").write_text(menu)
