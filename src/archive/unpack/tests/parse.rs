use std::path::Path;

use proptest::prelude::*;
use tar::EntryType;

use super::Tar;
use crate::archive::unpack::entry::{NodeKind, Time, inside, number};
use crate::archive::unpack::limits::Limits;
use crate::archive::unpack::pax::Pax;
use crate::archive::unpack::reader::entries;
use crate::archive::unpack::refusal::ReadError;
use crate::archive::unpack::{acl, sparse};

fn refused(archive: &[u8]) -> &'static str {
    match entries(archive, Limits::default()) {
        Err(ReadError::Refused(refusal)) => refusal.reason.code.as_str(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn numbers_are_octal_or_base_256() {
    assert_eq!(number(b"0000644\0"), Some(0o644));
    assert_eq!(number(b"   644 \0"), Some(0o644));
    assert_eq!(number(b"77777777"), Some(0o77_777_777));
    assert_eq!(number(b"\0\0\0\0"), Some(0));
    assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\0\x01\0"), Some(256));
    assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Some(-1));
    assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\0"), Some(-256));
    for bad in [
        &b"0000648\0"[..],
        b"-000001\0",
        b"12 34\0\0\0",
        b"\x00001234\0",
        b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"0x12\0",
    ] {
        assert_eq!(number(bad), None, "{}", bad.escape_ascii());
    }
}

#[test]
fn names_stay_inside() {
    assert_eq!(inside(b"./a//b/./c/").unwrap().to_str(), Some("a/b/c"));
    assert_eq!(inside(b"/etc/passwd").unwrap().to_str(), Some("etc/passwd"));
    assert_eq!(inside(b"./").unwrap().to_str(), Some(""));
    assert_eq!(inside(b"a/../b").unwrap_err().code.as_str(), "parent-in-name");
    assert_eq!(inside(b"..").unwrap_err().code.as_str(), "parent-in-name");
    assert_eq!(inside(b"a\0b").unwrap_err().code.as_str(), "nul-in-name");
    assert_eq!(inside(b"").unwrap_err().code.as_str(), "empty-name");
    assert_eq!(inside(&[b'a'; 256]).unwrap_err().code.as_str(), "name-too-long");
    // The length is that of the path that the kernel gets.
    let longest = "a/".repeat(2048);
    for name in [&longest, &format!("./{longest}"), &format!("/{}", longest.replace("/", "//"))] {
        assert_eq!(inside(name.as_bytes()).unwrap().as_os_str().len(), 4095);
    }
    assert_eq!(inside(format!("./{longest}b").as_bytes()).unwrap_err().code.as_str(), "name-too-long");
}

#[test]
fn pax_overrides_the_header() {
    let name = "n".repeat(200);
    let archive = Tar::default()
        .pax(&[
            ("path", name.as_bytes()),
            ("mtime", b"-1.25"),
            ("uid", b"4000000"),
            ("SCHILY.xattr.user.x%3Dy\n", b"a\nb"),
        ])
        .file("short", b"data")
        .end();
    let entry = &entries(&archive, Limits::default()).unwrap()[0];
    assert_eq!(entry.path.to_str(), Some(&name[..]));
    assert_eq!(entry.meta.mtime, Time { sec: -2, nsec: 750_000_000 });
    assert_eq!(entry.meta.uid, 4_000_000);
    assert_eq!(entry.meta.xattrs, [(b"user.x=y\n".to_vec(), b"a\nb".to_vec())]);
    assert_eq!((entry.offset, entry.size), (0, 4));
}

#[test]
fn attributes_of_libarchive_must_agree() {
    let archive = |encoded: &[u8]| {
        Tar::default()
            .pax(&[("LIBARCHIVE.xattr.user.y", encoded), ("SCHILY.xattr.user.y", b"y\n")])
            .file("f", b"")
            .end()
    };
    assert_eq!(
        entries(&archive(b"eQo"), Limits::default()).unwrap()[0].meta.xattrs,
        [(b"user.y".to_vec(), b"y\n".to_vec())]
    );
    assert_eq!(entries(&archive(b"eQo="), Limits::default()).unwrap()[0].meta.xattrs.len(), 1);
    assert_eq!(refused(&archive(b"eQs=")), "pax-contradiction");
    assert_eq!(refused(&archive(b"e")), "bad-pax");
}

#[test]
fn contradictions_are_refused() {
    let size_lie = Tar::default().pax(&[("size", b"512")]).file("f", &[0; 1024]).end();
    assert_eq!(refused(&size_lie), "size-contradiction");
    let twice = Tar::default().pax(&[("path", b"a"), ("path", b"b")]).file("f", b"").end();
    assert_eq!(refused(&twice), "pax-contradiction");
    let two_headers = Tar::default().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("f", b"").end();
    assert_eq!(refused(&two_headers), "repeated-extension");
    let gnu_and_pax =
        Tar::default().pax(&[("path", b"a")]).entry("L", EntryType::GNULongName, "", b"b\0").file("f", b"").end();
    assert_eq!(refused(&gnu_and_pax), "name-contradiction");
    assert_eq!(refused(&Tar::default().pax(&[("path", b"a")]).end()), "orphan");
    assert_eq!(refused(&Tar::default().pax(&[("path", b"")]).file("f", b"").end()), "bad-pax");
    assert_eq!(refused(&Tar::default().pax(&[("size", b"-1")]).file("f", b"").end()), "bad-pax");
    assert_eq!(refused(&Tar::default().pax(&[("size", b"99999999999999999999")]).file("f", b"").end()), "bad-pax");
    assert_eq!(refused(&Tar::default().entry("d/", EntryType::Directory, "", b"data").end()), "unexpected-data");
    assert_eq!(refused(&Tar::default().entry("l", EntryType::Symlink, "x", b"data").end()), "unexpected-data");
    assert_eq!(refused(&Tar::default().file("f/", b"").end()), "ambiguous-type");
    assert_eq!(refused(&Tar::default().entry("f", EntryType::new(b'Z'), "", b"").end()), "unsupported-type");
    let mut lone = Tar::default().file("f", b"x");
    lone.0.extend([0; 512]);
    assert_eq!(refused(&lone.file("g", b"y").end()), "lone-zero-block");
    let global = Tar::default().entry("g", EntryType::XGlobalHeader, "", b"10 path=x\n").file("f", b"").end();
    assert_eq!(refused(&global), "bad-global");
    let mut sum = Tar::default().file("f", b"").end();
    sum[0] = b'g';
    assert_eq!(refused(&sum), "bad-checksum");
    let mut size = Tar::header(b"f", EntryType::Regular, 0);
    size.as_mut_bytes()[124..136].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
    assert_eq!(refused(&Tar::default().raw(size, b"").end()), "bad-number");
}

/// GNU tar, libarchive or Python read each of these archives differently, or refuse it.
#[test]
fn headers_that_other_programs_read_differently_are_refused() {
    let changed = |name: &[u8], kind: EntryType, changes: &[(usize, &[u8])]| {
        let mut header = Tar::header(name, kind, 0);
        for (at, bytes) in changes {
            header.as_mut_bytes()[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        Tar::default().raw(header, b"").end()
    };
    let file = EntryType::Regular;
    assert_eq!(refused(&changed(b"f", file, &[(329, b"dos\0")])), "bad-number", "a device number of a file");
    assert_eq!(refused(&changed(b"f", file, &[(116, b"        ")])), "bad-number", "blanks");
    assert_eq!(refused(&changed(b"f", file, &[(116, b"\t12\0\0\0\0\0")])), "bad-number", "a tab");
    assert_eq!(refused(&changed(b"f", file, &[(476, b"8"), (508, b"tar\0")])), "bad-number", "a time of star's");
    assert_eq!(refused(&changed(b"", file, &[(345, b"prefix")])), "ambiguous-name");
    let prefix = [&b"p".repeat(131)[..], b"7777777"].concat();
    assert_eq!(refused(&changed(b"f", file, &[(345, &prefix), (508, b"tar\0")])), "ambiguous-name", "star's prefix");
    let gnu = (257, &b"ustar  \0"[..]);
    assert_eq!(refused(&changed(b"f", file, &[gnu, (483, b" ")])), "ambiguous-name", "GNU's size of a sparse file");
    let extension = Tar::header(b"L", EntryType::GNULongName, 512);
    let endless = Tar::default().raw(extension, &[b'n'; 512]).file("f", b"").end();
    assert_eq!(refused(&endless), "ambiguous-name", "a long name without a NUL");
    let mut bad = Tar::header(b"x", EntryType::XHeader, 0);
    bad.as_mut_bytes()[108..112].copy_from_slice(b"none");
    assert_eq!(refused(&Tar::default().raw(bad, b"").file("f", b"").end()), "bad-number", "of an extension");
    let old_dir = Tar::default().pax(&[("path", b"d/")]).entry("d", EntryType::new(0), "", b"").end();
    assert_eq!(refused(&old_dir), "ambiguous-type");
    for record in [("mtime", &b"1"[..]), ("uid", b"0"), ("SCHILY.xattr.user.a", b"1"), ("path", b"f")] {
        let global = Tar::default().pax(&[record]).0;
        let mut header = Tar::header(b"g", EntryType::XGlobalHeader, 0);
        header.as_mut_bytes()[124..136].copy_from_slice(&global[124..136]);
        let archive = Tar::default().raw(header, &global[512..]).file("f", b"").end();
        assert_eq!(refused(&archive), "bad-global", "{record:?}");
    }
    assert_eq!(refused(&Tar::default().entry("g", EntryType::XGlobalHeader, "", b"12 comment=\n").end()), "orphan");
    assert_eq!(refused(&Tar::default().pax(&[("atime", b"now")]).file("f", b"").end()), "bad-pax");
    let close = [("GNU.sparse-major", &b"1"[..])];
    assert_eq!(refused(&Tar::default().pax(&close).file("f", b"").end()), "unsupported-record");
    let map = [("GNU.sparse.numblocks", &b"1"[..]), ("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"9")];
    let sized = Tar::default().pax(&[&map[..], &[("size", b"1")]].concat()).file("f", b"x").end();
    assert_eq!(refused(&sized), "size-contradiction", "of a sparse file");
    let contiguous = Tar::default().pax(&map).entry("f", EntryType::Continuous, "", b"x").end();
    assert_eq!(refused(&contiguous), "bad-sparse");
    let unordered = [("GNU.sparse.map", &b"0,1"[..]), ("GNU.sparse.numblocks", b"1"), ("GNU.sparse.size", b"9")];
    assert_eq!(refused(&Tar::default().pax(&unordered).file("f", b"x").end()), "bad-sparse");
}

#[test]
fn limits_are_enforced() {
    let archive = Tar::default().file("a", b"12345").file("b", b"67890").end();
    let limited = |limits: Limits| match entries(&archive, limits) {
        Err(ReadError::Refused(refusal)) => refusal.reason.code.as_str(),
        other => panic!("{other:?}"),
    };
    assert_eq!(limited(Limits { entries: 1, ..Limits::default() }), "too-many-entries");
    assert_eq!(limited(Limits { bytes: 2047, ..Limits::default() }), "too-large");
    let sparse = Tar::default()
        .pax(&[
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.map", b"0,1,999999999999999,0"),
            ("GNU.sparse.size", b"999999999999999"),
        ])
        .file("f", b"x")
        .end();
    assert_eq!(refused(&sparse), "too-large");
    let pax = Tar::default().pax(&[("comment", &[b'x'; 2 << 20])]).file("f", b"").end();
    assert_eq!(refused(&pax), "extension-too-large");
}

#[test]
fn sparse_maps_are_checked() {
    let with = |map: &[u8], blocks: &[u8], size: &[u8], data: &[u8]| {
        let records = [("GNU.sparse.numblocks", blocks), ("GNU.sparse.map", map), ("GNU.sparse.size", size)];
        entries(&Tar::default().pax(&records).file("f", data).end(), Limits::default())
            .map(|entries| entries[0].clone())
    };
    let data = [1; 513];
    let entry = with(b"0,512,1000,1,2000,0", b"3", b"2000", &data).unwrap();
    assert_eq!((entry.size, entry.stored), (2000, 513));
    assert_eq!(with(b"0,512,1000,1", b"2", b"1001", &data).unwrap().size, 1001, "it ends with data");
    let wrong = |map: &[u8], blocks: &[u8], size: &[u8], stored: usize, why: &str| {
        let error = with(map, blocks, size, &[1; 1024][..stored]).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    wrong(b"0,512,1,1", b"2", b"2", 513, "overlap");
    wrong(b"0,512,1000,1", b"3", b"1001", 513, "number of segments");
    wrong(b"0,512,1000,1", b"2", b"1000", 513, "does not end at the size");
    wrong(b"0,512,1000,1", b"2", b"2000", 513, "does not end at the size");
    wrong(b"", b"0", b"2000", 0, "does not end at the size");
    wrong(b"0,2,10,1", b"2", b"11", 3, "not a multiple of 512");
    wrong(b"0,512,1000,1", b"2", b"1001", 514, "as many bytes as are stored");
    wrong(b"0,512,9223372036854775807,9223372036854775807", b"2", b"20", 513, "");
    wrong(b"0,512,1000", b"2", b"20", 513, "number of segments");
}

#[test]
fn headers_of_unix_v7_are_read() {
    let mut header = tar::Header::new_old();
    header.as_mut_bytes()[..4].copy_from_slice(b"dir/");
    header.set_mode(0o755);
    header.set_uid(1);
    header.set_gid(1);
    header.set_mtime(5);
    header.set_size(0);
    let archive = Tar::default().raw(header.clone(), b"").end();
    assert_eq!(entries(&archive, Limits::default()).unwrap()[0].kind, NodeKind::Dir);
    // As `tar --format=v7` writes them.
    header.as_mut_bytes()[329..345].copy_from_slice(b"0000000\x000000000\0");
    header.set_entry_type(EntryType::Directory);
    let archive = Tar::default().raw(header.clone(), b"").end();
    assert_eq!(entries(&archive, Limits::default()).unwrap()[0].kind, NodeKind::Dir);
    header.set_entry_type(EntryType::Fifo);
    assert_eq!(refused(&Tar::default().raw(header.clone(), b"").end()), "ambiguous-type");
    header.as_mut_bytes()[400] = b'x';
    assert_eq!(refused(&Tar::default().raw(header, b"").end()), "bad-magic");
}

/// Ant and Plexus leave the version out, others write a space. The prefix is used in every case.
#[test]
fn the_version_of_ustar_is_ignored() {
    let mut header = Tar::header(b"name", EntryType::Regular, 0);
    header.as_mut_bytes()[345..351].copy_from_slice(b"prefix");
    for version in [b"00", b"\0\0", b" \0"] {
        header.as_mut_bytes()[263..265].copy_from_slice(version);
        let archive = Tar::default().raw(header.clone(), b"").end();
        assert_eq!(entries(&archive, Limits::default()).unwrap()[0].path, Path::new("prefix/name"));
    }
    header.as_mut_bytes()[257] = b'U';
    assert_eq!(refused(&Tar::default().raw(header, b"").end()), "bad-magic");
}

#[test]
fn a_truncated_archive_is_refused_in_its_last_entry() {
    let archive = Tar::default().file("f", b"x").pax(&[("path", b"second")]).file("g", &[1; 600]).end();
    let told = |length: usize| match entries(&archive[..length], Limits::default()) {
        Err(ReadError::Refused(refusal)) => refusal.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(told(600), "entry f at byte 0: the archive is cut off [truncated]");
    assert_eq!(told(1100), "entry at byte 1024: the archive is cut off [truncated]");
    // In its records, in its header, in its data, in its padding.
    assert!(told(1600).starts_with("entry PaxHeader"), "{}", told(1600));
    assert_eq!(told(2100), "entry at byte 2048: the archive is cut off [truncated]");
    for length in [2600, 3100, 3500] {
        assert_eq!(told(length), "entry second at byte 1024: the archive is cut off [truncated]");
    }
    // At the end of the records: no entry follows them.
    assert_eq!(told(2048), "entry at byte 1024: an extended header is not followed by an entry [orphan]");
    assert_eq!(told(0), "the archive is empty [truncated]");
}

#[test]
fn acls_are_converted_both_ways() {
    let text = b"user::rw-,user:1000:r--,group::r--,mask::r--,other::---";
    let bytes = acl::parse(text).unwrap();
    assert_eq!(acl::format(&bytes).unwrap(), text);
    assert_eq!(acl::parse(b"user::rw-,group::r--,other::---,user:someone:r--:1000,mask::r--").unwrap(), bytes);
    assert_eq!(
        acl::parse(b"user::rw-,user:root:r--,group:root:r--").unwrap(),
        acl::parse(b"user::rw-,group:0:r--,user:0:r--").unwrap()
    );
    let code = |text: &[u8]| acl::parse(text).unwrap_err().code.as_str();
    assert_eq!([code(b"user::rw-,user:someone:r--"), code(b"group:7th:r--")], ["acl-by-name"; 2]);
    assert_eq!(acl::parse(b"user:1000:r--:1000").unwrap(), acl::parse(b"user:1000:r--").unwrap());
    let (large, other, root) = (b"user:x:r:99999999999", b"user:1000:r--:2000", b"group:root:r--:5");
    for bad in [&b""[..], b"user::rwX", b"user", b"mask:5:r", b"user:4294967295:r", large, other, root, b"\xff"] {
        assert_eq!(code(bad), "bad-acl", "{}", bad.escape_ascii());
    }
    assert_eq!(acl::format(b"\x02\0\0\0\x01"), None);
}

/// The text and the attribute of an ACL must agree. Names without numbers belong to another system.
#[test]
fn acls_must_have_numbers() {
    let of = |records: &[(&str, &[u8])]| Tar::default().pax(records).dir("d/").end();
    let one = |records: &[(&str, &[u8])]| entries(&of(records), Limits::default()).unwrap().remove(0);
    let key = "SCHILY.xattr.system.posix_acl_access";
    let list = acl::parse(b"user::rwx,user:7:r-x,group::r-x,mask::r-x,other::---").unwrap();
    let swapped = [&list[..4], &list[12..20], &list[4..12], &list[20..]].concat();
    for attribute in [&list, &swapped] {
        for text in [&b"user::rwx,user:7:r-x,group::r-x,mask::r-x,other::---"[..], b"user::rwx,user:joe:r-x", b""] {
            let entry = one(&[("SCHILY.acl.access", text), (key, attribute)]);
            assert_eq!(entry.meta.xattrs, [(acl::ACCESS.as_bytes().to_vec(), attribute.clone())]);
        }
    }
    assert_eq!(one(&[("SCHILY.acl.default", b"")]).meta.xattrs, []);
    let other = b"user::rwx,user:7:rwx,group::r-x,mask::r-x,other::---";
    assert_eq!(refused(&of(&[("SCHILY.acl.access", other), (key, &list)])), "pax-contradiction");
    assert_eq!(refused(&of(&[("SCHILY.acl.default", b"user::rwx,user:joe:r-x")])), "acl-by-name");
    assert_eq!(refused(&of(&[("SCHILY.acl.access", b"user::rwx,group:r")])), "bad-acl");
    assert!(one(&[("SCHILY.acl.ace", b"owner@:r::allow")]).dropped.contains("NFSv4 ACL"));
}

#[test]
fn only_names_of_directories_end_in_a_slash() {
    for name in ["x/", "x/.", "./x/./"] {
        assert_eq!(refused(&Tar::default().symlink(name, "y").end()), "ambiguous-type", "{name}");
        assert_eq!(refused(&Tar::default().entry(name, EntryType::Fifo, "", b"").end()), "ambiguous-type", "{name}");
        assert_eq!(refused(&Tar::default().file(name, b"").end()), "ambiguous-type", "{name}");
        assert_eq!(refused(&Tar::default().hardlink("h", name).end()), "bad-link", "{name}");
        assert_eq!(entries(&Tar::default().dir(name).end(), Limits::default()).unwrap()[0].path.to_str(), Some("x"));
    }
}

#[test]
fn records_that_change_the_position_of_data_are_refused() {
    assert_eq!(
        refused(&Tar::default().pax(&[("SUN.holesdata", b" 0 1 2")]).file("f", b"x").end()),
        "unsupported-record"
    );
    let records: [(&str, &[u8]); 3] =
        [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1")];
    let data = [&b"1\n0\n1\n"[..], &[0; 506], b"x"].concat();
    let sparse = |magic: &[u8]| {
        let mut header = Tar::header(b"f", EntryType::Regular, data.len() as u64);
        header.as_mut_bytes()[257..265].copy_from_slice(magic);
        Tar::default().pax(&records).raw(header, &data).end()
    };
    assert_eq!(entries(&sparse(b"ustar\x0000"), Limits::default()).unwrap()[0].size, 1);
    assert_eq!(refused(&sparse(b"ustar  \0")), "bad-sparse", "GNU tar looks into the header");
}

/// Parsing time grows linearly with the number of attributes.
#[test]
fn the_number_of_attributes_is_limited() {
    let with = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("SCHILY.xattr.{number:x}")).collect();
        let records: Vec<(&str, &[u8])> = names.iter().map(|name| (&name[..], &b""[..])).collect();
        Tar::default().pax(&records).file("f", b"").end()
    };
    let entry = &entries(&with(12_000), Limits::default()).unwrap()[0];
    assert_eq!(entry.meta.xattrs.len(), 12_000);
    assert!(entry.meta.xattrs.iter().any(|(name, _)| name == b"b"));
    assert_eq!(refused(&with(40_000)), "bad-xattr");
    let twice = |value: &[u8]| {
        Tar::default()
            .pax(&[("SCHILY.xattr.a", b"1"), ("SCHILY.xattr.b", b"2"), ("SCHILY.xattr.a", value)])
            .file("f", b"")
    };
    assert_eq!(entries(&twice(b"1").end(), Limits::default()).unwrap()[0].meta.xattrs.len(), 2);
    assert_eq!(refused(&twice(b"2").end()), "pax-contradiction");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        drop(entries(&bytes, Limits::default()));
        drop(Pax::parse(&bytes, false));
        let _ = number(&bytes);
        drop(acl::parse(&bytes));
        drop(acl::format(&bytes));
        let mut bytes = bytes.into_iter();
        drop(sparse::map_from_data(|| bytes.next().ok_or_else(|| crate::base::refusal::Reason::new(crate::base::refusal::Code::Truncated, ""))));
    }

    /// Valid archives with a few changed bytes and corrected checksums reach deeper than random bytes.
    #[test]
    fn damaged_archives_are_read_or_refused(
        changes in prop::collection::vec((0usize..8192, any::<u8>()), 1..8),
        fix in any::<bool>(),
        cut in 0usize..16384,
    ) {
        let mut archive = Tar::default()
            .dir("d/")
            .pax(&[("path", b"d/long"), ("SCHILY.xattr.user.a", b"1"), ("mtime", b"1.5"), ("size", b"5")])
            .file("d/f", b"hello")
            .entry("L", EntryType::GNULongName, "", b"d/another\0")
            .symlink("d/l", "f")
            .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1"), ("GNU.sparse.name", b"s")])
            .file("sparse", &[&b"1\n0\n1\n"[..], &[0; 506], b"x"].concat())
            .hardlink("d/h", "d/long")
            .end();
        for (at, value) in changes {
            let at = at % archive.len();
            archive[at] = value;
        }
        if fix {
            for block in archive.chunks_exact_mut(512) {
                if block[257..262] == *b"ustar" {
                    let mut header = tar::Header::new_old();
                    header.as_mut_bytes().copy_from_slice(block);
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
        }
        archive.truncate(cut.max(1));
        if let Ok(entries) = entries(&archive, Limits::default()) {
            for entry in entries {
                prop_assert!(entry.path.is_relative());
                prop_assert!(!entry.path.components().any(|part| part == std::path::Component::ParentDir));
            }
        }
    }

    #[test]
    fn numbers_that_fit_are_read(value in 0u64..1 << 33) {
        let mut header = tar::Header::new_ustar();
        header.set_size(value);
        prop_assert_eq!(number(&header.as_old().size), Some(value as i64));
        header.set_size(value << 30);
        prop_assert_eq!(number(&header.as_old().size), Some((value << 30) as i64));
    }
}
