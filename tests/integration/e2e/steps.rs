//! Recipes with steps: their order, their layers, their failures.

use std::path::Path;

use super::{EPOCH, Stand, ask, text};
use crate::env::{Privilege, twins};

/// A stage4 of nothing but its steps.
const STEPS: &str = r#"kind = "stage4"
[emerge]
packages = []
[[step]]
name = "one"
run = 'echo one >> /log'
[[step]]
name = "two"
at = "end"
run = 'echo two >> /log'
[[step]]
name = "three"
run = '''
echo three >> /log
env | sort > /env
mkdir /rest && chown 250:250 /rest && chmod 2770 /rest && ln /log /rest/log
ln -s ../log /rest/link && mkfifo /rest/fifo && truncate -s 1M /rest/sparse && rm /etc/issue
'''
[[step]]
name = "start"
at = "start"
run = 'echo start > /log'
[[step]]
name = "left"
skip = true
run = 'exit 1'
"#;

/// Returns the states of the steps in a dry run, without the time of cached ones.
fn states(stand: &Stand, recipe: &Path, options: &[&str]) -> Vec<String> {
    let plan = stand.env.run([&["build", text(recipe), "--dry-run"], options].concat()).success().stdout;
    let lines = plan.lines().skip_while(|line| *line != "steps").skip(1).take_while(|line| !line.is_empty());
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let ago = |line: String| line.find(" cached ").map_or(line.clone(), |at| line[..at + 7].to_owned());
    lines.map(words).map(ago).collect()
}

/// Returns a file of a tarball.
fn content(tarball: &Path, path: &str) -> String {
    ask("tar", &["--extract", "--to-stdout", "--file", text(tarball), &format!("./{path}")])
}

twins!(steps_run_in_order_and_once => root_steps_run_in_order_and_once, userns_steps_run_in_order_and_once);

fn steps_run_in_order_and_once(privilege: Privilege) {
    let Some(mut stand) = Stand::sharing(privilege) else { return };
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let name = format!("steps-{privilege:?}").to_lowercase();
    // Inputs of its own, so that no other test has made the layers.
    let recipe = stand.recipe(&name, &STEPS.replace("echo one", "printf \"%s\\n\" one"));
    let configure = "@configure always: it writes Portage's configuration";
    let unknown = |name: &str, of: &str| format!("{name} unknown until {of} has run");
    let behind = |of: &str| ["one", "three", "two"].map(|name| unknown(name, of));
    let expected = ["start run: new", configure].map(str::to_owned).into_iter().chain(behind("start"));
    let expected: Vec<String> = expected.chain(["left skipped".to_owned()]).collect();
    assert_eq!(states(&stand, &recipe, &[]), expected);
    assert!(!stand.env.outdir().exists() || stand.env.outdir().read_dir().is_ok_and(|mut all| all.next().is_none()));
    let first = stand.build_changed(&recipe).success().results().remove(0);
    let cached = ["start cached", configure, "one cached", "three cached", "two cached", "left skipped"];
    assert_eq!(states(&stand, &recipe, &[]), cached);
    let again = states(&stand, &recipe, &["--again", "three", "--until", "three"]);
    assert_eq!(again, ["start cached", configure, "one cached", "three run: --again", "left skipped"]);
    assert_eq!(content(&first, "log"), "start\none\nthree\ntwo\n");
    let env = content(&first, "env");
    let names: Vec<&str> = env.lines().filter_map(|line| line.split('=').next()).collect();
    let own = ["PWD", "SHLVL", "_"];
    let given: Vec<&str> = names.into_iter().filter(|name| !own.contains(name)).collect();
    let expected =
        ["HOME", "LANG", "LOGNAME", "PATH", "PYTHONUNBUFFERED", "QUERN_FETCH", "SOURCE_DATE_EPOCH", "TERM", "USER"];
    assert_eq!(given, expected);
    let digest = ask("sha256sum", &[text(&first)]);

    let second = stand.build_changed(&recipe).success();
    assert!(second.stderr.contains("4 of 4 steps are cached"), "{}", second.stderr);
    assert_eq!(ask("sha256sum", &[text(&first)]), digest);

    // Another text with the same effect runs, and the steps behind it do not.
    stand.recipe(&name, &STEPS.replace("echo one", "printf \"%s\\n\" o\"ne\""));
    let (three, two) = (unknown("three", "one"), unknown("two", "one"));
    let changed = ["start cached", configure, "one run: script changed", &three, &two, "left skipped"];
    assert_eq!(states(&stand, &recipe, &[]), changed);
    let explained = stand.env.run(["explain", text(&recipe), "one"]).success().stdout;
    for part in ["one  run: script changed", "since the last build: script changed", "    epoch ", "    script "] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    let cut_off = stand.build_changed(&recipe).success();
    assert!(cut_off.stderr.contains("running the step one (script changed)"), "{}", cut_off.stderr);
    assert!(cut_off.stderr.contains("3 of 4 steps are cached"), "{}", cut_off.stderr);
    assert_eq!(ask("sha256sum", &[text(&first)]), digest);

    let explained = stand.env.run(["explain", text(&recipe), "one"]).success().stdout;
    for part in ["one  cached ", &format!(" by {name}\n"), "because: script changed\n", "no input changed"] {
        assert!(explained.contains(part), "{part}: {explained}");
    }

    // A new name is no change.
    stand.recipe(&name, &STEPS.replace("echo one", "printf \"%s\\n\" o\"ne\"").replace("\"one\"", "\"uno\""));
    let renamed = stand.build_changed(&recipe).success();
    assert!(renamed.stderr.contains("4 of 4 steps are cached"), "{}", renamed.stderr);

    // Two new texts with the same effect: the times of the first step in the result of the second one do not count.
    let both = STEPS.replace("echo one", "printf \"%s\\n\" on\"e\"").replace("\"one\"", "\"uno\"");
    stand.recipe(&name, &both.replace("echo start", "printf \"%s\\n\" start"));
    let cut_off = stand.build_changed(&recipe).success();
    assert!(cut_off.stderr.contains("2 of 4 steps are cached"), "{}", cut_off.stderr);
    let none = stand.env.run(["build", text(&recipe), "--until", "unno"]).code(2);
    assert!(none.stderr.contains("did you mean uno?"), "{}", none.stderr);
    let until = stand.env.run(["build", text(&recipe), "--again", "three", "--until", "three"]).success();
    assert!(until.stdout.is_empty() && until.stderr.contains("running the step three"), "{}", until.stderr);
    assert!(!until.stderr.contains("running the step uno"), "{}", until.stderr);
}

twins!(a_failed_step_leaves_no_layer => root_a_failed_step_leaves_no_layer, userns_a_failed_step_leaves_no_layer);

fn a_failed_step_leaves_no_layer(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("bad-{privilege:?}").to_lowercase();
    let recipe = |bad: &str| {
        let steps = format!(
            "kind = \"stage4\"\n[emerge]\npackages = []\n[[step]]\nname = \"ok\"\nrun = 'echo ok > /ok-{name}'\n[[step]]\n\
             name = \"bad\"\n{bad}\n[[step]]\nname = \"after\"\nrun = 'touch /after'\n"
        );
        stand.recipe(&name, &steps)
    };
    let failed = stand.build_changed(&recipe("run = 'touch /trace; echo hello; exit 7'")).code(1);
    let hint = format!(
        "`quern-builder log {} bad` prints its output",
        text(&recipe("run = 'touch /trace; echo hello; exit 7'"))
    );
    for part in ["the step bad exited with code 7", "hello", &hint, " --failed` enters its trees"] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
    let (_, output) = failed.stderr.split_once("its output is in ").unwrap();
    assert_eq!(std::fs::read_to_string(output.lines().next().unwrap()).unwrap(), "hello\n");
    let log = |step: &str| stand.env.run(["log", text(&stand.env.path(format!("{name}.toml"))), step]);
    assert_eq!(log("bad").success().stdout, "hello\n");
    assert!(log("ok").success().stderr.contains("the step ok printed nothing"));
    assert!(log("after").code(2).stderr.contains("its steps are @configure, ok, bad"));
    assert!(stand.env.outdir().read_dir().is_ok_and(|mut results| results.next().is_none()));
    let cases = [
        ("run = 'false | true; touch /x'", "exited with code 1"),
        ("run = \"#!/bin/bash -e\\nfalse\\ntouch /z\"", "exited with code 1"),
        ("run = 'true'\ncreates = [\"/nope\"]", "did not make /nope"),
        ("run = 'sleep 1000'\ntimeout = \"1s\"", "timed out after 1 s"),
        ("run = 'trap \"exit 0\" TERM; while :; do sleep 0.1; done'\ntimeout = \"1s\"", "timed out after 1 s"),
        ("run = 'trap : TERM; while :; do sleep 1 || :; done'\ntimeout = \"1s\"", "timed out after 1 s"),
        ("run = 'kill -9 $$'", "was killed by signal 9 (SIGKILL)"),
        ("run = 'true'\nshell = [\"/no/shell\"]", "the tree has no /no/shell"),
        ("run = 'true'\nuser = \"nobdy\"", "did you mean nobody?"),
    ];
    for (bad, expected) in cases {
        let failed = stand.build_changed(&recipe(bad)).code(1);
        assert!(failed.stderr.contains(expected), "{bad}: {}", failed.stderr);
    }
    // A first line with an interpreter is obeyed, and an ordinary user of the tree is one.
    let good = stand
        .build(&recipe("run = \"#!/bin/sh\\nfalse\\nid -un > /tmp/x; test $(id -un) = nobody\"\nuser = \"nobody\""));
    let tarball = good.success().results().remove(0);
    let listing = ask("tar", &["--list", "--file", text(&tarball)]);
    assert!(listing.contains("./after\n") && listing.contains("./ok-") && !listing.contains("./trace"), "{name}");
}

/// Steps that merge and unmerge packages.
const PACKAGES: &str = r#"[emerge]
packages = ["app-test/tiny"]
[[step]]
name = "more"
emerge = ["app-misc/mime-types"]
[[step]]
name = "fewer"
at = "end"
unmerge = ["app-test/tiny"]
[[step]]
name = "look"
at = "end"
in = "builder"
run = 'cd "$ROOT/var/db/pkg" && ls -d */* > "$ROOT/packages"'
"#;

#[test]
fn root_steps_merge_and_unmerge_packages() {
    let Some(stand) = Stand::sharing(Privilege::Root) else { return };
    let recipe = stand.recipe("merging", PACKAGES);
    let tarball = stand.build_changed(&recipe).success().results().remove(0);
    let packages = content(&tarball, "packages");
    assert!(packages.contains("app-misc/mime-types") && !packages.contains("app-test/tiny"), "{packages}");
    let again = stand.build_changed(&recipe).success();
    assert!(again.stderr.contains("5 of 5 steps are cached"), "{}", again.stderr);
    let states = states(&stand, &recipe, &[]);
    assert!(states.iter().filter(|state| state.ends_with(" cached")).count() == 5, "{states:?}");

    // A package that is not recorded as wanted would go.
    let careless = format!("{PACKAGES}[[step]]\nname = \"clean\"\nat = \"before-unmerge\"\ndepclean = true\n");
    // Such a package may go if the recipe unmerges it.
    let careless = careless.replace("unmerge = [\"app-test/tiny\"]", "unmerge = [\"app-misc/mime-types\"]");
    let careless = stand.recipe(
        "careless",
        &careless.replace(
            "tiny\"]\n[[step]]\nname = \"more\"",
            "tiny\"]\noptions = [\"--oneshot\"]\n[[step]]\nname = \"more\"",
        ),
    );
    let refused = stand.build_changed(&careless).code(1);
    for part in ["it would remove packages that the recipe merges", "app-test/tiny"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
}

#[test]
fn root_a_new_state_of_a_repository_merges_nothing_again() {
    let Some(stand) = Stand::sharing(Privilege::Root) else { return };
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    stand.ebuild("app-own", "synced", "src_install() {\n\tinsinto /\n\tdoins \"${FILESDIR}/one\"\n}\n");
    stand.env.write("overlay/app-own/synced/files/one", "one\n");
    let stand = stand.with_repositories(&[&overlay]).with_own_packages();
    let recipe = stand.recipe("synced", "[emerge]\npackages = [\"app-own/synced\"]\n");
    let _ = stand.build(&recipe).success();
    let cached = |stand: &Stand| stand.build_changed(&recipe).success().stderr;
    stand.ebuild("app-own", "other", "");
    let told = cached(&stand);
    assert!(told.contains("2 of 2 steps are cached") && told.contains("resolving app-own/synced"), "{told}");
    // Now the first key finds it.
    let told = cached(&stand);
    assert!(told.contains("2 of 2 steps are cached") && !told.contains("resolving"), "{told}");
    stand.env.write("overlay/app-own/synced/files/one", "two\n");
    let told = cached(&stand);
    assert!(told.contains("1 of 2 steps are cached") && told.contains("1 built"), "{told}");
}
