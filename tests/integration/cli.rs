//! Help, usage errors, completions and the layout of errors.

use std::process::{Command, Stdio};

use crate::env::{PROGRAM, TestEnv, output};

const COMMANDS: [&str; 13] = [
    "build",
    "shell",
    "fetch",
    "verify",
    "lock",
    "keys",
    "clean",
    "store",
    "completions",
    "oci",
    "push",
    "pull",
    "raw",
];

#[test]
fn help_is_on_stdout() {
    let env = TestEnv::new();
    let short = env.run(["-h"]).success();
    let long = env.run(["--help"]).success();
    assert_eq!((short.stderr.as_str(), long.stderr.as_str()), ("", ""));
    for command in COMMANDS {
        assert!(long.stdout.contains(command), "{command}");
        let help = env.run([command, "--help"]).success();
        assert!(help.stdout.contains("Usage: quern-builder"), "{}", help.stdout);
    }
    for part in ["Examples:", "Exit codes:", "Environment:", "SOURCE_DATE_EPOCH", "quern-recipe(5)"] {
        assert!(long.stdout.contains(part), "{part}");
    }
    assert!(short.stdout.lines().count() < 40, "the short help fits a terminal");
}

#[test]
fn help_takes_the_words_of_a_command() {
    let env = TestEnv::new();
    for words in [&["build"][..], &["lock"], &["raw", "pack"], &["store", "export"]] {
        let help = env.run([&["help"], words].concat()).success();
        assert_eq!(help.stdout, env.run([words, &["--help"]].concat()).success().stdout, "{words:?}");
        assert!(help.stdout.contains(&format!("Usage: quern-builder {}", words.join(" "))), "{}", help.stdout);
    }
    assert_eq!(env.run(["help"]).success().stdout, env.run(["--help"]).success().stdout);
    let _ = env.run(["help", "biuld"]).code(2);
}

#[test]
fn a_wrong_command_line_exits_with_2_and_says_why() {
    let env = TestEnv::new();
    let cases: [(&[&str], &str); 6] = [
        (&[], "requires a subcommand"),
        (&["biuld"], "'build'"),
        (&["build"], "<RECIPE>"),
        (&["build", "x.toml", "--outdri", "/x"], "--outdir"),
        (&["-q", "-v", "clean"], "cannot be used with"),
        (&["--color=sometimes", "clean"], "possible values"),
    ];
    for (arguments, expected) in cases {
        let output = env.run(arguments).code(2);
        assert!(output.stderr.contains(expected), "{arguments:?}: {}", output.stderr);
        assert_eq!(output.stdout, "", "{arguments:?}");
    }
}

#[test]
fn completions_have_every_command() {
    let env = TestEnv::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = env.run(["completions", shell]).success().stdout;
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
        for option in ["outdir", "dry-run", "set", "image"] {
            assert!(script.contains(option), "{shell}: {option}");
        }
    }
    let script = env.run(["completions", "bash"]).success().stdout;
    let path = env.write("completion.bash", script);
    let _ = output(Command::new("bash").arg("-n").arg(path)).success();
    let complete = "source completion.bash; COMP_WORDS=(quern-builder bu); COMP_CWORD=1; \
                    _quern__builder quern-builder bu quern-builder; echo \"${COMPREPLY[@]}\"";
    let answer = output(env.command("bash").args(["--norc", "-c", complete])).success();
    assert_eq!(answer.stdout.trim(), "build");
}

#[test]
fn closed_streams_do_not_crash_the_program() {
    let env = TestEnv::new();
    let cases = [
        ("--help >&-", 0),
        ("completions zsh >&-", 0),
        ("--no-such 2>&-", 2),
        ("-h | true", 0),
        ("build no.toml 2>&- >&-", 2),
    ];
    for (arguments, code) in cases {
        let shell = format!("set -o pipefail; {PROGRAM} {arguments}");
        let status =
            env.command("bash").args(["-c", &shell]).stderr(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments}");
    }
}

#[test]
fn foreign_escapes_in_an_error_are_escaped() {
    let env = TestEnv::new();
    let plain = env.run(["build", "no\x1b[2Jsuch.toml"]).code(2);
    assert!(plain.stderr.starts_with("error: "), "{}", plain.stderr);
    assert!(!plain.stderr.contains('\x1b'), "{:?}", plain.stderr);
    let colored = env.run(["--color=always", "build", "no\x1b[2Jsuch.toml"]).code(2);
    assert!(colored.stderr.starts_with("\x1b[1;31merror:\x1b[0m "), "{:?}", colored.stderr);
    assert!(!colored.stderr.contains("\x1b[2J"), "{:?}", colored.stderr);
}
