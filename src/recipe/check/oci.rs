//! `[oci]`: the OCI image.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Checker, Word, unchanged};
use crate::base::text::{nearest, quoted};
use crate::recipe::diagnostic::{Finding, Problem};
use crate::recipe::lineage::TREE;
use crate::recipe::{Compression, Job, Oci, names_step, words};

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
            cuts: self.list("oci", "cuts").into_iter().flatten().map(|word| word.text).collect(),
            on_parent: self.bool("oci", "on-parent").unwrap_or(false),
        })
    }

    /// Checks that every name of `cuts` is a step or a group of the recipe, once.
    pub(super) fn cuts(&mut self, job: &Job) {
        let mut steps = job.own_steps();
        steps.extend(job.steps.iter().map(|step| step.name.as_str()));
        let mut seen: Vec<Word> = Vec::new();
        for word in self.list("oci", "cuts").unwrap_or_default() {
            let title = |what: &str| format!("{what} {}", quoted(&word.text));
            let named = |step: &str| !word.text.is_empty() && names_step(&word.text, step);
            let finding = if let Some(first) = seen.iter().find(|first| first.text == word.text) {
                let again = Finding::at(&word.at, title("two layers end after the step"), "again here");
                Some(again.also(&first.at, "first here"))
            } else if steps.iter().any(|step| named(step)) {
                None
            } else if job.skipped.iter().any(|step| named(step)) {
                let skipped = Finding::at(&word.at, title("the recipe leaves out the step"), "`skip` is true");
                Some(skipped.help("remove one of the two"))
            } else {
                let meant = nearest(&word.text, steps.iter().copied()).map(|meant| format!("did you mean `{meant}`?"));
                let help = meant.unwrap_or_else(|| format!("its steps are {}", steps.join(", ")));
                Some(Finding::at(&word.at, title("the recipe has no step"), "not a step").help(help))
            };
            finding.into_iter().for_each(|finding| self.texts.find(finding));
            seen.push(word);
        }
    }

    /// Checks that the layers of the image that this one starts from can be the lowest layers of `job`.
    pub(super) fn on_parent(&mut self, job: &Job) {
        let Some(at) = self.value("oci", "on-parent").map(|value| value.at.clone()) else { return };
        if !job.oci.as_ref().is_some_and(|oci| oci.on_parent) {
            return;
        }
        let finding = match &job.from {
            // For the other images of the tree.
            None if Path::new(&self.texts.get(at.text).label).ends_with(TREE) => return,
            None => Finding::at(&at, "the image does not start from another image", "an image without a parent")
                .help("name the other image with `from`, or remove on-parent"),
            Some(parent) if parent.job.build.kind != job.build.kind || parent.job.build.packages_only => {
                let title = format!("the layers of {} cannot be those of this image", parent.job.path);
                Finding::at(&at, title, "the two have different kinds").help("remove on-parent")
            }
            Some(parent) if parent.job.build.compression == Compression::Xz => {
                let title = format!("the layers of {} are compressed with xz", parent.job.path);
                Finding::at(&at, title, "OCI does not allow such layers")
                    .help("set build.compression of that image to \"zstd\", or remove on-parent")
            }
            Some(_) => return,
        };
        self.texts.find(finding);
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
