//! The tree `profiles/kantoo`: packages become a repository of eit, from which equo installs a stage4. Neither is here. The overlay
//! `tests/overlays/standin` has a small tool that takes their command lines, and another one has small packages.

use std::fs;
use std::path::{Path, PathBuf};

use super::examples::{content, copy, listed, replace};
use super::kits::{commit, git_server};
use super::{EPOCH, Stand, ask, text};
use crate::env::{Output, Privilege, Server};

/// The packages: their names, the services that they install, and more lines of their ebuilds.
const PACKAGES: [(&str, &[&str], &str); 15] = [
    ("sys-kernel/debian-sources-lts", &[], ""),
    ("sys-kernel/linux-firmware", &[], ""),
    ("app-admin/sudo", &[], ""),
    ("dev-util/bsdiff", &[], ""),
    // The keywords of Funtoo's ebuilds.
    ("app-editors/vim", &[], "KEYWORDS=\"*\""),
    ("app-admin/metalog", &["metalog"], ""),
    ("net-dns/avahi", &["avahi-daemon", "avahi-dnsconfd"], "RDEPEND=\"|| ( sys-apps/none sys-apps/dbus )\""),
    ("net-misc/chrony", &["chronyd"], "RDEPEND=\"!net-misc/ntp\""),
    ("net-misc/networkmanager", &["NetworkManager"], "IUSE=\"+dhcp\"\nRDEPEND=\"dhcp? ( net-misc/dhcpcd )\""),
    ("net-misc/dhcpcd", &["dhcpcd"], ""),
    ("sys-apps/dbus", &["dbus"], "RDEPEND=\">=sys-apps/openrc-2\""),
    ("sys-apps/openrc", &["hwclock", "swclock"], ""),
    ("sys-auth/nss-mdns", &[], "RDEPEND=\"net-dns/avahi\"\nPDEPEND=\"app-misc/mime-types\""),
    ("net-wireless/hostapd", &[], ""),
    ("net-fs/nfs-utils", &[], "pkg_postinst() {\n\techo ran > \"${EROOT}\"/etc/nfs-utils || die\n}"),
];

/// Steps of the first image. The stage3 has the sources of a kernel and an old package. Everything in it is wanted: it is not Gentoo.
const STAGE3: &str = r#"
[[step]]
name = "world"
at = "start"
run = "ls -d /var/db/pkg/*/* | sed 's|^/var/db/pkg/||; s/-[0-9].*//' > /var/lib/portage/world"
[[step]]
name = "old"
at = "before-packages"
emerge = ["=sys-apps/openrc-1", "sys-kernel/debian-sources-lts"]
"#;

/// The last image of the tree.
const STAGE4: &str = "stage3/build-binaries/build-repo/stage4";

/// Makes a stand with the two overlays, and a copy of the tree for this machine. Returns its directory.
fn tree(stand: Stand) -> (Stand, PathBuf, Server) {
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    let mut categories = String::new();
    for (package, services, more) in PACKAGES {
        let (category, name) = package.split_once('/').unwrap();
        categories.push_str(&format!("{category}\n"));
        let script = |name: &&str| format!("\tnewexe - {name} <<<'#!/sbin/openrc-run'\n");
        let scripts: String = services.iter().map(script).collect();
        let body = format!(
            "{more}\nsrc_install() {{\n\texeinto /etc/init.d\n{scripts}\tinsinto /usr/share/own\n\tnewins - ${{PN}} <<<\"${{PF}}\"\n}}\n"
        );
        stand.ebuild(category, name, &body);
    }
    stand.env.write("overlay/profiles/categories", categories);
    let newer = fs::read(overlay.join("sys-apps/openrc/openrc-1.ebuild")).unwrap();
    stand.env.write("overlay/sys-apps/openrc/openrc-2.ebuild", newer);
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/overlays/standin");
    let mut stand = stand.with_repositories(&[&overlay, &tool]);
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    stand.env.set("QUERN_BUILD_OUTDIR", stand.env.outdir());
    // The stand-in's stage3 of Funtoo is one for this machine.
    let server = Server::start(&stand.world.path("funtoo"));
    stand.env.set("QUERN_SOURCE_MIRRORS", format!("[{:?}]", server.url()));
    stand.env.set("QUERN_SOURCE_SUBARCH", "generic_64").set("QUERN_SOURCE_MAX_AGE", "3650");
    stand.env.set("QUERN_BUILD_PROFILE", "gentoo:default/linux/amd64/23.0");
    let tree = copy(&stand, "kantoo");
    let stage3 = tree.join("stage3/quern.toml");
    fs::write(&stage3, fs::read_to_string(&stage3).unwrap() + STAGE3).unwrap();
    (stand, tree, server)
}

#[test]
fn userns_the_tree_of_kantoo_installs_from_the_repository_that_it_makes() {
    let Some(stand) = Stand::sharing(Privilege::Userns) else { return };
    let (stand, tree, _server) = tree(stand);
    let forge = tempfile::tempdir().unwrap();
    for path in ["firmware/boot/bootcode.bin", "firmware/modules/6.6/x.ko"] {
        fs::create_dir_all(forge.path().join(path).parent().unwrap()).unwrap();
        fs::write(forge.path().join(path), path).unwrap();
    }
    let firmware = commit(&forge.path().join("firmware"));
    let url = git_server::serve(forge.path().to_owned(), std::sync::Arc::default());
    let stage4 = tree.join(STAGE4);
    replace(&stage4.join("quern.toml"), "https://github.com/raspberrypi", &url);
    replace(&stage4.join("quern.toml"), "9f24f4bc2bdd07ffd158cfbb4bce88a2efc4c1f5", &firmware);
    let build = || {
        let options = ["--answer", "root-password=correct horse", "--set", "step.install_firmware.skip=false"];
        stand.env.run([&["build", text(&stage4)][..], &options].concat()).success()
    };
    let built = build();
    let [tarball, boot] = &built.results()[..] else { panic!("{}", built.stdout) };
    assert!(tarball.ends_with(format!("kantoo/{STAGE4}-2023-11-14.tar.gz")), "{}", tarball.display());
    the_packages_are_those_of_the_builder(&stand, &tree);
    the_stage4_has_what_equo_installed(tarball);
    assert!(listed(boot).iter().any(|file| file.ends_with("/bootcode.bin")));

    damaged_packages_are_refused(&stand, &tree);
    other_command_lines_are_refused(&stand, &tree);
    let again = build();
    assert!(again.stderr.contains("steps are cached") && !again.stderr.contains("running"), "{}", again.stderr);
}

/// Checks the volumes of the image that makes the repository.
#[track_caller]
fn the_packages_are_those_of_the_builder(stand: &Stand, tree: &Path) {
    let image = tree.join("stage3/build-binaries/build-repo");
    let to = stand.env.path("packages");
    let _ = stand.env.run(["volume", "export", text(&image), "packages", text(&to)]).success();
    let found = ask("find", &[text(&to), "-name", "*.tbz2", "-printf", "%P\n"]);
    let mut names: Vec<&str> = found.lines().collect();
    names.sort_unstable();
    for name in ["app-editors/vim-1", "sys-apps/openrc-2", "app-admin/equo-1", "app-misc/mime-types-2.1.54"] {
        assert!(names.contains(&&*format!("{name}.tbz2")), "{name}: {names:?}");
    }
    assert!(
        !found.contains("openrc-1") && !found.contains("debian-sources") && !found.contains("app-shells"),
        "{found}"
    );
    let pushed = stand.env.run(["log", text(&image), "push"]).success().stdout;
    let expected = format!("pushed {} packages to /entropy/artifacts/testing.kantoo.org\n", names.len());
    assert!(pushed.ends_with(&expected), "{pushed}");
}

/// Checks the tarball of the stage4.
#[track_caller]
fn the_stage4_has_what_equo_installed(tarball: &Path) {
    let files = listed(tarball);
    let has = |path: &str| files.iter().any(|file| file.strip_prefix("./") == Some(path));
    for service in ["dhcpcd", "dbus", "chronyd", "NetworkManager", "metalog", "avahi-daemon", "avahi-dnsconfd"] {
        assert!(has(&format!("etc/runlevels/default/{service}")), "{service}: {files:?}");
    }
    assert!(has("etc/runlevels/boot/swclock") && has("usr/lib/modules/6.6/x.ko"), "{files:?}");
    // Portage knows the packages, also those that others need, and ran their phases. The old one was upgraded.
    for package in
        ["app-editors/vim-1", "net-misc/dhcpcd-1", "sys-apps/dbus-1", "app-misc/mime-types-2.1.54", "sys-apps/openrc-2"]
    {
        assert!(has(&format!("var/db/pkg/{package}/CONTENTS")), "{package}: {files:?}");
    }
    assert_eq!(content(tarball, "etc/nfs-utils"), "ran\n");
    // Neither the builder's packages nor what was removed from the stage3.
    for package in ["app-admin/sudo-1", "dev-util/bsdiff-1", "sys-kernel/debian-sources-lts-1", "sys-apps/openrc-1"] {
        assert!(!has(&format!("var/db/pkg/{package}/")), "{package}");
    }
    let installed = content(tarball, "var/lib/entropy/client/database/installed");
    assert!(installed.contains("\nsys-apps/dbus-1\n"), "{installed}");
    for path in ["var/lib/entropy/client/packages/", "entropy/", "portage/", "quern/", "boot/bootcode.bin"] {
        assert!(!has(path), "{path}");
    }
    let repository = content(tarball, "etc/entropy/repositories.conf.d/entropy_testing.kantoo.org");
    assert!(
        repository.contains("[testing.kantoo.org]\ndesc = Funtoo on RPI3!\nrepo = file:///entropy/artifacts\n"),
        "{repository}"
    );
    assert_eq!(content(tarball, "etc/hostname"), "stage4\n");
    assert_eq!(content(tarball, "etc/kantoo-release"), "###KANTOO###\n");
    assert!(content(tarball, "etc/shadow").starts_with("root:$6$"));
    assert!(content(tarball, "etc/fstab").contains("/dev/mmcblk0p2 / ext4"));
}

/// Runs a script at a step of an image. The changes are thrown away.
fn script(stand: &Stand, image: &Path, step: &str, script: &str) -> Output {
    // Only the stage4 asks for it, and other answers are errors.
    let answers: &[&str] = if image.ends_with("stage4") { &["--answer", "root-password=correct horse"] } else { &[] };
    let shell = ["shell", text(image), "--before", step];
    stand.env.run([&shell, answers, &["--", "bash", "-c", script]].concat())
}

#[track_caller]
fn damaged_packages_are_refused(stand: &Stand, tree: &Path) {
    let stage4 = |commands: &str| script(stand, &tree.join(STAGE4), "install_equo_packages", commands);
    let vim = "/entropy/artifacts/testing.kantoo.org/packages/app-editors/vim-1.tbz2";
    let refused = stage4(&format!("equo update && echo x >> {vim} && equo install app-editors/vim")).code(1);
    assert!(refused.stderr.contains("the package app-editors/vim-1 is damaged"), "{}", refused.stderr);
    let index = "/entropy/artifacts/testing.kantoo.org/index.sqlite";
    let refused = stage4(&format!("echo x >> {index}; equo update")).code(1);
    assert!(refused.stderr.contains("the index of testing.kantoo.org is damaged"), "{}", refused.stderr);
    let refused = stage4("equo update && equo install app-editors/emacs").code(1);
    assert!(refused.stderr.contains("no repository has a package for app-editors/emacs"), "{}", refused.stderr);
    let unmasked = "sed -i 's/^[*]/#&/' /etc/entropy/packages/package.keywords; equo update";
    let refused = stage4(&format!("{unmasked} && equo install app-editors/vim")).code(1);
    assert!(refused.stderr.contains("no repository has a package for app-editors/vim"), "{}", refused.stderr);

    // A package that lost its end, one whose archive lost a byte, and one whose metadata did.
    let repository = tree.join("stage3/build-binaries/build-repo");
    let inject = |change: &str| {
        let commands = format!(
            "cp /portage/packages/net-dns/avahi-1.tbz2 /tmp/x.tbz2 && {change} && eit inject --quick /tmp/x.tbz2"
        );
        script(
            stand,
            &repository,
            "inject_pkgdir",
            &format!("echo Yes | eit init --quick testing.kantoo.org && {commands}"),
        )
    };
    let _ = inject("true").success();
    for (change, said) in [
        ("truncate --size=-1 /tmp/x.tbz2", "has no metadata in the format xpak"),
        ("printf '\\0' | dd of=/tmp/x.tbz2 bs=1 seek=200 conv=notrunc status=none", "the archive is damaged"),
        ("LC_ALL=C sed -i s/XPAKPACK/XPAKPAKK/ /tmp/x.tbz2", "the metadata is damaged"),
        ("mv /tmp/x.tbz2 /tmp/x.gpkg.tar; set -- /tmp/x.gpkg.tar; eit inject --quick $1", "unsupported extension"),
    ] {
        let refused = inject(change).code(1);
        assert!(refused.stderr.contains(said), "{change}: {}", refused.stderr);
    }
}

#[track_caller]
fn other_command_lines_are_refused(stand: &Stand, tree: &Path) {
    let stage4 = |command: &str| script(stand, &tree.join(STAGE4), "install_equo_packages", command);
    for command in
        ["equo instal app-editors/vim", "equo install --forced app-editors/vim", "equo rescue gen", "equo install"]
    {
        let _ = stage4(command).code(2);
    }
    let without =
        stage4("rm /var/lib/entropy/client/database/installed && equo update && equo install app-editors/vim").code(1);
    assert!(without.stderr.contains("run equo rescue generate"), "{}", without.stderr);
    let silent = stage4("equo rescue generate < /dev/null").code(1);
    assert!(silent.stderr.contains("nobody answers"), "{}", silent.stderr);
}
