//! The merged tree → a [`Job`]: what the values mean, and whether what they name is there. Every mistake is noted; the caller
//! asks in the end whether there were any.

mod build;
mod oci;
mod portage;
mod repositories;
mod source;

use crate::base::text::{escaped, quoted};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::diagnostic::{Finding, Place, Problem, Texts};
use super::merge::reason;
use super::parse::{Is, Item, Table, Value};
use super::{BaseSpec, Bounds, Compression, Job, Request, Source, TreeKind, words};

/// The job a tree describes, or none after noting why not.
pub(super) fn job(texts: &mut Texts, tree: &Table, request: &Request) -> Option<Job> {
    let mut checker = Checker::new(texts, tree, request);
    let name = checker.name();
    let source = checker.source();
    let (portage, known) = checker.portage(source.as_ref());
    let build = checker.build(&known);
    let emerge = build.as_ref().map(|(_, kind)| checker.emerge(*kind));
    let strip = checker.strip();
    let oci = checker.oci();
    let build = build.and_then(|(build, _)| build);
    if let (Some(BaseSpec::Host { .. }), Some(TreeKind::Stage4)) =
        (source.as_ref().map(|source| &source.base), build.as_ref().map(|build| build.kind))
    {
        checker.refuse_to_ship_the_host();
    }
    if oci.is_some() && build.as_ref().is_some_and(|build| build.compression == Compression::Xz) {
        checker.refuse_a_layer_of_xz();
    }
    Some(Job { name: name?, source: source?, portage: portage?, build: build?, emerge: emerge??, strip, oci })
}

/// What the tree says of the source, or none after noting what is wrong with it.
pub(super) fn source_alone(texts: &mut Texts, tree: &Table, request: &Request) -> Option<Source> {
    Checker::new(texts, tree, request).source()
}

/// A string and where it stands.
#[derive(Debug, Clone)]
struct Word {
    text: String,
    at: Place,
}

/// What a path must be, if it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    /// An existing regular file.
    File,
    /// An existing directory.
    Directory,
    /// A directory, or nothing yet.
    BeMade,
}

struct Checker<'a> {
    texts: &'a mut Texts,
    tree: &'a Table,
    request: &'a Request,
    home: Option<PathBuf>,
}

impl<'a> Checker<'a> {
    fn new(texts: &'a mut Texts, tree: &'a Table, request: &'a Request) -> Self {
        let home = request.env.get(std::ffi::OsStr::new("HOME")).map(PathBuf::from).filter(|home| home.is_absolute());
        Self { texts, tree, request, home }
    }
}

impl Checker<'_> {
    fn name(&mut self) -> Option<String> {
        if let Some(word) = self.word("", "name") {
            return self.follow(&word, "name", |text| words::name(text).map(|()| text.to_owned()));
        }
        let help = "name it with `name = \"…\"` at the top, or --set name=…";
        let stem = match self.request.files.last() {
            None => {
                self.texts
                    .find(Finding::missing("no recipe is given").help("name a file, for example musl-python3.toml"));
                return None;
            }
            Some(file) if file.as_os_str() == "-" => {
                self.texts.find(Finding::missing("a recipe on standard input has no name").help(help));
                return None;
            }
            Some(file) => file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        match words::name(&stem) {
            Ok(()) => Some(stem),
            Err(problem) => {
                let title = format!("the file's name is no name for an image: {}", problem.label);
                self.texts.find(Finding::missing(title).help(help));
                None
            }
        }
    }

    fn refuse_to_ship_the_host(&mut self) {
        let at = |key: (&str, &str)| self.value(key.0, key.1).map(|value| value.at.clone());
        if let (Some(kind), Some(host)) = (at(("build", "kind")), at(("source", "host"))) {
            let title = "a stage4 is the builder tree itself, which would be this host, with its accounts and settings";
            let finding = Finding::at(&kind, title, "would ship the host").also(&host, "the host is built from");
            self.texts.find(finding.help("make an image, or start from a stage3"));
        }
    }

    fn refuse_a_layer_of_xz(&mut self) {
        let compression = self.value("build", "compression").map(|value| value.at.clone());
        if let (Some(compression), Some(oci)) = (compression, self.tree.get("oci").map(|item| item.key_at.clone())) {
            let title = "the stage4 is the layer of the OCI image, and no such layer may be compressed with xz";
            let finding = Finding::at(&compression, title, "not for an OCI image").also(&oci, "the image is asked for");
            let help = "choose zstd, the smallest of what OCI knows, or make the .tar.xz by a recipe without [oci]";
            self.texts.find(finding.help(help));
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

    /// The strings of an array; none when the key is absent.
    fn list(&self, section: &str, key: &str) -> Option<Vec<Word>> {
        match &self.value(section, key)?.is {
            Is::List(list) => Some(list.iter().filter_map(Word::of).collect()),
            _ => None,
        }
    }

    /// Keys and values of a table of strings, in the order in which they were written.
    fn map(&self, section: &str, key: &str) -> Vec<(Word, Word)> {
        let Some(Is::Table(table)) = self.value(section, key).map(|value| &value.is) else { return Vec::new() };
        let mut words: Vec<(Word, Word)> = table
            .iter()
            .filter_map(|(key, item)| {
                Some((Word { text: key.clone(), at: item.key_at.clone() }, Word::of(&item.value)?))
            })
            .collect();
        words.sort_by_key(|(key, _)| (self.texts.rank(&key.at), key.at.text, key.at.span.start));
        words
    }

    /// What a rule makes of a word; what it says is wrong is noted.
    fn follow<T>(&mut self, word: &Word, what: &str, rule: impl Fn(&str) -> Result<T, Problem>) -> Option<T> {
        match rule(&word.text) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.texts.problem(&word.at, format!("not a valid {what}: {}", quoted(&word.text)), problem);
                None
            }
        }
    }

    /// What a rule makes of every word of a list, default where the key is absent.
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

    /// The word of a key if it follows a rule that changes nothing.
    fn plain(
        &mut self,
        section: &str,
        key: &str,
        what: &str,
        rule: impl Fn(&str) -> Result<(), Problem>,
    ) -> Option<String> {
        let word = self.word(section, key)?;
        self.follow(&word, what, |text| rule(text).map(|()| text.to_owned()))
    }

    /// What an archive may be unpacked, of the values that `of` gives by key.
    fn bounds(&mut self, of: impl Fn(&Self, &str) -> Option<Value>) -> Option<Bounds> {
        let max_unpacked = match of(self, "max-unpacked").as_ref().and_then(Word::of) {
            Some(word) => self.follow(&word, "size", words::most_bytes).map(Some),
            None => Some(None),
        };
        let max_entries = match of(self, "max-entries") {
            Some(Value { at, is: Is::Int(number) }) => {
                let word = Word { text: number.to_string(), at };
                self.follow(&word, "number of entries", words::most).map(Some)
            }
            _ => Some(None),
        };
        Some(Bounds { max_unpacked: max_unpacked?, max_entries: max_entries? })
    }

    /// The path of a key.
    fn path_of(&mut self, section: &str, key: &str, must: Must) -> Option<PathBuf> {
        let word = self.word(section, key)?;
        self.path(&word, must)
    }

    /// A word as a path, relative to the text it stands in.
    fn path(&mut self, word: &Word, must: Must) -> Option<PathBuf> {
        let title = |what: &str| format!("{what}: {}", quoted(&word.text));
        if word.text.is_empty() {
            self.texts.problem(&word.at, "a path may not be empty", Problem::new("empty"));
            return None;
        }
        if let Err(problem) = words::printable(&word.text) {
            self.texts.problem(&word.at, title("not a valid path"), problem);
            return None;
        }
        let dir = self.texts.get(word.at.text).dir.clone();
        let relative = match (word.text.strip_prefix('~'), &self.home) {
            (None, _) => PathBuf::from(&word.text),
            (Some(""), Some(home)) => home.clone(),
            (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
            (Some(_), _) => {
                let problem =
                    Problem::new("whose home directory this is, is not known").help("write the whole path, or ./~…");
                self.texts.problem(&word.at, title("not a valid path"), problem);
                return None;
            }
        };
        let path = match absolute(&dir, &relative) {
            Ok(path) => path,
            Err(error) => {
                self.texts.problem(&word.at, title("no such path"), Problem::new(reason(&error)));
                return None;
            }
        };
        let shown = escaped(&path.to_string_lossy());
        let problem = match (must, fs_err::metadata(&path)) {
            (Must::File, Ok(found)) if found.is_file() => return Some(path),
            (Must::Directory | Must::BeMade, Ok(found)) if found.is_dir() => return Some(path),
            (Must::BeMade, Err(error)) if error.kind() == io::ErrorKind::NotFound => return Some(path),
            (Must::File, Ok(_)) => Problem::new("not a regular file"),
            (_, Ok(_)) => Problem::new("not a directory"),
            (_, Err(error)) => Problem::new(reason(&error)),
        };
        let what = if must == Must::File { "cannot use the file" } else { "cannot use the directory" };
        self.texts.problem(&word.at, format!("{what} {shown}"), problem);
        None
    }
}

impl Word {
    fn of(value: &Value) -> Option<Self> {
        value.as_str().map(|text| Self { text: text.to_owned(), at: value.at.clone() })
    }
}

/// `path` seen from `dir`, without `.` and `..`; what precedes a `..` must exist, for it may be a symlink.
fn absolute(dir: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut result = PathBuf::new();
    for component in dir.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                result = result.canonicalize()?;
                result.pop();
            }
            other => result.push(other),
        }
    }
    Ok(result)
}
