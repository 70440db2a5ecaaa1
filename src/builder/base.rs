//! The base of a build: a stage3 from the store, or the host.

use std::path::Path;

use rustix::fs::FileType;

use super::host::Host;
use super::overlays::OverlayMount;
use crate::archive::unpack::Deferred;
use crate::base::error::Result;
use crate::base::time;
use crate::fs::rootfs::Rootfs;
use crate::portage::accelerate::Tools;
use crate::portage::{BuilderInfo, portage_version};
use crate::recipe::{Job, TreeKind};
use crate::store::trees::Tree;
use crate::store::work::{Below, WorkPaths};

/// The time of a base that has none: the first one that zip archives can hold.
const FIRST_EPOCH: u64 = 315_532_800;

/// The read-only part of a builder tree. The store keeps a stage3 for as long as this value lives.
#[derive(Debug)]
pub enum Base {
    /// A stage3 that is unpacked in the store.
    Stage3(Tree),
    /// The running system.
    Host(Host),
}

impl Base {
    /// Its identity, as the work directory records it.
    pub fn below(&self) -> Below {
        match self {
            Self::Stage3(tree) => Below::Stage3(tree.sha512()),
            Self::Host(_) => Below::Host,
        }
    }

    /// Names the base in a sentence.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Stage3(_) => "the base",
            Self::Host(_) => "the host",
        }
    }

    /// The time of the base, in seconds since 1970: the one in the name of a stage3, or else the beginning of 1980.
    pub fn epoch(&self) -> u64 {
        match self {
            Self::Stage3(tree) => date_in(tree.name()).unwrap_or(FIRST_EPOCH),
            Self::Host(_) => FIRST_EPOCH,
        }
    }

    /// Returns the overlays through which a build sees the base. Directories for them are created in `paths`.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if something cannot be made.
    pub fn overlays(&self, paths: &WorkPaths) -> Result<Vec<OverlayMount>> {
        match self {
            Self::Stage3(tree) => Ok(vec![OverlayMount::root(tree.root())]),
            Self::Host(host) => host.overlays(paths),
        }
    }

    /// Looks up the facts about it that the configuration and the emerge commands depend on.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if it cannot be read.
    pub fn info(&self, cpus: u32) -> Result<BuilderInfo> {
        match self {
            Self::Stage3(tree) => info(&Rootfs::open(&tree.root())?, |_| true, cpus),
            Self::Host(host) => host.info(cpus),
        }
    }

    /// Names the kind of base for the key of a package cache: the name of the stage3 without its date.
    pub fn variant(&self) -> String {
        match self {
            Self::Stage3(tree) => variant(tree.name()),
            Self::Host(_) => "host".to_owned(),
        }
    }

    /// The nodes that the kernel refused to make when the shipped tree was unpacked. A stage4 contains the stage3.
    pub fn record(&self, job: &Job) -> Deferred {
        match (job.build.kind, self) {
            (TreeKind::Stage4, Self::Stage3(tree)) => tree.record().clone(),
            _ => Deferred::default(),
        }
    }
}

/// Looks up the facts about the builder tree `root`, of which a build sees the paths for which `seen` returns true.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if it cannot be read.
pub fn info(root: &Rootfs, seen: impl Fn(&Path) -> bool, cpus: u32) -> Result<BuilderInfo> {
    let sandbox = Path::new("usr/bin/sandbox");
    let sandbox = seen(sandbox) && root.stat(sandbox)?.is_some();
    Ok(BuilderInfo { sandbox, cpus, portage: installed_portage(root, seen)?, date: None, tools: Tools::UNKNOWN })
}

/// Finds Portage's version in the package database, or in the name of its Python distribution.
fn installed_portage(root: &Rootfs, seen: impl Fn(&Path) -> bool) -> Result<Option<[u32; 3]>> {
    let named = |directory: &Path| -> Result<Option<[u32; 3]>> {
        let stat = if seen(directory) { root.stat(directory)? } else { None };
        if stat.is_none_or(|stat| !FileType::from_raw_mode(stat.st_mode).is_dir()) {
            return Ok(None);
        }
        let names = root.read_dir(directory)?;
        Ok(names.iter().find_map(|(name, _)| portage_version(name.to_str()?)))
    };
    if let Some(version) = named(Path::new("var/db/pkg/sys-apps"))? {
        return Ok(Some(version));
    }
    let lib = Path::new("usr/lib");
    if root.stat(lib)?.is_none() {
        return Ok(None);
    }
    for (name, _) in root.read_dir(lib)? {
        if name.to_str().is_some_and(|name| name.starts_with("python3"))
            && let Some(version) = named(&lib.join(name).join("site-packages"))?
        {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

/// Finds the timestamp in the name of a stage3.
fn date_in(name: &str) -> Option<u64> {
    name.split(['-', '.']).find_map(time::of_build_timestamp)
}

/// Takes the dates and the suffix out of the name of a stage3.
fn variant(name: &str) -> String {
    let stem = name.split(".tar").next().unwrap_or(name);
    let is_date = |word: &str| word.len() >= 8 && word.bytes().all(|b| b.is_ascii_digit() || b"TZ".contains(&b));
    // Funtoo writes `2026-11-28`.
    let is_part = |word: &str| (word.len() == 2 || word.len() == 4) && word.bytes().all(|b| b.is_ascii_digit());
    let mut words: Vec<&str> = stem.split('-').filter(|word| !is_date(word)).collect();
    while words.len() > 3 && words[words.len() - 3..].iter().all(|word| is_part(word)) {
        words.truncate(words.len() - 3);
    }
    words.join("-").trim_start_matches("stage3-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::variant;

    #[test]
    fn the_variant_of_a_stage3_has_no_date() {
        assert_eq!(variant("stage3-amd64-openrc-20261126T225959Z.tar.xz"), "amd64-openrc");
        assert_eq!(variant("stage3-generic_64-1.4-release-std-2026-11-28.tar.xz"), "generic_64-1.4-release-std");
        assert_eq!(variant("my-own.tar.gz"), "my-own");
    }
}
