use proptest::prelude::*;

use std::time::Duration;

use super::*;
use crate::base::error::{Error, Kind};

const COMPILE: &str = " * Package: app-misc/hello-2.10\n\x1b[32m>>>\x1b[0m Compiling source\nmake: *** [all] Error 2\n \
\x1b[31;01m*\x1b[0m ERROR: app-misc/hello-2.10::quern failed (compile phase):\n *   emake failed\n";

fn logs() -> (tempfile::TempDir, SystemTime) {
    (tempfile::tempdir().unwrap(), SystemTime::now())
}

fn error(failure: Failure, what: &str) -> Error {
    failure.into_error(what, &PackageFiles::new())
}

fn cpv(failure: &Failure) -> Option<&str> {
    failure.packages.first().map(|package| package.cpv.as_str())
}

fn age(path: &Path, seconds: u64) {
    let file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
    file.file().set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}

#[test]
fn the_log_that_reports_a_failure_is_found() {
    let (temp, began) = logs();
    let log = temp.path().join("app-misc:hello-2.10:20260810-233001.log");
    fs_err::write(&log, COMPILE).unwrap();
    fs_err::write(temp.path().join("sys-libs:zlib-1.3:20260810-233005.log"), "all well\n").unwrap();
    fs_err::write(temp.path().join("emerge.log"), "x").unwrap();
    let failure = find(temp.path(), began, b"");
    let package = Package {
        cpv: "app-misc/hello-2.10".into(),
        repo: Some("quern".into()),
        phase: Some("compile".into()),
        log: Some(log),
    };
    assert_eq!(failure.packages, [package]);
    assert_eq!(failure.lines.last().unwrap(), " *   emake failed");
    assert!(failure.lines.iter().all(|line| !line.contains('\x1b')));
    let error = error(failure, "merging @profile");
    assert_eq!(error.to_string(), "merging @profile: app-misc/hello-2.10::quern failed in its compile phase");
    assert_eq!(error.kind(), Kind::Build);
    assert!(error.hint().unwrap().contains("hello-2.10:20260810-233001.log"));
    assert!(error.details().unwrap().contains("emake failed"));
}

#[test]
fn logs_of_earlier_builds_are_ignored() {
    let (temp, began) = logs();
    let log = temp.path().join("app-misc:hello-2.10:20260810-233001.log");
    fs_err::write(&log, COMPILE).unwrap();
    age(&log, 3_600);
    let failure = find(temp.path(), began, b"one\ntwo\n");
    assert_eq!(failure.packages, []);
    assert_eq!(failure.lines, ["one", "two"]);
}

#[test]
fn a_package_that_emerge_names_has_priority_over_logs() {
    let (temp, began) = logs();
    let output = b"\x1b[32m>>>\x1b[0m Failed to emerge dev-lang/python-3.11.2 for /quern/image/, Log file:\n";
    let log = temp.path().join("dev-lang:python-3.11.2:20260810-233009.log");
    fs_err::write(&log, "gcc: fatal error: Killed signal terminated program cc1\n").unwrap();
    fs_err::write(temp.path().join("app-misc:hello-2.10:20260810-233010.log"), COMPILE).unwrap();
    let failure = find(temp.path(), began, output);
    assert_eq!(cpv(&failure), Some("dev-lang/python-3.11.2"));
    assert_eq!((&failure.packages[0].phase, &failure.packages[0].log), (&None, &Some(log)));
    assert_eq!(failure.packages.len(), 1);
    assert_eq!(failure.hints.len(), 1);
}

#[test]
fn the_newest_log_of_several_failures_is_shown() {
    let (temp, began) = logs();
    for (name, seconds) in [("app-misc:one-1:20260810-233001.log", 1), ("app-misc:two-2:20260810-233000.log", 0)] {
        let path = temp.path().join(name);
        fs_err::write(&path, COMPILE.replace("hello-2.10", &name[9..14])).unwrap();
        age(&path, seconds);
    }
    assert_eq!(cpv(&find(temp.path(), began, b"")), Some("app-misc/two-2"));
}

#[test]
fn an_error_in_a_log_about_another_package_is_ignored() {
    let (temp, began) = logs();
    fs_err::write(temp.path().join("app-misc:other-1:20260810-233001.log"), COMPILE).unwrap();
    assert_eq!(cpv(&find(temp.path(), began, b"")), None);
}

#[test]
fn split_logs_are_found_too() {
    let (temp, began) = logs();
    let directory = temp.path().join("build/app-misc");
    fs_err::create_dir_all(&directory).unwrap();
    let log = directory.join("hello-2.10:20260810-233001.log");
    fs_err::write(&log, COMPILE).unwrap();
    assert_eq!(find(temp.path(), began, b"").packages[0].log, Some(log));
}

#[test]
fn symlinks_and_fifos_are_ignored() {
    let (temp, began) = logs();
    let outside = temp.path().join("outside");
    fs_err::write(&outside, COMPILE).unwrap();
    let logs = temp.path().join("logs");
    fs_err::create_dir(&logs).unwrap();
    std::os::unix::fs::symlink(&outside, logs.join("app-misc:hello-2.10:20260810-233001.log")).unwrap();
    std::os::unix::fs::symlink(temp.path(), logs.join("build")).unwrap();
    nix::unistd::mkfifo(&logs.join("app-misc:f-1:20260810-233001.log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(find(&logs, began, b""), Failure::default());
    assert_eq!(find(&temp.path().join("absent"), began, b""), Failure::default());
}

#[test]
fn known_messages_bring_a_hint() {
    let (temp, began) = logs();
    let cases: [(&str, &str, Kind); 3] = [
        ("cp: error writing 'x': No space left on device", "no space left", Kind::System),
        ("Unable to unshare: EPERM (for FEATURES=\"pid-sandbox\")", "refused", Kind::System),
        ("gcc: fatal error: Killed signal terminated program cc1", "emerge.jobs", Kind::Build),
    ];
    for (output, expected, kind) in cases {
        let error = error(find(temp.path(), began, output.as_bytes()), "merging x");
        assert!(error.hint().unwrap().contains(expected), "{output}");
        assert_eq!(error.kind(), kind, "{output}");
        assert_eq!(error.to_string(), "merging x: emerge failed");
    }
    assert!(error(find(temp.path(), began, b"nothing known"), "x").hint().is_none());
}

#[test]
fn a_failed_download_names_the_package() {
    let (temp, began) = logs();
    let failure = find(temp.path(), began, b" * Fetch failed for 'app-misc/hello-2.10', Log file:\n *  '/x'\n");
    assert_eq!(cpv(&failure), Some("app-misc/hello-2.10"));
    assert_eq!(error(failure, "merging x").to_string(), "merging x: app-misc/hello-2.10 failed");
}

const FETCH: &str = "\
>>> Downloading 'https://distfiles.gentoo.org/distfiles/layout.conf'
!!! Couldn't download '.layout.conf.distfiles.gentoo.org'. Aborting.
>>> Downloading 'https://distfiles.gentoo.org/distfiles/NAME'
wget: unable to resolve host address ‘distfiles.gentoo.org’
!!! Couldn't download 'NAME'. Aborting.
";

#[test]
fn missing_files_of_every_failed_package_are_named() {
    let (temp, began) = logs();
    for (package, name) in [("sed-4.10", "sed-4.10.tar.xz"), ("zlib-1", "it's 1.tar.gz"), ("gone-1", "gone\x1b[2J.tar")]
    {
        let log = temp.path().join(format!("sys-apps:{package}:20260810-233001.log"));
        fs_err::write(log, FETCH.replace("NAME", name)).unwrap();
    }
    fs_err::write(temp.path().join("emerge-fetch.log"), FETCH.replace("NAME", "later.tar.gz")).unwrap();
    let output = b">>> Failed to emerge sys-apps/sed-4.10 for /quern/image/, Log file:\n";
    let failure = find(temp.path(), began, output);
    let hint = error(failure.clone(), "merging x").hint().unwrap().to_owned();
    for name in ["sed-4.10.tar.xz", "it's 1.tar.gz", "gone.tar"] {
        assert!(hint.contains(name), "{name}: {hint}");
    }
    assert!(hint.contains("source.mirrors") && !hint.contains("layout.conf") && !hint.contains("later"), "{hint}");
    let error = error(failure.offline(true), "merging x");
    assert_eq!(error.to_string(), "merging x: sys-apps/sed-4.10 failed: its source could not be downloaded");
    let hint = error.hint().unwrap();
    assert!(hint.contains("sed-4.10.tar.xz") && hint.contains("later.tar.gz"), "{hint}");
    assert!(hint.contains("without --offline") && !hint.contains("source.mirrors"), "{hint}");
}

#[test]
fn other_failures_of_an_offline_build_do_not_mention_the_network() {
    let (temp, began) = logs();
    fs_err::write(temp.path().join("app-misc:hello-2.10:20260810-233001.log"), COMPILE).unwrap();
    let error = error(find(temp.path(), began, b"").offline(true), "merging x");
    assert!(!error.hint().unwrap().contains("offline"), "{:?}", error.hint());
}

#[test]
fn long_lines_of_a_log_are_cut_between_words() {
    let (temp, began) = logs();
    let line = "word ".repeat(100);
    let failure = find(temp.path(), began, line.as_bytes());
    assert!(failure.lines[0].ends_with(" word…") && failure.lines[0].len() > 200, "{:?}", failure.lines);
}

#[test]
fn names_of_logs_are_parsed_strictly() {
    assert_eq!(logs::log_name("a-b:c-1.2-r3:20260810-233001.log", None).as_deref(), Some("a-b/c-1.2-r3"));
    assert_eq!(logs::log_name("c-1:20260810-233001.log", Some("a-b")).as_deref(), Some("a-b/c-1"));
    for bad in [
        "a:b:2026.log",
        "a:b:20260810-233001.log.gz",
        "a\x1b:b:20260810-233001.log",
        ":b:20260810-233001.log",
        "summary.log",
    ] {
        assert_eq!(logs::log_name(bad, None), None, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn reports_never_panic_nor_show_controls(line in " ?\\* ERROR: a/b-1(::)?.{0,20} failed \\(.{0,20} phase\\)", rest in any::<Vec<u8>>()) {
        let mut bytes = line.into_bytes();
        bytes.extend(rest);
        let found = logs::report(&bytes, "a/b-1");
        prop_assert!(!found.phase.unwrap_or_default().contains(char::is_control));
        prop_assert!(!found.repo.unwrap_or_default().contains(char::is_control));
    }

    #[test]
    fn output_is_never_shown_raw(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let failure = find(Path::new("/nonexistent"), SystemTime::now(), &bytes);
        prop_assert!(failure.lines.iter().all(|line| !line.contains(char::is_control)));
    }
}
