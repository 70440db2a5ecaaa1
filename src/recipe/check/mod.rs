//! The merged tree → a [`Job`]: checks what the values mean, and that the files they name exist. Notes every mistake; the
//! caller asks at the end if there were any.

mod accelerate;
mod binhost;
mod build;
mod config;
mod oci;
mod patches;
mod path;
mod portage;
mod profile;
mod repositories;
mod repository;
mod sets;
mod source;
mod split;
mod steps;
mod system;
mod tuples;
mod uses;

use std::path::{Path, PathBuf};

use super::diagnostic::{Finding, Place, Problem, Texts};
use super::parse::{Is, Item, Table, Value};
use super::variables::{Family, Variables, tree_name};
use super::{BaseSpec, Bounds, Compression, Emerge, Job, Portage, Request, Source, TreeKind, words};
use crate::base::text::quoted;
use path::Must;

/// Builds the job that a tree describes. Notes mistakes in `texts` and returns `None`.
pub(super) fn job(
    texts: &mut Texts,
    tree: &Table,
    request: &Request,
    variables: Variables,
    family: Family,
) -> Option<Job> {
    let mut checker = Checker { variables, family, ..Checker::new(texts, tree, request) };
    let name = checker.name();
    let (path, publish) = (checker.tree_path(name.as_deref()), checker.publish());
    let source = checker.source();
    let (portage, known) = checker.portage(source.as_ref());
    let build = checker.build(&known);
    let emerge = build.as_ref().map(|(_, kind)| checker.emerge(*kind));
    let accelerate = checker.accelerate(portage.as_ref().map(|portage| &portage.make_conf));
    let uses = checker.uses();
    let daemons = checker.daemons_of_emerge(&uses);
    let (mut steps, skipped) = checker.steps(&uses);
    checker.unmerging(&mut steps, &daemons);
    checker.settings(&mut steps, &uses);
    let strip = checker.strip();
    let split = checker.split();
    let oci = checker.oci();
    let keep_layers =
        checker.word("store", "keep").and_then(|word| checker.follow(&word, "size of layers", words::max_bytes));
    let jobs_images = checker.number("tree", "jobs", 1, "for example jobs = 4");
    let build = build.and_then(|(build, _)| build);
    if let (Some(BaseSpec::Host { .. }), Some(TreeKind::Stage4)) =
        (source.as_ref().map(|source| &source.base), build.as_ref().map(|build| build.kind))
    {
        checker.refuse_to_ship_the_host();
    }
    if let Some(build) = &build {
        checker.check_parent(build.kind);
    }
    if oci.is_some() && build.as_ref().is_some_and(|build| build.compression == Compression::Xz) {
        checker.refuse_a_layer_of_xz();
    }
    if build.as_ref().is_some_and(|build| build.packages_only) {
        checker.refuse_what_packages_lack(portage.as_ref());
    }
    let job = Job {
        name: name?,
        from: checker.family.parent.take().map(Box::new),
        needs: std::mem::take(&mut checker.family.needs),
        path: path?,
        axes: std::mem::take(&mut checker.family.axes),
        configurations: Vec::new(),
        for_packages: false,
        publish,
        jobs_images: jobs_images?,
        keep_layers,
        source: source?,
        portage: portage?,
        build: build?,
        emerge: Emerge { daemons, ..emerge?? },
        accelerate: accelerate?,
        steps,
        skipped,
        strip,
        split,
        oci,
    };
    checker.cuts(&job);
    checker.on_parent(&job);
    Some(job)
}

/// Builds only `[source]` of a tree. Notes mistakes in `texts` and returns `None`.
pub(super) fn source_alone(texts: &mut Texts, tree: &Table, request: &Request) -> Option<Source> {
    Checker::new(texts, tree, request).source()
}

/// A string and its place.
#[derive(Debug, Clone)]
struct Word {
    text: String,
    at: Place,
}

impl Word {
    fn of(value: &Value) -> Option<Self> {
        value.as_str().map(|text| Self { text: text.to_owned(), at: value.at.clone() })
    }

    /// Returns the word of a key in a table.
    fn in_table(table: &Table, key: &str) -> Option<Self> {
        table.get(key).and_then(|item| Self::of(&item.value))
    }
}

/// Wraps a rule that only accepts or refuses, so that it returns the word.
fn unchanged(rule: impl Fn(&str) -> Result<(), Problem>) -> impl Fn(&str) -> Result<String, Problem> {
    move |text| rule(text).map(|()| text.to_owned())
}

struct Checker<'a> {
    texts: &'a mut Texts,
    tree: &'a Table,
    request: &'a Request,
    home: Option<PathBuf>,
    /// True if keys or types are wrong, so that a missing key may be there under another name.
    misspelt: bool,
    variables: Variables,
    family: Family,
}

impl<'a> Checker<'a> {
    fn new(texts: &'a mut Texts, tree: &'a Table, request: &'a Request) -> Self {
        let home = request.env.get(std::ffi::OsStr::new("HOME")).map(PathBuf::from).filter(|home| home.is_absolute());
        let misspelt = texts.is_wrong();
        Self { texts, tree, request, home, misspelt, variables: Variables::default(), family: Family::default() }
    }
}

impl Checker<'_> {
    fn name(&mut self) -> Option<String> {
        if let Some(word) = self.word("", "name") {
            return self.follow(&word, "name", unchanged(words::name));
        }
        let help = "write `name = \"…\"` at the top of the recipe, or use --set name=…";
        let stem = match self.request.files.last().map(PathBuf::as_path) {
            Some(_) if self.family.place.is_some() => self.default_name(),
            None => {
                self.texts
                    .find(Finding::missing("no recipe is given").help("name a file, for example musl-python3.toml"));
                return None;
            }
            Some(file) if file == Path::new("-") => {
                self.texts.find(Finding::missing("a recipe on standard input has no name").help(help));
                return None;
            }
            Some(file) => file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        match words::name(&stem) {
            Ok(()) => Some(stem),
            Err(problem) => {
                let what = if self.family.place.is_some() { "directory" } else { "file" };
                let title = format!("the name of the {what} cannot name an image: {}", problem.label);
                self.texts.find(Finding::missing(title).help(help));
                None
            }
        }
    }

    /// The name of an image in a tree whose recipe gives none.
    fn default_name(&self) -> String {
        self.family.place.as_ref().map(|place| place.name(tree_name(self.tree))).unwrap_or_default()
    }

    /// Returns the name of the image in its tree, in the form `hello/p/c`.
    fn tree_path(&mut self, name: Option<&str>) -> Option<String> {
        let Some(place) = self.family.place.clone() else { return name.map(str::to_owned) };
        let given = self.word("tree", "name");
        let tree = match &given {
            Some(word) => self.follow(word, "name of a tree", unchanged(words::name))?,
            None => place.tree_name(None),
        };
        let above = place.names.iter().take(place.names.len().saturating_sub(1));
        let mut parts: Vec<&str> = [tree.as_str()].into_iter().chain(above.map(String::as_str)).collect();
        parts.extend(name.filter(|_| !place.names.is_empty()));
        Some(parts.join("/"))
    }

    /// Refuses a stage4 that starts from an image: the tree of the image's builder would be shipped.
    fn check_parent(&mut self, kind: TreeKind) {
        let Some(parent) = &self.family.parent else { return };
        if kind == TreeKind::Stage4 && parent.job.build.kind == TreeKind::Image {
            let title = format!("a stage4 cannot start from the image {}", parent.job.path);
            let finding = match self.value("build", "kind").map(|value| value.at.clone()) {
                Some(at) => Finding::at(&at, title, "this would ship the image's builder"),
                None => Finding::missing(title),
            };
            self.texts.find(finding.help("an image can start from a stage4, which is its builder then"));
        }
    }

    fn refuse_to_ship_the_host(&mut self) {
        let at = |key: (&str, &str)| self.value(key.0, key.1).map(|value| value.at.clone());
        if let (Some(kind), Some(host)) = (at(("build", "kind")), at(("source", "host"))) {
            let title = "a stage4 of this host would contain its accounts and settings";
            let finding = Finding::at(&kind, title, "this would ship the host").also(&host, "the host is the base");
            self.texts.find(finding.help("use kind = \"image\", or start from a stage3"));
        }
    }

    fn refuse_a_layer_of_xz(&mut self) {
        let compression = self.value("build", "compression").map(|value| value.at.clone());
        if let (Some(compression), Some(oci)) = (compression, self.tree.get("oci").map(|item| item.key_at.clone())) {
            let title = "OCI does not allow a layer compressed with xz";
            let finding =
                Finding::at(&compression, title, "not for an OCI image").also(&oci, "this asks for an OCI image");
            let help = "use zstd, the smallest that OCI allows, or remove [oci] to make only the .tar.xz";
            self.texts.find(finding.help(help));
        }
    }

    /// Refuses an OCI image without an image, and packages that are not kept.
    fn refuse_what_packages_lack(&mut self, portage: Option<&Portage>) {
        let Some(kind) = self.value("build", "kind").map(|value| value.at.clone()) else { return };
        if let Some(oci) = self.tree.get("oci").map(|item| item.key_at.clone()) {
            let finding = Finding::at(&oci, "a build of packages makes no image", "this asks for an OCI image");
            self.texts.find(
                finding.also(&kind, "this asks for packages alone").help("remove [oci], or set kind = \"image\""),
            );
        }
        if let Some(split) = self.tree.get("split").map(|item| item.key_at.clone()) {
            let finding = Finding::at(&split, "a build of packages makes no image", "this divides the image");
            self.texts.find(
                finding.also(&kind, "this asks for packages alone").help("remove [split], or set kind = \"image\""),
            );
        }
        if portage.is_some_and(|portage| !portage.binpkg_write)
            && let Some(write) = self.value("portage", "binpkg-write").map(|value| value.at.clone())
        {
            let finding = Finding::at(&write, "a build of packages must keep its packages", "this leaves them out");
            self.texts.find(finding.also(&kind, "this asks for packages").help("remove binpkg-write"));
        }
    }

    /// Returns the table of a section; empty if it is absent.
    fn section(&self, section: &str) -> Table {
        match self.tree.get(section).map(|item| &item.value.is) {
            Some(Is::Table(table)) => table.clone(),
            _ => Table::new(),
        }
    }

    fn item(&self, section: &str, key: &str) -> Option<&Item> {
        if section.is_empty() {
            return self.tree.get(key);
        }
        match &self.tree.get(section)?.value.is {
            Is::Table(table) => table.get(key),
            _ => None,
        }
    }

    fn value(&self, section: &str, key: &str) -> Option<&Value> {
        self.item(section, key).map(|item| &item.value)
    }

    fn word(&self, section: &str, key: &str) -> Option<Word> {
        self.value(section, key).and_then(Word::of)
    }

    fn bool(&self, section: &str, key: &str) -> Option<bool> {
        match self.value(section, key)?.is {
            Is::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// Returns the strings of an array, or `None` if the key is absent.
    fn list(&self, section: &str, key: &str) -> Option<Vec<Word>> {
        match &self.value(section, key)?.is {
            Is::List(list) => Some(list.iter().filter_map(Word::of).collect()),
            _ => None,
        }
    }

    /// Returns the keys and values of a table of strings, in the order in which they were written.
    fn map(&self, section: &str, key: &str) -> Vec<(Word, Word)> {
        match self.value(section, key).map(|value| &value.is) {
            Some(Is::Table(table)) => self.in_order(table),
            _ => Vec::new(),
        }
    }

    /// Returns the keys and values of a table of strings, in the order in which they were written.
    fn in_order(&self, table: &Table) -> Vec<(Word, Word)> {
        let mut words: Vec<(Word, Word)> = table
            .iter()
            .filter_map(|(key, item)| {
                Some((Word { text: key.clone(), at: item.key_at.clone() }, Word::of(&item.value)?))
            })
            .collect();
        words.sort_by_key(|(key, _)| (self.texts.rank(&key.at), key.at.text, key.at.span.start));
        words
    }

    /// Applies a rule to a word, and notes the mistake that it finds. `what` names the kind of word.
    fn follow<T>(&mut self, word: &Word, what: &str, rule: impl Fn(&str) -> Result<T, Problem>) -> Option<T> {
        match rule(&word.text) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.texts.problem(&word.at, format!("not a valid {what}: {}", quoted(&word.text)), problem);
                None
            }
        }
    }

    /// Applies a rule to every word of a list. Returns `None` if the key is absent.
    fn each<T>(
        &mut self,
        section: &str,
        key: &str,
        what: &str,
        rule: impl Fn(&str) -> Result<T, Problem>,
    ) -> Option<Vec<T>> {
        let list = self.list(section, key)?;
        Some(list.iter().filter_map(|word| self.follow(word, what, &rule)).collect())
    }

    /// Returns the word of a key if a rule accepts it.
    fn plain(
        &mut self,
        section: &str,
        key: &str,
        what: &str,
        rule: impl Fn(&str) -> Result<(), Problem>,
    ) -> Option<String> {
        let word = self.word(section, key)?;
        self.follow(&word, what, unchanged(rule))
    }

    /// Returns the limits on unpacking an archive. `of` returns the value of a key.
    fn bounds(&mut self, of: impl Fn(&Self, &str) -> Option<Value>) -> Option<Bounds> {
        let max_unpacked = match of(self, "max-unpacked").as_ref().and_then(Word::of) {
            Some(word) => self.follow(&word, "size", words::max_bytes).map(Some),
            None => Some(None),
        };
        let max_entries = match of(self, "max-entries") {
            Some(Value { at, is: Is::Int(number) }) => {
                let word = Word { text: number.to_string(), at };
                self.follow(&word, "number of entries", words::max_entries).map(Some)
            }
            _ => Some(None),
        };
        Some(Bounds { max_unpacked: max_unpacked?, max_entries: max_entries? })
    }

    /// Returns the path of a key.
    fn path_of(&mut self, section: &str, key: &str, must: Must) -> Option<PathBuf> {
        let word = self.word(section, key)?;
        self.path(&word, must)
    }
}
