//! The same archives given to four readers: all see the same entries, or this program refuses the archive with a stable code.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::env::{PROGRAM, TestEnv, output, require_suites};

/// Compares the readers. Prints a line of JSON for each archive.
const PARSERS: &str = include_str!("parsers.py");
/// Makes damaged archives.
const MUTANTS: &str = include_str!("mutants.py");
/// The archives on which the readers disagree: the code of this program's refusal, or the readers that differ and why they are wrong.
const VERDICTS: &str = include_str!("verdicts.txt");

/// The archives that GNU tar 1.34 unpacks differently, and why.
const GNU_TAR_DIFFERS: [(&str, &str); 5] = [
    ("commons/jars-test.tar.gz", "it loses the time of a directory if an entry is added to it later"),
    (
        "containers/conformance-testdata-add-parent-symlink-foobar.tar",
        "it makes a link that leads upwards only at the end, so that no entry goes through it",
    ),
    ("go/gnu-sparse-big.tar", "the archive is truncated, which shows only after sixty gigabytes of holes"),
    ("libarchive/test_patterns_2.tar", "it loses the time of a directory whose name begins with a slash"),
    ("libarchive/test_pax_xattr_header_libarchive.tar", "it does not support the attributes that libarchive writes"),
];

/// Returns the archives of the suites, as `suite/name`.
pub(crate) fn archives(suites: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for suite in ["commons", "containers", "go", "libarchive", "phar", "python", "toybox"] {
        let names = fs::read_dir(suites.join(suite)).unwrap().map(|entry| entry.unwrap().file_name());
        all.extend(names.map(|name| Path::new(suite).join(name)));
    }
    all.sort();
    all
}

fn known() -> impl Iterator<Item = &'static str> {
    VERDICTS.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

fn verdicts(below: &Path, archives: &[PathBuf]) -> BTreeMap<String, Value> {
    let mut judge = Command::new("python3");
    judge.args(["-c", PARSERS, PROGRAM]).current_dir(below).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut judge = judge.spawn().unwrap();
    let mut names = judge.stdin.take().unwrap();
    let list: Vec<String> = archives.iter().map(|path| format!("{}\n", path.to_str().unwrap())).collect();
    let writer = std::thread::spawn(move || names.write_all(list.concat().as_bytes()).unwrap());
    let done = judge.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(done.status.success());
    let lines = String::from_utf8(done.stdout).unwrap();
    let verdicts = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let named = verdicts.map(|verdict| (verdict["file"].as_str().unwrap().to_owned(), verdict));
    named.collect()
}

#[test]
fn four_readers_agree_on_archives_of_other_projects() {
    let Some(suites) = require_suites() else { return };
    let archives = archives(&suites);
    let found = verdicts(&suites, &archives);
    assert_eq!(found.len(), archives.len());
    let (mut same, mut entries, mut told) = (0, 0, String::new());
    for (name, verdict) in &found {
        match verdict["verdict"].as_str().unwrap() {
            "same" => (same, entries) = (same + 1, entries + verdict["entries"].as_u64().unwrap()),
            "refused" => writeln!(told, "{name} refused {}", verdict["code"].as_str().unwrap()).unwrap(),
            _ => {
                let who: Vec<&str> = verdict["who"].as_object().unwrap().keys().map(String::as_str).collect();
                writeln!(told, "{name} differs {}", who.join(",")).unwrap();
            }
        }
    }
    let known: Vec<&str> = known().filter(|line| !line.contains(" unpack ")).collect();
    assert_eq!(told.lines().collect::<Vec<_>>(), known, "{found:#?}");
    assert!(same >= 150 && entries >= 500, "{same} archives, {entries} entries");
}

/// `QUERN_TEST_MUTANTS` sets the number of archives; 100000 take a quarter of an hour.
#[test]
fn four_readers_agree_on_damaged_archives() {
    let env = TestEnv::new();
    let count = std::env::var("QUERN_TEST_MUTANTS").unwrap_or_else(|_| "500".to_owned());
    let seed = std::env::var("QUERN_TEST_SEED").unwrap_or_else(|_| "1".to_owned());
    let mut make = env.command("python3");
    let _ = output(make.args(["-c", MUTANTS]).arg(env.path("tmp")).args([&count, &seed])).success();
    let mut archives: Vec<PathBuf> =
        fs::read_dir(env.path("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
    archives.sort();
    let found = verdicts(&env.path("tmp"), &archives);
    let mut wrong = Vec::new();
    for (name, verdict) in found.iter().filter(|(_, verdict)| verdict["verdict"] == "differs") {
        let who = verdict["who"].as_object().unwrap();
        // libarchive 3.6 loses the target of a link from a PAX record if the header has none.
        let forgets = |text: &str| {
            text.contains("'hardlink' here, 'none' there")
                || (text.starts_with("link of") && text.ends_with("None there"))
        };
        if who.len() > 1 || !who.get("libarchive").and_then(Value::as_str).is_some_and(forgets) {
            wrong.push(format!("{name}: {}", verdict["who"]));
        }
    }
    assert!(wrong.is_empty(), "{} {}", seed, wrong.join("\n"));
    let same = found.values().filter(|verdict| verdict["verdict"] == "same").count();
    assert!(
        same * 5 > found.len() && same * 2 < found.len(),
        "{same} of {} are the same: too much or too little damage",
        found.len()
    );
}

#[test]
fn xzcat_agrees_with_xz_on_its_test_files() {
    let Some(suites) = require_suites() else { return };
    let env = TestEnv::new();
    let (mut good, mut wrong) = (0, Vec::new());
    for entry in fs::read_dir(suites.join("xz")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "README" {
            continue;
        }
        let run = |command: &mut Command| command.stdin(fs::File::open(&path).unwrap()).output().unwrap();
        let ours = run(&mut env.program(["raw", "xzcat"]));
        let theirs = run(env.command("xz").args(["-dc", "--format=xz"]));
        // xz only warns about a type of check that it does not support.
        let accepted = theirs.status.success();
        match ours.status.code() {
            Some(0) if accepted && ours.stdout == theirs.stdout && name.ends_with(".xz") => good += 1,
            Some(3) if !accepted => {}
            code => wrong.push(format!("{name}: {code:?}, xz {:?}", theirs.status)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(good >= 20, "{good} good files");
}

/// This program and GNU tar each unpack the archive. Packing the two trees must give the same bytes.
#[test]
fn root_the_unpacked_tree_is_that_of_gnu_tar() {
    let Some(suites) = require_suites() else { return };
    let Some(mut env) = TestEnv::root() else { return };
    // Directories that are not in the archive have the time of the test.
    env.set("SOURCE_DATE_EPOCH", "1700000000");
    let (mut same, mut wrong, mut told) = (0, Vec::new(), Vec::new());
    for archive in archives(&suites) {
        let name = archive.to_str().unwrap();
        if GNU_TAR_DIFFERS.iter().any(|(known, _)| *known == name)
            || known().any(|line| line.starts_with(&format!("{name} refused")))
        {
            continue;
        }
        let (ours, theirs) = (env.path("ours"), env.path("theirs"));
        for tree in [&ours, &theirs] {
            fs::create_dir(tree).unwrap();
        }
        let input = || fs::File::open(suites.join(&archive)).unwrap();
        let mut unpack = env.program(["raw", "unpack", "--json", "--root", "ours", "--record", "record"]);
        let unpacked = output(unpack.stdin(input()));
        if unpacked.code == 3 {
            let last: Value = serde_json::from_str(unpacked.stdout.lines().last().unwrap()).unwrap();
            told.push(format!("{name} unpack {}", last["refused"].as_str().unwrap()));
            for tree in [ours, theirs] {
                fs::remove_dir_all(tree).unwrap();
            }
            continue;
        }
        let _ = unpacked.success();
        let mut tar = env.command("tar");
        tar.args([
            "--extract",
            "--numeric-owner",
            "--same-permissions",
            "--same-owner",
            "--acls",
            "--xattrs",
            "--xattrs-include=*",
        ]);
        let tar = output(
            tar.args(["--exclude-from=/dev/null", "--directory"]).arg(&theirs).arg("--file").arg(suites.join(&archive)),
        );
        let packed = |tree: &str| {
            let packed = env.program(["raw", "pack", tree, "--format", "tar"]).output().unwrap();
            assert!(packed.status.success(), "{name}: {}", String::from_utf8_lossy(&packed.stderr));
            packed.stdout
        };
        if packed("ours") == packed("theirs") {
            same += 1;
        } else {
            let mut diff = env.command("sh");
            let script = "for tree in ours theirs; do (cd $tree && find . -printf '%p %y %m %U %G %s %T@ %n %l\\n' | sort) > $tree.list; \
                          done; diff ours.list theirs.list | head -5";
            wrong.push(format!(
                "{name}: tar said {:?} {}, {}",
                tar.code,
                tar.stderr,
                output(diff.args(["-c", script])).stdout
            ));
        }
        for tree in [ours, theirs] {
            fs::remove_dir_all(tree).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(told, known().filter(|line| line.contains(" unpack ")).collect::<Vec<_>>());
    assert!(same >= 120, "{same} archives");
}
