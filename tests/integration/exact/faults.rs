//! Failing system calls, one at a time: the program ends with an error, or the result is complete. `strace` makes the calls fail.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::Stdio;

use crate::env::{PROGRAM, TestEnv, output};

/// The system calls that are made to fail. Calls that only the allocator and the thread library make are left out.
const KINDS: [&str; 35] = [
    "open",
    "openat",
    "openat2",
    "read",
    "pread64",
    "write",
    "close",
    "lseek",
    "fstat",
    "newfstatat",
    "statx",
    "fstatfs",
    "mkdir",
    "mkdirat",
    "mknodat",
    "symlinkat",
    "linkat",
    "unlinkat",
    "renameat",
    "fchown",
    "fchownat",
    "fchmod",
    "fchmodat2",
    "ftruncate",
    "fsetxattr",
    "fgetxattr",
    "flistxattr",
    "utimensat",
    "getdents64",
    "getcwd",
    "readlinkat",
    "syncfs",
    "fcntl",
    "ioctl",
    "clone3",
];

/// The errors, which take turns. With `QUERN_TEST_FAULTS=all`, each call fails with every error.
const ERRNOS: [&str; 6] = ["EIO", "ENOSPC", "EACCES", "ENOMEM", "EPERM", "EINVAL"];

/// A command (`$0` is the program), a command that prepares it, and a command that prints a digest of its result.
struct Case {
    command: &'static str,
    before: &'static str,
    result: &'static str,
}

const CASES: [Case; 8] = [
    Case {
        command: "exec \"$0\" raw ls < archive.tar.xz > listed",
        before: "rm -f listed",
        result: "sha256sum < listed",
    },
    Case {
        command: "exec \"$0\" raw ls --json < archive.tar.xz > listed",
        before: "rm -f listed",
        result: "sha256sum < listed",
    },
    Case {
        command: "exec \"$0\" raw xzcat < archive.tar.xz > decoded",
        before: "rm -f decoded",
        result: "sha256sum < decoded",
    },
    Case {
        command: "exec \"$0\" oci validate image --json > judged",
        before: "rm -f judged",
        result: "sha256sum < judged",
    },
    Case {
        command: "exec \"$0\" raw pack tree --threads 2 --cache pieces --manifest listed > packed",
        before: "rm -rf packed listed pieces",
        result: "cat packed listed | sha256sum",
    },
    Case {
        command: "exec \"$0\" raw unpack --root new --record record < archive.tar.xz",
        before: "rm -rf new record; mkdir new",
        result: "\"$0\" raw pack new --record record --format tar | sha256sum",
    },
    Case {
        command: "exec \"$0\" raw pack tree --threads 2 > packed",
        before: "rm -f packed",
        result: "sha256sum < packed",
    },
    Case {
        command: "exec \"$0\" oci unpack image latest new --record record",
        before: "rm -rf new record",
        result: "\"$0\" raw pack new --record record --format tar | sha256sum",
    },
];

const PREPARE: &str = r#"
mkdir -p tree/d/e; echo data > tree/d/file; ln tree/d/file tree/hard; ln -s d/file tree/soft; mkfifo tree/pipe; mknod tree/null c 1 3
truncate -s 3M tree/sparse; echo x >> tree/sparse; setfattr -n user.note -v 1 tree/d/file; seq 200000 > tree/big
find tree -exec touch -h -d @5 {} +
tar -C tree --sort=name --format=posix --sparse --xattrs --xattrs-include='*' -cJf archive.tar.xz .
umoci init --layout image; umoci new --image image; umoci unpack --image image bundle; cp -a tree/. bundle/rootfs/
umoci repack --image image bundle; rm -r bundle
"#;

/// Returns for each kind of call how often the thread that makes most of them makes it before the program begins, and in all.
fn calls(trace: &str) -> BTreeMap<&'static str, (usize, usize)> {
    let mut by_thread: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let (mut calls, mut started) = (BTreeMap::new(), false);
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let name = call.trim_start().split('(').next().unwrap();
        if let Some(kind) = KINDS.iter().find(|kind| **kind == name) {
            let count = by_thread.entry((thread, name)).or_default();
            *count += 1;
            let (before, all) = calls.entry(*kind).or_insert((0, 0));
            (*before, *all) = (if started { *before } else { *count }, (*all).max(*count));
        }
        // Rust's first call. Earlier calls are those of the shell and the loader.
        started |= name == "sigaltstack";
    }
    calls
}

#[test]
fn root_every_failing_system_call_is_reported() {
    let Some(env) = TestEnv::root() else { return };
    let shell = |script: &str| output(env.command("bash").args(["-ec", script, PROGRAM]));
    let _ = shell(PREPARE).success();
    let all_ways = std::env::var_os("QUERN_TEST_FAULTS").is_some_and(|ways| ways == "all");
    let (mut runs, mut told, mut wrong) = (0, 0, Vec::new());
    for (number, case) in CASES.iter().enumerate() {
        let traced = |options: &[String]| {
            let _ = shell(case.before).success();
            let mut strace = env.command("strace");
            strace.args(["-f", "-qq"]).args(options).args(["bash", "-c", case.command, PROGRAM]);
            output(strace.stdin(Stdio::null()))
        };
        let _ = traced(&["-o".to_owned(), "trace".to_owned()]).success();
        let trace = fs::read_to_string(env.path("trace")).unwrap();
        let expected = shell(case.result).success().stdout;
        let _ = File::create(env.path("trace")).unwrap();
        for (at, (kind, (before, all))) in (number..).zip(calls(&trace)) {
            let mut points = vec![before + 1, before + (all - before).div_ceil(2), all];
            points.dedup();
            for (turn, point) in points.into_iter().filter(|point| *point > before).enumerate() {
                let turns = if all_ways { 0..ERRNOS.len() } else { at + turn..at + turn + 1 };
                for errno in turns.map(|turn| ERRNOS[turn % ERRNOS.len()]) {
                    let inject = format!("inject={kind}:error={errno}:when={point}");
                    let ended = traced(&["-o".to_owned(), "/dev/null".to_owned(), "-e".to_owned(), inject.clone()]);
                    let what = format!("{} {inject}: {} {}", case.command, ended.code, ended.stderr);
                    runs += 1;
                    match ended.code {
                        4 if ended.stderr.contains("error: ") => told += 1,
                        // The first write of every thread fails, including that of the error message.
                        4 if *kind == *"write" => {}
                        // The call did not matter, or was repeated.
                        0 if shell(case.result).stdout == expected => {}
                        _ => wrong.push(what),
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {runs}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(told > 150, "{told} of {runs} runs ended with an error");
}
