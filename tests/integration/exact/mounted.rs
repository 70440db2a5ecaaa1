//! Mounts in a tree: packing does not include them, and unpacking does not change them.

use crate::env::{PROGRAM, TestEnv, output};

/// The commands that mount something in the tree, and the path that the error names.
const MOUNTS: [(&str, &str); 5] = [
    ("mount -t tmpfs none tree/d", "d"),
    ("mount --bind other tree/d", "d"),
    ("mount -t proc proc tree/d", "d"),
    ("mount --bind other/file tree/file", "file"),
    ("mount --bind other/pipe tree/pipe", "pipe"),
];

const PREPARE: &str = "umask 022; mkdir -p tree/d other; echo x > tree/file; mkfifo tree/pipe other/pipe; echo secret > other/file; \
                       tar -C tree -cf tree.tar .";

fn run(env: &TestEnv, command: &str) -> crate::env::Output {
    let mut unshare = env.command("unshare");
    output(unshare.args(["--mount", "--propagation", "private", "bash", "-c", command, PROGRAM]))
}

#[test]
fn root_a_tree_with_a_mount_in_it_is_not_packed() {
    let Some(env) = TestEnv::root() else { return };
    let _ = output(env.command("bash").args(["-ec", PREPARE])).success();
    for (mount, path) in MOUNTS {
        let ended = run(&env, &format!("{mount} || exit 99; \"$0\" raw pack tree --format tar > packed")).code(4);
        let said = format!("packing {path} in tree: it is a mount point");
        assert!(ended.stderr.contains(&said) && ended.stderr.contains("mount --bind tree DIR"), "{}", ended.stderr);
        // The hint works.
        let hidden = "mkdir -p seen; mount --bind tree seen && \"$0\" raw pack seen --format tar";
        let compare =
            format!("\"$0\" raw pack tree --format tar > packed; {mount} || exit 99; {hidden} | cmp - packed");
        let _ = run(&env, &compare).success();
    }
    // The root of the tree may be a mount point.
    let _ =
        run(&env, "mount --bind other tree/d; \"$0\" raw pack tree/d --format tar | tar t | grep -x ./file").success();
}

/// Unpacks over a tree with a mount point in it, and over a read-only file system.
#[test]
fn root_a_mount_in_the_way_is_reported() {
    let Some(env) = TestEnv::root() else { return };
    let _ = output(env.command("bash").args(["-ec", PREPARE])).success();
    let unpack = "\"$0\" raw unpack --root tree < tree.tar";
    for path in ["file", "pipe"] {
        let script =
            format!("mount --bind other/{path} tree/{path} || exit 99; {unpack}; code=$?; cat other/file; exit $code");
        let ended = run(&env, &script).code(4);
        let said = [format!("unpacking {path} of standard input into tree: "), "Device or resource busy".to_owned()];
        assert!(said.iter().all(|said| ended.stderr.contains(said)), "{}", ended.stderr);
        assert_eq!(ended.stdout, "secret\n");
    }
    // A directory replaces a mounted file, and a file replaces a mounted directory.
    let script = "mkdir new; mkdir new/file; tar -C new -cf dir.tar file; mount --bind other/file tree/file; \
                  \"$0\" raw unpack --root tree < dir.tar; code=$?; cat other/file; exit $code";
    let ended = run(&env, script).code(4);
    assert!(ended.stderr.contains("Device or resource busy") && ended.stdout == "secret\n", "{ended:?}");
    let script = "mkdir new; echo > new/d; tar -C new -cf file.tar d; mount --bind other tree/d; \
                  \"$0\" raw unpack --root tree < file.tar; code=$?; cat other/file; exit $code";
    let ended = run(&env, script).code(4);
    assert!(ended.stderr.contains("unpacking d of standard input") && ended.stdout == "secret\n", "{ended:?}");
    let ended = run(&env, &format!("mount --bind tree tree; mount -o remount,bind,ro tree; {unpack}")).code(4);
    assert!(ended.stderr.contains("Read-only file system"), "{}", ended.stderr);
}

/// The file system is read-only, in case unpacking is not refused.
#[test]
fn root_unpacking_over_the_running_system_is_refused() {
    let Some(env) = TestEnv::root() else { return };
    let _ = output(env.command("bash").args(["-ec", PREPARE])).success();
    let within = "mkdir seen; mount --bind / seen && mount -o remount,bind,ro seen || exit 99; exec < tree.tar;";
    for unpack in [
        "chroot seen \"$0\" raw unpack --root /",
        "chroot seen \"$0\" raw unpack",
        "chroot seen \"$0\" raw unpack --root /etc/..",
        "\"$0\" raw unpack --root seen",
    ] {
        let ended = run(&env, &format!("{within} {unpack}")).code(2);
        assert!(ended.stderr.contains("this is the running system"), "{unpack}: {}", ended.stderr);
    }
}

#[test]
fn root_immutable_files_in_the_way_are_reported() {
    let Some(env) = TestEnv::root() else { return };
    let _ = output(env.command("bash").args(["-ec", PREPARE])).success();
    let script = "mkdir small; truncate -s 4M img; mkfs.ext4 -q -O ^has_journal img; mount -o loop img small || exit 99; \
                  mkdir small/new; echo old > small/new/file; chattr +i small/new/file; \"$0\" raw unpack --root small/new < tree.tar; \
                  code=$?; cat small/new/file; chattr -i small/new/file; exit $code";
    let ended = run(&env, script).code(4);
    assert!(ended.stderr.contains("unpacking file of standard input into small/new: unlinkat"), "{}", ended.stderr);
    assert!(ended.stderr.contains("Operation not permitted") && ended.stderr.contains("immutable"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "old\n");
}
