//! What every verb that works on a recipe begins with: the recipe, root, the signals, the store.

use crate::base::time::SourceDate;
use std::path::{Path, PathBuf};

use super::RecipeArgs;
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::progress::Progress;
use crate::builder::host::Host;
use crate::os::process::Signals;
use crate::os::space;
use crate::os::userns::{self, Role};
use crate::recipe::{self, BaseSpec, Job, Loaded, Request};
use crate::store::Store;
use crate::ui::Terminal;

/// A recipe and the store, in a process that is root of its namespace.
pub(super) struct Session {
    pub(super) job: Job,
    /// The recipe's file: names its work directory.
    pub(super) origin: PathBuf,
    pub(super) store: Store,
}

/// Reads the recipe, becomes root, opens the store, and does `work`; returns its exit code, or that of the program run again
/// in a user namespace. Must be called before any thread exists.
pub(super) fn with(
    args: &RecipeArgs,
    overrides: &[String],
    ui: &Terminal,
    work: impl FnOnce(&Session) -> Result<i32>,
) -> Result<i32> {
    // The program run again reads the recipe again, so standard input is left to it.
    let standard_input = args.files.iter().any(|file| file == Path::new("-"));
    if !userns::is_root() && !standard_input {
        let loaded = load(args, overrides, ui)?;
        if let BaseSpec::Host { hide, show } = &loaded.job.source.base {
            // It says so before anybody looks for ranges of ids, which would not help.
            Host::new(hide, show)?;
        }
    }
    let store = match root()? {
        Ok(store) => store,
        Err(code) => return Ok(code),
    };
    let loaded = load(args, overrides, ui)?;
    loaded.warnings.iter().for_each(|warning| ui.warn(warning));
    let session = Session { job: loaded.job, origin: origin(args)?, store };
    work(&session).map_err(|error| space::told(error, &[session.store.root(), &session.job.build.outdir]))
}

/// The file that names the recipe's work directory: the last one given.
pub(super) fn origin(args: &RecipeArgs) -> Result<PathBuf> {
    match args.files.last() {
        Some(last) if last != Path::new("-") => {
            fs_err::canonicalize(last).context(Kind::Usage, || "finding the recipe")
        }
        _ => Ok(PathBuf::from("-")),
    }
}

/// Becomes root and opens the store; or the exit code of the program run again.
pub(super) fn root() -> Result<Result<Store, i32>> {
    let home = Store::default_home(|name| std::env::var_os(name), userns::is_host_root())?;
    match userns::become_root()? {
        Role::Waited(exit) => Ok(Err(exit.code())),
        Role::Root => {
            Signals::start()?;
            open(&home).map(Ok)
        }
    }
}

/// Becomes root for a verb that needs no store: nothing to do for root, else a user namespace. The exit code of the program
/// run again, if that did the work.
pub(super) fn user_namespace() -> Result<Option<i32>> {
    if !userns::is_host_root()
        && let Role::Waited(exit) = userns::become_root()?
    {
        return Ok(Some(exit.code()));
    }
    Signals::start().map(|()| None)
}

/// The store, for a verb that needs no root.
pub(super) fn store() -> Result<Store> {
    open(&Store::default_home(|name| std::env::var_os(name), userns::is_host_root())?)
}

fn open(home: &Path) -> Result<Store> {
    Store::open(home).map_err(|error| space::told(error, &[home]))
}

/// Reads the recipe.
pub(super) fn load(args: &RecipeArgs, overrides: &[String], ui: &Terminal) -> Result<Loaded> {
    recipe::load(&request(args, overrides, ui)?)
}

/// Where the recipe comes from.
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
        cwd: std::env::current_dir().system(|| "finding the working directory")?,
        colour: ui.colour(),
    })
}

/// The instant that results carry.
pub(super) fn moment() -> Result<SourceDate> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(epoch) => Some(epoch),
        Err(std::env::VarError::NotPresent) => None,
        Err(error) => return Err(Error::usage("SOURCE_DATE_EPOCH is no number").with_source(error)),
    };
    SourceDate::of_build(epoch.as_deref(), now)
}

/// Processors that this process may use.
pub(super) fn cpus() -> u32 {
    u32::try_from(crate::os::process::processors()).unwrap_or(u32::MAX)
}
