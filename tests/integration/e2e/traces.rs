//! Traces that a build must not leave: processes, mounts and partial files.

use std::fs;
use std::io::BufRead as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::env::wait_for;

/// Returns the processes with the unique name of the directory `path` in their command line or in their mounts. They include the sandbox
/// of a build, in which the work directory is mounted.
pub(super) fn processes(path: &Path) -> Vec<String> {
    let wanted = path.file_name().expect("a name").as_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("a /proc").flatten() {
        let pid = entry.file_name();
        let Some(pid) = pid.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == std::process::id() {
            continue;
        }
        // A process may end meanwhile, and those of other users may be unreadable.
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let (command, mounts) = (read("cmdline"), read("mountinfo"));
        if contains(&command, wanted) || contains(&mounts, wanted) {
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push(format!("{pid} {} {command}", String::from_utf8_lossy(&read("comm")).trim()));
        }
    }
    found
}

/// Waits until no process uses `path`, and checks that nothing below it is mounted.
#[track_caller]
pub(super) fn assert_nothing_runs(path: &Path) {
    let mut left = Vec::new();
    wait_for("the processes of a build to be gone", || {
        let now = processes(path);
        let gone = now.is_empty();
        if now != left && !gone {
            eprintln!("still there: {now:#?}");
        }
        left = now;
        gone
    });
    let mounts = fs::read("/proc/self/mountinfo").expect("the mounts");
    assert!(
        !contains(&mounts, path.file_name().expect("a name").as_bytes()),
        "mounted: {}",
        String::from_utf8_lossy(&mounts)
    );
}

/// Returns the sorted names in a directory. A missing directory has none.
pub(super) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn a_process_and_its_end_are_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new("sh")
        .args(["-c", "echo ready; read -r line; : \"$1\"", "sh"])
        .arg(directory.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The parent may continue before the command line appears in /proc.
    let mut ready = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    assert_eq!(processes(directory.path()).len(), 1);
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_nothing_runs(directory.path());
}
