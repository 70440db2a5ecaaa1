//! A dry run: the plan of a build, made without asking a server and without unpacking anything.

use std::path::Path;

use super::build::check_steps;
use super::{StepOptions, look, preconditions, stored};
use crate::base::digest::Sha512;
use crate::base::error::Result;
use crate::base::progress::Silent;
use crate::base::time::SourceDate;
use crate::builder::base;
use crate::builder::host;
use crate::fs::rootfs::Rootfs;
use crate::lockfile::Locked;
use crate::output::{Claim, ImageSpec, Role};
use crate::plan::status::Status;
use crate::plan::view::Caches;
use crate::plan::{DryRun, Known, Plan};
use crate::portage::accelerate::Tools;
use crate::portage::{BuilderInfo, Resolved};
use crate::recipe::{BaseSpec, Job, MetaRepo, MetaRepoPlace, Origin};
use crate::source::{self, ResolveOptions, Site, Wanted, fetched};
use crate::store::Store;
use crate::strip;

/// The circumstances of a dry run.
#[derive(Debug, Clone, Copy)]
pub struct PlanOptions<'a> {
    /// The inputs that the lock file has, if the build is to use them.
    pub locked: Option<&'a Locked>,
    /// The date that results would carry.
    pub date: SourceDate,
    /// Number of processors that may be used.
    pub cpus: u32,
    /// True if the build would have no network.
    pub offline: bool,
    /// The wishes about steps.
    pub steps: &'a StepOptions,
    /// True if this process is root in its user namespace and may mount, which the states of the steps need.
    pub root: bool,
}

/// Plans the build of `job`, whose recipe is the file `origin`, in the store at `home`, which need not exist.
///
/// # Errors
/// Those of the checks at the start of a build.
pub fn plan(job: &Job, origin: &Path, home: &Path, options: &PlanOptions<'_>) -> Result<DryRun> {
    check_steps(job, options.steps)?;
    preconditions::check_recipe(job)?;
    let store = if home.is_dir() { Some(Store::open(home)?) } else { None };
    let spec = ImageSpec::of_job(job, options.date)?;
    if let Some(store) = &store {
        Claim::new(store, &job.build.outdir, &spec.base, origin).check()?;
    }
    let mut run = DryRun {
        source: sources(job, options.locked)?,
        repositories: repositories(job)?,
        fetched: fetched::of_family(job).into_iter().map(fetched::described).collect(),
        strip: strip::rules(&job.strip, job.build.kind, job.portage.with_kits()),
        results: results(&spec, &job.build.outdir)?,
        ..DryRun::default()
    };
    if let BaseSpec::Host { hide, show } = &job.source.base {
        host::check_gentoo()?;
        run.host = host::describe(hide, show);
    }
    let here = job.portage.repositories.iter().all(|repository| repository.location().is_some());
    let found = match &store {
        _ if here => Some((Vec::new(), Resolved::new(job)?)),
        Some(store) => stored(job, store)?,
        None => None,
    };
    let Some((_repositories, resolved)) = found else {
        let missing = "unknown until the repositories are in the store: `quern-builder fetch` gets them".to_owned();
        run.states = Known::No(vec![missing.clone()]);
        (run.mounts, run.steps) = (Known::No(vec![missing.clone()]), Known::No(vec![missing]));
        return Ok(run);
    };
    run.states = states(job, origin, store.as_ref(), options)?;
    run.warnings.clone_from(&resolved.warnings);
    let work = Store::work_paths(home, &job.name, origin);
    let caches = Caches::of(job, home);
    let plan = |info| Plan::new(job, &resolved, info, &caches, &work).offline(options.offline);
    match builder_info(job, store.as_ref(), options)? {
        Some(info) => run.set(plan(info)),
        None => run.set_without_builder(|portage| {
            plan(BuilderInfo { sandbox: true, cpus: options.cpus, portage, date: None, tools: Tools::UNKNOWN })
        }),
    }
    Ok(run)
}

/// Looks up the states of the steps.
fn states(job: &Job, origin: &Path, store: Option<&Store>, options: &PlanOptions<'_>) -> Result<Known<Vec<Status>>> {
    let Some(store) = store else { return Ok(Known::No(vec!["unknown until the stage3 is in the store".to_owned()])) };
    if !options.root {
        return Ok(Known::No(vec!["unknown: this user cannot mount the trees".to_owned()]));
    }
    let inputs = ResolveOptions { offline: options.offline, locked: options.locked, ..ResolveOptions::default() };
    let site = Site { cpus: options.cpus, date: options.date, ..Site::new(store, inputs, &Silent) };
    Ok(match look::Looks::default().steps(job, origin, options.steps, &site)? {
        Ok(seen) => Known::Yes(seen.steps),
        Err(missing) => Known::No(vec![missing]),
    })
}

/// Looks up the facts about the builder, if the store has it unpacked.
fn builder_info(job: &Job, store: Option<&Store>, options: &PlanOptions<'_>) -> Result<Option<BuilderInfo>> {
    if let BaseSpec::Host { hide, show } = &job.source.base {
        return host::info(hide, show, options.cpus).map(Some);
    }
    let Some(store) = store else { return Ok(None) };
    let Some(sha512) = stage3(job, store, options.locked)? else { return Ok(None) };
    let Some(tree) = store.tree_of_anyone(&sha512)? else { return Ok(None) };
    // An ordinary user may lack the permission to look into a tree. Then the builder counts as unknown.
    Ok(Rootfs::open(&tree.root()).and_then(|root| base::info(&root, |_| true, options.cpus)).ok())
}

/// Returns the digest of the stage3 that a build would use, if it is known without a server.
pub(super) fn stage3(job: &Job, store: &Store, locked: Option<&Locked>) -> Result<Option<Sha512>> {
    Ok(match locked {
        Some(locked) => locked.stage3.as_ref().map(|file| file.sha512),
        None => match &job.source.base {
            BaseSpec::File { sha512: Some(sha512), .. } => Sha512::parse(sha512),
            _ => source::known(job, store)?.and_then(|file| file.sha512()),
        },
    })
}

/// Returns the locations that are tried first for the stage3.
fn sources(job: &Job, locked: Option<&Locked>) -> Result<Vec<String>> {
    let mut locations = match locked {
        Some(Locked { stage3: Some(file), .. }) => source::locked::urls(&job.source, file)?,
        _ => source::first_urls(job)?,
    };
    if let BaseSpec::File { path, .. } = &job.source.base {
        locations.push(path.display().to_string());
    }
    Ok(locations)
}

/// Returns the locations that are tried first for the fetched repositories.
fn repositories(job: &Job) -> Result<Vec<String>> {
    let fetched = job.portage.repositories.iter().enumerate();
    let fetched = fetched.filter_map(|(index, repository)| match &repository.origin {
        Origin::MetaRepo(MetaRepo { at: MetaRepoPlace::Git(git), .. }) => Some(Wanted::Commit { git, index }),
        _ => Wanted::repository(repository, index),
    });
    let urls: Result<Vec<_>> = fetched.map(|wanted| wanted.first_urls()).collect();
    Ok(urls?.concat())
}

/// Returns the paths of the results. A name that is not valid is an error now, not after an hour.
fn results(spec: &ImageSpec<'_>, outdir: &Path) -> Result<Vec<String>> {
    let line = |(role, name): (Role, String)| {
        let path = outdir.join(name).display().to_string();
        match role {
            Role::OciLayout { tag } => format!("{path} (tag {tag})"),
            _ => path,
        }
    };
    Ok(spec.expected()?.into_iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::job;

    #[test]
    fn a_dry_run_names_removals_and_results() {
        let mut job = job(Path::new("/out"));
        job.strip.paths = vec!["/var/db/pkg".to_owned()];
        let results = results(&ImageSpec::of_job(&job, SourceDate::new(0)).unwrap(), &job.build.outdir).unwrap();
        let run = DryRun {
            source: vec!["a".to_owned()],
            strip: strip::rules(&job.strip, job.build.kind, job.portage.with_kits()),
            results,
            ..DryRun::default()
        };
        let text = run.to_string();
        assert!(text.starts_with("source\n  a\n\nstrip\n  /var/db/pkg (the recipe's strip.paths)\n"), "{text}");
        assert!(text.ends_with("\n  /out/demo-1970-01-01.oci (tag 19700101)\n"), "{text}");
        assert!(!text.contains("repositories"));
    }
}
