//! The same tree gives the same archive for every user, file system and way to make the tree.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use crate::env::{Output, PROGRAM, TestEnv, output};

/// Makes a tree with all kinds of files, and with times before and after the one that times are clamped to.
const GROW: &str = r#"
umask 022
mkdir -p tree/dev tree/d/empty tree/sticky tree/many
echo data > tree/d/file; chmod 4711 tree/d/file; chown 250:12 tree/d/file
ln tree/d/file tree/a-name-before-the-first; ln -s ../d/file tree/soft; ln tree/soft tree/another-soft
mkfifo -m 620 tree/pipe
mknod -m 640 tree/dev/sda b 8 0; mknod -m 666 tree/dev/null c 1 3; chown 0:6 tree/dev/sda
chmod 1777 tree/sticky; chmod 000 tree/d/empty
truncate -s 9M tree/sparse; printf x | dd of=tree/sparse bs=1 seek=5000000 conv=notrunc status=none
seq 400000 > tree/big
touch "tree/$(printf 'line\nbreak')" "tree/$(printf '\377\376')" "tree/$(printf 'n%0120d' 1)" tree/ünï
ln -s "$(printf 't%0150d' 1)" tree/far
for n in $(seq 300); do : > "tree/many/$(((n * 7919) % 1000))-$n"; done
setfattr -n user.note -v 'x=%1' tree/d; setfattr -n user.b -v 2 tree/d; setfattr -n user.a -v 1 tree/d
cp /bin/true tree/capable; setcap cap_net_raw+ep tree/capable
setfacl -m u:4242:r,g:4343:rw,m::rw tree/big; setfacl -d -m u:4444:rx tree/d
find tree -exec touch -h -d '2001-02-03 04:05:06.789 UTC' {} +
touch -d '2033-01-01 00:00:00.5 UTC' tree/ünï tree/sticky
touch -d '1969-12-31 23:00:00.25 UTC' tree/capable
"#;

/// Makes an archive of the tree with GNU tar.
const FORWARDS: &str =
    "tar -C tree --format=posix --sort=name --numeric-owner --acls --xattrs --xattrs-include='*' -cf forwards.tar .";

/// Variants that change only the environment of packing. `pack` runs the program's `raw pack`.
const PACKERS: [(&str, &str); 8] = [
    ("one thread", "pack --threads 1 tree"),
    ("many threads", "pack --threads 7 tree"),
    ("another locale and zone", "export LC_ALL=tr_TR.UTF-8 LANG=C TZ=Asia/Kathmandu; pack tree"),
    ("another host", "unshare --uts sh -c 'hostname elsewhere; exec \"$0\" raw pack tree' \"$program\""),
    ("another umask", "umask 777; pack tree"),
    ("another way there", "mkdir -p x/y; cd x/y; pack ../.././tree/."),
    ("a path through a link", "ln -sfn tree link; pack link/"),
    (
        "seen again, with other times of access",
        "find tree -type f -exec cat {} + > /dev/null; touch -a -d 2000-01-01 tree/big; pack tree",
    ),
];

/// Variants that make the tree again, elsewhere or in another order. `make DIR` unpacks the archive of the tree.
const PLACES: [(&str, &str); 6] = [
    ("names in another order", "mkdir back; make back < backwards.tar; pack back --record record"),
    ("holes filled", "cp -a --sparse=never tree full; pack full"),
    ("holes where there were zeros", "cp -a --sparse=always full holes; pack holes"),
    ("a tmpfs", "mkdir t; mount -t tmpfs none t; make t < forwards.tar; pack t --record record"),
    (
        "an ext4 of small blocks",
        "truncate -s 64M img; mkfs.ext4 -q -b 1024 -I 256 -O ^dir_index img; mkdir e; mount -o loop img e; rmdir e/lost+found; \
         make e < forwards.tar; pack e --record record",
    ),
    (
        "an overlay, half of it above",
        "mkdir o; mount -t tmpfs none o; mkdir o/lower o/upper o/work o/new; make o/lower < forwards.tar; \
         mount -t overlay -o lowerdir=o/lower,upperdir=o/upper,workdir=o/work none o/new; \
         touch o/new/again; rm o/new/again; mv o/new/big o/b; cp -a o/b o/new/big; touch -r tree/big o/new/big; touch -r tree o/new; \
         pack o/new --record record",
    ),
];

/// Shell functions for all variants.
const PRELUDE: &str = "set -eu; program=$0; pack() { \"$program\" raw pack --format $format \"$@\"; }; \
                       make() { \"$program\" raw unpack --root \"$1\" --record record; };";

fn run(env: &TestEnv, format: &str, way: &str) -> Output {
    let script = format!("{PRELUDE} format={format}; ({way}) | sha256sum");
    let mut command = env.command("unshare");
    output(command.args(["--mount", "--propagation", "private", "bash", "-o", "pipefail", "-c", &script, PROGRAM]))
}

fn grow(env: &mut TestEnv) {
    env.set("SOURCE_DATE_EPOCH", "1700000000");
    let _ = output(env.command("bash").args(["-ec", GROW])).success();
    // Directories come after their content, and hard links in reverse order.
    let backwards = "cd tree; find . -depth -print0 | LC_ALL=C sort -zr | tar --format=posix --numeric-owner --acls --xattrs \
                     --xattrs-include='*' --no-recursion --null --verbatim-files-from -cf ../backwards.tar -T -";
    for script in [FORWARDS, backwards] {
        let _ = output(env.command("bash").args(["-ec", script])).success();
    }
}

#[test]
fn root_the_same_tree_gives_the_same_bytes_in_fifteen_ways() {
    let (Some(mut env), Some(user)) = (TestEnv::root(), TestEnv::userns()) else { return };
    grow(&mut env);
    let expected = run(&env, "tar.gz", "pack tree").success().stdout;
    for (name, way) in PACKERS.iter().chain(&PLACES) {
        assert_eq!(run(&env, "tar.gz", way).success().stdout, expected, "{name}");
    }
    for format in ["tar", "tar.xz", "tar.zst"] {
        let one = run(&env, format, "pack --threads 1 --level 1 tree").success().stdout;
        assert_eq!(run(&env, format, "pack --threads 5 --level 1 tree").success().stdout, one, "{format}");
    }
    assert_eq!(as_a_user(&env, user), expected, "an ordinary user");

    // SOURCE_DATE_EPOCH is honoured, and only times depend on it.
    let later = run(&env, "tar", "export SOURCE_DATE_EPOCH=1800000000; pack tree").success().stdout;
    assert_ne!(later, run(&env, "tar", "pack tree").success().stdout);
    let list = |epoch: &str| {
        let script =
            format!("SOURCE_DATE_EPOCH={epoch} \"$0\" raw pack tree --format tar | TZ=UTC tar --full-time -tvf -");
        output(env.command("bash").args(["-c", &script, PROGRAM])).success().stdout
    };
    let (early, late) = (list("1700000000"), list("1800000000"));
    let changed: Vec<&str> = early.lines().filter(|line| !late.contains(*line)).collect();
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert!(changed.iter().all(|line| line.contains("2023-11-14 22:13:20")), "{changed:?}");
}

/// Returns the checksum of the archive that an ordinary user packs from a tree they unpacked. Device nodes and some attributes are only
/// in the record.
fn as_a_user(env: &TestEnv, mut user: TestEnv) -> String {
    user.set("SOURCE_DATE_EPOCH", "1700000000");
    let home = user.path("home");
    fs::create_dir(home.join("new")).unwrap();
    let (uid, gid) = user.owner().unwrap();
    chown(home.join("new"), Some(uid), Some(gid)).unwrap();
    let unpack = ["raw", "unpack", "--root", "home/new", "--record", "home/record"];
    let _ = output(user.program(unpack).stdin(fs::File::open(env.path("forwards.tar")).unwrap())).success();
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(home.join("record")).unwrap()).unwrap();
    assert_eq!(kept["nodes"].as_array().unwrap().len(), 2, "{kept}");
    let script = "\"$0\" raw pack home/new --record home/record | sha256sum";
    let packed = output(user.command("bash").args(["-o", "pipefail", "-c", script, PROGRAM])).success().stdout;
    let _ = output(Command::new("rm").arg("-r").arg(home.join("new"))).success();
    packed
}

/// GNU tar and bsdtar list the same entries before and after unpacking and packing.
#[test]
fn root_unpacking_and_packing_keep_the_listing_of_an_archive() {
    let Some(mut env) = TestEnv::root() else { return };
    grow(&mut env);
    let through = "mkdir new; \"$0\" raw unpack --root new < forwards.tar; unset SOURCE_DATE_EPOCH; \
                   \"$0\" raw pack new --format tar > again.tar; rm -r new";
    // bsdtar stops at a name that is not UTF-8.
    let without = format!("rm tree/$'\\377\\376'; {FORWARDS}; {through}");
    let tar = "tar --xattrs --xattrs-include='*' --acls --numeric-owner --full-time --quoting-style=escape -tvvf";
    let bsdtar = "bsdtar -cf - --format=mtree --options=all @";
    for (script, list, space) in [(through, tar, " "), (&without, bsdtar, "")] {
        let _ = output(env.command("bash").args(["-ec", script, PROGRAM])).success();
        let of = |archive: &str| {
            let listing = output(env.command("bash").args(["-c", &format!("{list}{space}{archive}")])).success().stdout;
            listing.lines().map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let (before, after) = (of("forwards.tar"), of("again.tar"));
        assert!(before.len() > 300, "{list}: {}", before.len());
        let only = |these: &BTreeSet<String>, those| these.difference(those).cloned().collect::<Vec<_>>();
        assert_eq!(only(&before, &after), only(&after, &before), "{list}");
    }
}
