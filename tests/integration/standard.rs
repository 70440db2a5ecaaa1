//! Standard input and output that are closed, full or not a file: the program never exits with 0 without doing its work.

use std::fs;

use crate::env::{Output, PROGRAM, TestEnv, output};

const PREPARE: &str =
    "umask 022; mkdir -p tree new; seq 100 > tree/file; tar -C tree -cf tree.tar .; xz -k tree.tar; touch empty";

/// Runs a command in a directory with a tree, its archive and an empty directory `new`. `$0` is the program.
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
fn closed_streams_are_refused() {
    let env = TestEnv::new();
    let _ = run(&env, PREPARE).success();
    for (command, text) in CLOSED {
        fails(&env, command, 2, text);
    }
    // Other commands do not need them: a daemon may start the program without them.
    let _ = run(&env, "\"$0\" completions bash <&- > /dev/null").success();
    assert_eq!(fs::read_dir(env.path("new")).unwrap().count(), 0);
}

/// The program that starts again in a user namespace gets the replacements of the closed streams.
#[test]
fn userns_closed_streams_are_refused() {
    let Some(env) = TestEnv::userns() else { return };
    let _ = run(&env, PREPARE).success();
    for (command, text) in CLOSED {
        fails(&env, command, 2, text);
    }
    assert_eq!(fs::read_dir(env.path("new")).unwrap().count(), 0);
}

#[test]
fn root_streams_that_cannot_be_written_or_read_are_reported() {
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
    // The program continues at the current offset of a file.
    let script = "printf 123456 > packed; \"$0\" raw pack tree --format tar >> packed; { head -c 6 > /dev/null; \"$0\" raw ls; } < packed; \
                  { \"$0\" raw pack tree --format tar; echo end; } > both; tail -c 4 both";
    let told = run(&env, script).success().stdout;
    assert!(told.contains("./file\n") && told.ends_with("end\n"), "{told}");
}
