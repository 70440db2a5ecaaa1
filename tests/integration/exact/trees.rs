//! unpack(pack(t)) = t, for trees of all kinds of files: as root, as an ordinary user, and as seen by GNU tar and bsdtar.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use proptest::sample::Index;
use rustix::fs::{AtFlags, CWD, FileType, Mode, SeekFrom, Timespec, Timestamps, XattrFlags};

use crate::env::{PROGRAM, TestEnv, output};

/// The kind and content of a generated file.
#[derive(Debug, Clone)]
enum Kind {
    Dir,
    File(Vec<u8>),
    /// Chunks of data with the number of 64 KiB blocks between each and the one before, and the number of blocks after the last.
    Sparse(Vec<(u64, Vec<u8>)>, u64),
    Symlink(Vec<u8>),
    /// A hard link to a file that is not a directory.
    Hardlink(Index),
    Fifo,
    Device(FileType, u32, u32),
}

/// One file of a generated tree.
#[derive(Debug, Clone)]
struct Thing {
    name: Vec<u8>,
    below: Index,
    kind: Kind,
    mode: u32,
    ids: (u32, u32),
    time: (i64, i64),
    /// Attributes that the kernel refuses for this kind of file are left out.
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Returns an ACL in the kernel's format: version 2, then the tag, permissions and id of each entry.
fn list(named: &[(bool, u32, u16)], bits: [u16; 4]) -> Vec<u8> {
    let mut named: Vec<_> = named.iter().map(|(group, id, bits)| (if *group { 8 } else { 2 }, *id, *bits)).collect();
    named.sort_unstable();
    named.dedup_by_key(|(tag, id, _)| (*tag, *id));
    let mask = (!named.is_empty()).then_some((16, u32::MAX, bits[2]));
    let fixed = [(1, u32::MAX, bits[0]), (4, u32::MAX, bits[1]), (32, u32::MAX, bits[3])];
    let mut all: Vec<(u16, u32, u16)> = fixed.into_iter().chain(mask).chain(named).collect();
    all.sort_unstable();
    let entry =
        |(tag, id, bits): (u16, u32, u16)| [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat();
    [2u32.to_le_bytes().to_vec(), all.into_iter().flat_map(entry).collect()].concat()
}

/// Returns file capabilities: version 2, or version 3 for the user namespace whose root is `of`.
fn capability(of: Option<u32>, permitted: u32) -> Vec<u8> {
    let version: u32 = if of.is_some() { 0x0300_0001 } else { 0x0200_0001 };
    let words = [version, permitted, 0, 1, 0].into_iter().chain(of);
    words.flat_map(u32::to_le_bytes).collect()
}

/// Generates extended attributes, with ACLs whose ids are `least` or greater.
fn xattrs(least: u32) -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let value = || prop::collection::vec(any::<u8>(), 0..100);
    let acl = || {
        let id = prop_oneof![least..70_000, Just(3_000_000)];
        let named = prop::collection::vec((any::<bool>(), id, 0u16..8), 0..4);
        (named, prop::array::uniform4(0u16..8)).prop_map(|(named, bits)| list(&named, bits))
    };
    let named = |name: &'static str, value: BoxedStrategy<Vec<u8>>| {
        prop::option::weighted(0.2, value.prop_map(move |value| (name.as_bytes().to_vec(), value)))
    };
    let owner = prop::option::of(prop_oneof![1u32..65_536, Just(3_000_000)]);
    let capability = (owner, any::<u32>()).prop_map(|(of, permitted)| capability(of, permitted));
    let odd = prop_oneof!["user\\.[a-z%=\n\u{e4}]{1,40}", "trusted\\.[a-z%= ]{1,40}"].prop_map(String::into_bytes);
    let odd = (odd, value());
    let all = (
        named("user.b", value().boxed()),
        named("trusted.a", value().boxed()),
        named("security.capability", capability.boxed()),
        named("system.posix_acl_access", acl().boxed()),
        named("system.posix_acl_default", acl().boxed()),
        prop::option::weighted(0.3, odd),
    );
    all.prop_map(|(a, b, c, d, e, f)| [a, b, c, d, e, f].into_iter().flatten().collect())
}

fn kind() -> impl Strategy<Value = Kind> {
    let data = |most| prop::collection::vec(any::<u8>(), 0..most);
    let solid = prop::collection::vec(1u8..=255, 1..5000);
    let target = |most| prop::collection::vec(1u8..=255, 1..most);
    prop_oneof![
        4 => Just(Kind::Dir),
        3 => data(3000).prop_map(Kind::File),
        1 => (prop::collection::vec((0u64..12, solid), 0..4), 0u64..40).prop_map(|(pieces, end)| Kind::Sparse(pieces, end)),
        1 => prop_oneof![target(120), target(4000)].prop_map(Kind::Symlink),
        2 => any::<Index>().prop_map(Kind::Hardlink),
        1 => Just(Kind::Fifo),
        1 => (0u32..0x1000, 1u32..0x10_0000).prop_map(|(major, minor)| Kind::Device(FileType::CharacterDevice, major, minor)),
        1 => (0u32..0x1000, 0u32..0x10_0000).prop_map(|(major, minor)| Kind::Device(FileType::BlockDevice, major, minor)),
    ]
}

/// Generates trees whose owners are below `ids` and whose names come from `names`. Ids in ACLs are `least` or greater.
fn things(ids: u32, least: u32, names: BoxedStrategy<Vec<u8>>) -> impl Strategy<Value = Vec<Thing>> {
    let times = prop_oneof![
        1 => (-(1i64 << 31)..0, 0i64..1_000_000_000),
        1 => (-(1i64 << 31)..0, Just(0i64)),
        9 => (0i64..1_000_000_000, 0i64..1_000_000_000),
        9 => (0i64..1 << 33, Just(0i64)),
    ];
    let mode = prop_oneof![Just(0), 0u32..0o10000, 0o1000u32..0o10000];
    let id = move || prop_oneof![0..ids.min(60_000), 0..ids];
    let thing = (names, any::<Index>(), kind(), mode, (id(), id()), times, xattrs(least));
    let thing = thing.prop_map(|(name, below, kind, mode, ids, time, xattrs)| Thing {
        name,
        below,
        kind,
        mode,
        ids,
        time,
        xattrs,
    });
    prop::collection::vec(thing, 1..30)
}

fn any_name() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        prop::collection::vec(prop_oneof![1u8..47, 48u8..=255], 1..20),
        prop::collection::vec(Just(b'n'), 90..=255),
    ]
    .boxed()
}

/// Makes a tree. Files whose names already exist are left out.
fn grow(root: &Path, things: &[Thing]) {
    fs::create_dir(root).unwrap();
    let mut dirs = vec![PathBuf::new()];
    let mut others: Vec<PathBuf> = Vec::new();
    let mut made: Vec<(PathBuf, &Thing)> = Vec::new();
    for thing in things {
        let above = thing.below.get(&dirs);
        let path = above.join(OsStr::from_bytes(&thing.name));
        let full = root.join(&path);
        let taken = [&b"."[..], b".."].contains(&&thing.name[..]) || fs::symlink_metadata(&full).is_ok();
        if taken || above.as_os_str().len() > 3000 {
            continue;
        }
        match &thing.kind {
            Kind::Dir => {
                fs::create_dir(&full).unwrap();
                dirs.push(path.clone());
            }
            Kind::File(data) => fs::write(&full, data).unwrap(),
            Kind::Sparse(pieces, end) => {
                let file = File::create(&full).unwrap();
                let mut at = 0;
                for (gap, data) in pieces {
                    at += gap << 16;
                    file.write_all_at(data, at).unwrap();
                    at += data.len() as u64;
                }
                file.set_len(at + (end << 16)).unwrap();
            }
            Kind::Symlink(target) => symlink(OsStr::from_bytes(target), &full).unwrap(),
            Kind::Hardlink(_) if others.is_empty() => continue,
            Kind::Hardlink(to) => {
                rustix::fs::linkat(CWD, root.join(to.get(&others)), CWD, &full, AtFlags::empty()).unwrap();
                others.push(path);
                continue;
            }
            Kind::Fifo => rustix::fs::mknodat(CWD, &full, FileType::Fifo, Mode::empty(), 0).unwrap(),
            Kind::Device(kind, major, minor) => {
                rustix::fs::mknodat(CWD, &full, *kind, Mode::empty(), rustix::fs::makedev(*major, *minor)).unwrap();
            }
        }
        if !matches!(thing.kind, Kind::Dir) {
            others.push(path.clone());
        }
        made.push((path, thing));
    }
    for (path, thing) in made.iter().rev() {
        let full = root.join(path);
        lchown(&full, Some(thing.ids.0), Some(thing.ids.1)).unwrap();
        if !matches!(thing.kind, Kind::Symlink(_)) {
            rustix::fs::chmod(&full, Mode::from_raw_mode(thing.mode)).unwrap();
        }
        for (name, value) in &thing.xattrs {
            // User attributes need a file or directory, default ACLs need a directory, and symlinks have no ACLs.
            let _ = rustix::fs::lsetxattr(&full, &name[..], value, XattrFlags::empty());
        }
        time(&full, thing.time);
    }
    time(root, (12345, 678));
}

fn time(path: &Path, (tv_sec, tv_nsec): (i64, i64)) {
    let time = Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Everything visible of one file, except its disk usage.
#[derive(Debug, PartialEq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    device: u64,
    size: u64,
    time: (i64, i64),
    /// The first name of the inode, and the number of its names.
    names: Option<(PathBuf, u64)>,
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Returns all files below `root`, and the number of bytes that are not in holes.
fn look(root: &Path) -> (BTreeMap<PathBuf, Seen>, u64) {
    let (mut all, mut first, mut data) = (BTreeMap::new(), BTreeMap::new(), 0);
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let full = root.join(&path);
        let meta = fs::symlink_metadata(&full).unwrap();
        let kind = meta.file_type();
        if kind.is_dir() {
            let mut names: Vec<_> =
                fs::read_dir(&full).unwrap().map(|entry| path.join(entry.unwrap().file_name())).collect();
            names.sort_unstable();
            todo.extend(names.into_iter().rev());
        }
        if kind.is_file() {
            data += data_of(&full);
        }
        let name = first.entry((meta.dev(), meta.ino())).or_insert_with(|| path.clone()).clone();
        let content = match () {
            () if kind.is_file() => fs::read(&full).unwrap(),
            () if kind.is_symlink() => fs::read_link(&full).unwrap().into_os_string().as_bytes().to_vec(),
            () => Vec::new(),
        };
        let seen = Seen {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            device: meta.rdev(),
            size: if kind.is_dir() { 0 } else { meta.len() },
            time: (meta.mtime(), meta.mtime_nsec()),
            names: (!kind.is_dir()).then(|| (name, meta.nlink())),
            content,
            xattrs: xattrs_of(&full),
        };
        all.insert(path, seen);
    }
    (all, data)
}

fn data_of(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    let (mut at, mut data) = (0, 0);
    while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(&file, SeekFrom::Hole(start)).unwrap();
        data += at - start;
    }
    data
}

fn xattrs_of(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let (mut names, mut value) = (vec![0; 65536], vec![0; 65536]);
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names =
        names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty() && *name != b"security.selinux");
    let with_value = names.map(|name| {
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        (name.to_vec(), value[..length].to_vec())
    });
    with_value.collect()
}

fn pack(env: &TestEnv, tree: &str, to: &str) -> Vec<u8> {
    let record: &[&str] = if env.path("home/record").exists() { &["--record", "home/record"] } else { &[] };
    let mut pack = env.program([&["raw", "pack", tree, "--format", "tar"], record].concat());
    let _ = output(pack.stdout(File::create(env.path(to)).unwrap())).success();
    fs::read(env.path(to)).unwrap()
}

fn unpack(env: &TestEnv, archive: &str, tree: &str) {
    fs::create_dir(env.path(tree)).unwrap();
    if let Some((uid, gid)) = env.owner() {
        lchown(env.path(tree), Some(uid), Some(gid)).unwrap();
    }
    let unpack = ["raw", "unpack", "--root", tree, "--record", "home/record"];
    let _ = output(env.program(unpack).stdin(File::open(env.path(archive)).unwrap())).success();
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn root_packing_and_unpacking_give_the_same_tree(things in things(4_000_000, 0, any_name())) {
        let Some(env) = TestEnv::root() else { return Ok(()) };
        grow(&env.path("tree"), &things);
        let first = pack(&env, "tree", "first.tar");
        unpack(&env, "first.tar", "new");
        let (before, after) = (look(&env.path("tree")), look(&env.path("new")));
        for (path, seen) in &before.0 {
            prop_assert_eq!(Some(seen), after.0.get(path), "{:?}", path);
        }
        prop_assert_eq!(before.0.len(), after.0.len());
        prop_assert!(after.1 <= before.1, "{} bytes of data instead of {}", after.1, before.1);
        prop_assert!(pack(&env, "new", "second.tar") == first);

        // GNU tar rounds negative fractions of a second in the wrong direction when it lists them.
        if before.0.values().all(|seen| seen.time.0 >= 0 || seen.time.1 == 0) {
            let mut tar = env.command("tar");
            let list = output(tar.args(["--numeric-owner", "-tvf", "first.tar"]).envs([("TZ", "UTC"), ("LC_ALL", "C")]));
            let ours = output(env.program(["raw", "ls"]).stdin(File::open(env.path("first.tar")).unwrap()));
            prop_assert_eq!(list.success().stdout, ours.success().stdout);
        }
    }

    #[test]
    fn userns_packing_and_unpacking_give_the_same_archive(things in things(65_536, 0, any_name())) {
        let (Some(env), Some(user)) = (TestEnv::root(), TestEnv::userns()) else { return Ok(()) };
        grow(&env.path("tree"), &things);
        let first = pack(&env, "tree", "first.tar");
        user.write("first.tar", &first);
        unpack(&user, "first.tar", "home/new");
        let devices = look(&env.path("tree")).0.values().filter(|seen| seen.device != 0).count();
        let record: serde_json::Value = serde_json::from_slice(&fs::read(user.path("home/record")).unwrap()).unwrap();
        prop_assert_eq!(record["nodes"].as_array().unwrap().len(), devices);
        prop_assert!(pack(&user, "home/new", "home/second.tar") == first);
        let _ = output(Command::new("rm").arg("-r").arg(user.path("home/new"))).success();
    }
}

proptest! {
    #![proptest_config(config(24))]

    /// bsdtar stops at names, attributes and links that are not UTF-8. GNU tar writes the names of this machine's accounts into ACLs, so
    /// the ids here have no account.
    #[test]
    fn root_other_programs_list_the_same_after_unpacking_and_packing(
        things in things(4_000_000, 65_536, prop_oneof!["[a-zA-Z#*= \\\\\n\u{e4}\u{20ac}]{1,40}", "n{90,255}"].prop_map(String::into_bytes).boxed()),
        sparse in any::<bool>(),
    ) {
        let Some(env) = TestEnv::root() else { return Ok(()) };
        let mut things = things;
        for thing in &mut things {
            if let Kind::Symlink(target) = &mut thing.kind {
                target.iter_mut().for_each(|byte| *byte = (*byte & 0x3f) + 0x3f);
            }
        }
        grow(&env.path("tree"), &things);
        // For a sparse file, the digests of bsdtar cover only the data.
        let (sparse, by_bsdtar) = if sparse { ("--sparse", 0) } else { ("", 1) };
        let script = format!(
            "tar -C tree --format=posix --sort=name --numeric-owner --acls --xattrs --xattrs-include='*' {sparse} -cf theirs .; \
             mkdir new; \"$0\" raw unpack --root new < theirs; \"$0\" raw pack new --format tar > ours"
        );
        let _ = output(env.command("bash").args(["-ec", &script, PROGRAM])).success();
        for list in [
            "tar --xattrs --xattrs-include='*' --acls --numeric-owner --full-time --quoting-style=escape -tvvf ",
            "bsdtar -cf - --format=mtree --options=all @",
        ]
        .into_iter()
        .take(1 + by_bsdtar)
        {
            let of = |archive: &str| {
                let listed = output(env.command("bash").args(["-c", &format!("{list}{archive}")]));
                assert_eq!((listed.code, &listed.stderr[..]), (0, ""), "{list}{archive}");
                listed.stdout.lines().map(str::to_owned).collect::<BTreeSet<_>>()
            };
            let (theirs, ours) = (of("theirs"), of("ours"));
            let only = |these: &BTreeSet<String>, those| these.difference(those).cloned().collect::<Vec<_>>();
            prop_assert_eq!(only(&theirs, &ours), only(&ours, &theirs), "{}", list);
        }
    }
}

/// Outside a user namespace, capabilities have version 2; inside, version 3 with the uid of the namespace's root.
#[test]
fn userns_capabilities_belong_to_the_namespace_of_the_unpacking() {
    let (Some(env), Some(user)) = (TestEnv::root(), TestEnv::userns()) else { return };
    fs::create_dir(env.path("tree")).unwrap();
    fs::write(env.path("tree/ping"), "x").unwrap();
    let system = capability(None, 1 << 13);
    rustix::fs::setxattr(env.path("tree/ping"), "security.capability", &system, XattrFlags::empty()).unwrap();
    let archive = pack(&env, "tree", "archive.tar");
    user.write("archive.tar", &archive);
    for (env, tree, owner) in [(&env, "new", None), (&user, "home/new", user.owner())] {
        unpack(env, "archive.tar", tree);
        let expected = capability(owner.map(|(uid, _)| uid), 1 << 13);
        assert_eq!(xattrs_of(&env.path(tree).join("ping"))[&b"security.capability"[..]], expected);
        assert!(pack(env, tree, "home/again.tar") == archive);
    }
}
