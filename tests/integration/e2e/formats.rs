//! One image in all formats of `build.compression`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::image::companions;
use super::listing::Listing;
use super::{EPOCH, Stand, ask, text};
use crate::env::{PROGRAM, Privilege, output};

/// A recipe without Portage's records, which contain times.
const RECIPE: &str = "[emerge]\npackages = [\"app-test/tiny\"]\n[strip]\npaths = [\"/var/db/pkg\"]\n";

/// Values of `build.compression` with the suffix of the tarball, a command that decompresses it, and the media type of the layer.
const FORMATS: [(&str, &str, &[&str], Option<&str>); 5] = [
    ("none", ".tar", &["cat"], Some("v1.tar")),
    ("gzip", ".tar.gz", &["gzip", "-dc"], Some("v1.tar+gzip")),
    ("zstd", ".tar.zst", &["zstd", "-dc"], Some("v1.tar+zstd")),
    ("gzip-fast", ".tar.gz", &["gzip", "-dc"], Some("v1.tar+gzip")),
    ("xz", ".tar.xz", &["xz", "-dc"], None),
];

#[test]
fn userns_every_format_holds_the_same_image() {
    let Some(stand) = Stand::sharing(Privilege::Userns) else { return };
    let mut stand = stand.with_own_packages();
    stand.env.set("SOURCE_DATE_EPOCH", EPOCH);
    let mut plain = Vec::new();
    for (compression, ending, decode, layer) in FORMATS {
        stand.env.set("QUERN_BUILD_COMPRESSION", compression);
        let recipe = stand.recipe("same", &format!("{RECIPE}{}", if layer.is_some() { "[oci]\n" } else { "" }));
        let results = stand.built(&recipe);
        let tarball = &results[0];
        assert_eq!(tarball, &stand.env.outdir().join(format!("same-2023-11-14{ending}")));
        companions(tarball, &Listing::of(tarball));
        let decoded = decoded(tarball, decode);
        if plain.is_empty() {
            plain = decoded;
        } else {
            assert!(decoded == plain, "{compression}: the archive differs");
        }
        match layer {
            Some(layer) => layout_is_accepted(&stand, tarball, &results[1], layer),
            None => assert_eq!(results.len(), 1),
        }

        // The same bytes on a single processor.
        let bytes = fs::read(tarball).unwrap();
        if [".tar.zst", ".tar.xz"].contains(&ending) {
            let mut command = stand.env.command("taskset");
            command.args(["--cpu-list", "0", PROGRAM, "build", "--again=all", text(&recipe)]);
            assert_eq!(output(&mut command).success().results(), results);
            assert!(fs::read(tarball).unwrap() == bytes, "{compression}: the bytes differ");
        }
    }

    // All results are in the outdir, each with its companions.
    let mut expected = vec!["same-2023-11-14.json".to_owned(), "same-2023-11-14.oci".to_owned()];
    for ending in [".tar", ".tar.gz", ".tar.xz", ".tar.zst"] {
        let companions = ["", ".CONTENTS.gz", ".mtree.gz", ".sha256"];
        expected.extend(companions.map(|companion| format!("same-2023-11-14{ending}{companion}")));
    }
    expected.sort();
    let mut found: Vec<_> = fs::read_dir(stand.env.outdir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, expected);
    let check = "sha256sum --check --strict --quiet *.sha256";
    let _ = output(Command::new("sh").args(["-c", check]).current_dir(stand.env.outdir())).success();
}

fn decoded(tarball: &Path, decode: &[&str]) -> Vec<u8> {
    let file = fs::File::open(tarball).unwrap();
    let decoded = Command::new(decode[0]).args(&decode[1..]).stdin(file).output().unwrap();
    assert!(decoded.status.success(), "{}", String::from_utf8_lossy(&decoded.stderr));
    decoded.stdout
}

/// Checks that the layer is the tarball and has the right media type, and that this program and those of other projects accept the image.
fn layout_is_accepted(stand: &Stand, tarball: &Path, layout: &Path, media_type: &str) {
    let reference = format!("oci:{}:20231114", text(layout));
    let manifest: serde_json::Value = serde_json::from_str(&ask("skopeo", &["inspect", "--raw", &reference])).unwrap();
    let layer = &manifest["layers"][0];
    assert_eq!(layer["mediaType"], format!("application/vnd.oci.image.layer.{media_type}"));
    let blob = layout.join("blobs").join(layer["digest"].as_str().unwrap().replace(':', "/"));
    assert_eq!(fs::metadata(blob).unwrap().ino(), fs::metadata(tarball).unwrap().ino(), "the layer is a copy");
    // Copying reads every blob and compares its digest.
    let copy: PathBuf = stand.env.path(format!("copy-{media_type}"));
    ask("skopeo", &["--insecure-policy", "copy", "--quiet", &reference, &format!("dir:{}", text(&copy))]);
    ask("oci-image-tool", &["validate", "--type", "imageIndex", &format!("{}/index.json", text(layout))]);
    let _ = stand.env.run(["oci", "validate", text(layout)]).success();
    let tree = stand.env.path(format!("home/tree-{media_type}"));
    let _ = stand.env.run(["oci", "unpack", text(layout), "20231114", text(&tree)]).success();
    let flags = ask("cat", &[text(&tree.join("usr/share/tiny/flags"))]);
    assert!(flags.starts_with("foo="), "{flags}");
    ask("rm", &["--recursive", text(&tree)]);
}
