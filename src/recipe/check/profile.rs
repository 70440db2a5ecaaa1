//! `build.profile`: a profile of a repository, a list of parents, or the parts of a Funtoo profile.

use std::collections::BTreeMap;

use super::repositories::{Known, similar};
use super::{Checker, Word, unchanged};
use crate::base::text::{escaped, nearest, quoted};
use crate::recipe::diagnostic::{Finding, Problem};
use crate::recipe::parse::{Is, Table, Value};
use crate::recipe::{FuntooProfile, ProfileName, ProfileSpec, words};

impl Checker<'_> {
    pub(super) fn profile_spec(&mut self, value: &Value, known: &Known) -> Option<ProfileSpec> {
        match &value.is {
            Is::List(list) if list.is_empty() => {
                let problem = Problem::new("empty").help("a profile needs at least one parent");
                self.texts.problem(&value.at, "no parent is given", problem);
                None
            }
            Is::List(list) => {
                let words: Vec<Word> = list.iter().filter_map(Word::of).collect();
                let parents: Vec<_> = words.iter().filter_map(|word| self.profile(word, known)).collect();
                (parents.len() == words.len()).then_some(ProfileSpec::Parents(parents))
            }
            Is::Table(table) => self.funtoo_profile(value, table).map(ProfileSpec::Funtoo),
            _ => self.profile(&Word::of(value)?, known).map(ProfileSpec::Named),
        }
    }

    /// Checks the form of the names. Their directories are looked up when the repositories are there.
    fn funtoo_profile(&mut self, value: &Value, table: &Table) -> Option<FuntooProfile> {
        let mut good = true;
        let mut name = |checker: &mut Self, word: &Word, what: &str| {
            let name = checker.follow(word, what, unchanged(words::profile_part));
            good &= name.is_some();
            name
        };
        let word = |key: &str| table.get(key).and_then(|item| Word::of(&item.value));
        let mut single = |checker: &mut Self, key: &str| word(key).and_then(|word| name(checker, &word, key));
        let (arch, build) = (single(self, "arch"), single(self, "build"));
        let (subarch, flavor) = (single(self, "subarch"), single(self, "flavor"));
        let mut mix_ins = Vec::new();
        if let Some(Is::List(list)) = table.get("mix-ins").map(|item| &item.value.is) {
            mix_ins.extend(list.iter().filter_map(Word::of).filter_map(|word| name(self, &word, "mix-in")));
        }
        let mut kits = BTreeMap::new();
        if let Some(Is::Table(table)) = table.get("kits").map(|item| &item.value.is) {
            for (kit, branch) in self.in_order(table) {
                let kit = name(self, &kit, "name of a kit");
                kits.extend(kit.zip(name(self, &branch, "branch of a kit")));
            }
        }
        if !table.contains_key("arch") {
            let problem = Problem::new("no `arch`").help("for example: arch = \"x86-64bit\"");
            self.texts.problem(&value.at, "a Funtoo profile needs an architecture", problem);
        }
        let profile = FuntooProfile { arch: arch?, build, subarch, flavor, mix_ins, kits };
        good.then_some(profile)
    }

    /// Returns a profile. It must exist if its repository is on this machine.
    pub(super) fn profile(&mut self, word: &Word, known: &Known) -> Option<ProfileName> {
        let profile = self.follow(word, "profile", words::profile)?;
        let repository = match &profile.repo {
            Some(name) => known.named(name),
            None => known.main(),
        };
        let Some(repository) = repository else {
            // A repository that is not fetched yet may have that name.
            if let (Some(name), true) = (&profile.repo, known.complete()) {
                let title = format!("no repository is named {}", quoted(name));
                let mut finding = Finding::at(&word.at, title, "not a repository of this recipe");
                if let Some(meant) = nearest(name, known.directories().map(|known| known.name.as_str())) {
                    finding = finding.help(format!("did you mean `{}:{}`?", escaped(meant), escaped(&profile.path)));
                }
                self.texts.find(finding.help(known.listed()));
                return None;
            }
            return Some(profile);
        };
        let mut dir = repository.location.join("profiles");
        let mut found = Vec::new();
        for part in profile.path.split('/') {
            let next = dir.join(part);
            if !next.is_dir() {
                let meant = similar(&dir, part).map(|meant| {
                    found.push(meant.as_str().to_owned());
                    format!("did you mean `{}:{}`?", escaped(&repository.name), found.join("/"))
                });
                let label = format!("{} has no {}", escaped(&dir.to_string_lossy()), quoted(part));
                let title = format!("no such profile: {}", quoted(&word.text));
                self.texts.problem(&word.at, title, Problem { label, help: meant });
                return None;
            }
            found.push(part.to_owned());
            dir = next;
        }
        Some(profile)
    }
}
