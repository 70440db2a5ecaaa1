//! Everything that one recipe is locked to.

use serde::{Deserialize, Serialize};

use super::pin::{self, Pin};
use super::printable;
use crate::error::{Error, Result};

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
}

impl LockedRepository {
    fn changes(&self, new: &Self) -> Option<String> {
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
        self
    }

    /// Refuses to build with other repositories than those that were locked.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage), with what is another.
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

    /// Names and SHA-512 of all files in it that a store may have.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.stage3.iter().map(|pin| (pin.name.as_str(), pin.sha512.as_str()))
    }
}
