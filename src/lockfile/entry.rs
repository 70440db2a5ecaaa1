//! The inputs that one recipe is locked to.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::fields;
use crate::base::digest::{Blake2b, Sha256, Sha512};
use crate::base::error::{Error, Result};
use crate::base::text::printable;
use crate::base::time::readable;

/// The inputs that a recipe is locked to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// The stage3. `None` for a recipe that is built from the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage3: Option<LockedFile>,
    /// The fetched meta-repos, in the recipe's order. Their kits are among the repositories.
    #[serde(default, rename = "meta-repo", skip_serializing_if = "Vec::is_empty")]
    pub meta_repo: Vec<LockedCommit>,
    /// The ebuild repositories, in the recipe's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repository: Vec<LockedRepository>,
    /// The indexes of hosts of binary packages, in the recipe's order. Directories of this machine are not locked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binhost: Vec<LockedIndex>,
    /// The downloads of steps whose branch led to a commit, by name. The recipe itself decides the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetch: Vec<LockedFetch>,
}

/// A download of a branch as it was when it was locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedFetch {
    /// Its name in the recipe.
    #[serde(deserialize_with = "fields::line")]
    pub name: String,
    /// The commit.
    pub git: LockedCommit,
}

/// The index of a host of binary packages as it was when it was locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedIndex {
    /// The address of the host.
    #[serde(deserialize_with = "fields::line")]
    pub url: String,
    /// The digest of the index, unpacked.
    #[serde(deserialize_with = "fields::sha512")]
    pub sha512: Sha512,
    /// The time at which the host wrote it, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
}

/// A stage3 or a snapshot as it was verified when it was locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedFile {
    /// The recipe's request, in words.
    #[serde(deserialize_with = "fields::line")]
    pub asked: String,
    /// The file's name.
    #[serde(deserialize_with = "fields::file_name")]
    pub name: String,
    /// Its address, tried after the recipe's own mirrors. `None` for a file of this machine.
    #[serde(default, deserialize_with = "fields::url", skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Size in bytes.
    #[serde(deserialize_with = "fields::size")]
    pub size: u64,
    #[serde(deserialize_with = "fields::sha512")]
    pub sha512: Sha512,
    /// Present if signed digests named it.
    #[serde(default, deserialize_with = "fields::blake2b", skip_serializing_if = "Option::is_none")]
    pub blake2b: Option<Blake2b>,
    /// Build time, `YYYYMMDDTHHMMSSZ`.
    #[serde(default, deserialize_with = "fields::timestamp", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// Primary fingerprint of the signer.
    #[serde(default, deserialize_with = "fields::fingerprint", skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Fingerprint of the key that signed, if it is a subkey.
    #[serde(default, deserialize_with = "fields::fingerprint", skip_serializing_if = "Option::is_none")]
    pub subkey: Option<String>,
    /// Time of the signature in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<u64>,
    /// The reason for trusting it, in words.
    #[serde(rename = "verified", deserialize_with = "fields::line")]
    pub trust_basis: String,
}

/// An ebuild repository as it was when it was locked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedRepository {
    /// Its `repo_name`.
    #[serde(deserialize_with = "fields::line")]
    pub name: String,
    /// Of a directory: the commit that was checked out, if it is a git repository.
    #[serde(default, deserialize_with = "fields::some_commit", skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Of a directory: the digest of its contents. It is recorded, and a build is not held to it.
    #[serde(default, deserialize_with = "fields::sha256", skip_serializing_if = "Option::is_none")]
    pub content: Option<Sha256>,
    /// The snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<LockedFile>,
    /// The commit of a fetched git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<LockedCommit>,
}

/// A commit as it was verified when it was locked. Its signature is judged again when it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedCommit {
    /// The branch that the recipe asked for. `None` if it names the commit.
    #[serde(default, deserialize_with = "fields::some_line", skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The address of the repository.
    #[serde(deserialize_with = "fields::line")]
    pub url: String,
    /// The commit's id.
    #[serde(deserialize_with = "fields::commit")]
    pub commit: String,
    /// Primary fingerprint of the signer.
    #[serde(default, deserialize_with = "fields::fingerprint", skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// The reason for trusting it, in words.
    #[serde(rename = "verified", deserialize_with = "fields::line")]
    pub trust_basis: String,
}

impl LockedFile {
    /// Lists the differences to `new`, a line each. The list is empty when both are the same bytes from the same signer.
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        let mut compare = |what: &str, old: &str, new: &str| {
            if old != new {
                changes.push(format!("{what} {} → {}", printable(old), printable(new)));
            }
        };
        compare("asked for", &self.asked, &new.asked);
        compare("stage3", &self.name, &new.name);
        let digests = (self.sha512 != new.sha512).then(|| (self.sha512.hex(), new.sha512.hex()));
        if let Some((old, new)) = digests.as_ref().filter(|_| self.name == new.name) {
            compare("SHA-512", old, new);
        }
        let signer = |file: &Self| file.signer.clone().unwrap_or_else(|| "nobody".to_owned());
        compare("signer", &signer(self), &signer(new));
        changes
    }

    /// Refuses a `new` file that was built before this one: a mirror that withholds updates could lead us back to a build with known
    /// vulnerabilities.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::base::error::Kind::Refused).
    pub fn not_older(&self, new: &Self) -> Result<()> {
        match (&self.timestamp, &new.timestamp) {
            (Some(locked), Some(found)) if self.asked == new.asked && found < locked => Err(Error::refused(format!(
                "{} is older than the locked {}",
                printable(&new.name),
                printable(&self.name)
            ))
            .with_hint(
                "the mirror lags behind, or somebody tries to bring back an old build; name another mirror, or wait; \
                 --allow-rollback accepts it for one run",
            )),
            _ => Ok(()),
        }
    }
}

impl LockedCommit {
    fn described(&self) -> String {
        let signer = self.signer.as_deref().unwrap_or("nobody");
        let branch = self.branch.as_ref().map_or_else(String::new, |branch| format!(" branch {branch}"));
        format!("{}{branch} commit {} by {signer}", self.url, self.commit)
    }
}

impl LockedRepository {
    /// Describes the first difference to `new`.
    fn change(&self, new: &Self) -> Option<String> {
        let name = printable(&self.name);
        if let (Some(old), Some(new)) = (&self.snapshot, &new.snapshot)
            && let changes = old.changes(new)
            && !changes.is_empty()
        {
            return Some(format!("{name}: {}", changes.join(", ")));
        }
        let (old, present) = (self.described(), new.described());
        if old != present {
            return Some(format!("{name}: {} → {}", printable(&old), printable(&present)));
        }
        if self.name != new.name {
            return Some(format!("{name} → {}", printable(&new.name)));
        }
        let commit = |of: &Self| of.commit.clone().unwrap_or_else(|| "none".to_owned());
        if self.commit != new.commit {
            return Some(format!("{name}: commit {} → {}", commit(self), commit(new)));
        }
        (self.content != new.content).then(|| match (self.content, new.content) {
            (Some(old), Some(new)) => format!("{name}: contents {} → {}", &old.hex()[..12], &new.hex()[..12]),
            (old, _) => format!("{name}: digest of the contents {}", if old.is_some() { "left out" } else { "added" }),
        })
    }

    fn described(&self) -> String {
        match (&self.snapshot, &self.git) {
            (Some(_), _) => "a snapshot".to_owned(),
            (None, Some(git)) => git.described(),
            (None, None) => "a directory".to_owned(),
        }
    }
}

impl Locked {
    /// Lists the differences to `new`, a line each.
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let mut changes = match (&self.stage3, &new.stage3) {
            (Some(old), Some(new)) => old.changes(new),
            (None, None) => Vec::new(),
            (old, new) => {
                let name = |file: &Option<LockedFile>| {
                    file.as_ref().map_or_else(|| "none".to_owned(), |file| printable(&file.name))
                };
                vec![format!("stage3 {} → {}", name(old), name(new))]
            }
        };
        let meta_repos =
            self.meta_repo.iter().zip(&new.meta_repo).filter(|(old, new)| old.described() != new.described());
        changes.extend(
            meta_repos.map(|(old, new)| {
                format!("meta-repo {} → {}", printable(&old.described()), printable(&new.described()))
            }),
        );
        let (before, after) = (self.meta_repo.len(), new.meta_repo.len());
        if before != after {
            changes.push(format!("{before} meta-repos → {after}"));
        }
        let repositories = self.repository.iter().zip(&new.repository).filter_map(|(old, new)| old.change(new));
        changes.extend(repositories.map(|change| format!("repository {change}")));
        let (before, after) = (self.repository.len(), new.repository.len());
        if before != after {
            changes.push(format!("{before} repositories → {after}"));
        }
        changes.extend(self.changed_indexes(new));
        changes.extend(self.changed_fetches(new));
        changes
    }

    fn changed_fetches(&self, new: &Self) -> Vec<String> {
        let of = |name: &str, all: &[LockedFetch]| {
            let found = all.iter().find(|fetch| fetch.name == name);
            found.map_or_else(|| "none".to_owned(), |fetch| fetch.git.described())
        };
        let names = self.fetch.iter().chain(&new.fetch).map(|fetch| fetch.name.as_str()).collect::<BTreeSet<_>>();
        let both = names.into_iter().map(|name| (name, of(name, &self.fetch), of(name, &new.fetch)));
        both.filter(|(_, old, new)| old != new)
            .map(|(name, old, new)| format!("download {}: {} → {}", printable(name), printable(&old), printable(&new)))
            .collect()
    }

    fn changed_indexes(&self, new: &Self) -> Vec<String> {
        let of = |url: &str, all: &[LockedIndex]| all.iter().find(|index| index.url == url).cloned();
        let time = |index: &LockedIndex| index.timestamp.map_or_else(|| "no date".to_owned(), readable);
        let described = |index: &Option<LockedIndex>| match index {
            Some(index) => format!("{} ({})", &index.sha512.hex()[..12], time(index)),
            None => "none".to_owned(),
        };
        let added = new.binhost.iter().filter(|index| of(&index.url, &self.binhost).is_none());
        let urls = self.binhost.iter().chain(added).map(|index| index.url.as_str());
        urls.filter_map(|url| {
            let (old, new) = (of(url, &self.binhost), of(url, &new.binhost));
            let differ = old.as_ref().map(|index| index.sha512) != new.as_ref().map(|index| index.sha512);
            let (old, new) = (described(&old), described(&new));
            differ.then(|| format!("binary packages of {}: {old} → {new}", printable(url)))
        })
        .collect()
    }

    /// Returns the locked index of a host of binary packages.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if there is none.
    pub fn index(&self, url: &str) -> Result<&LockedIndex> {
        self.binhost.iter().find(|index| index.url == url).ok_or_else(|| {
            Error::usage(format!("the binary packages of {} are not locked", printable(url)))
                .with_hint("lock them with `quern-builder lock`")
        })
    }

    /// Returns `self`, with entries that did not change kept as they are in `old`. This avoids differences in wording alone.
    #[must_use]
    pub fn settled(mut self, old: &Self) -> Self {
        if let (Some(was), Some(is)) = (&old.stage3, &mut self.stage3)
            && was.changes(is).is_empty()
        {
            *is = was.clone();
        }
        for (was, is) in old.repository.iter().zip(&mut self.repository) {
            if was.change(is).is_none() {
                *is = was.clone();
            }
        }
        self
    }

    /// Refuses repositories other than the locked ones. A directory without a locked commit may have any contents. Returns warnings
    /// about directories whose contents changed.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage), with the differences.
    pub fn check_repositories(&self, present: &[LockedRepository]) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        let mut comparable = present.to_vec();
        for (present, locked) in comparable.iter_mut().zip(&self.repository) {
            if locked.commit.is_none() {
                present.commit = None;
            }
            if locked.content.is_some() && present.content != locked.content {
                warnings.push(format!(
                    "the contents of the repository {} changed since it was locked",
                    printable(&locked.name)
                ));
            }
            present.content = locked.content;
        }
        let locked = Self { repository: self.repository.clone(), ..Self::default() };
        let changes = locked.changes(&Self { repository: comparable, ..Self::default() });
        if changes.is_empty() {
            return Ok(warnings);
        }
        let details: String = changes.iter().map(|change| format!("{change}\n")).collect();
        Err(Error::usage("the recipe's repositories differ from the locked ones")
            .with_details(details)
            .with_hint("check out the locked commits; or lock the present ones with `quern-builder lock`"))
    }

    /// Returns true if its stage3 has this SHA-512.
    pub fn has_stage3(&self, sha512: Sha512) -> bool {
        self.stage3.as_ref().is_some_and(|file| file.sha512 == sha512)
    }

    /// Lists names and digests of all files in it that a store may have.
    pub fn files(&self) -> impl Iterator<Item = (&str, Sha512)> {
        let snapshots = self.repository.iter().filter_map(|repository| repository.snapshot.as_ref());
        self.stage3.iter().chain(snapshots).map(|file| (file.name.as_str(), file.sha512))
    }
}
