//! The same recipe and the same inputs give the same bytes, for every user and each time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{EPOCH, Stand, ask, text};
use crate::env::{PROGRAM, Privilege, output};

/// A recipe without Portage's records, which contain times.
const RECIPE: &str = "sbom = [\"spdx\", \"cyclonedx\"]\n[emerge]\npackages = [\"app-test/tiny\", \"app-test/odd\"]\n[strip]\npaths = [\"/var/db/pkg\"]\n[oci]\n";

/// A recipe with Portage's records. They contain the order in which packages were merged, which is fixed only with one job.
const WITH_RECORDS: &str = "[emerge]\npackages = [\"app-test/tiny\", \"app-test/odd\"]\njobs = 1\n";

/// Builds, running every step, and copies the results to a place where the next build does not replace them.
fn built(stand: &mut Stand, rest: &str, keep: &str) -> PathBuf {
    built_under("022", stand, rest, keep)
}

/// Does the same as [`built`], with a umask.
fn built_under(umask: &str, stand: &mut Stand, rest: &str, keep: &str) -> PathBuf {
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let recipe = stand.recipe("same", rest);
    let mut command = stand.env.command("sh");
    command.args([
        "-c",
        "umask $1; shift; exec \"$@\"",
        "sh",
        umask,
        PROGRAM,
        "build",
        "--again",
        "all",
        text(&recipe),
    ]);
    assert!(!output(&mut command).success().results().is_empty());
    let kept = stand.env.path(keep);
    ask("cp", &["--recursive", text(&stand.env.outdir()), text(&kept)]);
    kept
}

/// Compares the tarball, the documents about it and the index of the layout, which contains the digest of the manifest.
#[track_caller]
fn assert_same(one: &Path, other: &Path) {
    for name in [".tar.gz", ".oci/index.json", ".json", ".spdx.json", ".cdx.json"] {
        let name = format!("same-2023-11-14{name}");
        let (one, other) = (one.join(&name), other.join(&name));
        let same = std::fs::read(&one).unwrap() == std::fs::read(&other).unwrap();
        assert!(same, "{} and {} differ: {:#?}", one.display(), other.display(), differences(&one, &other));
    }
}

/// Returns the lines that differ in two files, or in the listings and contents of two tarballs.
fn differences(one: &Path, other: &Path) -> BTreeSet<String> {
    let show = "show() { case $1 in \
                *.gz) tar -tvvzf $1 --full-time --xattrs; tar -xzf $1 --to-command='sed \"s|^|$TAR_FILENAME: |\"' ;; \
                *) cat $1 ;; esac; }; \
                export LC_ALL=C; show $1 >$1.shown; show $2 >$2.shown; diff --text $1.shown $2.shown; true";
    let diff = ask("sh", &["-c", show, "sh", text(one), text(other)]);
    diff.lines().filter(|line| line.starts_with(['<', '>'])).map(str::to_owned).collect()
}

#[test]
fn userns_two_builds_give_the_same_bytes() {
    let Some(stand) = Stand::sharing(Privilege::Userns) else { return };
    let mut stand = stand.with_own_packages();
    // The first build compiles its packages; the second takes them from the cache.
    let (first, second) = (built(&mut stand, RECIPE, "first"), built_under("077", &mut stand, RECIPE, "second"));
    assert_same(&first, &second);

    // Portage records when it made a symlink and when a record changed. Everything else is the same.
    let (third, fourth) = (built(&mut stand, WITH_RECORDS, "third"), built(&mut stand, WITH_RECORDS, "fourth"));
    let tarball = Path::new("same-2023-11-14.tar.gz");
    let times = |line: &&String| {
        (line.contains("/CONTENTS: sym ") || line.contains("/metadata: #dir_mtime=")) && line.contains("./var/db/pkg/")
    };
    let found = differences(&third.join(tarball), &fourth.join(tarball));
    let other: Vec<_> = found.iter().filter(|line| !times(line)).collect();
    assert!(other.is_empty(), "{other:#?}");
    assert!(!found.is_empty(), "Portage has stopped keeping times: compare the bytes here too");

    // Nothing runs, and the result is the same.
    let recipe = stand.recipe("same", WITH_RECORDS);
    let again = stand.build_changed(&recipe).success();
    assert!(again.stderr.contains("2 of 2 steps are cached"), "{}", again.stderr);
    assert_eq!(differences(&fourth.join(tarball), &stand.env.outdir().join(tarball)), BTreeSet::new());
}

#[test]
fn root_and_an_ordinary_user_give_the_same_bytes() {
    let Some(root) = Stand::sharing(Privilege::Root) else { return };
    let Some(user) = Stand::sharing(Privilege::Userns) else { return };
    let (mut root, mut user) = (root.with_own_packages(), user.with_own_packages());
    // Both use the same mirror, which the provenance names.
    user.env.set("QUERN_SOURCE_MIRRORS", format!("[{:?}]", root.server.url()));
    let one = built(&mut root, RECIPE, "kept");
    ask("cp", &["--recursive", text(&root.packages()), text(&user.packages())]);
    ask("chown", &["--recursive", "--reference", text(&user.env.outdir()), text(&user.packages())]);
    let other = built(&mut user, RECIPE, "kept");
    assert_same(&one, &other);
}
