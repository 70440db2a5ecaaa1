//! A build: from a recipe to its results.

use std::path::Path;

use super::{base, hash, lock_repositories, preconditions};
use crate::archive::pack;
use crate::base::digest::Sha512;
use crate::base::error::Result;
use crate::builder::Builder;
use crate::builder::base::Base;
use crate::builder::binhost::FromHost;
use crate::builder::metadata::Metadata;
use crate::builder::packages::{Packages, Used};
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

/// Builds the image of `job`, whose recipe is the file `origin`.
///
/// # Errors
/// Those of the stages; see [`crate::base::error::Kind`]. After an error nothing is published and nothing is mounted. Running the same
/// command again continues with what the caches have.
pub fn build(job: &Job, origin: &Path, deny: Option<Deny>, at: &Site<'_>) -> Result<Published> {
    preconditions::check(job, at)?;
    let spec = ImageSpec::of_job(job, at.date)?;
    spec.expected()?;
    let staging = Staging::create(&job.build.outdir, at.ui)?;
    let claim = Claim::new(at.store, staging.outdir(), &spec.base, origin);
    claim.check()?;
    let inputs = inputs(job, at)?;
    if let Some(Deny::Glsa) = deny {
        super::audit::refuse(job, origin, at)?;
    }

    let waiting = || at.ui.note("waiting for another build of this recipe to end");
    let work = at.store.work(&job.name, origin, Mode::Exclusive, waiting)?;
    Packages::recover(work.paths(), at.ui)?;
    let mut state = State { below: inputs.base.below(), finished: false, failed: None };
    work.begin(&state)?;
    let _used = at.store.use_caches()?;
    let caches = Caches::of(job, at.store.root());
    caches.make()?;
    let info = BuilderInfo { date: Some(at.date), ..inputs.base.info(at.cpus)? };
    let plan = Plan::new(job, &inputs.resolved, info, &caches, work.paths()).offline(at.options.offline);
    let mut builder = Builder::new(job, &inputs.resolved, &inputs.base, &plan, &work)?;
    let metadata = Metadata::of(&inputs.resolved.repos, &inputs.repositories, &plan.info, at.store)?;
    metadata.iter().try_for_each(|metadata| metadata.restore(builder.root()))?;
    builder.compiler_warning()?.iter().for_each(|warning| at.ui.warn(warning));
    let indexes = builder.add_binhosts(&inputs.binhosts, &plan.info)?;
    let mut packages = builder.packages(&inputs.base, &plan.info, &caches)?;
    let merged = merge(job, &builder, &mut packages, &plan, at);
    metadata.iter().for_each(|metadata| metadata.keep(builder.root(), at.ui));
    // An error of the merge tells more than one that follows from it, as on a full disk.
    let merged = merged.and(packages.done(work.paths()));
    let merged = merged.and_then(|()| builder.check_binhosts(&inputs.binhosts, &indexes));
    let from_hosts = match merged {
        Ok(from_hosts) => from_hosts,
        Err(error) => {
            let cache = caches.binpkg.as_ref().unwrap_or(&caches.packages);
            let error = space::crowded(error, &[work.paths().directory(), cache, &caches.distfiles]);
            if !job.build.keep_failed {
                builder.unmount()?;
                work.empty()?;
            }
            return Err(error);
        }
    };
    let binhosts = binhost_origins(&inputs.binhosts, &indexes, &from_hosts);

    let image = builder.image()?;
    let published = if job.build.packages_only {
        publish_packages(&packages, &image, &spec, staging, &claim)?
    } else {
        builder.ship()?;
        at.ui.stage("stripping the image");
        strip::apply(&image, &plan.strip, at.ui)?;
        at.ui.done();
        builder.image_warning(&image)?.iter().for_each(|warning| at.ui.warn(warning));
        let built = Built { inputs: &inputs, binhosts, plan: &plan, spec: &spec, at };
        publish(&built, &image, staging, &claim)?
    };
    drop(image);
    builder.messages().iter().for_each(|line| at.ui.note(line));
    builder.unmount()?;
    state.finished = true;
    work.finish(&state)?;
    Ok(published)
}

/// Publishes the packages that `image` consists of.
fn publish_packages(
    packages: &Packages,
    image: &Rootfs,
    spec: &ImageSpec<'_>,
    staging: Staging,
    claim: &Claim<'_>,
) -> Result<Published> {
    let Used { packages, documents, time } = packages.used(image)?;
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

/// Runs the emerge commands of the plan. Keeps the packages of each, also of one that fails.
fn merge(job: &Job, builder: &Builder<'_>, packages: &mut Packages, plan: &Plan, at: &Site<'_>) -> Result<()> {
    builder.announce(at);
    for step in &plan.steps {
        at.ui.stage(&step.what);
        if let Err(error) = builder.run(step, at) {
            if let Err(other) = packages.keep(builder.work(), at.ui) {
                at.ui.warn(&format!("the packages of this step are lost: {other}"));
            }
            return Err(if job.emerge.binary_only { builder.explained(error, step) } else { error });
        }
        packages.keep(builder.work(), at.ui)?;
        at.ui.done();
    }
    builder.tell_compilations(at)
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
