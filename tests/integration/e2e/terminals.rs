//! Steps on a pseudo-terminal, and shells in the trees of steps.

use super::{Stand, ask, text};
use crate::env::{self, Output, Privilege, twins};

/// A stage4 of nothing but `steps`.
fn only(steps: &str) -> String {
    format!("kind = \"stage4\"\n[emerge]\npackages = []\n{steps}")
}

/// One step on a pseudo-terminal as root, one as an ordinary user, and one without.
const TERMINALS: &str = r#"[[step]]
name = "tty"
tty = true
run = '''
test -t 0 && test -t 1 && test -t 2
tty > /tty
stty size > /size
printf '10%%\r20%%\r\n' && echo done >&2
echo own > /dev/tty
'''
[[step]]
name = "user"
tty = true
user = "250:250"
workdir = "/tmp"
run = 'echo reopened > /dev/stdout; kill -0 $PPID 2>/dev/null || echo alone'
[[step]]
name = "none"
run = '! test -t 0 && ! test -t 1 && ! test -e /dev/pts/0'
"#;

twins!(a_step_has_a_terminal_of_its_own => root_a_step_has_a_terminal_of_its_own, userns_a_step_has_a_terminal_of_its_own);

fn a_step_has_a_terminal_of_its_own(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("terminals-{privilege:?}").to_lowercase();
    let recipe = stand.recipe(&name, &only(TERMINALS));
    let tarball = stand.built(&recipe).remove(0);
    let content = |path: &str| ask("tar", &["--extract", "--to-stdout", "--file", text(&tarball), path]);
    assert_eq!((content("./tty").as_str(), content("./size").as_str()), ("/dev/pts/0\n", "24 80\n"));
    let log = |step: &str| stand.env.run(["log", text(&recipe), step]).success().stdout;
    // The terminal's own line ends are not a part of the output, and the program's are.
    assert_eq!(log("tty"), "10%\\r20%\ndone\nown\n");
    assert!(log("user").starts_with("reopened\n"));
    let again = ["build", text(&recipe), "--set", "step.tty.tty=false", "--dry-run"];
    let plan = stand.env.run(again).success().stdout;
    assert!(plan.contains("run: terminal changed"), "{plan}");
}

#[test]
fn userns_the_end_of_a_step_is_named() {
    let Some(stand) = Stand::sharing(Privilege::Userns) else { return };
    let ends = [
        ("run = 'kill -9 $$'", "the step end was killed by signal 9 (SIGKILL)"),
        ("run = 'echo x; kill -15 $$'\ntty = true", "the step end was killed by signal 15 (SIGTERM)"),
        ("run = 'sh -c \"kill -9 \\$\\$\"'", "exited with code 137, which usually means that signal 9 ended a command"),
        ("run = 'sleep 100'\ntty = true\ntimeout = \"1s\"", "the step end timed out after 1 s"),
        ("run = 'true'\nuser = \"nope\"", "running the step end: the tree has no user `nope`"),
        (
            "write = [{ to = \"/x\", text = \"\", owner = \"nope\" }]",
            "running the step end: the tree has no user `nope`",
        ),
    ];
    for (end, words) in ends {
        let recipe = stand.recipe("ends", &only(&format!("[[step]]\nname = \"end\"\n{end}\n")));
        let failed = stand.build_changed(&recipe).code(1);
        assert!(failed.stderr.contains(words), "{words}: {}", failed.stderr);
    }
}

#[test]
fn userns_a_dry_run_of_a_new_recipe_leaves_nothing() {
    let Some(stand) = Stand::sharing(Privilege::Userns) else { return };
    let recipe = stand.recipe("never-built", &only("[[step]]\nname = \"one\"\nrun = 'true'\n"));
    let plan = stand.env.run(["build", text(&recipe), "--dry-run"]).success().stdout;
    assert!(plan.contains("one") && plan.contains("run: new"), "{plan}");
    let names = super::traces::names(&stand.store().join("builds"));
    assert!(!names.iter().any(|name| name.starts_with("never-built")), "{names:?}");
}

/// A step that sees a writable directory of this machine and a cache, and one that fails.
const SHOWN: &str = r#"[vars]
A = "of the step"
[[step]]
name = "good"
caches = ["CACHE"]
binds = [{ from = "shown", at = "/shown", write = true }]
run = 'echo kept > /cache/file; echo good > /good'
[[step]]
name = "bad"
vars = ["A"]
run = 'echo half > /half; echo out of luck; exit 7'
[cache.CACHE]
at = "/cache"
"#;

twins!(shells_show_the_trees_of_steps => root_shells_show_the_trees_of_steps, userns_shells_show_the_trees_of_steps);

fn shells_show_the_trees_of_steps(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("shown-{privilege:?}").to_lowercase();
    stand.env.write("shown/file", "outside\n");
    let opened = fs_err::set_permissions(stand.env.path("shown"), std::os::unix::fs::PermissionsExt::from_mode(0o777));
    opened.unwrap();
    let recipe = stand.recipe(&name, &only(&SHOWN.replace("CACHE", &name)));

    // Without a terminal.
    let failed = stand.env.run(["build", text(&recipe), "--shell-on-failure"]).code(1);
    assert!(
        failed.stderr.contains("bad exited with code 7") && !failed.stderr.contains("a shell"),
        "{}",
        failed.stderr
    );
    let refused = stand.env.run(["build", text(&recipe), "--interactive"]).code(2);
    assert!(refused.stderr.contains("--interactive needs a terminal"), "{}", refused.stderr);

    // A shell writes neither to this machine nor to a cache.
    let look = "cat /cache/file /shown/file; echo x > /shown/new || echo x > /cache/new || echo x > /good && cat /good";
    let looked = stand.shell(&recipe, &["--at", "good"], &["sh", "-c", look]).success();
    assert_eq!(looked.stdout, "kept\noutside\nx\n", "{}", looked.stderr);
    assert_eq!(looked.stderr.matches("Read-only file system").count(), 2, "{}", looked.stderr);
    assert!(!stand.env.path("shown/new").exists());

    // With a terminal: the trees of the failure, with its variables; changes are thrown away, and the build fails as before.
    for _ in 0..2 {
        let keys = "ls /q; cat /half; echo shell $((40 + 2)) $A; touch /q; exit\n";
        let told = typed(&stand, keys, &["build", text(&recipe), "--shell-on-failure"]).code(1).stdout;
        for part in ["out of luck", "half", "shell 42 of the step", "bad exited with code 7", "cannot access '/q'"] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
    let gone = ["build", text(&recipe), "--shell-on-failure", "--set", "build.keep-failed=false"];
    let told = typed(&stand, "cat /half; echo shell $((40 + 2))\nexit\n", &gone).code(1).stdout;
    assert!(told.contains("half") && told.contains("shell 42") && !told.contains("shell --failed"), "{told}");
    let none = stand.shell(&recipe, &["--failed"], &["true"]).code(2);
    assert!(none.stderr.contains("no failed build"), "{}", none.stderr);

    // After each step, also a cached one.
    stand.recipe(&name, &only(&SHOWN.replace("CACHE", &name).replace("exit 7", "exit 0")));
    let keys = "cat /good; ls /half; echo x > /thrown\nexit\nls /thrown; cat /half; exit 3\n";
    let told = typed(&stand, keys, &["build", text(&recipe), "--interactive", "--until", "bad"]).success().stdout;
    let expected = ["a shell after the step good", "good", "cannot access '/half'", "a shell after the step bad"];
    for part in expected.into_iter().chain(["cannot access '/thrown'", "half"]) {
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// Runs the program on a terminal on which `keys` are typed. Its output is the terminal's.
fn typed(stand: &Stand, keys: &str, arguments: &[&str]) -> Output {
    let words: Vec<String> = [env::PROGRAM].iter().chain(arguments).map(|word| format!("'{word}'")).collect();
    let mut command = stand.env.command("sh");
    let script = "(printf %s \"$0\"; sleep 5) | script -qec \"$1\" /dev/null; exit $?";
    command.args(["-c", script, keys, &words.join(" ")]);
    env::output(&mut command)
}

#[test]
fn userns_a_shell_after_a_failed_emerge_is_where_the_package_is() {
    let Some(stand) = Stand::sharing(Privilege::Userns).map(Stand::with_own_packages) else { return };
    let stand = stand.with_overlay();
    stand.ebuild("app-own", "unlucky", "src_compile() {\n\techo done >half || die\n\tdie 'out of luck'\n}\n");
    let recipe = stand.recipe("unlucky", "baselayout-atoms = []\n[emerge]\npackages = [\"app-own/unlucky\"]\n");
    let told = typed(&stand, "pwd; cat half; exit\n", &["build", text(&recipe), "--shell-on-failure"]).code(1).stdout;
    for part in ["/var/tmp/portage/app-own/unlucky-1/work", "done", "app-own/unlucky-1 failed; its environment"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}
