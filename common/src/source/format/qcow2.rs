//! QEMU copy on write, versions 2 and 3 (`docs/interop/qcow2.rst` of QEMU). All numbers are big-endian.

use super::FormatError;
use super::fields::Fields;
use crate::job::DiskFormat;

pub(super) const MAGIC: &[u8] = b"QFI\xfb";

/// Cluster sizes that QEMU opens: 512 bytes to 2 MiB.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;

/// Length of the version 2 header, and the least of version 3.
const HEADER_V2: u32 = 72;
const HEADER_V3: u32 = 104;

/// Incompatible features that are known: dirty, corrupt, external data file, compression type, extended L2 entries.
const FEATURES_KNOWN: u64 = 0b1_1111;
const FEATURE_CORRUPT: u64 = 1 << 1;
const FEATURE_DATA_FILE: u64 = 1 << 2;

/// Bytes of an entry of the L1 table; the smallest entry of the snapshot table.
const L1_ENTRY: u64 = 8;
const SNAPSHOT_ENTRY: u64 = 40;

struct Header {
    backing: u64,
    cluster_bits: u32,
    virtual_size: u64,
    encryption: u32,
    l1: (u64, u64),
    refcounts: (u64, u64),
    snapshots: (u64, u64),
    features: u64,
    length: u32,
}

pub(super) fn check(fields: Fields<'_>, length: u64) -> Result<(), FormatError> {
    let version = fields.be32(4);
    if version == Some(1) {
        let remedy = "convert it with `qemu-img convert -O qcow2`";
        return Err(FormatError::Unsupported { name: "a qcow of version 1", remedy });
    }
    if !matches!(version, Some(2 | 3)) {
        return damaged("its version is neither 2 nor 3");
    }
    let Some(header) = read(fields, version == Some(3)) else { return damaged("it ends within its header") };
    alone(&header)?;
    sane(&header, length)
}

fn read(fields: Fields<'_>, third: bool) -> Option<Header> {
    let cluster_bits = fields.be32(20)?;
    let refcount_clusters = u64::from(fields.be32(56)?);
    Some(Header {
        backing: fields.be64(8)?,
        cluster_bits,
        virtual_size: fields.be64(24)?,
        encryption: fields.be32(32)?,
        l1: (fields.be64(40)?, u64::from(fields.be32(36)?).saturating_mul(L1_ENTRY)),
        refcounts: (
            fields.be64(48)?,
            refcount_clusters.saturating_mul(1u64.checked_shl(cluster_bits).unwrap_or(u64::MAX)),
        ),
        snapshots: (fields.be64(64)?, u64::from(fields.be32(60)?).saturating_mul(SNAPSHOT_ENTRY)),
        features: if third { fields.be64(72)? } else { 0 },
        length: if third { fields.be32(100)? } else { HEADER_V2 },
    })
}

/// Whether the disk is all in this file and readable without a key. An encrypted one is refused although Glance stores
/// it: no property of a job can carry a key, so a server made from it would find no disk.
fn alone(header: &Header) -> Result<(), FormatError> {
    let refuse = |reason| Err(FormatError::NotAlone { format: DiskFormat::Qcow2, reason });
    if header.backing != 0 {
        return refuse("names a backing file");
    }
    if header.features & FEATURE_DATA_FILE != 0 {
        return refuse("keeps its data in another file");
    }
    if header.encryption != 0 {
        return refuse("is encrypted, and a server would have no key");
    }
    Ok(())
}

fn sane(header: &Header, length: u64) -> Result<(), FormatError> {
    if header.features & !FEATURES_KNOWN != 0 {
        return damaged("needs a feature that is not known (incompatible_features)");
    }
    if header.features & FEATURE_CORRUPT != 0 {
        return damaged("is marked corrupt");
    }
    if !CLUSTER_BITS.contains(&header.cluster_bits) {
        return damaged("its cluster size is not 512 bytes to 2 MiB");
    }
    let most = 1u32.checked_shl(header.cluster_bits).unwrap_or(u32::MAX);
    if header.length != HEADER_V2 && !(HEADER_V3..=most).contains(&header.length) {
        return damaged("its header length is less than 104 or more than a cluster");
    }
    if header.virtual_size == 0 {
        return damaged("its disk has size 0");
    }
    let inside = |(at, size): (u64, u64)| at.checked_add(size).is_some_and(|end| end <= length);
    if !inside(header.l1) || !inside(header.refcounts) || !inside(header.snapshots) {
        return damaged("is cut short: its tables lie beyond its end");
    }
    Ok(())
}

fn damaged(reason: &'static str) -> Result<(), FormatError> {
    Err(FormatError::Damaged { format: DiskFormat::Qcow2, reason })
}
