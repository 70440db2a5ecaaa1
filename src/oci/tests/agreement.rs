//! Malformed and odd layouts, for which `validate` and `unpack` must give the same verdict.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{GZIP, Made, gz, hex, made, sample};
use crate::archive::unpack::tests::Tar;
use crate::oci::layout::CONFIG;

/// Requires that `validate` reports exactly this fault, if any, and that `unpack` refuses or accepts the same layout.
fn agree(case: &str, made: &Made, code: Option<&str>) {
    assert_eq!(made.codes(), code.into_iter().collect::<Vec<_>>(), "{case}");
    let unpacked = made.unpack();
    let error = unpacked.as_ref().err().map(|error| (error.exit_code(), error.to_string()));
    match code {
        None => assert!(unpacked.is_ok(), "{case}: {error:?}"),
        Some(code) => {
            let (exit, text) = error.unwrap_or_else(|| panic!("{case}: unpack accepts {code}"));
            let cause = std::error::Error::source(unpacked.as_ref().unwrap_err()).map(ToString::to_string);
            assert_eq!(exit, 3, "{case}");
            assert!(format!("{text} {cause:?}").contains(&format!("[{code}]")), "{case}: {text} {cause:?}");
        }
    }
}

fn tar() -> Tar {
    Tar::default()
}

/// A whiteout with a name that the header has no space for.
fn long_whiteout(length: usize) -> Tar {
    let name = format!("d/.wh.{}", "n".repeat(length));
    tar().pax(&[("path", name.as_bytes())]).file("short", b"")
}

#[test]
fn layers_get_the_same_verdict_in_every_place() {
    let cases: Vec<(&str, Tar, Option<&str>)> = vec![
        ("a duplicate file", tar().file("x", b"1").file("x", b"2"), None),
        ("a duplicate directory", tar().dir("d/").dir("d/"), None),
        ("a directory that replaces a file", tar().file("x", b"1").dir("x/"), None),
        ("a file that replaces a directory", tar().dir("x/").file("x/y", b"1").file("x", b"2"), None),
        ("a symlink that replaces a file", tar().file("x", b"1").symlink("x", "y"), None),
        ("a duplicate hard link", tar().file("x", b"1").hardlink("y", "x").hardlink("y", "x"), None),
        ("a hard link to itself", tar().file("x", b"1").hardlink("x", "x"), None),
        ("a duplicate through a symlink", tar().dir("d/").symlink("l", "d").file("l/x", b"1").file("d/x", b"2"), None),
        ("a whiteout of a file of the same layer", tar().file("x", b"1").file(".wh.x", b""), None),
        ("a duplicate whiteout", tar().file(".wh.x", b"").file(".wh.x", b""), None),
        ("a whiteout of a name with 252 bytes", long_whiteout(252), None),
        ("a whiteout of a name with 255 bytes", long_whiteout(255), None),
        ("a whiteout of a name with 256 bytes", long_whiteout(256), Some("name-too-long")),
        ("a file with a name of 256 bytes", tar().pax(&[("path", &[b'n'; 256])]).file("x", b""), Some("name-too-long")),
        ("a whiteout with data", tar().file(".wh.x", b"1"), Some("bad-whiteout")),
        ("a whiteout that is a directory", tar().dir(".wh.x/"), Some("bad-whiteout")),
        (
            "a hard link to a long whiteout",
            {
                let target = format!(".wh.{}", "n".repeat(255));
                tar().pax(&[("linkpath", target.as_bytes())]).hardlink("x", "y")
            },
            Some("bad-whiteout"),
        ),
        ("a hard link to nothing", tar().hardlink("x", "y"), Some("bad-link")),
        ("a hard link to a directory", tar().dir("d/").hardlink("x", "d"), Some("bad-link")),
        ("a hard link to a later file", tar().hardlink("x", "y").file("y", b"1"), Some("bad-link")),
        ("a hard link to a symlink", tar().symlink("l", "nowhere").hardlink("x", "l"), None),
        ("a hard link through a symlink", tar().file("d/x", b"1").symlink("l", "/d").hardlink("y", "l/x"), None),
        ("a hard link below a file", tar().file("x", b"1").hardlink("y", "x/z"), Some("bad-link")),
        (
            "a hard link in place of its target's directory",
            tar().file("d/x", b"1").hardlink("d", "d/x"),
            Some("bad-link"),
        ),
        ("a file below a file", tar().file("x", b"1").file("x/y", b"2"), Some("bad-parent")),
        ("a file below a dangling symlink", tar().symlink("l", "nowhere").file("l/x", b"1"), Some("bad-parent")),
        (
            "a file below a loop of symlinks",
            tar().symlink("l", "m").symlink("m", "l").file("l/x", b"1"),
            Some("bad-parent"),
        ),
        ("a file below a symlink out of the tree", tar().symlink("l", "../..").file("l/x", b"1"), None),
        (
            "a file below a symlink to a file",
            tar().file("x", b"1").symlink("l", "x").file("l/y", b"1"),
            Some("bad-parent"),
        ),
        ("a file in directories without entries", tar().file("a/b/c", b"1").file("a/b/d", b"1"), None),
        ("a root that is a file", tar().file("./", b""), Some("ambiguous-type")),
        ("a name with `..`", tar().file("a/../b", b""), Some("parent-in-name")),
    ];
    for (case, layer, code) in cases {
        let (layer, below) = (layer.end(), tar().dir("./").file("below", b"1").end());
        for layers in [vec![layer.clone()], vec![below.clone(), layer.clone()], vec![layer.clone(), below]] {
            agree(case, &made(&layers, |_| {}), code);
        }
    }
}

#[test]
fn layers_over_others_get_the_same_verdict() {
    let below =
        tar().dir("./").file("f", b"1").dir("d/").file("d/x", b"1").symlink("l", "d").symlink("n", "nowhere").end();
    let cases: Vec<(&str, Tar, Option<&str>)> = vec![
        ("a hard link to a lower file", tar().hardlink("h", "l/x"), None),
        ("a hard link to a removed file", tar().file("d/.wh.x", b"").hardlink("h", "d/x"), Some("bad-link")),
        (
            "a hard link to a file that is removed later",
            tar().hardlink("h", "d/x").file("l/.wh.x", b""),
            Some("bad-link"),
        ),
        (
            "a hard link into an emptied directory",
            tar().file("d/.wh..wh..opq", b"").hardlink("h", "d/x"),
            Some("bad-link"),
        ),
        ("a hard link past a replaced symlink", tar().dir("l/").file("l/.wh.x", b"").hardlink("h", "d/x"), None),
        ("a hard link to a replaced directory", tar().file("d", b"2").hardlink("h", "d/x"), Some("bad-link")),
        ("a file below a removed file", tar().file(".wh.f", b"").file("f/x", b"2"), None),
        ("a file below a lower file", tar().file("f/x", b"2"), Some("bad-parent")),
        ("a file below a dangling symlink", tar().file("n/x", b"2"), Some("bad-parent")),
        ("a file below a symlink whose target appears", tar().dir("nowhere/").file("n/x", b"2"), None),
        ("a directory in place of a symlink", tar().dir("l/").file("l/y", b"2").hardlink("h", "l/x"), Some("bad-link")),
    ];
    for (case, layer, code) in cases {
        agree(case, &made(&[below.clone(), layer.end()], |_| {}), code);
    }
}

#[test]
fn the_last_of_several_duplicates_stays() {
    let layer = tar().dir("./").file("x", b"1").dir("d/").file("d/y", b"1").file("x", b"2").file("d", b"2").end();
    for layers in [vec![layer.clone()], vec![tar().dir("./").end(), layer]] {
        let made = made(&layers, |_| {});
        made.unpack().unwrap();
        for name in ["x", "d"] {
            assert_eq!(fs_err::read_to_string(made.tree().join(name)).unwrap(), "2", "{name}");
        }
        assert_eq!(super::listing(&made.tree()), super::listing(&super::umoci(&made)));
    }
}

#[test]
fn whiteouts_of_the_longest_names_remove_their_files() {
    for length in 250..=255 {
        let name = format!("d/{}", "n".repeat(length));
        let first = tar().dir("./").dir("d/").file("d/stays", b"1").pax(&[("path", name.as_bytes())]).file("x", b"1");
        let made = made(&[first.end(), long_whiteout(length).end()], |_| {});
        agree("a long whiteout", &made, None);
        assert!(!made.tree().join(&name).exists() && made.tree().join("d/stays").exists(), "{length}");
    }
}

#[test]
fn the_ends_of_layers_may_be_missing_or_padded() {
    let entries = tar().dir("./").file("x", b"1").0;
    let plain = |layer: &[u8]| made(&[layer.to_vec()], |_| {});
    agree("no zero blocks", &plain(&entries), None);
    agree("one zero block", &plain(&[&entries[..], &[0; 512]].concat()), None);
    agree("an end within a header", &plain(&entries[..entries.len() - 700]), Some("truncated"));
    // The data is one byte long: only its padding is cut off, as by `umoci insert`.
    agree("an end within the last padding", &plain(&entries[..entries.len() - 500]), None);
    let long = tar().file("x", &[1; 600]).0;
    agree("an end within the data", &plain(&long[..1100]), Some("truncated"));
    for padding in [1, 512, 5000] {
        let layer = [gz(&tar().file("x", b"1").end()), vec![0; padding]].concat();
        let made = made(&[tar().file("x", b"1").end()], |manifest| {
            let digest = format!("sha256:{}", hex(&Sha256::digest(&layer)));
            manifest["layers"][0] = json!({ "mediaType": GZIP, "digest": digest, "size": layer.len() });
        });
        made.blob(&layer, GZIP);
        agree("gzip padded with zeros", &made, None);
    }
}

#[test]
fn embedded_data_is_compared_with_its_descriptor() {
    let config = |manifest: &Value, made: &Made| {
        let name = manifest["config"]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        fs_err::read(made.dir().join("blobs/sha256").join(name)).unwrap()
    };
    // The bytes of every configuration of the sample.
    let first = made(&sample(), |_| {});
    let bytes = std::cell::RefCell::new(Vec::new());
    let _ = made(&sample(), |manifest| *bytes.borrow_mut() = config(manifest, &first));
    let bytes = bytes.into_inner();
    let mut other = bytes.clone();
    other[0] ^= 1;
    let encode = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    let cases = [
        ("the same bytes", encode(&bytes), None),
        ("other bytes", encode(&other), Some("digest-mismatch")),
        ("fewer bytes", encode(&bytes[1..]), Some("size-mismatch")),
        ("no bytes", String::new(), Some("size-mismatch")),
        ("not base64", "%%%%".to_owned(), Some("bad-json")),
        ("base64 with a line break", encode(&bytes) + "\n", Some("bad-json")),
        ("base64 without padding", encode(&bytes[..bytes.len() - bytes.len() % 3]) + "AA", Some("bad-json")),
    ];
    for (case, data, code) in cases {
        for place in ["config", "layers"] {
            let made = made(&sample(), |manifest| {
                let descriptor = manifest["config"].clone();
                if place == "layers" {
                    // An entry of the list that is the same blob: the layer count is wrong as well.
                    manifest["layers"].as_array_mut().unwrap().push(descriptor);
                }
                let at = if place == "config" { &mut manifest["config"] } else { &mut manifest["layers"][3] };
                at["data"] = json!(data);
            });
            match (place, code) {
                ("layers", None) => assert!(made.codes().contains(&"layer-count"), "{case}"),
                _ => agree(case, &made, code),
            }
        }
        // In an index: the data of the manifest's descriptor is that of another blob.
        let made = made(&sample(), |_| {});
        let path = made.dir().join("index.json");
        let mut index: Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
        let name = index["manifests"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        let manifest = fs_err::read(made.dir().join("blobs/sha256").join(name)).unwrap();
        index["manifests"][0]["data"] = json!(if code.is_none() { encode(&manifest) } else { data });
        fs_err::write(&path, index.to_string()).unwrap();
        match code {
            None => agree(case, &made, None),
            Some(_) => {
                assert!(!made.codes().is_empty(), "{case}");
                assert_eq!(made.unpack().unwrap_err().exit_code(), 3, "{case}");
            }
        }
    }
}

#[test]
fn documents_get_the_same_verdict() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str); 6] = [
        ("an unknown version", |manifest| manifest["schemaVersion"] = json!(1), "bad-version"),
        ("another media type", |manifest| manifest["mediaType"] = json!(CONFIG), "bad-media-type"),
        ("a layer that is not one", |manifest| manifest["layers"][0]["mediaType"] = json!(CONFIG), "bad-media-type"),
        ("a layer less", |manifest| drop(manifest["layers"].as_array_mut().unwrap().pop()), "layer-count"),
        ("an unknown digest", |manifest| manifest["layers"][2]["digest"] = json!("md5:0"), "bad-digest"),
        ("a wrong size", |manifest| manifest["layers"][2]["size"] = json!(1), "size-mismatch"),
    ];
    for (case, change, code) in cases {
        agree(case, &made(&sample(), change), Some(code));
    }
    let configurations = [
        (json!({ "type": "layers", "diff_ids": [] }), None),
        (json!({ "type": "other", "diff_ids": [] }), Some("bad-config")),
        (json!({ "type": "layers", "diff_ids": ["sha256:0"] }), Some("layer-count")),
        (json!({ "type": "layers" }), Some("bad-json")),
    ];
    for (rootfs, code) in configurations {
        let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs }).to_string();
        let digest = format!("sha256:{}", hex(&Sha256::digest(&config)));
        let made = made(&[], |manifest| {
            manifest["config"] = json!({ "mediaType": CONFIG, "digest": digest, "size": config.len() });
        });
        made.blob(config.as_bytes(), CONFIG);
        agree(&rootfs.to_string(), &made, code);
    }
}
