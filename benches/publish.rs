//! Measures the cost of the OCI layout: `cargo bench --bench publish [-- TREE]`.
//!
//! The benchmark packs and publishes a tree with and without the layout in turns, by default a tree that it makes. CPU time is that of
//! the whole process. The last line shows the cost of publishing alone, because the time of packing varies by more than that.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use quern_builder::testing::{
    Compression, Content, Contents, Deferred, ImageSpec, Oci, Options, Outputs, Platform, Result, Rootfs, Silent,
    SourceDate, Staging, Tree, pack, publish,
};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 9;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let place = tempfile::tempdir()?;
    let given = std::env::args_os().skip(1).map(PathBuf::from).find(|argument| !argument.starts_with("--bench"));
    let tree = match given {
        Some(tree) => tree,
        None => make_tree(&place.path().join("tree"))?,
    };
    let oci = Oci {
        tag: "{date}".to_owned(),
        entrypoint: vec!["/bin/sh".to_owned()],
        cmd: Vec::new(),
        env: BTreeMap::new(),
        user: None,
        workdir: None,
        ports: Vec::new(),
        volumes: Vec::new(),
        labels: BTreeMap::new(),
        maintainer: None,
        cuts: Vec::new(),
        on_parent: false,
    };
    let cases = [("the tarball", None), ("the tarball and the layout", Some(&oci))];
    let mut all = [Vec::new(), Vec::new()];
    let mut publishing = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (at, (_, oci)) in cases.iter().enumerate() {
            let [packed, published] = spent(&tree, &place.path().join("out"), *oci)?;
            all[at].push(packed + published);
            publishing[at].push(published);
        }
    }
    let mut out = std::io::stdout().lock();
    let all = all.map(least_and_median);
    for ((name, _), [least, median]) in cases.iter().zip(&all) {
        let ratio = |at: usize, seconds: &f64| seconds / all[0][at];
        writeln!(
            out,
            "{name:27} {least:7.3} s CPU ({median:7.3})  {:5.3} x ({:5.3})",
            ratio(0, least),
            ratio(1, median)
        )?;
    }
    let [[without, _], [with, _]] = publishing.map(least_and_median);
    let (more, of) = ((with - without) * 1e3, all[0][0]);
    writeln!(out, "publishing the layout costs {more:.2} ms CPU, {:.3} % of all; minimum (median)", more / of / 10.0)?;
    Ok(())
}

/// Returns the CPU seconds of packing a tree and of publishing it.
fn spent(tree: &Path, outdir: &Path, oci: Option<&Oci>) -> Result<[f64; 2]> {
    let before = cpu();
    let date = SourceDate::new(1_700_000_000);
    let spec = ImageSpec {
        sbom: &[],
        base: "bench".to_owned(),
        suffix: Compression::Gzip.suffix(),
        title: "bench",
        date,
        platform: Platform { architecture: "amd64", variant: None },
        split: Vec::new(),
        oci,
        packages: false,
    };
    let staging = Staging::create(outdir, &Silent)?;
    let mut tarball = staging.create_file(&spec.tarball())?;
    let (mut contents, mut manifest) = (Contents::new(), Contents::new());
    let tree = Tree { root: &Rootfs::open(tree)?, deferred: &Deferred::default(), part: None };
    let outputs = Outputs { archive: &mut tarball, contents: Some(&mut contents), manifest: Some(&mut manifest) };
    let packed = pack(tree, outputs, &Options { epoch: date.epoch(), ..Default::default() }, &Silent)?;
    let (contents, manifest) = (contents.finish()?, manifest.finish()?);
    let between = cpu();
    let content = Content {
        sbom: &[],
        tarball: &tarball,
        packed: &packed,
        split: &[],
        layers: &[],
        contents: &contents,
        manifest: &manifest,
        provenance: b"{}\n",
    };
    publish(staging, spec.artifacts(&content)?, None)?;
    Ok([between - before, cpu() - between])
}

/// Makes a tree of 64 MiB in 4096 files that compress about as well as programs.
fn make_tree(tree: &Path) -> std::io::Result<PathBuf> {
    let mut noise = 1u64;
    for number in 0..4096 {
        let data: Vec<u8> = (0..16 << 10)
            .map(|at| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if at % 3 == 0 { (noise >> 58) as u8 } else { b'x' }
            })
            .collect();
        let directory = tree.join((number / 64).to_string());
        fs_err::create_dir_all(&directory)?;
        fs_err::write(directory.join(number.to_string()), data)?;
    }
    Ok(tree.to_owned())
}

fn least_and_median(mut seconds: Vec<f64>) -> [f64; 2] {
    seconds.sort_by(f64::total_cmp);
    [seconds[0], seconds[seconds.len() / 2]]
}

/// Returns the CPU time of all threads of this process so far, in seconds.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
