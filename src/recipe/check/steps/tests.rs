use crate::recipe::tests::{Place, job, refusal};
use crate::recipe::{Action, Phase, Refresh, StepRoot, load};

/// Loads the good recipe with these lines after it.
fn with(place: &Place, lines: &str, sets: &[&str]) -> crate::recipe::Request {
    place.write("steps.toml", lines);
    let mut request = place.request(&["good.toml", "steps.toml"]);
    request.sets = sets.iter().map(|set| (*set).to_owned()).collect();
    request
}

/// Returns the names and phases of the steps in the order in which they run.
fn order(lines: &str) -> Vec<String> {
    let place = Place::new();
    let job = job(&with(&place, lines, &[]));
    job.steps.iter().map(|step| format!("{} {}", step.at.name(), step.name)).collect()
}

fn step(name: &str, more: &str) -> String {
    format!("[[step]]\nname = '{name}'\nrun = 'true'\n{more}\n")
}

#[test]
fn steps_run_by_phase_and_then_as_written() {
    let lines = step("one", "") + &step("two", "at = 'end'") + &step("three", "") + &step("four", "at = 'start'");
    assert_eq!(order(&lines), ["start four", "packages one", "packages three", "end two"]);
    let phases = Phase::ALL.map(Phase::name).map(|at| step(at, &format!("at = '{at}'"))).concat();
    assert_eq!(order(&phases), Phase::ALL.map(Phase::name).map(|at| format!("{at} {at}")));
}

#[test]
fn anchors_place_steps_beside_others() {
    let lines = step("x", "before = 'b'") + &step("a", "") + &step("b", "at = 'end'") + &step("y", "before = 'b'");
    let lines = lines + &step("p", "after = 'a'") + &step("q", "after = 'a'") + &step("r", "before = 'q'");
    assert_eq!(order(&lines), ["packages a", "packages p", "packages r", "packages q", "end x", "end y", "end b"]);
}

#[test]
fn a_group_runs_after_its_steps_and_gives_them_its_phase() {
    let group = "[[step]]\nname = 'g'\nat = 'end'\n[[step.step]]\nname = 'a'\nrun = 'true'\n[[step.step]]\nname = 'h'\n\
                 run = 'true'\n[[step.step.step]]\nname = 'b'\nat = 'start'\nrun = 'true'\n[[step.step]]\nname = 'c'\n\
                 before = 'a'\nrun = 'true'\n";
    assert_eq!(order(group), ["start g/h/b", "end g/c", "end g/a", "end g/h"]);
    let moved = group.replace("at = 'end'", "before = 'z'") + &step("z", "at = 'before-packages'");
    let expected =
        ["start g/h/b", "before-packages g/c", "before-packages g/a", "before-packages g/h", "before-packages z"];
    assert_eq!(order(&moved), expected);
    let after_one_of_a_group = group.to_owned() + &step("z", "after = 'g/a'");
    assert_eq!(order(&after_one_of_a_group), ["start g/h/b", "end g/c", "end g/a", "end z", "end g/h"]);
}

#[test]
fn a_skipped_step_is_named_and_left_out() {
    let place = Place::new();
    let lines =
        step("one", "skip = true") + "[[step]]\nname = 'g'\nskip = true\n[[step.step]]\nname = 'a'\nrun = 'x'\n";
    let job = job(&with(&place, &(lines + &step("two", "")), &[]));
    assert_eq!(job.steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["two"]);
    assert_eq!(job.skipped, ["one", "g/a", "g"]);
}

#[test]
fn a_later_file_changes_a_step_in_its_place() {
    let place = Place::new();
    place.write("base.toml", step("one", "env = { A = '1', B = '2' }\nuser = 'me'") + &step("two", ""));
    let lines = format!("include = ['base.toml']\n{}", step("three", ""));
    let lines = lines + "[[step]]\nname = 'one'\nscript = 'good.toml'\nenv = { B = '3' }\n";
    let sets = ["step.two.network=true", "step.one.env.C=x=y", "step.three.args=a b", "step.three.timeout=2m"];
    let job = job(&with(&place, &lines, &sets));
    let names: Vec<&str> = job.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["one", "two", "three"]);
    let env: Vec<String> = job.steps[0].env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!((env.join(" "), job.steps[0].user.as_deref()), ("A=1 B=3 C=x=y".to_owned(), Some("me")));
    // The later action replaces the earlier one, with the exact bytes of its file.
    let Action::Run(script) = &job.steps[0].action else { panic!("{:?}", job.steps[0].action) };
    assert_eq!(script.file.as_deref(), Some(place.path().join("good.toml").as_path()));
    assert_eq!(script.bytes, fs_err::read(place.path().join("good.toml")).unwrap());
    assert!(job.steps[1].network && !job.steps[0].network);
    assert_eq!((job.steps[2].args.join(" "), job.steps[2].timeout), ("a b".to_owned(), Some(120)));
}

#[test]
fn options_find_steps_of_groups_and_names_with_dots() {
    let place = Place::new();
    let lines = step("a.b", "") + "[[step]]\nname = 'g'\n[[step.step]]\nname = 'in'\nrun = 'x'\n";
    let job = job(&with(&place, &lines, &["step.a.b.tty=true", "step.g/in.workdir=/srv/./x"]));
    assert!(job.steps[0].tty);
    assert_eq!((job.steps[1].name.as_str(), job.steps[1].workdir.to_str()), ("g/in", Some("/srv/x")));
    for (set, said) in [
        ("step.a.c.tty=true", "no step is named `a`"),
        ("step.g/im.tty=true", "did you mean `g/in`?"),
        ("step.a.b.tyt=true", "did you mean `tty`?"),
        ("step.a.b.name=c", "a step cannot be renamed"),
        ("step.a.b.tty", "takes step.NAME.KEY=value"),
        ("step.a.b.tty.x=1", "`tty` is not a table"),
        ("step.a.b.tty=maybe", "wrong type for `tty`"),
    ] {
        let refused = refusal(&with(&place, &lines, &[set]));
        assert!(refused.contains(said), "{set}: {refused}");
    }
}

#[test]
fn every_key_of_a_step_has_its_meaning() {
    let place = Place::new();
    let lines = "[[step]]\nname = 'a'\nrun = \"x\"\nin = 'builder'\nshell = ['/bin/sh', '-e']\nuser = '250:250'\n\
                 creates = ['/etc/x']\nrefresh = '7d'\ntmpfs = ['/big:1M', '/run/x']\ntimeout = '2s'\n\
                 [[step]]\nname = 'b'\nemerge = ['app-misc/hello', '@system']\nrefresh = 'always'\n\
                 [[step]]\nname = 'c'\ncopy = [{ from = 'repo', to = '/x', mode = '0750', owner = 'a:b', exclude = ['*.o'] }]\n\
                 [[step]]\nname = 'd'\nrebuild = ['links', 'links', 'preserved']\nnetwork = false\n";
    let steps = job(&with(&place, lines, &["build.epoch=5", "build.kind=stage4"]));
    assert_eq!((steps.build.epoch, steps.emerge.packages.len()), (Some(5), 0));
    let [a, b, c, d] = &steps.steps[..] else { panic!("{} steps", steps.steps.len()) };
    assert_eq!((a.root, a.refresh, a.timeout), (StepRoot::Builder, Some(Refresh::After(7 * 86_400)), Some(2)));
    assert_eq!((a.tmpfs[0].size, a.tmpfs[1].size, a.network), (Some(1 << 20), None, false));
    assert_eq!((b.refresh, b.network), (Some(Refresh::Always), true));
    let Action::Copy(copies) = &c.action else { panic!("{:?}", c.action) };
    assert_eq!((copies[0].mode, copies[0].owner.as_deref()), (Some(0o750), Some("a:b")));
    assert!(matches!(&d.action, Action::Rebuild(kinds) if kinds.len() == 2) && !d.network);
}

#[test]
fn packages_are_unmerged_between_the_steps_around() {
    let lines =
        step("last", "at = 'end'") + &step("before", "at = 'before-unmerge'") + &step("after", "at = 'after-unmerge'");
    let lines =
        lines + "[emerge]\nunmerge = ['sys-apps/man-pages']\ndepclean = true\nrebuild = ['links', 'preserved']\n";
    let expected = [
        "before-unmerge before",
        "before-unmerge @unmerge",
        "before-unmerge @depclean",
        "before-unmerge @rebuild",
        "after-unmerge after",
        "end last",
    ];
    assert_eq!(order(&lines), expected);
    let place = Place::new();
    for (set, said) in
        [("emerge.unmerge=a/b/c", "not a valid package"), ("emerge.rebuild=link", "did you mean \"links\"?")]
    {
        let refused = refusal(&with(&place, &lines, &[set]));
        assert!(refused.contains(said), "{set}: {refused}");
    }
}

#[test]
fn a_recipe_without_steps_has_no_trace_of_them() {
    let place = Place::new();
    let json = serde_json::to_string(&job(&place.request(&["good.toml"]))).unwrap();
    assert!(!json.contains("step") && !json.contains("epoch") && !json.contains("skipped"), "{json}");
}

#[test]
fn wrong_steps_are_refused() {
    let place = Place::new();
    for (lines, said) in [
        ("[[step]]\nname = 'a'\n", "a step needs an action"),
        ("[[step]]\nname = 'a'\nrun = ' '\n", "`run` has nothing to do"),
        ("[[step]]\nname = 'a'\nrun = 'x'\nscript = 'good.toml'\n", "only one action: `run` or `script`"),
        ("[[step]]\nname = 'a'\ndepclean = false\n", "a step needs an action"),
        ("[[step]]\nname = 'a'\ndelete = ['/x']\nshell = ['sh']\n", "`shell` has no effect on `delete`"),
        ("[[step]]\nname = 'a'\ndelete = ['/x']\nnetwork = true\n", "`network` has no effect on `delete`"),
        ("[[step]]\nname = 'a'\nemerge = ['-a']\n", "emerge would read this as an option"),
        ("[[step]]\nname = 'a'\nemerge = []\n", "`emerge` has nothing to do"),
        ("[[step]]\nname = 'a'\nrebuild = ['module']\n", "did you mean \"modules\"?"),
        ("[[step]]\nname = 'a'\nrun = 'x'\nat = 'ends'\n", "did you mean \"end\"?"),
        ("[[step]]\nname = 'a'\nrun = 'x'\nin = 'host'\n", "known: image, builder"),
        ("[[step]]\nname = 'a'\nrun = 'x'\nshell = []\n", "a shell needs a program"),
        ("[[step]]\nname = 'a'\nrun = 'x'\ntimeout = '10'\n", "not a duration"),
        ("[[step]]\nname = 'a'\nrun = 'x'\ntmpfs = ['/proc/x']\n", "a step has its own /proc"),
        ("[[step]]\nname = 'a'\nrun = 'x'\ntmpfs = ['/']\n", "this is the whole tree"),
        ("[[step]]\nname = 'a'\nrun = 'x'\ntmpfs = ['/x:1']\n[[step]]\nname = 'a.'\n", "a step needs an action"),
        ("[[step]]\nname = 'a'\nrun = 'x'\ntmpfs = ['/x:1M', '/x']\n", "two mounts at `/x`"),
        ("[[step]]\nname = 'a'\nrun = 'x'\nenv = { 'A-B' = '1' }\n", "a variable's name must not contain `-`"),
        ("[[step]]\nname = 'a'\nrun = 'x'\ncreates = ['x']\n", "not absolute"),
        ("[[step]]\nname = 'a'\nwrite = [{ text = 'x' }]\n", "a file to write needs `to`"),
        ("[[step]]\nname = 'a'\nwrite = ['x']\n", "expected a table, found a string"),
        ("[[step]]\nname = 'a'\ncopy = [{ from = 'nowhere', to = '/' }]\n", "cannot use"),
        ("[[step]]\nname = 'a'\ncopy = [{ from = 'repo', to = '/', mode = '999' }]\n", "not permission bits in octal"),
        ("[[step]]\nname = 'a'\ncopy = [{ from = 'repo', to = '/', exclude = ['/a'] }]\n", "relative to `from`"),
        ("[[step]]\nname = 'a'\nscript = 'repo'\n", "not a regular file"),
        ("[build]\nepoch = -1\n[[step]]\nname = 'a'\nrun = 'x'\n", "not a number of seconds since 1970"),
        ("[[step]]\nname = 'a b'\nrun = 'x'\n", "a name must not contain"),
        ("[[step]]\nname = 'a'\nrun = 'x'\nbefore = 'a'\n", "a step cannot wait for itself"),
        ("[[step]]\nname = 'a'\nrun = 'x'\nbefore = 'b'\nafter = 'c'\n", "a step has one place"),
    ] {
        let refused = refusal(&with(&place, lines, &[]));
        assert!(refused.contains(said), "{lines}: {refused}");
    }
    let circle = step("a", "before = 'b'") + &step("b", "after = 'a'");
    assert!(refusal(&with(&place, &circle, &[])).contains("wait for each other in a circle"));
    let own = "[[step]]\nname = 'g'\nafter = 'g/a'\n[[step.step]]\nname = 'a'\nrun = 'x'\n";
    assert!(refusal(&with(&place, own, &[])).contains("wait for each other in a circle"));
    let elsewhere = step("a", "") + &step("b", "at = 'end'\nafter = 'a'");
    assert!(refusal(&with(&place, &elsewhere, &[])).contains("contradicts the place beside `a`"));
    let deep = (1..=9)
        .fold(String::new(), |text, n| format!("{text}[[step{}]]\nname = 'n'\nrun = 'x'\n", ".step".repeat(n - 1)));
    assert!(refusal(&with(&place, &deep, &[])).contains("nested too deep"));
    assert!(load(&with(&place, &deep[..deep.rfind("[[").unwrap()], &[])).is_ok());
}
