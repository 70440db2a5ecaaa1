//! A user: its records, its password, its home.

use super::{Accounts, Records, free, other_id, record, taken};
use crate::base::error::{Error, Result};
use crate::base::text::quoted;
use crate::recipe::{Password, UserSpec};
use crate::system::home::Home;
use crate::system::{Tree, exists};

/// Shells of accounts at which nobody logs in, in the order of preference.
const NO_LOGIN: [&str; 4] = ["/sbin/nologin", "/usr/sbin/nologin", "/usr/bin/nologin", "/bin/false"];

impl Accounts {
    /// Makes or changes a user. `hash` is the hash of its password, if that is a secret. Returns its home, if something is written there.
    pub(super) fn user(&mut self, spec: &UserSpec, hash: Option<&str>, tree: &dyn Tree) -> Result<Option<Home>> {
        let hash = match &spec.password {
            Some(Password::Hash(hash)) => Some(hash.as_str()),
            Some(Password::Secret(_)) => hash,
            None => None,
        };
        let is_new = self.passwd.get(&spec.name).is_none();
        if is_new {
            self.new_user(spec, tree)?;
        } else {
            self.change_user(spec)?;
        }
        self.set_password(spec, hash, is_new)?;
        let wants = !spec.ssh_keys.is_empty() || spec.home_files.is_some();
        if !wants && spec.home.is_none() && (!is_new || spec.system) {
            return Ok(None);
        }
        let Some(found) = self.passwd.get(&spec.name) else { return Ok(None) };
        Ok(Some(Home {
            path: found[5].clone(),
            owner: (Records::number(found, 2), Records::number(found, 3)),
            keys: spec.ssh_keys.clone(),
            files: spec.home_files.clone(),
        }))
    }

    fn new_user(&mut self, spec: &UserSpec, tree: &dyn Tree) -> Result<()> {
        let (name, is_root) = (spec.name.as_str(), spec.name == "root");
        let own_group = spec.gid.is_none() && self.group.get(name).is_none();
        let uid = match spec.uid {
            Some(uid) => uid,
            None if is_root => 0,
            None => free("user", spec.system, |id| {
                self.passwd.by_id(id).is_none() && (!own_group || self.group.by_id(id).is_none())
            })?,
        };
        if let Some(other) = self.passwd.by_id(uid) {
            return Err(taken("user", name, uid, &other[0]));
        }
        let gid = self.primary_group(spec, uid, own_group)?;
        let home = match &spec.home {
            Some(home) => home.clone(),
            None if is_root => "/root".to_owned(),
            None if spec.system => "/dev/null".to_owned(),
            None => format!("/home/{name}"),
        };
        let shells: &[&str] = if spec.system { &NO_LOGIN } else { &["/bin/bash", "/bin/sh"] };
        let mut shell = spec.shell.clone();
        for known in shells {
            if shell.is_none() && exists(tree, known)? {
                shell = Some((*known).to_owned());
            }
        }
        let shell = shell.unwrap_or_else(|| if spec.system { NO_LOGIN[0] } else { "/bin/sh" }.to_owned());
        let comment = spec.comment.as_deref().unwrap_or_default();
        self.passwd.push(record(&[name, "x", &uid.to_string(), &gid.to_string(), comment, &home, &shell]));
        Ok(())
    }

    /// Returns the primary group of a new user. Makes a group of the user's name if the recipe names none.
    fn primary_group(&mut self, spec: &UserSpec, uid: u32, own_group: bool) -> Result<u32> {
        match &spec.gid {
            Some(group) => self.gid(group),
            None if own_group => {
                let gid = match self.group.by_id(uid) {
                    None => uid,
                    Some(_) => free("group", spec.system, |id| self.group.by_id(id).is_none())?,
                };
                self.new_group(&spec.name, gid)?;
                Ok(gid)
            }
            None => self.gid(&spec.name),
        }
    }

    fn change_user(&mut self, spec: &UserSpec) -> Result<()> {
        let gid = spec.gid.as_deref().map(|group| self.gid(group)).transpose()?;
        let Some(found) = self.passwd.get_mut(&spec.name) else { return Ok(()) };
        let uid = Records::number(found, 2);
        if let Some(wanted) = spec.uid.filter(|wanted| *wanted != uid) {
            return Err(other_id("user", &spec.name, uid, wanted));
        }
        let new = [(3, gid.map(|gid| gid.to_string())), (4, spec.comment.clone()), (5, spec.home.clone())];
        for (field, value) in new.into_iter().chain([(6, spec.shell.clone())]) {
            if let Some(value) = value {
                found[field] = value;
            }
        }
        Ok(())
    }

    /// Sets the field of the password, in shadow.
    fn set_password(&mut self, spec: &UserSpec, hash: Option<&str>, is_new: bool) -> Result<()> {
        if !is_new && hash.is_none() && spec.locked.is_none() {
            return Ok(());
        }
        let Some(of_passwd) = self.passwd.get(&spec.name).map(|found| found[1].clone()) else { return Ok(()) };
        let old = match self.shadow.get(&spec.name) {
            Some(found) => Some(found[1].clone()),
            // A file without shadow passwords has the hash itself.
            None => Some(of_passwd).filter(|field| field != "x" && !is_new),
        };
        let none = if spec.ssh_keys.is_empty() { "!" } else { "*" };
        let field = field(old.as_deref().unwrap_or(none), hash, spec.locked);
        let field = field.ok_or_else(|| {
            let error = Error::build(format!("the user {} has no password to unlock", quoted(&spec.name)));
            error.with_hint("give it a `password`, or remove `locked = false`")
        })?;
        if !self.shadow.exists() && self.shadow.all().next().is_none() {
            self.begin_shadow();
        }
        if let Some(found) = self.passwd.get_mut(&spec.name) {
            "x".clone_into(&mut found[1]);
        }
        let day = self.day.to_string();
        match self.shadow.get_mut(&spec.name) {
            Some(found) if found[1] != field => {
                if hash.is_some() {
                    found[2] = day;
                }
                found[1] = field;
            }
            Some(_) => {}
            None => self.shadow.push(record(&[&spec.name, &field, &day, "0", "99999", "7", "", "", ""])),
        }
        Ok(())
    }

    /// Fills a new shadow file with the users whose passwords are in it by their records in passwd.
    fn begin_shadow(&mut self) {
        let day = self.day.to_string();
        let users: Vec<String> =
            self.passwd.all().filter(|found| found[1] == "x").map(|found| found[0].clone()).collect();
        for name in users {
            self.shadow.push(record(&[&name, "*", &day, "0", "99999", "7", "", "", ""]));
        }
    }
}

/// Returns the field of a password. A `!` at its front locks it. `None` if there is nothing to unlock.
fn field(old: &str, hash: Option<&str>, locked: Option<bool>) -> Option<String> {
    match (hash, locked) {
        (Some(hash), Some(true)) => Some(format!("!{hash}")),
        (Some(hash), _) => Some(hash.to_owned()),
        (None, Some(true)) if old.starts_with('!') => Some(old.to_owned()),
        (None, Some(true)) => Some(format!("!{old}")),
        (None, Some(false)) => {
            let open = old.trim_start_matches('!');
            (old.is_empty() || !open.is_empty() && open != "*").then(|| open.to_owned())
        }
        (None, None) => Some(old.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_a_mark_before_the_hash() {
        let new = Some("$6$new");
        assert_eq!(field("$6$old", new, None).unwrap(), "$6$new");
        assert_eq!(field("$6$old", new, Some(true)).unwrap(), "!$6$new");
        assert_eq!(field("!$6$old", new, Some(false)).unwrap(), "$6$new");
        assert_eq!(field("$6$old", None, Some(true)).unwrap(), "!$6$old");
        assert_eq!(field("!$6$old", None, Some(true)).unwrap(), "!$6$old");
        assert_eq!(field("!$6$old", None, Some(false)).unwrap(), "$6$old");
        assert_eq!((field("*", None, Some(false)), field("!", None, Some(false))), (None, None));
        assert_eq!(field("!", None, None).unwrap(), "!");
    }
}
