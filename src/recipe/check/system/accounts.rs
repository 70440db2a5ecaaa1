//! `system.users` and `system.groups`.

use crate::base::text::quoted;
use crate::recipe::check::path::Must;
use crate::recipe::check::steps::flag;
use crate::recipe::check::uses::Uses;
use crate::recipe::check::{Checker, Word, unchanged};
use crate::recipe::diagnostic::{Finding, Problem};
use crate::recipe::parse::{Is, Table};
use crate::recipe::{GroupSpec, Password, UserSpec, words};

/// The size limit of a file with public keys, in bytes.
const MAX_KEYS: u64 = 1 << 20;

impl Checker<'_> {
    /// Returns the groups, in the order in which they were written.
    pub(super) fn groups(&mut self) -> Vec<GroupSpec> {
        let mut groups = Vec::new();
        for (name, table) in self.accounts("groups", "group") {
            let members = self.words_in(&table, "members", "user", unchanged(words::account)).unwrap_or_default();
            let gid = self.account_id(&table, "gid");
            groups.push(GroupSpec {
                name: name.text,
                gid,
                system: flag(&table, "system"),
                members: members.into_iter().map(|(_, member)| member).collect(),
            });
        }
        groups
    }

    /// Returns the users, in the order in which they were written.
    pub(super) fn users(&mut self, uses: &Uses) -> Vec<UserSpec> {
        let accounts = self.accounts("users", "user");
        accounts.into_iter().map(|(name, table)| self.user(name, &table, uses)).collect()
    }

    /// Returns the tables of accounts whose names are valid, in the order in which they were written.
    fn accounts(&mut self, key: &str, what: &str) -> Vec<(Word, Table)> {
        let mut tables: Vec<(Word, Table)> = self
            .system_table(key)
            .into_iter()
            .filter_map(|(name, item)| match item.value.is {
                Is::Table(table) => Some((Word { text: name, at: item.key_at }, table)),
                _ => None,
            })
            .collect();
        tables.sort_by_key(|(name, _)| (self.texts.rank(&name.at), name.at.text, name.at.span.start));
        let what = format!("name of a {what}");
        tables.retain(|(name, _)| self.follow(name, &what, unchanged(words::account)).is_some());
        tables
    }

    fn user(&mut self, name: Word, table: &Table, uses: &Uses) -> UserSpec {
        let uid = self.account_id(table, "uid");
        let groups = self.words_in(table, "groups", "group", unchanged(words::account)).unwrap_or_default();
        let mut one = |key: &str, what: &str, rule: fn(&str) -> Result<String, Problem>| {
            Word::in_table(table, key).and_then(|word| self.follow(&word, what, rule))
        };
        let gid = one("gid", "group", |text| words::group(text).map(|()| text.to_owned()));
        let shell = one("shell", "path of a shell", words::passwd_path);
        let home = one("home", "home directory", words::passwd_path);
        let comment = one("comment", "comment of a user", |text| words::passwd_field(text).map(|()| text.to_owned()));
        let home_files = Word::in_table(table, "home-files").and_then(|word| self.path(&word, Must::Directory));
        let password = self.password(table, uses);
        UserSpec {
            name: name.text,
            uid,
            gid,
            groups: groups.into_iter().map(|(_, group)| group).collect(),
            shell,
            home,
            comment,
            system: flag(table, "system"),
            password,
            locked: table.contains_key("locked").then(|| flag(table, "locked")),
            ssh_keys: self.ssh_keys(table),
            home_files,
        }
    }

    fn account_id(&mut self, table: &Table, key: &str) -> Option<u32> {
        let item = table.get(key)?;
        let Is::Int(number) = item.value.is else { return None };
        let word = Word { text: number.to_string(), at: item.value.at.clone() };
        self.follow(&word, &format!("`{key}`"), words::id)
    }

    fn password(&mut self, table: &Table, uses: &Uses) -> Option<Password> {
        let hash = Word::in_table(table, "password-hash");
        let password = table.get("password");
        if let (Some(hash), Some(password)) = (&hash, password) {
            let finding = Finding::at(&hash.at, "a user has one password", "remove one of the two");
            self.texts.find(finding.also(&password.key_at, "because of this"));
            return None;
        }
        if let Some(word) = hash {
            return self.follow(&word, "hash of a password", unchanged(words::password_hash)).map(Password::Hash);
        }
        let password = password?;
        let Is::Table(inner) = &password.value.is else { return None };
        let secret = self.needed(&password.value.at, inner, "a password", "secret")?;
        self.secret_named(&secret, uses).map(Password::Secret)
    }

    /// Returns the lines of a user's `authorized_keys`, each once.
    fn ssh_keys(&mut self, table: &Table) -> Vec<String> {
        let Some(Is::List(list)) = table.get("ssh-keys").map(|item| item.value.is.clone()) else { return Vec::new() };
        let mut keys = Vec::new();
        for word in list.iter().filter_map(Word::of) {
            if words::is_ssh_key(&word.text) {
                keys.extend(self.follow(&word, "public key", unchanged(words::ssh_key)));
            } else {
                keys.extend(self.ssh_key_file(&word));
            }
        }
        let mut seen = Vec::new();
        keys.retain(|key| {
            !seen.contains(key) && {
                seen.push(key.clone());
                true
            }
        });
        keys
    }

    /// Returns the public keys in a file.
    fn ssh_key_file(&mut self, word: &Word) -> Vec<String> {
        let Some(path) = self.path(word, Must::File) else { return Vec::new() };
        let Some(bytes) = self.content(&path, &word.at, MAX_KEYS) else { return Vec::new() };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut keys = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Err(problem) = words::ssh_key(line) {
                let title = format!("the file {} has a line that is not a public key", quoted(&word.text));
                self.texts.problem(&word.at, title, problem);
                return Vec::new();
            }
            keys.push(line.to_owned());
        }
        if keys.is_empty() {
            let title = format!("the file {} has no public key", quoted(&word.text));
            self.texts.problem(&word.at, title, Problem::new("no key"));
        }
        keys
    }
}
