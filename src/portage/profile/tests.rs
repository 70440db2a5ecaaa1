use proptest::prelude::*;

use super::*;
use crate::portage::fixture::{World, profile_name};

fn resolve(world: &World, name: &str) -> Result<Profile> {
    Profile::resolve(&profile_name(name), &Repos::load(&world.usual()).unwrap())
}

#[test]
fn a_chain_over_two_repositories_gives_packages_and_machine() {
    let profile = resolve(&World::new(), "quern:musl-python3").unwrap();
    assert_eq!(profile.packages(), ["dev-lang/python:3.11"]);
    assert_eq!(profile.system(), ["sys-apps/baselayout"]);
    assert_eq!(profile.arch(), Some("amd64"));
    assert_eq!(profile.chost(), Some("x86_64-pc-linux-musl"));
    assert_eq!(profile.architecture().unwrap().name, "amd64");
    assert_eq!(profile.to_string(), "quern:musl-python3");
    profile.require_packages().unwrap();
    assert!(profile.warnings().is_empty());
}

#[test]
fn the_main_repository_is_the_default() {
    let profile = resolve(&World::new(), "default/linux/amd64/23.0/").unwrap();
    assert_eq!((profile.repo(), profile.path()), ("gentoo", "default/linux/amd64/23.0"));
    assert_eq!(profile.system(), ["sys-apps/baselayout", "app-shells/bash"]);
}

#[test]
fn the_link_resolves_from_both_configuration_roots() {
    let profile = resolve(&World::new(), "quern:musl-python3").unwrap();
    for root in ["/", "/quern/config"] {
        let target = profile.link_target(root);
        let from = Path::new(root).join("etc/portage").join(&target);
        assert_eq!(normal(&from).unwrap(), Path::new("/var/db/repos/quern/profiles/musl-python3"), "{root}");
        assert!(target.is_relative());
    }
    assert_eq!(profile.link_target("/"), Path::new("../../var/db/repos/quern/profiles/musl-python3"));
}

#[test]
fn names_that_leave_the_profiles_are_refused() {
    let world = World::new();
    for name in
        ["quern:", "quern:../..", "quern:/etc", "quern:a/../b", "quern:./musl-python3", "quern:a//b", "quern:a\nb"]
    {
        assert_eq!(resolve(&world, name).unwrap_err().kind(), Kind::Usage, "{name:?}");
    }
    std::os::unix::fs::symlink("/etc", world.path("repo-quern/profiles/evil")).unwrap();
    assert!(resolve(&world, "quern:evil").unwrap_err().to_string().contains("link out"));
}

#[test]
fn a_missing_profile_suggests_a_near_one() {
    let world = World::new();
    let error = resolve(&world, "default/linux/amd64/23.0/mus").unwrap_err();
    assert_eq!(error.hint(), Some("did you mean gentoo:default/linux/amd64/23.0/musl?"));
    let error = resolve(&world, "quern:musl-pyton3").unwrap_err();
    assert_eq!(error.hint(), Some("did you mean quern:musl-python3?"));
    let error = resolve(&world, "absent:x").unwrap_err();
    assert_eq!(error.hint(), Some("portage.repositories has: gentoo, quern"));
}

#[test]
fn an_empty_profile_set_says_which_of_two_reasons_it_is() {
    let world = World::new();
    let gentoo = world.usual().remove(0);
    let quern = world.repo("quern", "masters = gentoo\nprofile-formats = portage-2\n");
    let repos = Repos::load(&[gentoo, quern]).unwrap();
    let profile = Profile::resolve(&profile_name("quern:musl-python3"), &repos).unwrap();
    let error = profile.require_packages().unwrap_err();
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("profile-formats = portage-2 profile-set") && hint.contains("metadata/layout.conf"),
        "{hint}"
    );

    let world = World::new();
    world.usual();
    world.write("repo-quern/profiles/musl-python3/packages", "# nothing\n");
    let repos = Repos::load(&[world.directory("repo-gentoo"), world.directory("repo-quern")]).unwrap();
    let mut profile = Profile::resolve(&profile_name("quern:musl-python3"), &repos).unwrap();
    let error = profile.require_packages().unwrap_err();
    assert!(error.hint().unwrap().contains("profiles/musl-python3/packages"));
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
fn bad_parents_are_errors_with_file_and_line() {
    let world = World::new();
    let repos = world.usual();
    let cases = [
        ("# one\n\n../nowhere\n", ":3: the parent ../nowhere does not exist"),
        ("absent:x\n", "not among portage.repositories"),
        ("gentoo:../../../etc\n", "leaves its repository"),
        ("../../../../../../../../../etc\n", "in no repository"),
        ("../../../elsewhere/profiles/x\n", "in no repository"),
        ("/etc\n", "in no repository"),
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
fn parents_are_looked_for_where_the_sandbox_has_them() {
    let world = World::new();
    let repos = world.usual();
    // On the host the directory is called repo-gentoo; inside the sandbox it is gentoo.
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
fn circles_end() {
    let world = World::new();
    let repos = world.usual();
    world.write("repo-quern/profiles/x/parent", "../y\n");
    world.write("repo-quern/profiles/y/parent", "../x\n");
    let error = Profile::resolve(&profile_name("quern:x"), &Repos::load(&repos).unwrap()).unwrap_err();
    assert!(error.to_string().contains("in a circle"), "{error}");
}

#[test]
fn colons_need_portage_2() {
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

#[test]
fn architectures_are_gos() {
    let of = |arch, chost| architecture(arch, chost).map(|found| (found.name, found.variant));
    assert_eq!(of("amd64", ""), Some(("amd64", None)));
    assert_eq!(of("x86", "i686-pc-linux-gnu"), Some(("386", None)));
    assert_eq!(of("arm", "armv7a-unknown-linux-gnueabihf"), Some(("arm", Some("v7"))));
    assert_eq!(of("arm", "armé"), Some(("arm", None)));
    assert_eq!(of("arm64", "aarch64-unknown-linux-gnu"), Some(("arm64", Some("v8"))));
    assert_eq!(of("riscv", "riscv64-unknown-linux-gnu"), Some(("riscv64", None)));
    assert_eq!(of("ppc64", "powerpc64le-unknown-linux-gnu"), Some(("ppc64le", None)));
    assert_eq!(of("s390", "s390x-ibm-linux-gnu"), Some(("s390x", None)));
    assert_eq!(of("mips", "mips64el-unknown-linux-gnuabi64"), Some(("mips64le", None)));
    assert_eq!(of("loong", ""), Some(("loong64", None)));
    assert_eq!(of("hppa", ""), None);
}

#[test]
fn variables_are_scanned_simply() {
    let mut found = BTreeMap::new();
    scan_variables("ARCH='arm'\nCHOST=\"${ARCH}\"\n#ARCH=x\nARCH = y\nCHOST=\"$(evil)\"\n", &mut found);
    assert_eq!(found["ARCH"], "arm");
    assert_eq!(found["CHOST"], "arm");
}

proptest! {
    #[test]
    fn scanning_never_panics_and_takes_plain_words_only(text in any::<String>()) {
        let mut found = BTreeMap::new();
        scan_variables(&text, &mut found);
        prop_assert!(found.values().all(|value| !value.contains(char::is_control)));
    }

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
