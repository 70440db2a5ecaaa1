//! Users and groups of a tree.

mod records;
#[cfg(test)]
mod tests;
mod users;

use super::home::Home;
use super::{Access, Change, Facts, Outcome, Tree, exists, unknown};
use crate::base::error::{Error, Result};
use crate::base::text::quoted;
use crate::recipe::{GroupSpec, System};
use records::Records;

/// The ids of ordinary users and groups, as in login.defs(5).
const ORDINARY: std::ops::RangeInclusive<u32> = 1000..=60_000;
/// The ids of the system's own.
const OWN: std::ops::RangeInclusive<u32> = 101..=999;

/// The account files of a tree.
#[derive(Debug)]
pub(super) struct Accounts {
    passwd: Records,
    group: Records,
    shadow: Records,
    gshadow: Records,
    /// The day of a changed password, since 1970.
    day: u64,
}

impl Accounts {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Kind::Build`](crate::base::error::Kind::Build) with the line that is malformed, and those of the tree.
    pub(super) fn read(tree: &dyn Tree, day: u64) -> Result<Self> {
        let read = |path, fields, numbers: &[usize]| Records::parse(path, tree.read(path)?, fields, numbers);
        Ok(Self {
            passwd: read("/etc/passwd", 7, &[2, 3])?,
            group: read("/etc/group", 4, &[2])?,
            shadow: read("/etc/shadow", 9, &[])?,
            gshadow: read("/etc/gshadow", 4, &[])?,
            day,
        })
    }

    /// Brings the accounts into the state that `system` describes. Returns the homes of its users.
    ///
    /// # Errors
    /// [`Kind::Build`](crate::base::error::Kind::Build) if an id is taken, or if a user or group is unknown.
    pub(super) fn apply(
        &mut self,
        system: &System,
        facts: &Facts,
        tree: &dyn Tree,
        outcome: &mut Outcome,
    ) -> Result<Vec<Home>> {
        for group in &system.groups {
            self.add_group(group)?;
        }
        let mut homes = Vec::new();
        for user in &system.users {
            homes.extend(self.user(user, facts.hashes.get(&user.name).map(String::as_str), tree)?);
            if let Some(shell) = user.shell.as_deref().filter(|shell| !exists(tree, shell).unwrap_or(true)) {
                outcome.warnings.push(format!("the tree has no {shell}, the shell of the user {}", user.name));
            }
        }
        for group in &system.groups {
            group.members.iter().try_for_each(|member| self.join(&group.name, member))?;
        }
        for user in &system.users {
            user.groups.iter().try_for_each(|group| self.join(group, &user.name))?;
        }
        Ok(homes)
    }

    /// Returns the owner that `user[:group]` stands for, names or numbers. Without a group it is the user's own.
    ///
    /// # Errors
    /// [`Kind::Build`](crate::base::error::Kind::Build) for an unknown user or group.
    pub(super) fn owner(&self, text: &str) -> Result<(u32, u32)> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let record = self.passwd.get(user).or_else(|| self.passwd.by_id(user.parse().ok()?));
        let uid = record.map(|record| Records::number(record, 2)).or_else(|| user.parse().ok());
        let uid = uid.ok_or_else(|| unknown("user", user, self.passwd.names()))?;
        let gid = match group {
            Some(group) => self.gid(group)?,
            None => record.map_or(uid, |record| Records::number(record, 3)),
        };
        Ok((uid, gid))
    }

    /// Returns the id of a group by its name or number.
    fn gid(&self, group: &str) -> Result<u32> {
        let id = self.group.get(group).map(|record| Records::number(record, 2)).or_else(|| group.parse().ok());
        id.ok_or_else(|| unknown("group", group, self.group.names()))
    }

    /// Makes a group, or checks that it has the wanted id.
    fn add_group(&mut self, spec: &GroupSpec) -> Result<()> {
        if let Some(record) = self.group.get(&spec.name) {
            let gid = Records::number(record, 2);
            return match spec.gid {
                Some(wanted) if wanted != gid => Err(other_id("group", &spec.name, gid, wanted)),
                _ => Ok(()),
            };
        }
        let gid = match spec.gid {
            Some(gid) => gid,
            None => free("group", spec.system, |id| self.group.by_id(id).is_none())?,
        };
        self.new_group(&spec.name, gid)
    }

    fn new_group(&mut self, name: &str, gid: u32) -> Result<()> {
        if let Some(other) = self.group.by_id(gid) {
            return Err(taken("group", name, gid, &other[0]));
        }
        self.group.push(record(&[name, "x", &gid.to_string(), ""]));
        if self.gshadow.exists() && self.gshadow.get(name).is_none() {
            self.gshadow.push(record(&[name, "!", "", ""]));
        }
        Ok(())
    }

    /// Adds a user to a group.
    fn join(&mut self, group: &str, user: &str) -> Result<()> {
        if self.passwd.get(user).is_none() {
            return Err(unknown("user", user, self.passwd.names()));
        }
        let Some(found) = self.group.get_mut(group) else {
            return Err(unknown("group", group, self.group.names()));
        };
        add(&mut found[3], user);
        if let Some(found) = self.gshadow.get_mut(group) {
            add(&mut found[3], user);
        }
        Ok(())
    }

    /// Returns the changes of the files.
    pub(super) fn changes(&self) -> Vec<Change> {
        let files = [(&self.passwd, 0o644), (&self.group, 0o644), (&self.shadow, 0o640), (&self.gshadow, 0o640)];
        let change = |(file, mode): (&Records, u32)| {
            let bytes = file.changed()?.into_bytes();
            Some(Change::File { path: file.path().to_owned(), bytes, access: Access::Kept(mode) })
        };
        files.into_iter().filter_map(change).collect()
    }
}

/// Adds a name to a list with commas.
fn add(members: &mut String, name: &str) {
    if !members.split(',').any(|member| member == name) {
        if !members.is_empty() {
            members.push(',');
        }
        members.push_str(name);
    }
}

fn record(fields: &[&str]) -> Vec<String> {
    fields.iter().map(|field| (*field).to_owned()).collect()
}

/// Returns the next free id: the smallest of ordinary accounts, or the greatest of the system's own.
fn free(kind: &str, own: bool, is_free: impl Fn(u32) -> bool) -> Result<u32> {
    let found = if own { OWN.rev().find(|id| is_free(*id)) } else { ORDINARY.into_iter().find(|id| is_free(*id)) };
    found.ok_or_else(|| Error::build(format!("the tree has no free id for a {kind}")))
}

fn taken(kind: &str, name: &str, id: u32, other: &str) -> Error {
    let error = Error::build(format!("the id {id} of the {kind} {} belongs to {}", quoted(name), quoted(other)));
    error.with_hint("choose another id, or leave it out: the next free one is used")
}

fn other_id(kind: &str, name: &str, id: u32, wanted: u32) -> Error {
    let error = Error::build(format!("the {kind} {} of the tree has the id {id}, not {wanted}", quoted(name)));
    error.with_hint("files of the tree belong to the old id; remove the id from the recipe")
}
