//! The commands that work on a recipe: one straight function per file. Stages do not call each other; these functions call them.

use std::path::Path;

use crate::archive::unpack::{Limits, RaisedBy, Unpacker};
use crate::base::error::Result;
use crate::builder::base::Base;
use crate::builder::host::Host;
use crate::recipe::{self, Job};
use crate::source::{self, Located, Locked, Pin, Site};
use crate::verify::{self, Verified};

mod build;
mod plan;
mod preconditions;
mod repositories;
mod shell;

pub use build::build;
pub use plan::{PlanOptions, plan};
pub use repositories::{Repository, judged, repositories, stored};
pub use shell::{Place, shell};

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
