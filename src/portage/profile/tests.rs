use proptest::prelude::*;

use super::walk::normal;
use super::*;
use crate::base::error::Kind;
use crate::portage::fixture::{World, profile_name};
use crate::recipe::{FuntooProfile, Origin, RepositorySpec};

fn resolve(world: &World, name: &str) -> Result<Profile> {
    Profile::resolve(&profile_name(name), &Repos::load(&world.usual()).unwrap())
}

#[test]
fn a_profile_has_the_packages_of_parents_in_two_repositories() {
    let profile = resolve(&World::new(), "quern:musl-python3").unwrap();
    assert_eq!(profile.packages(), ["dev-lang/python:3.11"]);
    assert_eq!(profile.system(), ["sys-apps/baselayout"]);
    assert_eq!(profile.to_string(), "quern:musl-python3");
    assert_eq!(profile.chost(), Some("x86_64-pc-linux-musl"));
    profile.require_packages().unwrap();
    assert!(profile.warnings().is_empty());
}

#[test]
fn the_main_repository_is_the_default() {
    let profile = resolve(&World::new(), "default/linux/amd64/23.0/").unwrap();
    assert_eq!(profile.to_string(), "gentoo:default/linux/amd64/23.0");
    assert_eq!(profile.system(), ["sys-apps/baselayout", "app-shells/bash"]);
}

#[test]
fn the_link_resolves_from_both_configuration_roots() {
    let profile = resolve(&World::new(), "quern:musl-python3").unwrap();
    for root in ["/", "/quern/config"] {
        let MakeProfile::Link(target) = profile.make_profile(root) else { panic!("a directory") };
        let from = Path::new(root).join("etc/portage").join(&target);
        assert_eq!(normal(&from).unwrap(), Path::new("/var/db/repos/quern/profiles/musl-python3"), "{root}");
        assert!(target.is_relative());
    }
    let link = "../../var/db/repos/quern/profiles/musl-python3";
    assert_eq!(profile.make_profile("/"), MakeProfile::Link(link.into()));
}

#[test]
fn names_that_lead_out_of_the_profiles_are_refused() {
    let world = World::new();
    for name in
        ["quern:", "quern:../..", "quern:/etc", "quern:a/../b", "quern:./musl-python3", "quern:a//b", "quern:a\nb"]
    {
        assert_eq!(resolve(&world, name).unwrap_err().kind(), Kind::Usage, "{name:?}");
    }
    std::os::unix::fs::symlink("/etc", world.path("repo-quern/profiles/evil")).unwrap();
    assert!(resolve(&world, "quern:evil").unwrap_err().to_string().contains("symlink out"));
}

#[test]
fn a_missing_profile_suggests_a_similar_one() {
    let world = World::new();
    let error = resolve(&world, "default/linux/amd64/23.0/mus").unwrap_err();
    assert_eq!(error.hint(), Some("did you mean gentoo:default/linux/amd64/23.0/musl?"));
    let error = resolve(&world, "quern:musl-pyton3").unwrap_err();
    assert_eq!(error.hint(), Some("did you mean quern:musl-python3?"));
    let error = resolve(&world, "absent:x").unwrap_err();
    assert_eq!(error.hint(), Some("portage.repositories contains: gentoo, quern"));
}

#[test]
fn an_empty_profile_set_explains_its_reason() {
    let world = World::new();
    let gentoo = world.usual().remove(0);
    let quern = world.repo("quern", "masters = gentoo\nprofile-formats = portage-2\n");
    let repos = Repos::load(&[gentoo, quern]).unwrap();
    let profile = Profile::resolve(&profile_name("quern:musl-python3"), &repos).unwrap();
    let error = profile.require_packages().unwrap_err();
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("emerge.packages = [")
            && hint.contains("profile-formats = portage-2 profile-set")
            && hint.contains("metadata/layout.conf"),
        "{hint}"
    );

    let world = World::new();
    world.usual();
    world.write("repo-quern/profiles/musl-python3/packages", "# nothing\n");
    let repos = Repos::load(&[world.directory("repo-gentoo"), world.directory("repo-quern")]).unwrap();
    let mut profile = Profile::resolve(&profile_name("quern:musl-python3"), &repos).unwrap();
    let error = profile.require_packages().unwrap_err();
    assert!(error.hint().unwrap().contains("profiles/musl-python3/packages"));
    // The main repository is synced, and not edited.
    let main = Profile::resolve(&profile_name("gentoo:default/linux/amd64/23.0"), &repos).unwrap();
    let hint = main.require_packages().unwrap_err().hint().unwrap().to_owned();
    assert!(hint.contains("emerge.packages = [") && !hint.contains("profiles/"), "{hint}");
    world.write("user/packages", "app-misc/hello\n*sys-libs/musl\n");
    profile.add_user_packages(&world.path("user")).unwrap();
    profile.require_packages().unwrap();
    assert_eq!(profile.system().last().unwrap(), "sys-libs/musl");
}

#[test]
fn later_profiles_remove_packages() {
    let world = World::new();
    let repos = world.usual();
    world.write("repo-quern/profiles/a/packages", "app-misc/one\napp-misc/two\n");
    world.write("repo-quern/profiles/b/parent", "../a\n");
    world.write("repo-quern/profiles/b/packages", "-app-misc/one\napp-misc/three\n");
    world.write("repo-quern/profiles/c/parent", ":b\n");
    world.write("repo-quern/profiles/c/packages", "-*\napp-misc/four\n");
    let repos = Repos::load(&repos).unwrap();
    let of = |name| Profile::resolve(&profile_name(name), &repos).unwrap().packages().to_vec();
    assert_eq!(of("quern:b"), ["app-misc/two", "app-misc/three"]);
    assert_eq!(of("quern:c"), ["app-misc/four"]);
}

#[test]
fn invalid_parents_are_errors_with_file_and_line() {
    let world = World::new();
    let repos = world.usual();
    let cases = [
        ("# one\n\n../nowhere\n", ":3: the parent ../nowhere does not exist"),
        ("absent:x\n", "portage.repositories does not contain"),
        ("gentoo:../../../etc\n", "leads out of its repository"),
        ("../../../../../../../../../etc\n", "not in a repository"),
        ("../../../elsewhere/profiles/x\n", "not in a repository"),
        ("/etc\n", "not in a repository"),
        ("# only a comment\n", "is empty"),
    ];
    for (parent, expected) in cases {
        world.write("repo-quern/profiles/bad/parent", parent);
        let repos = Repos::load(&repos).unwrap();
        let error = Profile::resolve(&profile_name("quern:bad"), &repos).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains(expected), "{parent:?}: {error}");
        assert!(error.to_string().contains("profiles/bad/parent"), "{error}");
    }
}

#[test]
fn parents_are_resolved_as_the_sandbox_sees_them() {
    let world = World::new();
    let repos = world.usual();
    // The directory is repo-gentoo on the host and gentoo inside the sandbox.
    world.write("repo-quern/profiles/inside/parent", "../../../gentoo/profiles/base\n");
    world.write("repo-quern/profiles/absolute/parent", "/var/db/repos/gentoo/profiles/base\n");
    world.write("repo-quern/profiles/host/parent", "../../../repo-gentoo/profiles/base\n");
    let repos = Repos::load(&repos).unwrap();
    for good in ["quern:inside", "quern:absolute"] {
        assert_eq!(Profile::resolve(&profile_name(good), &repos).unwrap().system().len(), 2);
    }
    assert!(Profile::resolve(&profile_name("quern:host"), &repos).is_err());
}

#[test]
fn a_cycle_of_parents_is_refused() {
    let world = World::new();
    let repos = world.usual();
    world.write("repo-quern/profiles/x/parent", "../y\n");
    world.write("repo-quern/profiles/y/parent", "../x\n");
    let error = Profile::resolve(&profile_name("quern:x"), &Repos::load(&repos).unwrap()).unwrap_err();
    assert!(error.to_string().contains("form a cycle"), "{error}");
}

#[test]
fn a_colon_in_a_parent_needs_portage_2() {
    let world = World::new();
    let gentoo = world.usual().remove(0);
    let quern = world.repo("quern", "masters = gentoo\n");
    let error =
        Profile::resolve(&profile_name("quern:musl-python3"), &Repos::load(&[gentoo, quern]).unwrap()).unwrap_err();
    assert!(error.to_string().contains("portage-2"), "{error}");
}

#[test]
fn a_deprecated_profile_is_a_warning() {
    let world = World::new();
    world.usual();
    world.write("repo-quern/profiles/musl-python3/deprecated", "quern:musl-python4\n\nbecause\n");
    let repos = Repos::load(&[world.directory("repo-gentoo"), world.directory("repo-quern")]).unwrap();
    let profile = Profile::resolve(&profile_name("quern:musl-python3"), &repos).unwrap();
    assert_eq!(
        profile.warnings(),
        ["the profile quern:musl-python3 is deprecated; its repository recommends quern:musl-python4"]
    );
}

/// The imitation of core-kit, and an overlay `own` with a mix-in.
fn kits(world: &World) -> Repos {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/profiles/repos/core-kit");
    let own = world.repo("own", "masters = core-kit\n");
    world.write("repo-own/profiles/profiles.ego.desc", r#"{"mix-ins": "mine"}"#);
    world.write("repo-own/profiles/mine/server/make.defaults", "USE=\"server\"\n");
    let core = RepositorySpec { origin: Origin::Location(core), ..own.clone() };
    Repos::load(&[core, own]).unwrap()
}

fn parts() -> FuntooProfile {
    FuntooProfile {
        arch: "x86-64bit".into(),
        build: Some("current".into()),
        subarch: Some("generic_64".into()),
        flavor: Some("core".into()),
        mix_ins: vec!["no-systemd".into(), "pure64".into(), "own:server".into()],
        kits: [("python-kit".to_owned(), "3.7-release".to_owned())].into(),
    }
}

#[test]
fn the_parts_of_a_funtoo_profile_become_its_parents() {
    let world = World::new();
    let repos = kits(&world);
    let profile = Profile::of(&ProfileSpec::Funtoo(parts()), &repos).unwrap();
    let expected = "core-kit:funtoo/1.0/linux-gnu/arch/x86-64bit\ncore-kit:funtoo/1.0/linux-gnu/build/current\n\
                    core-kit:funtoo/1.0/linux-gnu/arch/x86-64bit/subarch/generic_64\n\
                    core-kit:funtoo/1.0/linux-gnu/flavor/core\ncore-kit:funtoo/1.0/linux-gnu/mix-ins/no-systemd\n\
                    core-kit:funtoo/1.0/linux-gnu/arch/x86-64bit/mix-ins/pure64\nown:mine/server\n\
                    core-kit:funtoo/kits/python-kit/3.7-release\n";
    assert_eq!(profile.make_profile("/quern/config"), MakeProfile::Parents(expected.into()));
    assert_eq!(profile.system(), ["sys-apps/baselayout"]);
    assert!(profile.require_packages().is_err());
    // The same as a list, with an alias.
    let list = expected.lines().map(|line| profile_name(&line.replace("core-kit:", "gentoo:"))).collect();
    assert_eq!(Profile::of(&ProfileSpec::Parents(list), &repos).unwrap(), profile);
}

#[test]
fn an_unknown_part_suggests_a_similar_one() {
    let world = World::new();
    let repos = kits(&world);
    let refused = |change: fn(&mut FuntooProfile)| {
        let mut parts = parts();
        change(&mut parts);
        let error = Profile::of(&ProfileSpec::Funtoo(parts), &repos).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        format!("{error}; {}", error.hint().unwrap_or_default())
    };
    for (told, expected) in [
        (
            refused(|parts| parts.arch = "x86-64bits".into()),
            "core-kit has no arch ‘x86-64bits’; did you mean x86-64bit?",
        ),
        (refused(|parts| parts.flavor = Some("cor".into())), "core-kit has no flavor ‘cor’; did you mean core?"),
        (refused(|parts| parts.flavor = Some("desktop".into())), "no flavor ‘desktop’; known names: core, minimal"),
        (refused(|parts| parts.build = Some("..".into())), "no build ‘..’"),
        (
            refused(|parts| parts.mix_ins = vec!["no-systemdd".into()]),
            "no mix-in ‘no-systemdd’; did you mean no-systemd?",
        ),
        (refused(|parts| parts.mix_ins = vec!["owm:server".into()]), "unknown repository, ‘owm’"),
        (refused(|parts| drop(parts.kits.insert("python-kit".into(), "3.7".into()))), "known names: 3.7-release"),
    ] {
        assert!(told.contains(expected), "{told}");
    }
    world.write("repo-own/profiles/profiles.ego.desc", r#"{"mix-ins": "../../../etc"}"#);
    assert!(refused(|_| {}).contains("is not an object of paths"));
    let gentoo = Repos::load(&World::new().usual()).unwrap();
    let error = Profile::of(&ProfileSpec::Funtoo(parts()), &gentoo).unwrap_err();
    assert!(error.to_string().contains("no repository has the file profiles/profiles.ego.desc"), "{error}");
}

#[test]
fn each_deprecated_parent_is_a_warning() {
    let world = World::new();
    let repos = Repos::load(&world.usual()).unwrap();
    world.write("repo-gentoo/profiles/default/linux/amd64/23.0/deprecated", "new\n");
    let names = ["default/linux/amd64/23.0", "default/linux/amd64/23.0/musl"].map(profile_name);
    let profile = Profile::of(&ProfileSpec::Parents(names.into()), &repos).unwrap();
    assert_eq!(profile.warnings().len(), 1, "{:?}", profile.warnings());
    assert!(profile.warnings()[0].contains("gentoo:default/linux/amd64/23.0 is deprecated"));
}

proptest! {
    #[test]
    fn plain_paths_stay_below(path in "[a-z./\\n]{0,20}") {
        if let Some(plain) = plain_path(&path) {
            prop_assert!(normal(Path::new(&plain)).is_some_and(|out| out == Path::new(&plain)));
        }
    }

    #[test]
    fn any_parent_file_is_an_error_or_a_chain(text in "[a-z:./# \\n]{0,60}") {
        let world = World::new();
        let repos = Repos::load(&world.usual()).unwrap();
        world.write("repo-quern/profiles/fuzz/parent", &text);
        let _ = Profile::resolve(&profile_name("quern:fuzz"), &repos);
    }
}
