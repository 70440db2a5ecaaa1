//! A build: from a recipe to its results.

use std::path::Path;

use super::{base, hash, lock_repositories, preconditions};
use crate::archive::pack;
use crate::base::digest::Sha512;
use crate::base::error::{Error, Result};
use crate::base::progress::{Action, Event, Outcome};
use crate::base::text::{nearest, quoted};
use crate::builder::base::Base;
use crate::builder::binhost::FromHost;
use crate::builder::packages::{Packages, Used};
use crate::builder::{ALL_STEPS, BuildParts, Builder, StepOptions};
use crate::fs::rootfs::Rootfs;
use crate::os::space;
use crate::output::provenance::{BaseOrigin, BinhostOrigin, Command, RepositoryOrigin};
use crate::output::{self, Claim, Content, Contents, ImageSpec, PackageDirectory, Published, Staging, provenance};
use crate::plan::Plan;
use crate::plan::view::Caches;
use crate::portage::binhost::HostIndex;
use crate::portage::emerge::Step;
use crate::portage::{BuilderInfo, Resolved};
use crate::recipe::Job;
use crate::source::binhost::{self, BinhostInput};
use crate::source::inputs::RepositoryInput;
use crate::source::{Site, SourceFile};
use crate::store::lock::Mode;
use crate::store::work::State;
use crate::strip;

/// The verified inputs of a build, unpacked. They stay in the store for as long as this value lives.
struct Inputs<'a> {
    job: &'a Job,
    repositories: Vec<RepositoryInput>,
    resolved: Resolved,
    binhosts: Vec<BinhostInput>,
    base: Base,
    /// The origin of the stage3; `None` for the host.
    located: Option<SourceFile>,
}

/// The origin of a finished tree, and the names of its results.
struct Built<'a> {
    inputs: &'a Inputs<'a>,
    binhosts: Vec<BinhostOrigin<'a>>,
    plan: &'a Plan,
    spec: &'a ImageSpec<'a>,
    at: &'a Site<'a>,
}

/// A reason to refuse a build before anything is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deny {
    /// A security advisory affects a package of the image.
    Glsa,
}

/// The wishes of a user about one build.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    pub deny: Option<Deny>,
    pub steps: StepOptions,
}

/// Builds the image of `job`, whose recipe is the file `origin`. Returns `None` if the build was to stop after a step.
///
/// # Errors
/// Those of the stages; see [`crate::base::error::Kind`]. After an error nothing is published and nothing is mounted. Running the same
/// command again continues with what the caches have.
pub fn build(job: &Job, origin: &Path, options: &BuildOptions, at: &Site<'_>) -> Result<Option<Published>> {
    let BuildOptions { deny, steps } = options;
    check_steps(job, steps)?;
    preconditions::check(job, at)?;
    let spec = ImageSpec::of_job(job, at.date)?;
    spec.expected()?;
    let staging = Staging::create(&job.build.outdir, at.ui)?;
    let claim = Claim::new(at.store, staging.outdir(), &spec.base, origin);
    claim.check()?;
    let inputs = inputs(job, at)?;
    if *deny == Some(Deny::Glsa) {
        super::audit::refuse(job, origin, at)?;
    }

    let waiting = || at.ui.note("waiting for another build of this recipe to end");
    let work = at.store.work(&job.name, origin, Mode::Exclusive, waiting)?;
    Packages::recover(work.paths(), at.ui)?;
    let mut state = State::begun(inputs.base.below());
    work.begin(&state)?;
    let _used = at.store.use_caches()?;
    let caches = Caches::of(job, at.store.root());
    caches.make()?;
    let info = BuilderInfo { date: Some(at.date), ..inputs.base.info(at.cpus)? };
    let plan = Plan::new(job, &inputs.resolved, info, &caches, work.paths()).offline(at.options.offline);
    let plan = plan.at(job.build.epoch.unwrap_or_else(|| inputs.base.epoch()));
    let parts = BuildParts {
        job,
        resolved: &inputs.resolved,
        repositories: &inputs.repositories,
        binhosts: &inputs.binhosts,
        base: &inputs.base,
        plan: &plan,
        caches: &caches,
        work: &work,
    };
    let mut builder = Builder::new(parts, steps.clone());
    if let Err(error) = run(&mut builder, &plan, &mut state, at) {
        let cache = caches.binpkg.as_ref().unwrap_or(&caches.packages);
        let error = space::crowded(error, &[work.paths().directory(), cache, &caches.distfiles]);
        let error = match builder.failed_step() {
            Some(step) => looking(error, step, origin),
            None => error,
        };
        if !job.build.keep_failed {
            builder.unmount()?;
            work.empty()?;
        }
        return Err(error);
    }
    if let Some(last) = &steps.until {
        at.ui.note(&format!("stopped after the step {last}: nothing is published"));
        builder.unmount()?;
        work.finish(&state)?;
        return Ok(None);
    }
    at.ui.emit(Event::Begin(Action::Publish));
    let (indexes, from_hosts) = builder.check_binhosts()?;
    let binhosts = binhost_origins(&inputs.binhosts, &indexes, &from_hosts);

    let published = if job.build.packages_only {
        publish_packages(builder.packages()?, &spec, staging, &claim)?
    } else {
        builder.ship()?;
        let image = builder.image()?;
        at.ui.stage("stripping the image");
        strip::apply(&image, &plan.strip, at.ui)?;
        at.ui.done();
        builder.image_warning()?.iter().for_each(|warning| at.ui.warn(warning));
        let built = Built { inputs: &inputs, binhosts, plan: &plan, spec: &spec, at };
        publish(&built, &image, staging, &claim)?
    };
    at.ui.end(Outcome::Done, None);
    builder.messages().iter().for_each(|line| at.ui.note(line));
    builder.unmount()?;
    state.finished = true;
    work.finish(&state)?;
    Ok(Some(published))
}

/// Adds the commands that show the failed step `step` to its error.
fn looking(error: Error, step: &str, origin: &Path) -> Error {
    // The hint of emerge may end with lines to paste.
    if origin.as_os_str() == "-" || step.starts_with('@') {
        return error;
    }
    let recipe = origin.display();
    let commands = format!(
        "`quern-builder log {recipe} {step}` prints its output; `quern-builder shell {recipe} --failed` enters its trees"
    );
    let hint = error.hint().map_or_else(|| commands.clone(), |hint| format!("{hint}\n{commands}"));
    error.with_hint(hint)
}

/// Refuses steps that the recipe does not have.
pub(super) fn check_steps(job: &Job, options: &StepOptions) -> Result<()> {
    let named = options.until.iter().chain(options.again.iter().filter(|name| *name != ALL_STEPS));
    for name in named.filter(|name| !name.starts_with('@')) {
        if !job.steps.iter().any(|step| step.name == *name) {
            let error = Error::usage(format!("the recipe has no step {}", quoted(name)));
            let names = job.steps.iter().map(|step| step.name.as_str());
            return Err(match nearest(name, names) {
                Some(meant) => error.with_hint(format!("did you mean {meant}?")),
                None => error.with_hint("`quern-builder build RECIPE --dry-run` lists the steps"),
            });
        }
    }
    Ok(())
}

/// Runs the steps of the plan, and mounts the trees after the last one. `state` gets the layers.
fn run(builder: &mut Builder<'_>, plan: &Plan, state: &mut State, at: &Site<'_>) -> Result<()> {
    let steps = builder.advance_all(&plan.nodes, at);
    state.layers = builder.chain().keys();
    // An error of a step tells more than one that follows from it, as on a full disk.
    let ended = builder.end_merging();
    let recorded = builder.record(state);
    steps.and(ended).and(recorded)?;
    for name in builder.skipped() {
        at.ui.emit(Event::Begin(Action::Step { name, key: None }));
        at.ui.end(Outcome::Skipped, None);
    }
    if let Some(sentence) = builder.tally().sentence(builder.skipped().len()) {
        at.ui.note(&sentence);
    }
    builder.finish()?;
    builder.tell_compilations(at)
}

/// Publishes the packages that an image consists of.
fn publish_packages(used: Used, spec: &ImageSpec<'_>, staging: Staging, claim: &Claim<'_>) -> Result<Published> {
    let Used { packages, documents, time } = used;
    let directory = PackageDirectory { packages, documents, time };
    output::publish(staging, vec![spec.package_artifact(directory)], Some(claim))
}

/// Gets the repositories and the base of a recipe.
fn inputs<'a>(job: &'a Job, at: &Site<'_>) -> Result<Inputs<'a>> {
    let (mut repositories, resolved) = super::repositories(job, at)?;
    resolved.warnings.iter().for_each(|warning| at.ui.warn(warning));
    hash(&mut repositories, at.ui)?;
    if let Some(locked) = at.options.locked {
        let warnings = locked.check_repositories(&lock_repositories(&repositories, &resolved, None)?)?;
        warnings.iter().for_each(|warning| at.ui.warn(warning));
    }
    let binhosts = binhost::binhosts(job, at)?;
    let (base, located) = base(job, at)?;
    Ok(Inputs { job, repositories, resolved, binhosts, base, located })
}

/// Packs the tree `image` and publishes all results.
fn publish(built: &Built<'_>, image: &Rootfs, staging: Staging, claim: &Claim<'_>) -> Result<Published> {
    let Built { inputs, binhosts, plan, spec, at } = built;
    let name = spec.tarball();
    let mut tarball = staging.create_file(&name)?;
    at.ui.stage(&format!("packing {name}"));
    let cache = pack::Cache::open(&at.store.pieces())?;
    let packing = output::tarball::options(inputs.job, at.date, at.cpus as usize, cache);
    let (mut contents, mut manifest) = (Contents::new(), Contents::new());
    let tree = pack::Tree { root: image, deferred: &inputs.base.record(inputs.job) };
    let outputs = pack::Outputs { archive: &mut tarball, contents: Some(&mut contents), manifest: Some(&mut manifest) };
    let packed = pack::pack(tree, outputs, &packing, at.ui)?;
    at.ui.done();
    let origins = provenance::Inputs { binhosts: binhosts.clone(), ..inputs.origins(&plan.steps) };
    let provenance = provenance::document(inputs.job, &origins, &name, &packed, at.date)?;
    let (contents, manifest) = (contents.finish()?, manifest.finish()?);
    let content = Content {
        tarball: &tarball,
        packed: &packed,
        contents: &contents,
        manifest: &manifest,
        provenance: &provenance,
    };
    output::publish(staging, spec.artifacts(&content)?, Some(claim))
}

/// Returns the hosts that a build asked, and the packages that it took from each, in the form of the provenance.
fn binhost_origins<'a>(
    hosts: &'a [BinhostInput],
    indexes: &'a [HostIndex],
    packages: &'a [Vec<FromHost>],
) -> Vec<BinhostOrigin<'a>> {
    let all = hosts.iter().zip(indexes).zip(packages);
    let origin = |((host, index), packages): ((&'a BinhostInput, &'a HostIndex), &'a Vec<FromHost>)| {
        let sha512 = Sha512::of(host.index.as_deref()?);
        let packages = packages.iter().map(|package| (package.cpv.as_str(), package.signer.as_deref())).collect();
        Some(BinhostOrigin { url: &host.spec.url, sha512, timestamp: index.timestamp(), packages })
    };
    all.filter_map(origin).collect()
}

impl Inputs<'_> {
    /// Returns the inputs and the commands `steps` in the form of the provenance.
    fn origins(&self, steps: &[Step]) -> provenance::Inputs<'_> {
        let base = match &self.base {
            Base::Stage3(tree) => BaseOrigin::Stage3 {
                name: tree.name(),
                sha512: tree.sha512(),
                signer: self.located.as_ref().and_then(SourceFile::signer),
                verification: self.located.as_ref().map_or("none", SourceFile::trust_basis),
            },
            Base::Host(host) => BaseOrigin::Host { name: host.name() },
        };
        let named = self.resolved.repos.iter().zip(&self.repositories);
        let repositories = named.map(|(repo, repository)| RepositoryOrigin {
            name: repo.name(),
            location: repository.spec.location(),
            version: &repository.version,
        });
        let command = |step: &Step| Command { purpose: step.what.clone(), argv: step.argv.clone() };
        provenance::Inputs {
            base,
            repositories: repositories.collect(),
            binhosts: Vec::new(),
            commands: steps.iter().map(command).collect(),
        }
    }
}
