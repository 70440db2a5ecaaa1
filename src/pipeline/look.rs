//! The steps of a recipe and their states, as far as they are known without a build.

use std::path::Path;

use super::below::Ebuilds;
use super::plan::stage3;
use super::{StepOptions, base, hash, repositories, stored};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Silent;
use crate::base::text::quoted;
use crate::builder::base::Base;
use crate::builder::chain::Chain;
use crate::builder::look::{Configurations, LookParts, Seen, look};
use crate::lockfile::Locked;
use crate::plan::Plan;
use crate::plan::status::Status;
use crate::plan::view::Caches;
use crate::portage::{self, BuilderInfo, emerge};
use crate::recipe::{BaseSpec, Job, OtherImage, Portage, ProfileName, ProfileSpec, Source};
use crate::source::{ResolveOptions, Site, binhost, fetched};
use crate::store::Store;
use crate::store::work::{Scratch, WorkPaths};

/// The steps of a recipe, or the reason why they are not known.
pub(super) type Looked = std::result::Result<Seen, String>;

/// The limit on the images whose layers are remembered. A tree is looked at from the top down, so the images above the next one are among
/// the last.
const MAX_IMAGES: usize = 64;
/// The limit on their layers, which are open files.
const MAX_LAYERS: usize = 256;
/// The limit on the bases that are remembered, and on the sources of packages.
const MAX_INPUTS: usize = 16;

/// The images and their inputs that were looked at in a run, each once: the images of a tree have parents and inputs in common. Belongs to
/// a command that builds nothing, because nothing is looked at again.
#[derive(Debug, Default)]
pub struct Looks {
    /// The lock file's inputs, with which everything here was found.
    locked: Option<Locked>,
    /// The directory for mounts.
    scratch: Option<Scratch>,
    /// The bases by their sources; `None` for one that the store lacks.
    bases: Vec<(Source, Option<(Base, BuilderInfo)>)>,
    ebuilds: Vec<KnownEbuilds>,
    configurations: Configurations,
    /// The layers of images, those that were used last at the end.
    images: Vec<(OtherImage, Layers)>,
}

/// The layers of an image. `None` if one of its steps would run; or the reason why they are not known.
type Layers = std::result::Result<Option<Chain>, String>;

#[derive(Debug)]
struct KnownEbuilds {
    sources: Sources,
    /// `None` if the store lacks some.
    found: Option<Ebuilds>,
    /// True if the digests of directories are known. They take a while.
    hashed: bool,
}

/// The parts of a recipe on which its repositories, profiles and hosts of binary packages depend.
#[derive(Debug, PartialEq, Eq)]
struct Sources {
    source: Source,
    portage: Portage,
    profile: (ProfileSpec, Vec<String>),
    unblocker: Option<ProfileName>,
    merges_profile: bool,
}

impl Sources {
    fn of(job: &Job) -> Self {
        Self {
            source: job.source.clone(),
            portage: job.portage.clone(),
            profile: (job.build.profile.clone(), job.build.profile_packages.clone()),
            unblocker: job.build.unblocker_profile.clone(),
            merges_profile: job.emerge.packages.iter().any(|atom| atom == "@profile"),
        }
    }
}

/// A recipe whose inputs are known, and the layers that it starts on.
struct Start<'a> {
    job: &'a Job,
    origin: &'a Path,
    options: &'a StepOptions,
    base: &'a Base,
    info: BuilderInfo,
    ebuilds: &'a Ebuilds,
    below: Chain,
}

impl Looks {
    /// Returns the steps of an image and of those whose packages it merges, and their states, or the reason why they are not known.
    ///
    /// # Errors
    /// Those of the look, and of the inputs that the store has.
    pub fn states(&mut self, image: &OtherImage, at: &Site<'_>) -> Result<std::result::Result<Vec<Status>, String>> {
        let seen = self.steps(&image.job, &image.origin, &StepOptions::default(), at)?;
        let (all, layers) = match seen {
            Ok(Seen { steps, chain, lacks }) => (Ok(steps), layers(chain, lacks)),
            Err(why) => (Err(why.clone()), Err(why)),
        };
        self.keep(image, layers);
        let Ok(mut all) = all else { return Ok(all) };
        for OtherImage { job, origin } in &image.job.configurations {
            match self.steps(job, origin, &StepOptions::default(), at)? {
                Ok(seen) => all.extend(seen.steps.into_iter().map(|step| {
                    let name = format!("{}:{}", job.name, step.name);
                    Status { name, ..step }
                })),
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(Ok(all))
    }

    /// Looks at the steps of the recipe `job` from the file `origin`, after those of the image that it starts from. No server is asked, and
    /// nothing is unpacked or kept.
    ///
    /// # Errors
    /// Those of [`look`], and of the inputs that the store has.
    pub(super) fn steps(&mut self, job: &Job, origin: &Path, options: &StepOptions, at: &Site<'_>) -> Result<Looked> {
        self.begin(at);
        tracing::debug!("looking at the steps of {}", job.path);
        let mut parent = None;
        if let Some(from) = &job.from {
            match self.layers(from, at)? {
                Ok(chain) => parent = Some(chain.of_parent(&from.job.path)),
                Err(why) => return Ok(Err(why)),
            }
        }
        let mut volumes = Vec::new();
        for (name, other) in job.volumes_of_others() {
            match self.layers(other, at)? {
                Ok(chain) => volumes.push((name, chain)),
                Err(why) => return Ok(Err(why)),
            }
        }
        let Some(at_base) = self.base(job, at)? else { return missing("the stage3 and the repositories are") };
        let Some(at_ebuilds) = self.ebuilds(job, at_base, at)? else { return missing("the repositories are") };
        let scratch = match self.scratch.take() {
            Some(scratch) => scratch,
            None => at.store.scratch()?,
        };
        let scratch = self.scratch.insert(scratch);
        let (Some((base, info)), Some(ebuilds)) = (&self.bases[at_base].1, &self.ebuilds[at_ebuilds].found) else {
            return missing("the stage3 and the repositories are");
        };
        let mut below = parent.unwrap_or_else(|| Chain::over(base));
        volumes.iter().for_each(|(name, chain)| below.borrow(name, chain));
        let start = Start { job, origin, options, base, info: info.clone(), ebuilds, below };
        start.look(scratch.paths(), &mut self.configurations, at)
    }

    /// Forgets everything if the lock file has other inputs.
    fn begin(&mut self, at: &Site<'_>) {
        if self.locked.as_ref() != at.options.locked {
            *self = Self { locked: at.options.locked.cloned(), ..Self::default() };
        }
    }

    /// Returns the layers of an image, or the reason why they are not known.
    ///
    /// # Errors
    /// Those of [`Looks::steps`].
    pub(super) fn layers(&mut self, image: &OtherImage, at: &Site<'_>) -> Result<std::result::Result<Chain, String>> {
        self.begin(at);
        let same = |(known, _): &(OtherImage, Layers)| known.origin == image.origin && known.job == image.job;
        let layers = match self.images.iter().position(same) {
            Some(known) => self.images.remove(known).1,
            None => {
                let seen = self.steps(&image.job, &image.origin, &StepOptions::default(), at)?;
                seen.and_then(|Seen { chain, lacks, .. }| layers(chain, lacks))
            }
        };
        let copy = match &layers {
            Ok(Some(chain)) => Ok(chain.lowest(usize::MAX, at.store)?),
            Ok(None) => Err(format!("unknown until the image {} is built", image.job.path)),
            Err(why) => Err(why.clone()),
        };
        self.keep(image, layers);
        Ok(copy)
    }

    fn keep(&mut self, image: &OtherImage, layers: Layers) {
        self.images.push((image.clone(), layers));
        let held = |images: &[(OtherImage, Layers)]| {
            Chain::held(images.iter().filter_map(|(_, layers)| layers.as_ref().ok()?.as_ref()))
        };
        while self.images.len() > MAX_IMAGES || (self.images.len() > 1 && held(&self.images) > MAX_LAYERS) {
            self.images.drain(..1);
        }
    }

    /// Returns the index of the base of a recipe, if the store has it.
    fn base(&mut self, job: &Job, at: &Site<'_>) -> Result<Option<usize>> {
        let known = self.bases.iter().position(|(source, _)| *source == job.source);
        let index = match known {
            Some(index) => index,
            None => {
                let found = known_base(job, at)?;
                if self.bases.len() >= MAX_INPUTS {
                    self.bases.remove(0);
                }
                self.bases.push((job.source.clone(), found));
                self.bases.len() - 1
            }
        };
        Ok(self.bases[index].1.is_some().then_some(index))
    }

    /// Returns the index of the sources of packages of a recipe on the base `base`, if the store has them.
    fn ebuilds(&mut self, job: &Job, base: usize, at: &Site<'_>) -> Result<Option<usize>> {
        let sources = Sources::of(job);
        let index = match self.ebuilds.iter().position(|known| known.sources == sources) {
            Some(index) => {
                portage::check_settings(job)?;
                index
            }
            None => {
                let found = known_ebuilds(job, at)?;
                if self.ebuilds.len() >= MAX_INPUTS {
                    self.ebuilds.remove(0);
                }
                self.ebuilds.push(KnownEbuilds { sources, found, hashed: false });
                self.ebuilds.len() - 1
            }
        };
        let KnownEbuilds { found, hashed, .. } = &mut self.ebuilds[index];
        let (Some(ebuilds), Some((_, info))) = (found, &self.bases[base].1) else { return Ok(None) };
        let merges = !emerge::steps(job, &ebuilds.resolved, info).is_empty()
            || job.steps.iter().any(|step| step.action.is_emerge());
        if merges && !std::mem::replace(hashed, true) {
            hash(&mut ebuilds.repositories, &Silent)?;
        }
        Ok(Some(index))
    }
}

/// Returns the layers of an image whose steps were looked at.
fn layers(chain: Option<Chain>, lacks: Option<String>) -> Layers {
    match lacks {
        Some(event) => Err(format!("unknown until {event}")),
        None => Ok(chain),
    }
}

fn missing(what: &str) -> Result<Looked> {
    Ok(Err(format!("unknown until {what} in the store: `quern-builder fetch` gets them")))
}

/// Returns the surroundings of a look that asks no server.
fn offline<'a>(at: &Site<'a>) -> Site<'a> {
    Site { ui: &Silent, options: ResolveOptions { offline: true, ..at.options }, ..*at }
}

/// Returns the base of a recipe, if the store has it.
fn known_base(job: &Job, at: &Site<'_>) -> Result<Option<(Base, BuilderInfo)>> {
    if !matches!(job.source.base, BaseSpec::Host { .. }) {
        let there = match stage3(job, at.store, at.options.locked)? {
            Some(sha512) => at.store.tree(&sha512, || {})?.is_some(),
            None => false,
        };
        if !there {
            return Ok(None);
        }
    }
    let base = base(job, &offline(at))?.0;
    let info = base.info(at.cpus)?;
    Ok(Some((base, info)))
}

/// Returns the sources of packages of a recipe, without the digests of directories, if the store has them.
fn known_ebuilds(job: &Job, at: &Site<'_>) -> Result<Option<Ebuilds>> {
    if stored(job, at.store)?.is_none() {
        return Ok(None);
    }
    let offline = &offline(at);
    let (repositories, resolved) = match repositories(job, offline) {
        Err(error) if error.kind() == Kind::Network => return Ok(None),
        found => found?,
    };
    let binhosts = if at.options.offline { binhost::binhosts(job, offline)? } else { binhost::known(job, offline)? };
    Ok(Some(Ebuilds { repositories, resolved, binhosts }))
}

/// Looks at the steps of a recipe whose inputs are known, on the layers `below`.
///
/// # Errors
/// Those of [`look`].
pub(super) fn seen(
    job: &Job,
    origin: &Path,
    (options, base, below): (&StepOptions, &Base, Chain),
    ebuilds: &Ebuilds,
    at: &Site<'_>,
) -> Result<Looked> {
    let start = Start { job, origin, options, base, info: base.info(at.cpus)?, ebuilds, below };
    start.look(at.store.scratch()?.paths(), &mut Configurations::default(), at)
}

impl Start<'_> {
    /// Looks at the steps. The directory for mounts is `scratch`.
    fn look(self, scratch: &WorkPaths, configurations: &mut Configurations, at: &Site<'_>) -> Result<Looked> {
        let Self { job, origin, options, base, info, ebuilds, below } = self;
        let Some(fetched) = fetched::known(job, at)? else { return missing("the downloads of steps are") };
        let paths = Store::work_paths(at.store.root(), &job.name, origin);
        let _work = if paths.directory().exists() {
            match at.store.work_now(&job.name, origin)? {
                None => return Ok(Err("unknown while a build of the recipe runs".to_owned())),
                work => work,
            }
        } else {
            None
        };
        let caches = Caches::of(job, at.store.root());
        let plan = Plan::new(job, &ebuilds.resolved, info, &caches, scratch);
        let plan = plan.at(job.build.epoch.unwrap_or_else(|| base.epoch())).with(fetched);
        let parts = LookParts {
            job,
            resolved: &ebuilds.resolved,
            repositories: &ebuilds.repositories,
            binhosts: &ebuilds.binhosts,
            base,
            plan: &plan,
            work: &paths,
            scratch,
            options,
        };
        look(parts, configurations, below, &Site { ui: &Silent, ..*at }).map(Ok)
    }
}

/// Looks at one step of a recipe.
///
/// # Errors
/// Those of [`Looks::steps`]; [`Kind::Usage`] if the recipe has no step of that name, or its steps are not known.
pub fn step(job: &Job, origin: &Path, name: &str, at: &Site<'_>) -> Result<Status> {
    let seen = Looks::default()
        .steps(job, origin, &StepOptions::default(), at)?
        .map_err(|why| Error::usage(format!("explaining the step {}: it is {why}", quoted(name))))?;
    let steps = seen.steps;
    let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    let hint = format!("its steps are {}", names.join(", "));
    let found = steps.iter().find(|step| step.name == name).cloned();
    found.ok_or_else(|| Error::usage(format!("the build has no step {}", quoted(name))).with_hint(hint))
}

/// Returns true if `word` names a step of the recipe: its own, one that it skips, or one of the program.
pub fn is_step(job: &Job, word: &str) -> bool {
    let own = job.steps.iter().any(|step| step.name == word) || job.skipped.iter().any(|name| name == word);
    own || ["@configure", "@unblocker", "@world", "@baselayout", "@system", "@packages"].contains(&word)
}
