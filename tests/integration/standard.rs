//! Standard input and output that are closed, full, or something that holds no archive: never exit code 0 with nothing done.

use std::fs;

use crate::env::{Output, PROGRAM, TestEnv, output};

const PREPARE: &str =
    "umask 022; mkdir -p tree new; seq 100 > tree/file; tar -C tree -cf tree.tar .; xz -k tree.tar; touch empty";

/// Runs a command, given the program as `$0`, where there are a tree, its archive, and an empty directory `new`.
fn run(env: &TestEnv, command: &str) -> Output {
    output(env.command("bash").args(["-c", command, PROGRAM]))
}

#[track_caller]
fn fails(env: &TestEnv, command: &str, code: i32, text: &str) {
    let ended = run(env, command);
    assert_eq!(ended.code, code, "{command}: {ended:?}");
    assert!(ended.stderr.contains(text), "{command}: {ended:?}");
}

const CLOSED: [(&str, &str); 8] = [
    ("\"$0\" raw pack tree >&-", "standard output is closed"),
    ("\"$0\" raw ls < tree.tar >&-", "standard output is closed"),
    ("\"$0\" raw xzcat < tree.tar.xz >&-", "standard output is closed"),
    ("\"$0\" raw unpack --root new --json < tree.tar >&-", "standard output is closed"),
    ("\"$0\" raw ls <&-", "standard input is closed"),
    ("\"$0\" raw xzcat <&-", "standard input is closed"),
    ("\"$0\" raw unpack --root new <&-", "standard input is closed"),
    ("\"$0\" store import - <&-", "standard input is closed"),
];

#[test]
fn what_is_closed_holds_no_archive() {
    let env = TestEnv::new();
    let _ = run(&env, PREPARE).success();
    for (command, text) in CLOSED {
        fails(&env, command, 2, text);
    }
    // Nothing else needs them: a daemon's helper has none.
    let _ = run(&env, "\"$0\" completions bash <&- > /dev/null").success();
    assert_eq!(fs::read_dir(env.path("new")).unwrap().count(), 0);
}

/// The program run again in a user namespace begins with what the first was given for a closed one.
#[test]
fn userns_what_is_closed_holds_no_archive_of_an_ordinary_user() {
    let Some(env) = TestEnv::userns() else { return };
    let _ = run(&env, PREPARE).success();
    for (command, text) in CLOSED {
        fails(&env, command, 2, text);
    }
    assert_eq!(fs::read_dir(env.path("new")).unwrap().count(), 0);
}

#[test]
fn root_what_cannot_be_written_or_read_is_told() {
    let Some(env) = TestEnv::root() else { return };
    let _ = run(&env, PREPARE).success();
    for verb in
        ["raw pack tree", "raw ls < tree.tar", "raw xzcat < tree.tar.xz", "raw unpack --root new --json < tree.tar"]
    {
        fails(&env, &format!("rm -rf new/*; \"$0\" {verb} > /dev/full"), 4, "No space left on device");
        fails(&env, &format!("rm -rf new/*; \"$0\" {verb} 1< empty"), 4, "Bad file descriptor");
        fails(&env, &format!("rm -rf new/*; \"$0\" {verb} 1< tree"), 4, "Bad file descriptor");
    }
    for verb in ["raw unpack --root new", "raw ls", "raw xzcat"] {
        fails(&env, &format!("\"$0\" {verb} < tree"), 4, "Is a directory");
        fails(&env, &format!("\"$0\" {verb} 0> written"), 4, "Bad file descriptor");
        fails(&env, &format!("\"$0\" {verb} < empty"), 3, "");
    }
    let terminal = "script -qec '\"'$0'\" raw VERB' /dev/null < /dev/null";
    for verb in ["pack tree", "unpack --root new", "ls", "xzcat"] {
        let ended = run(&env, &terminal.replace("VERB", verb)).code(2);
        assert!(ended.stdout.contains("terminal"), "{verb}: {}", ended.stdout);
    }
    // A file is gone on with where it stands.
    let script = "printf 123456 > packed; \"$0\" raw pack tree --format tar >> packed; { head -c 6 > /dev/null; \"$0\" raw ls; } < packed; \
                  { \"$0\" raw pack tree --format tar; echo end; } > both; tail -c 4 both";
    let told = run(&env, script).success().stdout;
    assert!(told.contains("./file\n") && told.ends_with("end\n"), "{told}");
}
