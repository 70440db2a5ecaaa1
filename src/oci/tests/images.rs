//! Finding an image in a layout, and images that list a layer several times.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Made, made, sample, umoci};
use crate::archive::unpack::refusal::{ReadError, code_of};
use crate::archive::unpack::tests::{Tar, is_root};
use crate::base::arch;
use crate::base::progress::Silent;
use crate::oci::Fault;
use crate::oci::layout::{CONFIG, INDEX};
use crate::oci::unpack::{Demand, unpack};
use crate::oci::validate::validate;

const NAME: &str = "org.opencontainers.image.ref.name";

fn index(made: &Made) -> Value {
    serde_json::from_slice(&fs_err::read(made.dir().join("index.json")).unwrap()).unwrap()
}

fn write(made: &Made, index: &Value) {
    fs_err::write(made.dir().join("index.json"), index.to_string()).unwrap();
}

/// Makes a layout whose tag is that of an index. `change` returns the images of the index.
fn in_index(change: impl Fn(Value) -> Vec<Value>) -> Made {
    let made = made(&sample(), |_| {});
    let mut image = index(&made)["manifests"][0].clone();
    image.as_object_mut().unwrap().remove("annotations");
    let below = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": change(image) });
    let mut below = made.blob(below.to_string().as_bytes(), INDEX);
    below["annotations"] = json!({ NAME: "v1" });
    write(&made, &json!({ "schemaVersion": 2, "manifests": [below] }));
    made
}

fn of_platform(image: &Value, os: &str, architecture: &str) -> Value {
    let mut image = image.clone();
    image["platform"] = json!({ "os": os, "architecture": architecture });
    image
}

/// Indexes as buildx and `skopeo copy --all` write them.
#[test]
fn the_image_for_this_machine_is_taken_from_an_index() {
    let other = |image: &Value| {
        let mut other = of_platform(image, "linux", "pdp11");
        other["digest"] = json!(format!("sha256:{}", "1".repeat(64)));
        other
    };
    let takes: [&dyn Fn(Value) -> Vec<Value>; 5] = [
        &|image| vec![image],
        &|image| vec![of_platform(&image, "linux", "pdp11")],
        &|image| vec![other(&image), of_platform(&image, "linux", arch::host().architecture)],
        &|image| vec![of_platform(&image, "linux", "pdp11"), of_platform(&other(&image), "unknown", "unknown")],
        &|image| {
            vec![
                of_platform(&other(&image), "windows", arch::host().architecture),
                of_platform(&image, "linux", arch::host().architecture),
            ]
        },
    ];
    for (number, take) in takes.into_iter().enumerate() {
        let made = in_index(take);
        made.unpack().unwrap_or_else(|error| panic!("{number}: {error}: {:?}", error.hint()));
        assert!(made.tree().join("gone/new").exists());
    }

    let made = in_index(|image| vec![other(&image), of_platform(&image, "linux", "vax")]);
    let error = made.unpack().unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let hint = error.hint().unwrap().to_owned();
    assert!(hint.contains(" (linux/pdp11)") && hint.contains(" (linux/vax)"), "{hint}");
    // An image that the hint lists.
    let digest = hint.lines().find(|line| line.contains("vax")).unwrap().split(' ').next().unwrap();
    unpack(&made.dir(), digest, &made.tree(), &Demand::default(), &Silent).unwrap();
    let none = format!("sha256:{}", "2".repeat(64));
    let error = unpack(&made.dir(), &none, &made.place.path().join("x"), &Demand::default(), &Silent).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    for (code, images) in [(2, vec![]), (3, vec![json!({ "mediaType": "text/plain", "digest": none, "size": 1 })])] {
        let made = in_index(|_| images.clone());
        assert_eq!(made.unpack().unwrap_err().exit_code(), code);
    }
}

#[test]
fn nested_indexes_are_followed_up_to_a_limit() {
    let nested = |depth: usize| {
        let made = in_index(|image| vec![image]);
        let digest = {
            let digest = index(&made)["manifests"][0]["digest"].as_str().unwrap().split_once(':').unwrap().1.to_owned();
            let below = fs_err::read(made.dir().join("blobs/sha256").join(digest)).unwrap();
            serde_json::from_slice::<Value>(&below).unwrap()["manifests"][0]["digest"].as_str().unwrap().to_owned()
        };
        for _ in 1..depth {
            let mut image = index(&made)["manifests"][0].clone();
            image.as_object_mut().unwrap().remove("annotations");
            // The same image twice is still one image.
            let below = json!({ "schemaVersion": 2, "manifests": [image.clone()] });
            let mut below = made.blob(below.to_string().as_bytes(), INDEX);
            below["annotations"] = json!({ NAME: "v1" });
            write(&made, &json!({ "schemaVersion": 2, "manifests": [below] }));
        }
        (made, digest)
    };
    let (deep, digest) = nested(8);
    deep.unpack().unwrap();
    fs_err::remove_dir_all(deep.tree()).unwrap();
    unpack(&deep.dir(), &digest, &deep.tree(), &Demand::default(), &Silent).unwrap();
    let (deeper, digest) = nested(9);
    assert_eq!(deeper.codes(), ["too-deep"]);
    assert_eq!(deeper.unpack().unwrap_err().exit_code(), 3);
    let error = unpack(&deeper.dir(), &digest, &deeper.tree(), &Demand::default(), &Silent).unwrap_err();
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn an_image_with_two_tags_is_one_image() {
    let made = made(&sample(), |_| {});
    let mut index = index(&made);
    let mut other = index["manifests"][0].clone();
    other["annotations"] = json!({ NAME: "v2" });
    let digest = other["digest"].as_str().unwrap().to_owned();
    index["manifests"].as_array_mut().unwrap().push(other);
    write(&made, &index);
    unpack(&made.dir(), &digest, &made.tree(), &Demand::default(), &Silent).unwrap();
}

/// Go writes an empty list as `null`.
#[test]
fn null_is_an_empty_list_and_not_a_missing_value() {
    let made = made(&sample(), |_| {});
    write(&made, &json!({ "schemaVersion": 2, "manifests": null }));
    let report = validate(&made.dir()).unwrap();
    assert!(report.is_valid() && report.images == 0, "{report:?}");
    let error = made.unpack().unwrap_err();
    assert_eq!((error.exit_code(), error.hint()), (2, Some("its index.json does not list any image")));
    write(&made, &json!({ "schemaVersion": 2 }));
    assert_eq!(made.codes()[0], "bad-json");

    let empty = super::made(&[], |manifest| manifest["layers"] = json!(null));
    assert_eq!(empty.codes(), [""; 0]);
    empty.unpack().unwrap();
    for key in ["schemaVersion", "config"] {
        let made = super::made(&sample(), |manifest| manifest[key] = json!(null));
        assert_eq!(made.codes()[0], "bad-json", "{key}");
    }
    for key in ["digest", "size", "mediaType"] {
        let made = super::made(&sample(), |manifest| manifest["layers"][0][key] = json!(null));
        assert_eq!(made.codes()[0], "bad-json", "{key}");
    }
}

#[test]
fn a_layer_may_be_listed_again() {
    let first = Tar::default().dir("./").file("x", b"1").dir("d/").file("d/old", b"1").end();
    let second = Tar::default().file(".wh.x", b"").file("d/.wh..wh..opq", b"").file("d/new", b"2").end();
    let made = made(&[first.clone(), second.clone(), first.clone(), second, first], |_| {});
    assert_eq!(made.codes(), [""; 0]);
    made.unpack().unwrap();
    for name in ["x", "d/old", "d/new"] {
        assert!(made.tree().join(name).exists(), "{name}");
    }
    if is_root("the comparison with umoci") && std::process::Command::new("umoci").arg("--version").output().is_ok() {
        assert_eq!(super::listing(&made.tree()), super::listing(&umoci(&made)));
    }
}

#[test]
fn an_empty_layer_is_read_only_once() {
    // A second gzip member of four megabytes of empty blocks.
    let header: &[u8] = &super::gz(b"")[..10];
    let blocks = [0, 0, 0, 0xff, 0xff].repeat(800_000);
    let nothing = [&super::gz(&[0; 1024]), header, &blocks, &[1, 0, 0, 0xff, 0xff], &[0; 8]].concat();
    let digest = format!("sha256:{}", super::hex(&Sha256::digest([0; 1024])));
    let of = |count: usize| {
        let made = made(&[], |_| {});
        let config = json!({ "os": "linux", "architecture": "amd64",
            "rootfs": { "type": "layers", "diff_ids": vec![&digest; count] } });
        let config = made.blob(config.to_string().as_bytes(), CONFIG);
        let layers = vec![made.blob(&nothing, super::GZIP); count];
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        let mut manifest = made.blob(manifest.to_string().as_bytes(), super::MANIFEST);
        manifest["annotations"] = json!({ NAME: "v1" });
        write(&made, &json!({ "schemaVersion": 2, "manifests": [manifest] }));
        made
    };
    // Reading the layer every time would take minutes.
    of(5000).unpack().unwrap();
    let error = of(20_000).unpack().unwrap_err();
    assert!(error.to_string().contains("[too-large]") && error.hint().unwrap().contains("--max-bytes"), "{error}");
}

#[test]
fn layers_that_are_listed_again_count_towards_the_limits() {
    let layer = Tar::default().dir("./").file("x", &[7; 5000]).end();
    let made = made(&vec![layer.clone(); 5], |_| {});
    let unpack = |bytes, entries| unpack(&made.dir(), "v1", &made.tree(), &Demand { bytes, entries }, &Silent);
    let size = layer.len() as u64;
    assert_eq!(unpack(Some(size * 5 - 1), None).unwrap_err().exit_code(), 3);
    assert_eq!(unpack(None, Some(9)).unwrap_err().exit_code(), 3);
    unpack(Some(size * 5), Some(10)).unwrap();
}

#[test]
fn failed_allocations_are_not_faults_of_a_layer() {
    use std::io::{Error, ErrorKind};
    let zstd = zstd::zstd_safe::get_error_name(64usize.wrapping_neg());
    assert!(zstd.contains("memory"), "{zstd}");
    for error in [Error::from(ErrorKind::OutOfMemory), Error::other(zstd), Error::from_raw_os_error(5)] {
        assert!(matches!(Fault::of_layer(ReadError::of(error, &[], 0), "x"), Fault::System(_)));
    }
    let other = Error::other(zstd::zstd_safe::get_error_name(20usize.wrapping_neg()));
    let fault = Fault::of_layer(ReadError::of(other, &[], 0), "x");
    assert!(matches!(fault, Fault::Wrong(reason) if reason.code == code_of(ErrorKind::Other)));
}

/// Deferred attributes of a file are kept while the file has a name.
#[test]
fn deferred_attributes_stay_with_the_other_names_of_a_file() {
    // The kernel does not allow such an attribute on a symlink.
    let attributes: &[(&str, &[u8])] = &[("SCHILY.xattr.user.x", b"1")];
    let first = Tar::default().dir("./").dir("d/").symlink("l", "d").pax(attributes).symlink("a", "target");
    let first = first.hardlink("l/b", "a").hardlink("c", "d/b").end();
    let deferred = |second: Tar| {
        let made = made(&[first.clone(), second.end()], |_| {});
        let missing = unpack(&made.dir(), "v1", &made.tree(), &Demand::default(), &Silent).unwrap();
        missing.xattrs().keys().map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(deferred(Tar::default().dir("d/")), "a c d/b");
    assert_eq!(deferred(Tar::default().file(".wh.a", b"")), "c d/b");
    assert_eq!(deferred(Tar::default().file("a", b"").file(".wh.c", b"")), "d/b");
    assert_eq!(deferred(Tar::default().file(".wh.a", b"").file(".wh.d", b"").hardlink("e", "c")), "c e");
    assert_eq!(deferred(Tar::default().file(".wh.a", b"").file("l/.wh.b", b"").file("c", b"")), "");
}
