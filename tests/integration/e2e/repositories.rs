//! Builds with a fetched ebuild repository, on a host without one.

use std::fs;
use std::path::Path;

use super::{Stand, TINY, text};
use crate::env::{Output, Privilege, Server, output, twins};

impl Stand {
    /// Uses a snapshot of the mirror as the only repository.
    pub(super) fn with_snapshot(mut self, which: &str) -> Self {
        let keyring = self.world.keyring();
        self.env.set("QUERN_PORTAGE_REPOSITORIES", format!("[{{ snapshot = {which:?}, keyring = {keyring:?} }}]"));
        self
    }
}

twins!(builds_from_a_snapshot => root_builds_from_a_snapshot, userns_builds_from_a_snapshot);

fn builds_from_a_snapshot(privilege: Privilege) {
    let Some(stand) = Stand::alone(privilege) else { return };
    let stand = stand.with_snapshot("latest");
    let recipe = stand.recipe("latest", TINY);
    let plan = stand.env.run(["build", "--dry-run", text(&recipe)]).success();
    assert!(plan.stdout.contains("snapshots/gentoo-latest.tar.xz.gpgsig"), "{plan:#?}");
    assert!(plan.stdout.contains("unknown until the repositories are in the store"), "{plan:#?}");
    assert!(stand.server.requests().is_empty(), "a dry run sends requests");
    let results = stand.built(&recipe);
    // The repository is fetched first, so that a missing profile is reported before the stage3 is fetched.
    let requests = stand.server.requests();
    let at = |what: &str| requests.iter().position(|request| request.contains(what));
    assert!(at("gentoo-latest.tar.xz").unwrap() < at("stage3-amd64-musl").unwrap(), "{requests:#?}");
    let provenance = fs::read_to_string(results[0].to_str().unwrap().replace(".tar.gz", ".json")).unwrap();
    let fingerprint = fs::read_to_string(stand.world.path("keys/release.fpr")).unwrap();
    let name = day(&stand);
    for part in [format!("gentoo-{name}"), fingerprint.trim().to_owned()] {
        assert!(provenance.contains(&part), "{part}: {provenance}");
    }
    // Now a dry run prints the whole plan, and nothing is fetched or unpacked again.
    let plan = stand.env.run(["build", "--dry-run", text(&recipe)]).success();
    assert!(plan.stdout.contains("/var/db/repos/gentoo") && plan.stdout.contains("emerge"), "{plan:#?}");
    let again = stand.env.run(["build", "--offline", text(&recipe)]).success();
    assert!(!again.stderr.contains("unpacking"), "{again:#?}");
    let fetched = stand.env.run(["fetch", text(&recipe)]).success();
    let tree = fetched.results()[1].clone();
    assert!(tree.ends_with(format!("gentoo-{name}")), "{fetched:#?}");
    let verified = stand.env.run(["verify", text(&recipe)]).success();
    assert!(verified.stdout.contains("gentoo-latest.tar.xz: good"), "{verified:#?}");
    let shown = stand.shell(&recipe, &["--offline"], &["cat", "/var/db/repos/gentoo/profiles/repo_name"]).success();
    assert_eq!(shown.stdout.trim(), "gentoo");
    let _ = stand.shell(&recipe, &["--offline"], &["touch", "/var/db/repos/gentoo/x"]).code(1);
    // The unpacked repository is removed with the trees, and unpacked again from its blob.
    let _ = stand.env.run(["clean", "--trees"]).success();
    assert!(!tree.exists());
    let again = stand.env.run(["build", "--offline", text(&recipe)]).success();
    assert!(again.stderr.contains("unpacking gentoo-latest.tar.xz"), "{again:#?}");
    // The snapshot of a day.
    let stand = stand.with_snapshot(&name);
    let dated = stand.recipe("dated", TINY);
    assert!(stand.built(&dated)[0].is_file());
}

/// Returns the date of the mirror's snapshot.
fn day(stand: &Stand) -> String {
    let names = fs::read_dir(stand.world.path("mirror/snapshots")).unwrap();
    let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.find_map(|name| name.strip_prefix("gentoo-2")?.strip_suffix(".tar.xz").map(|day| format!("2{day}"))).unwrap()
}

#[test]
fn root_changed_and_misnamed_snapshots_are_refused() {
    let Some(mut stand) = Stand::alone(Privilege::Root) else { return };
    let name = day(&stand);
    let recipe = stand.recipe("bad", TINY);
    let wrong = stand.world.path("keys/other.asc");
    let refused = |stand: &Stand, why: &str| {
        let output = stand.build(&recipe).code(3);
        assert!(output.stderr.contains(why), "{why}: {output:#?}");
        nothing_unpacked(&stand.env.store(), &output);
        assert!(
            !stand.server.requests().iter().any(|request| request.contains("stage3")),
            "the stage3 was requested first"
        );
    };
    stand.env.set("QUERN_PORTAGE_REPOSITORIES", format!("[{{ snapshot = \"latest\", keyring = {wrong:?} }}]"));
    refused(&stand, "not in the keyring");
    // Changed bytes, and good bytes under the name of another day.
    let snapshots = stand.env.path("site/snapshots");
    fs::create_dir_all(&snapshots).unwrap();
    for ending in ["", ".gpgsig"] {
        let from = stand.world.path(format!("mirror/snapshots/gentoo-{name}.tar.xz{ending}"));
        fs::copy(&from, snapshots.join(format!("gentoo-20010101.tar.xz{ending}"))).unwrap();
        fs::copy(&from, snapshots.join(format!("gentoo-latest.tar.xz{ending}"))).unwrap();
    }
    let mut bytes = fs::read(snapshots.join("gentoo-latest.tar.xz")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(snapshots.join("gentoo-latest.tar.xz"), bytes).unwrap();
    let site = Server::start(&stand.env.path("site"));
    let from = |which: &str| {
        let (keyring, url) = (stand.world.keyring(), site.url());
        format!("[{{ snapshot = {which:?}, keyring = {keyring:?}, mirrors = [{url:?}] }}]")
    };
    let (latest, dated) = (from("latest"), from("20010101"));
    stand.env.set("QUERN_PORTAGE_REPOSITORIES", latest);
    refused(&stand, "bad signature");
    stand.env.set("QUERN_PORTAGE_REPOSITORIES", dated);
    refused(&stand, &format!("it holds gentoo-{name}, not gentoo-20010101"));
}

#[track_caller]
fn nothing_unpacked(store: &Path, output: &Output) {
    let trees = fs::read_dir(store.join("trees")).unwrap().map(|entry| entry.unwrap().path());
    let left: Vec<_> = trees.filter(|path| path.extension().is_none_or(|end| end != "lock")).collect();
    assert!(left.is_empty(), "{left:?}: {output:#?}");
}

#[test]
fn root_a_missing_profile_is_reported_before_the_stage3_is_fetched() {
    let Some(stand) = Stand::alone(Privilege::Root) else { return };
    let stand = stand.with_snapshot("latest");
    let recipe = stand.recipe("profile", TINY);
    let output =
        stand.env.run(["build", text(&recipe), "--set", "build.profile=gentoo:default/linux/amd64/23.0/mussel"]);
    let output = output.code(2);
    assert!(output.stderr.contains("did you mean"), "{output:#?}");
    assert!(!stand.server.requests().iter().any(|request| request.contains("stage3")));
    let _ = output_of_git(&stand);
}

/// A recipe that needs git fails with that reason on a machine without git.
fn output_of_git(stand: &Stand) -> Output {
    let keyring = stand.world.keyring();
    let git = format!("[{{ git = \"http://127.0.0.1:9/own.git\", branch = \"stable\", keyring = {keyring:?} }}]");
    let recipe = stand.recipe("git", TINY);
    let mut command = stand.env.program(["fetch", text(&recipe)]);
    let output = output(command.env("QUERN_PORTAGE_REPOSITORIES", git).env("PATH", "/nonexistent")).code(4);
    assert!(output.stderr.contains("needs the program git"), "{output:#?}");
    output
}
