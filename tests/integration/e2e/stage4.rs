//! A stage4, made with this repository's own recipe: the stage3 with additional packages.

use std::path::{Path, PathBuf};

use super::listing::{Listing, content, with_attributes};
use super::{EPOCH, Stand, ask, text};
use crate::env::{Privilege, twins};

/// Builds the recipe. The mirror, the keyring and the main repository come from the environment.
fn built(stand: &mut Stand) -> PathBuf {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/stage4-hello.toml");
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let outdir = stand.env.outdir();
    stand.env.run(["build", "--again=all", text(&recipe), "--outdir", text(&outdir)]).success().results().remove(0)
}

#[test]
fn userns_a_stage4_is_the_stage3_with_additional_packages() {
    let Some(stand) = Stand::sharing(Privilege::Userns) else { return };
    let mut stand = stand.with_own_packages().with_repositories(&[]);
    let tarball = built(&mut stand);
    let listing = Listing::of(&tarball);

    // The entries of the stage3's tarball.
    let builds = stand.world.path("mirror/releases/amd64/autobuilds");
    let pointer = std::fs::read_to_string(builds.join("latest-stage3-amd64-musl.txt")).unwrap();
    let stage3 =
        pointer.lines().find(|line| line.contains(".tar.xz ")).and_then(|line| line.split(' ').next()).unwrap();
    let stage3 = builds.join(stage3);
    let before = Listing::by_gnu(&stage3);
    let rewritten =
        ["etc/portage/make.conf", "etc/portage/make.profile", "etc/ld.so.cache", "etc/resolv.conf", "etc/machine-id"];
    let kept = ["usr/", "etc/", "dev/", "bin", "sbin", "lib"];
    let mut compared = 0;
    for name in
        before.names().filter(|name| kept.iter().any(|kept| name.starts_with(kept)) && !rewritten.contains(name))
    {
        let (was, is) = (before.get(name), listing.find(name));
        if name.ends_with('-') || name.starts_with("usr/share/info/dir") {
            continue;
        }
        let is = is.unwrap_or_else(|| panic!("{name} is lost"));
        // The packer chooses which of several hard links holds the content.
        if !was.mode.starts_with('h') && !is.mode.starts_with('h') && !was.mode.starts_with('d') {
            assert_eq!((&was.mode, &was.owner, &was.target), (&is.mode, &is.owner, &is.target), "{name}");
        }
        compared += 1;
    }
    assert!(compared > 10_000, "{compared} names were compared");
    // Device nodes, which an ordinary user cannot make, setuid programs and capabilities.
    let special: Vec<_> = before.names().filter(|name| before.get(name).mode.starts_with(['c', 'b'])).collect();
    assert!(!special.is_empty(), "the stage3 has no device to compare");
    for name in special {
        assert_eq!(before.get(name), listing.get(name), "{name}");
    }
    let capabilities = |tarball: &Path| with_attributes(tarball).matches("security.capability").count();
    assert_eq!(capabilities(&tarball), capabilities(&stage3));
    assert!(before.names().any(|name| before.get(name).mode.starts_with("-rws")), "the stage3 has no setuid program");

    // The added package, and the configuration.
    assert_eq!(listing.get("usr/bin/hello").mode, "-rwxr-xr-x");
    assert!(listing.names().any(|name| name.starts_with("var/db/pkg/app-misc/hello-2.10")));
    let make_conf = content(&tarball, "etc/portage/make.conf");
    assert!(make_conf.contains("CFLAGS=\"-O2 -pipe\""), "{make_conf}");
    for ours in ["/quern", "/var/cache/binpkgs-builder", "PORTAGE_TMPDIR", "GENTOO_MIRRORS", "127.0.0.1"] {
        assert!(!make_conf.contains(ours), "{ours} in {make_conf}");
    }
    assert_eq!(
        listing.get("etc/portage/make.profile").target.as_deref(),
        Some("../../var/db/repos/gentoo/profiles/default/linux/amd64/23.0/musl")
    );
    let unwanted = [
        "var/db/repos/gentoo/",
        "var/cache/binpkgs/",
        "var/cache/distfiles/",
        "var/tmp/",
        "quern",
        "var/log/portage/",
        "var/cache/edb/mtimedb",
    ];
    let found: Vec<_> = listing
        .names()
        .filter(|name| unwanted.iter().any(|path| name.starts_with(path)) && !name.contains("/.keep"))
        .collect();
    assert!(found.is_empty(), "{found:?}");

    if crate::env::is_root() {
        the_same_as_root(&stand, &tarball);
    }
}

/// A stage4 with an old package of the world.
const WORLD: &str = r#"kind = "stage4"
[emerge]
packages = []
[[step]]
name = "old"
at = "before-packages"
emerge = ["=app-own/NAME-1"]
[[step]]
name = "list"
run = 'ls /var/db/pkg/app-own > /list'
"#;

twins!(the_world_of_a_stage4_is_updated => root_the_world_of_a_stage4_is_updated, userns_the_world_of_a_stage4_is_updated);

fn the_world_of_a_stage4_is_updated(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    let stand = stand.with_repositories(&[&overlay]);
    let name = format!("world-{privilege:?}").to_lowercase();
    stand.ebuild("app-own", &name, "");
    let place = |version: u32| overlay.join(format!("app-own/{name}/{name}-{version}.ebuild"));
    std::fs::copy(place(1), place(2)).unwrap();
    let written = WORLD.replace("NAME", &name);
    let list = || {
        let output = stand.build_changed(&stand.env.path(format!("{name}.toml"))).success();
        (content(&output.results()[0], "list"), output.stderr)
    };
    let recipe = stand.recipe(&name, &written);
    assert_eq!(list().0, format!("{name}-1\n"));
    stand.recipe(&name, &written.replace("packages = []", "packages = []\nupdate-world = true"));
    let (listed, said) = list();
    assert_eq!(listed, format!("{name}-2\n"), "{said}");
    // It is a step with a layer, as every other.
    let (listed, said) = list();
    assert!(listed == format!("{name}-2\n") && !said.contains("updating @world"), "{said}");
    let shell = stand.shell(&recipe, &["--at", "@world"], &["ls", "/var/db/pkg/app-own"]).success();
    assert_eq!(shell.stdout, format!("{name}-2\n"));
}

/// With the same binary packages, root makes the same names, owners, modes and attributes, also in another format. The stage4 can be the
/// base of another build.
fn the_same_as_root(user: &Stand, tarball: &Path) {
    let Some(root) = Stand::sharing(Privilege::Root) else { return };
    let mut root = root.with_own_packages().with_repositories(&[]);
    ask("cp", &["--recursive", text(&user.packages()), text(&root.packages())]);
    root.env.set("QUERN_BUILD_COMPRESSION", "zstd");
    let stage4 = built(&mut root);
    let (one, other) = (with_attributes(tarball), with_attributes(&stage4));
    let size =
        |line: &&str| !["/var/db/pkg/app-misc/hello", "/var/cache/edb/counter"].iter().any(|path| line.contains(path));
    let differ: Vec<_> = one.lines().zip(other.lines()).filter(|(one, other)| one != other && size(one)).collect();
    assert!(differ.is_empty(), "{differ:#?}");
    assert_eq!(one.lines().count(), other.lines().count());

    assert!(text(&stage4).ends_with(".tar.zst"));
    root.env.set("QUERN_SOURCE_FILE", stage4);
    root.env.set("QUERN_SOURCE_ALLOW_UNSIGNED", "true");
    let recipe = root.recipe("again", "[emerge]\npackages = [\"app-test/tiny\"]\n");
    assert_eq!(root.shell(&recipe, &[], &["hello"]).success().stdout, "Hello, world!\n");
}
