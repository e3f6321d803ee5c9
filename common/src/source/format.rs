//! What a disk image is, told from its bytes alone: nothing is opened, nothing is followed.
//!
//! The name of the format decides how a hypervisor opens the image, so bytes that lead it to another file (a backing
//! file, an external data file, a parent, an extent), bytes that it cannot open, and bytes that are not what the job
//! calls them are refused before anything is made on a cloud. Layouts are those of QEMU (`docs/interop/qcow2.rst`,
//! `block/vdi.c`, `block/vmdk.c`), of Microsoft's VHD 1.0 and [MS-VHDX] and of VMware's Virtual Disk Format 5.0.

mod container;
mod fields;
mod foreign;
mod qcow2;
#[cfg(test)]
mod tests;
mod vhdx;
mod vmdk;

use crate::job::DiskFormat;
use fields::Fields;

/// How many bytes of the beginning are enough for every format but VHDX; an ISO shows itself at 32769.
pub const HEAD: usize = 64 * 1024;

/// How many bytes of the beginning are ever looked at: a VHDX keeps its metadata behind log and block table.
pub const HEAD_MAX: usize = 4 * 1024 * 1024 + 256 * 1024;

/// How many bytes of the end are looked at, where they can be had.
pub const TAIL: usize = 512;

/// How an ISO 9660 or UDF volume begins, at [`ISO_AT`].
const ISO_WORDS: [&[u8]; 3] = [b"CD001", b"NSR02", b"NSR03"];
const ISO_AT: usize = 32 * 1024 + 1;

/// Why bytes are not taken as a disk image. Never worth a retry; none of the texts repeats what the bytes say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// There is nothing.
    #[error("it is empty (0 bytes); a cloud would take it as an image of size 0")]
    Empty,
    /// Recognised, and nothing that is uploaded.
    #[error("it is {name}; {remedy}")]
    Unsupported {
        /// What it is, with its article.
        name: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// An image that leads to other files or needs a key.
    #[error("it is a {format} that {reason}; `qemu-img convert -O qcow2` makes one file of it that stands alone")]
    NotAlone {
        /// What it is.
        format: DiskFormat,
        /// What it refers to.
        reason: &'static str,
    },
    /// A header that no program would open.
    #[error("it begins like a {format} but {reason}; make it anew, `qemu-img check` or `qemu-img info` tells more")]
    Damaged {
        /// What it begins like.
        format: DiskFormat,
        /// What is wrong.
        reason: &'static str,
    },
    /// The job says one thing, the bytes another.
    #[error(
        "it is not what it claims: disk_format says {declared}, the bytes are {found}; set disk_format to {found} or auto{hint}"
    )]
    Mismatch {
        /// What the job says.
        declared: DiskFormat,
        /// What the bytes are.
        found: DiskFormat,
        /// What else is worth knowing.
        hint: &'static str,
    },
}

/// How many bytes of the beginning [`inspect`] needs, judged by the first few. Fewer when the image is shorter.
pub fn wanted(start: &[u8]) -> usize {
    if start.starts_with(vhdx::MAGIC) { HEAD_MAX } else { HEAD }
}

/// What the bytes are. `head` is the beginning ([`wanted`] bytes of it, or all there is), `tail` the last [`TAIL`]
/// bytes where the source can be read at any place, `length` the size in bytes. Without `tail` a fixed VHD, which has
/// only a footer, is taken as raw.
///
/// # Errors
/// [`FormatError`], saying what was found and what to do.
pub fn inspect(head: &[u8], tail: Option<&[u8]>, length: u64) -> Result<DiskFormat, FormatError> {
    if length == 0 || head.is_empty() {
        return Err(FormatError::Empty);
    }
    let fields = Fields(head);
    if head.starts_with(qcow2::MAGIC) {
        return qcow2::check(fields, length).map(|()| DiskFormat::Qcow2);
    }
    if head.starts_with(vmdk::MAGIC) {
        return vmdk::check(fields).map(|()| DiskFormat::Vmdk);
    }
    if head.starts_with(container::VHD_MAGIC) {
        return container::vhd(fields).map(|()| DiskFormat::Vhd);
    }
    if head.starts_with(vhdx::MAGIC) {
        return vhdx::check(fields).map(|()| DiskFormat::Vhdx);
    }
    if fields.slice(container::VDI_AT, 4) == Some(container::VDI_MAGIC) {
        return container::vdi(fields).map(|()| DiskFormat::Vdi);
    }
    if let Some(refusal) = foreign::recognise(fields, tail) {
        return Err(refusal);
    }
    if tail.is_some_and(|tail| container::is_fixed_vhd(Fields(tail))) {
        return Ok(DiskFormat::Vhd);
    }
    let iso = fields.slice(ISO_AT, 5).is_some_and(|word| ISO_WORDS.contains(&word));
    Ok(if iso { DiskFormat::Iso } else { DiskFormat::Raw })
}

/// The format to upload as: `auto` takes what was found, anything else must be what was found. An ISO may be called
/// raw, since hybrid ones are written to disks block by block and refer to nothing.
///
/// # Errors
/// [`FormatError::Mismatch`].
pub fn agree(declared: DiskFormat, found: DiskFormat) -> Result<DiskFormat, FormatError> {
    match (declared, found) {
        (DiskFormat::Auto, found) => Ok(found),
        (declared, found) if declared == found => Ok(found),
        (DiskFormat::Raw, DiskFormat::Iso) => Ok(DiskFormat::Raw),
        (declared, found) => Err(FormatError::Mismatch { declared, found, hint: hint(declared, found) }),
    }
}

fn hint(declared: DiskFormat, found: DiskFormat) -> &'static str {
    if (declared, found) == (DiskFormat::Vhd, DiskFormat::Raw) {
        " (a fixed VHD is known only by its end, which is looked at in files alone)"
    } else {
        ""
    }
}
