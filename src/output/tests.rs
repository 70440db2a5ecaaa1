//! Publishing into real directories; no privilege needed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::Value;

use super::provenance::{BaseFact, Facts, RepositoryFact, StepFact, document};
use super::*;
use crate::archive::pack::Format;
use crate::base::digest::hex;
use crate::base::progress::Silent;
use crate::recipe::{
    BaseSpec, Build, Emerge, Job, Origin, Portage, ProfileName, RepositorySpec, Source, Strip, TreeKind,
};
use crate::source::repository::Fact;

pub(crate) fn job(outdir: &Path) -> Job {
    Job {
        name: "demo".to_owned(),
        source: Source {
            base: BaseSpec::File {
                path: "/secret/place/stage3-amd64-musl-1.tar.xz".into(),
                signature: Some("/secret/place/x.asc".into()),
                sha512: None,
                allow_unsigned: false,
            },
            mirrors: vec!["https://mirror.example".to_owned()],
            keyring: Some("/secret/keys.asc".into()),
            fingerprints: Vec::new(),
            max_age: 30 * 86_400,
            bounds: Default::default(),
        },
        portage: Portage {
            repositories: vec![RepositorySpec {
                origin: Origin::Location("/secret/repos/main".into()),
                priority: None,
                masters: None,
                eclass_overrides: None,
            }],
            binpkg: Some("/secret/binpkg".into()),
            distfiles: Some("/secret/distfiles".into()),
            binhost: Vec::new(),
            make_conf: BTreeMap::from([("CFLAGS".to_owned(), "-O2".to_owned())]),
            package_files: BTreeMap::new(),
            config: Some("/secret/etc".into()),
        },
        build: Build {
            profile: ProfileName { repo: None, path: "default/linux/amd64/23.0/musl".to_owned() },
            unblocker_profile: None,
            kind: TreeKind::Image,
            outdir: outdir.to_owned(),
            include_system: false,
            baselayout_atoms: Vec::new(),
            image_name: None,
            workdir_tmpfs: None,
            keep_failed: false,
            compression: crate::recipe::Compression::Gzip,
        },
        emerge: Emerge { packages: vec!["@profile".to_owned()], jobs: 2, options: Vec::new() },
        strip: Strip { doc: true, paths: Vec::new() },
        oci: Some(Oci {
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
        }),
    }
}

fn packed(bytes: &[u8]) -> Packed {
    use sha2::{Digest as _, Sha256};
    Packed {
        size: bytes.len() as u64,
        sha256: hex(&Sha256::digest(bytes)),
        diff_id: "d".repeat(64),
        tar_size: 9,
        entries: 1,
        format: Format::Gzip,
    }
}

fn run(outdir: &Path, bytes: &[u8]) -> Published {
    let job = job(outdir);
    let moment = SourceDate::new(1_700_000_000);
    let names = Names::of_job(&job, moment).unwrap();
    let staging = Staging::create(outdir, &Silent).unwrap();
    let mut tarball = staging.create_file(&names.tarball()).unwrap();
    tarball.write_all(bytes).unwrap();
    let release = Release {
        names: &names,
        title: &job.name,
        moment,
        platform: platform::of_job(&job),
        oci: job.oci.as_ref(),
        tarball: &tarball,
        packed: &packed(bytes),
        contents: b"listing",
        manifest: b"#mtree",
        provenance: b"{}",
    };
    publish(staging, &release).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs_err::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn everything_is_published_once_and_the_layer_is_the_tarball() {
    let scratch = tempfile::tempdir().unwrap();
    let outdir = scratch.path().join("new/out");
    let published = run(&outdir, b"first");
    let base = "demo-2023-11-14";
    let all = [".json", ".oci", ".tar.gz", ".tar.gz.CONTENTS.gz", ".tar.gz.mtree.gz", ".tar.gz.sha256"]
        .map(|end| format!("{base}{end}"));
    assert_eq!(names(&outdir), all);
    let (oci, tag) = published.oci.clone().unwrap();
    assert_eq!(tag, "20231114");
    let layer = oci.join("blobs/sha256").join(packed(b"first").sha256);
    let inode = |path: &Path| fs_err::metadata(path).unwrap().ino();
    assert_eq!(inode(&layer), inode(&published.tarball));

    // Again: replaced whole, the old layer gone with its layout.
    let published = run(&outdir, b"second");
    assert_eq!(names(&outdir), all);
    assert_eq!(fs_err::read(&published.tarball).unwrap(), b"second");
    assert!(!layer.exists());
    assert_eq!(names(&oci.join("blobs/sha256")).len(), 3);
}

#[test]
fn sha256sum_agrees() {
    let outdir = tempfile::tempdir().unwrap();
    let published = run(outdir.path(), b"bytes");
    #[allow(clippy::disallowed_methods, reason = "the test asks coreutils for its opinion")]
    let status = std::process::Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet"])
        .arg(&published.sha256)
        .current_dir(outdir.path())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn what_a_killed_build_left_is_removed_and_a_living_one_is_not() {
    let outdir = tempfile::tempdir().unwrap();
    let living = Staging::create(outdir.path(), &Silent).unwrap();
    living.create_file("half").unwrap();
    fs_err::create_dir_all(outdir.path().join(".quern-staging-7-0/a/b")).unwrap();
    fs_err::write(outdir.path().join(".quern-staging-7-0/a/b/c"), "x").unwrap();
    std::os::unix::fs::symlink("/", outdir.path().join(".quern-staging-7-0/root")).unwrap();
    // Whose name is like that is not of a build.
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
    assert_eq!(fs_err::read(&before.tarball).unwrap(), b"good");
    assert_eq!(names(outdir.path()).len(), 6);
}

#[test]
fn names_that_cannot_be_files_are_refused() {
    let mut job = job(Path::new("/out"));
    let moment = SourceDate::new(0);
    for (image_name, base) in [("rootfs", Some("rootfs")), ("../x", None), ("", None), ("a\nb", None), (".x", None)] {
        job.build.image_name = Some(image_name.to_owned());
        assert_eq!(Names::of_job(&job, moment).ok().map(|names| names.base).as_deref(), base, "{image_name}");
    }
}

#[test]
fn provenance_names_the_inputs_and_no_path_of_this_machine() {
    let facts = Facts {
        base: BaseFact::Stage3 {
            name: "stage3-amd64-musl-1.tar.xz",
            sha512: "ab",
            signer: Some("13EB"),
            how: "OpenPGP signature",
        },
        repositories: &[RepositoryFact { name: "gentoo", origin: &Fact::Directory { commit: Some("c".repeat(40)) } }],
        steps: &[StepFact { what: "packages".to_owned(), argv: vec!["emerge".to_owned(), "@profile".to_owned()] }],
    };
    let of = |outdir: &str| {
        document(&job(Path::new(outdir)), &facts, "x.tar.gz", &packed(b"x"), SourceDate::new(1)).unwrap()
    };
    let bytes = of("/secret/out");
    assert_eq!(bytes, of("/elsewhere/out"));
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains("/secret"), "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    let definition = &value["predicate"]["buildDefinition"];
    assert_eq!(definition["resolvedDependencies"][1]["digest"]["gitCommit"], "c".repeat(40));
    assert_eq!(definition["externalParameters"]["recipe"]["portage"]["repositories"][0]["location"], "gentoo");
    assert_eq!(definition["internalParameters"]["emerge"][0]["argv"][1], "@profile");
}
