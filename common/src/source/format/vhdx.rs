//! VHDX ([MS-VHDX] 2.2 to 2.6). All numbers are little-endian.
//!
//! Whether it continues another image is said in its metadata: region table -> metadata table -> items.

use super::fields::Fields;
use super::{FormatError, HEAD_MAX};
use crate::job::DiskFormat;

pub(super) const MAGIC: &[u8] = b"vhdxfile";

/// The first of two equal region tables.
const REGIONS_AT: usize = 192 * 1024;
const REGIONS_MAGIC: &[u8] = b"regi";
const REGIONS_FIRST: usize = 16;
const METADATA_MAGIC: &[u8] = b"metadata";
const METADATA_FIRST: usize = 32;
/// Both kinds of table have entries of this size and at most this many of them.
const ENTRY: usize = 32;
const ENTRIES_MAX: u32 = 2047;

/// The GUIDs, as they lie in the file.
const METADATA_REGION: [u8; 16] = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
const FILE_PARAMETERS: [u8; 16] = *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
const PARENT_LOCATOR: [u8; 16] = *b"\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c";
/// Bit of the second word of the file parameters.
const HAS_PARENT: u32 = 1 << 1;

pub(super) fn check(fields: Fields<'_>) -> Result<(), FormatError> {
    match has_parent(fields) {
        Ok(false) => Ok(()),
        Ok(true) => {
            Err(FormatError::NotAlone { format: DiskFormat::Vhdx, reason: "continues another image (differencing)" })
        }
        Err(reason) => Err(FormatError::Damaged { format: DiskFormat::Vhdx, reason }),
    }
}

fn has_parent(fields: Fields<'_>) -> Result<bool, &'static str> {
    let metadata = metadata_at(fields)?;
    if fields.slice(metadata, METADATA_MAGIC.len()) != Some(METADATA_MAGIC) {
        return Err(if metadata < HEAD_MAX {
            "it has no metadata"
        } else {
            "its metadata lies behind the first 4 MiB"
        });
    }
    let count = fields.le16(metadata.saturating_add(10)).map(u32::from);
    for entry in entries(metadata.saturating_add(METADATA_FIRST), count)? {
        let guid = fields.slice(entry, 16).ok_or("its metadata is cut short")?;
        if guid == PARENT_LOCATOR {
            return Ok(true);
        }
        if guid == FILE_PARAMETERS {
            let item = fields.le32(entry + 16).and_then(|offset| metadata.checked_add(usize::try_from(offset).ok()?));
            let flags =
                item.and_then(|item| fields.le32(item.checked_add(4)?)).ok_or("its file parameters are missing")?;
            if flags & HAS_PARENT != 0 {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Where the metadata region begins.
fn metadata_at(fields: Fields<'_>) -> Result<usize, &'static str> {
    if fields.slice(REGIONS_AT, REGIONS_MAGIC.len()) != Some(REGIONS_MAGIC) {
        return Err("it has no region table");
    }
    let table = entries(REGIONS_AT + REGIONS_FIRST, fields.le32(REGIONS_AT + 8))?;
    let mut found = table.into_iter().filter(|entry| fields.slice(*entry, 16) == Some(&METADATA_REGION));
    let entry = found.next().ok_or("its region table names no metadata")?;
    fields.le64(entry + 16).and_then(|at| usize::try_from(at).ok()).ok_or("its region table is cut short")
}

/// Where the entries of a table begin, the first at `first`.
fn entries(first: usize, count: Option<u32>) -> Result<Vec<usize>, &'static str> {
    let count = count.filter(|count| *count <= ENTRIES_MAX).ok_or("a table of it has too many entries")?;
    let count = usize::try_from(count).map_err(|_| "a table of it has too many entries")?;
    Ok((0..count).map(|index| first.saturating_add(index * ENTRY)).filter(|at| *at < HEAD_MAX).collect())
}
