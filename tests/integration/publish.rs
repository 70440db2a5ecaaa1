//! Packs a tree, publishes it, and checks the results with other programs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use quern_builder::testing::{
    Compression, Content, Contents, Deferred, Format, ImageSpec, Oci, Options, Outputs, Platform, Published, Role,
    Rootfs, Silent, SourceDate, Staging, Tree, pack, publish,
};

use crate::env::{TestEnv, output};

const GZIP: (Compression, Format) = (Compression::Gzip, Format::Gzip);
const XZ: (Compression, Format) = (Compression::Xz, Format::Xz);
const ZSTD: (Compression, Format) = (Compression::Zstd, Format::Zstd);
const PLAIN: (Compression, Format) = (Compression::None, Format::Plain);

/// Packs and publishes a tree, with an OCI layout if OCI defines the format.
fn publish_tree(env: &TestEnv, (compression, format): (Compression, Format)) -> Published {
    let tree = env.path("tree");
    for directory in ["etc", "usr/bin", "empty"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n").unwrap();
    fs::write(tree.join("usr/bin/tool"), vec![b'x'; 100_000]).unwrap();
    fs::hard_link(tree.join("usr/bin/tool"), tree.join("usr/bin/same")).unwrap();
    symlink("usr/bin", tree.join("bin")).unwrap();

    let oci = Oci {
        tag: "{date}".to_owned(),
        entrypoint: vec!["/usr/bin/tool".to_owned()],
        cmd: vec!["a b".to_owned()],
        env: BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]),
        user: Some("nobody".to_owned()),
        workdir: Some("/empty".to_owned()),
        ports: vec!["80/tcp".to_owned()],
        volumes: vec!["/empty".to_owned()],
        labels: BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]),
        maintainer: Some("A <a@example.org>".to_owned()),
        cuts: Vec::new(),
        on_parent: false,
    };
    let date = SourceDate::new(1_700_000_000);
    let spec = ImageSpec {
        sbom: &[],
        base: "demo-2023-11-14".to_owned(),
        suffix: compression.suffix(),
        title: "demo",
        date,
        platform: Platform { architecture: "amd64", variant: None },
        split: Vec::new(),
        oci: (format != Format::Xz).then_some(&oci),
        packages: false,
    };
    let staging = Staging::create(&env.outdir(), &Silent).unwrap();
    let mut tarball = staging.create_file(&spec.tarball()).unwrap();
    let (mut contents, mut manifest) = (Contents::new(), Contents::new());
    let tree = Tree { root: &Rootfs::open(&tree).unwrap(), deferred: &Deferred::default(), part: None };
    let outputs = Outputs { archive: &mut tarball, contents: Some(&mut contents), manifest: Some(&mut manifest) };
    let options = Options { epoch: date.epoch(), format, layer: true, ..Options::default() };
    let packed = pack(tree, outputs, &options, &Silent).unwrap();
    let content = Content {
        sbom: &[],
        tarball: &tarball,
        packed: &packed,
        split: &[],
        layers: &[],
        contents: &contents.finish().unwrap(),
        manifest: &manifest.finish().unwrap(),
        provenance: b"{}\n",
    };
    publish(staging, spec.artifacts(&content).unwrap(), None).unwrap()
}

fn have(program: &str) -> bool {
    let found = output(Command::new("sh").args(["-c", &format!("command -v {program}")])).code == 0;
    if !found {
        eprintln!("skipped {program}: it is not installed");
    }
    found
}

fn ask(program: &str, arguments: &[&str]) -> String {
    output(Command::new(program).args(arguments)).success().stdout
}

#[test]
fn container_tools_accept_the_layout() {
    // Neither oci-image-tool nor umoci 0.4.7, which most distributions have, supports Zstandard layers.
    for (how, all) in [(GZIP, true), (PLAIN, true), (ZSTD, false)] {
        container_tools_accept_a_layout_of(how, all);
    }
}

fn container_tools_accept_a_layout_of(how: (Compression, Format), all: bool) {
    let env = TestEnv::new();
    let published = publish_tree(&env, how);
    let (layout, tag) = published.oci().unwrap();
    let _ = env.run(["oci", "validate", layout.to_str().unwrap()]).success();
    assert_eq!(tag, "20231114");
    let layout = layout.to_str().unwrap();
    let reference = format!("oci:{layout}:{tag}");
    if have("skopeo") {
        let inspected: serde_json::Value = serde_json::from_str(&ask("skopeo", &["inspect", &reference])).unwrap();
        assert_eq!(inspected["Architecture"], "amd64");
        assert_eq!(inspected["Created"], "2023-11-14T22:13:20Z");
        assert_eq!(inspected["Labels"], serde_json::json!({"a": "1", "b": "2"}));
        let config = ask("skopeo", &["inspect", "--config", &reference]);
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/tool");
        assert_eq!(config["config"]["WorkingDir"], "/empty");
        assert_eq!(config["author"], "A <a@example.org>");
        // Copying verifies every blob.
        ask(
            "skopeo",
            &["--insecure-policy", "copy", "--quiet", &reference, &format!("dir:{}", env.path("copy").display())],
        );
    }
    if all && have("oci-image-tool") {
        ask("oci-image-tool", &["validate", "--type", "image", "--ref", &format!("name={tag}"), layout]);
        ask("oci-image-tool", &["validate", "--type", "imageIndex", &format!("{layout}/index.json")]);
    }
    if all && have("umoci") {
        let bundle = env.path("bundle");
        ask("umoci", &["unpack", "--rootless", "--image", &format!("{layout}:{tag}"), bundle.to_str().unwrap()]);
        let root = bundle.join("rootfs");
        assert_eq!(fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
        assert_eq!(fs::read(root.join("usr/bin/same")).unwrap(), vec![b'x'; 100_000]);
    }
}

#[test]
fn the_tarball_and_its_companions_agree() {
    let listings = [GZIP, XZ, ZSTD, PLAIN].map(a_tarball_and_its_companions_agree);
    assert!(listings.iter().all(|listing| *listing == listings[0]), "{listings:#?}");
}

fn a_tarball_and_its_companions_agree(how: (Compression, Format)) -> String {
    let env = TestEnv::new();
    let published = publish_tree(&env, how);
    let path = |role| published.path(&role).unwrap().to_str().unwrap();
    let tarball = path(Role::Tarball);
    assert!(tarball.ends_with(&format!("/demo-2023-11-14{}", how.0.suffix())), "{tarball}");
    // GNU tar runs gzip, xz or zstd, bsdtar uses their libraries.
    let listing = ask("tar", &["--list", "--auto-compress", "--file", tarball]);
    assert_eq!(listing.lines().count(), 9, "{listing}");
    assert_eq!(ask("bsdtar", &["-tf", tarball]), listing);
    let contents = ask("gzip", &["--decompress", "--stdout", path(Role::Contents)]);
    assert_eq!(contents.lines().count(), 9, "{contents}");
    let manifest = ask("bsdtar", &["-tf", path(Role::Manifest)]);
    assert_eq!(manifest.lines().count(), 9, "{manifest}");
    let sum = fs::read_to_string(path(Role::Checksum)).unwrap();
    assert_eq!(ask("sha256sum", &[tarball]).split(' ').next(), sum.split(' ').next());
    listing
}
