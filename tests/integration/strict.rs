//! Mistakes in recipes and repositories that are reported before anything is downloaded, also by a dry run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::env::{TestEnv, output};
use crate::stages::with_emerge;

/// A recipe whose second repository is `own`. The text after it continues `[build]`.
fn recipe(env: &TestEnv, rest: &str) {
    env.write("repo/profiles/repo_name", "main\n");
    env.write("repo/metadata/layout.conf", "masters =\nprofile-formats = portage-2\n");
    env.write("repo/profiles/base/make.defaults", "ARCH=\"amd64\"\n");
    env.write("own/profiles/repo_name", "own\n");
    let head = "[source]\nstage3 = \"amd64-musl\"\n[portage]\nrepositories = [\"repo\", \"own\"]\n[build]\n";
    env.write("demo.toml", format!("{head}{rest}"));
}

#[test]
fn a_dry_run_prints_the_warnings_of_a_build() {
    let env = TestEnv::new();
    recipe(&env, "profile = \"base\"\n[emerge]\npackages = [\"a/b\"]\n");
    env.write("repo/profiles/base/deprecated", "main:new\n");
    let told = env.run(["build", "demo.toml", "--dry-run"]).success();
    for warning in ["own has no masters in", "main:base is deprecated; its repository recommends main:new"] {
        assert!(told.stderr.contains(warning), "{warning}: {}", told.stderr);
        assert!(!told.stdout.contains(warning), "{}", told.stdout);
    }
}

#[test]
fn an_empty_profile_set_names_the_key_for_packages() {
    let env = TestEnv::new();
    recipe(&env, "profile = \"base\"\n");
    let told = env.run(["build", "demo.toml", "--dry-run"]).code(2);
    assert!(
        told.stderr.contains("@profile is empty") && told.stderr.contains("emerge.packages = ["),
        "{}",
        told.stderr
    );
    assert!(!told.stderr.contains("profiles/base/packages"), "{}", told.stderr);
}

#[test]
fn userns_a_repository_without_read_permission_is_named_so() {
    let Some(env) = TestEnv::userns() else { return };
    recipe(&env, "profile = \"base\"\n[emerge]\npackages = [\"a/b\"]\n");
    let mode = |mode| fs::set_permissions(env.path("own/profiles"), fs::Permissions::from_mode(mode)).unwrap();
    mode(if env.owner().is_some() { 0o700 } else { 0 });
    let told = env.run(["build", "demo.toml", "--dry-run"]).code(2);
    mode(0o755);
    assert!(told.stderr.contains("cannot read the ebuild repository: "), "{}", told.stderr);
    assert!(told.stderr.contains("permission denied") && !told.stderr.contains("not an ebuild"), "{}", told.stderr);
}

/// Both trees of an image get the package files and `env` of `portage.config`, and a stage4 ships `make.profile` as a directory.
#[test]
fn root_both_configurations_have_the_users_files_and_the_profile() {
    let Some(env) = TestEnv::root() else { return };
    // The stage3 has no cp.
    let script = "touch /quern/image/file; for file in package.use/zz-quern package.use/10-own env/theirs.conf env/ours.conf \
                  profile/package.provided profile/profile.bashrc profile/packages make.profile/parent; do \
                  for tree in /etc /quern/config/etc; do [ ! -e $tree/portage/$file ] || { \
                  out=/var/cache/distfiles$tree/$file; mkdir -p ${out%/*}; cat $tree/portage/$file > $out; }; done; done; true";
    let env = with_emerge(env, script);
    env.write("portage/package.use/10-own", "app-misc/hello nls # why\n");
    env.write("portage/package.env", "app-misc/hello theirs.conf ours.conf\n");
    env.write("portage/env/theirs.conf", "CFLAGS=\"-O0\"\n");
    let config = [
        "portage.config=portage",
        "portage.env.\"ours.conf\"={ CFLAGS = \"-O1\" }",
        "portage.package-provided=dev-lang/perl-5.40.0",
        "build.profile=[\"gentoo:default/linux/amd64/23.0\", \"default/linux/amd64/23.0/musl\"]",
        "build.profile-packages=[\"app-misc/hello\"]",
        "build.image-name=out",
        "build.compression=none",
    ];
    let build = |more: &[&str]| {
        let sets = config.iter().chain(more).flat_map(|set| ["--set", set]);
        env.run(["build", "tiny.toml"].into_iter().chain(sets)).success()
    };
    let told = build(&["build.unblocker-profile=gentoo:default/linux/amd64/23.0"]);
    let read = |path: &str| fs::read_to_string(env.store().join("cache/distfiles").join(path)).expect(path);
    assert_eq!(read("etc/package.use/zz-quern"), "app-misc/hello nls # why\n", "{told:?}");
    assert_eq!(read("quern/config/etc/package.use/10-own"), "app-misc/hello nls # why\n");
    for tree in ["etc", "quern/config/etc"] {
        assert_eq!(read(&format!("{tree}/env/theirs.conf")), "CFLAGS=\"-O0\"\n");
        assert_eq!(read(&format!("{tree}/env/ours.conf")), "CFLAGS=\"-O1\"\n");
        assert_eq!(read(&format!("{tree}/profile/package.provided")), "dev-lang/perl-5.40.0\n");
        assert!(read(&format!("{tree}/profile/profile.bashrc")).contains("export SOURCE_DATE_EPOCH="));
    }
    let parents = "gentoo:default/linux/amd64/23.0\ngentoo:default/linux/amd64/23.0/musl\n";
    assert_eq!(read("quern/config/etc/make.profile/parent"), parents);
    assert_eq!(read("quern/config/etc/profile/packages"), "app-misc/hello\n");

    let _ = build(&["build.kind=stage4", "emerge.packages=[\"app-misc/hello\"]"]);
    let tarball = env.outdir().join("out.tar");
    let content = |path: &str| output(Command::new("tar").arg("-xOf").arg(&tarball).arg(path)).success().stdout;
    assert_eq!(content("./etc/portage/make.profile/parent"), parents);
    assert_eq!(content("./etc/portage/make.profile/eapi"), "8\n");
    assert_eq!(content("./etc/portage/env/ours.conf"), "CFLAGS=\"-O1\"\n");
    let listed = output(Command::new("tar").arg("-tf").arg(&tarball)).success().stdout;
    assert!(!listed.contains("profile.bashrc"), "{listed}");
}
