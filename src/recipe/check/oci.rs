//! `[oci]`: the OCI image.

use std::collections::BTreeMap;

use super::{Checker, unchanged};
use crate::recipe::diagnostic::Problem;
use crate::recipe::{Oci, words};

impl Checker<'_> {
    /// Returns the section, if the recipe has it.
    pub(super) fn oci(&mut self) -> Option<Oci> {
        self.tree.get("oci")?;
        let tag = self.plain("oci", "tag", "tag", words::tag).unwrap_or_else(|| "{date}".to_owned());
        let entrypoint = self.command("entrypoint");
        let cmd = self.command("cmd");
        let env = self.pairs("env", |name| {
            if name.is_empty() || name.contains(['=', '\0']) {
                Err(Problem::new("not a valid name of a variable"))
            } else {
                Ok(())
            }
        });
        let labels = self
            .pairs("labels", |name| if name.is_empty() { Err(Problem::new("empty")) } else { words::printable(name) });
        let user = self.plain("oci", "user", "user", words::user);
        let workdir = self.word("oci", "workdir");
        let workdir = workdir.and_then(|word| self.follow(&word, "working directory", words::image_path));
        let ports = self.each("oci", "ports", "port", unchanged(words::port));
        let volumes = self.each("oci", "volumes", "volume", words::image_path);
        let maintainer = self.plain("oci", "maintainer", "maintainer", words::printable);
        Some(Oci {
            tag,
            entrypoint,
            cmd,
            env,
            user,
            workdir,
            ports: ports.unwrap_or_default(),
            volumes: volumes.unwrap_or_default(),
            labels,
            maintainer,
        })
    }

    /// Returns a command in exec form. Its first word is a program.
    fn command(&mut self, key: &str) -> Vec<String> {
        let words = self.list("oci", key).unwrap_or_default();
        if let Some(program) = words.first().filter(|word| word.text.is_empty() && key == "entrypoint") {
            let problem = Problem::new("empty").help("the first word is a program, for example [\"/usr/bin/python3\"]");
            self.texts.problem(&program.at, "an entrypoint needs a program", problem);
        }
        self.each("oci", key, "argument", unchanged(words::argument)).unwrap_or_default()
    }

    fn pairs(&mut self, key: &str, rule: impl Fn(&str) -> Result<(), Problem>) -> BTreeMap<String, String> {
        let mut pairs = BTreeMap::new();
        for (name, value) in self.map("oci", key) {
            let named = self.follow(&name, "name", &rule).is_some();
            if self.follow(&value, "value", words::argument).is_some() && named {
                pairs.insert(name.text, value.text);
            }
        }
        pairs
    }
}
