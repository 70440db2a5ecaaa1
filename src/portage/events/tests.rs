use proptest::prelude::*;

use super::*;
use crate::base::progress::{Merged, Target, Task};

const SNAPSHOT: &str = r#"{"emerge_pid":29176,"jobs":{"completed":3,"failed":1,"max":1,"merge_wait":0,"merges_pending":0,
"running":1,"total":7},"schema":1,"tasks":[{"binary":false,"build_elapsed":2.0,"category":"app-test","cpv":"app-test/hello-1",
"elapsed":2.0,"kind":"build","merge_wait":false,"operation":"merge","pf":"hello-1","phase":"compile","pid":29269,
"root":"/quern/image/","start_time":1795227679.36},{"cpv":"a/b-1","kind":"merge","phase":null,"binary":true,
"root":"/"}],
"timestamp":1795227681.0,"type":"snapshot"}"#;

/// A package for the image that is being worked on.
fn task(cpv: &str, phase: &str, binary: bool) -> Task {
    Task { cpv: cpv.into(), phase: phase.into(), binary, target: Target::Image }
}

#[test]
fn a_snapshot_becomes_packages() {
    let packages = parse_snapshot(SNAPSHOT.as_bytes()).unwrap();
    assert_eq!((packages.completed, packages.failed, packages.total), (3, 1, 7));
    let builder = Task { target: Target::Builder, ..task("a/b-1", "merge", true) };
    assert_eq!(packages.running, [task("app-test/hello-1", "compile", false), builder]);
}

#[test]
fn other_text_is_not_a_snapshot() {
    for text in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"type":"other","jobs":{}}"#,
        r#"{"type":"snapshot"}"#,
        r#"{"type":"snapshot","jobs":{"total":-1}}"#,
    ] {
        assert_eq!(parse_snapshot(text.as_bytes()), None, "{text}");
    }
    let nested = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(parse_snapshot(nested.as_bytes()), None);
    assert_eq!(parse_snapshot(&vec![b' '; MAX_READ as usize + 1]), None);
}

#[test]
fn hostile_names_are_sanitised_and_cut() {
    let text = format!(
        r#"{{"type":"snapshot","jobs":{{}},"tasks":[{{"cpv":"\u001b[2Ja/b{}","phase":"\u0007x"}}]}}"#,
        "c".repeat(500)
    );
    let packages = parse_snapshot(text.as_bytes()).unwrap();
    assert!(packages.running[0].cpv.starts_with("a/bccc") && packages.running[0].cpv.chars().count() == 121);
    assert_eq!(packages.running[0].phase, "x");
}

const LOG: &str = "\
1786404600: Started emerge on: Aug 10, 2026 23:30:00
1786404600:  *** emerge --jobs=2 @profile
1786404601:  >>> emerge (1 of 2) sys-libs/musl-1.2.3 to /quern/image/
1786404601:  === (1 of 2) Cleaning (sys-libs/musl-1.2.3::/var/db/repos/gentoo/sys-libs/musl/musl-1.2.3.ebuild)
1786404601:  === (1 of 2) Compiling/Merging (sys-libs/musl-1.2.3::/var/db/repos/gentoo/sys-libs/musl/musl-1.2.3.ebuild)
1786404602:  >>> emerge (2 of 2) dev-lang/python-3.11.2 to /quern/image/
1786404602:  === (2 of 2) Merging Binary (dev-lang/python-3.11.2::/var/cache/binpkgs/python.gpkg.tar)
";

#[test]
fn the_log_becomes_packages() {
    let mut log = Log::default();
    for line in LOG.lines() {
        log.line(line);
    }
    let both = [task("sys-libs/musl-1.2.3", "compile", false), task("dev-lang/python-3.11.2", "merge", true)];
    assert_eq!(log.packages().running, both);
    assert_eq!((log.packages().completed, log.packages().total), (0, 2));
    assert!(log.line("1786404609:  ::: completed emerge (1 of 2) sys-libs/musl-1.2.3 to /quern/image/"));
    assert!(!log.line("1786404609:  === (1 of 2) Post-Build Cleaning (sys-libs/musl-1.2.3::/x.ebuild)"));
    assert_eq!((log.packages().completed, log.packages().running.len()), (1, 1));
    log.line("1786404700: Started emerge on: Aug 10, 2026 23:31:00");
    assert_eq!(log.packages(), Packages::default());
}

#[test]
fn other_lines_do_not_change_the_log() {
    let mut log = Log::default();
    for line in [
        "",
        "x",
        "1: >>> emerge",
        "1: >>> emerge (5 of 4) a/b to /",
        "1: >>> emerge (a of b) c",
        "x: >>> emerge (1 of 1) a/b",
    ] {
        assert!(!log.line(line), "{line}");
    }
}

#[test]
fn the_watcher_prefers_snapshots_and_reports_only_changes() {
    let temp = tempfile::tempdir().unwrap();
    let (run, log) = (temp.path().join("run"), temp.path().join("log/emerge.log"));
    fs_err::create_dir(&run).unwrap();
    fs_err::create_dir(temp.path().join("log")).unwrap();
    fs_err::write(&log, "1: >>> emerge (1 of 9) an/older-1 to /\n").unwrap();
    let mut watcher = Watcher::new(&run, &log);
    assert_eq!(watcher.poll(), None);
    let append = |text: &str| {
        let mut present = fs_err::read_to_string(&log).unwrap();
        present.push_str(text);
        fs_err::write(&log, present).unwrap();
    };
    append("2: Started emerge on: Aug 10, 2026 23:30:00\n");
    assert_eq!(watcher.poll(), None);
    append("2: >>> emerge (1 of 2) a/b-1 to /\n3: >>> emerge (2 o");
    assert_eq!(watcher.poll().unwrap().running.len(), 1);
    append("f 2) c/d-1 to /\n");
    assert_eq!(watcher.poll().unwrap().running.len(), 2);
    assert_eq!(watcher.poll(), None);
    fs_err::write(run.join("emerge-7.json"), SNAPSHOT).unwrap();
    assert_eq!(watcher.poll().unwrap().total, 7);
    assert_eq!(watcher.poll(), None);
    let newer = SNAPSHOT.replace("1795227681.0", "1795227682.0").replace("\"total\":7", "\"total\":8");
    fs_err::write(run.join("emerge-10.json"), newer).unwrap();
    assert_eq!(watcher.poll().unwrap().total, 8);
}

/// A directory for snapshots and a log to which lines are appended, with their watcher.
struct Watched {
    directory: tempfile::TempDir,
    watcher: Watcher,
}

impl Watched {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs_err::write(directory.path().join("emerge.log"), "").unwrap();
        let watcher = Watcher::new(directory.path(), &directory.path().join("emerge.log"));
        Self { directory, watcher }
    }

    fn log(&mut self, lines: &str) -> Vec<Merged> {
        let path = self.directory.path().join("emerge.log");
        let text = fs_err::read_to_string(&path).unwrap() + lines;
        fs_err::write(path, text).unwrap();
        self.watcher.poll();
        self.watcher.log.merged()
    }

    /// Writes a snapshot of the time `now` in which packages are built (`false`) or wait to be merged (`true`).
    fn snapshot(&mut self, now: f64, tasks: &[(&str, f64, f64, bool)]) {
        let tasks: Vec<_> = tasks
            .iter()
            .map(|(cpv, start, elapsed, waits)| {
                serde_json::json!({
                    "cpv": cpv, "kind": if *waits { "merge" } else { "build" }, "phase": null, "binary": false,
                    "merge_wait": waits, "start_time": start, "build_elapsed": elapsed,
                })
            })
            .collect();
        let json = serde_json::json!({"type": "snapshot", "timestamp": now, "jobs": {"total": 2}, "tasks": tasks});
        fs_err::write(self.directory.path().join("emerge-1.json"), json.to_string()).unwrap();
        self.watcher.poll();
    }
}

#[test]
fn the_time_of_a_package_is_without_its_wait_for_others() {
    let mut watched = Watched::new();
    watched.log(
        "1000: Started emerge on: Aug 10, 2026 23:30:00\n\
         1000: >>> emerge (1 of 2) a/fast-1 to /\n\
         1000: >>> emerge (2 of 2) a/slow-1 to /\n",
    );
    watched.snapshot(1020.0, &[("a/fast-1", 1000.5, 10.0, true), ("a/slow-1", 1000.5, 19.5, false)]);
    watched.snapshot(1080.0, &[("a/fast-1", 1000.5, 10.0, true), ("a/slow-1", 1000.5, 79.5, false)]);
    let merged = watched.log(
        "1100: === (2 of 2) Merging (a/slow-1::/x.ebuild)\n\
         1101: ::: completed emerge (2 of 2) a/slow-1 to /\n\
         1102: === (1 of 2) Merging (a/fast-1::/x.ebuild)\n\
         1105: ::: completed emerge (1 of 2) a/fast-1 to /\n",
    );
    let times: Vec<_> = merged.iter().map(|merged| (merged.cpv.as_str(), merged.seconds)).collect();
    // 10 seconds of building and 3 of merging, not 105.
    assert_eq!(times, [("a/slow-1", 101), ("a/fast-1", 13)]);
}

#[test]
fn a_binary_package_waits_until_it_was_last_seen_to_wait() {
    let mut watched = Watched::new();
    watched.log("1000: >>> emerge (1 of 1) a/b-1 to /\n1000: === (1 of 1) Merging Binary (a/b-1::/x.gpkg.tar)\n");
    watched.snapshot(1002.0, &[("a/b-1", 1000.0, 1.0, true)]);
    watched.snapshot(1060.0, &[("a/b-1", 1000.0, 1.0, true)]);
    let merged = watched.log("1063: ::: completed emerge (1 of 1) a/b-1 to /\n");
    assert_eq!((merged[0].seconds, merged[0].binary), (4, true));
}

#[test]
fn times_of_snapshots_cannot_break_the_times_of_packages() {
    let mut watched = Watched::new();
    watched.log("1000: >>> emerge (1 of 1) a/b-1 to /\n");
    watched.snapshot(1e300, &[("a/b-1", -1e300, 1e300, true)]);
    let merged = watched.log("1010: ::: completed emerge (1 of 1) a/b-1 to /\n");
    assert!(merged[0].seconds <= 10, "{merged:?}");
}

#[test]
fn the_watcher_does_not_follow_symlinks_or_open_fifos() {
    let temp = tempfile::tempdir().unwrap();
    let outside = temp.path().join("outside");
    fs_err::write(&outside, SNAPSHOT).unwrap();
    let run = temp.path().join("run");
    fs_err::create_dir(&run).unwrap();
    std::os::unix::fs::symlink(&outside, run.join("emerge-1.json")).unwrap();
    nix::unistd::mkfifo(&run.join("emerge-2.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    nix::unistd::mkfifo(&run.join("emerge.log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut watcher = Watcher::new(&run, &run.join("emerge.log"));
    assert_eq!(watcher.poll(), None);
    assert_eq!(Watcher::new(&temp.path().join("no"), &temp.path().join("no/x")).poll(), None);
}

proptest! {
    #[test]
    fn snapshots_never_panic_nor_show_controls(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let _ = parse_snapshot(&bytes);
    }

    #[test]
    fn snapshot_text_is_clean(cpv in any::<String>(), phase in any::<String>()) {
        let text = serde_json::json!({"type": "snapshot", "jobs": {}, "tasks": [{"cpv": cpv, "phase": phase}]});
        let packages = parse_snapshot(text.to_string().as_bytes()).unwrap();
        prop_assert!(!packages.running[0].cpv.contains(char::is_control));
        prop_assert!(!packages.running[0].phase.contains(char::is_control));
    }

    #[test]
    fn log_lines_never_panic_nor_show_controls(lines in proptest::collection::vec("1: (>>> emerge|::: completed emerge|===) \\([0-9]{1,20} of [0-9]{1,20}\\) .{0,40}", 0..20)) {
        let mut log = Log::default();
        for line in &lines {
            log.line(line);
            prop_assert!(log.packages().running.iter().all(|task| !task.cpv.contains(char::is_control)));
        }
    }
}
