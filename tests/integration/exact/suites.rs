//! Test files of other projects for decoders and validators, other than archives.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::env::{TestEnv, output, require_suites};

/// Files that bzip2 decompresses with a warning: unchecked bytes follow the stream.
const GARBAGE: [&str; 2] = ["gap.bz2", "trash.bz2"];

/// Runs a filter over `input`. Returns whether it succeeded, and its output.
fn filter(command: &mut Command, input: &[u8]) -> (bool, Vec<u8>) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The filter may stop reading early.
    let writer = std::thread::spawn(move || drop(to.write_all(&input)));
    let done = child.wait_with_output().unwrap();
    writer.join().unwrap();
    (done.status.success(), done.stdout)
}

/// Each file is put in the middle of an archive, between two streams of the same format.
#[test]
fn bzip2_files_of_other_projects_are_decompressed() {
    let Some(suites) = require_suites() else { return };
    let env = TestEnv::new();
    let owner = fs::metadata(env.path("tmp")).unwrap();
    let (mut good, mut bad, mut wrong) = (0, 0, Vec::new());
    for entry in fs::read_dir(suites.join("bzip2")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = fs::read(&path).unwrap();
        let (accepted, plain) = filter(env.command("bzip2").arg("-dc"), &bytes);
        let mut header = tar::Header::new_ustar();
        header.set_path("file").unwrap();
        header.set_mode(0o644);
        header.set_size(plain.len() as u64);
        header.set_uid(owner.uid().into());
        header.set_gid(owner.gid().into());
        header.set_cksum();
        let compressed = |bytes: &[u8]| filter(env.command("bzip2").arg("-c"), bytes).1;
        let end = vec![0; plain.len().wrapping_neg() % 512 + 1024];
        let archive = [compressed(header.as_bytes()), bytes, compressed(&end)].concat();
        fs::create_dir(env.path("tree")).unwrap();
        let (taken, _) = filter(&mut env.program(["raw", "unpack", "--root", "tree"]), &archive);
        match taken {
            true if accepted && fs::read(env.path("tree/file")).unwrap() == plain => good += 1,
            false if !accepted || GARBAGE.contains(&&name[..]) => bad += 1,
            _ => wrong.push(format!("{name}: taken {taken}, by bzip2 {accepted}")),
        }
        fs::remove_dir_all(env.path("tree")).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(good >= 15 && bad >= 10, "{good} good, {bad} bad");
}

/// Writes a layout with `document` as its only blob, as the descriptor of a blob, or as the marker file `oci-layout`.
fn layout(dir: &Path, kind: &str, document: &str) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |kind: &str, bytes: &str| {
        let name = base16(&Sha256::digest(bytes));
        fs::write(blobs.join(&name), bytes).unwrap();
        let media_type = format!("application/vnd.oci.image.{kind}.v1+json");
        json!({ "mediaType": media_type, "digest": format!("sha256:{name}"), "size": bytes.len() }).to_string()
    };
    let descriptor = match kind {
        "descriptor" => document.to_owned(),
        "imageindex" => blob("index", document),
        "config" => {
            let config: Value = serde_json::from_str(&blob("config", document)).unwrap();
            blob("manifest", &json!({ "schemaVersion": 2, "config": config, "layers": [] }).to_string())
        }
        "manifest" => blob("manifest", document),
        _ => String::new(),
    };
    let marker = if kind == "imagelayout" { document } else { r#"{"imageLayoutVersion":"1.0.0"}"# };
    fs::write(dir.join("oci-layout"), marker).unwrap();
    fs::write(dir.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}]}}"#)).unwrap();
}

fn base16(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The documents are those of the specification's own schema tests. Blobs that they refer to are missing, which is not an error here.
#[test]
fn documents_are_judged_as_the_specification_judges_them() {
    let Some(suites) = require_suites() else { return };
    let (mut count, mut wrong) = (0, Vec::new());
    for entry in fs::read_dir(suites.join("oci")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let kind = name.split('-').next().unwrap();
        // Docker's documents are not OCI images.
        if kind == "backwards_compatibility" {
            continue;
        }
        let env = TestEnv::new();
        layout(&env.path("layout"), kind, &fs::read_to_string(&path).unwrap());
        let found = output(&mut env.program(["oci", "validate", "--json", "layout"]));
        let findings = found.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut codes: BTreeSet<String> = findings.map(|found| found["code"].as_str().unwrap().to_owned()).collect();
        for absent in ["missing-blob", "layer-count", "unknown-media-type"] {
            codes.remove(absent);
        }
        // The specification allows images without layers, such as this one.
        if kind == "config" {
            codes.remove("no-layers");
        }
        if codes.is_empty() == name.ends_with("-bad") {
            wrong.push(format!("{name}: {codes:?}, {}", found.stdout));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 40, "{count} documents");
}
