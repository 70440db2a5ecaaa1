//! A packed tree, published, and judged by programs that nobody here wrote.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use quern_builder::testing::{
    Compression, Contents, Format, Lists, Names, Oci, Options, Platform, Published, Record, Release, Rootfs, Silent,
    SourceDate, Staging, pack, publish,
};

use crate::env::{TestEnv, output};

const GZIP: (Compression, Format) = (Compression::Gzip, Format::Gzip);
const XZ: (Compression, Format) = (Compression::Xz, Format::Xz);
const ZSTD: (Compression, Format) = (Compression::Zstd, Format::Zstd);
const PLAIN: (Compression, Format) = (Compression::None, Format::Plain);

/// With a layout where OCI knows the format.
fn made(env: &TestEnv, (compression, format): (Compression, Format)) -> Published {
    let tree = env.path("tree");
    for directory in ["etc", "usr/bin", "empty"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n").unwrap();
    fs::write(tree.join("usr/bin/tool"), vec![b'x'; 100_000]).unwrap();
    fs::hard_link(tree.join("usr/bin/tool"), tree.join("usr/bin/same")).unwrap();
    symlink("usr/bin", tree.join("bin")).unwrap();

    let moment = SourceDate::new(1_700_000_000);
    let names = Names { base: "demo-2023-11-14".to_owned(), suffix: compression.suffix() };
    let staging = Staging::create(&env.outdir(), &Silent).unwrap();
    let mut tarball = staging.create_file(&names.tarball()).unwrap();
    let (mut contents, mut manifest) = (Contents::new(), Contents::new());
    let tree = Rootfs::open(&tree).unwrap();
    let options = Options { epoch: moment.epoch(), format, ..Options::default() };
    let packed = pack(
        &tree,
        &Record::default(),
        &options,
        &mut tarball,
        Lists { contents: Some(&mut contents), manifest: Some(&mut manifest) },
        &Silent,
    )
    .unwrap();
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
    };
    let release = Release {
        names: &names,
        title: "demo",
        moment,
        platform: Platform { architecture: "amd64", variant: None },
        oci: (format != Format::Xz).then_some(&oci),
        tarball: &tarball,
        packed: &packed,
        contents: &contents.finish().unwrap(),
        manifest: &manifest.finish().unwrap(),
        provenance: b"{}\n",
    };
    publish(staging, &release).unwrap()
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
fn container_tools_take_the_layout() {
    // Neither oci-image-tool nor the umoci of most distributions (0.4.7) knows a layer of Zstandard.
    for (how, all) in [(GZIP, true), (PLAIN, true), (ZSTD, false)] {
        container_tools_take_a_layout_of(how, all);
    }
}

fn container_tools_take_a_layout_of(how: (Compression, Format), all: bool) {
    let env = TestEnv::new();
    let (layout, tag) = made(&env, how).oci.unwrap();
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
        // Copying reads and checks every blob.
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
    let published = made(&env, how);
    let tarball = published.tarball.to_str().unwrap();
    assert!(tarball.ends_with(&format!("/demo-2023-11-14{}", how.0.suffix())), "{tarball}");
    // GNU tar asks gzip, xz or zstd, bsdtar their libraries.
    let listing = ask("tar", &["--list", "--auto-compress", "--file", tarball]);
    assert_eq!(listing.lines().count(), 9, "{listing}");
    assert_eq!(ask("bsdtar", &["-tf", tarball]), listing);
    let contents = ask("gzip", &["--decompress", "--stdout", published.contents.to_str().unwrap()]);
    assert_eq!(contents.lines().count(), 9, "{contents}");
    let manifest = ask("bsdtar", &["-tf", published.manifest.to_str().unwrap()]);
    assert_eq!(manifest.lines().count(), 9, "{manifest}");
    let sum = fs::read_to_string(&published.sha256).unwrap();
    assert_eq!(ask("sha256sum", &[tarball]).split(' ').next(), sum.split(' ').next());
    listing
}
