//! The start of every command: it reads the recipe, becomes root, starts the signal thread and opens the store.

use crate::base::time::SourceDate;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::{RecipeArgs, answers, images};
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::progress::Progress;
use crate::builder::host;
use crate::os::process::Signals;
use crate::os::userns::{self, Role};
use crate::os::{probe, space};
use crate::recipe::{self, Answers, BaseSpec, Branches, Job, Loaded, Memo, Request, Secrets, lineage};
use crate::source::LocalBranches;
use crate::store::Store;
use crate::ui::Terminal;

/// The recipe and the store of a command, in a process that is root in its user namespace.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) job: Arc<Job>,
    /// The recipe's file, which identifies its work directory.
    pub(super) origin: PathBuf,
    pub(super) store: Store,
}

/// Reads the recipe, becomes root, opens the store and runs `work`, here or in a child in a user namespace. Returns the exit code. Must
/// be called before any thread exists.
pub(super) fn with(
    args: &RecipeArgs,
    overrides: &[String],
    ui: &Terminal,
    work: impl FnOnce(&Session) -> Result<i32>,
) -> Result<i32> {
    with_answers(args, overrides, ui, |session, _| work(session))
}

/// Reads the recipe, and calls `work` with its session and the answers that a user gave on the terminal.
pub(super) fn with_answers(
    args: &RecipeArgs,
    overrides: &[String],
    ui: &Terminal,
    work: impl FnOnce(&Session, &Answers) -> Result<i32>,
) -> Result<i32> {
    // The child reads the recipe as well, so standard input is left to it.
    let standard_input = args.files.iter().any(|file| file == Path::new("-"));
    if !userns::is_root() && !standard_input {
        // Questions are left to the child, too.
        let early = Request { secrets: Secrets::Leave, ..request(args, overrides, ui)? };
        let loaded = recipe::load_without_questions(&early)?;
        if let Some(BaseSpec::Host { show, .. }) = loaded.as_ref().map(|loaded| &loaded.job.source.base) {
            // Before ranges of subordinate ids are looked up, which would not help.
            host::check(show)?;
        }
    }
    if let Role::Waited(exit) = userns::become_root()? {
        return Ok(exit.code());
    }
    // Before signals are caught: one of them ends a process that waits for an answer.
    let mut asker = answers::Asker::new(ui);
    let loaded = load_with(args, overrides, &mut asker, ui)?;
    let store = as_root()?;
    loaded.warnings.iter().for_each(|warning| ui.warn(warning));
    run(Session { job: loaded.job, origin: origin(args)?, store }, |session| work(session, &asker.answers()))
}

/// Does the same for each of the recipes `images` of a tree. All are read before the first one is worked on, so that mistakes and
/// questions come first. `work` also gets the answers that a user gave on the terminal.
pub(super) fn with_each(
    args: &RecipeArgs,
    images: &[PathBuf],
    overrides: &[String],
    ui: &Terminal,
    work: impl FnOnce(Vec<Session>, &Answers) -> Result<i32>,
) -> Result<i32> {
    if let Role::Waited(exit) = userns::become_root()? {
        return Ok(exit.code());
    }
    let mut asker = answers::Asker::new(ui);
    let (mut read, mut known, mut said) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
    let common = Request { shared: true, ..request(args, overrides, ui)? };
    for (image, loaded) in images.iter().zip(recipe::load_each(&common, images, &mut asker)?) {
        known.extend(loaded.answers);
        loaded
            .warnings
            .into_iter()
            .filter(|warning| said.insert(warning.clone()))
            .for_each(|warning| ui.warn(&warning));
        read.push((loaded.job, identity(image)?));
    }
    images::check_names(&read)?;
    args.answers.save(&known)?;
    let store = as_root()?;
    let sessions = read.into_iter().map(|(job, origin)| Session { job, origin, store: store.clone() }).collect();
    work(sessions, &asker.answers())
}

/// Runs `work`, and adds the free space to an error about a full disk.
pub(super) fn run<T>(session: Session, work: impl FnOnce(&Session) -> Result<T>) -> Result<T> {
    let mounts = mounts_in(session.store.root());
    let done = work(&session).map_err(|error| space::told(error, &[session.store.root(), &session.job.build.outdir]));
    if cfg!(debug_assertions) && mounts_in(session.store.root()) != mounts {
        return Err(Error::system("mounts are left in the store"));
    }
    done
}

/// Lists the mounts in the store, for a check in debug builds that none is left.
fn mounts_in(store: &Path) -> Vec<String> {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let store = store.display().to_string();
    mounts.lines().filter(|line| line.contains(&store)).map(str::to_owned).collect()
}

/// Returns the file that identifies the recipe's work directory: the last one given.
pub(super) fn origin(args: &RecipeArgs) -> Result<PathBuf> {
    match args.files.last() {
        Some(last) if last != Path::new("-") => identity(last),
        _ => Ok(PathBuf::from("-")),
    }
}

fn identity(recipe: &Path) -> Result<PathBuf> {
    lineage::identity(recipe).context(Kind::Usage, || "finding the recipe")
}

/// The process that has root's privileges.
pub(super) enum Root {
    /// This process, with the store open.
    Here(Store),
    /// A child, which did all the work and ended with this exit code.
    Done(i32),
}

/// Becomes root and opens the store.
pub(super) fn root() -> Result<Root> {
    match userns::become_root()? {
        Role::Waited(exit) => Ok(Root::Done(exit.code())),
        Role::Root => as_root().map(Root::Here),
    }
}

/// Starts the signal thread and opens the store, in a process that is root.
fn as_root() -> Result<Store> {
    let home = Store::default_home(|name| std::env::var_os(name), userns::is_host_root())?;
    probe::look();
    Signals::start()?;
    open(&home)
}

/// The privilege of a process that can do a part of its work without root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Privilege {
    /// Root in its user namespace.
    Root,
    /// None: the machine or the user lacks something.
    None,
    /// A child did all the work and ended with this exit code.
    Done(i32),
}

/// Becomes root if that is possible. Must be called before any thread exists. Signals end the process, and its mounts with it.
pub(super) fn root_if_possible() -> Privilege {
    let role = userns::become_root().inspect_err(|error| tracing::debug!("continuing without root: {error}"));
    match role {
        Ok(Role::Waited(exit)) => Privilege::Done(exit.code()),
        Ok(Role::Root) => Privilege::Root,
        Err(_) => Privilege::None,
    }
}

/// Becomes root in a user namespace, unless this process is root. For commands that need no store. Returns the exit code of the child
/// if a child did the work.
pub(super) fn user_namespace() -> Result<Option<i32>> {
    if !userns::is_host_root()
        && let Role::Waited(exit) = userns::become_root()?
    {
        return Ok(Some(exit.code()));
    }
    probe::look();
    Signals::start().map(|()| None)
}

/// Starts the signal thread of a command that needs no root.
pub(super) fn signals() -> Result<()> {
    probe::look();
    Signals::start()
}

/// Opens the store for a command that needs no root.
pub(super) fn store() -> Result<Store> {
    probe::look();
    open(&Store::default_home(|name| std::env::var_os(name), userns::is_host_root())?)
}

fn open(home: &Path) -> Result<Store> {
    Store::open(home).map_err(|error| space::told(error, &[home]))
}

/// Reads the recipe, and asks its questions.
pub(super) fn load(args: &RecipeArgs, overrides: &[String], ui: &Terminal) -> Result<Loaded> {
    load_with(args, overrides, &mut answers::Asker::new(ui), ui)
}

fn load_with(args: &RecipeArgs, overrides: &[String], asker: &mut answers::Asker<'_>, ui: &Terminal) -> Result<Loaded> {
    let loaded = recipe::load_with(&request(args, overrides, ui)?, asker)?;
    args.answers.save(&loaded.answers)?;
    Ok(loaded)
}

/// Collects the sources of the recipe: files, options, variables, defaults.
pub(super) fn request(args: &RecipeArgs, overrides: &[String], ui: &Terminal) -> Result<Request> {
    let mut defaults = vec![PathBuf::from("/etc/quern.toml")];
    let directory = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = directory("XDG_CONFIG_HOME").or_else(|| Some(directory("HOME")?.join(".config")));
    defaults.extend(config.map(|config| config.join("quern/quern.toml")));
    Ok(Request {
        files: args.files.clone(),
        sets: args.set.iter().chain(overrides).cloned().collect(),
        env: std::env::vars_os().collect(),
        defaults,
        answers: args.answers.given()?,
        saved_answers: args.answers.saved()?,
        within: Vec::new(),
        memo: Memo::default(),
        shared: args.shared,
        cwd: std::env::current_dir().system(|| "finding the working directory")?,
        secrets: args.secrets,
        branches: Store::default_home(|name| std::env::var_os(name), userns::is_host_root())
            .ok()
            .map(|home| Rc::new(LocalBranches::new(Store::branches(&home))) as Rc<dyn Branches>),
        colour: ui.colour(),
    })
}

/// Returns the date that results carry.
pub(super) fn source_date() -> Result<SourceDate> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(epoch) => Some(epoch),
        Err(std::env::VarError::NotPresent) => None,
        Err(error) => return Err(Error::usage("SOURCE_DATE_EPOCH is not valid UTF-8").with_source(error)),
    };
    SourceDate::of_build(epoch.as_deref(), now)
}

/// Returns the number of processors that this process may use.
pub(super) fn cpus() -> u32 {
    u32::try_from(probe::processors()).unwrap_or(u32::MAX)
}
