//! Tests of the cache and of the lists beside an archive.

use super::*;

/// Makes a tree whose archive has several chunks and cut points.
fn some_chunks(place: &Path) {
    let mut noise = 1u64;
    for number in 0..300 {
        let data: Vec<u8> = (0..20_000 + 37 * number)
            .map(|at| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if at % 2 == 0 { (noise >> 60) as u8 } else { b'x' }
            })
            .collect();
        let path = place.join(format!("{:02}/{number}", number / 10));
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, data).unwrap();
        time(&path, 1, 0);
    }
    fs_err::write(place.join("15/large"), vec![b'l'; 5 << 20]).unwrap();
}

#[test]
fn a_cache_changes_no_byte_and_is_used() {
    let place = tempfile::tempdir().unwrap();
    let (tree, chunks) = (place.path().join("tree"), place.path().join("chunks"));
    some_chunks(&tree);
    for format in [Format::Gzip, Format::Zstd] {
        let with = |cache: bool, threads| {
            let cache = cache.then(|| std::sync::Arc::new(Cache::open(&chunks).unwrap()));
            let (bytes, about, _) = packed(
                &tree,
                &Deferred::default(),
                &Options { format, threads, cache, epoch: 9, ..Options::default() },
            );
            (bytes, about)
        };
        let names = || -> std::collections::BTreeSet<_> {
            fs_err::read_dir(&chunks).map(|all| all.map(|one| one.unwrap().path()).collect()).unwrap_or_default()
        };
        let (before, cold) = (names(), with(false, 2));
        assert!(cold == with(true, 2));
        let kept = &names() - &before;
        assert!(kept.len() > 3, "{kept:?}");
        assert!(cold == with(true, 1));
        // The cache is used: other compressed bytes in it end up in the archive.
        let one = kept.first().unwrap();
        let (key, foreign) = (one.file_name().unwrap().to_str().unwrap(), b"something else");
        fs_err::write(one, [&foreign[..], cache::digest(key, foreign).as_bytes()].concat()).unwrap();
        assert!(cold != with(true, 3));
        // A chunk under the name of another is made again.
        fs_err::copy(kept.last().unwrap(), one).unwrap();
        assert!(cold == with(true, 3));
        // A damaged chunk is made again.
        fs_err::write(one, foreign).unwrap();
        assert!(cold == with(true, 3));
        assert!(cold == with(true, 1));

        // Add a file at the beginning, shorten one near the end, change bytes in the middle of the large one.
        fs_err::write(tree.join("00/0000"), [b'0'; 1000]).unwrap();
        fs_err::write(tree.join("28/285"), format!("less {format:?}")).unwrap();
        let mut large = vec![b'l'; 5 << 20];
        large[3 << 20] = b'L';
        fs_err::write(tree.join("15/large"), large).unwrap();
        let before = names();
        let changed = with(true, 2);
        let made = (&names() - &before).len();
        assert!(made >= 3 && made <= kept.len() * 2 / 3, "{made} of {}", kept.len());
        assert!(changed == with(false, 1));
        fs_err::remove_file(tree.join("00/0000")).unwrap();
        fs_err::write(tree.join("15/large"), vec![b'l'; 5 << 20]).unwrap();
    }
}

/// Compares a tree with a manifest by NetBSD's `mtree`. Returns the differences.
fn mtree(tree: &Path, manifest: &Path) -> String {
    let output = Command::new("mtree").arg("-p").arg(tree).arg("-f").arg(manifest).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.success(), output.stdout.is_empty());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn mtree_finds_no_difference_between_a_tree_and_its_manifest() {
    if Command::new("mtree").arg("-c").arg("-p").arg("/var/empty").output().is_err() {
        assert!(std::env::var_os("QUERN_TEST_STRICT").is_none(), "mtree is missing");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (tree, manifest) = (place.path().join("tree"), place.path().join("manifest"));
    fs_err::create_dir_all(tree.join("d ir/#=*[x]")).unwrap();
    let names: [&[u8]; 6] = [b"a", b"nl\nx", b"\xff\xe4", b"back\\slash", b"d ir/#=*[x]/\xc3\xa4", b"z"];
    for (at, name) in names.into_iter().enumerate() {
        let path = tree.join(OsStr::from_bytes(name));
        fs_err::write(&path, vec![b'x'; at * 1_700_001]).unwrap();
        time(&path, 1_000_000 + at as i64, 5 * at as i64);
    }
    fs_err::hard_link(tree.join("z"), tree.join("d ir/same")).unwrap();
    std::os::unix::fs::symlink("x #y", tree.join("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, tree.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    for name in ["link", "pipe"] {
        let other = tree.join(format!("d ir/other-{name}"));
        rustix::fs::linkat(rustix::fs::CWD, tree.join(name), rustix::fs::CWD, other, AtFlags::empty()).unwrap();
    }
    let holes = std::fs::File::create(tree.join("holes")).unwrap();
    holes.set_len(9 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&holes, b"data", 5 << 20).unwrap();
    drop(holes);

    let write = |out: &mut Vec<u8>| {
        let (mut file, mut contents) = (tempfile::tempfile().unwrap(), Vec::new());
        let outputs = Outputs { archive: &mut file, contents: Some(&mut contents), manifest: Some(out) };
        let root = Rootfs::open(&tree).unwrap();
        let tree = Tree { root: &root, deferred: &Deferred::default(), part: None };
        pack(tree, outputs, &Options::default(), &Silent).unwrap()
    };
    let mut text = Vec::new();
    let packed = write(&mut text);
    fs_err::write(&manifest, &text).unwrap();
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count() as u64, packed.entries + 1);
    assert_eq!(mtree(&tree, &manifest), "");

    // The same length and time: only the digest differs.
    let mut bytes = fs_err::read(tree.join("z")).unwrap();
    bytes[7_000_000] = b'y';
    fs_err::write(tree.join("z"), bytes).unwrap();
    time(&tree.join("z"), 1_000_005, 25);
    let found = mtree(&tree, &manifest);
    assert!(found.contains("z") && found.contains("d ir/same") && found.contains("sha256"), "{found}");
    fs_err::remove_file(tree.join("a")).unwrap();
    assert!(mtree(&tree, &manifest).contains("missing: ./a"));
}
