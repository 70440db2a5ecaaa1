//! The example `profiles/musl-python3.toml`: musl and CPython from source. It takes minutes, unless `QUERN_TEST_BINPKGS` names a
//! directory with the binary packages of an earlier build.

use std::fs;
use std::path::Path;

use super::listing::Listing;
use super::{Stand, ask, text};
use crate::env::{Privilege, is_root, output};

#[test]
fn userns_the_example_builds_and_runs() {
    let Some(mut stand) = Stand::sharing(Privilege::Userns) else { return };
    if let Some(packages) = std::env::var_os("QUERN_TEST_BINPKGS").filter(|path| !path.is_empty()) {
        stand = stand.with_own_packages();
        ask("cp", &["--recursive", packages.to_str().expect("a plain path"), text(&stand.packages())]);
        ask("chown", &["--recursive", "--reference", text(&stand.env.outdir()), text(&stand.packages())]);
    }
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/musl-python3.toml");
    // The outdir need not exist.
    let outdir = stand.env.outdir().join("new");
    let results = stand.env.run(["build", "--again=all", text(&recipe), "--outdir", text(&outdir)]).success().results();

    let ran =
        stand.shell(&recipe, &["--image"], &["/usr/bin/python3", "-c", "import sys, zlib, ctypes; print(sys.version)"]);
    assert!(ran.success().stdout.starts_with("3.11."));
    let listing = Listing::of(&results[0]);
    let loader = listing.get("usr/lib/ld-musl-x86_64.so.1");
    assert!(loader.mode.starts_with(['-', 'l']), "{loader:?}");
    let mapped = ["-c", "print(open('/proc/self/maps').read())"];
    let mapped = stand.shell(&recipe, &["--image"], &["/usr/bin/python3", mapped[0], mapped[1]]).success().stdout;
    // musl is a single file; its loader is a link to it.
    assert!(mapped.contains("/usr/lib/libc.so\n") && !mapped.contains("libc.so.6"), "{mapped}");
    let unwanted = [
        "usr/share/doc/",
        "usr/share/man/",
        "usr/share/info/",
        "var/db/pkg",
        "usr/lib/python3.11/test/",
        "usr/lib/python3.11/unittest/test",
    ];
    let found: Vec<_> = listing
        .names()
        .filter(|name| unwanted.iter().any(|path| name.starts_with(path)) && !name.contains("/.keep"))
        .collect();
    assert!(found.is_empty(), "{found:?}");

    let layout = &results[1];
    let index: serde_json::Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let tag = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().expect("a tag");
    let reference = format!("oci:{}:{tag}", text(layout));
    ask("skopeo", &["inspect", &reference]);
    if is_root() {
        // Options for small virtual machines with old cgroups. Runs in a mount namespace, because podman leaves its storage mounted.
        let mut podman = std::process::Command::new("unshare");
        podman.args(["--mount", "--propagation", "private", "podman"]);
        // Podman names the image after the path, which must be in lower case.
        let name = format!("quern-test-podman-{}", std::process::id());
        let place = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir_in(crate::env::scratch()).unwrap();
        let copy = place.path().join("layout");
        ask("cp", &["--recursive", text(layout), text(&copy)]);
        let reference = format!("oci:{}:{tag}", text(&copy));
        let (store, run) = (place.path().join("store"), place.path().join("run"));
        podman.args(["--root", text(&store), "--runroot", text(&run)]);
        podman.args(["--runtime", "runc", "--cgroup-manager=cgroupfs", "run", "--rm", "--network", "none"]);
        podman.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", &reference]);
        podman.args(["-c", "print(sum(range(10)))"]);
        assert_eq!(output(&mut podman).success().stdout, "45\n");
    }
}
