//! System calls as `strace` records them. After the root of the tree is open, only `openat2` with `RESOLVE_IN_ROOT` gets a path with a
//! slash.

use std::fs;
use std::path::Path;

use crate::env::{PROGRAM, TestEnv, output};

/// Options of strace: paths in full, without data.
pub(crate) const STRACE: [&str; 5] = ["-f", "-qq", "-s", "0", "-o"];

/// Calls whose strings are data or names of attributes, not paths.
const DATA: [&str; 13] = [
    "read",
    "write",
    "pread64",
    "pwrite64",
    "readv",
    "writev",
    "getcwd",
    "getdents64",
    "fsetxattr",
    "fgetxattr",
    "flistxattr",
    "recvmsg",
    "sendmsg",
];

/// Returns the lines of a trace, after `root` is opened, with a path that is not allowed.
pub(crate) fn paths_outside(trace: &str, root: &Path) -> Vec<String> {
    let opening = format!("\"{}\"", root.display());
    let is_opening = |line: &&str| line.contains(&opening) && line.contains("O_DIRECTORY");
    let mut after = trace.lines().skip_while(|line| !is_opening(line));
    assert!(after.next().is_some(), "{} is never opened:\n{trace}", root.display());
    after.filter(|line| carries_path(line)).map(str::to_owned).collect()
}

fn carries_path(line: &str) -> bool {
    let call = line.trim_start_matches(|letter: char| letter.is_ascii_digit()).trim_start();
    let Some((name, arguments)) = call.split_once('(') else { return false };
    if name.starts_with('<') || DATA.contains(&name) || (name == "openat2" && arguments.contains("RESOLVE_IN_ROOT")) {
        return false;
    }
    let strings: Vec<&str> = arguments.split('"').skip(1).step_by(2).collect();
    match name {
        // The target of a new link is not followed, and the target that is read is output.
        "symlinkat" => strings.iter().skip(1).any(|text| text.contains('/')),
        "readlinkat" => strings.iter().take(1).any(|text| text.contains('/')),
        _ => strings.iter().any(|text| text.contains('/')),
    }
}

#[test]
fn paths_in_traces_are_found() {
    let trace = r#"
7 openat(AT_FDCWD, "/proc/self/maps", O_RDONLY) = 3
7 open("/tmp/tree", O_RDONLY|O_LARGEFILE|O_CLOEXEC|O_DIRECTORY) = 4
7 openat2(4, "a/b", {flags=O_PATH, resolve=RESOLVE_NO_MAGICLINKS|RESOLVE_IN_ROOT}, 24) = 5
7 symlinkat("../x", 5, "l") = 0
7 write(3, "a/b", 3) = 3
7 <... openat resumed>"a/b") = 3
"#;
    let root = Path::new("/tmp/tree");
    assert_eq!(paths_outside(trace, root), Vec::<String>::new());
    for wrong in [
        r#"8 openat(4, "a/b", O_RDONLY) = 5"#,
        r#"openat2(4, "a/b", {flags=O_PATH, resolve=RESOLVE_NO_MAGICLINKS}, 24) = 5"#,
        r#"symlinkat("x", 5, "a/l") = 0"#,
        r#"7 fchownat(AT_FDCWD, "/etc/moo", 0, 0, 0 <unfinished ...>"#,
        r#"7 mknodat(5, "a/b", S_IFIFO|0600) = 0"#,
    ] {
        assert_eq!(paths_outside(&format!("{trace}{wrong}\n"), root), [wrong]);
    }
}

#[test]
fn root_packing_a_tree_reaches_nothing_by_path() {
    let Some(env) = TestEnv::root() else { return };
    // Deeper than the number of directories that are kept open, with links that lead outside.
    let deep = vec!["d"; 80].join("/");
    fs::create_dir_all(env.path("tree").join(&deep)).unwrap();
    let script = "cd tree; p=.; while [ -d $p ]; do echo x > $p/f; ln -s /etc $p/l; ln -s ../../../etc $p/up; mkfifo $p/p; mkdir $p/e; \
                  touch $p/e/f; p=$p/d; done; setfattr -n user.a/b -v 1 f; ln d/f hard";
    let _ = output(env.command("sh").args(["-ec", script])).success();
    let tree = env.path("tree");
    let traced = |trace: &str, arguments: &[&str]| {
        let mut strace = env.command("strace");
        strace.args(STRACE).arg(env.path(trace)).arg(PROGRAM).args(arguments);
        let done = strace.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        (done.stdout, fs::read_to_string(env.path(trace)).unwrap())
    };
    let (archive, trace) = traced("packing", &["raw", "pack", "--format", "tar", tree.to_str().unwrap()]);
    assert!(trace.contains("d/d/d/d"), "distant directories are opened again");
    assert_eq!(paths_outside(&trace, &tree), Vec::<String>::new());
    let listed =
        output(env.program(["raw", "ls"]).stdin(fs::File::open(env.write("archive", archive)).unwrap())).success();
    assert_eq!(listed.stdout.lines().filter(|line| line.ends_with(" -> /etc")).count(), 81);
}

#[test]
fn root_unpacking_a_file_takes_four_system_calls() {
    let Some(env) = TestEnv::root() else { return };
    let count = |files: usize| {
        let archive = format!("{files}.tar");
        let script = "mkdir -p $1/a/b $1/to; for n in $(seq $1); do echo $n > $1/a/b/$n; done; tar -C $1 -cf $1.tar a";
        let _ = output(env.command("sh").args(["-ec", script, "sh"]).arg(files.to_string())).success();
        let mut strace = env.command("strace");
        strace.args(["-f", "-qq", "-c", "-U", "calls,name", "-o"]).arg(env.path("calls")).arg(PROGRAM);
        strace.args(["raw", "unpack", "--root"]).arg(env.path(format!("{files}/to")));
        let _ = output(strace.stdin(fs::File::open(env.path(archive)).unwrap())).success();
        let report = fs::read_to_string(env.path("calls")).unwrap();
        let rows = report.lines().filter(|line| !line.ends_with(" total"));
        rows.filter_map(|row| row.split_whitespace().next()?.parse::<usize>().ok()).sum::<usize>()
    };
    // Create it, write it, set its time and close it. The threads make a few more calls.
    let (few, many) = (count(500), count(2500));
    assert!(many - few < 2000 * 9 / 2, "{few} calls for 500 files, {many} for 2500");
}
