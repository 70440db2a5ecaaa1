//! Reads recipes into a typed, valid [`Job`]. The rest of the program knows neither TOML nor where a value came from.
//!
//! `keys` lists what a recipe may contain. `parse` turns each file, variable and option into a tree, `shape` checks its keys and
//! types, `merge` lays the trees over each other, and `ask` and `variables` fill `{{NAME}}` in, and `check` gives the result a meaning, with the rules in `words`, `atom` and
//! `package_files`. `diagnostic` shows every mistake with a caret under it.

mod ask;
mod atom;
mod branch;
mod check;
mod configurations;
mod diagnostic;
mod edit;
#[cfg(test)]
pub(crate) mod fixture;
mod job;
mod keys;
pub mod lineage;
mod memo;
mod merge;
mod needs;
mod package_files;
mod parse;
mod shape;
#[cfg(test)]
mod tests;
mod variables;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::base::error::{Context, Kind, Result};
use crate::base::text::{counted, escaped};

pub use ask::{Answers, Question, User};
pub use branch::{BranchFailure, BranchTree, Branches};
pub use edit::{NewLine, with_lines};
pub use job::{
    Accelerate, Action, AxisValue, BaseSpec, Bind, BindContent, Binhost, Bounds, Build, Ccache, Compression, CopySpec,
    Daemon, EMERGE_MOUNTS, Emerge, Fetch, FetchFrom, FileSpec, FuntooProfile, Git, GroupSpec, Init, Job, Jobserver,
    MetaRepo, MetaRepoPlace, Oci, Origin, OtherImage, Password, Phase, Portage, ProfileName, ProfileSpec, Ready,
    Rebuild, Refresh, RepositorySpec, SbomFormat, Script, Secret, SecretValue, Sharing, SignedFile, Snapshot,
    SnapshotFormat, Source, Step, StepCache, StepRoot, StepTmpfs, Strip, Switch, System, TreeKind, Units, UserSpec,
    Version, Volume, WriteSpec, names_step,
};
pub use memo::Memo;

/// Returns true for a name that a git branch may have.
pub fn is_branch(text: &str) -> bool {
    words::branch(text).is_ok()
}

/// Returns true for a name that an ebuild repository may have.
pub fn is_repository_name(text: &str) -> bool {
    words::repository(text).is_ok()
}

/// The mirror for recipes that name none: Gentoo's own.
pub(crate) const DEFAULT_MIRROR: &str = "https://distfiles.gentoo.org";

/// The default of `max-age`, in seconds. It limits freeze attacks: a mirror that withholds updates cannot hold a build on a
/// vulnerable version for longer.
pub(crate) const DEFAULT_MAX_AGE: u64 = 30 * 86_400;

/// Gentoo's ebuild repository with its metadata. Gentoo signs its commits.
pub(crate) const GENTOO_GIT: &str = "https://anongit.gentoo.org/git/repo/sync/gentoo.git";

/// The directory of Gentoo's releases, which also has its official binary packages.
pub(crate) const GENTOO_RELEASES: &str = "https://distfiles.gentoo.org/releases";

/// The server for Funtoo recipes that name none.
pub(crate) const FUNTOO_MIRROR: &str = "https://build.funtoo.org";

/// Funtoo's layout: the paths of a tarball, and the suffixes of its signature and digest. `source.layout` of a recipe replaces
/// the values that it names.
pub(crate) const FUNTOO_LAYOUT: [(&str, &str); 4] = [
    ("latest", "{release}/{arch}/{subarch}/stage3-latest.tar.xz"),
    ("dated", "{release}/{arch}/{subarch}/{version}/stage3-{subarch}-{release}-{version}.tar.xz"),
    ("signature", ".gpg"),
    ("digest", ".hash.txt"),
];

/// Primary fingerprints of the servers that sign Funtoo's stage3s: Intel and generic, AMD, Jaguar, ARM 32, ARM 64, Ryzen.
pub(crate) const FUNTOO_SIGNERS: [&str; 6] = [
    "70ACBB6BFEE7BC572A8941D19266C4FA11FD00FD",
    "E8C574815DC174AF5A9E83853AA5CA5E683A2F8A",
    "6DDAE85727888A7CA50E2122A9021CE4BEA87CD2",
    "38E84AD53B01590BA6785E882A7B0B2EEEE54A43",
    "A9B7AB056485D1B0671AC9364BE69BAE62DD6D47",
    "D5D7EDE338F8D48746902DB928CE446E6B365A89",
];

/// The inputs of a recipe. Nothing else is read: neither the environment of the process nor its working directory.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Recipe files; a later one wins. `-` is standard input.
    pub files: Vec<PathBuf>,
    /// Values of `--set`, as `section.key=value`. A later one wins over an earlier one, and all of them win over the rest.
    pub sets: Vec<String>,
    /// The environment. Only `QUERN_<SECTION>_<KEY>`, `QUERN_VARS_<NAME>`, `QUERN_ANSWER_<NAME>`, `QUERN_NAME`, `HOME` (for
    /// `~/` in paths) and the variables that secrets name are used.
    pub env: BTreeMap<OsString, OsString>,
    /// Files with defaults, which need not exist; a later one wins.
    pub defaults: Vec<PathBuf>,
    /// Answers to the questions of the recipe. They win over those in the environment.
    pub answers: Answers,
    /// Answers from a file. Those in the environment win over them.
    pub saved_answers: Answers,
    /// True if the request is for several images. Answers and steps that this recipe does not have belong to others then.
    pub shared: bool,
    /// The recipes of the images that start from this one or need it, and that are being read.
    pub within: Vec<PathBuf>,
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// The treatment of values of secrets.
    pub secrets: Secrets,
    /// The reader of git branches. `None`: no recipe may name them.
    pub branches: Option<Rc<dyn Branches>>,
    /// Set to colour the snippets of mistakes.
    pub colour: bool,
    /// The recipes that this request was answered with so far, for those that the recipe depends on. [`load`] begins with none.
    pub memo: Memo,
}

/// The treatment of values of secrets while a recipe is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Secrets {
    /// Read them. A secret with a command is a mistake.
    #[default]
    Read,
    /// Read them, and run commands of this machine for them.
    ReadAndRun,
    /// Read those that are there, and ask nobody. The others are left out.
    Known {
        /// Set to run commands of this machine for them.
        run: bool,
    },
    /// Leave them out, and do not ask for them.
    Leave,
}

/// A valid recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image to build.
    pub job: Arc<Job>,
    /// Warnings about deprecated or unused keys, one line each.
    pub warnings: Vec<String>,
    /// The answers that are not secret, by the name of the question. Those of the recipes that the image starts from are among them.
    pub answers: BTreeMap<String, String>,
    /// The names of all questions.
    pub questions: BTreeSet<String>,
}

/// Reads and checks a recipe. Nobody is asked for answers.
///
/// # Errors
/// [`Kind::Usage`], with details that show every mistake and every missing answer.
pub fn load(request: &Request) -> Result<Loaded> {
    load_with(request, &mut ask::Nobody)
}

/// Reads and checks a recipe, and asks a user for the answers that the request lacks.
///
/// # Errors
/// Those of [`load`], and those of the user.
pub fn load_with(request: &Request, user: &mut dyn User) -> Result<Loaded> {
    read(&Request { memo: Memo::default(), ..request.clone() }, user)?.answered(request)
}

/// Reads and checks the recipes in `files`, each with the other parts of `request`, and asks a user for the answers that the request lacks.
///
/// # Errors
/// Those of [`load`]: the mistakes of one recipe, or the missing answers of all.
pub fn load_each(request: &Request, files: &[PathBuf], user: &mut dyn User) -> Result<Vec<Loaded>> {
    read_each(&Request { memo: Memo::default(), ..request.clone() }, files, user)
}

fn read_each(request: &Request, files: &[PathBuf], user: &mut dyn User) -> Result<Vec<Loaded>> {
    let (mut all, mut unanswered) = (Vec::new(), diagnostic::Shown::default());
    for file in files {
        let Read { loaded, unanswered: more } = read(&Request { files: vec![file.clone()], ..request.clone() }, user)?;
        all.push(loaded);
        unanswered.extend(more);
    }
    match unanswered.is_empty() {
        true => Ok(all),
        false => Err(unanswered.error(&format!("recipes of {}", counted(files.len(), "image")))),
    }
}

/// A recipe without mistakes, which may lack answers.
#[derive(Debug, Clone)]
struct Read {
    loaded: Loaded,
    /// The answers that the recipe lacks, and those that the recipes of other images lack.
    unanswered: diagnostic::Shown,
}

impl Read {
    /// Returns the recipe, if no answer is missing.
    fn answered(self, request: &Request) -> Result<Loaded> {
        if self.unanswered.is_empty() {
            return Ok(self.loaded);
        }
        let file = request.files.last().map(|file| match file == Path::new("-") {
            true => " <stdin>".to_owned(),
            false => format!(" {}", escaped(&file.to_string_lossy())),
        });
        Err(self.unanswered.error(&format!("recipe{}", file.unwrap_or_default())))
    }
}

fn read(request: &Request, user: &mut dyn User) -> Result<Read> {
    if let Some(known) = request.memo.recipe(request) {
        return Ok(known);
    }
    let mut texts = diagnostic::Texts::default();
    let merged = merge::merge(request, &mut texts)?;
    let read = checked(request, texts, merged, user)?;
    request.memo.keep_recipe(request, &read);
    Ok(read)
}

/// Reads and checks a recipe that has no questions. Returns `None` for a recipe that may have some, or depends on another recipe.
///
/// # Errors
/// Those of [`load`].
pub fn load_without_questions(request: &Request) -> Result<Option<Loaded>> {
    let mut texts = diagnostic::Texts::default();
    let request = &Request { memo: Memo::default(), ..request.clone() };
    let merged = merge::merge(request, &mut texts)?;
    let others = ["ask", "needs", "volume"];
    let asks = merged.tree.as_ref().is_some_and(|tree| others.iter().any(|key| tree.contains_key(*key)));
    if !texts.is_wrong() && (asks || merged.parent.is_some()) {
        return Ok(None);
    }
    checked(request, texts, merged, &mut ask::Nobody)?.answered(request).map(Some)
}

impl Request {
    /// Returns the file of the recipe itself, if there is one.
    fn own_origin(&self) -> Option<PathBuf> {
        self.files.last().and_then(|file| lineage::identity(&self.cwd.join(file)).ok())
    }

    /// Returns the request for the recipe `file`, which the image starts from or needs. Values of `--set` that change this image alone
    /// are left out.
    fn of_other(&self, file: PathBuf) -> Self {
        let within = self.within.iter().cloned().chain(self.own_origin()).collect();
        Self { files: vec![file], sets: self.common_sets(), shared: true, within, ..self.clone() }
    }

    /// Returns the values of `--set` that apply to the images that this one starts from or needs, too.
    fn common_sets(&self) -> Vec<String> {
        const COMMON: [&str; 5] = ["source.", "portage.", "build.", "vars.", "accelerate."];
        let common = |set: &&String| {
            COMMON.iter().any(|section| set.starts_with(section)) && !set.starts_with("build.image-name")
        };
        self.sets.iter().filter(common).cloned().collect()
    }
}

fn checked(
    request: &Request,
    mut texts: diagnostic::Texts,
    mut merged: merge::Merged,
    user: &mut dyn User,
) -> Result<Read> {
    // The mistakes of a recipe that the image starts from are shown as that recipe's.
    let parent = match (merged.parent, texts.is_wrong()) {
        (Some(file), false) => Some((read(&request.of_other(file.clone()), user)?, file)),
        _ => None,
    };
    let misspelt = texts.is_wrong();
    let mut family = variables::Family { place: merged.place, axes: merged.axes, ..Default::default() };
    let (mut warnings, mut unanswered) = (Vec::new(), diagnostic::Shown::default());
    if let Some((parent, origin)) = parent {
        let loaded = parent.loaded;
        unanswered = parent.unanswered;
        (family.answers, family.questions, warnings) = (loaded.answers, loaded.questions, loaded.warnings);
        family.parent = Some(OtherImage { job: loaded.job, origin });
    }
    let mut answers = family.answers.clone();
    if let (Some(tree), false) = (&mut merged.tree, misspelt) {
        let notes = needs::load(request, &mut texts, tree, &mut family, user)?;
        warnings.extend(notes.warnings);
        answers.extend(notes.answers);
        unanswered.extend(notes.unanswered);
    }
    let mut questions = family.questions.clone();
    let (root, mut together) = (family.place.as_ref().map(|place| place.root.clone()), false);
    let mut job = match merged.tree {
        Some(mut tree) => {
            if let Some(parse::Is::Table(asks)) = tree.get("ask").map(|item| &item.value.is) {
                questions.extend(asks.keys().cloned());
            }
            together = tree.get("tuples").and_then(|item| item.value.as_str()).is_some_and(|word| word == "all");
            let variables = variables::fill_in(&mut texts, &mut tree, request, &family, user)?;
            answers.extend(variables.answers.clone());
            check::job(&mut texts, &tree, request, variables, family)
        }
        None => None,
    };
    if misspelt {
        texts.forgive_missing();
    }
    if let (Some(job), Some(root), true, false) = (&mut job, root, together, texts.is_wrong()) {
        let origin = lineage::identity(&request.cwd.join(request.files.last().map_or(Path::new(""), PathBuf::as_path)));
        let origin = origin.context(Kind::Usage, || "finding the recipe")?;
        let (configurations, more) = configurations::of(request, &root, (job, &origin), user)?;
        job.configurations = configurations;
        unanswered.extend(more);
    }
    match job {
        Some(job) if !texts.is_wrong() => {
            warnings.extend(texts.take_warnings());
            let mut seen = BTreeSet::new();
            warnings.retain(|warning| seen.insert(warning.clone()));
            unanswered.extend(texts.unanswered(request.colour));
            Ok(Read { loaded: Loaded { job: Arc::new(job), warnings, answers, questions }, unanswered })
        }
        _ => Err(texts.error(unanswered, request.colour)),
    }
}

/// Reads and checks only `[source]`. The rest of the recipe may be missing, and so may all files if the defaults, variables or
/// options are enough.
///
/// # Errors
/// Those of [`load`].
pub fn load_source(request: &Request) -> Result<Source> {
    let mut texts = diagnostic::Texts::default();
    let source = match merge::merge(request, &mut texts)?.tree {
        Some(mut tree) => {
            tree.retain(|key, _| ["source", "vars"].contains(&key.as_str()));
            // The answers belong to questions that are not asked here.
            let (answers, memo) = (Answers::default(), Memo::default());
            let mut request = Request { saved_answers: answers.clone(), answers, memo, ..request.clone() };
            request.env.retain(|name, _| !name.as_encoded_bytes().starts_with(b"QUERN_ANSWER_"));
            variables::fill_in(&mut texts, &mut tree, &request, &variables::Family::default(), &mut ask::Nobody)?;
            check::source_alone(&mut texts, &tree, &request)
        }
        None => None,
    };
    match source {
        Some(source) if !texts.is_wrong() => Ok(source),
        _ => Err(texts.error(diagnostic::Shown::default(), request.colour)),
    }
}

/// Lists the recipes of the tree in `directory` and below it: those of directories, parents before children, and the tuples of a root.
///
/// # Errors
/// Those of [`lineage::images`]; and [`Kind::Usage`], with details that show every mistake in the
/// file of the tree.
pub fn images(directory: &Path, colour: bool) -> Result<Vec<PathBuf>> {
    let mut images = lineage::images(directory)?;
    images.extend(merge::tuples(directory, colour)?);
    Ok(images)
}

/// Lists every key as `section.key`, in each spelling, with its environment variable. The keys of the tables in a list begin with
/// the name of the list (`portage.repositories.`).
pub fn key_names() -> Vec<(String, String)> {
    keys::names()
}

/// Returns the key with the lines of one of Portage's package files (`package.use`).
pub fn package_key(file: &str) -> Option<&'static str> {
    keys::of_section("portage").find(|key| matches!(key.of, keys::Type::Lines(of) if of == file)).map(|key| key.name)
}

/// Parses a line of one of Portage's package files as a recipe does. `None` if it is wrong.
pub fn package_line(file: &str, line: &str) -> Option<String> {
    package_files::line(file, line).ok()
}

/// Writes a string of TOML.
pub fn toml_string(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Returns a value in the form that `--set` takes as exactly this value.
pub fn set_value(value: &str) -> String {
    parse::spelled(value)
}

/// Returns the alternative to setting a variable of make.conf, if the build sets that variable itself.
pub fn owned_variable(name: &str) -> Option<&'static str> {
    words::owned_variable(name)
}

/// Parses a number of bytes: a plain number, or one with the unit `K`, `M`, `G` or `T` (powers of 1024). The unit may also be
/// written as in `20 GiB`.
pub fn size(text: &str) -> Option<u64> {
    words::bytes(text)
}

/// Parses an age into seconds: days, or a number with the unit `h`, `d` or `w`.
pub fn age(text: &str) -> Option<u64> {
    words::age(text).ok()
}

/// Replaces the placeholders `{date}` and `$$DATE$$` (Quern's spelling) by a date.
pub(crate) fn dated(text: &str, date: &str) -> String {
    text.replace(words::DATE, date).replace("$$DATE$$", date)
}
