//! A build: from a recipe to its results.

use std::path::Path;

use super::below::{Below, Ebuilds, below, ebuilds};
use super::layers::Layers;
use super::{base, preconditions, shell, split, tuples};
use crate::archive::pack;
use crate::base::digest::Sha512;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::{Action, Event, Outcome};
use crate::base::text::{nearest, quoted};
use crate::builder::base::Base;
use crate::builder::binhost::FromHost;
use crate::builder::chain::Chain;
use crate::builder::cuts::LowerImage;
use crate::builder::installed;
use crate::builder::packages::{Packages, Used};
use crate::builder::{ALL_STEPS, BuildParts, Builder, StepOptions};
use crate::fs::rootfs::Rootfs;
use crate::os::space;
use crate::output::provenance::{BaseOrigin, BinhostOrigin, Command, RepositoryOrigin};
use crate::output::sbom::Materials;
use crate::output::{self, Claim, Content, Contents, ImageSpec, PackageDirectory, Published, Staging, provenance};
use crate::plan::Plan;
use crate::plan::view::Caches;
use crate::portage::BuilderInfo;
use crate::portage::binhost::HostIndex;
use crate::portage::emerge::Step;
use crate::portage::installed::Installed;
use crate::recipe::Job;
use crate::source::binhost::BinhostInput;
use crate::source::fetched::{self, FetchInput};
use crate::source::{Site, SourceFile};
use crate::store::clean::Category;
use crate::store::layers::Limits;
use crate::store::lock::Mode;
use crate::store::work::{State, Work};
use crate::strip;

/// The verified inputs of a build, unpacked. They stay in the store for as long as this value lives.
struct Inputs<'a> {
    job: &'a Job,
    ebuilds: Ebuilds,
    fetched: Vec<FetchInput>,
    base: Base,
    /// The origin of the stage3; `None` for the host.
    located: Option<SourceFile>,
}

/// The origin of a finished tree, and the names of its results.
struct Built<'a> {
    inputs: &'a Inputs<'a>,
    /// The images that the image starts from, the lowest first.
    lower: &'a [LowerImage<'a>],
    binhosts: Vec<BinhostOrigin<'a>>,
    plan: &'a Plan,
    spec: &'a ImageSpec<'a>,
    at: &'a Site<'a>,
}

/// The steps of an image that are to run.
pub(super) struct Run<'a> {
    pub(super) job: &'a Job,
    pub(super) origin: &'a Path,
    pub(super) ebuilds: &'a Ebuilds,
    /// The downloads that the steps name.
    pub(super) fetched: &'a [FetchInput],
    pub(super) base: &'a Base,
    /// The layers that the image starts on.
    pub(super) below: Chain,
    pub(super) options: &'a StepOptions,
}

/// The surroundings of a build whose steps have run.
pub(super) struct Place<'a> {
    pub(super) plan: &'a Plan,
    pub(super) work: &'a Work,
    pub(super) state: State,
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

/// The outcome of a build.
#[derive(Debug)]
pub struct Finished {
    /// The results; `None` if the build was to stop after a step, or the image is only there for others.
    pub published: Option<Published>,
    /// True if all steps were in the store.
    pub cached: bool,
}

/// Builds the image of `job`, whose recipe is the file `origin`.
///
/// # Errors
/// Those of the stages; see [`crate::base::error::Kind`]. After an error nothing is published and nothing is mounted. Running the same
/// command again continues with what the caches have.
pub fn build(job: &Job, origin: &Path, options: &BuildOptions, at: &Site<'_>) -> Result<Finished> {
    let BuildOptions { deny, steps } = options;
    check_steps(job, steps)?;
    preconditions::check(job, at)?;
    let spec = ImageSpec::of_job(job, at.date)?;
    spec.expected()?;
    let published = if job.publish { Some(Staging::create(&job.build.outdir, at.ui)?) } else { None };
    let published = published.map(|staging| {
        let claim = Claim::new(at.store, staging.outdir(), &spec.base, origin);
        claim.check().map(|()| (staging, claim))
    });
    let results = published.transpose()?;
    let (ebuilds, fetched) = (ebuilds(job, at)?, fetched::fetches(&fetched::named(job), at)?);
    let (base, located) = base(job, at)?;
    let inputs = Inputs { job, ebuilds, fetched, base, located };
    if *deny == Some(Deny::Glsa) {
        super::audit::refuse(job, origin, at)?;
    }
    let Below { chain, images } = below(job, &inputs.base, &inputs.ebuilds, at)?;
    let Inputs { ebuilds, fetched, base, .. } = &inputs;
    let run = Run { job, origin, ebuilds, fetched, base, below: chain, options: steps };
    let finished = with_builder(run, at, |mut builder, place| {
        let Place { plan, work, mut state } = place;
        let cached = builder.tally().run.is_empty();
        let results = match (&steps.until, results) {
            (None, Some(results)) => results,
            (until, _) => {
                let why = match until {
                    Some(last) => format!("stopped after the step {last}: nothing is published"),
                    None => format!("{} is built for other images: nothing is published", job.path),
                };
                at.ui.note(&why);
                builder.unmount()?;
                work.finish(&state)?;
                return Ok(Finished { published: None, cached });
            }
        };
        let built = Built { inputs: &inputs, lower: &images, binhosts: Vec::new(), plan, spec: &spec, at };
        let published = built.publish(&mut builder, results)?;
        at.ui.end(Outcome::Done, None);
        builder.messages().iter().for_each(|line| at.ui.note(line));
        builder.unmount()?;
        state.finished = true;
        work.finish(&state)?;
        Ok(Finished { published: Some(published), cached })
    })?;
    let finished = match &steps.until {
        None => Finished { cached: tuples::merge(job, (base, ebuilds), steps, at)? && finished.cached, ..finished },
        Some(_) => finished,
    };
    job.keep_layers.map_or(Ok(()), |bytes| keep_layers(bytes, at))?;
    Ok(finished)
}

/// Removes the least recently used layers until the rest takes at most `bytes`. Those that another build uses stay.
fn keep_layers(bytes: u64, at: &Site<'_>) -> Result<()> {
    let limits = Limits { keep: Some(bytes), ..Limits::default() };
    let mut removed = 0;
    at.store.clean(&[Category::Layers(limits)], false, |item| removed += u64::from(!item.busy))?;
    if removed > 0 {
        at.ui.note(&format!("removed {removed} of the least recently used layers, as store.keep of the recipe says"));
    }
    Ok(())
}

/// Runs the steps of an image in its work directory, and then `done` with its trees.
///
/// # Errors
/// Those of the steps, and of `done`.
pub(super) fn with_builder<T>(
    run: Run<'_>,
    at: &Site<'_>,
    done: impl FnOnce(Builder<'_>, Place<'_>) -> Result<T>,
) -> Result<T> {
    let Run { job, origin, ebuilds, fetched, base, below, options } = run;
    let waiting = || at.ui.note("waiting for another build of this recipe to end");
    let work = at.store.work(&job.name, origin, Mode::Exclusive, waiting)?;
    Packages::recover(work.paths(), at.ui)?;
    let mut state = State::begun(base.below());
    work.begin(&state)?;
    let _used = at.store.use_caches()?;
    let caches = Caches::of(job, at.store.root());
    caches.make()?;
    let info = BuilderInfo { date: Some(at.date), ..base.info(at.cpus)? };
    let plan = Plan::new(job, &ebuilds.resolved, info, &caches, work.paths()).offline(at.options.offline);
    let plan = plan.at(job.build.epoch.unwrap_or_else(|| base.epoch())).with(fetched::identities(fetched));
    let parts = BuildParts {
        job,
        resolved: &ebuilds.resolved,
        repositories: &ebuilds.repositories,
        binhosts: &ebuilds.binhosts,
        fetched,
        base,
        plan: &plan,
        caches: &caches,
        work: &work,
    };
    let mut builder = Builder::new(parts, below, options.clone());
    if let Err(error) = advance(&mut builder, &plan, &mut state, at) {
        let cache = caches.binpkg.as_ref().unwrap_or(&caches.packages);
        let error = space::crowded(error, &[work.paths().directory(), cache, &caches.distfiles]);
        let error = match builder.failed_step() {
            Some(step) if job.build.keep_failed => looking(error, step, origin, &work),
            _ => error,
        };
        if options.shell_on_failure && error.kind() == Kind::Build && builder.failed_step().is_some() {
            shell::after_failure(job, &work, &error, at);
        }
        if !job.build.keep_failed {
            builder.unmount()?;
            work.empty()?;
        }
        return Err(error);
    }
    done(builder, Place { plan: &plan, work: &work, state })
}

/// Adds the commands that show the failed step `step` to its error.
fn looking(error: Error, step: &str, origin: &Path, work: &Work) -> Error {
    // The hint of emerge may end with lines to paste.
    if origin.as_os_str() == "-" || step.starts_with('@') {
        return error;
    }
    let recipe = origin.display();
    let paths = work.paths();
    let log = paths.on(&paths.failed()).log();
    let output = if log.exists() { format!("its output is in {}\n", log.display()) } else { String::new() };
    let commands = format!(
        "{output}`quern-builder log {recipe} {step}` prints its output; `quern-builder shell {recipe} --failed` enters its trees"
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
fn advance(builder: &mut Builder<'_>, plan: &Plan, state: &mut State, at: &Site<'_>) -> Result<()> {
    let steps = builder.advance_all(&plan.nodes, at);
    state.layers = builder.chain().keys();
    state.volumes = builder.chain().borrowed_keys();
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

impl<'a> Built<'a> {
    /// Publishes the results of a build whose steps have run.
    fn publish(self, builder: &mut Builder<'_>, (staging, claim): (Staging, Claim<'_>)) -> Result<Published> {
        let Inputs { job, ebuilds, .. } = self.inputs;
        self.at.ui.emit(Event::Begin(Action::Publish));
        let (indexes, from_hosts) = builder.check_binhosts()?;
        if job.build.packages_only {
            return publish_packages(builder.packages()?, self.spec, staging, &claim);
        }
        builder.ship()?;
        let image = builder.image()?;
        // The strip rules may remove the records of the packages.
        let packages = if job.build.sbom.is_empty() { Vec::new() } else { installed::packages(&image)? };
        self.at.ui.stage("stripping the image");
        strip::apply(&image, &self.plan.strip, self.at.ui)?;
        self.at.ui.done();
        builder.check_image_secrets(&image, self.at)?;
        builder.image_warning()?.iter().for_each(|warning| self.at.ui.warn(warning));
        let built = Built { binhosts: binhost_origins(&ebuilds.binhosts, &indexes, &from_hosts), ..self };
        publish(&built, builder, (&image, &packages), (staging, &claim))
    }
}

/// Packs the tree `image`, which had `packages` before it was stripped, and publishes all results.
fn publish(
    built: &Built<'_>,
    builder: &Builder<'_>,
    (image, packages): (&Rootfs, &[Installed]),
    (staging, claim): (Staging, &Claim<'_>),
) -> Result<Published> {
    let Built { inputs, lower, binhosts, plan, spec, at } = built;
    let name = spec.tarball();
    let cache = pack::Cache::open(&at.store.pieces())?;
    let packing = output::tarball::options(inputs.job, at.date, at.cpus as usize, cache);
    let packing = pack::Options { spans: builder.chain().spans(), ..packing };
    let mut deferred = inputs.base.record(inputs.job);
    let base = deferred.clone();
    strip::forget(image, &plan.strip, &mut deferred)?;
    let tree = pack::Tree { root: image, deferred: &deferred, part: None };
    let split = split::archives(inputs.job, tree, (spec, &staging), &packing, at)?;
    let emptied = strip::split_rules(inputs.job);
    strip::apply(image, &emptied, at.ui)?;
    strip::forget(image, &emptied, &mut deferred)?;
    let strip = [&plan.strip[..], &emptied].concat();
    let tree = pack::Tree { root: image, deferred: &deferred, part: None };
    let parts = Layers { builder, lower, strip: &strip, deferred: &base, packing: &packing, staging: &staging, at };
    let layers = parts.pack(tree)?;
    let mut tarball = staging.create_file(&name)?;
    at.ui.stage(&format!("packing {name}"));
    let (mut contents, mut manifest) = (Contents::new(), Contents::new());
    let outputs = pack::Outputs { archive: &mut tarball, contents: Some(&mut contents), manifest: Some(&mut manifest) };
    let packed = pack::pack(tree, outputs, &packing, at.ui)?;
    at.ui.done();
    let origins = provenance::Inputs { binhosts: binhosts.clone(), ..inputs.origins(&plan.steps) };
    let named = layers.iter().map(|layer| (spec.layer(&layer.packed), &layer.packed));
    let parts = split.iter().map(|archive| (spec.split_archive(&archive.name), &archive.packed));
    let materials = Materials {
        title: spec.title,
        date: at.date,
        tarball: (&name, &packed),
        kind: inputs.job.build.kind,
        base: &origins.base,
        repositories: &origins.repositories,
        packages,
    };
    let sbom: Vec<_> = spec.sbom.iter().map(|format| materials.document(*format)).collect::<Result<_>>()?;
    let subjects: Vec<_> = [(name, &packed)].into_iter().chain(parts).chain(named).collect();
    let provenance = provenance::document(inputs.job, &origins, &subjects, at.date)?;
    let (contents, manifest) = (contents.finish()?, manifest.finish()?);
    let content = Content {
        tarball: &tarball,
        packed: &packed,
        split: &split,
        layers: &layers,
        contents: &contents,
        manifest: &manifest,
        provenance: &provenance,
        sbom: &sbom,
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
        let named = self.ebuilds.resolved.repos.iter().zip(&self.ebuilds.repositories);
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
            fetched: self.fetched.iter().map(|fetch| (fetch.name.as_str(), &fetch.version)).collect(),
            commands: steps.iter().map(command).collect(),
        }
    }
}
