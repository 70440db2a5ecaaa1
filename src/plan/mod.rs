//! The plan of a build as a value. A dry run prints the plan that a build would run.

pub mod images;
pub mod misses;
pub mod nodes;
pub mod packages;
pub mod status;
pub mod view;

use std::fmt;

use crate::portage::emerge::{self, Step};
use crate::portage::{BuilderInfo, Resolved};
use crate::recipe::Job;
use crate::source::fetched::Identities;
use crate::store::work::WorkPaths;
use crate::strip::{self, Rule};
use nodes::Node;
use status::Status;
use view::{Caches, View};

/// Everything that a build does to its trees, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The facts about the builder that the configuration and the commands depend on.
    pub info: BuilderInfo,
    /// The mounts of the sandbox.
    pub view: View,
    /// The emerge commands.
    pub steps: Vec<Step>,
    /// All steps, in order.
    pub nodes: Vec<Node>,
    /// The time that scripts get as SOURCE_DATE_EPOCH, in seconds since 1970.
    pub epoch: u64,
    /// The identities of the downloads that steps name.
    pub fetched: Identities,
    /// The removals from the image.
    pub strip: Vec<Rule>,
}

impl Plan {
    /// The plan for a recipe whose repositories and builder are known. `work` are the paths of its work directory.
    pub fn new(job: &Job, resolved: &Resolved, info: BuilderInfo, caches: &Caches, work: &WorkPaths) -> Self {
        let steps = emerge::steps(job, resolved, &info);
        Self {
            view: View::build(job, resolved, caches, work),
            nodes: nodes::nodes(job, &steps, |step| emerge::of_step(job, &info, step)),
            steps,
            epoch: 0,
            fetched: Identities::new(),
            strip: strip::rules(&job.strip, job.build.kind, job.portage.with_kits()),
            info,
        }
    }

    /// Sets the time that scripts get.
    #[must_use]
    pub fn at(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }

    /// Sets the downloads that steps name.
    #[must_use]
    pub fn with(self, fetched: Identities) -> Self {
        Self { fetched, ..self }
    }

    /// Takes the network away if `offline`.
    #[must_use]
    pub fn offline(self, offline: bool) -> Self {
        Self { view: self.view.offline(offline), ..self }
    }
}

/// The result of a dry run: the inputs, the plan as far as it is known, and the results.
#[derive(Debug, Default)]
pub struct DryRun {
    /// The parts of the host that the build sees.
    pub host: Vec<String>,
    /// The locations that are tried first for the stage3.
    pub source: Vec<String>,
    /// The same for repositories.
    pub repositories: Vec<String>,
    /// The downloads of steps.
    pub fetched: Vec<String>,
    /// The mounts of the sandbox, or the reason why they are unknown.
    pub mounts: Known<View>,
    /// The steps and their states, or the reason why they are unknown.
    pub states: Known<Vec<Status>>,
    /// The emerge commands, or the reason why they are unknown.
    pub steps: Known<Vec<Step>>,
    /// The removals from the image.
    pub strip: Vec<Rule>,
    /// The paths of the results.
    pub results: Vec<String>,
    /// Warnings for the user. They are not printed with the rest.
    pub warnings: Vec<String>,
}

/// A part of a plan, or lines that say what is missing to know it.
#[derive(Debug)]
pub enum Known<T> {
    /// The part as a build would use it.
    Yes(T),
    /// Lines about the known parts and the missing ones.
    No(Vec<String>),
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self::No(Vec::new())
    }
}

impl<T> Known<T> {
    fn lines(&self, lines: impl Fn(&T) -> Vec<String>) -> Vec<String> {
        match self {
            Self::Yes(part) => lines(part),
            Self::No(missing) => missing.clone(),
        }
    }
}

impl DryRun {
    /// Takes over all parts of a plan that is known completely.
    pub fn set(&mut self, plan: Plan) {
        self.mounts = Known::Yes(plan.view);
        self.steps = Known::Yes(plan.steps);
        self.strip = plan.strip;
    }

    /// Takes over the known parts of a plan whose builder is not known. `plan_for` makes the plan for a version of Portage.
    pub fn set_without_builder(&mut self, plan_for: impl Fn(Option<[u32; 3]>) -> Plan) {
        // Commands that are the same for the oldest and the newest Portage are known without looking at the builder.
        let (plan, newest) = (plan_for(None), plan_for(Some([u32::MAX; 3])));
        if plan.steps == newest.steps {
            return self.set(plan);
        }
        let mut lines: Vec<String> = plan.steps.iter().map(|step| step.what.clone()).collect();
        lines.push("(the options depend on the Portage of the stage3, which is not in the store yet)".to_owned());
        self.mounts = Known::Yes(plan.view);
        self.steps = Known::No(lines);
        self.strip = plan.strip;
    }
}

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = |view: &View| view.to_string().lines().map(str::to_owned).collect();
        let steps = |steps: &Vec<Step>| steps.iter().map(Step::display).collect();
        let sections = [
            ("host", self.host.clone()),
            ("source", self.source.clone()),
            ("repositories", self.repositories.clone()),
            ("downloads", self.fetched.clone()),
            ("mounts", self.mounts.lines(view)),
            ("steps", self.states.lines(|states| status::lines(states))),
            ("emerge", self.steps.lines(steps)),
            ("strip", self.strip.iter().map(ToString::to_string).collect()),
            ("publish", self.results.clone()),
        ];
        let mut first = true;
        for (title, lines) in sections.iter().filter(|(_, lines)| !lines.is_empty()) {
            if !first {
                writeln!(f)?;
            }
            first = false;
            writeln!(f, "{title}")?;
            lines.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        Ok(())
    }
}
