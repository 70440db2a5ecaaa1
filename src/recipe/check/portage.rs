//! `[portage]`: caches and configuration.

use std::collections::{BTreeMap, BTreeSet};

use super::path::Must;
use super::repositories::Known;
use super::{Checker, Word, config, unchanged};
use crate::base::text::escaped;
use crate::recipe::diagnostic::Problem;
use crate::recipe::keys::{self, Type};
use crate::recipe::parse::Is;
use crate::recipe::{Portage, Source, package_files, words};

impl Checker<'_> {
    /// Returns the section, and the repositories on this machine.
    pub(super) fn portage(&mut self, source: Option<&Source>) -> (Option<Portage>, Known) {
        let (repositories, known) = self.repositories(source);
        let binpkg = self.path_of("portage", "binpkg", Must::BeMade);
        let binpkg_shared = self.bool("portage", "binpkg-shared").unwrap_or(false);
        let binpkg_write = self.bool("portage", "binpkg-write").unwrap_or(true);
        let distfiles = self.path_of("portage", "distfiles", Must::BeMade);
        let binhost = self.binhosts(source);
        let make_conf = self.make_conf();
        let config = self.path_of("portage", "config", Must::Directory);
        let patches = self.patches(config.as_deref());
        let mut envs: BTreeSet<String> = config.iter().flat_map(|directory| config::envs(directory)).collect();
        let env = self.env(&envs);
        envs.extend(env.keys().cloned());
        let package_files = self.package_files(&envs);
        let config_files = config.as_ref().map(|directory| self.config_files(directory, &envs)).unwrap_or_default();
        let sets = self.sets();
        let portage = repositories.map(|repositories| Portage {
            repositories,
            binpkg,
            binpkg_shared,
            binpkg_write,
            distfiles,
            binhost,
            make_conf,
            env,
            package_files,
            config,
            patches,
            config_files,
            sets,
        });
        (portage, known)
    }

    fn make_conf(&mut self) -> BTreeMap<String, String> {
        let written = self.map("portage", "make-conf");
        let mut variables = self.variables(written);
        let flags = self.each("portage", "use", "USE flag", unchanged(words::use_flag));
        if let Some(flags) = flags.filter(|flags| !flags.is_empty()) {
            let all: &mut String = variables.entry("USE".to_owned()).or_default();
            if !all.is_empty() {
                all.push(' ');
            }
            all.push_str(&flags.join(" "));
        }
        variables
    }

    /// Checks variables of make.conf or of a file in `env`.
    fn variables(&mut self, written: Vec<(Word, Word)>) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        for (name, value) in written {
            let named = self.follow(&name, "variable for make.conf", words::make_conf_variable).is_some();
            let what = format!("value of {}", escaped(&name.text));
            if self.follow(&value, &what, words::printable).is_some() && named {
                variables.insert(name.text, value.text);
            }
        }
        variables
    }

    /// Returns the files for the directory `env`. `present` are those of `portage.config`.
    fn env(&mut self, present: &BTreeSet<String>) -> BTreeMap<String, BTreeMap<String, String>> {
        let Some(Is::Table(table)) = self.value("portage", "env").map(|value| value.is.clone()) else {
            return BTreeMap::new();
        };
        let mut files = BTreeMap::new();
        for (name, item) in table {
            let word = Word { text: name, at: item.key_at };
            let Some(name) = self.follow(&word, "name of a file in env", unchanged(package_files::env_name)) else {
                continue;
            };
            if present.contains(&name) {
                let problem = Problem::new("also a file").help("rename one of the two");
                self.texts.problem(&word.at, format!("portage.config has a file env/{}", escaped(&name)), problem);
            }
            let Is::Table(variables) = &item.value.is else { continue };
            let variables = self.variables(self.in_order(variables));
            files.insert(name, variables);
        }
        files
    }

    fn package_files(&mut self, envs: &BTreeSet<String>) -> BTreeMap<String, Vec<String>> {
        let mut files = BTreeMap::new();
        for key in keys::of_section("portage") {
            let Type::Lines(file) = key.of else { continue };
            let mut written = self.list("portage", key.name).unwrap_or_default();
            for (atom, words) in self.map("portage", key.name) {
                // Check the words first: a line break in them is not a mistake of the atom.
                if self.follow(&words, &format!("line of {file}"), words::printable).is_some() {
                    written.push(Word { text: format!("{} {}", atom.text, words.text), at: atom.at });
                }
            }
            let lines = written.iter().filter_map(|line| self.package_line(file, line, envs));
            let lines: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
            if !lines.is_empty() {
                files.insert(file.to_owned(), lines);
            }
        }
        files
    }
}
