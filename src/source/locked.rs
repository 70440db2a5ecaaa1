//! Everything that one recipe is locked to.

use crate::base::text::printable;
use serde::{Deserialize, Serialize};

use super::pin::{self, Pin};
use crate::base::digest::Sha512;
use crate::base::error::{Error, Result};
use crate::recipe::Git;

/// What a recipe is locked to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// Its stage3; none where it is built from something that nobody publishes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage3: Option<Pin>,
    /// Its ebuild repositories, in the recipe's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repository: Vec<LockedRepository>,
}

/// An ebuild repository as it was when it was locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedRepository {
    /// Its `repo_name`.
    #[serde(deserialize_with = "pin::plain")]
    pub name: String,
    /// The commit that was checked out in a directory of the machine; none where it says nothing of itself.
    #[serde(default, deserialize_with = "pin::commit", skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The snapshot that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Pin>,
    /// The commit of a git repository that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<PinnedCommit>,
}

/// A commit as it was verified when it was locked. When it is used, its signature is judged again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedCommit {
    /// The branch that the recipe asked for; none where it names the commit.
    #[serde(default, deserialize_with = "pin::some_plain", skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The address of the repository.
    #[serde(deserialize_with = "pin::plain")]
    pub url: String,
    /// Its id.
    #[serde(deserialize_with = "pin::one_commit")]
    pub commit: String,
    /// Primary fingerprint of who signed it.
    #[serde(default, deserialize_with = "pin::fingerprint", skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// What the trust in it rested on, in words.
    #[serde(deserialize_with = "pin::plain")]
    pub verified: String,
}

impl PinnedCommit {
    /// What the recipe asks for, with this very commit for its branch's newest.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) when it asks for something else.
    pub fn of(&self, git: &Git) -> Result<Git> {
        let branch = git.branch.as_ref().filter(|_| git.commit.is_none());
        let asks = (&git.url, branch, git.commit.as_ref().unwrap_or(&self.commit));
        if asks != (&self.url, self.branch.as_ref(), &self.commit) {
            let words = |url: &str, branch: Option<&String>, commit: &str| {
                format!(
                    "{url}, {}",
                    branch.map_or_else(|| format!("commit {commit}"), |branch| format!("branch {branch}"))
                )
            };
            let locked = words(&self.url, self.branch.as_ref(), &self.commit);
            return Err(pin::changed(&words(asks.0, asks.1, asks.2), &locked));
        }
        Ok(Git { commit: Some(self.commit.clone()), ..git.clone() })
    }
}

impl LockedRepository {
    fn changes(&self, new: &Self) -> Option<String> {
        if let (Some(old), Some(new)) = (&self.snapshot, &new.snapshot)
            && let changes = old.changes(new)
            && !changes.is_empty()
        {
            return Some(format!("{}: {}", printable(&self.name), changes.join(", ")));
        }
        let is = |of: &Self| match (&of.snapshot, &of.git) {
            (Some(_), _) => "a snapshot".to_owned(),
            (None, Some(git)) => {
                let signer = git.signer.as_deref().unwrap_or("nobody");
                let branch = git.branch.as_ref().map_or_else(String::new, |branch| format!(" branch {branch}"));
                format!("{}{branch} commit {} by {signer}", git.url, git.commit)
            }
            (None, None) => "a directory".to_owned(),
        };
        if is(self) != is(new) {
            let (old, new) = (printable(&is(self)), printable(&is(new)));
            return Some(format!("{}: {old} → {new}", printable(&self.name)));
        }
        let commit = |of: &Self| of.commit.clone().unwrap_or_else(|| "none".to_owned());
        match () {
            () if self.name != new.name => Some(format!("{} → {}", printable(&self.name), printable(&new.name))),
            () if self.commit != new.commit => {
                Some(format!("{}: commit {} → {}", printable(&self.name), commit(self), commit(new)))
            }
            () => None,
        }
    }
}

impl Locked {
    /// What is another in `new`, a line each.
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let mut changes = match (&self.stage3, &new.stage3) {
            (Some(old), Some(new)) => old.changes(new),
            (None, None) => Vec::new(),
            (old, new) => {
                let name =
                    |pin: &Option<Pin>| pin.as_ref().map_or_else(|| "none".to_owned(), |pin| printable(&pin.name));
                vec![format!("stage3 {} → {}", name(old), name(new))]
            }
        };
        let repositories = self.repository.iter().zip(&new.repository).filter_map(|(old, new)| old.changes(new));
        changes.extend(repositories.map(|change| format!("repository {change}")));
        let (before, after) = (self.repository.len(), new.repository.len());
        if before != after {
            changes.push(format!("{before} repositories → {after}"));
        }
        changes
    }

    /// This, with what did not move as it was in `old`: the same thing may be said in other words.
    #[must_use]
    pub fn settled(mut self, old: &Self) -> Self {
        if let (Some(was), Some(is)) = (&old.stage3, &mut self.stage3)
            && was.changes(is).is_empty()
        {
            *is = was.clone();
        }
        for (was, is) in old.repository.iter().zip(&mut self.repository) {
            if was.changes(is).is_none() {
                *is = was.clone();
            }
        }
        self
    }

    /// Refuses to build with other repositories than those that were locked.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage), with what is another.
    pub fn repositories_fit(&self, present: &[LockedRepository]) -> Result<()> {
        let locked = Self { stage3: None, repository: self.repository.clone() };
        let mut present = present.to_vec();
        // Of which no commit was locked, any will do.
        let free = present.iter_mut().zip(&locked.repository).filter(|(_, locked)| locked.commit.is_none());
        free.for_each(|(present, _)| present.commit = None);
        let changes = locked.changes(&Self { stage3: None, repository: present });
        if changes.is_empty() {
            return Ok(());
        }
        let details: String = changes.iter().map(|change| format!("{change}\n")).collect();
        Err(Error::usage("the recipe's repositories are not as they were locked")
            .with_details(details)
            .with_hint("check out what was locked; or lock what is there now, with `quern-builder lock`"))
    }

    /// Whether its stage3 is the one with this SHA-512.
    pub fn is_of(&self, sha512: &Sha512) -> bool {
        self.stage3.as_ref().is_some_and(|pin| pin.sha512 == *sha512)
    }

    /// Names and SHA-512 of all files in it that a store may have.
    pub fn files(&self) -> impl Iterator<Item = (&str, Sha512)> {
        let snapshots = self.repository.iter().filter_map(|repository| repository.snapshot.as_ref());
        self.stage3.iter().chain(snapshots).map(|pin| (pin.name.as_str(), pin.sha512))
    }
}
