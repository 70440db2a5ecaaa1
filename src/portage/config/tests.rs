use super::*;
use crate::base::error::Kind;
use crate::base::time::SourceDate;
use crate::portage::accelerate::Tools;
use crate::portage::fixture::{World, job, profile_name};
use crate::recipe::ProfileSpec;
use crate::recipe::fixture::binhost;

const BUILDER: BuilderInfo = BuilderInfo { sandbox: true, cpus: 4, portage: None, date: None, tools: Tools::UNKNOWN };

fn seen<'a>(files: &'a [(&'a str, Seen)]) -> impl FnMut(&Path) -> Result<Option<Seen>> + 'a {
    move |path| Ok(files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, seen)| seen.clone()))
}

fn stage3() -> Existing {
    let profile = "../../var/db/repos/gentoo/profiles/default/linux/amd64/23.0/musl";
    Existing::gather(seen(&[
        (MAKE_CONF, Seen::File(b"COMMON_FLAGS=\"-O2 -pipe\"\nFEATURES=\"-sandbox\"".to_vec())),
        (MAKE_PROFILE, Seen::Symlink(profile.into())),
        (BINREPOS_CONF, Seen::Directory(vec!["gentoo.conf".into()])),
        ("etc/portage/binrepos.conf/gentoo.conf", Seen::File(b"[gentoo]\n".to_vec())),
        ("etc/portage/package.use", Seen::Directory(vec!["stage".into()])),
        ("etc/portage/package.mask", Seen::File(b"x/y\n".to_vec())),
    ]))
    .unwrap()
}

fn value<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"')).collect()
}

#[test]
fn the_configuration_of_the_target_is_complete() {
    let world = World::new();
    let mut job = job(world.usual());
    job.portage.make_conf.insert("CFLAGS".into(), "${COMMON_FLAGS} -g".into());
    job.portage.make_conf.insert("COMMON_FLAGS".into(), "-O3".into());
    job.portage.make_conf.insert("FEATURES".into(), "-nodoc test".into());
    job.portage.package_files.insert("package.use".into(), vec!["dev-lang/python -ncurses".into(), "a/b c".into()]);
    let resolved = Resolved::new(&job).unwrap();
    let tree = target(&job, &resolved, &BUILDER, &Existing::default()).unwrap();
    let text = tree.text(MAKE_CONF).unwrap();
    assert_eq!(value(text, "ROOT"), ["/quern/image"]);
    assert_eq!(value(text, "PKGDIR"), ["/var/cache/binpkgs"]);
    assert_eq!(value(text, "MAKEOPTS"), ["-j4"]);
    assert_eq!(value(text, "GENTOO_MIRRORS"), ["https://mirror.example/gentoo https://other.example"]);
    assert_eq!(value(text, "EMERGE_DEFAULT_OPTS"), [""]);
    let features = value(text, "FEATURES");
    assert!(features[0].contains("buildpkg binpkg-multi-instance") && features[0].contains(" nodoc noman noinfo"));
    assert!(!features[0].split(' ').any(|word| word == "-sandbox"));
    assert_eq!(features[1], "${FEATURES} -nodoc test");
    assert!(text.find("COMMON_FLAGS=").unwrap() < text.find("\nCFLAGS=").unwrap());
    assert_eq!(value(text, "CFLAGS"), ["${COMMON_FLAGS} -g"]);
    assert_eq!(value(text, "CXXFLAGS"), ["${COMMON_FLAGS}"]);
    assert_eq!(
        tree.entries[Path::new(MAKE_PROFILE)],
        Entry::Symlink("../../../../var/db/repos/quern/profiles/musl-python3".into())
    );
    assert!(tree.text("etc/portage/repos.conf/quern.conf").unwrap().contains("main-repo = gentoo"));
    assert_eq!(tree.text("etc/portage/package.use/zz-quern").unwrap(), "dev-lang/python -ncurses\na/b c\n");
    let shared = "[quern-shared]\npriority = 9999\nsync-uri = file:///quern/index/image\n\
                  location = /quern/shared\nverify-signature = false\n";
    assert_eq!(tree.text("etc/portage/binrepos.conf/quern-shared.conf"), Some(shared));
    assert_eq!(tree.entries.keys().filter(|path| path.starts_with(BINREPOS_CONF)).count(), 1);
    assert!(tree.remove.contains(Path::new(BINREPOS_CONF)), "hosts that the recipe did not ask for");
}

#[test]
fn the_configuration_of_the_builder_keeps_that_of_the_stage3() {
    let world = World::new();
    let mut job = job(world.usual());
    job.portage.package_files.insert("package.use".into(), vec!["a/b c".into()]);
    job.portage.package_files.insert("package.mask".into(), vec![">d/e-1".into()]);
    job.portage.binhost = vec![binhost("https://one.example"), binhost("https://two.example")];
    let facts = BuilderInfo { sandbox: false, ..BUILDER };
    let tree = builder(&job, &Resolved::new(&job).unwrap(), &facts, &stage3()).unwrap();
    let text = tree.text(MAKE_CONF).unwrap();
    assert!(text.starts_with("COMMON_FLAGS=\"-O2 -pipe\"\nFEATURES=\"-sandbox\"\n\n# Written"));
    assert!(value(text, "ROOT").is_empty());
    assert_eq!(value(text, "PKGDIR"), ["/var/cache/binpkgs-builder"]);
    let features = value(text, "FEATURES")[1];
    assert!(features.starts_with("${FEATURES} ") && features.ends_with("-sandbox -usersandbox"));
    assert!(!features.contains("nodoc"));
    assert_eq!(
        tree.entries[Path::new(MAKE_PROFILE)],
        Entry::Symlink("../../var/db/repos/gentoo/profiles/default/linux/amd64/23.0/musl".into())
    );
    assert_eq!(tree.text("etc/portage/package.use/zz-quern").unwrap(), "a/b c\n");
    assert_eq!(tree.text("etc/portage/package.mask").unwrap(), "x/y\n\n>d/e-1\n");
    assert!(tree.remove.contains(Path::new(BINREPOS_CONF)) && tree.remove.contains(Path::new(REPOS_CONF)));
    let hosts = tree.text("etc/portage/binrepos.conf/quern.conf").unwrap();
    assert!(hosts.contains("[quern-1]\npriority = 2\nsync-uri = file:///quern/binhost/1\n"), "{hosts}");
    assert!(text.ends_with("FEATURES=\"${FEATURES} -binpkg-ignore-signature\"\n"), "{text}");
}

#[test]
fn the_configuration_of_a_host_applies_only_to_the_builder() {
    let world = World::new();
    let mut job = job(world.usual());
    job.source.base = BaseSpec::Host { hide: Vec::new(), show: Vec::new() };
    let resolved = Resolved::new(&job).unwrap();
    let tree = builder(&job, &resolved, &BUILDER, &stage3()).unwrap();
    let features = value(tree.text(MAKE_CONF).unwrap(), "FEATURES");
    assert!(features[0] == "-sandbox" && features[1].contains("-binpkg-signing"), "{features:?}");
    assert!(features[2].contains("buildpkg"));
    let text = format!("{:?}", target(&job, &resolved, &BUILDER, &Existing::default()).unwrap());
    assert!(!text.contains("binpkg-signing") && !text.contains("-O2"), "{text}");
    let error = builder(&job, &resolved, &BUILDER, &Existing::default()).unwrap_err();
    assert!(error.to_string().contains("the host has no profile") && error.hint().unwrap().contains("source.show"));
}

#[test]
fn a_stage4_is_built_with_the_recipes_profile_and_shipped_without_the_sandbox() {
    let world = World::new();
    let mut job = job(world.usual());
    job.build.kind = TreeKind::Stage4;
    job.portage.make_conf.insert("FEATURES".into(), "splitdebug".into());
    let resolved = Resolved::new(&job).unwrap();
    let tree = builder(&job, &resolved, &BUILDER, &stage3()).unwrap();
    let text = tree.text(MAKE_CONF).unwrap();
    assert_eq!(value(text, "PKGDIR"), ["/var/cache/binpkgs"]);
    assert!(value(text, "FEATURES")[1].ends_with("nodoc noman noinfo"));
    let link = Entry::Symlink("../../var/db/repos/quern/profiles/musl-python3".into());
    assert_eq!(tree.entries[Path::new(MAKE_PROFILE)], link);

    let tree = shipped(&job, &resolved, &stage3()).unwrap();
    assert_eq!(
        tree.text(MAKE_CONF).unwrap(),
        "COMMON_FLAGS=\"-O2 -pipe\"\nFEATURES=\"-sandbox\"\n\nFEATURES=\"${FEATURES} splitdebug\"\n"
    );
    assert_eq!(tree.entries[Path::new(MAKE_PROFILE)], link);
    assert_eq!(tree.text("etc/portage/binrepos.conf/gentoo.conf").unwrap(), "[gentoo]\n");
    assert!(tree.text("etc/portage/repos.conf/quern.conf").unwrap().contains("[quern]"));
    let all = format!("{:?}", tree.entries);
    for inside in ["/quern/image", "/quern/config", "PKGDIR", "DISTDIR", "binpkgs", "LOG"] {
        assert!(!all.contains(inside), "{inside}: {all}");
    }
}

#[test]
fn a_stage4_without_variables_ships_the_stage3s_make_conf_as_it_was() {
    let world = World::new();
    let mut job = job(world.usual());
    job.build.kind = TreeKind::Stage4;
    let resolved = Resolved::new(&job).unwrap();
    let tree = shipped(&job, &resolved, &stage3()).unwrap();
    assert_eq!(tree.text(MAKE_CONF).unwrap(), "COMMON_FLAGS=\"-O2 -pipe\"\nFEATURES=\"-sandbox\"");
    let tree = shipped(&job, &resolved, &Existing::default()).unwrap();
    assert_eq!(tree.text(MAKE_CONF), Some(""));
}

#[test]
fn helpers_of_compilers_are_in_both_configurations_and_not_shipped() {
    let world = World::new();
    let mut job = job(world.usual());
    job.accelerate.ccache = Some(crate::recipe::Ccache::default());
    job.accelerate.jobserver = Jobserver::Jobs(2);
    let tools = Tools::parse(b"GNU Make 4.4\n/usr/libexec/cc1\n", &job, 4);
    let facts = BuilderInfo { portage: Some([3, 0, 83]), tools, ..BUILDER };
    let resolved = Resolved::new(&job).unwrap();
    let of_builder = builder(&job, &resolved, &facts, &stage3()).unwrap();
    assert_eq!(of_builder.text("etc/sandbox.d/90quern"), Some("SANDBOX_WRITE=\"/run/quern-jobs\"\n"));
    for tree in [of_builder, target(&job, &resolved, &facts, &Existing::default()).unwrap()] {
        let text = tree.text(MAKE_CONF).unwrap();
        for line in [
            "MAKEOPTS=\"\"",
            "MAKEFLAGS=\"--jobserver-auth=fifo:/run/quern-jobs\"",
            "CCACHE_DIR=\"/var/cache/ccache\"",
            "CCACHE_COMPILERCHECK=\"content\"",
            "CCACHE_EXTRAFILES=\"/usr/libexec/cc1\"",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let features = text.lines().rfind(|line| line.starts_with("FEATURES")).unwrap();
        assert!(features.ends_with(" ccache jobserver-token\""), "{features}");
    }
    job.build.kind = TreeKind::Stage4;
    let tree = shipped(&job, &resolved, &stage3()).unwrap();
    assert!(!tree.text(MAKE_CONF).unwrap().contains("CCACHE"));
    assert!(tree.remove.contains(Path::new("etc/sandbox.d/90quern")));
}

#[test]
fn a_directory_gets_a_file_of_ours() {
    let world = World::new();
    let mut job = job(world.usual());
    job.build.kind = TreeKind::Stage4;
    let existing = Existing::gather(seen(&[(MAKE_CONF, Seen::Directory(Vec::new()))])).unwrap();
    let resolved = Resolved::new(&job).unwrap();
    let tree = builder(&job, &resolved, &BUILDER, &existing).unwrap();
    assert!(tree.text("etc/portage/make.conf/zz-quern").unwrap().contains("PKGDIR"));
    let tree = shipped(&job, &resolved, &existing).unwrap();
    assert_eq!(tree.text("etc/portage/make.conf/zz-quern"), Some(""));
}

#[test]
fn the_profile_of_the_stage3_is_found_or_named_in_the_error() {
    let world = World::new();
    let mut job = job(world.usual());
    let resolved = Resolved::new(&job).unwrap();
    let with = |target: &str| Existing::gather(seen(&[(MAKE_PROFILE, Seen::Symlink(target.into()))])).unwrap();
    let old = builder(&job, &resolved, &BUILDER, &with("../../usr/portage/profiles/default/linux/amd64/23.0")).unwrap();
    assert_eq!(
        old.entries[Path::new(MAKE_PROFILE)],
        Entry::Symlink("../../var/db/repos/gentoo/profiles/default/linux/amd64/23.0".into())
    );
    for target in ["../../var/db/repos/gentoo/profiles/gone", "/etc", "../../a/profiles/../../../etc"] {
        let error = builder(&job, &resolved, &BUILDER, &with(target)).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.hint().unwrap().contains("unblocker-profile"), "{error}");
    }
    assert!(builder(&job, &resolved, &BUILDER, &Existing::default()).is_err());
    job.build.unblocker_profile = Some(profile_name("default/linux/amd64/23.0"));
    let resolved = Resolved::new(&job).unwrap();
    let tree = builder(&job, &resolved, &BUILDER, &Existing::default()).unwrap();
    assert_eq!(tree.entries[Path::new(MAKE_PROFILE)], old.entries[Path::new(MAKE_PROFILE)]);
}

#[test]
fn every_phase_gets_the_date_and_a_stage4_does_not_ship_it() {
    let world = World::new();
    let mut job = job(world.usual());
    job.build.kind = TreeKind::Stage4;
    let resolved = Resolved::new(&job).unwrap();
    let facts = BuilderInfo { date: Some(SourceDate::new(1_700_000_000)), ..BUILDER };
    let with = |job: &Job, existing: &Existing| builder(job, &resolved, &facts, existing).unwrap();
    assert_eq!(builder(&job, &resolved, &BUILDER, &stage3()).unwrap().text(BASHRC), None);
    assert_eq!(with(&job, &stage3()).text(BASHRC), Some("export SOURCE_DATE_EPOCH=1700000000\n"));
    let tree = shipped(&job, &resolved, &stage3()).unwrap();
    assert!(tree.remove.contains(Path::new("etc/portage/profile")) && tree.text(BASHRC).is_none());

    let own = [
        ("etc/portage/profile", Seen::Directory(vec!["profile.bashrc".into()])),
        (BASHRC, Seen::File(b"own\n".to_vec())),
    ];
    let own = Existing::gather(seen(&own)).unwrap();
    job.build.unblocker_profile = Some(profile_name("default/linux/amd64/23.0"));
    assert_eq!(with(&job, &own).text(BASHRC), Some("own\n\nexport SOURCE_DATE_EPOCH=1700000000\n"));
    let tree = shipped(&job, &resolved, &own).unwrap();
    assert!(!tree.remove.contains(Path::new("etc/portage/profile")));
    assert_eq!(tree.text(BASHRC), Some("own\n"));

    job.portage.make_conf.insert("SOURCE_DATE_EPOCH".into(), "1".into());
    assert_eq!(with(&job, &own).text(BASHRC), None);
}

#[test]
fn package_files_of_the_users_directory_and_env_files_reach_both_trees() {
    let world = World::new();
    let mut job = job(world.usual());
    job.portage.config_files.insert("package.use".into(), vec!["a/b x".into()]);
    job.portage.package_files.insert("package.use".into(), vec!["a/b -x".into()]);
    let variables = [("COMMON_FLAGS".to_owned(), "-O0".to_owned())];
    job.portage.env.insert("debug.conf".into(), variables.into());
    let resolved = Resolved::new(&job).unwrap();
    let builder = builder(&job, &resolved, &BUILDER, &stage3()).unwrap();
    assert_eq!(builder.text("etc/portage/package.use/zz-quern"), Some("a/b x\na/b -x\n"));
    // The directory itself lies in the image's configuration and in that of a stage4.
    let target = target(&job, &resolved, &BUILDER, &Existing::default()).unwrap();
    assert_eq!(target.text("etc/portage/package.use/zz-quern"), Some("a/b -x\n"));
    job.build.kind = TreeKind::Stage4;
    let shipped = shipped(&job, &resolved, &stage3()).unwrap();
    assert_eq!(shipped.text("etc/portage/package.use/zz-quern"), Some("a/b -x\n"));
    for tree in [builder, target, shipped] {
        let text = tree.text("etc/portage/env/debug.conf").unwrap();
        assert!(text.starts_with("COMMON_FLAGS=\"-O0\"\nCFLAGS=\"${COMMON_FLAGS}\"\n"), "{text}");
    }
    job.portage.env.insert("x".into(), [("PKGDIR".to_owned(), "/".to_owned())].into());
    assert!(check(&job).is_ok() && crate::portage::makeconf::check(&job).is_err());
}

#[test]
fn a_profile_of_several_parents_is_a_directory_in_every_configuration() {
    let world = World::new();
    let mut job = job(world.usual());
    let parents = ["gentoo:default/linux/amd64/23.0", "quern:musl-python3"];
    job.build.profile = ProfileSpec::Parents(parents.map(profile_name).into());
    job.build.profile_packages = vec!["app-misc/hello".into()];
    job.build.kind = TreeKind::Stage4;
    let resolved = Resolved::new(&job).unwrap();
    assert_eq!(resolved.profile.packages(), ["dev-lang/python:3.11", "app-misc/hello"]);
    let trees = [
        target(&job, &resolved, &BUILDER, &Existing::default()).unwrap(),
        builder(&job, &resolved, &BUILDER, &stage3()).unwrap(),
        shipped(&job, &resolved, &stage3()).unwrap(),
    ];
    for tree in trees {
        let make_profile = Path::new(MAKE_PROFILE);
        assert!(tree.remove.contains(make_profile));
        assert_eq!(
            tree.text(make_profile.join("parent")),
            Some("gentoo:default/linux/amd64/23.0\nquern:musl-python3\n")
        );
        assert_eq!(tree.text(make_profile.join("eapi")), Some("8\n"));
        assert_eq!(tree.text("etc/portage/profile/packages"), Some("app-misc/hello\n"));
    }
}

#[test]
fn package_provided_belongs_to_the_profile_directory() {
    let world = World::new();
    let mut job = job(world.usual());
    job.portage.package_files.insert("package.provided".into(), vec!["dev-lang/perl-5.40.0".into()]);
    let tree = target(&job, &Resolved::new(&job).unwrap(), &BUILDER, &Existing::default()).unwrap();
    assert_eq!(tree.text("etc/portage/profile/package.provided"), Some("dev-lang/perl-5.40.0\n"));
}

#[test]
fn values_that_cannot_be_written_are_refused_before_any_download() {
    let world = World::new();
    let bad = |change: fn(&mut Job)| {
        let mut job = job(world.usual());
        change(&mut job);
        let error = Resolved::new(&job).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error}");
    };
    bad(|job| drop(job.portage.package_files.insert("../../evil".into(), Vec::new())));
    bad(|job| drop(job.portage.package_files.insert("package.use".into(), vec!["a/b \x1b[0m".into()])));
    bad(|job| job.source.mirrors.push("http://x y".into()));
    bad(|job| drop(job.portage.make_conf.insert("ROOT".into(), "/".into())));
    bad(|job| job.build.profile = ProfileSpec::Named(profile_name("quern:nothing")));
    bad(|job| job.emerge.packages.push("--unmerge".into()));
}

#[test]
fn existing_files_that_are_not_text_are_refused() {
    let error = Existing::gather(seen(&[(MAKE_CONF, Seen::File(vec![0xff]))])).unwrap_err();
    assert_eq!(error.kind(), Kind::Build);
}
