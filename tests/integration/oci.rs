//! `oci unpack` when it is interrupted, and when its tree would be a mount point.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::env::{PROGRAM, TestEnv, output, wait_for};

const PREPARE: &str = r#"
umoci init --layout image; umoci new --image image; umoci unpack --image image bundle
mkdir bundle/rootfs/{1..200}; touch bundle/rootfs/{1..200}/{1..100}
umoci repack --image image bundle; rm -r bundle
"#;

/// The number of directories in the image.
const DIRECTORIES: usize = 200;

fn prepared(env: TestEnv) -> TestEnv {
    let _ = output(env.command("bash").args(["-ec", PREPARE])).success();
    env
}

fn staging(env: &TestEnv) -> Vec<PathBuf> {
    let entries = fs::read_dir(env.path("")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".quern")).collect()
}

/// Starts unpacking and stops the process in the middle.
fn half_way(env: &TestEnv) -> Child {
    loop {
        let mut program = env.program(["oci", "unpack", "image", "latest", "new"]);
        let mut child = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Only its own directory: a killed process may have left another.
        let own = format!("-{}-", child.id());
        let made = |dir: &PathBuf| {
            let own = dir.to_string_lossy().contains(&own);
            if own { fs::read_dir(dir.join("tree")).map_or(0, Iterator::count) } else { 0 }
        };
        wait_for("some of the tree", || {
            staging(env).iter().any(|dir| made(dir) >= 5) || child.try_wait().unwrap().is_some()
        });
        send("STOP", &child);
        if staging(env).iter().any(|dir| made(dir) < DIRECTORIES && made(dir) > 0) {
            return child;
        }
        // It finished too soon: try again.
        send("KILL", &child);
        child.wait().unwrap();
        let _ = output(env.command("rm").args(["-rf", "new"])).success();
    }
}

fn send(signal: &str, child: &Child) {
    let _ = output(std::process::Command::new("kill").args(["-s", signal, &child.id().to_string()]));
}

/// Sends a signal and continues the process, which still has thousands of files to make. Returns its exit code.
fn end(signal: &str, mut child: Child) -> i32 {
    send(signal, &child);
    send("CONT", &child);
    let status = child.wait().unwrap();
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

#[test]
fn root_interrupted_unpacking_leaves_nothing() {
    let Some(env) = TestEnv::root().map(prepared) else { return };
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        assert_eq!(end(signal, half_way(&env)), code, "{signal}");
        assert_eq!(staging(&env), Vec::<PathBuf>::new(), "{signal}");
        assert!(!env.path("new").exists(), "{signal}");
    }

    // The next run removes the directory of a killed process, but not that of a running one.
    assert_eq!(end("KILL", half_way(&env)), 137);
    let left = staging(&env);
    assert_eq!(left.len(), 1, "{left:?}");
    let living = half_way(&env);
    assert!(!left[0].exists(), "{left:?}");
    let living_one = staging(&env);
    let _ = env.run(["oci", "unpack", "image", "latest", "other"]).success();
    assert!(env.path("other/100/100").exists());
    assert_eq!(staging(&env), living_one);
    assert_eq!(end("TERM", living), 143);
    assert_eq!(staging(&env), Vec::<PathBuf>::new());
    assert!(!env.path("new").exists());
}

#[test]
fn root_a_mount_point_is_reported_before_unpacking() {
    let Some(env) = TestEnv::root().map(prepared) else { return };
    // A directory that is bind-mounted over itself is on the same file system.
    for mount in ["mount -t tmpfs none small", "mount --bind small small"] {
        let script = format!(
            "set -e; mkdir -p small; {mount}; set +e
            \"$0\" oci unpack image latest small; code=$?; ls -A . | grep '^\\.quern'; exit $code"
        );
        let mut unshare = env.command("unshare");
        let ended =
            output(unshare.args(["--mount", "--propagation", "private", "bash", "-c", &script, PROGRAM])).code(2);
        assert!(
            ended.stderr.contains("small is a mount point") && ended.stderr.contains("small/tree"),
            "{}",
            ended.stderr
        );
        assert_eq!(ended.stdout, "");
    }
    let script = "mount -t tmpfs none small; \"$0\" oci unpack image latest small/tree && ls small/tree/100";
    let mut unshare = env.command("unshare");
    let _ = output(unshare.args(["--mount", "--propagation", "private", "bash", "-c", script, PROGRAM])).success();
}
