//! VMware, the two kinds that are one file: `streamOptimized` and `monolithicSparse` (Virtual Disk Format 5.0).
//!
//! A sparse extent begins with a binary header that carries a text descriptor. QEMU looks for the descriptor at the
//! second sector whatever the header says, takes a header of capacity 0 as a mere wrapper around a descriptor with
//! extents elsewhere, and follows `parentFileNameHint`; so all three are pinned here.

use super::FormatError;
use super::fields::Fields;
use crate::job::DiskFormat;

pub(super) const MAGIC: &[u8] = b"KDMV";

const SECTOR: usize = 512;
const CAPACITY_AT: usize = 12;
const DESCRIPTOR_AT: usize = 28;
const DESCRIPTOR_SIZE_AT: usize = 36;

/// The words are compared in lower case: the descriptor is read so.
const KINDS: [&str; 2] = ["streamoptimized", "monolithicsparse"];
const ACCESS: [&str; 3] = ["rw", "rdonly", "noaccess"];
/// Keys whose value is the name of a file.
const LEADING_AWAY: [&str; 2] = ["parentfilenamehint", "changetrackpath"];
const PARENT_HINT: &[u8] = b"parentfilenamehint";
const NO_PARENT: &str = "ffffffff";

pub(super) fn check(fields: Fields<'_>) -> Result<(), FormatError> {
    if !matches!(fields.le32(4), Some(1..=3)) {
        return damaged("its version is not 1 to 3");
    }
    if fields.le64(CAPACITY_AT).unwrap_or_default() == 0 {
        return damaged("its disk has size 0");
    }
    if fields.le64(DESCRIPTOR_AT) != Some(1) {
        return damaged("its descriptor is not in the second sector");
    }
    let sectors = fields.le64(DESCRIPTOR_SIZE_AT).and_then(|sectors| usize::try_from(sectors).ok());
    let text = sectors.and_then(|sectors| fields.slice(SECTOR, sectors.checked_mul(SECTOR)?));
    let Some(text) = text else { return damaged("its descriptor is cut short, or longer than 63 KiB") };
    if fields.0.windows(PARENT_HINT.len()).any(|word| word.eq_ignore_ascii_case(PARENT_HINT)) {
        return refuse("continues another image (parentFileNameHint)");
    }
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let text = text.get(..end).and_then(|text| std::str::from_utf8(text).ok()).filter(|text| text.is_ascii());
    match text {
        Some(text) => descriptor(&text.to_ascii_lowercase()),
        None => damaged("its descriptor is not plain text"),
    }
}

/// `text` in lower case. Every line must be understood.
fn descriptor(text: &str) -> Result<(), FormatError> {
    let (mut kind, mut extents) = (None, 0);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if ACCESS.contains(&line.split_whitespace().next().unwrap_or_default()) {
            extents += 1;
            extent(line)?;
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { return damaged("its descriptor has an unknown line") };
        let (key, value) = (key.trim(), value.trim().trim_matches('"'));
        if LEADING_AWAY.contains(&key) || (key == "parentcid" && value != NO_PARENT) {
            return refuse("continues or names another file");
        }
        if key == "createtype" && kind.replace(value).is_some() {
            return damaged("its descriptor gives its kind twice");
        }
    }
    if !kind.is_some_and(|kind| KINDS.contains(&kind)) {
        return refuse("is neither streamOptimized nor monolithicSparse (createType)");
    }
    if extents == 1 { Ok(()) } else { refuse("has not exactly one extent") }
}

/// `RW 20480 SPARSE "disk.vmdk"`: the name is the one the file had when it was made, so it may be any plain name.
fn extent(line: &str) -> Result<(), FormatError> {
    let sparse = line.split_whitespace().nth(2) == Some("sparse");
    if sparse && !line.contains(['/', '\\']) { Ok(()) } else { refuse("keeps its data in another file (extent)") }
}

/// Whether the bytes are a descriptor alone: comments, blank lines, then `version=` (as QEMU probes), or its title.
pub(super) fn is_descriptor(head: &[u8]) -> bool {
    let title = b"# disk descriptorfile";
    if head.get(..title.len()).is_some_and(|start| start.eq_ignore_ascii_case(title)) {
        return true;
    }
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(b"#"));
    first.is_some_and(|line| matches!(line, b"version=1" | b"version=2" | b"version=3"))
}

fn refuse(reason: &'static str) -> Result<(), FormatError> {
    Err(FormatError::NotAlone { format: DiskFormat::Vmdk, reason })
}

fn damaged(reason: &'static str) -> Result<(), FormatError> {
    Err(FormatError::Damaged { format: DiskFormat::Vmdk, reason })
}
