//! Funtoo's meta-repo: the kits of a release, and the commit of each. Its two documents are foreign input.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::checkout;
use super::git::{self, Commit};
use crate::base::error::{Error, Kind, Result};
use crate::base::text::{nearest, plain, printable};
use crate::lockfile::LockedCommit;
use crate::recipe::{self, Git, Job, MetaRepo, MetaRepoPlace, Origin, RepositorySpec};
use crate::source::{Site, locked};

/// The kits of each release, and the branches of each kit, the default one first.
const INFO: &str = "metadata/kit-info.json";
/// The commit of each branch of each kit.
const COMMITS: &str = "metadata/kit-sha1.json";
/// The kit that the others build on. `ego` makes it the main repository.
const CORE: &str = "core-kit";
/// The limit on kits. Releases of Funtoo have about thirty.
const MOST: usize = 500;
/// The limit on the names that a message lists.
const SHOWN: usize = 40;

/// The metadata before version 10 names kits by release; later each release has a branch of its own.
#[derive(Deserialize)]
struct Info {
    kit_order: Option<ByRelease<Vec<String>>>,
    release_defs: ByRelease<BTreeMap<String, Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ByRelease<T> {
    One(T),
    Several(BTreeMap<String, T>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Plain(String),
    WithDepth { sha1: String },
}

/// A kit of a release.
#[derive(Debug, PartialEq, Eq)]
pub struct Kit {
    pub name: String,
    pub branch: String,
    /// 40 or 64 lower-case hex digits.
    pub commit: String,
}

/// A repository of a recipe. Each kit of a meta-repo is one.
#[derive(Debug)]
pub(in crate::source) struct Listed {
    pub(in crate::source) spec: RepositorySpec,
    /// The commit of the meta-repo that lists it, if that was fetched.
    pub(in crate::source) meta_repo: Option<LockedCommit>,
}

/// Reads the kits of a release: the `wanted` ones, or all if none is named. `core-kit` comes first, the others in the meta-repo's order.
///
/// # Errors
/// [`Kind::Usage`] for other documents, an unknown release and an unknown kit.
pub fn kits(info: &[u8], commits: &[u8], release: &str, wanted: &[String]) -> Result<Vec<Kit>> {
    let info: Info = parsed(INFO, info)?;
    let commits: BTreeMap<String, BTreeMap<String, Id>> = parsed(COMMITS, commits)?;
    let kits = match info.release_defs {
        ByRelease::One(kits) => kits,
        ByRelease::Several(mut releases) => match releases.remove(release) {
            Some(kits) => kits,
            None => return Err(unknown("release", release, releases.keys())),
        },
    };
    if kits.len() > MOST {
        return Err(Error::usage(format!("{INFO} of the meta-repo has more than {MOST} kits")));
    }
    let order = match info.kit_order {
        Some(ByRelease::One(order)) => order,
        Some(ByRelease::Several(mut orders)) => orders.remove(&format!("{release}-release")).unwrap_or_default(),
        None => Vec::new(),
    };
    if let Some(wrong) = wanted.iter().find(|name| !kits.contains_key(*name)) {
        return Err(unknown("kit", wrong, kits.keys()));
    }
    let place = |name: &str| order.iter().position(|ordered| ordered == name).unwrap_or(order.len());
    let mut chosen: Vec<_> = kits.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)).collect();
    chosen.sort_by_key(|(name, _)| (*name != CORE, place(name)));
    chosen.into_iter().map(|(name, branches)| kit(name, branches, &commits)).collect()
}

fn kit(name: &str, branches: &[String], commits: &BTreeMap<String, BTreeMap<String, Id>>) -> Result<Kit> {
    let wrong = |what: &str| Error::usage(format!("the kit ‘{}’ of the meta-repo has {what}", plain(name, 60)));
    let branch = branches.first().ok_or_else(|| wrong("no branch"))?;
    if !recipe::is_repository_name(name) || !recipe::is_branch(branch) {
        return Err(wrong("an invalid name or branch"));
    }
    let commit = match commits.get(name).and_then(|commits| commits.get(branch)) {
        Some(Id::Plain(commit) | Id::WithDepth { sha1: commit }) => checkout::id(commit),
        None => return Err(wrong(&format!("no commit for its branch {branch} in {COMMITS}"))),
    };
    let commit = commit.ok_or_else(|| wrong("a commit that is not 40 or 64 hex digits"))?;
    Ok(Kit { name: name.to_owned(), branch: branch.clone(), commit })
}

fn parsed<'a, T: Deserialize<'a>>(path: &str, bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::usage(format!("{path} of the meta-repo is not what `ego` reads: {}", printable(&error.to_string())))
    })
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a String>) -> Error {
    let known: Vec<String> = known.take(MOST).map(|name| plain(name, 60)).collect();
    let hint = match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("it has: {}", known[..known.len().min(SHOWN)].join(", ")),
    };
    Error::usage(format!("the meta-repo has no {what} ‘{}’", plain(name, 60))).with_hint(hint)
}

/// Returns the repositories of a recipe, with the kits in place of each meta-repo.
///
/// # Errors
/// Those of [`kits`] and [`git::locate`]; [`Kind::Usage`] for a kit of a directory that is not at its commit.
pub(in crate::source) fn listed(job: &Job, at: &Site<'_>) -> Result<Vec<Listed>> {
    let mut all = Vec::new();
    let mut fetched = 0;
    for spec in &job.portage.repositories {
        let Origin::MetaRepo(meta) = &spec.origin else {
            all.push(Listed { spec: spec.clone(), meta_repo: None });
            continue;
        };
        let (origins, meta_repo) = match &meta.at {
            MetaRepoPlace::Directory(directory) => (in_directory(meta, directory)?, None),
            MetaRepoPlace::Git(git) => {
                let git = held(git, fetched, at)?;
                fetched += 1;
                let commit = located(meta, &git, at)?;
                (fetched_kits(meta, &git, &commit, at)?, Some(lock(meta, &commit)))
            }
        };
        all.extend(origins.into_iter().map(|(kit, origin)| Listed {
            spec: RepositorySpec {
                origin,
                // The priorities that `ego` gives.
                priority: spec.priority.or(Some(if kit == "nokit" { -500 } else { 1 })),
                masters: None,
                eclass_overrides: None,
                kit: Some(kit),
            },
            meta_repo: meta_repo.clone(),
        }));
    }
    Ok(all)
}

/// Judges the commits of the meta-repos again. Returns a paragraph about each.
///
/// # Errors
/// Those of [`git::judge`].
pub(in crate::source) fn judge(job: &Job, at: &Site<'_>) -> Result<Vec<String>> {
    let fetched = job.portage.repositories.iter().filter_map(|spec| match &spec.origin {
        Origin::MetaRepo(MetaRepo { at: MetaRepoPlace::Git(git), .. }) => Some(git),
        _ => None,
    });
    let each = fetched.enumerate().map(|(index, git)| {
        let git = held(git, index, at)?;
        let commit = if at.options.offline { git::locate(&git, at) } else { git::judge(&git, at) };
        commit.map(|commit| commit.to_string())
    });
    each.collect()
}

/// Returns the request for the meta-repo at `index`, held to the lock if there is one.
fn held(git: &Git, index: usize, at: &Site<'_>) -> Result<Git> {
    let Some(locked) = at.options.locked else { return Ok(git.clone()) };
    match locked.meta_repo.get(index) {
        Some(commit) => locked::commit(commit, git),
        None => Err(locked::changed(&git.url, "something else")),
    }
}

/// Finds the commit of a meta-repo.
fn located(meta: &MetaRepo, git: &Git, at: &Site<'_>) -> Result<Commit> {
    git::locate(git, at).or_else(|error| {
        let no_branch = error.details().is_some_and(|details| details.contains("find remote ref"));
        if !no_branch || error.kind() != Kind::Network {
            return Err(error);
        }
        let branches = git::branches(git, at)?;
        let mut releases = branches;
        releases
            .iter_mut()
            .filter(|name| *name == &MetaRepo::branch_of("1.4"))
            .for_each(|name| *name = "1.4".to_owned());
        Err(unknown("release", &meta.release, releases.iter()))
    })
}

fn lock(meta: &MetaRepo, commit: &Commit) -> LockedCommit {
    let by_branch = matches!(&meta.at, MetaRepoPlace::Git(git) if git.commit.is_none());
    LockedCommit {
        branch: by_branch.then(|| MetaRepo::branch_of(&meta.release)),
        url: commit.url().to_owned(),
        commit: commit.id().to_owned(),
        signer: commit.signer().map(str::to_owned),
        trust_basis: commit.trust_basis(),
    }
}

/// Returns the kits of a fetched meta-repo, each at the commit that it lists.
fn fetched_kits(meta: &MetaRepo, git: &Git, commit: &Commit, at: &Site<'_>) -> Result<Vec<(String, Origin)>> {
    let file = |path: &str| {
        let missing = || Error::usage(format!("{} at {} has no {path}: it is not a meta-repo", git.url, commit.id()));
        git::file(git, commit, path, at)?.ok_or_else(missing)
    };
    let kits = kits(&file(INFO)?, &file(COMMITS)?, &meta.release, &meta.kits)?;
    let named_by = format!("{COMMITS} of {} at {} ({})", git.url, &commit.id()[..12], commit.trust_basis());
    let origin = |kit: Kit| {
        let origin = Origin::Git(Git {
            url: beside(&git.url, &kit.name),
            commit: Some(kit.commit),
            branch: Some(kit.branch),
            keyring: None,
            fingerprints: Vec::new(),
            max_age: git.max_age,
            allow_unsigned: true,
            bounds: git.bounds,
            named_by: Some(named_by.clone()),
        });
        (kit.name, origin)
    };
    Ok(kits.into_iter().map(origin).collect())
}

/// Returns the address of a kit: the one of the meta-repo with another last part.
fn beside(url: &str, kit: &str) -> String {
    let url = url.trim_end_matches('/');
    let (parent, last) = url.rsplit_once('/').unwrap_or((url, ""));
    let ending = if last.ends_with(".git") { ".git" } else { "" };
    format!("{parent}/{kit}{ending}")
}

/// Returns the kits of a meta-repo in a directory, after checking their commits as far as they are checkouts.
fn in_directory(meta: &MetaRepo, directory: &Path) -> Result<Vec<(String, Origin)>> {
    let file = |path: &str| {
        let missing = || Error::usage(format!("{} has no {path}: it is not a meta-repo", directory.display()));
        checkout::read(&directory.join(path)).ok_or_else(missing)
    };
    let wanted = MetaRepo::branch_of(&meta.release);
    if let Some(branch) = checkout::branch(directory).filter(|branch| *branch != wanted) {
        let release = if branch == MetaRepo::branch_of("1.4") { "1.4".to_owned() } else { branch };
        return Err(unknown("release", &meta.release, std::iter::once(&release)));
    }
    let kits = kits(file(INFO)?.as_bytes(), file(COMMITS)?.as_bytes(), &meta.release, &meta.kits)?;
    let origin = |kit: Kit| {
        let path = directory.join("kits").join(&kit.name);
        let hint =
            "`ego sync` brings the kits to the commits that the meta-repo lists; `kits` in the recipe selects some";
        if !path.is_dir() {
            return Err(Error::usage(format!("{} is not a directory", path.display())).with_hint(hint));
        }
        match checkout::commit(&path) {
            Some(commit) if commit != kit.commit => Err(Error::usage(format!(
                "{} is at commit {commit}, and the meta-repo lists {}",
                path.display(),
                kit.commit
            ))
            .with_hint(hint)),
            _ => Ok((kit.name, Origin::Location(path))),
        }
    };
    kits.into_iter().map(origin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const NEW: &str = r#"{"kit_order": ["b-kit", "core-kit"], "kit_settings": {}, "release_info": {"version": 11},
        "release_defs": {"a-kit": ["1.4-release", "x"], "b-kit": ["3.7"], "core-kit": ["1.4-release"]}}"#;

    fn commits() -> String {
        format!(
            r#"{{"a-kit": {{"1.4-release": "{A}", "x": "{A}"}}, "core-kit": {{"1.4-release": {{"sha1": "{A}", "depth": 3}}}},
                "b-kit": {{"3.7": "{A}"}}}}"#
        )
    }

    fn names(info: &str, release: &str, wanted: &[&str]) -> Result<Vec<String>> {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let kits = kits(info.as_bytes(), commits().as_bytes(), release, &wanted)?;
        Ok(kits.into_iter().map(|kit| format!("{} {}", kit.name, kit.branch)).collect())
    }

    #[test]
    fn kits_are_read_from_both_forms_of_the_metadata() {
        assert_eq!(names(NEW, "1.4", &[]).unwrap(), ["core-kit 1.4-release", "b-kit 3.7", "a-kit 1.4-release"]);
        assert_eq!(names(NEW, "1.4", &["a-kit"]).unwrap(), ["a-kit 1.4-release"]);
        let old = r#"{"kit_order": {"1.2-release": ["b-kit", "a-kit"]}, "release_defs": {"1.2": {"a-kit": ["x"], "b-kit": ["3.7"]}}}"#;
        assert_eq!(names(old, "1.2", &[]).unwrap(), ["b-kit 3.7", "a-kit x"]);
        let error = names(old, "1.3", &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains("has no release ‘1.3’"), "{error}");
    }

    #[test]
    fn unknown_kits_and_other_documents_are_usage_errors() {
        let error = names(NEW, "1.4", &["core-kid"]).unwrap_err();
        assert_eq!(error.hint(), Some("did you mean core-kit?"));
        for (info, says) in [
            ("{", "kit-info.json of the meta-repo is not"),
            (r#"{"release_defs": {"../x": ["y"]}}"#, "an invalid name or branch"),
            (r#"{"release_defs": {"a-kit": ["--x"]}}"#, "an invalid name or branch"),
            (r#"{"release_defs": {"a-kit": []}}"#, "no branch"),
            (r#"{"release_defs": {"a-kit": ["1.5"]}}"#, "no commit for its branch 1.5"),
        ] {
            let error = names(info, "1.4", &[]).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_string().contains(says), "{error}");
        }
        let short = br#"{"a-kit": {"x": "abc"}}"#;
        let error = kits(br#"{"release_defs": {"a-kit": ["x"]}}"#, short, "1.4", &[]).unwrap_err();
        assert!(error.to_string().contains("not 40 or 64 hex digits"), "{error}");
    }

    #[test]
    fn kits_lie_beside_the_meta_repo() {
        assert_eq!(beside("https://github.com/funtoo/meta-repo", "core-kit"), "https://github.com/funtoo/core-kit");
        assert_eq!(beside("https://example.org/meta-repo.git/", "core-kit"), "https://example.org/core-kit.git");
    }

    #[test]
    fn kits_in_a_directory_must_be_at_their_commits() {
        let scratch = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = scratch.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        };
        let read = |release: &str| {
            let at = MetaRepoPlace::Directory(scratch.path().to_owned());
            let meta = MetaRepo { at, release: release.to_owned(), kits: vec!["core-kit".to_owned()] };
            in_directory(&meta, scratch.path())
        };
        assert!(read("1.4").unwrap_err().to_string().contains("is not a meta-repo"));
        write(INFO, NEW);
        write(COMMITS, &commits());
        write(".git/HEAD", "ref: refs/heads/1.4-release\n");
        assert!(read("1.4").unwrap_err().hint().unwrap().contains("ego sync"));
        write("kits/core-kit/.git/HEAD", &"b".repeat(40));
        assert!(read("1.4").unwrap_err().to_string().contains("and the meta-repo lists"));
        write("kits/core-kit/.git/HEAD", A);
        assert_eq!(read("1.4").unwrap()[0].0, "core-kit");
        assert!(read("1.3-release").unwrap_err().to_string().contains("has no release"));
    }
}
