//! Funtoo's profiles: the directory of each part, as `profiles.ego.desc` of core-kit tells.

use std::collections::BTreeMap;
use std::path::Path;

use super::plain_path;
use crate::base::error::{Error, Result};
use crate::base::text::{nearest, plain};
use crate::portage::repos::{Repo, Repos, read};
use crate::recipe::{FuntooProfile, ProfileName};

/// The file below `profiles/` with the directories.
const DESC: &str = "profiles.ego.desc";
/// The limit on the names that a message lists.
const SHOWN: usize = 30;

/// The directories below `profiles/` by kind of part: `arch`, `build`, `flavor`, `mix-ins`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Directories(BTreeMap<String, String>);

impl Directories {
    /// Parses the text of `profiles.ego.desc`. Returns `None` for any other text and for a path that leads elsewhere.
    pub fn parse(text: &str) -> Option<Self> {
        let found: BTreeMap<String, String> = serde_json::from_str(text).ok()?;
        let plain = found.into_iter().map(|(kind, path)| Some((kind, plain_path(&path)?)));
        plain.collect::<Option<_>>().map(Self)
    }

    /// Returns the directories in which a part of a kind may lie. Some lie below the architecture.
    pub fn of(&self, kind: &str, arch: &str) -> Vec<String> {
        let below = |kind: &str, directory: &str| self.0.get(kind).map(|path| format!("{path}/{arch}/{directory}"));
        let all = match kind {
            "subarch" => vec![below("arch", "subarch")],
            "mix-ins" => vec![self.0.get(kind).cloned(), below("arch", kind), below(kind, kind)],
            _ => vec![self.0.get(kind).cloned()],
        };
        all.into_iter().flatten().collect()
    }
}

/// Returns the parents that `ego` writes for a profile, in its order.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) for a part that no repository has.
pub(super) fn parents(profile: &FuntooProfile, repos: &Repos) -> Result<Vec<ProfileName>> {
    let single = [("build", &profile.build), ("subarch", &profile.subarch), ("flavor", &profile.flavor)];
    let mut parts = vec![("arch", profile.arch.as_str())];
    parts.extend(single.iter().filter_map(|(kind, name)| Some((*kind, name.as_deref()?))));
    parts.extend(profile.mix_ins.iter().map(|name| ("mix-ins", name.as_str())));
    let arch = profile.arch.rsplit(':').next().unwrap_or_default();
    let mut parents: Vec<_> = parts.iter().map(|(kind, name)| part(kind, name, arch, repos)).collect::<Result<_>>()?;
    for (kit, branch) in &profile.kits {
        parents.extend(of_kit(kit, branch, repos)?);
    }
    Ok(parents)
}

/// Finds one part.
fn part(kind: &str, name: &str, arch: &str, repos: &Repos) -> Result<ProfileName> {
    let (repo, name) = match name.split_once(':') {
        Some((repo, name)) => (repos.named(repo)?, name),
        None => (with_parts(repos)?, name),
    };
    let file = repo.location().join("profiles").join(DESC);
    let Some(text) = read(&file)? else {
        return Err(Error::usage(format!("the repository {} has no parts of Funtoo profiles", repo.name()))
            .with_hint(format!("they are listed in {}, which does not exist", file.display())));
    };
    let wrong = || Error::usage(format!("{} is not an object of paths below profiles/", file.display()));
    let directories = Directories::parse(&text).ok_or_else(wrong)?.of(kind, arch);
    let found = directories.iter().find(|directory| is_profile(repo, &format!("{directory}/{name}")));
    if let Some(directory) = found {
        return Ok(ProfileName { repo: Some(repo.name().to_owned()), path: format!("{directory}/{name}") });
    }
    let noun = kind.trim_end_matches('s');
    let error = Error::usage(format!("build.profile: {} has no {noun} ‘{}’", repo.name(), plain(name, 60)));
    Err(error.with_hint(instead(name, directories.iter().flat_map(|directory| names(repo, directory)).collect())))
}

/// Returns the profiles of a kit's branch: each repository may have one, as for `ego`.
fn of_kit(kit: &str, branch: &str, repos: &Repos) -> Result<Vec<ProfileName>> {
    let directory = format!("funtoo/kits/{kit}");
    let path = format!("{directory}/{branch}");
    let with = repos.iter().filter(|repo| is_profile(repo, &path));
    let found: Vec<_> =
        with.map(|repo| ProfileName { repo: Some(repo.name().to_owned()), path: path.clone() }).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let known = repos.iter().flat_map(|repo| names(repo, &directory)).collect();
    Err(Error::usage(format!(
        "build.profile: no repository has a profile for branch ‘{}’ of {}",
        plain(branch, 60),
        plain(kit, 60)
    ))
    .with_hint(instead(branch, known)))
}

/// Returns the repository with the list of parts; the main one if it has one.
fn with_parts(repos: &Repos) -> Result<&Repo> {
    repos.iter().find(|repo| repo.location().join("profiles").join(DESC).is_file()).ok_or_else(|| {
        Error::usage(format!("build.profile is a table, but no repository has the file profiles/{DESC}"))
            .with_hint("a table names parts of a Funtoo profile, which are in core-kit; for other profiles write \"repository:path\"")
    })
}

fn is_profile(repo: &Repo, path: &str) -> bool {
    plain_path(path).is_some_and(|path| repo.location().join("profiles").join(path).is_dir())
}

/// Lists the directories in a directory below `profiles/`.
fn names(repo: &Repo, directory: &str) -> Vec<String> {
    let path = repo.location().join("profiles").join(Path::new(directory));
    let entries = fs_err::read_dir(path).into_iter().flatten().flatten().take(1_000);
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| plain(&entry.file_name().to_string_lossy(), 60))
        .collect();
    names.sort();
    names
}

fn instead(name: &str, known: Vec<String>) -> String {
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None if known.is_empty() => "the repository has none; is it the right one?".to_owned(),
        None => format!("known names: {}", known[..known.len().min(SHOWN)].join(", ")),
    }
}
