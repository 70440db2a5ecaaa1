//! The binary packages of one build: those of earlier builds with the same key, which it may take, and its own, which later builds may
//! take.
//!
//! A build writes into a PKGDIR of its own. It sees the packages of earlier builds read-only, through an index that leaves out those
//! whose sources have changed since. After each step, [`Packages::keep`] takes over the new packages, outside any sandbox.

mod answers;
mod configured;
mod keep;
#[cfg(test)]
mod killed;
mod shelf;
mod used;

pub use used::Used;

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::base::Base;
use super::query::{Answer, Query};
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::progress::{Progress, Target};
use crate::base::text::plain;
use crate::enter::overlay::{self, Mounted, Overlay};
use crate::fs::atomic;
use crate::fs::rootfs::Rootfs;
use crate::plan::view::{Caches, View};
use crate::portage::binpkg::exclude::Exclusion;
use crate::portage::binpkg::index::Index;
use crate::portage::binpkg::key::Key;
use crate::portage::binpkg::settings::{self, Settings};
use crate::portage::binpkg::source::Sources;
use crate::portage::{BuilderInfo, Resolved};
use crate::recipe::{Job, TreeKind};
use crate::store::Store;
use crate::store::layers::KeptPackages;
use crate::store::packages::Shelf;
use crate::store::work::WorkPaths;

/// The packages of a build. They are recorded in its work directory, so that the next build keeps those of a killed one.
#[derive(Debug, Serialize, Deserialize)]
pub struct Packages {
    /// The beginning of the build, in seconds since 1970.
    began: i64,
    /// True if the builder tree is shipped.
    in_place: bool,
    /// True until the build has ended.
    open: bool,
    /// True if later builds may take them.
    write: bool,
    sources: Sources,
    parts: Vec<Part>,
}

/// The packages for one tree.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    target: Target,
    /// The directory of the packages of earlier builds.
    directory: PathBuf,
    key: Key,
    /// Packages that were built without settings of single packages, if this build has such settings.
    #[serde(default)]
    plain: Option<Plain>,
    /// True if the directory may have another key.
    any_key: bool,
    /// The header of an index of them.
    header: std::collections::BTreeMap<String, String>,
    /// Paths of the private packages that were looked at.
    #[serde(skip)]
    seen: std::collections::BTreeSet<PathBuf>,
}

/// The packages of the key without settings of single packages: user patches, lines of `package.env`, scripts in `env`.
#[derive(Debug, Serialize, Deserialize)]
struct Plain {
    directory: PathBuf,
    key: Key,
    /// The packages that have such settings.
    exclusion: Exclusion,
}

/// A builder tree, mounted and configured, that packages are made or taken in.
pub struct Place<'a> {
    pub job: &'a Job,
    pub resolved: &'a Resolved,
    pub base: &'a Base,
    pub info: &'a BuilderInfo,
    pub caches: &'a Caches,
    /// The root of the builder tree.
    pub root: &'a Rootfs,
    pub work: &'a WorkPaths,
    /// Portage's configuration in it, without the parts that differ between a build and a shell.
    pub configuration: &'a str,
    /// True if nothing was merged into it yet.
    pub fresh: bool,
    /// Runs a command in it.
    pub ask: &'a dyn Fn(&Query) -> Result<Answer>,
}

impl Packages {
    /// Finds the keys of the packages of a build. Run it before anything is merged.
    ///
    /// # Errors
    /// [`Kind::Build`] if Portage does not report its settings.
    pub fn new(place: &Place<'_>) -> Result<Self> {
        let Place { job, caches, .. } = *place;
        let image = job.build.kind == TreeKind::Image;
        let reported = reported(place, image)?;
        let builder = if image { Target::Builder } else { Target::Image };
        let mut parts = Vec::new();
        for (settings, target) in reported.iter().zip([builder, Target::Image]) {
            let (key, others) = configured::keys(place, settings, target)?;
            let own = caches.binpkg.as_ref().filter(|_| target == Target::Image);
            let directory = own.cloned().unwrap_or_else(|| caches.packages.join(key.name()));
            // A directory that the recipe names has no other beside it.
            let plain = others.filter(|_| own.is_none()).map(|(key, exclusion)| Plain {
                directory: caches.packages.join(key.name()),
                key,
                exclusion,
            });
            let any_key = own.is_some() && job.portage.binpkg_shared;
            let (header, seen) = (settings.header(), Default::default());
            parts.push(Part { target, directory, key, plain, any_key, header, seen });
        }
        let began = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        Ok(Self {
            began: i64::try_from(began).unwrap_or(0),
            in_place: !image,
            open: true,
            write: job.portage.binpkg_write && !job.emerge.binary_only,
            sources: Sources::new(&place.resolved.repos),
            parts,
        })
    }

    /// Returns the settings that decide the content of packages, for all trees.
    pub fn settings(&self) -> String {
        self.parts.iter().map(|part| part.key.text()).collect()
    }

    /// Takes away the right to change anything in the cache.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { write: false, ..self }
    }

    /// Offers the packages of earlier builds: writes the indexes that emerge reads, and adds the mounts to `view`.
    ///
    /// # Errors
    /// [`Kind::Usage`] if a directory of the recipe has packages of another key, [`Kind::System`] if something cannot be read or
    /// written.
    pub fn offer(&self, work: &WorkPaths, view: &mut View) -> Result<()> {
        for part in &self.parts {
            let (private, index) = (work.private_packages(part.target), work.package_index(part.target));
            for path in [&work.packages(), &private, &index] {
                let making = || "making the directories for packages";
                fs_err::create_dir_all(path).system(making)?;
                // Portage's own user must reach them, whatever the umask is.
                fs_err::set_permissions(path, Permissions::from_mode(0o755)).system(making)?;
            }
            // A directory that nothing may be written to need not exist. An empty one takes its place.
            let shelf = match self.write || part.directory.exists() {
                true if self.write => Shelf::make(&part.directory)?,
                true => Shelf::open(&part.directory)?,
                false => {
                    let empty = work.packages().join("empty");
                    Shelf::make(&empty)?
                }
            };
            shelf::claim(&shelf, part, self.write)?;
            let plain = shelf::plain(part)?;
            let shelves = shelf::Shelves { own: &shelf, plain: plain.as_ref() };
            shelf::offer(shelves, part, &self.sources, self.write, &Shelf::open(&index)?)?;
            view.provide(part.target, shelf.path(), plain.as_ref().map(Shelf::path));
        }
        Ok(())
    }

    /// Records them in the work directory.
    ///
    /// # Errors
    /// [`Kind::System`] if the record cannot be written.
    pub fn record(&self, work: &WorkPaths) -> Result<()> {
        let text = serde_json::to_vec(self).context(Kind::System, || "recording the packages of the build")?;
        atomic::replace(&work.packages_record(), &text, 0o600)
    }

    /// Takes over the new packages of the build in `work` for later builds. Warns of everything in its PKGDIR that is not a package it
    /// built.
    ///
    /// # Errors
    /// [`Kind::System`] if a package cannot be copied or an index cannot be written.
    pub fn keep(&mut self, work: &WorkPaths, ui: &dyn Progress) -> Result<()> {
        if !self.write {
            return Ok(());
        }
        let Self { began, in_place, sources, parts, .. } = self;
        let run = keep::Run { began: *began, sources, built: keep::built(work, *in_place) };
        parts.iter_mut().try_for_each(|part| keep::part(part, &run, work, ui))
    }

    /// Records that they were taken over, or are not to be.
    ///
    /// # Errors
    /// [`Kind::System`] if the record cannot be written.
    pub fn done(&mut self, work: &WorkPaths) -> Result<()> {
        self.open = false;
        self.record(work)
    }

    /// Returns the packages of the last build in `work`, if there was one.
    pub fn of_last_build(work: &WorkPaths) -> Option<Self> {
        serde_json::from_slice(&fs_err::read(work.packages_record()).ok()?).ok()
    }

    /// Returns the directory with the packages of the image and those of other builds with the same key.
    pub fn directory(&self) -> Option<&Path> {
        self.parts.iter().find(|part| part.target == Target::Image).map(Part::directory)
    }

    /// Returns those of the packages `merged` in `tree` that are among the packages of the image's key, unless the recipe names their
    /// directory. `all` is the directory of the packages of all keys.
    ///
    /// # Errors
    /// [`Kind::System`] if their index or a record of the tree cannot be read.
    pub(super) fn kept(&self, merged: Vec<String>, tree: &Rootfs, all: &Path) -> Result<Option<KeptPackages>> {
        let of_store = self.directory().and_then(|directory| Some((directory, directory.strip_prefix(all).ok()?)));
        let Some((directory, name)) = of_store else { return Ok(None) };
        let there = names(directory)?;
        let mut names = Vec::new();
        for cpv in merged {
            let used::Installed { cpv, flags, .. } = used::Installed::read(tree, cpv)?;
            names.extend(Some(format!("{cpv} {flags}")).filter(|name| there.contains(name)));
        }
        let directory = name.to_string_lossy().into_owned();
        Ok((!names.is_empty()).then_some(KeptPackages { directory, names }))
    }

    /// Shows the packages of the image's key in one directory: those of earlier builds, and those that the build in `work` has made so far.
    ///
    /// # Errors
    /// [`Kind::System`] if the kernel refuses a mount.
    pub(super) fn shown(&self, work: &WorkPaths) -> Result<Shown> {
        let own = Some(work.private_packages(Target::Image)).filter(|_| !self.write);
        let all = own.into_iter().chain(self.directory().map(Path::to_owned));
        let mut directories: Vec<PathBuf> = all.filter(|path| path.exists()).collect();
        if directories.len() < 2 {
            let path = directories.pop().unwrap_or_else(|| work.packages().join("empty"));
            Shelf::make(&path)?;
            return Ok(Shown { path, _mounted: None });
        }
        let path = work.packages().join("shown");
        let showing = || "showing the packages of the build";
        fs_err::create_dir_all(&path).system(showing)?;
        let at = fs_err::File::open(&path).system(showing)?;
        let mounted = overlay::mount(Overlay { lowers: &directories, upper: None }, at.as_fd(), &path)?;
        Ok(Shown { path, _mounted: Some(mounted) })
    }

    /// Takes over the packages of a build in `work` that was killed, if there are any.
    ///
    /// # Errors
    /// Those of [`Packages::keep`].
    pub fn recover(work: &WorkPaths, ui: &dyn Progress) -> Result<()> {
        match Self::of_last_build(work).filter(|packages| packages.open) {
            Some(mut packages) => packages.keep(work, ui),
            None => Ok(()),
        }
    }
}

/// Returns true if the store has all of these packages.
///
/// # Errors
/// [`Kind::System`] if their index cannot be read.
pub(super) fn are_there(kept: &KeptPackages, store: &Store) -> Result<bool> {
    let there = names(&Store::packages(store.root()).join(&kept.directory))?;
    Ok(kept.names.iter().all(|name| there.contains(name)))
}

/// Returns the names of the packages in a directory and their USE flags, as its index says.
fn names(directory: &Path) -> Result<BTreeSet<String>> {
    if !directory.exists() {
        return Ok(BTreeSet::new());
    }
    let index = Shelf::open(directory)?.index()?.and_then(|bytes| Index::read(&bytes).ok());
    let packages = index.map(|index| index.packages).unwrap_or_default();
    Ok(packages.iter().map(|package| format!("{} {}", package.cpv(), package.get("USE"))).collect())
}

/// The packages of a build as its scripts see them, read-only. Dropping this ends the view.
#[derive(Debug)]
pub(in crate::builder) struct Shown {
    path: PathBuf,
    _mounted: Option<Mounted>,
}

impl Shown {
    /// Returns their directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Returns Portage's settings: the builder's, and the image's if there is one. Asks Portage if the store does not know them.
fn reported(place: &Place<'_>, image: bool) -> Result<Vec<Settings>> {
    let kept = answers::Kept::of(place);
    if let Some(known) = kept.as_ref().and_then(answers::Kept::read).filter(|told| told.len() == 1 + usize::from(image))
    {
        return Ok(known);
    }
    let mut query = Query::new(settings::command(image));
    // Compiled files of Python would change the tree.
    query.env.insert("PYTHONDONTWRITEBYTECODE".into(), "1".into());
    let answer = (place.ask)(&query)?;
    let told = match answer.exit.success() {
        true => settings::parse(&answer.stdout).ok().filter(|told| told.len() == 1 + usize::from(image)),
        false => None,
    };
    // A package that was merged could have changed the answer, and with it the key of later builds.
    if let (Some(kept), true, true) = (kept, place.fresh, told.is_some()) {
        kept.write(&answer.stdout)?;
    }
    told.ok_or_else(|| {
        Error::build("the builder's Portage does not report its settings")
            .with_details(tail(&answer.stderr))
            .with_hint("the builder needs a Portage that its python3 can import")
    })
}

/// Returns the last lines of an output.
fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut lines: Vec<String> = text.lines().rev().take(10).map(|line| plain(line, 200)).collect();
    lines.reverse();
    lines.join("\n")
}

impl Part {
    /// Returns the path of the directory of earlier builds' packages.
    fn directory(&self) -> &Path {
        &self.directory
    }
}
