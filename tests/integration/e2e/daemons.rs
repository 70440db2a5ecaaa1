//! Daemons: processes that live while a step runs.

use std::path::{Path, PathBuf};

use super::{Stand, text};
use crate::env::{Privilege, twins, wait_for};

/// A step with three daemons. Each needs the one before.
const DAEMONS: &str = r#"
[daemon.path]
run = ["/bin/sh", "-c", "echo begin; sleep 0.3; echo NAME > /tmp/first; trap 'echo end > /ended-path; exit' TERM; while :; do sleep 0.1; done"]
ready = "path:/tmp/first"
[daemon.web]
run = ["/bin/sh", "-c", "test -e /tmp/first && exec python3 -m http.server --bind 127.0.0.1 --directory /tmp 3632"]
ready = "tcp:127.0.0.1:3632"
[daemon.last]
run = ["/bin/sh", "-c", "(setsid sleep 1001 &); sleep 0.2; echo > /tmp/last; exec sleep 1002"]
ready = ["/bin/sh", "-c", "test -e /tmp/last"]
[[step]]
name = "use"
daemons = ["path", "web", "last"]
run = '''
python3 -c 'import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:3632/first").read().decode())' > /seen
cat /seen
'''
creates = ["/seen"]
"#;

fn recipe(stand: &Stand, name: &str, rest: &str) -> PathBuf {
    stand.recipe(name, &format!("kind = \"stage4\"\n[emerge]\npackages = []\n{}", rest.replace("NAME", name)))
}

/// Returns the number of processes of this machine that run `sleep` for so many seconds.
pub(super) fn sleeping(seconds: &str) -> usize {
    let processes = fs_err::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs_err::read(process.path().join("cmdline")).ok());
    lines.filter(|line| line.starts_with(format!("sleep\0{seconds}\0").as_bytes())).count()
}

twins!(daemons_live_while_a_step_runs => root_daemons_live_while_a_step_runs, userns_daemons_live_while_a_step_runs);

fn daemons_live_while_a_step_runs(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("daemons-{privilege:?}").to_lowercase();
    let recipe_file = recipe(&stand, &name, DAEMONS);
    let build = || stand.env.run(["build", text(&recipe_file), "--until", "use"]);
    let built = build().success();
    assert_eq!(built.stderr.matches("left a process behind").count(), 1, "{}", built.stderr);
    assert!(built.stderr.contains("sleep 1001"), "{}", built.stderr);
    assert_eq!((sleeping("1001"), sleeping("1002")), (0, 0));
    let fetch = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:3632/last').status)";
    let look = format!("cat /seen /ended-path && python3 -c \"{fetch}\" && test ! -e /proc/self/fd/3");
    let shell = stand.shell(&recipe_file, &["--at", "use"], &["sh", "-c", &look]).success();
    assert_eq!(shell.stdout, format!("{name}\n\nend\n200\n"), "{}", shell.stderr);
    assert_eq!((sleeping("1001"), sleeping("1002")), (0, 0));
    let log = |daemon: &str| stand.env.run(["log", text(&recipe_file), "use", "--daemon", daemon]).success();
    // The shell may name the job that the signal ended.
    assert!(log("path").stdout.starts_with("begin\n"), "{:?}", log("path"));
    assert!(log("web").stdout.contains("GET /first"), "{:?}", log("web"));
    assert!(log("last").stderr.contains("the daemon last of the step use printed nothing"));
    assert_eq!(stand.env.run(["log", text(&recipe_file), "use"]).success().stdout.trim(), name);
    let none = stand.env.run(["log", text(&recipe_file), "use", "--daemon", "wep"]).code(2);
    assert!(none.stderr.contains("the step `use` has no daemon `wep`"), "{}", none.stderr);

    // The definition is in the key, and the time is not.
    recipe(&stand, &name, &DAEMONS.replace("ready = \"tcp", "timeout = \"50s\"\nready = \"tcp"));
    let cached = build().success().stderr;
    assert!(!cached.contains("running the step"), "{cached}");
    recipe(&stand, &name, &DAEMONS.replace("exec sleep 1002", "exec  sleep 1002"));
    assert!(build().success().stderr.contains("running the step use (daemon 3 changed)"));
}

twins!(a_daemon_that_fails_fails_the_step => root_a_daemon_that_fails_fails_the_step,
       userns_a_daemon_that_fails_fails_the_step);

fn a_daemon_that_fails_fails_the_step(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("daemon-fails-{privilege:?}").to_lowercase();
    let step = "[[step]]\nname = \"s\"\nrun = 'touch /tmp/ran; sleep 1003'\ndaemons = [\"d\"]\n";
    for (daemon, said) in [
        ("run = ['/bin/sh', '-c', 'echo why; exit 3']\nready = 'path:/none'", "its daemon d exited with code 3\n"),
        (
            "run = ['/bin/sh', '-c', 'echo why; exec sleep 1003']\nready = 'tcp:localhost:1'\ntimeout = '1s'",
            "not ready within 1 s",
        ),
        ("run = ['/bin/sh', '-c', 'echo why; setsid sleep 1003 & exit 0']", "must stay in the foreground"),
        (
            "run = ['/bin/sh', '-c', 'echo why; while ! test -e /tmp/ran; do sleep 0.1; done; kill -9 $$']",
            "ended by signal 9",
        ),
    ] {
        let recipe = recipe(&stand, &name, &format!("[daemon.d]\n{daemon}\n{step}"));
        let failed = stand.env.run(["build", text(&recipe)]).code(1);
        assert!(failed.stderr.contains("the step s failed: its daemon d"), "{}", failed.stderr);
        assert!(failed.stderr.contains(said) && failed.stderr.contains("why"), "{said}: {}", failed.stderr);
        assert_eq!(sleeping("1003"), 0, "{said}");
        let log = stand.env.run(["log", text(&recipe), "s", "--daemon", "d"]).success();
        assert_eq!(log.stdout, "why\n");
    }
    for daemon in ["run = ['/none']", "run = ['sleep', '1003']\nready = ['/none', 'x']"] {
        let none = recipe(&stand, &name, &format!("[daemon.d]\n{daemon}\n{step}"));
        let none = stand.env.run(["build", text(&none)]).code(1);
        assert!(none.stderr.contains("its daemon d could not be started: /none: No such file"), "{}", none.stderr);
    }
    // A shell where the daemon failed has no daemon, and opens all the same.
    let shell = recipe(&stand, &name, &format!("[daemon.d]\nrun = ['/none']\n{step}"));
    let shell = stand.shell(&shell, &["--failed"], &["sh", "-c", "sleep 1; echo open"]).success();
    assert_eq!(shell.stdout, "open\n");
    assert!(shell.stderr.contains("its daemon d could not be started"), "{}", shell.stderr);
    // The time of the step ends, and its daemon is not at fault.
    let slow = recipe(&stand, &name, &format!("[daemon.d]\nrun = ['sleep', '1003']\n{step}timeout = '1s'\n"));
    let slow = stand.env.run(["build", text(&slow)]).code(1);
    assert!(slow.stderr.contains("the step s timed out after 1 s"), "{}", slow.stderr);
}

#[test]
fn root_a_stubborn_or_talkative_daemon_does_no_harm() {
    let Some(stand) = Stand::sharing(Privilege::Root) else { return };
    let daemons = "[daemon.stubborn]\nrun = ['/bin/sh', '-c', 'trap \"\" TERM; while :; do sleep 1004; done']\n\
                   [daemon.talkative]\nrun = ['/bin/sh', '-c', 'head -c 256M /dev/zero; echo > /tmp/done; exec sleep 1004']\n\
                   ready = 'path:/tmp/done'\ntimeout = '5m'\n\
                   [[step]]\nname = \"s\"\nrun = 'true'\ndaemons = [\"stubborn\", \"talkative\"]\n";
    let recipe = recipe(&stand, "daemons-stubborn", daemons);
    let built = stand.env.run(["build", text(&recipe), "--again", "s", "--until", "s"]).success();
    assert!(!built.stderr.contains("left a process behind"), "{}", built.stderr);
    assert_eq!(sleeping("1004"), 0);
    let log = stand.env.run(["log", text(&recipe), "s", "--daemon", "talkative"]).success();
    assert!(log.stdout.contains("left out 251658240 bytes"), "{}", log.stdout.len());
}

twins!(a_step_with_a_terminal_has_daemons => root_a_step_with_a_terminal_has_daemons,
       userns_a_step_with_a_terminal_has_daemons);

fn a_step_with_a_terminal_has_daemons(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let name = format!("daemon-tty-{privilege:?}").to_lowercase();
    // The daemon has no terminal. It closes its output and lives on.
    let daemon = "[daemon.d]\nrun = ['/bin/sh', '-c', 'test -t 1 || echo none NAME; echo > /tmp/up; exec >&- 2>&-; exec sleep 1010']\n\
                  ready = 'path:/tmp/up'\n[[step]]\nname = \"s\"\ntty = true\ndaemons = [\"d\"]\n";
    let good = "run = 'test -t 1 && tty; sleep 1; echo done'\n";
    let recipe_file = recipe(&stand, &name, &format!("{daemon}{good}"));
    let built = stand.env.run(["build", text(&recipe_file), "--until", "s"]).success();
    assert!(!built.stderr.contains("left a process behind") && sleeping("1010") == 0, "{}", built.stderr);
    assert_eq!(stand.env.run(["log", text(&recipe_file), "s"]).success().stdout, "/dev/pts/0\ndone\n");
    let log = ["log", text(&recipe_file), "s", "--daemon", "d"];
    assert_eq!(stand.env.run(log).success().stdout, format!("none {name}\n"));

    // A daemon that fails hangs up the terminal; a script without its terminal has a limit all the same.
    let ends = "run = 'echo begun; sleep 1011'\n";
    let failed = recipe(&stand, &name, &format!("{}{ends}", daemon.replace("exec sleep 1010", "sleep 1; exit 9")));
    let failed = stand.env.run(["build", text(&failed)]).code(1);
    assert!(failed.stderr.contains("its daemon d exited with code 9") && sleeping("1011") == 0, "{}", failed.stderr);
    let closed =
        "run = 'echo one; exec <&- >&- 2>&-; sleep 0.5; echo two > /dev/tty; exec sleep 1011'\ntimeout = \"1s\"\n";
    let closed = stand.env.run(["build", text(&recipe(&stand, &name, &format!("{daemon}{closed}")))]).code(1);
    assert!(closed.stderr.contains("the step s timed out after 1 s") && sleeping("1011") == 0, "{}", closed.stderr);
    assert_eq!(stand.env.run(["log", text(&recipe_file), "s"]).success().stdout, "one\ntwo\n");
}

#[test]
fn userns_a_daemon_shows_no_secret() {
    let Some(mut stand) = Stand::sharing(Privilege::Userns) else { return };
    stand.env.set("TOKEN", "hunter2-hunter2");
    let lines = "[secret.s]\nenv = 'TOKEN'\n[daemon.d]\nrun = ['/bin/sh', '-c', 'cat /run/secrets/s; echo; echo > /tmp/up; exec sleep 1012']\n\
                 ready = 'path:/tmp/up'\n[[step]]\nname = \"s\"\nsecrets = [\"s\"]\ndaemons = [\"d\"]\nrun = 'true'\n";
    let recipe = recipe(&stand, "daemon-secret", lines);
    let _ = stand.env.run(["build", text(&recipe), "--until", "s"]).success();
    let log = stand.env.run(["log", text(&recipe), "s", "--daemon", "d"]).success();
    assert_eq!(log.stdout, "***\n");
}

twins!(no_daemon_survives_a_killed_builder => root_no_daemon_survives_a_killed_builder,
       userns_no_daemon_survives_a_killed_builder);

fn no_daemon_survives_a_killed_builder(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let (seconds, other) = if privilege == Privilege::Root { ("1006", "1007") } else { ("1008", "1009") };
    let name = format!("daemon-killed-{privilege:?}").to_lowercase();
    let lines = format!(
        "[daemon.d]\nrun = ['sleep', '{seconds}']\n[daemon.slow]\nrun = ['sleep', '{other}']\nready = 'path:/tmp/go'\n\
         timeout = '5m'\n[[step]]\nname = \"s\"\nrun = 'true'\ndaemons = [\"d\", \"slow\"]\n"
    );
    let recipe: &Path = &recipe(&stand, &name, &lines);
    let (mut child, _) = stand.env.start(["build", text(recipe)]);
    wait_for("the daemons", || sleeping(seconds) == 1 && sleeping(other) == 1);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the end of the daemons", || sleeping(seconds) + sleeping(other) == 0);
    // An interrupted build ends while its daemon is not ready yet.
    let (mut child, _) = stand.env.start(["build", text(recipe)]);
    wait_for("the daemons", || sleeping(other) == 1);
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(sleeping(seconds) + sleeping(other), 0);
}
