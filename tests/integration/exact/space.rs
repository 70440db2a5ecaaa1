//! Too little space at any point: exit code 4, the cause, the size that was needed, and no partial result under a final name.

use std::fs;

use crate::env::{Output, PROGRAM, Privilege, TestEnv, output, twins};

const PREPARE: &str = r#"
mkdir -p tree/d small; for n in 1 2 3 4 5 6; do head -c 700000 /dev/urandom > tree/d/$n; done; seq 3000 > tree/e
tar -C tree -czf archive.tar.gz .; xz -dc < /dev/null > /dev/null 2>&1 || true
tar -C tree -cJf archive.tar.xz .
umoci init --layout image; umoci new --image image; umoci unpack --image image bundle; cp -a tree/. bundle/rootfs/
umoci repack --image image bundle; rm -r bundle; chmod -R a+rX image
"#;

/// Commands that mount a small file system of `$size` KiB on `small`.
const SYSTEMS: [(&str, &str); 2] = [
    ("tmpfs", "mount -t tmpfs -o size=${size}k none small"),
    (
        "ext4",
        "truncate -s ${size}k img; mkfs.ext4 -q -O ^has_journal -m 0 img; mount -o loop img small; rmdir small/lost+found",
    ),
];

/// Commands that write to it, and the path that must not exist after they fail.
const COMMANDS: [(&str, &str); 3] = [
    ("mkdir small/tree; \"$0\" raw unpack --root small/tree --record small/record < archive.tar.gz", "small/record"),
    ("\"$0\" raw pack tree --level 1 > small/packed", "small/none"),
    ("\"$0\" oci unpack image latest small/tree --record small/record", "small/tree"),
];

fn run(env: &TestEnv, mount: &str, size: u32, command: &str, absent: &str) -> Output {
    let script = format!(
        "set -e; size={size}; {mount}; chown $1 small; command=$2; shift 2; set +e; \"$@\" bash -c \"$command\" \"$0\"; code=$?; \
         ls -A small | grep '^\\.quern' >&2; \
         if [ $code != 0 -a -e {absent} ]; then echo {absent} is there >&2; code=99; fi; exit $code"
    );
    let (mut unshare, become_user) = env.command_of_root("unshare");
    unshare.args(["--mount", "--propagation", "private", "bash", "-c", &script, PROGRAM]);
    let (uid, gid) = env.owner().unwrap_or((0, 0));
    output(unshare.arg(format!("{uid}:{gid}")).arg(command).args(become_user))
}

twins!(too_little_space => root_too_little_space_is_reported_and_leaves_nothing, userns_too_little_space_is_reported_and_leaves_nothing);

fn too_little_space(privilege: Privilege) {
    // Only root can mount the small file systems.
    let Some(env) = TestEnv::with(privilege).filter(|_| Privilege::Root.available()) else { return };
    // An ordinary user can pack only their own files.
    let (uid, gid) = env.owner().unwrap_or((0, 0));
    let prepare = format!("{PREPARE}chown -R {uid}:{gid} tree");
    let _ = output(env.command_of_root("bash").0.args(["-ec", &prepare])).success();
    let mut told = 0;
    for (system, mount) in SYSTEMS {
        for (command, absent) in COMMANDS {
            for size in [300, 900, 1700, 2500, 3300, 4100] {
                let ended = run(&env, mount, size, command, absent);
                let what = format!("{system} of {size} KiB: {command}: {}", ended.stderr);
                assert_eq!(ended.code, 4, "{what}");
                assert!(ended.stderr.contains("No space left on device"), "{what}");
                assert!(ended.stderr.contains("bytes") && !ended.stderr.contains(".quern"), "{what}");
                told += 1;
            }
            let _ = run(&env, mount, 16_000, command, absent).success();
        }
    }
    assert_eq!(told, 36);
}

/// The size in the index of an `.xz` file is compared with the free space before anything is written.
#[test]
fn root_too_little_space_for_a_known_size_is_reported_at_once() {
    let Some(env) = TestEnv::root() else { return };
    let _ = output(env.command("bash").args(["-ec", PREPARE])).success();
    let command =
        "\"$0\" raw unpack --root small < archive.tar.xz; code=$?; [ -z \"$(ls -A small)\" ] || exit 98; (exit $code)";
    let ended = run(&env, SYSTEMS[0].1, 2000, command, "small/none").code(4);
    assert!(ended.stderr.contains("bytes are needed") && ended.stderr.contains("are free"), "{}", ended.stderr);
    let size = fs::metadata(env.path("archive.tar.xz")).unwrap().len();
    assert!(size > 3_000_000, "{size}");
}
