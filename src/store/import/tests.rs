//! Imports of good, damaged and hostile exports.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::archive::pack::tar::{self, END, padding};
use crate::archive::unpack::entry::Meta;
use crate::base::error::Kind;
use crate::base::progress::Silent;

fn store() -> (tempfile::TempDir, Store) {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(&home.path().join("store")).unwrap();
    (home, store)
}

fn sha512(bytes: &[u8]) -> Sha512 {
    Sha512::of(bytes)
}

fn put(store: &Store, bytes: &[u8]) -> Sha512 {
    let PartOrBlob::Part(mut part) = store.part("test", None, &mut || ()).unwrap() else { panic!() };
    part.file().write_all(bytes).unwrap();
    part.finish(store, &sha512(bytes)).unwrap();
    sha512(bytes)
}

fn exported(store: &Store) -> Vec<u8> {
    let all: Vec<Sha512> = store.blobs().unwrap().into_iter().map(|blob| blob.sha512).collect();
    let mut archive = Vec::new();
    store.export(&all, &mut archive, &Silent).unwrap();
    archive
}

fn import(store: &Store, archive: &[u8]) -> Result<Vec<Imported>> {
    store.import(archive, "x.tar", Some(archive.len() as u64), &Silent)
}

/// Returns every file of the store except locks, with its content.
fn files(store: &Store) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut pending = vec![store.root().to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs_err::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => pending.push(path),
                false if path.extension().is_some_and(|extension| extension == "lock") => {}
                false => found.push((path.clone(), fs_err::read(path).unwrap())),
            }
        }
    }
    found.sort();
    found
}

fn entry(path: &str, kind: NodeKind, size: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    tar::header(&mut bytes, Path::new(path), &kind, &Meta::default(), size);
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len() + padding(data.len() as u64), 0);
    bytes
}

/// Returns a valid entry.
fn good(data: &[u8]) -> Vec<u8> {
    entry(&format!("{BLOBS}/{}", sha512(data)), NodeKind::File, data.len() as u64, data)
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), END.to_vec()].concat()
}

#[test]
fn an_export_is_imported_once_and_other_programs_can_check_it() {
    let ((home, from), (_other, to)) = (store(), store());
    let mut sums = [put(&from, b""), put(&from, &vec![7; 700_000]), put(&from, b"three")].to_vec();
    sums.sort();
    let archive = exported(&from);
    assert_eq!(exported(&from), archive, "the same bytes every time");
    let news: Vec<_> = sums.iter().map(|sha512| Imported { sha512: *sha512, known: false }).collect();
    assert_eq!(import(&to, &archive).unwrap(), news);
    assert_eq!(files(&to).len(), 3);
    for (path, bytes) in files(&to) {
        assert_eq!(path.file_name().unwrap().to_str(), Some(sha512(&bytes).hex().as_str()));
        assert_eq!(fs_err::metadata(path).unwrap().permissions().mode() & 0o777, 0o444);
    }
    assert!(import(&to, &archive).unwrap().iter().all(|blob| blob.known));
    assert_eq!(exported(&to), archive);

    // GNU tar unpacks it and sha512sum checks it. A directory and a store can be imported too.
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(home.path()).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    fs_err::write(home.path().join("x.tar"), &archive).unwrap();
    fs_err::create_dir(home.path().join("unpacked")).unwrap();
    run("tar", &["-C", "unpacked", "-xf", "x.tar"]);
    run("sh", &["-c", "cd unpacked && sha512sum --check --strict SHA512SUMS"]);
    run("tar", &["-C", "unpacked", "-cf", "again.tar", "."]);
    for from in [home.path().join("unpacked"), from.root().to_owned()] {
        let (_home, to) = store();
        assert_eq!(to.import_directory(&from, &Silent).unwrap(), news);
        assert_eq!(exported(&to), archive);
    }
    let (_home, to) = store();
    assert_eq!(import(&to, &fs_err::read(home.path().join("again.tar")).unwrap()).unwrap(), news);
}

#[test]
fn a_hostile_export_leaves_the_store_as_it_was() {
    let whole = archive(&[good(b"one"), good(b"two")]);
    let one = format!("{BLOBS}/{}", sha512(b"one"));
    let other = format!("{BLOBS}/{}", sha512(b"other"));
    let link = |kind| entry(&other, kind, 0, b"");
    let compressed = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&whole).unwrap();
        encoder.finish().unwrap()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("damaged or forged", archive(&[good(b"one"), entry(&other, NodeKind::File, 3, b"two")])),
        ("does not belong", archive(&[good(b"one"), entry("etc/passwd", NodeKind::File, 3, b"two")])),
        ("does not belong", archive(&[good(b"one"), entry(&format!("{one}/x"), NodeKind::File, 3, b"two")])),
        ("does not belong", archive(&[entry(&one.to_uppercase(), NodeKind::File, 3, b"one")])),
        ("does not belong", archive(&[entry(&format!("{BLOBS}/{}", "a".repeat(127)), NodeKind::File, 3, b"two")])),
        ("..", archive(&[good(b"one"), entry("../../../etc/x", NodeKind::File, 3, b"two")])),
        ("..", archive(&[good(b"one"), entry(&format!("{BLOBS}/../../x"), NodeKind::File, 3, b"two")])),
        ("appears twice", archive(&[good(b"one"), good(b"one")])),
        ("not a regular file", archive(&[good(b"one"), link(NodeKind::Symlink(b"/etc/passwd".to_vec()))])),
        ("not a regular file", archive(&[good(b"one"), link(NodeKind::Hardlink(one.clone().into()))])),
        ("not a regular file", archive(&[good(b"one"), link(NodeKind::Char(1, 5))])),
        ("not a regular file", archive(&[good(b"one"), link(NodeKind::Fifo)])),
        ("not a regular file", archive(&[good(b"one"), entry("etc", NodeKind::Dir, 0, b"")])),
        ("free", archive(&[good(b"one"), entry(&other, NodeKind::File, 1 << 60, b"two")])),
        ("", [good(b"one"), entry(&other, NodeKind::File, 2000, b"two")].concat()),
        ("cut off", [good(b"one"), good(b"two")].concat()),
        ("", whole[..whole.len() - END.len() - 600].to_vec()),
        ("", whole[..700].to_vec()),
        ("", compressed),
        ("empty", Vec::new()),
        ("", vec![b'x'; 4096]),
    ];
    let (_home, store) = store();
    let kept = put(&store, b"kept");
    let before = files(&store);
    for (index, (why, bytes)) in cases.into_iter().enumerate() {
        let error = import(&store, &bytes).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(format!("{error} {cause}").contains(why), "{index} {why}: {error:?}");
        let kind = if why == "free" { Kind::System } else { Kind::Refused };
        assert!(error.kind() == kind && error.hint().is_some(), "{index} {why}: {error:?}");
        assert_eq!(files(&store), before, "{index} {why}");
    }
    assert_eq!(import(&store, &whole).unwrap().len(), 2);
    assert!(store.blob(&kept).unwrap().is_some());
}

#[test]
fn a_hostile_directory_is_refused() {
    let ((home, store), (_other, empty)) = (store(), store());
    let blobs = home.path().join("in").join(BLOBS);
    fs_err::create_dir_all(&blobs).unwrap();
    fs_err::write(home.path().join("secret"), "secret").unwrap();
    symlink(home.path().join("secret"), blobs.join(sha512(b"secret").hex())).unwrap();
    let directory = home.path().join("in");
    assert_eq!(store.import_directory(&directory, &Silent).unwrap_err().kind(), Kind::System);
    fs_err::remove_file(blobs.join(sha512(b"secret").hex())).unwrap();
    fs_err::create_dir(blobs.join(sha512(b"directory").hex())).unwrap();
    fs_err::write(blobs.join("README"), "ours").unwrap();
    fs_err::write(blobs.join(sha512(b"one").hex()), "one").unwrap();
    assert_eq!(store.import_directory(&directory, &Silent).unwrap().len(), 1);
    fs_err::write(blobs.join(sha512(b"two").hex()), "three").unwrap();
    assert_eq!(empty.import_directory(&directory, &Silent).unwrap_err().kind(), Kind::Refused);
    assert_eq!(files(&empty), []);
    assert_eq!(store.import_directory(&home.path().join("none"), &Silent).unwrap_err().kind(), Kind::Usage);
}

#[test]
fn the_next_import_removes_the_parts_of_a_killed_one() {
    let (_home, store) = store();
    let PartOrBlob::Part(mut part) = store.part("import-0123", None, &mut || ()).unwrap() else { panic!() };
    part.file().write_all(b"half").unwrap();
    drop(part);
    let download = store.part("stage3-x", None, &mut || ()).unwrap();
    drop(download);
    import(&store, &archive(&[good(b"one")])).unwrap();
    let left: Vec<_> = fs_err::read_dir(store.root().join("blobs/partial")).unwrap().collect();
    assert_eq!(left.len(), 1, "an interrupted download stays: {left:?}");
}

#[test]
fn a_damaged_blob_is_not_exported() {
    let (_home, store) = store();
    let sha512 = put(&store, b"good");
    let path = store.blob_path(&sha512);
    fs_err::remove_file(&path).unwrap();
    fs_err::write(&path, "bad!").unwrap();
    let mut archive = Vec::new();
    let error = store.export(std::slice::from_ref(&sha512), &mut archive, &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    let (_home, to) = self::store();
    assert_eq!(import(&to, &archive).unwrap_err().kind(), Kind::Refused);
    assert_eq!(files(&to), []);
    let missing = store.export(&[Sha512::from([0; 64])], &mut archive, &Silent).unwrap_err();
    assert_eq!(missing.kind(), Kind::Usage);
}

#[test]
fn simultaneous_imports_end() {
    let (_home, store) = store();
    let (one, two) = (vec![1; 300_000], vec![2; 300_000]);
    let archives = [archive(&[good(&one), good(&two)]), archive(&[good(&two), good(&one)])];
    std::thread::scope(|scope| {
        for archive in archives.iter().cycle().take(6) {
            let store = &store;
            scope.spawn(move || assert_eq!(import(store, archive).unwrap().len(), 2));
        }
    });
    assert_eq!(store.blobs().unwrap().len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_changed_archive_is_refused_or_harmless(changes in proptest::collection::vec((0usize..6000, any::<u8>()), 1..4), cut in 0usize..7000) {
        let mut bytes = archive(&[entry(SUMS, NodeKind::File, 4, b"sums"), good(b"one"), good(&[3; 1500])]);
        for (at, with) in changes {
            let at = at % bytes.len();
            bytes[at] = with;
        }
        bytes.truncate(cut.max(1));
        let (_home, store) = store();
        let outcome = import(&store, &bytes);
        for (path, bytes) in files(&store) {
            prop_assert!(outcome.is_ok());
            let named = path.file_name().unwrap().to_str() == Some(sha512(&bytes).hex().as_str());
            prop_assert!(named, "{}", path.display());
        }
    }
}
