//! What is recognised and not uploaded: other disk formats, encrypted containers, and archives with an image inside.

use super::fields::Fields;
use super::{FormatError, vmdk};

const CONVERT: &str = "convert it with `qemu-img convert -O qcow2`";
const UNPACK: &str = "unpack it first, a cloud does not";
const DECRYPT: &str = "decrypt it first, a server would have no key";

/// Where, the bytes there, what it is, what to do.
type Row = (usize, &'static [u8], &'static str, &'static str);

const TABLE: [Row; 16] = [
    (0, b"QED\0", "a QED image", CONVERT),
    (0, b"WithoutFreeSpace", "a Parallels image", CONVERT),
    (0, b"WithouFreSpacExt", "a Parallels image", CONVERT),
    (0, b"COWD", "a VMDK of the old ESX kind", CONVERT),
    (0, b"OOOM", "a COW image of User-mode Linux", CONVERT),
    (0, b"Bochs Virtual HD Image", "a Bochs image", CONVERT),
    (0, b"#!/bin/sh\n#V2.0 Format\n", "a cloop image", CONVERT),
    (0, b"LUKS\xba\xbe", "a LUKS container", DECRYPT),
    (0, b"\x1f\x8b\x08", "a gzip archive", UNPACK),
    (0, b"\xfd7zXZ\0", "an xz archive", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    (4, b"1AY&SY", "a bzip2 archive", UNPACK),
    (0, b"PK\x03\x04", "a zip archive", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"\x04\x22\x4d\x18", "an lz4 archive", UNPACK),
    (257, b"ustar", "a tar archive (an OVA is one)", UNPACK),
];

/// The trailer of an Apple disk image.
const DMG: &[u8] = b"koly\0\0\0\x04";

/// The refusal of what is known and not taken.
pub(super) fn recognise(head: Fields<'_>, tail: Option<&[u8]>) -> Option<FormatError> {
    let row = TABLE.iter().find(|(at, magic, _, _)| head.slice(*at, magic.len()) == Some(*magic));
    if let Some((_, _, name, remedy)) = row {
        return Some(FormatError::Unsupported { name, remedy });
    }
    if vmdk::is_descriptor(head.0) {
        let name = "the text descriptor of a VMDK, its data is in other files";
        return Some(FormatError::Unsupported { name, remedy: CONVERT });
    }
    let dmg = tail.is_some_and(|tail| tail.starts_with(DMG));
    dmg.then_some(FormatError::Unsupported { name: "an Apple disk image (dmg)", remedy: CONVERT })
}
