//! Several images of a tree: the order, failures, and the table at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::RecipeArgs;
use super::session::{self, Session};
use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::pipeline::Finished;
use crate::recipe::{self, Job, lineage};
use crate::ui::Terminal;

/// The last component of a path that means all images in and below a directory.
const ALL: &str = "...";

/// The outcome for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Built,
    /// All steps were in the store.
    Cached,
    Failed,
    /// An image that it starts from failed.
    Skipped,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Built => "built",
            Self::Cached => "cached",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// Lists the recipes that `DIR/...` stands for, parents first. `None` for any other argument.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if there are none.
pub(super) fn of(args: &RecipeArgs, ui: &Terminal) -> Result<Option<Vec<PathBuf>>> {
    let [file] = args.files.as_slice() else { return Ok(None) };
    if file.file_name().is_none_or(|name| name != ALL) {
        return Ok(None);
    }
    below(file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")), ui).map(Some)
}

/// Lists the recipes of the images in and below a directory.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if there are none.
pub(super) fn below(directory: &Path, ui: &Terminal) -> Result<Vec<PathBuf>> {
    let images = recipe::images(directory, ui.colour())?;
    if images.is_empty() {
        return Err(Error::usage(format!("no image is in {} or below it", directory.display()))
            .with_hint(format!("the recipe of an image in a tree is a file {}", lineage::IMAGE)));
    }
    Ok(images)
}

/// Refuses two images of one name: their results would replace each other.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) with the two files.
pub(super) fn check_names(images: &[(Job, PathBuf)]) -> Result<()> {
    let mut names: BTreeMap<&str, &Path> = BTreeMap::new();
    for (job, origin) in images {
        if let Some(first) = names.insert(&job.path, origin) {
            let places = format!("{} and {}", first.display(), origin.display());
            return Err(Error::usage(format!("two images have the name {}: {places}", job.path))
                .with_hint("leave `name` out of one of the recipes: an image has the name of its directory"));
        }
    }
    Ok(())
}

/// Builds images, parents before the images that start from them. A failure stops only the images that need the failed one. Returns the
/// exit code: that of the first failure.
///
/// # Errors
/// None of an image: they are shown when they occur.
pub(super) fn build(
    sessions: Vec<Session>,
    ui: &Terminal,
    build: impl Fn(&Session) -> Result<Finished>,
) -> Result<i32> {
    let mut done: Vec<(String, PathBuf, State)> = Vec::new();
    let mut code = 0;
    for session in sorted(sessions) {
        let failed = |origin: &Path| {
            done.iter().any(|(_, other, state)| other == origin && matches!(state, State::Failed | State::Skipped))
        };
        let (path, origin) = (session.job.path.clone(), session.origin.clone());
        let state = if ancestors(&session.job).any(failed) {
            State::Skipped
        } else {
            match session::run(session, &build) {
                Ok(Finished { cached: true, .. }) => State::Cached,
                Ok(_) => State::Built,
                Err(error) if matches!(error.kind(), crate::base::error::Kind::Killed(_)) => return Err(error),
                Err(error) => {
                    ui.error(&error);
                    code = if code == 0 { error.exit_code() } else { code };
                    State::Failed
                }
            }
        };
        done.push((path, origin, state));
    }
    table(&done).iter().for_each(|line| ui.note(line));
    Ok(code)
}

/// Returns one line for each image.
fn table(done: &[(String, PathBuf, State)]) -> Vec<String> {
    let width = done.iter().map(|(path, ..)| path.chars().count()).max().unwrap_or_default();
    done.iter().map(|(path, _, state)| format!("{path:width$}  {}", state.word())).collect()
}

/// The recipes that the image of `job` starts from, the nearest first.
fn ancestors(job: &Job) -> impl Iterator<Item = &Path> {
    std::iter::successors(job.from.as_deref(), |parent| parent.job.from.as_deref())
        .map(|parent| parent.origin.as_path())
}

/// Sorts images so that each one comes after those that it starts from. Otherwise, the order stays.
pub(super) fn sorted(mut sessions: Vec<Session>) -> Vec<Session> {
    let mut sorted: Vec<Session> = Vec::new();
    while !sessions.is_empty() {
        let waits =
            |session: &Session| ancestors(&session.job).any(|path| sessions.iter().any(|one| one.origin == path));
        // Images cannot start from each other in a cycle, so one of them is ready.
        let next = sessions.iter().position(|session| !waits(session)).unwrap_or_default();
        sorted.push(sessions.remove(next));
    }
    sorted
}
