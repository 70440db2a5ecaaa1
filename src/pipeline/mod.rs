//! The pipeline: one straight function from a [`Job`] to what is [`Published`]. Stages do not call each other; this does.

use std::path::Path;

use crate::archive::pack;
use crate::archive::unpack::{Limits, RaisedBy, Unpacker};
use crate::base::error::Result;
use crate::builder::Builder;
use crate::builder::base::Base;
use crate::builder::host::Host;
use crate::builder::view::{Caches, View};
use crate::os::space;
use crate::output::provenance::{BaseOrigin, Command, Inputs, RepositoryOrigin};
use crate::output::{self, Claim, Content, Contents, ImageSpec, Published, Staging, provenance};
use crate::portage::{self, Resolved};
use crate::recipe::{self, Job};
use crate::source::{self, Located, Locked, Pin, Site};
use crate::store::lock::Mode;
use crate::store::work::State;
use crate::strip;
use crate::verify::{self, Verified};

mod repositories;

pub use repositories::{Repository, judged, repositories, stored};

/// Builds the image of `job`, whose recipe is the file `origin`.
///
/// # Errors
/// Those of the stages; see [`crate::base::error::Kind`]. After a failure nothing is published, no mount is left, and a plain rerun
/// goes on with what the caches hold.
pub fn build(job: &Job, origin: &Path, at: &Site<'_>) -> Result<Published> {
    if let recipe::BaseSpec::Host { hide, show } = &job.source.base {
        // Whether it can be built from at all, before anything is made.
        Host::new(hide, show)?;
    }
    portage::check(job)?;
    let spec = ImageSpec::of_job(job, at.date)?;
    spec.expected()?;
    // An outdir that cannot be written to is an error now, not after an hour.
    let staging = Staging::create(&job.build.outdir, at.ui)?;
    let claim = Claim::new(at.store, staging.outdir(), &spec.base, origin);
    claim.check()?;
    let (repositories, resolved) = repositories(job, at)?;
    resolved.warnings.iter().for_each(|warning| at.ui.warn(warning));
    if let Some(locked) = at.options.locked {
        locked.repositories_fit(&repositories::locked(job, &repositories, &resolved, None)?)?;
    }
    let (base, located) = base(job, at)?;

    let waiting = || at.ui.note("waiting for another build of this recipe to end");
    let work = at.store.work(&job.name, origin, Mode::Exclusive, waiting)?;
    let mut state = State { below: base.below(), finished: false };
    work.begin(&state)?;
    let _used = at.store.use_caches()?;
    let caches = Caches::of(job, at.store)?;
    let view = View::build(job, &resolved, &caches, work.directory());
    let builder = Builder::new(job, &resolved, view, &base, &work, at.cpus)?;
    let steps = builder.steps();
    for step in &steps {
        at.ui.stage(&step.what);
        if let Err(error) = builder.run(step, at.ui) {
            let error = space::crowded(error, &[work.directory(), &caches.binpkgs, &caches.distfiles]);
            if !job.build.keep_failed {
                builder.unmount()?;
                work.empty()?;
            }
            return Err(error);
        }
        at.ui.done();
    }

    let image = builder.image()?;
    builder.ship()?;
    at.ui.stage("stripping the image");
    strip::apply(&image, &strip::rules(job), at.ui)?;
    at.ui.done();

    let name = spec.tarball();
    let mut tarball = staging.create_file(&name)?;
    at.ui.stage(&format!("packing {name}"));
    let cache = pack::Cache::open(&at.store.pieces())?;
    let packing = output::tarball::options(job, at.date, at.cpus as usize, cache);
    let (mut contents, mut manifest) = (Contents::new(), Contents::new());
    let tree = pack::Tree { root: &image, deferred: &base.record(job) };
    let outputs = pack::Outputs { archive: &mut tarball, contents: Some(&mut contents), manifest: Some(&mut manifest) };
    let packed = pack::pack(tree, outputs, &packing, at.ui)?;
    at.ui.done();

    let inputs = Inputs {
        base: base_origin(&base, located.as_ref()),
        repositories: repository_origins(&resolved, &repositories),
        commands: steps.iter().map(|step| Command { purpose: step.what.clone(), argv: step.argv.clone() }).collect(),
    };
    let provenance = provenance::document(job, &inputs, &name, &packed, at.date)?;
    let (contents, manifest) = (contents.finish()?, manifest.finish()?);
    let content = Content {
        tarball: &tarball,
        packed: &packed,
        contents: &contents,
        manifest: &manifest,
        provenance: &provenance,
    };
    let published = output::publish(staging, spec.artifacts(&content)?, Some(&claim))?;
    drop(image);
    builder.unmount()?;
    state.finished = true;
    work.finish(&state)?;
    Ok(published)
}

/// What a recipe is built from: this host, or a stage3, verified and unpacked in the store, and what proves it. Downloads and unpacks
/// only what the store lacks.
///
/// # Errors
/// Those of [`source`], [`verify`] and [`unpack`], and of [`Host::new`].
pub fn base(job: &Job, at: &Site<'_>) -> Result<(Base, Option<Located>)> {
    if let recipe::BaseSpec::Host { hide, show } = &job.source.base
        // A lock that has a stage3 is of another recipe than this, and refused below.
        && at.options.locked.is_none_or(|locked| locked.stage3.is_none())
    {
        let host = Host::new(hide, show)?;
        at.ui.note(&format!("building from this host, {}", host.name()));
        return Ok((Base::Host(host), None));
    }
    let located = source::locate(job, at)?;
    let waiting = || at.ui.note("waiting for another process that unpacks the same stage3");
    if let Some(sha512) = located.sha512()
        && let Some(tree) = at.store.tree(&sha512, waiting)?
    {
        return Ok((Base::Stage3(tree), Some(located)));
    }
    let verified = verify::verify(source::fetch(&located, at)?)?;
    let tree = at.store.add_tree(&verified.sha512(), verified.name(), waiting, |root| {
        at.ui.stage(&format!("unpacking {}", verified.name()));
        let recipe::Bounds { max_unpacked, max_entries } = job.source.bounds;
        let limits = Limits::of_release(verified.size()).set(max_unpacked, max_entries, RaisedBy::Source);
        let unpacker = Unpacker { name: verified.name(), into: root, limits: &limits, ui: at.ui };
        let record = unpacker.file(verified.open()?)?;
        at.ui.done();
        Ok(record)
    })?;
    Ok((Base::Stage3(tree), Some(located.with(&verified))))
}

/// The stage3 of a recipe, fetched where the store lacks it, and judged again.
///
/// # Errors
/// Those of [`source`] and [`verify`].
pub fn verified(job: &Job, at: &Site<'_>) -> Result<(Located, Verified)> {
    let located = source::locate(job, at)?;
    let verified = verify::verify(source::fetch(&located, at)?)?;
    Ok((located, verified))
}

/// What a recipe is locked to: what is the latest now, verified, and what its repositories are. `old`, where it is locked already,
/// spares a download that would tell nothing new. `file` is the lock file itself: no commit that holds it could be named in it.
///
/// # Errors
/// Those of [`pin`] and [`repositories()`].
pub fn lock(job: &Job, old: Option<&Locked>, file: &Path, at: &Site<'_>) -> Result<Locked> {
    let (repositories, resolved) = repositories(job, at)?;
    let repository = repositories::locked(job, &repositories, &resolved, Some(file))?;
    let stage3 = match job.source.base {
        recipe::BaseSpec::Host { .. } => None,
        _ => Some(pin(job, old.and_then(|old| old.stage3.as_ref()), at)?),
    };
    Ok(Locked { stage3, repository })
}

/// The stage3 that a recipe is locked to.
///
/// # Errors
/// Those of [`source`] and [`verify`]; [`Kind::Refused`](crate::base::error::Kind::Refused) when it is older than what is locked.
pub fn pin(job: &Job, old: Option<&Pin>, at: &Site<'_>) -> Result<Pin> {
    let located = source::locate(job, at)?;
    let pin = match Pin::of(&job.source, &located, old) {
        Some(pin) => pin,
        None => Pin::of_verified(&job.source, &located, &verify::verify(source::fetch(&located, at)?)?),
    };
    if let Some(old) = old.filter(|_| !at.options.allow_rollback) {
        old.not_older(&pin)?;
    }
    Ok(pin)
}

/// Returns the provenance of the base.
fn base_origin<'a>(base: &'a Base, located: Option<&'a Located>) -> BaseOrigin<'a> {
    match base {
        Base::Stage3(tree) => BaseOrigin::Stage3 {
            name: tree.name(),
            sha512: tree.sha512(),
            signer: located.and_then(Located::signer),
            verification: located.map_or("none", Located::how),
        },
        Base::Host(host) => BaseOrigin::Host { name: host.name() },
    }
}

/// Returns the provenance of the repositories, in the order of the recipe.
fn repository_origins<'a>(resolved: &'a Resolved, repositories: &'a [Repository]) -> Vec<RepositoryOrigin<'a>> {
    let named = resolved.repos.iter().zip(repositories);
    named.map(|(repo, repository)| RepositoryOrigin { name: repo.name(), fact: &repository.fact }).collect()
}
