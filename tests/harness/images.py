"""Small real disk images of every format that Glance knows, and malformed ones, made without qemu-img."""

import hashlib
import os
import random
import shutil
import struct
import subprocess
import uuid
from pathlib import Path

CLUSTER = 65_536
_COPIED = 1 << 63
_REFCOUNTS = CLUSTER // 2  # 16-bit entries in one refcount block
_POINTERS = CLUSTER // 8
MIB = 1 << 20
GIB = 1 << 30


def noise(size: int, seed: int | str | None = None) -> bytes:
    """Incompressible bytes; the same for the same seed."""
    return os.urandom(size) if seed is None else random.Random(seed).randbytes(size)


def sha512(path: Path) -> str:
    return _digest(path, "sha512")


def sha256(path: Path) -> str:
    return _digest(path, "sha256")


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()


def qcow2_header(
    virtual_size: int, l1_entries: int, refcount_clusters: int, l1_offset: int, backing: int = 0, features: int = 0
) -> bytes:
    """Version 3, 64 KiB clusters, 16-bit refcounts; the extension area ends at once."""
    fields = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, backing, 8 if backing else 0, 16, virtual_size, 0, l1_entries, l1_offset),
        *(CLUSTER, refcount_clusters, 0, 0, features, 0, 0, 4, 104),
    )
    return fields + bytes(8)


def qcow2(path: Path, data: bytes = b"", holes: int = 0) -> Path:
    """A valid image whose first clusters hold `data`, then `holes` allocated clusters that are a hole in the file."""
    data_clusters = -(-len(data) // CLUSTER)
    guest = data_clusters + holes
    l2_tables = max(1, -(-guest // _POINTERS))
    blocks = 1
    while 3 + blocks + l2_tables + guest > blocks * _REFCOUNTS:
        blocks += 1
    # Clusters in file order: header, refcount table, refcount blocks, L1, L2 tables, data.
    l1_at = 2 + blocks
    first_l2 = l1_at + 1
    first_data = first_l2 + l2_tables
    total = first_data + guest
    with path.open("wb") as out:
        out.write(qcow2_header(max(guest, 1) * CLUSTER, l2_tables, 1, l1_at * CLUSTER))
        out.seek(CLUSTER)
        out.write(struct.pack(f">{blocks}Q", *((2 + block) * CLUSTER for block in range(blocks))))
        out.seek(2 * CLUSTER)
        out.write(struct.pack(f">{total}H", *[1] * total))
        out.seek(l1_at * CLUSTER)
        out.write(
            struct.pack(f">{l2_tables}Q", *((first_l2 + table) * CLUSTER | _COPIED for table in range(l2_tables)))
        )
        out.seek(first_l2 * CLUSTER)
        out.write(struct.pack(f">{guest}Q", *((first_data + cluster) * CLUSTER | _COPIED for cluster in range(guest))))
        out.seek(first_data * CLUSTER)
        out.write(data)
        out.truncate(total * CLUSTER)
    return path


def small_qcow2(path: Path, seed: int | str | None = None, size: int = 128 * 1024) -> Path:
    """About half a MiB of a real image with random content."""
    return qcow2(path, noise(size, seed))


def big_qcow2(path: Path, size: int) -> Path:
    """A valid image of about `size` bytes that takes next to no space on disk."""
    return qcow2(path, noise(CLUSTER), holes=size // CLUSTER)


def raw(path: Path, size: int = 300_000, seed: int | str | None = None) -> Path:
    # A leading text keeps chance from making another format's magic.
    path.write_bytes(b"raw disk without a magic number\0" + noise(size - 32, seed))
    return path


def sparse_raw(path: Path, size: int) -> Path:
    with path.open("wb") as out:
        out.write(b"raw disk without a magic number\0")
        out.truncate(size)
    return path


def qcow2_with_backing_file(path: Path) -> Path:
    """Its header says that the rest of the disk is in the file `base.img`."""
    head = qcow2_header(CLUSTER, 1, 1, 3 * CLUSTER, backing=112)
    path.write_bytes((head + b"base.img").ljust(5 * CLUSTER, b"\0"))
    return path


def qcow2_with_data_file(path: Path) -> Path:
    """Incompatible feature bit 2: the guest's data is in another file."""
    path.write_bytes(qcow2_header(CLUSTER, 1, 1, 3 * CLUSTER, features=1 << 2).ljust(5 * CLUSTER, b"\0"))
    return path


def vmdk(path: Path) -> Path:
    """monolithicSparse: the sparse header, then the text descriptor."""
    header = struct.pack("<4sIIQQQQIQQ", b"KDMV", 1, 3, 2048, 128, 1, 20, 512, 21, 26)
    text = (
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        'createType="monolithicSparse"\nRW 2048 SPARSE "disk.vmdk"\nddb.adapterType = "ide"\n'
    )
    path.write_bytes(header.ljust(512, b"\0") + text.encode().ljust(20 * 512, b"\0") + noise(128 * 1024))
    return path


def vdi(path: Path) -> Path:
    head = bytearray(512)
    head[0:39] = b"<<< Oracle VM VirtualBox Disk Image >>>"
    struct.pack_into("<II", head, 0x40, 0xBEDA107F, 0x00010001)
    struct.pack_into("<Q", head, 0x170, MIB)
    path.write_bytes(bytes(head) + noise(128 * 1024))
    return path


def vhd(path: Path) -> Path:
    """Dynamic: the footer's copy comes first."""
    size = struct.pack(">Q", MIB)
    times = struct.pack(">8sIIQI4sI4s", b"conectix", 2, 0x00010000, 512, 0, b"test", 0x00010000, b"Wi2k")
    footer = (times + size + size + struct.pack(">HBBI", 30, 4, 17, 3)).ljust(512, b"\0")
    path.write_bytes(footer + noise(128 * 1024) + footer)
    return path


def vhdx(path: Path) -> Path:
    """File identifier, region table, and a metadata region with the virtual disk size."""
    disk = bytearray(MIB + 65_536 + 4096)
    disk[0:8] = b"vhdxfile"
    metadata_region = uuid.UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E").bytes_le
    size_item = uuid.UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8").bytes_le
    struct.pack_into("<4sIII16sQII", disk, 192 * 1024, b"regi", 0, 1, 0, metadata_region, MIB, 65_536, 1)
    struct.pack_into("<8sHH", disk, MIB, b"metadata", 0, 1)
    struct.pack_into("<16sIIII", disk, MIB + 32, size_item, 65_536, 8, 4, 0)
    struct.pack_into("<Q", disk, MIB + 65_536, MIB)
    path.write_bytes(bytes(disk))
    return path


def iso(path: Path) -> Path:
    """A primary volume descriptor after the system area."""
    descriptor = bytearray(2048)
    descriptor[0:7] = b"\x01CD001\x01"
    struct.pack_into("<L", descriptor, 80, 64)
    struct.pack_into("<H", descriptor, 128, 2048)
    path.write_bytes(bytes(32_768) + bytes(descriptor) + noise(94 * 1024))
    return path


FORMATS = {"qcow2": small_qcow2, "raw": raw, "vmdk": vmdk, "vdi": vdi, "vhd": vhd, "vhdx": vhdx, "iso": iso}


def qemu_img_check(path: Path) -> str | None:
    """What `qemu-img check` complains of, or None; without qemu-img None as well."""
    tool = shutil.which("qemu-img")
    if tool is None:
        return None
    done = subprocess.run([tool, "check", "-f", "qcow2", str(path)], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stdout + done.stderr
