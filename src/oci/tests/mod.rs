//! Validates and unpacks hand-made layouts. Where umoci is installed, it must make the same trees.

mod agreement;
mod differences;
mod images;
mod whiteouts;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::layout::{CONFIG, MANIFEST};
use super::unpack::{Demand, unpack};
use super::validate::validate;
use super::whiteout::{self, Whiteout};
use crate::archive::unpack::limits::Limits;
use crate::archive::unpack::reader::entries;
use crate::archive::unpack::tests::{Tar, is_root};
use crate::base::digest::hex;
use crate::base::progress::Silent;

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

struct Made {
    place: tempfile::TempDir,
}

impl Made {
    fn dir(&self) -> PathBuf {
        self.place.path().join("layout")
    }

    fn tree(&self) -> PathBuf {
        self.place.path().join("tree")
    }

    fn codes(&self) -> Vec<&'static str> {
        let report = validate(&self.dir()).unwrap();
        report.findings.into_iter().filter(|finding| finding.wrong).map(|finding| finding.code.as_str()).collect()
    }

    fn unpack(&self) -> crate::base::error::Result<()> {
        unpack(&self.dir(), "v1", &self.tree(), &Demand::default(), &Silent).map(drop)
    }

    fn blob(&self, bytes: &[u8], media_type: &str) -> Value {
        let name = hex(&Sha256::digest(bytes));
        fs_err::write(self.dir().join("blobs/sha256").join(&name), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": format!("sha256:{name}"), "size": bytes.len() })
    }
}

fn gz(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// Makes a layout of one image. `change` may edit the manifest.
fn made(layers: &[Vec<u8>], change: impl Fn(&mut Value)) -> Made {
    let made = Made { place: tempfile::tempdir().unwrap() };
    fs_err::create_dir_all(made.dir().join("blobs/sha256")).unwrap();
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", hex(&Sha256::digest(layer)))).collect();
    let config =
        json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let layers: Vec<_> = layers.iter().map(|layer| made.blob(&gz(layer), GZIP)).collect();
    let config = made.blob(config.to_string().as_bytes(), CONFIG);
    let mut manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    change(&mut manifest);
    let mut manifest = made.blob(manifest.to_string().as_bytes(), MANIFEST);
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs_err::write(made.dir().join("index.json"), index.to_string()).unwrap();
    fs_err::write(made.dir().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    made
}

fn sample() -> [Vec<u8>; 3] {
    let first = Tar::default()
        .dir("./")
        .dir("gone/")
        .file("gone/deep", b"1")
        .dir("opaque/")
        .file("opaque/old", b"1")
        .dir("real/")
        .file("real/stays", b"1")
        .symlink("link", "real")
        .file("file", b"1");
    // A whiteout applies to the layers below, wherever it stands in its layer.
    let second = Tar::default()
        .file("opaque/new", b"2")
        .file("opaque/.wh..wh..opq", b"")
        .file(".wh.gone", b"")
        .file("file", b"2")
        .file(".wh.file", b"")
        .file(".wh.never", b"");
    let third =
        Tar::default().file("link/.wh.stays", b"").file("link/through", b"3").dir("gone/").file("gone/new", b"3");
    [first.end(), second.end(), third.end()]
}

/// An entry of an upper layer replaces all attributes of a directory. Directories without an entry do not change.
#[test]
fn directories_of_upper_layers_replace_attributes_as_with_umoci() {
    let old: &[(&str, &[u8])] = &[("SCHILY.xattr.user.old", b"old"), ("mtime", b"99.5")];
    let first = Tar::default().dir("./").pax(old).dir("named/").pax(old).dir("unnamed/").file("unnamed/gone", b"1");
    let second = Tar::default()
        .pax(&[("SCHILY.xattr.user.new", b"new")])
        .dir("named/")
        .file("unnamed/f", b"2")
        .file("unnamed/.wh.gone", b"");
    let made = made(&[first.end(), second.end()], |_| {});
    made.unpack().unwrap();
    let about = |tree: &Path| {
        let script = "getfattr -d -R . | sort; find . -mindepth 1 -type d -printf '%P %T@\\n' | sort";
        let output = Command::new("sh").args(["-c", script]).current_dir(tree).env("LC_ALL", "C").output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().replace("0000000\n", "\n")
    };
    let found = about(&made.tree());
    let attributes: Vec<_> = found.lines().filter(|line| line.starts_with("user")).collect();
    assert_eq!(attributes, ["user.new=\"new\"", "user.old=\"old\""], "{found}");
    assert!(found.contains("unnamed 99.500\n"), "{found}");
    if is_root("the comparison with umoci") && Command::new("umoci").arg("--version").output().is_ok() {
        assert_eq!(found, about(&umoci(&made)));
    }
}

/// Unpacks the image with umoci.
fn umoci(made: &Made) -> PathBuf {
    let other = made.place.path().join("umoci");
    let image = format!("{}:v1", made.dir().display());
    let output = Command::new("umoci").args(["raw", "unpack", "--image", &image]).arg(&other).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    other
}

fn listing(tree: &Path) -> String {
    let script = "find . -printf '%P %y %m %l ' -type f -exec cat {} ';' -o -printf '\\n' | sort";
    let output = Command::new("sh").args(["-c", script]).current_dir(tree).env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn layers_are_applied_as_with_umoci() {
    let made = made(&sample(), |_| {});
    assert_eq!(made.codes(), [""; 0]);
    made.unpack().unwrap();
    let tree = made.tree();
    let there = |path: &str| fs_err::read_to_string(tree.join(path)).ok();
    assert_eq!((there("gone/deep"), there("gone/new").as_deref()), (None, Some("3")));
    assert_eq!((there("opaque/old"), there("opaque/new").as_deref()), (None, Some("2")));
    assert_eq!((there("real/stays"), there("real/through").as_deref()), (None, Some("3")));
    assert_eq!(there("file").as_deref(), Some("2"));
    assert_eq!(fs_err::read_dir(made.place.path()).unwrap().count(), 2, "a leftover");

    if !is_root("the comparison with umoci") || Command::new("umoci").arg("--version").output().is_err() {
        return;
    }
    assert_eq!(listing(&tree), listing(&umoci(&made)));
}

#[test]
fn an_existing_tree_is_not_changed() {
    let made = made(&sample(), |_| {});
    fs_err::create_dir(made.tree()).unwrap();
    fs_err::write(made.tree().join("mine"), "x").unwrap();
    assert_eq!(made.unpack().unwrap_err().exit_code(), 2);
    fs_err::remove_file(made.tree().join("mine")).unwrap();
    made.unpack().unwrap();
    assert_eq!(
        unpack(&made.dir(), "v2", &made.place.path().join("x"), &Demand::default(), &Silent).unwrap_err().exit_code(),
        2
    );
}

#[test]
fn changes_of_any_blob_are_found() {
    let count = fs_err::read_dir(made(&sample(), |_| {}).dir().join("blobs/sha256")).unwrap().count();
    assert_eq!(count, 5);
    for number in 0..count {
        for longer in [false, true] {
            let made = made(&sample(), |_| {});
            let mut blobs: Vec<_> =
                fs_err::read_dir(made.dir().join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()).collect();
            blobs.sort();
            let mut bytes = fs_err::read(&blobs[number]).unwrap();
            if longer {
                bytes.push(0)
            } else {
                bytes[20] ^= 1
            }
            fs_err::write(&blobs[number], &bytes).unwrap();
            assert!(
                made.codes().contains(if longer { &"size-mismatch" } else { &"digest-mismatch" }),
                "{:?}",
                made.codes()
            );
            assert_eq!(made.unpack().unwrap_err().exit_code(), 3);
            assert!(!made.tree().exists());
            fs_err::remove_file(&blobs[number]).unwrap();
            assert!(made.codes().contains(&"missing-blob"));
            assert_eq!(fs_err::read_dir(made.place.path()).unwrap().count(), 1, "a leftover");
        }
    }
}

#[test]
fn contradicting_documents_are_found() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 7] = [
        ("bad-version", |manifest| manifest["schemaVersion"] = json!(1)),
        ("bad-media-type", |manifest| manifest["mediaType"] = json!("text/plain")),
        ("bad-media-type", |manifest| manifest["layers"][0]["mediaType"] = json!("text/plain")),
        ("corrupt", |manifest| manifest["layers"][0]["mediaType"] = json!(format!("{}zstd", &GZIP[..GZIP.len() - 4]))),
        ("layer-count", |manifest| drop(manifest["layers"].as_array_mut().unwrap().pop())),
        ("diff-id-mismatch", |manifest| manifest["layers"].as_array_mut().unwrap().swap(0, 1)),
        ("bad-json", |manifest| manifest["layers"][1]["size"] = json!(-1)),
    ];
    for (code, change) in cases {
        let made = made(&sample(), change);
        assert!(made.codes().contains(&code), "{code}: {:?}", made.codes());
        assert_eq!(made.unpack().unwrap_err().exit_code(), 3, "{code}");
        assert!(!made.tree().exists());
    }
    let made = made(&sample(), |_| {});
    made.blob(b"an unused blob", "text/plain");
    let report = validate(&made.dir()).unwrap();
    assert!(report.is_valid() && report.findings.iter().any(|finding| finding.code.as_str() == "extra-blob"));
    fs_err::write(made.dir().join("oci-layout"), "{}").unwrap();
    assert!(made.codes().contains(&"bad-json"));
}

#[test]
fn the_layers_of_an_image_share_its_limits() {
    let layer = |name: &str| Tar::default().dir("./").file(name, &[7; 2000]).end();
    let made = made(&[layer("a"), layer("b")], |_| {});
    let unpack = |bytes, entries| unpack(&made.dir(), "v1", &made.tree(), &Demand { bytes, entries }, &Silent);
    for (demand, option) in [((Some(7000), None), "--max-bytes"), ((None, Some(3)), "--max-entries")] {
        let error = unpack(demand.0, demand.1).unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains(option)), "{error}: {:?}", error.hint());
        assert_eq!(fs_err::read_dir(made.place.path()).unwrap().count(), 1, "a leftover");
    }
    unpack(Some(8192), Some(4)).unwrap();
    assert_eq!(made.codes(), [""; 0]);
}

#[test]
fn the_memory_for_whiteouts_is_limited() {
    let mut tar = Tar::default();
    for number in 0..20_000 {
        let name = format!("{number:05}{}/.wh.x\0", "/n".repeat(1800));
        tar = tar.entry("L", EntryType::GNULongName, "", name.as_bytes()).file("w", b"");
    }
    let made = made(&[Tar::default().dir("./").end(), tar.end()], |_| {});
    let error = made.unpack().unwrap_err();
    assert!(error.to_string().contains("[too-much-memory]"), "{error}");
    assert_eq!(error.exit_code(), 3);
}

#[test]
fn malformed_whiteouts_are_refused() {
    let of = |tar: Tar| whiteout::of(&entries(&tar.end(), Limits::of_layers(0)).unwrap()[0]);
    let good = |name: &str| of(Tar::default().file(name, b"")).unwrap();
    assert_eq!(good("d/.wh.x"), Some(Whiteout::Remove("d/x".into())));
    assert_eq!(good("d/.wh..wh..opq"), Some(Whiteout::Opaque("d".into())));
    assert_eq!(good(".wh..wh..opq"), Some(Whiteout::Opaque("".into())));
    assert_eq!(good(".wh...x"), Some(Whiteout::Remove("..x".into())));
    assert_eq!(good("d/x.wh.y"), None);
    let bad = [
        Tar::default().file("d/.wh.", b""),
        Tar::default().file("d/.wh..", b""),
        Tar::default().file("d/.wh...", b""),
        Tar::default().file("d/.wh..wh.", b""),
        Tar::default().file("d/.wh..wh.plnk", b""),
        Tar::default().file("d/.wh..wh..opqx", b""),
        Tar::default().file(".wh.d/x", b""),
        Tar::default().file("d/.wh.x", b"data"),
        Tar::default().dir("d/.wh.x/"),
        Tar::default().symlink("d/.wh.x", "y"),
        Tar::default().hardlink("x", "d/.wh.y"),
        Tar::default().entry("d/.wh.x", EntryType::Fifo, "", b""),
    ];
    for (number, tar) in bad.into_iter().enumerate() {
        assert_eq!(of(tar).unwrap_err().code.as_str(), "bad-whiteout", "{number}");
    }
    let made = made(&[Tar::default().dir("./").end(), Tar::default().file(".wh.", b"").end()], |_| {});
    assert_eq!(made.codes(), ["bad-whiteout"]);
    assert_eq!(made.unpack().unwrap_err().exit_code(), 3);
}

/// A layer that is a plain archive, and a different gzip file to programs that guess the format. Its media type decides for both
/// commands.
#[test]
fn a_layer_is_what_its_media_type_says() {
    let hidden = gz(&Tar::default().file("hidden", b"evil").end());
    let (head, body) = hidden.split_at(10);
    // The first header of the archive, and the bytes after its data, are "extra fields" of two gzip members.
    let extra = |length: usize| {
        let length = u16::try_from(length).unwrap().to_le_bytes();
        [&head[..3], &[4, 1, 1, 1, 1, 1, 1], &length].concat()
    };
    let data = body.len() + extra(0).len();
    let behind = data.next_multiple_of(512) - data + 1024;
    let header = Tar::header(&extra(500), EntryType::Regular, data as u64);
    let empty = gz(b"");
    let layer = [Tar::default().raw(header, &[body, &extra(behind)].concat()).end(), empty[10..].to_vec()].concat();
    let mut guessed = String::new();
    let read = std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(&layer[..]), &mut guessed);
    assert!(read.is_ok() && guessed.starts_with("hidden"), "the layer is also a gzip file: {read:?}");

    let plain = GZIP.strip_suffix("+gzip").unwrap();
    let digest = format!("sha256:{}", hex(&Sha256::digest(&layer)));
    let made = made(std::slice::from_ref(&layer), |manifest| {
        manifest["layers"][0] = json!({ "mediaType": plain, "digest": digest, "size": layer.len() });
    });
    made.blob(&layer, plain);
    assert_eq!(made.codes(), [""; 0]);
    made.unpack().unwrap();
    assert!(!made.tree().join("hidden").exists());
    assert_eq!(fs_err::read_dir(made.tree()).unwrap().count(), 1);
}

#[test]
fn special_files_are_found_and_not_opened() {
    type Change = fn(&Path, &Path);
    let fifo = |path: &Path| {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    };
    let cases: [(&str, Change); 12] = [
        ("bad-file", |_, blob| fs_err::create_dir(blob).unwrap()),
        ("missing-blob", |_, blob| fs_err::os::unix::fs::symlink(blob.file_name().unwrap(), blob).unwrap()),
        ("missing-blob", |_, blob| fs_err::os::unix::fs::symlink("/etc/passwd", blob).unwrap()),
        ("missing-blob", |_, blob| fs_err::os::unix::fs::symlink("../../index.json/x", blob).unwrap()),
        ("no-index", |dir, _| fs_err::remove_file(dir.join("index.json")).unwrap()),
        ("too-large", |dir, _| fs_err::write(dir.join("index.json"), vec![b' '; (4 << 20) + 1]).unwrap()),
        ("too-large", |dir, _| fs_err::write(dir.join("oci-layout"), vec![b' '; (4 << 20) + 1]).unwrap()),
        ("no-layout", |dir, _| fs_err::remove_file(dir.join("oci-layout")).unwrap()),
        ("bad-file", |dir, _| fs_err::write(dir.join("blobs/sha512"), "").unwrap()),
        ("bad-file", |dir, _| fs_err::os::unix::fs::symlink("sha512", dir.join("blobs/sha512")).unwrap()),
        ("bad-file", |dir, _| fs_err::create_dir(dir.join("blobs/sha256").join("0".repeat(64))).unwrap()),
        ("digest-mismatch", |dir, _| fs_err::write(dir.join("blobs/sha256").join("0".repeat(64)), "").unwrap()),
    ];
    for (number, (code, change)) in cases.into_iter().enumerate() {
        let made = made(&sample(), |_| {});
        let layer = made.dir().join("blobs/sha256").join(hex(&Sha256::digest(gz(&sample()[0]))));
        fs_err::remove_file(&layer).unwrap();
        if number >= 4 {
            made.blob(&gz(&sample()[0]), GZIP);
        }
        change(&made.dir(), &layer);
        assert!(made.codes().contains(&code), "{number}: {code}, {:?}", made.codes());
        // Unused files do not make an image invalid.
        let expected = if number < 8 { 3 } else { 0 };
        assert_eq!(made.unpack().map_or_else(|error| error.exit_code(), |()| 0), expected, "{number}: {code}");
    }
    let made = made(&sample(), |_| {});
    fs_err::remove_file(made.dir().join("index.json")).unwrap();
    fifo(&made.dir().join("index.json"));
    assert_eq!(made.codes()[0], "bad-file");
    assert_eq!(made.unpack().unwrap_err().exit_code(), 3);
}

#[test]
fn ambiguous_documents_are_refused() {
    type Change = fn(&mut Value);
    let cases: [Change; 5] = [
        |manifest| manifest["manifests"] = json!([]),
        |manifest| manifest["Layers"] = json!([]),
        |manifest| manifest["MEDIATYPE"] = json!("x"),
        |manifest| manifest["config"]["Digest"] = json!("sha256:0"),
        |manifest| manifest["layers"][0]["Size"] = json!(1),
    ];
    for (number, change) in cases.into_iter().enumerate() {
        let made = made(&sample(), change);
        assert!(made.codes().contains(&"ambiguous-document"), "{number}: {:?}", made.codes());
        assert_eq!(made.unpack().unwrap_err().exit_code(), 3, "{number}");
    }
    let made = made(&sample(), |_| {});
    let text = fs_err::read_to_string(made.dir().join("index.json")).unwrap();
    for more in [r#""layers":[],"#, r#""config":{},"#, r#""Manifests":[],"#] {
        fs_err::write(made.dir().join("index.json"), text.replacen('{', &format!("{{{more}"), 1)).unwrap();
        assert_eq!(made.codes()[0], "ambiguous-document", "{more}");
        assert_eq!(made.unpack().unwrap_err().exit_code(), 3, "{more}");
    }
    // Annotations and unknown keys may have any name.
    let more = r#""Notes":1,"annotations":{"Config":"x","config":"y"},"#;
    fs_err::write(made.dir().join("index.json"), text.replacen('{', &format!("{{{more}"), 1)).unwrap();
    assert_eq!(made.codes(), [""; 0]);
}

#[test]
fn every_descriptor_is_checked_once() {
    let made = made(&sample(), |manifest| {
        // Decoding the layer every time would take minutes.
        let (layer, count) = (manifest["layers"][0].clone(), 20_000);
        manifest["layers"] = json!(vec![layer; count]);
    });
    assert_eq!(made.codes(), ["layer-count"].into_iter().chain(["diff-id-mismatch"; 2]).collect::<Vec<_>>());

    let made = self::made(&sample(), |_| {});
    let mut index: Value = serde_json::from_slice(&fs_err::read(made.dir().join("index.json")).unwrap()).unwrap();
    let mut other = index["manifests"][0].clone();
    other["size"] = json!(5);
    index["manifests"].as_array_mut().unwrap().push(other);
    fs_err::write(made.dir().join("index.json"), index.to_string()).unwrap();
    assert_eq!(made.codes(), ["size-mismatch"], "the same digest with another size");

    let made = self::made(&sample(), |manifest| manifest["config"]["size"] = json!(1));
    assert_eq!(made.codes(), ["size-mismatch"]);
    let none = json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [] } });
    let text = none.to_string();
    let digest = format!("sha256:{}", hex(&Sha256::digest(&text)));
    let made = self::made(&sample(), |manifest| {
        manifest["config"] = json!({ "mediaType": CONFIG, "digest": digest, "size": text.len() });
    });
    made.blob(text.as_bytes(), CONFIG);
    assert_eq!(made.codes(), ["layer-count"], "layers without a diff ID");
}

/// A deferred node is removed, replaced and linked to like an existing file, by every path to it.
#[test]
fn deferred_nodes_follow_the_layers() {
    let mut header = Tar::header(b"d/node", EntryType::Char, 0);
    header.set_device_major(0).unwrap();
    header.set_device_minor(0).unwrap();
    let node = |name: &str| {
        let mut header = header.clone();
        header.as_mut_bytes()[..100].fill(0);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        Tar::default().raw(header, b"").0
    };
    let base = Tar::default().dir("./").dir("d/").symlink("l", "/d");
    let first = Tar([base.0, node("l/node")].concat()).file("d/file", b"1").end();
    let deferred = |second: Tar| {
        let made = made(&[first.clone(), second.end()], |_| {});
        let missing = unpack(&made.dir(), "v1", &made.tree(), &Demand::default(), &Silent).unwrap();
        let there = fs_err::symlink_metadata(made.tree().join("d/file")).is_ok();
        let paths: Vec<String> = missing.nodes().keys().map(|path| path.to_str().unwrap().to_owned()).collect();
        (paths.join(" "), there)
    };
    assert_eq!(deferred(Tar::default().dir("d/")), ("d/node".into(), true));
    assert_eq!(deferred(Tar::default().file("l/.wh.node", b"")), (String::new(), true));
    assert_eq!(deferred(Tar::default().file("l/.wh..wh..opq", b"")), (String::new(), false));
    assert_eq!(deferred(Tar::default().file("d/.wh..wh..opq", b"")), (String::new(), false));
    assert_eq!(deferred(Tar::default().file(".wh.l", b"")), ("d/node".into(), true));
    assert_eq!(deferred(Tar::default().file(".wh.d", b"")), (String::new(), false));
    assert_eq!(deferred(Tar::default().file("l/node", b"2")), (String::new(), true));
    assert_eq!(deferred(Tar::default().hardlink("h", "l/node")), ("d/node h".into(), true));
    assert_eq!(deferred(Tar::default().hardlink("d/file", "l/node")), ("d/file d/node".into(), false));
    assert_eq!(deferred(Tar(node("l/file"))), ("d/file d/node".into(), false));
    assert_eq!(deferred(Tar::default().file("d", b"")), (String::new(), false));
}

#[test]
fn whiteouts_remove_nothing_outside_the_tree() {
    let place = tempfile::tempdir().unwrap();
    fs_err::write(place.path().join("canary"), "alive").unwrap();
    let target = place.path().to_str().unwrap();
    let first = Tar::default().dir("./").symlink("out", target).symlink("up", "../../../../..").end();
    let second = Tar::default()
        .file("out/.wh.canary", b"")
        .file(&format!("up{target}/.wh.canary"), b"")
        .file("out/.wh..wh..opq", b"")
        .end();
    let made = made(&[first, second], |_| {});
    made.unpack().unwrap();
    assert_eq!(fs_err::read_to_string(place.path().join("canary")).unwrap(), "alive");
}
