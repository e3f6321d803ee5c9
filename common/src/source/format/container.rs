//! VDI (VirtualBox; `block/vdi.c` of QEMU) and VHD (Microsoft's Virtual Hard Disk Image Format Specification 1.0).

use super::FormatError;
use super::fields::Fields;
use crate::job::DiskFormat;

/// Little-endian 0xBEDA107F, behind 64 bytes of free text.
pub(super) const VDI_MAGIC: &[u8] = &[0x7f, 0x10, 0xda, 0xbe];
pub(super) const VDI_AT: usize = 0x40;
const VDI_TYPE_AT: usize = 0x4c;
const VDI_SIZE_AT: usize = 0x170;
/// The UUIDs of the image this one continues: link, then parent.
const VDI_LINKS_AT: usize = 0x1a8;
const VDI_LINKS_SIZE: usize = 32;
const VDI_HEADER: usize = 512;
const VDI_UNDO: u32 = 3;
const VDI_DIFFERENCING: u32 = 4;

/// The cookie of a footer; a dynamic disk begins with a copy of it.
pub(super) const VHD_MAGIC: &[u8] = b"conectix";
const VHD_SUM_AT: usize = 64;
const VHD_TYPE_AT: usize = 60;
const VHD_FIXED: u32 = 2;
const VHD_DYNAMIC: u32 = 3;
const VHD_DIFFERENCING: u32 = 4;
const VHD_FOOTER: usize = 512;

pub(super) fn vdi(fields: Fields<'_>) -> Result<(), FormatError> {
    let damaged = |reason| Err(FormatError::Damaged { format: DiskFormat::Vdi, reason });
    if fields.0.len() < VDI_HEADER {
        return damaged("it ends within its header");
    }
    if fields.le64(VDI_SIZE_AT) == Some(0) {
        return damaged("its disk has size 0");
    }
    let differs = matches!(fields.le32(VDI_TYPE_AT), Some(VDI_UNDO | VDI_DIFFERENCING));
    let linked = fields.slice(VDI_LINKS_AT, VDI_LINKS_SIZE).is_some_and(|links| links.iter().any(|byte| *byte != 0));
    if differs || linked {
        return Err(FormatError::NotAlone {
            format: DiskFormat::Vdi,
            reason: "continues another image (differencing)",
        });
    }
    Ok(())
}

/// A VHD that begins with the cookie.
pub(super) fn vhd(fields: Fields<'_>) -> Result<(), FormatError> {
    let damaged = |reason| Err(FormatError::Damaged { format: DiskFormat::Vhd, reason });
    match fields.be32(VHD_TYPE_AT) {
        None => damaged("it ends within its header"),
        Some(VHD_DYNAMIC) => Ok(()),
        Some(VHD_DIFFERENCING) => {
            Err(FormatError::NotAlone { format: DiskFormat::Vhd, reason: "continues another image (differencing)" })
        }
        Some(_) => damaged("it is of no kind that begins with a header (dynamic)"),
    }
}

/// Whether the last sector is the footer of a fixed VHD. The checksum must hold, so that a raw disk whose last sector
/// happens to begin with the cookie stays raw.
pub(super) fn is_fixed_vhd(tail: Fields<'_>) -> bool {
    let Some(footer) = tail.slice(0, VHD_FOOTER) else { return false };
    let sum = |bytes: &[u8]| bytes.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    let own = tail.slice(VHD_SUM_AT, 4).map(sum).unwrap_or_default();
    footer.starts_with(VHD_MAGIC)
        && tail.be32(VHD_TYPE_AT) == Some(VHD_FIXED)
        && tail.be32(VHD_SUM_AT) == Some(!sum(footer).wrapping_sub(own))
}
