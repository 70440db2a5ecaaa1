//! Several images of a tree: the order, failures, and the table at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::RecipeArgs;
use super::session::{self, Session};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Progress;
use crate::pipeline::Finished;
use crate::recipe::{self, Job, OtherImage, lineage};
use crate::ui::Terminal;

/// The last component of a path that means all images in and below a directory.
const ALL: &str = "...";

/// The outcome for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Built,
    /// All steps were in the store.
    Cached,
    Failed,
    /// An image that it starts from or needs failed.
    Skipped,
}

impl State {
    /// The word in the table at the end.
    pub(super) fn word(self) -> &'static str {
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
/// [`Kind::Usage`] if there are none.
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
/// [`Kind::Usage`] if there are none.
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
/// [`Kind::Usage`] with the two files.
pub(super) fn check_names(images: &[(Arc<Job>, PathBuf)]) -> Result<()> {
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

/// The images that are done, in the order in which they ended.
#[derive(Debug, Default)]
pub(super) struct Done {
    images: Vec<(String, PathBuf, State)>,
    /// The exit code of the first failure, or 0.
    code: i32,
}

impl Done {
    /// Adds an image.
    pub(super) fn add(&mut self, (path, origin): (String, PathBuf), state: State) {
        self.images.push((path, origin, state));
    }

    /// Adds an image that failed, with the exit code that it alone would have.
    pub(super) fn fail(&mut self, image: (String, PathBuf), code: i32) {
        self.code = if self.code == 0 { code } else { self.code };
        self.add(image, State::Failed);
    }

    /// Returns true if an image that the one of `job` starts from or needs was not built.
    pub(super) fn stops(&self, job: &Job) -> bool {
        let others = others(job);
        let failed = |state: &State| matches!(state, State::Failed | State::Skipped);
        self.images.iter().any(|(_, origin, state)| failed(state) && others.contains(origin.as_path()))
    }

    /// Shows the table, and returns the exit code.
    pub(super) fn end(self, ui: &Terminal) -> i32 {
        table(&self.images).iter().for_each(|line| ui.note(line));
        self.code
    }
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
    let mut done = Done::default();
    for session in sorted(sessions) {
        let image = (session.job.path.clone(), session.origin.clone());
        if done.stops(&session.job) {
            done.add(image, State::Skipped);
            continue;
        }
        match session::run(session, &build) {
            Ok(Finished { cached: true, .. }) => done.add(image, State::Cached),
            Ok(_) => done.add(image, State::Built),
            Err(error) if matches!(error.kind(), Kind::Killed(_)) => return Err(error),
            Err(error) => {
                ui.error(&error);
                done.fail(image, error.exit_code());
            }
        }
    }
    Ok(done.end(ui))
}

/// Returns one line for each image.
fn table(done: &[(String, PathBuf, State)]) -> Vec<String> {
    let width = done.iter().map(|(path, ..)| path.chars().count()).max().unwrap_or_default();
    done.iter().map(|(path, _, state)| format!("{path:width$}  {}", state.word())).collect()
}

/// The recipes of the images that the one of `job` starts from or needs, and of those that these start from or need.
pub(super) fn others(job: &Job) -> BTreeSet<&Path> {
    let mut all = BTreeSet::new();
    let mut open: Vec<&OtherImage> = job.others().collect();
    while let Some(other) = open.pop() {
        if all.insert(other.origin.as_path()) {
            open.extend(other.job.others());
        }
    }
    all
}

/// Returns the session `session` after sessions for the images that it needs, and that the images below it need.
pub(super) fn with_needed(session: &Session) -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    let mut open = vec![&session.job];
    while let Some(job) = open.pop() {
        open.extend(job.others().map(|other| &other.job));
        for other in &job.needs {
            if !sessions.iter().any(|session| session.origin == other.origin) {
                let (job, origin) = (Arc::clone(&other.job), other.origin.clone());
                sessions.push(Session { job, origin, store: session.store.clone() });
            }
        }
    }
    sessions.push(session.clone());
    sorted(sessions)
}

/// Sorts images so that each one comes after those that it starts from or needs. Otherwise, the order stays.
pub(super) fn sorted(sessions: Vec<Session>) -> Vec<Session> {
    let places: BTreeMap<&Path, usize> =
        sessions.iter().enumerate().map(|(place, session)| (session.origin.as_path(), place)).collect();
    // The number of images that each one waits for, and those that wait for it.
    let (mut waits, mut waiting) = (vec![0_usize; sessions.len()], vec![Vec::new(); sessions.len()]);
    for (place, session) in sessions.iter().enumerate() {
        for other in others(&session.job).into_iter().filter_map(|other| places.get(other)) {
            waits[place] += 1;
            waiting[*other].push(place);
        }
    }
    let mut ready: BTreeSet<usize> = (0..sessions.len()).filter(|place| waits[*place] == 0).collect();
    let mut order = Vec::new();
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for place in &waiting[next] {
            waits[*place] -= 1;
            if waits[*place] == 0 {
                ready.insert(*place);
            }
        }
    }
    // Images cannot wait for each other in a cycle, so each one is in the order.
    let mut sessions: Vec<Option<Session>> = sessions.into_iter().map(Some).collect();
    order.into_iter().filter_map(|place| sessions[place].take()).collect()
}
