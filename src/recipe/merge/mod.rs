//! Merges the texts of a recipe. Later layers win: defaults files < the shared file of its tree < the recipes that it starts from,
//! outermost first < the files of its type < the fragments of a tuple < recipe files in order (an included file before the one that
//! includes it) < environment < `--set`. Tables merge key by key; a later layer replaces everything else. The fragments of a tuple are
//! united first, and must not contradict each other.

mod arguments;
mod crossed;
mod family;
mod fragments;
#[cfg(test)]
mod tests;
mod tuples;
mod types;
mod unite;

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::diagnostic::{Finding, Place, Problem, Text, TextKind, Texts};
use super::lineage::TreePlace;
use super::memo::{Memo, Parsed};
use super::parse::{self, Is, Item, Table, Value};
use super::{AxisValue, Branches, Request, shape};
use crate::base::error::{Error, Result};
use crate::base::text::escaped;
pub(super) use arguments::VARIABLES;
use family::{Tree, inherited};
pub(super) use fragments::tuples;
use types::{Above, Followed};

/// The size limit of a recipe file, in bytes.
const MAX_SIZE: u64 = 1 << 20;
/// The limit on the files of one recipe. A file counts each time it is included.
const MAX_FILES: usize = 64;

/// The merged texts of a recipe.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// The values; `None` if a text is not valid TOML.
    pub(super) tree: Option<Table>,
    /// The recipe that the image starts from.
    pub(super) parent: Option<PathBuf>,
    /// The place of the image in a tree of recipes.
    pub(super) place: Option<TreePlace>,
    /// The values of a tuple, by the name of the axis.
    pub(super) axes: BTreeMap<String, AxisValue>,
}

/// Merges the texts of a request. Notes mistakes in `texts`.
pub(super) fn merge(request: &Request, texts: &mut Texts) -> Result<Merged> {
    let (branches, memo) = (request.branches.as_deref(), request.memo.clone());
    let mut merger = Merger { branches, memo, ..Merger::new(texts) };
    for path in &request.defaults {
        let path = request.cwd.join(path);
        if exists(&path)? {
            merger.file(&path, &path, None)?;
        }
    }
    let mut place = None;
    for (index, path) in request.files.iter().enumerate() {
        let text = if path.as_os_str() == "-" {
            merger.image = (index + 1 == request.files.len()).then_some(None);
            merger.stdin(&request.cwd)?
        } else if index + 1 == request.files.len() {
            place = TreePlace::of(&request.cwd.join(path));
            match place.as_ref().filter(|place| place.is_tuple) {
                Some(tuple) => merger.tuple(tuple, path)?,
                None => merger.image(&request.cwd.join(path), path, None)?,
            }
        } else {
            merger.file(&request.cwd.join(path), path, None)?
        };
        merger.texts.set_main(text);
    }
    merger.variables(request);
    for option in &request.sets {
        merger.option(option, request);
    }
    merger.check_followed();
    let Merger { tree, broken, parent, axes, .. } = merger;
    Ok(Merged { tree: (!broken).then_some(tree), parent, place, axes })
}

/// The part of a recipe that a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A recipe file or a file with defaults.
    Own,
    /// The file that all images of a tree share.
    Shared,
    /// The recipe of an image that this one starts from.
    Parent,
    /// A fragment of a tuple.
    Fragment,
}

/// The content of a file.
enum Content {
    Bytes(Vec<u8>),
    /// It was read before.
    Known(Rc<Parsed>),
}

struct Merger<'a> {
    texts: &'a mut Texts,
    /// The files that were read before.
    memo: Memo,
    tree: Table,
    /// The rank of the next file.
    rank: usize,
    /// The files that are being read, outermost first.
    stack: Vec<PathBuf>,
    /// Set when a text is not valid TOML, so that its content is unknown.
    broken: bool,
    part: Part,
    /// Set for the next text if that is the recipe of an image: its place in a tree.
    image: Option<Option<TreePlace>>,
    /// The trees whose shared files were read.
    trees: Vec<Tree>,
    /// True while the shared file of a tree is read.
    is_shared_file: bool,
    /// The built-in types, once they were read.
    built_in: Option<Table>,
    /// The image that was read last.
    above: Option<Above>,
    /// The type of the image itself.
    followed: Option<Followed>,
    /// The reader of git branches.
    branches: Option<&'a dyn Branches>,
    /// True if the fragment that is being read wins over others.
    overrides: bool,
    /// The values of a tuple, by the name of the axis.
    axes: BTreeMap<String, AxisValue>,
    /// True after the recipe of an image that this one starts from.
    below: bool,
    /// True if the image has `[oci]` in common with the image whose recipe is being read.
    inherits_oci: bool,
    /// The recipe that the image starts from.
    parent: Option<PathBuf>,
}

impl<'a> Merger<'a> {
    fn new(texts: &'a mut Texts) -> Self {
        Self {
            texts,
            memo: Memo::default(),
            tree: Table::new(),
            rank: 0,
            stack: Vec::new(),
            broken: false,
            part: Part::Own,
            image: None,
            trees: Vec::new(),
            is_shared_file: false,
            built_in: None,
            above: None,
            followed: None,
            branches: None,
            overrides: false,
            axes: BTreeMap::new(),
            below: false,
            inherits_oci: false,
            parent: None,
        }
    }
}

impl Merger<'_> {
    /// Lays a file over the tree, after the files that it includes. Returns the index of its text. `shown` is the path as the
    /// user wrote it.
    fn file(&mut self, path: &Path, shown: &Path, included_at: Option<&Place>) -> Result<Option<usize>> {
        let content = match self.content(path) {
            Ok(content) => content,
            Err(problem) => {
                let title = format!("cannot read the recipe {}", escaped(&shown.to_string_lossy()));
                let Some(place) = included_at else {
                    let error = Error::usage(format!("{title}: {}", problem.label));
                    return Err(match problem.help {
                        Some(help) => error.with_hint(help),
                        None => error,
                    });
                };
                self.texts.problem(place, title, problem);
                return Ok(None);
            }
        };
        let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
        let identity = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        self.stack.push(identity);
        let notes = self.texts.notes();
        let (text, layer) = self.parsed(content, shown.to_string_lossy().into_owned(), dir);
        // Mistakes and warnings name the file as the user wrote it, so they are found anew.
        if let Some(layer) = layer.as_ref().filter(|_| self.texts.notes() == notes) {
            self.memo.keep_file(path, &self.texts.get(text).text, layer);
        }
        self.layer(text, layer)?;
        self.stack.pop();
        Ok(Some(text))
    }

    /// Returns the content of a file, which is read once.
    fn content(&self, path: &Path) -> std::result::Result<Content, Problem> {
        match self.memo.file(path) {
            Some(known) => Ok(Content::Known(known)),
            None => {
                self.memo.count();
                read(path).map(Content::Bytes)
            }
        }
    }

    fn stdin(&mut self, cwd: &Path) -> Result<Option<usize>> {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .take(MAX_SIZE + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::usage("cannot read the recipe on standard input").with_source(error))?;
        if bytes.len() as u64 > MAX_SIZE {
            return Err(Error::usage("cannot read the recipe on standard input: it is larger than 1 MiB"));
        }
        let (text, layer) = self.parsed(Content::Bytes(bytes), "<stdin>".to_owned(), cwd.to_owned());
        self.layer(text, layer)?;
        Ok(Some(text))
    }

    /// Adds a text. Returns its index and its checked values, unless it is not valid TOML.
    fn parsed(&mut self, content: Content, label: String, dir: PathBuf) -> (usize, Option<Table>) {
        let text = |text| Text { label, text, dir, kind: TextKind::File, rank: self.rank };
        let bytes = match content {
            Content::Bytes(bytes) => bytes,
            Content::Known(known) => {
                let added = self.texts.add(text(known.text.clone()));
                return (added, Some(parse::moved(&known.layer, added)));
            }
        };
        let (string, bad) = match String::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                (String::from_utf8_lossy(error.as_bytes()).into_owned(), Some(at))
            }
        };
        let text = self.texts.add(text(string));
        if let Some(at) = bad {
            let span = at..at + char::REPLACEMENT_CHARACTER.len_utf8();
            self.texts.find(Finding::at(&Place { text, span }, "a recipe must be UTF-8", "not UTF-8"));
            return (text, None);
        }
        (text, parse::document(self.texts, text).map(|layer| shape::check(self.texts, layer)))
    }

    /// Lays the values of a text over the tree, after the recipes that it starts from and the files that it includes.
    fn layer(&mut self, text: usize, layer: Option<Table>) -> Result<()> {
        let image = self.image.take();
        match layer {
            Some(mut layer) => {
                if let Some(place) = &image {
                    self.start(place.as_ref(), &mut layer, text)?;
                }
                let named = self.check_part(&mut layer, image.is_some());
                if let Some(place) = &image {
                    self.follow(place.as_ref(), named, text)?;
                }
                if let Some(include) = layer.remove("include") {
                    self.include(include.value, text)?;
                }
                self.rank += 1;
                self.texts.set_rank(text, self.rank);
                lay(
                    &mut self.tree,
                    if self.part == Part::Parent { inherited(layer, self.inherits_oci) } else { layer },
                );
            }
            None => self.broken = true,
        }
        Ok(())
    }

    fn include(&mut self, list: Value, text: usize) -> Result<()> {
        let Is::List(list) = list.is else { return Ok(()) };
        for value in list {
            let Some(name) = value.as_str() else { continue };
            let path = self.texts.get(text).dir.join(name);
            let identity = path.canonicalize().unwrap_or_else(|_| path.clone());
            if name.is_empty() || name.contains('\0') {
                self.texts.problem(&value.at, "cannot include a file without a name", Problem::new("no file name"));
            } else if self.stack.contains(&identity) {
                let problem = Problem::new("this file is already being read");
                self.texts.problem(&value.at, "recipes include each other in a cycle", problem);
            } else if self.texts.len() >= MAX_FILES {
                let problem = Problem::new(format!("more than {MAX_FILES} files"));
                self.texts.problem(&value.at, "too many files are included", problem);
                break;
            } else {
                let shown = Path::new(&self.texts.get(text).label).with_file_name(name);
                self.file(&path, &shown, Some(&value.at))?;
            }
        }
        Ok(())
    }
}

/// Lays a table over another.
fn lay(under: &mut Table, over: Table) {
    for (key, item) in over {
        match (under.get_mut(&key).map(|item| &mut item.value.is), item.value.is) {
            (Some(Is::Table(below)), Is::Table(above)) => lay(below, above),
            (Some(Is::Steps(below)), Is::Steps(above)) => lay_steps(below, above),
            (_, is) => {
                let value = Value { at: item.value.at, is };
                under.insert(key, Item { key_at: item.key_at, value });
            }
        }
    }
}

/// Lays steps over others: a step of the same name in its place, any other at the end.
fn lay_steps(under: &mut Vec<Item>, over: Vec<Item>) {
    for item in over {
        let below = under.iter_mut().find(|below| below.name() == item.name()).map(|below| &mut below.value.is);
        match (below, item.value.is) {
            (Some(Is::Table(below)), Is::Table(above)) => lay(below, above),
            (_, is) => under.push(Item { key_at: item.key_at, value: Value { at: item.value.at, is } }),
        }
    }
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists()
        .map_err(|error| Error::usage(format!("looking for {}", escaped(&path.to_string_lossy()))).with_source(error))
}

/// Reads a regular file of limited size. Opens nothing else: reading a device or a FIFO can block or have side effects.
fn read(path: &Path) -> std::result::Result<Vec<u8>, Problem> {
    let why = |error: std::io::Error| Problem::new(reason(&error));
    let irregular = |kind: std::fs::FileType| {
        let what = if kind.is_dir() {
            "a directory"
        } else if kind.is_fifo() {
            "a FIFO"
        } else if kind.is_block_device() || kind.is_char_device() {
            "a device"
        } else {
            "a socket"
        };
        Problem::new(format!("it is {what}, not a file")).help("to read a recipe from standard input, write `-`")
    };
    let kind = fs_err::metadata(path).map_err(why)?.file_type();
    if !kind.is_file() {
        return Err(irregular(kind));
    }
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(why)?;
    let metadata = file.metadata().map_err(why)?;
    if !metadata.is_file() {
        return Err(irregular(metadata.file_type()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(why)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(Problem::new("it is larger than 1 MiB").help("a recipe is a short text; is this the right file?"));
    }
    Ok(bytes)
}

/// Describes an I/O error in a few words.
pub(super) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "it does not exist".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::NotADirectory => "a component of its path is not a directory".to_owned(),
        _ => error.to_string(),
    }
}
