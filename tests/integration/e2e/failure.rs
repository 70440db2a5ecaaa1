//! Builds that must fail: the exit code, the message, and an unchanged store.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::traces::names;
use super::{Stand, TINY, ask, text};
use crate::env::{Privilege, Server, twins};

twins!(an_ebuild_that_does_not_compile => root_an_ebuild_that_does_not_compile_is_reported, userns_an_ebuild_that_does_not_compile_is_reported);

fn an_ebuild_that_does_not_compile(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege).map(Stand::with_own_packages) else { return };
    let recipe = stand.recipe("failing", "[emerge]\npackages = [\"app-test/tiny\", \"app-test/broken\"]\njobs = 1\n");
    let failed = stand.build(&recipe).code(1);
    let said = &failed.stderr;
    let head = said.lines().find(|line| line.starts_with("error: ")).expect("an error");
    assert!(head.contains("app-test/broken-1") && head.contains("compile phase"), "{said}");
    assert!(said.contains("‘undeclared_thing’ undeclared"), "{said}");
    let (_, report) = said.split_once("error: ").unwrap();
    assert!(report.lines().count() <= 45, "an error of {} lines", report.lines().count());
    let log = said.lines().find_map(|line| line.strip_prefix("hint: the whole log: ")).expect("the path of the log");
    assert!(fs::read_to_string(log).unwrap().contains("undeclared_thing"));
    assert!(failed.results().is_empty(), "{failed:?}");
    assert_eq!(names(&stand.env.outdir()), Vec::<String>::new());
    // Packages that were built before the failure are used by the next build.
    let good = stand.recipe("good", TINY);
    stand.built(&good);
    let built = names(&stand.packages().join("app-test/tiny"));
    assert_eq!(built, ["tiny-1-1.gpkg.tar"], "the package was built again");
}

twins!(a_build_that_keeps_going => root_a_build_that_keeps_going_fails_at_the_end,
       userns_a_build_that_keeps_going_fails_at_the_end);

fn a_build_that_keeps_going(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege).map(Stand::with_own_packages) else { return };
    let stand = stand.with_overlay();
    for name in ["one", "two"] {
        stand.ebuild("app-own", &format!("fails-{name}"), "pkg_setup() {\n\tdie \"no ${PN}\"\n}\n");
    }
    let merging = "jobs = 1\npackages = [\"app-own/fails-one\", \"app-own/fails-two\", \"app-test/tiny\"]\n";
    let build = |more: &str| {
        let recipe = stand.recipe("going", &format!("baselayout-atoms = []\n[emerge]\n{merging}{more}"));
        let failed = stand.build(&recipe).code(1);
        assert!(failed.results().is_empty() && names(&stand.env.outdir()).is_empty(), "{failed:?}");
        let error = failed.stderr.lines().find(|line| line.starts_with("error: ")).expect("an error").to_owned();
        (error, names(&stand.packages().join("app-test/tiny")))
    };
    let (error, built) = build("");
    assert!(error.contains("app-own/fails-one-1") && !error.contains("fails-two"), "{error}");
    assert_eq!(built, Vec::<String>::new());
    // The packages that do not fail are in the cache.
    let (error, built) = build("keep-going = true\n");
    assert!(error.contains("app-own/fails-one-1") && error.contains("app-own/fails-two-1"), "{error}");
    assert_eq!(built, ["tiny-1-1.gpkg.tar"]);
}

/// A package whose source is on no server of the tests.
const FETCHED: &str =
    "EAPI=8\nDESCRIPTION=\"x\"\nSRC_URI=\"https://example.invalid/fetched-1.tar.gz\"\nSLOT=0\nKEYWORDS=\"amd64\"\n";

#[test]
fn root_an_offline_build_names_the_missing_distfiles() {
    let Some(stand) = Stand::sharing(Privilege::Root) else { return };
    stand.built(&stand.recipe("online", TINY));
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\nprofile-formats = portage-2\n");
    let stand = stand.with_repositories(&[&overlay]);
    stand.env.write("overlay/app-test/fetched/fetched-1.ebuild", FETCHED);
    let (blake2b, sha512) = ("0".repeat(128), "1".repeat(128));
    let manifest = format!("DIST fetched-1.tar.gz 10 BLAKE2B {blake2b} SHA512 {sha512}\n");
    stand.env.write("overlay/app-test/fetched/Manifest", &manifest);
    let recipe = stand.recipe("offline", "[emerge]\npackages = [\"app-test/fetched\"]\n");
    let failed = stand.env.run(["build", "--offline", text(&recipe)]).code(1);
    assert!(failed.stderr.contains("hint: missing in portage.distfiles: fetched-1.tar.gz\n"), "{}", failed.stderr);
    assert!(failed.stderr.contains("run it once without --offline"), "{}", failed.stderr);
}

/// Makes an environment with an empty store and a changed mirror. Root and emerge are not needed.
fn with_mirror(change: impl FnOnce(&Path)) -> Option<(Stand, Server)> {
    let privilege = if crate::env::is_root() { Privilege::Root } else { Privilege::Userns };
    let mut stand = Stand::alone(privilege)?;
    let mirror = stand.env.path("mirror");
    // Links to the files, so that `change` can replace one.
    ask("cp", &["--recursive", "--symbolic-link", text(&stand.world.path("mirror")), text(&mirror)]);
    change(&mirror);
    let server = Server::start(&mirror);
    stand.env.set("QUERN_SOURCE_MIRRORS", format!("[{:?}]", server.url()));
    Some((stand, server))
}

/// Replaces the link to the newest stage3 of a mirror with a copy. Returns its path.
fn own_tarball(mirror: &Path) -> PathBuf {
    let builds = mirror.join("releases/amd64/autobuilds");
    let pointer = fs::read_to_string(builds.join("latest-stage3-amd64-musl.txt")).unwrap();
    let entry = pointer.lines().find(|line| line.contains(".tar.xz ")).and_then(|line| line.split(' ').next()).unwrap();
    let tarball = builds.join(entry);
    let original = fs::canonicalize(&tarball).unwrap();
    fs::remove_file(&tarball).unwrap();
    fs::copy(original, &tarball).unwrap();
    tarball
}

#[track_caller]
fn refused(stand: &Stand, code: i32) -> String {
    let recipe = stand.recipe("refused", TINY);
    let failed = stand.build(&recipe).code(code);
    assert_eq!(names(&stand.env.outdir()), Vec::<String>::new());
    let trees: Vec<_> =
        names(&stand.env.store().join("trees")).into_iter().filter(|name| !name.ends_with(".lock")).collect();
    assert!(trees.is_empty(), "unpacked: {trees:?}");
    failed.stderr
}

#[test]
fn userns_a_mirror_signed_with_an_unknown_key_is_refused() {
    let Some((mut stand, server)) = with_mirror(|_| ()) else { return };
    stand.env.set("QUERN_SOURCE_KEYRING", stand.world.path("keys/other.asc"));
    let said = refused(&stand, 3);
    assert!(said.contains("not in the keyring"), "{said}");
    assert!(!server.requests().iter().any(|request| request.ends_with(".tar.xz")), "a tarball was requested from it");
}

#[test]
fn userns_a_changed_stage3_is_refused() {
    let mut name = String::new();
    let made = with_mirror(|mirror| {
        let tarball = own_tarball(mirror);
        let file = fs::OpenOptions::new().read(true).write(true).open(&tarball).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 50_000_000).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 50_000_000).unwrap();
        name = tarball.file_name().unwrap().to_str().unwrap().to_owned();
    });
    let Some((stand, _server)) = made else { return };
    let said = refused(&stand, 3);
    assert!(said.contains(&name), "{said}");
    // With a good mirror, the file is fetched again.
    let mut stand = stand;
    stand.env.set("QUERN_SOURCE_MIRRORS", format!("[{:?}]", stand.server.url()));
    let recipe = stand.recipe("refused", TINY);
    let _ = stand.shell(&recipe, &[], &["true"]).success();
}

#[test]
fn userns_a_truncated_stage3_is_refused() {
    let made = with_mirror(|mirror| {
        let tarball = own_tarball(mirror);
        fs::OpenOptions::new().write(true).open(tarball).unwrap().set_len(40_000_000).unwrap();
    });
    let Some((stand, _server)) = made else { return };
    let said = refused(&stand, 3);
    assert!(said.contains("40000000") || said.contains("too short") || said.contains("truncated"), "{said}");
}

#[test]
fn userns_a_mirror_that_does_not_answer_is_reported() {
    let Some((mut stand, _server)) = with_mirror(|_| ()) else { return };
    // No server listens on port 1.
    stand.env.set("QUERN_SOURCE_MIRRORS", "[\"http://127.0.0.1:1\"]");
    let said = refused(&stand, 5);
    assert!(said.contains("127.0.0.1:1") && said.contains("hint: "), "{said}");
}

#[test]
fn userns_mistakes_in_a_recipe_are_reported_before_any_request() {
    let Some((stand, server)) = with_mirror(|_| ()) else { return };
    let recipe = stand.recipe("mistaken", "outdri = \"x\"\n[emerge]\npackages = [\"app-test/tiny\"]\n");
    let failed = stand.build(&recipe).code(2);
    for part in ["mistaken.toml:5:1", "5 | outdri = \"x\"\n  | ^^^^^^", "did you mean `outdir`?"] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }

    // The repository does not declare the format profile-set, so that @profile would be empty without an error.
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\nprofile-formats = portage-2\n");
    let stand = stand.with_repositories(&[&overlay]);
    stand.env.write("overlay/profiles/small/parent", "gentoo:default/linux/amd64/23.0/musl\n");
    stand.env.write("overlay/profiles/small/packages", "app-test/tiny\n");
    let recipe = stand.recipe("empty", "");
    let own = ["build", text(&recipe), "--set", "build.profile=own:small"];
    let failed = stand.env.run(own).code(2);
    assert!(failed.stderr.contains("profile-set") && failed.stderr.contains("@profile"), "{}", failed.stderr);
    assert_eq!(server.requests(), Vec::<String>::new());
    assert_eq!(names(&stand.env.outdir()), Vec::<String>::new());
}
