//! Tests that publish into real directories. They need no privileges.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::Value;

use super::provenance::{BaseOrigin, BinhostOrigin, Command, Inputs, RepositoryOrigin, document};
use super::*;
use crate::archive::pack::{Format, Packed};
use crate::base::digest::{Sha256, Sha512};
use crate::base::progress::Silent;
use crate::base::time::SourceDate;
use crate::recipe::{BaseSpec, Job, Oci, Origin, ProfileName, ProfileSpec, RepositorySpec, fixture};
use crate::source::RepositoryVersion;
use crate::source::fetched::FetchVersion;
use crate::store::Store;

pub(crate) fn job(outdir: &Path) -> Job {
    let mut job = fixture::job();
    job.name = "demo".to_owned();
    job.source.base = BaseSpec::File {
        path: "/secret/place/stage3-amd64-musl-1.tar.xz".into(),
        signature: Some("/secret/place/x.asc".into()),
        sha512: None,
        allow_unsigned: false,
    };
    job.source.keyring = Some("/secret/keys.asc".into());
    let origin = Origin::Location("/secret/repos/main".into());
    job.portage.repositories =
        vec![RepositorySpec { origin, priority: None, masters: None, eclass_overrides: None, kit: None }];
    job.portage.binpkg = Some("/secret/binpkg".into());
    job.portage.distfiles = Some("/secret/distfiles".into());
    job.portage.make_conf.insert("CFLAGS".to_owned(), "-O2".to_owned());
    job.portage.config = Some("/secret/etc".into());
    job.portage.patches = Some("/secret/patches".into());
    let path = "default/linux/amd64/23.0/musl".to_owned();
    job.build.profile = ProfileSpec::Named(ProfileName { repo: None, path });
    job.build.outdir = outdir.to_owned();
    job.emerge.jobs = 2;
    job.strip.doc = true;
    job.oci = Some(Oci {
        tag: "{date}".to_owned(),
        entrypoint: Vec::new(),
        cmd: vec!["/bin/sh".to_owned()],
        env: BTreeMap::new(),
        user: None,
        workdir: None,
        ports: Vec::new(),
        volumes: Vec::new(),
        labels: BTreeMap::new(),
        maintainer: None,
        cuts: Vec::new(),
        on_parent: false,
    });
    job
}

fn packed(bytes: &[u8]) -> Packed {
    Packed {
        size: bytes.len() as u64,
        sha256: Sha256::of(bytes),
        diff_id: Sha256::from([0xdd; 32]),
        tar_size: 9,
        entries: 1,
        format: Format::Gzip,
    }
}

fn run(outdir: &Path, bytes: &[u8]) -> Published {
    publish_with(outdir, bytes, None).unwrap()
}

/// Publishes `bytes` as the tarball of the recipe `claim.1` in the store `claim.0`.
fn publish_with(outdir: &Path, bytes: &[u8], claim: Option<(&Store, &Path)>) -> Result<Published> {
    let job = job(outdir);
    let spec = ImageSpec::of_job(&job, SourceDate::new(1_700_000_000)).unwrap();
    let staging = Staging::create(outdir, &Silent).unwrap();
    let mut tarball = staging.create_file(&spec.tarball()).unwrap();
    tarball.write_all(bytes).unwrap();
    let packed = packed(bytes);
    let content = Content {
        tarball: &tarball,
        packed: &packed,
        split: &[],
        layers: &[],
        contents: b"listing",
        manifest: b"#mtree",
        sbom: &[],
        provenance: b"{}",
    };
    let claim = claim.map(|(store, recipe)| Claim::new(store, outdir, &spec.base, recipe));
    publish(staging, spec.artifacts(&content).unwrap(), claim.as_ref())
}

fn tarball(published: &Published) -> &Path {
    published.path(&Role::Tarball).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs_err::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_result_is_published_and_the_layer_is_the_tarball() {
    let scratch = tempfile::tempdir().unwrap();
    let outdir = scratch.path().join("new/out");
    let published = run(&outdir, b"first");
    let base = "demo-2023-11-14";
    let all = [".json", ".oci", ".tar.gz", ".tar.gz.CONTENTS.gz", ".tar.gz.mtree.gz", ".tar.gz.sha256"]
        .map(|end| format!("{base}{end}"));
    assert_eq!(names(&outdir), all);
    let (oci, tag) = published.oci().unwrap();
    assert_eq!(tag, "20231114");
    let layer = oci.join("blobs/sha256").join(packed(b"first").sha256.hex());
    let inode = |path: &Path| fs_err::metadata(path).unwrap().ino();
    assert_eq!(inode(&layer), inode(tarball(&published)));

    // A second build replaces everything, and the old layer goes with its layout.
    let again = run(&outdir, b"second");
    assert_eq!(names(&outdir), all);
    assert_eq!(fs_err::read(tarball(&again)).unwrap(), b"second");
    assert!(!layer.exists());
    assert_eq!(names(&oci.join("blobs/sha256")).len(), 3);
}

#[test]
fn sha256sum_accepts_the_checksum_file() {
    let outdir = tempfile::tempdir().unwrap();
    let published = run(outdir.path(), b"bytes");
    #[allow(clippy::disallowed_methods, reason = "the test runs sha256sum")]
    let status = std::process::Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet"])
        .arg(published.path(&Role::Checksum).unwrap())
        .current_dir(outdir.path())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn staging_directories_of_dead_builds_are_removed_and_others_are_not() {
    let outdir = tempfile::tempdir().unwrap();
    let living = Staging::create(outdir.path(), &Silent).unwrap();
    living.create_file("half").unwrap();
    fs_err::create_dir_all(outdir.path().join(".quern-staging-7-0/a/b")).unwrap();
    fs_err::write(outdir.path().join(".quern-staging-7-0/a/b/c"), "x").unwrap();
    std::os::unix::fs::symlink("/", outdir.path().join(".quern-staging-7-0/root")).unwrap();
    // These are not staging directories, although their names are similar.
    let like = [".quern-notes", ".quern-staging-7", ".quern-staging-x-0"];
    like.iter().for_each(|name| fs_err::create_dir(outdir.path().join(name)).unwrap());
    drop(Staging::create(outdir.path(), &Silent).unwrap());
    let mut left = names(outdir.path());
    left.retain(|name| !like.contains(&&name[..]));
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(names(&outdir.path().join(&left[0])), ["half"]);
    drop(living);
    assert_eq!(names(outdir.path()).len(), like.len());
}

#[test]
fn a_failed_build_changes_nothing() {
    let outdir = tempfile::tempdir().unwrap();
    let before = run(outdir.path(), b"good");
    let staging = Staging::create(outdir.path(), &Silent).unwrap();
    staging.create_file("demo-2023-11-14.tar.gz").unwrap().write_all(b"half").unwrap();
    drop(staging);
    assert_eq!(fs_err::read(tarball(&before)).unwrap(), b"good");
    assert_eq!(names(outdir.path()).len(), 6);
}

#[test]
fn names_that_cannot_be_files_are_refused() {
    let mut job = job(Path::new("/out"));
    let date = SourceDate::new(0);
    for (image_name, base) in [("rootfs", Some("rootfs")), ("../x", None), ("", None), ("a\nb", None), (".x", None)] {
        job.build.image_name = Some(image_name.to_owned());
        assert_eq!(ImageSpec::of_job(&job, date).ok().map(|spec| spec.base).as_deref(), base, "{image_name}");
    }
}

#[test]
fn provenance_names_the_inputs_and_no_path_of_this_machine() {
    let fact = RepositoryVersion::Directory { commit: Some("c".repeat(40)), content: Some(Sha256::from([0xd; 32])) };
    let download = FetchVersion::File {
        url: "https://example.org/a.patch".to_owned(),
        sha256: Some(Sha256::from([7; 32])),
        sha512: None,
        unpacked: false,
    };
    let commit = FetchVersion::Git {
        url: "https://example.org/firmware.git".to_owned(),
        commit: "e".repeat(40),
        signer: None,
        trust_basis: "commit id in the recipe, unsigned".to_owned(),
    };
    let inputs = Inputs {
        base: BaseOrigin::Stage3 {
            name: "stage3-amd64-musl-1.tar.xz",
            sha512: Sha512::from([0xab; 64]),
            signer: Some("13EB"),
            verification: "OpenPGP signature",
        },
        repositories: vec![RepositoryOrigin {
            name: "gentoo",
            location: Some(Path::new("/secret/repos/main")),
            version: &fact,
        }],
        binhosts: vec![BinhostOrigin {
            url: "https://packages.example",
            sha512: Sha512::from([3; 64]),
            timestamp: Some("1795825081"),
            packages: vec![("app-test/tiny-1", Some("0011")), ("app-test/unsigned-1", None)],
        }],
        fetched: vec![("patch", &download), ("firmware", &commit)],
        commands: vec![Command {
            purpose: "packages".to_owned(),
            argv: vec!["emerge".to_owned(), "@profile".to_owned()],
        }],
    };
    let of = |outdir: &str| {
        let subjects = [("x.tar.gz".to_owned(), &packed(b"x"))];
        document(&job(Path::new(outdir)), &inputs, &subjects, SourceDate::new(1)).unwrap()
    };
    let bytes = of("/secret/out");
    assert_eq!(bytes, of("/elsewhere/out"));
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains("/secret"), "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    let definition = &value["predicate"]["buildDefinition"];
    assert_eq!(definition["resolvedDependencies"][1]["digest"]["gitCommit"], "c".repeat(40));
    let host = &definition["resolvedDependencies"][2];
    assert_eq!(
        (&host["uri"], &host["annotations"]["timestamp"]),
        (&"https://packages.example".into(), &"1795825081".into())
    );
    let packages = &host["annotations"]["packages"];
    assert_eq!(packages["app-test/tiny-1"]["signer"], "0011");
    assert!(packages["app-test/unsigned-1"]["signer"].is_null());
    let downloads = &definition["resolvedDependencies"];
    assert_eq!((&downloads[3]["name"], &downloads[3]["digest"]["sha256"]), (&"patch".into(), &"07".repeat(32).into()));
    assert_eq!(downloads[4]["digest"]["gitCommit"], "e".repeat(40));
    assert_eq!(definition["externalParameters"]["recipe"]["portage"]["repositories"][0]["location"], "gentoo");
    assert_eq!(definition["internalParameters"]["emerge"][0]["argv"][1], "@profile");
}

#[test]
fn another_recipe_of_the_same_name_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store")).unwrap();
    let outdir = place.path().join("out");
    let [first, second] = ["first.toml", "second.toml"].map(|name| place.path().join(name));
    [&first, &second].iter().for_each(|recipe| fs_err::write(recipe, "").unwrap());
    let build = |recipe: &Path, bytes: &[u8]| publish_with(&outdir, bytes, Some((&store, recipe)));

    let published = build(&first, b"first").unwrap();
    let content = || fs_err::read(tarball(&published)).unwrap();
    let before = names(&outdir);
    let error = build(&second, b"second").unwrap_err();
    assert_eq!((error.exit_code(), content(), names(&outdir)), (2, b"first".to_vec(), before));
    assert!(error.to_string().contains("first.toml"), "{error}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("build.image-name") && hint.contains("--outdir"), "{hint}");
    // The outdir by another path is the same outdir.
    std::os::unix::fs::symlink(&outdir, place.path().join("link")).unwrap();
    assert!(publish_with(&place.path().join("link"), b"second", Some((&store, &second))).is_err());

    // The same recipe, also after an edit, replaces its results.
    fs_err::write(&first, "edited").unwrap();
    build(&first, b"again").unwrap();
    assert_eq!(content(), b"again");
    // A recipe that was moved keeps its results.
    let moved = place.path().join("moved.toml");
    fs_err::rename(&first, &moved).unwrap();
    build(&moved, b"moved").unwrap();
    assert_eq!(content(), b"moved");
    assert!(build(&second, b"second").is_err());
    // Without results the name is free.
    fs_err::remove_dir_all(&outdir).unwrap();
    build(&second, b"second").unwrap();
    assert_eq!(content(), b"second");
    assert!(build(&moved, b"moved").is_err());
    // Nobody knows whether a recipe from standard input is the same as a file.
    assert!(build(Path::new("-"), b"input").is_err());
    let elsewhere = place.path().join("elsewhere");
    publish_with(&elsewhere, b"input", Some((&store, Path::new("-")))).unwrap();
    assert!(publish_with(&elsewhere, b"file", Some((&store, &second))).is_err());
}

#[test]
fn a_check_of_a_claim_changes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store")).unwrap();
    let (outdir, recipe) = (place.path().join("out"), place.path().join("demo.toml"));
    Claim::new(&store, &outdir, "demo", &recipe).check().unwrap();
    assert!(!outdir.exists());
    assert_eq!(names(&store.root().join("refs")), [""; 0]);
}

#[test]
fn claims_of_removed_results_are_forgotten() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store")).unwrap();
    let (outdir, recipe) = (place.path().join("out"), place.path().join("demo.toml"));
    fs_err::create_dir(&outdir).unwrap();
    let keep = |base: &str| {
        Claim::new(&store, &outdir, base, &recipe).keep().unwrap();
        fs_err::write(outdir.join(format!("{base}.json")), "").unwrap();
    };
    keep("demo-1");
    keep("demo-2");
    assert_eq!(names(&store.root().join("refs/results")).len(), 2);
    fs_err::remove_file(outdir.join("demo-1.json")).unwrap();
    keep("demo-3");
    assert_eq!(names(&store.root().join("refs/results")).len(), 2);
}
