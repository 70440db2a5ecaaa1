//! The pipeline: one straight function from a [`Job`] to what is [`Published`]. Stages do not call each other; this does.

use crate::base::time::SourceDate;
use std::path::Path;
use std::sync::Arc;

use crate::archive::pack::{self, Format};
use crate::archive::unpack;
use crate::archive::unpack::{Limits, RaisedBy};
use crate::base::error::Result;
use crate::builder::Builder;
use crate::builder::base::Base;
use crate::builder::host::Host;
use crate::builder::view::{Caches, View};
use crate::os::space;
use crate::output::provenance::{BaseFact, Facts, RepositoryFact, StepFact};
use crate::output::{self, Contents, Names, Published, Release, Staging, platform, provenance};
use crate::portage::emerge::Step;
use crate::portage::{self, Resolved};
use crate::recipe::{self, Compression, Job};
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
    let names = Names::of_job(job, at.date)?;
    // An outdir that cannot be written to is an error now, not after an hour.
    let staging = Staging::create(&job.build.outdir, at.ui)?;
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

    let mut tarball = staging.create_file(&names.tarball())?;
    at.ui.stage(&format!("packing {}", names.tarball()));
    let record = base.record(job);
    let (format, level) = match job.build.compression {
        Compression::Gzip => (Format::Gzip, None),
        Compression::GzipFast => (Format::Gzip, Some(1)),
        Compression::Xz => (Format::Xz, None),
        Compression::Zstd => (Format::Zstd, None),
        Compression::None => (Format::Plain, None),
    };
    let packing = pack::Options {
        format,
        level,
        epoch: at.date.epoch(),
        threads: at.cpus as usize,
        cache: Some(Arc::new(pack::Cache::open(&at.store.pieces())?)),
        ..Default::default()
    };
    let (mut contents, mut manifest) = (Contents::new(), Contents::new());
    let lists = pack::Lists { contents: Some(&mut contents), manifest: Some(&mut manifest) };
    let packed = pack::pack(&image, &record, &packing, &mut tarball, lists, at.ui)?;
    at.ui.done();

    let provenance =
        provenance(job, &base, located.as_ref(), &repositories, &resolved, &steps, &names, &packed, at.date)?;
    let published = output::publish(
        staging,
        &Release {
            names: &names,
            title: &job.name,
            moment: at.date,
            platform: platform::of_job(job),
            oci: job.oci.as_ref(),
            tarball: &tarball,
            packed: &packed,
            contents: &contents.finish()?,
            manifest: &manifest.finish()?,
            provenance: &provenance,
        },
    )?;
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
        && let Some(tree) = at.store.tree(sha512, waiting)?
    {
        return Ok((Base::Stage3(tree), Some(located)));
    }
    let verified = verify::verify(source::fetch(&located, at)?)?;
    let tree = at.store.add_tree(verified.sha512(), verified.name(), waiting, |root| {
        at.ui.stage(&format!("unpacking {}", verified.name()));
        let recipe::Bounds { max_unpacked, max_entries } = job.source.bounds;
        let limits = Limits::of_release(verified.size()).set(max_unpacked, max_entries, RaisedBy::Source);
        let record = unpack::extract(verified.open()?, verified.name(), root, &limits, at.ui)?;
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

/// The document that says where the results came from.
#[allow(clippy::too_many_arguments, reason = "it speaks of everything")]
fn provenance(
    job: &Job,
    base: &Base,
    located: Option<&Located>,
    repositories: &[Repository],
    resolved: &Resolved,
    steps: &[Step],
    names: &Names,
    packed: &pack::Packed,
    moment: SourceDate,
) -> Result<Vec<u8>> {
    let repositories: Vec<_> = resolved
        .repos
        .iter()
        .zip(repositories)
        .map(|(repo, repository)| RepositoryFact { name: repo.name(), origin: &repository.fact })
        .collect();
    let steps: Vec<_> =
        steps.iter().map(|step| StepFact { what: step.what.clone(), argv: step.argv.clone() }).collect();
    let base = match base {
        Base::Stage3(tree) => BaseFact::Stage3 {
            name: tree.name(),
            sha512: tree.sha512(),
            signer: located.and_then(Located::signer),
            how: located.map_or("none", Located::how),
        },
        Base::Host(host) => BaseFact::Host { name: host.name() },
    };
    let facts = Facts { base, repositories: &repositories, steps: &steps };
    provenance::document(job, &facts, &names.tarball(), packed, moment)
}
