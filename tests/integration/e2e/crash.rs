//! Builds that are killed or interrupted at every stage, then run again.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::traces::{assert_nothing_runs, names, processes};
use super::{Stand, ask, text};
use crate::env::{Privilege, twins, wait_for};

/// A way to end a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// SIGKILL to the program.
    Kill,
    /// SIGKILL to its whole process group.
    KillGroup,
    /// SIGINT, as by Ctrl-C.
    Interrupt,
    /// SIGTERM, as by a service manager.
    Terminate,
}

impl End {
    fn send(self, pid: u32) {
        let (signal, target) = match self {
            Self::Kill => ("KILL", pid.to_string()),
            Self::KillGroup => ("KILL", format!("-{pid}")),
            Self::Interrupt => ("INT", pid.to_string()),
            Self::Terminate => ("TERM", pid.to_string()),
        };
        ask("kill", &["-s", signal, "--", &target]);
    }

    fn code(self) -> i32 {
        match self {
            Self::Kill | Self::KillGroup => 137,
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

twins!(
    |privilege| ended_at_every_stage(privilege, End::Kill, End::KillGroup)
    => root_a_killed_build_leaves_nothing_and_runs_again, userns_a_killed_build_leaves_nothing_and_runs_again
);

twins!(
    |privilege| ended_at_every_stage(privilege, End::Terminate, End::Interrupt)
    => root_an_interrupted_build_leaves_nothing_and_runs_again, userns_an_interrupted_build_leaves_nothing_and_runs_again
);

/// Ends a build while it fetches, unpacks, emerges and packs. Each run continues from there, and the last one completes.
fn ended_at_every_stage(privilege: Privilege, one: End, other: End) {
    let Some(stand) = Stand::alone(privilege) else { return };
    // Root and the ordinary user take turns, so that each stage is ended in both ways.
    let ends = if privilege == Privilege::Root { [one, other, one, other] } else { [other, one, other, one] };
    let stand = stand.with_overlay();
    // A large file makes packing slow.
    let body = "pkg_postinst() {\n\ttruncate -s \"$(</var/db/repos/own/size)\" \"${EROOT}/large\" || die\n}\n";
    stand.ebuild("app-own", "large", body);
    stand.env.write("overlay/size", "0");
    let recipe = stand.recipe(
        "crash",
        "[emerge]\npackages = [\"app-own/large\", \"app-test/slow\"]\n[portage.make-conf]\nSLOW_SECONDS = \"0\"\n",
    );
    let slow: &[&str] = &["--set", "portage.make-conf.SLOW_SECONDS=3600"];

    stand.server.hold(Some(20 << 20));
    let run = Run::start(&stand, &recipe, &[]);
    run.wait_until("it fetches", || stand.server.is_holding());
    run.end(ends[0]);
    stand.server.hold(None);

    let run = Run::start(&stand, &recipe, &[]);
    let trees = stand.env.store().join("trees");
    run.wait_until("it unpacks", || names(&trees).iter().any(|name| name.ends_with(".partial")));
    run.end(ends[1]);
    let requests = stand.server.requests();
    let resumed = requests.iter().filter(|request| request.contains(".tar.xz bytes=")).count();
    assert_eq!(resumed, 1, "the download was not resumed: {requests:#?}");

    let run = Run::start(&stand, &recipe, slow);
    let builds = stand.env.store().join("builds");
    run.wait_until("it emerges", || sleeps(&builds));
    run.end(ends[2]);

    stand.env.write("overlay/size", "256G");
    let run = Run::start(&stand, &recipe, &[]);
    run.wait_until("it packs", || run.log().contains("\npacking crash-"));
    run.end(ends[3]);
    stand.env.write("overlay/size", "0");
    assert!(names(&stand.env.outdir()).iter().all(|name| name.starts_with('.')), "a partial result was published");

    let results = stand.built(&recipe);
    assert_eq!(results.len(), 1);
    let here = names(&stand.env.outdir());
    assert_eq!(here.len(), 5, "a staging directory is left: {here:?}");
    assert!(names(&trees).iter().all(|name| !name.ends_with(".partial")), "{:?}", names(&trees));
    assert_nothing_runs(&stand.env.path(""));
    ask("gzip", &["--test", text(&results[0])]);
}

/// Returns whether the ebuild `app-test/slow` is sleeping.
fn sleeps(builds: &Path) -> bool {
    names(builds).iter().any(|work| {
        let logs = builds.join(work).join("logs");
        names(&logs)
            .iter()
            .filter_map(|log| std::fs::read_to_string(logs.join(log)).ok())
            .any(|log| log.contains("sleeping 3600 s"))
    })
}

/// A running build, in its own process group.
struct Run {
    child: std::cell::RefCell<Child>,
    log: PathBuf,
    place: PathBuf,
}

impl Run {
    fn start(stand: &Stand, recipe: &Path, more: &[&str]) -> Self {
        let log = stand.env.path("log");
        let file = std::fs::File::create(&log).unwrap();
        let mut command: Command = stand.env.program([&["build", "--again=all", text(recipe)], more].concat());
        command.stdout(file.try_clone().unwrap()).stderr(file).process_group(0);
        Self { child: command.spawn().unwrap().into(), log, place: stand.env.path("") }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    #[track_caller]
    fn wait_until(&self, what: &str, mut reached: impl FnMut() -> bool) {
        wait_for(what, || {
            let ended = self.child.borrow_mut().try_wait().unwrap();
            assert!(ended.is_none(), "it ended before {what}: {}", self.log());
            reached()
        });
    }

    /// Ends the build and checks that nothing is left.
    #[track_caller]
    fn end(self, end: End) {
        assert!(!processes(&self.place).is_empty(), "the running build was not found");
        end.send(self.child.borrow().id());
        let status = self.child.borrow_mut().wait().unwrap();
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        assert_eq!(code, Some(end.code()), "{end:?}: {}", self.log());
        assert_nothing_runs(&self.place);
    }
}
