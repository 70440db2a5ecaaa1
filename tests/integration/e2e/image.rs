//! An image with its own repository, profile, USE flags and unusual files.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::listing::{Listing, content, with_attributes};
use super::{EPOCH, Stand, ask, text};
use crate::env::{Privilege, output, twins};

twins!(an_image_matches_its_recipe_and_overlay => root_an_image_matches_its_recipe_and_overlay, userns_an_image_matches_its_recipe_and_overlay);

fn an_image_matches_its_recipe_and_overlay(privilege: Privilege) {
    let Some(stand) = Stand::sharing(privilege) else { return };
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\nprofile-formats = portage-2 profile-set\n");
    let mut stand = stand.with_own_packages().with_repositories(&[&overlay]);
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    stand.env.write("overlay/profiles/small/parent", "gentoo:default/linux/amd64/23.0/musl\n");
    stand.env.write("overlay/profiles/small/eapi", "8\n");
    stand.env.write("overlay/profiles/small/make.defaults", "USE=\"by-profile\"\n");
    // The profile's list is @profile. Dependencies of app-own/top are not in the list.
    stand.env.write("overlay/profiles/small/packages", "app-own/top\napp-test/odd\n");
    let body = "IUSE=\"by-profile by-recipe by-package +by-ebuild\"\nRDEPEND=\"app-test/tiny[bar]\"\n\
                src_install() {\n\tinsinto /usr/share/top\n\tnewins - flags <<<\"$(usev by-profile) $(usev by-recipe) \
                $(usev by-package) $(usev by-ebuild)\"\n\tnewdoc - NOTES <<<notes\n}\n";
    stand.ebuild("app-own", "top", body);
    let recipe = stand.env.write(
        "unusual.toml",
        r#"
        [source]
        stage3 = "amd64-musl"
        [portage]
        use = ["by-recipe"]
        package-use = { "app-own/top" = "by-package -by-ebuild", "app-test/tiny" = ["-foo", "bar"] }
        package-accept-keywords = ["~app-test/tiny-2 ~amd64"]
        [portage.make-conf]
        CFLAGS = "-O1 -fwrapv"
        [build]
        profile = "own:small"
        [strip]
        doc = true
        paths = ["/var/db/pkg", "/no/such/path"]
        [oci]
        tag = "v1"
        entrypoint = ["/usr/bin/tiny"]
        cmd = ["with", "arguments"]
        env = { TINY = "yes" }
        labels = { "org.example.made" = "by a test" }
        "#,
    );
    let made = stand.build(&recipe).success();
    assert!(made.stderr.contains("/no/such/path"), "the missing path to strip is not reported: {}", made.stderr);
    let (tarball, layout) = (&made.results()[0], &made.results()[1]);
    assert_eq!(tarball, &stand.env.outdir().join("unusual-2023-11-14.tar.gz"));
    assert_eq!(layout, &stand.env.outdir().join("unusual-2023-11-14.oci"));

    assert_eq!(content(tarball, "usr/share/top/flags"), "by-profile by-recipe by-package \n");
    assert_eq!(content(tarball, "usr/share/tiny/flags"), "foo=0 bar=1\n");
    assert_eq!(content(tarball, "usr/share/tiny/cflags"), "-O1 -fwrapv\n");
    assert_eq!(content(tarball, "etc/tiny.conf"), "# configuration of tiny 2\n");
    let listing = Listing::of(tarball);
    assert!(listing.has("usr/share/tiny/bar") && !listing.has("usr/share/tiny/foo"));
    no_leftovers(&listing);
    odd_files(&listing, &with_attributes(tarball));
    companions(tarball, &listing);
    layout_is_accepted(&stand, tarball, layout);
}

/// Checks that no documentation, Portage records or files of the builder are in the image.
fn no_leftovers(listing: &Listing) {
    let unwanted = [
        "usr/share/doc/",
        "usr/share/man/",
        "usr/share/info/",
        "var/db/pkg",
        "var/db/repos",
        "var/cache/binpkgs",
        "var/tmp/",
        "var/log/",
        "tmp/",
        "run/",
        "quern",
        "etc/portage",
        "etc/resolv.conf",
    ];
    let found: Vec<_> = listing
        .names()
        .filter(|name| unwanted.iter().any(|unwanted| name.starts_with(unwanted)) && !name.contains("/.keep"))
        .collect();
    assert_eq!(found, Vec::<&str>::new());
}

/// Checks the files of `app-test/odd`.
fn odd_files(listing: &Listing, attributes: &str) {
    for (path, mode, owner, size) in [
        ("usr/libexec/odd/setuid", "-rws--x--x", "0/0", "10"),
        ("usr/libexec/odd/setgid", "-rwxr-sr-x", "0/100", "10"),
        ("var/lib/odd", "drwxrws---", "1000/100", "0"),
        ("usr/share/odd/fifo", "prw-r--r--", "0/0", "0"),
        ("usr/share/odd/empty-directory", "drwxr-xr-x", "0/0", "0"),
        ("usr/share/odd/sparse", "-rw-r--r--", "0/0", "67108864"),
        ("usr/share/odd/caf\\351", "-rw-r--r--", "0/0", "7"),
        ("usr/share/odd/naïve", "-rw-r--r--", "0/0", "6"),
        ("usr/share/odd/back\\\\slash", "-rw-r--r--", "0/0", "10"),
        ("usr/share/odd/name with  spaces", "-rw-r--r--", "0/0", "7"),
    ] {
        let entry = listing.get(path);
        assert_eq!((&*entry.mode, &*entry.owner, &*entry.size), (mode, owner, size), "{path}");
    }
    assert_eq!(listing.get(&format!("usr/share/odd/{}", "n".repeat(200))).size, "38");
    let target = |path: &str| listing.get(path).target.clone();
    assert_eq!(target("usr/share/odd/dangling-link").as_deref(), Some("nowhere"));
    assert_eq!(target("usr/share/odd/link-that-climbs").as_deref(), Some("../../../../../../../../etc/passwd"));
    let names = ["original", "hard-link", "below/hard-link"].map(|name| format!("usr/share/odd/{name}"));
    let whole: Vec<_> = names.iter().filter(|name| listing.get(name).target.is_none()).collect();
    assert_eq!(whole.len(), 1, "the content of a file with three names must be there once: {whole:?}");
    for name in names.iter().filter(|name| *name != whole[0]) {
        assert_eq!(target(name), Some(format!("./{}", whole[0])));
    }
    let mut lines = attributes.lines().skip_while(|line| !line.ends_with("/usr/libexec/odd/capable")).skip(1);
    // Version 2 of the attribute has 20 bytes. Version 3, with the root of a user namespace, has 24.
    assert_eq!(lines.next().map(str::trim), Some("x: 20 security.capability"));
}

/// Checks the checksum, the lists of files and the provenance of a tarball.
pub(super) fn companions(tarball: &Path, listing: &Listing) {
    let directory = tarball.parent().expect("an outdir");
    let name = tarball.file_name().and_then(|name| name.to_str()).expect("a name");
    let mut check = std::process::Command::new("sha256sum");
    check.args(["--check", "--strict", &format!("{name}.sha256")]).current_dir(directory);
    assert_eq!(output(&mut check).success().stdout, format!("{name}: OK\n"));
    let contents = ask("gzip", &["--decompress", "--stdout", &format!("{}.CONTENTS.gz", text(tarball))]);
    assert_eq!(contents.lines().count(), listing.names().count(), "{contents}");
    let manifest = ask("bsdtar", &["-tf", &format!("{}.mtree.gz", text(tarball))]);
    assert_eq!(manifest.lines().count(), listing.names().count(), "{manifest}");
    let (base, _) = name.split_once(".tar").expect("the name of a tarball");
    let provenance = fs::read(directory.join(format!("{base}.json"))).unwrap();
    let provenance: serde_json::Value = serde_json::from_slice(&provenance).unwrap();
    let sum = ask("sha256sum", &[text(tarball)]);
    assert_eq!(provenance["subject"][0]["name"], name);
    assert_eq!(provenance["subject"][0]["digest"]["sha256"].as_str(), sum.split(' ').next());
    let hidden: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

/// Checks the layout with programs of other projects.
fn layout_is_accepted(stand: &Stand, tarball: &Path, layout: &Path) {
    let reference = format!("oci:{}:v1", text(layout));
    ask("oci-image-tool", &["validate", "--type", "image", "--ref", "name=v1", text(layout)]);
    let inspected: serde_json::Value = serde_json::from_str(&ask("skopeo", &["inspect", &reference])).unwrap();
    assert_eq!((&inspected["Architecture"], &inspected["Os"]), (&"amd64".into(), &"linux".into()));
    assert_eq!(inspected["Labels"]["org.example.made"], "by a test");
    let layers = inspected["Layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    let digest = layers[0].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let layer = fs::metadata(layout.join("blobs/sha256").join(digest)).unwrap();
    let file = fs::metadata(tarball).unwrap();
    assert_eq!((layer.dev(), layer.ino()), (file.dev(), file.ino()), "the layer is the tarball, not a copy");

    // umoci unpacks the image like a container engine: files, flags and the configuration.
    let bundle = stand.env.path("bundle");
    let unprivileged = if crate::env::is_root() { None } else { Some("--rootless") };
    let image = format!("{}:v1", text(layout));
    let arguments: Vec<&str> =
        ["unpack"].into_iter().chain(unprivileged).chain(["--image", &image, text(&bundle)]).collect();
    ask("umoci", &arguments);
    let root = bundle.join("rootfs");
    assert_eq!(fs::read_to_string(root.join("usr/share/tiny/flags")).unwrap(), "foo=0 bar=1\n");
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().mode() & 0o7777;
    assert_eq!(mode("usr/libexec/odd/setuid"), 0o4711);
    if unprivileged.is_none() {
        let found = ask("getcap", &[text(&root.join("usr/libexec/odd/capable"))]);
        assert!(found.contains("cap_net_bind_service"), "{found}");
    }
    let config: serde_json::Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["process"]["args"], serde_json::json!(["/usr/bin/tiny", "with", "arguments"]));
    assert!(config["process"]["env"].as_array().unwrap().contains(&"TINY=yes".into()));
}
