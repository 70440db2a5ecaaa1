//! Mistakes in recipes and repositories that are reported before anything is downloaded, also by a dry run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::env::TestEnv;

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
