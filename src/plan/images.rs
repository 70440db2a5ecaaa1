//! The images of a tree and their states, known without a build.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::status::{Status, StepState};
use crate::base::text::counted;
use crate::recipe::{Job, TreeKind};

/// An image of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Its name in the tree, in the form `hello/p/c`.
    pub path: String,
    /// The file of its recipe.
    pub recipe: PathBuf,
    /// The name of the image that it starts from.
    pub from: Option<String>,
    /// The kind of the image.
    pub kind: TreeKind,
    /// True if a build writes results.
    pub publish: bool,
    /// The state: `current` if no step would run, `stale` otherwise.
    pub state: &'static str,
    /// The reason for the state.
    pub why: String,
    /// The steps with their states.
    pub steps: Vec<(String, String)>,
}

impl Image {
    /// Judges an image by the states of its steps, or the reason why they are not known.
    pub fn new(job: &Job, recipe: PathBuf, seen: std::result::Result<Vec<Status>, String>) -> Self {
        let (steps, why) = match seen {
            Err(why) => (Vec::new(), Some(why)),
            Ok(steps) => {
                let waits = |step: &&Status| matches!(step.state, StepState::Run(_) | StepState::Unknown(_));
                let why = steps.iter().find(waits).map(|step| format!("{} {}", step.name, step.state));
                (steps, why)
            }
        };
        let cached = steps.iter().filter(|step| matches!(step.state, StepState::Cached(_))).count();
        Self {
            path: job.path.clone(),
            recipe,
            from: job.from.as_ref().map(|parent| parent.job.path.clone()),
            kind: job.build.kind,
            publish: job.publish,
            state: if why.is_some() { "stale" } else { "current" },
            why: why.unwrap_or_else(|| match cached {
                0 => "no step".to_owned(),
                cached => counted(cached, "cached step"),
            }),
            steps: steps.into_iter().map(|step| (step.name, step.state.to_string())).collect(),
        }
    }
}

/// The images of a tree, each after the one that it starts from.
#[derive(Debug, Serialize)]
pub struct Images {
    pub version: u32,
    pub images: Vec<Image>,
}

impl fmt::Display for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_path: BTreeMap<&str, &Image> = self.images.iter().map(|image| (image.path.as_str(), image)).collect();
        let name = |image: &Image| {
            let depth = std::iter::successors(image.from.as_deref(), |from| by_path.get(from)?.from.as_deref());
            let above = image.from.as_deref().and_then(|from| image.path.strip_prefix(from)?.strip_prefix('/'));
            format!("{:1$}{2}", "", 2 * depth.count(), above.unwrap_or(&image.path))
        };
        let names: Vec<String> = self.images.iter().map(name).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
        for (name, image) in names.iter().zip(&self.images) {
            let published = if image.publish { "" } else { ", not published" };
            writeln!(f, "{name:width$}  {:7}  {}{published}", image.state, image.why)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plan::status::Why;
    use crate::recipe::OtherImage;
    use crate::recipe::fixture;

    #[test]
    fn images_are_shown_below_those_that_they_start_from() {
        let parent = Job { path: "t/p".to_owned(), publish: false, ..fixture::job() };
        let from = Some(Box::new(OtherImage { job: Arc::new(parent.clone()), origin: PathBuf::new() }));
        let child = Job { path: "t/p/c".to_owned(), from, ..fixture::job() };
        let steps = |state| Ok(vec![Status::bare("one", state)]);
        let first = Image::new(&parent, PathBuf::new(), steps(StepState::Cached(0)));
        let second = Image::new(&child, PathBuf::new(), steps(StepState::Run(Why::New)));
        let third = Image::new(&child, PathBuf::new(), Err("unknown".to_owned()));
        let images = Images { version: 1, images: vec![first, second, third] };
        assert_eq!(
            images.to_string(),
            "t/p  current  1 cached step, not published\n  c  stale    one run: new\n  c  stale    unknown\n"
        );
    }
}
