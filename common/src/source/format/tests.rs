use std::process::Command;

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

/// A header of version 3 as qemu-img writes it: 64 KiB clusters, 1 GiB disk, L1 at the fourth cluster.
fn qcow2() -> Vec<u8> {
    let mut head = vec![0u8; 5 * 65_536];
    head[..4].copy_from_slice(qcow2::MAGIC);
    put(&mut head, 4, &3u32.to_be_bytes());
    put(&mut head, 20, &16u32.to_be_bytes());
    put(&mut head, 24, &(1024 * MIB).to_be_bytes());
    put(&mut head, 36, &2u32.to_be_bytes());
    put(&mut head, 40, &(3 * 65_536u64).to_be_bytes());
    put(&mut head, 48, &65_536u64.to_be_bytes());
    put(&mut head, 56, &1u32.to_be_bytes());
    put(&mut head, 96, &4u32.to_be_bytes());
    put(&mut head, 100, &104u32.to_be_bytes());
    head
}

const DESCRIPTOR: &str = "# Disk DescriptorFile\nversion=1\nCID=123a465b\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n\
    # Extent description\nRW 2048 SPARSE \"disk.vmdk\"\n\n#DDB\nddb.adapterType = \"ide\"\n";

fn vmdk(descriptor: &str) -> Vec<u8> {
    let mut head = vec![0u8; 65_536];
    head[..4].copy_from_slice(vmdk::MAGIC);
    put(&mut head, 4, &3u32.to_le_bytes());
    put(&mut head, 12, &2048u64.to_le_bytes());
    put(&mut head, 28, &1u64.to_le_bytes());
    put(&mut head, 36, &20u64.to_le_bytes());
    put(&mut head, 512, descriptor.as_bytes());
    head
}

fn vdi() -> Vec<u8> {
    let mut head = vec![0u8; 4096];
    put(&mut head, 0, b"<<< Oracle VM VirtualBox Disk Image >>>");
    put(&mut head, container::VDI_AT, container::VDI_MAGIC);
    put(&mut head, 0x4c, &1u32.to_le_bytes());
    put(&mut head, 0x170, &MIB.to_le_bytes());
    head
}

/// A footer with a right checksum; 3 is dynamic, 2 fixed, 4 differencing.
fn vhd(kind: u32) -> Vec<u8> {
    let mut footer = vec![0u8; 512];
    put(&mut footer, 0, container::VHD_MAGIC);
    put(&mut footer, 60, &kind.to_be_bytes());
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut footer, 64, &(!sum).to_be_bytes());
    footer
}

/// Metadata at 2 MiB with file parameters; `guid` is a second item.
fn vhdx(flags: u32, guid: [u8; 16]) -> Vec<u8> {
    let (regions, metadata) = (192 * 1024, 2 * 1024 * 1024);
    let mut head = vec![0u8; 3 * 1024 * 1024];
    put(&mut head, 0, vhdx::MAGIC);
    put(&mut head, regions, b"regi");
    put(&mut head, regions + 8, &1u32.to_le_bytes());
    put(&mut head, regions + 16, b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e");
    put(&mut head, regions + 32, &(2 * MIB).to_le_bytes());
    put(&mut head, metadata, b"metadata");
    put(&mut head, metadata + 10, &2u16.to_le_bytes());
    put(&mut head, metadata + 32, b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b");
    put(&mut head, metadata + 48, &65_536u32.to_le_bytes());
    put(&mut head, metadata + 64, &guid);
    put(&mut head, metadata + 65_536 + 4, &flags.to_le_bytes());
    head
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

fn look(bytes: &[u8]) -> Result<DiskFormat, FormatError> {
    let length = u64::try_from(bytes.len()).unwrap();
    inspect(&bytes[..bytes.len().min(wanted(bytes))], bytes.len().checked_sub(TAIL).map(|from| &bytes[from..]), length)
}

fn changed(mut bytes: Vec<u8>, at: usize, what: &[u8]) -> Vec<u8> {
    put(&mut bytes, at, what);
    bytes
}

#[track_caller]
fn refused(bytes: &[u8], word: &str) {
    let text = look(bytes).unwrap_err().to_string();
    assert!(text.contains(word), "{text:?} does not say {word:?}");
}

#[test]
fn each_format_is_found() {
    assert_eq!(look(&qcow2()), Ok(DiskFormat::Qcow2));
    assert_eq!(look(&changed(qcow2(), 4, &2u32.to_be_bytes())), Ok(DiskFormat::Qcow2));
    assert_eq!(look(&vmdk(DESCRIPTOR)), Ok(DiskFormat::Vmdk));
    assert_eq!(look(&vmdk(&DESCRIPTOR.replace("streamOptimized", "monolithicSparse"))), Ok(DiskFormat::Vmdk));
    assert_eq!(look(&vdi()), Ok(DiskFormat::Vdi));
    assert_eq!(look(&vhd(3)), Ok(DiskFormat::Vhd));
    assert_eq!(look(&[vec![7u8; 4096], vhd(2)].concat()), Ok(DiskFormat::Vhd));
    assert_eq!(look(&vhdx(0, [0; 16])), Ok(DiskFormat::Vhdx));
    assert_eq!(look(&changed(vec![0; 40_000], ISO_AT, b"CD001")), Ok(DiskFormat::Iso));
    assert_eq!(look(b"x"), Ok(DiskFormat::Raw));
    assert_eq!(look(&[0; 4096]), Ok(DiskFormat::Raw));
}

#[test]
fn nothing_is_refused_as_empty() {
    assert_eq!(inspect(b"", None, 0), Err(FormatError::Empty));
}

#[test]
fn a_qcow2_that_leads_away_or_is_broken_is_refused() {
    refused(&changed(qcow2(), 8, &112u64.to_be_bytes()), "backing file");
    refused(&changed(qcow2(), 72, &(1u64 << 2).to_be_bytes()), "another file");
    refused(&changed(qcow2(), 72, &(1u64 << 1).to_be_bytes()), "corrupt");
    refused(&changed(qcow2(), 72, &(1u64 << 5).to_be_bytes()), "not known");
    refused(&changed(qcow2(), 32, &2u32.to_be_bytes()), "encrypted");
    refused(&changed(qcow2(), 4, &1u32.to_be_bytes()), "version 1");
    refused(&changed(qcow2(), 4, &4u32.to_be_bytes()), "neither 2 nor 3");
    refused(&changed(qcow2(), 20, &8u32.to_be_bytes()), "cluster size");
    refused(&changed(qcow2(), 20, &u32::MAX.to_be_bytes()), "cluster size");
    refused(&changed(qcow2(), 24, &[0; 8]), "size 0");
    refused(&changed(qcow2(), 40, &u64::MAX.to_be_bytes()), "beyond its end");
    refused(&changed(qcow2(), 36, &u32::MAX.to_be_bytes()), "beyond its end");
    refused(&changed(qcow2(), 56, &u32::MAX.to_be_bytes()), "beyond its end");
    refused(&changed(qcow2(), 60, &u32::MAX.to_be_bytes()), "beyond its end");
    refused(&changed(qcow2(), 100, &72_000u32.to_be_bytes()), "header length");
    refused(&qcow2()[..60], "within its header");
    refused(&qcow2()[..65_536 * 2], "beyond its end");
    assert_eq!(
        look(&changed(qcow2(), 72, &0b1_1001u64.to_be_bytes())),
        Ok(DiskFormat::Qcow2),
        "dirty, zstd, extended L2"
    );
}

#[test]
fn a_vmdk_of_more_than_one_file_is_refused() {
    let with = |from: &str, to: &str| vmdk(&DESCRIPTOR.replace(from, to));
    refused(&with("streamOptimized", "monolithicFlat"), "createType");
    refused(&with("createType", "otherType"), "createType");
    refused(&with("\"disk.vmdk\"", "\"/etc/shadow\""), "extent");
    refused(&with("SPARSE \"disk.vmdk\"", "FLAT \"disk-flat.vmdk\" 0"), "extent");
    refused(&with("#DDB\n", "RW 2048 SPARSE \"b.vmdk\"\n"), "exactly one extent");
    refused(&with("RW 2048 SPARSE \"disk.vmdk\"\n", ""), "exactly one extent");
    refused(&with("#DDB\n", "parentFileNameHint=\"/etc/shadow\"\n"), "parentFileNameHint");
    refused(&changed(vmdk(DESCRIPTOR), 30_000, b"PARENTFILENAMEHINT=x"), "parentFileNameHint");
    refused(&with("parentCID=ffffffff", "parentCID=12345678"), "names another file");
    refused(&with("#DDB\n", "something else\n"), "unknown line");
    refused(&changed(vmdk(DESCRIPTOR), 12, &[0; 8]), "size 0");
    refused(&changed(vmdk(DESCRIPTOR), 28, &2u64.to_le_bytes()), "second sector");
    refused(&changed(vmdk(DESCRIPTOR), 36, &u64::MAX.to_le_bytes()), "cut short");
    refused(DESCRIPTOR.as_bytes(), "text descriptor");
    refused(b"# a comment\n\nversion=1\ncreateType=\"monolithicFlat\"\n", "text descriptor");
}

#[test]
fn differencing_disks_are_refused() {
    refused(&changed(vdi(), 0x4c, &4u32.to_le_bytes()), "differencing");
    refused(&changed(vdi(), 0x1a8, &[1; 16]), "differencing");
    refused(&vhd(4), "differencing");
    refused(&vhdx(2, [0; 16]), "differencing");
    refused(&vhdx(0, *b"\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c"), "differencing");
    refused(&vhdx(0, [0; 16])[..1024 * 1024], "no metadata");
    refused(&changed(vhdx(0, [0; 16]), 192 * 1024 + 32, &(1u64 << 40).to_le_bytes()), "first 4 MiB");
}

#[test]
fn what_is_no_disk_image_is_named() {
    refused(b"QED\0", "QED");
    refused(b"LUKS\xba\xbe\0\x01", "LUKS");
    refused(b"WithouFreSpacExt", "Parallels");
    refused(b"\x1f\x8b\x08\0", "gzip");
    refused(&changed(vec![0; 1024], 257, b"ustar"), "OVA");
    let dmg = [vec![0; 4096], changed(vec![0; 512], 0, b"koly\0\0\0\x04")].concat();
    refused(&dmg, "dmg");
}

#[test]
fn a_footer_with_a_wrong_checksum_is_no_vhd() {
    let bytes = [vec![7u8; 4096], changed(vhd(2), 100, b"x")].concat();
    assert_eq!(look(&bytes), Ok(DiskFormat::Raw));
}

#[test]
fn a_declared_format_must_be_there() {
    use DiskFormat::{Auto, Iso, Qcow2, Raw, Vhd};
    assert_eq!(agree(Auto, Qcow2), Ok(Qcow2));
    assert_eq!(agree(Raw, Raw), Ok(Raw));
    assert_eq!(agree(Raw, Iso), Ok(Raw));
    let text = agree(Raw, Qcow2).unwrap_err().to_string();
    assert!(text.contains("not what it claims") && text.contains("qcow2"), "{text}");
    assert!(agree(Iso, Raw).is_err());
    assert!(agree(Vhd, Raw).unwrap_err().to_string().contains("fixed VHD"));
}

/// What qemu-img makes, where there is one; the headers above are made by hand so that nothing rests on it.
#[test]
fn what_qemu_img_makes_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let cases = [
        ("qcow2", "compat=1.1", "qcow2"),
        ("qcow2", "compat=0.10", "qcow2"),
        ("vmdk", "subformat=monolithicSparse", "vmdk"),
        ("vmdk", "subformat=streamOptimized", "vmdk"),
        ("vdi", "static=off", "vdi"),
        ("vdi", "static=on", "vdi"),
        ("vpc", "subformat=dynamic", "vhd"),
        ("vpc", "subformat=fixed", "vhd"),
        ("vhdx", "subformat=dynamic", "vhdx"),
        ("vhdx", "subformat=fixed", "vhdx"),
        ("raw", "preallocation=off", "raw"),
    ];
    for (format, options, found) in cases {
        let path = directory.path().join("image");
        let made =
            Command::new("qemu-img").args(["create", "-q", "-f", format, "-o", options]).arg(&path).arg("20M").status();
        let Ok(status) = made else { return println!("SKIPPED: there is no qemu-img here") };
        assert!(status.success());
        assert_eq!(look(&std::fs::read(&path).unwrap()).map(DiskFormat::as_str), Ok(found), "{format} {options}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(start in 0..8usize, bytes: Vec<u8>, tail in prop::option::of(any::<[u8; 512]>()), length: u64) {
        let starts = [qcow2(), vmdk(DESCRIPTOR), vdi(), vhd(3), vhdx(0, [0; 16]), DESCRIPTOR.into(), vec![0; 40_000], vec![]];
        let magic = &starts[start][..starts[start].len().min(8)];
        let head = [magic, &bytes].concat();
        let _ = inspect(&head, tail.as_ref().map(|tail| &tail[..]), length);
    }

    #[test]
    fn no_damage_makes_it_panic(start in 0..5usize, damage in prop::collection::vec((0..2048usize, any::<u8>()), 1..20), cut: usize) {
        let starts = [qcow2(), vmdk(DESCRIPTOR), vdi(), vhd(3), vhdx(0, [0; 16])];
        let mut bytes = starts[start].clone();
        let places: &[usize] = if start == 4 { &[0, 192 * 1024, 2 * 1024 * 1024] } else { &[0] };
        for (index, (at, byte)) in damage.iter().enumerate() {
            let at = places[index % places.len()] + at;
            if at < bytes.len() { bytes[at] = *byte; }
        }
        bytes.truncate(1 + cut % bytes.len());
        let _ = look(&bytes);
    }
}
