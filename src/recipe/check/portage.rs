//! `[portage]`: caches and configuration.

use std::collections::BTreeMap;

use super::path::Must;
use super::repositories::Known;
use super::{Checker, Word, unchanged};
use crate::base::text::escaped;
use crate::recipe::keys::{self, Type};
use crate::recipe::{Portage, Source, atom, words};

impl Checker<'_> {
    /// Returns the section, and the repositories on this machine.
    pub(super) fn portage(&mut self, source: Option<&Source>) -> (Option<Portage>, Known) {
        let (repositories, known) = self.repositories(source);
        let binpkg = self.path_of("portage", "binpkg", Must::BeMade);
        let distfiles = self.path_of("portage", "distfiles", Must::BeMade);
        let binhost = self.each("portage", "binhost", "binary package host", words::url).unwrap_or_default();
        let make_conf = self.make_conf();
        let package_files = self.package_files();
        let config = self.path_of("portage", "config", Must::Directory);
        let portage = repositories.map(|repositories| Portage {
            repositories,
            binpkg,
            distfiles,
            binhost,
            make_conf,
            package_files,
            config,
        });
        (portage, known)
    }

    fn make_conf(&mut self) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        for (name, value) in self.map("portage", "make-conf") {
            let named = self.follow(&name, "variable for make.conf", words::make_conf_variable).is_some();
            let what = format!("value of {}", escaped(&name.text));
            if self.follow(&value, &what, words::printable).is_some() && named {
                variables.insert(name.text, value.text);
            }
        }
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

    fn package_files(&mut self) -> BTreeMap<String, Vec<String>> {
        let mut files = BTreeMap::new();
        for key in keys::of_section("portage") {
            let Type::Lines(file) = key.of else { continue };
            let what = format!("line of {file}");
            let mut lines: Vec<String> =
                self.each("portage", key.name, &what, |line| atom::package_line(file, line)).unwrap_or_default();
            for (atom, words) in self.map("portage", key.name) {
                // Check the words first: a line break in them is not a mistake of the atom.
                if self.follow(&words, &what, words::printable).is_none() {
                    continue;
                }
                let line = Word { text: format!("{} {}", atom.text, words.text), at: atom.at };
                lines.extend(self.follow(&line, &what, |line| atom::package_line(file, line)));
            }
            lines.retain(|line| !line.is_empty());
            if !lines.is_empty() {
                files.insert(file.to_owned(), lines);
            }
        }
        files
    }
}
