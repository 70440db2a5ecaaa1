//! The steps of a build as nodes: a key for each, made of the state of the trees before it and of its inputs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::digest::Sha256;
use crate::portage::emerge;
use crate::recipe::{self, Job, Phase, Step, Volume};
use crate::store::layers::COMMAND;

/// Version of the keys. A change of what they are made of needs a new one.
const FORMAT: u32 = 1;

/// Version of what a step may rely on in its sandbox. A change that a script can notice needs a new one.
const CONTRACT: u32 = 1;

/// Everything that the result of a step depends on besides the trees, by name. No value names a place or a time of this machine.
pub type Inputs = BTreeMap<String, String>;

/// A step of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name. The names of the program's own steps begin with `@`.
    pub name: String,
    pub action: Action,
}

impl Node {
    /// The parameters of the step: its mounts, its daemons.
    pub fn step(&self) -> Option<&Step> {
        match &self.action {
            Action::Step(step) => Some(step),
            Action::Emerge(_, step) => step.as_deref(),
            Action::Configure => None,
        }
    }

    /// Returns the name of the first secret without a value on which the result depends.
    pub fn absent_secret(&self) -> Option<&str> {
        let mut secrets = self.step()?.secrets.iter();
        secrets.find(|secret| secret.rebuild && secret.value.is_absent()).map(|secret| secret.name.as_str())
    }

    /// The volumes that the step names.
    pub fn volumes(&self) -> &[Volume] {
        self.step().map_or(&[], |step| &step.volumes)
    }
}

/// The work of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Portage's configuration.
    Configure,
    /// An emerge command, with the step of the recipe that it belongs to. A command of the program's own has one if daemons run beside it.
    Emerge(emerge::Step, Option<Box<Step>>),
    /// A step of the recipe.
    Step(Box<Step>),
}

/// Name of the step that writes Portage's configuration.
pub const CONFIGURE: &str = "@configure";

/// Returns the steps of a build in order: those of the recipe by their phase, around the program's own, which run `commands`. `of_step`
/// returns the emerge commands of a step of the recipe, if it has any.
pub fn nodes(job: &Job, commands: &[emerge::Step], of_step: impl Fn(&Step) -> Vec<emerge::Step>) -> Vec<Node> {
    let merging = |command: emerge::Step, step: Option<Step>| Node {
        name: command.name.clone(),
        action: Action::Emerge(command, step.map(Box::new)),
    };
    let of = |phase: Phase| {
        let steps = job.steps.iter().filter(move |step| step.at == phase);
        steps.flat_map(|step| {
            let commands = of_step(step);
            if commands.is_empty() {
                vec![Node { name: step.name.clone(), action: Action::Step(Box::new(step.clone())) }]
            } else {
                commands.into_iter().map(|command| merging(command, Some(step.clone()))).collect()
            }
        })
    };
    let configure = Node { name: CONFIGURE.to_owned(), action: Action::Configure };
    let commands = commands.iter().map(|command| merging(command.clone(), of_program(job, command)));
    of(Phase::Start)
        .chain([configure])
        .chain(of(Phase::BeforePackages))
        .chain(commands)
        .chain([Phase::Packages, Phase::BeforeUnmerge, Phase::AfterUnmerge, Phase::End].into_iter().flat_map(of))
        .collect()
}

/// Returns the step for a command of the program's own, if daemons run beside it.
fn of_program(job: &Job, command: &emerge::Step) -> Option<Step> {
    let action = recipe::Action::Emerge(command.atoms.clone());
    let step = Step::new(&command.name, Phase::Packages, action);
    let daemons = job.emerge.daemons.clone();
    (!daemons.is_empty()).then_some(Step { network: true, daemons, ..step })
}

/// Returns the key of a step whose trees are in the state `parent`.
pub fn key(parent: &Sha256, inputs: &Inputs) -> Sha256 {
    #[derive(Serialize)]
    struct Key<'a> {
        format: u32,
        contract: u32,
        parent: String,
        inputs: &'a Inputs,
    }
    let key = Key { format: FORMAT, contract: CONTRACT, parent: parent.hex(), inputs };
    // A map of strings is always valid JSON.
    Sha256::of(&serde_json::to_vec(&key).unwrap_or_default())
}

/// Returns the inputs of an emerge command that its arguments give.
pub fn of_command(step: &emerge::Step) -> Inputs {
    let mut inputs = Inputs::from([(COMMAND.to_owned(), emerge::essential(&step.argv).join(" "))]);
    inputs.extend(step.env.iter().map(|(name, value)| (format!("variable {name}"), value.clone())));
    inputs.extend(step.profile.as_ref().map(|profile| ("profile".to_owned(), format!("{profile:?}"))));
    inputs
}

/// Names the inputs in which `new` differs from `old`, as a phrase: `script, args`.
pub fn difference(old: &Inputs, new: &Inputs) -> String {
    let changed = new.iter().filter(|(name, value)| old.get(*name) != Some(value)).map(|(name, _)| name);
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let mut names: Vec<&str> = changed.chain(gone).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Daemon, fixture};

    fn inputs(pairs: &[(&str, &str)]) -> Inputs {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_key_depends_on_the_state_before_and_on_every_input() {
        let (one, other) = (Sha256::of(b"1"), Sha256::of(b"2"));
        let base = key(&one, &inputs(&[("script", "a"), ("args", "b")]));
        assert_eq!(base, key(&one, &inputs(&[("args", "b"), ("script", "a")])));
        assert_ne!(base, key(&other, &inputs(&[("script", "a"), ("args", "b")])));
        assert_ne!(base, key(&one, &inputs(&[("script", "a"), ("args", "c")])));
        assert_ne!(base, key(&one, &inputs(&[("script", "a")])));
    }

    #[test]
    fn a_difference_names_the_inputs() {
        let old = inputs(&[("script", "a"), ("args", "b"), ("epoch", "1")]);
        assert_eq!(difference(&old, &inputs(&[("script", "x"), ("epoch", "1"), ("user", "u")])), "args, script, user");
        assert_eq!(difference(&old, &old), "");
    }

    #[test]
    fn daemons_are_beside_the_commands_of_the_program() {
        let mut job = fixture::job();
        let command = emerge::Step {
            name: "@packages".to_owned(),
            what: "merging a/b".to_owned(),
            argv: vec!["emerge".to_owned(), "a/b".to_owned()],
            atoms: vec!["a/b".to_owned()],
            env: BTreeMap::new(),
            root: emerge::Root::Target,
            profile: None,
        };
        let own = |job: &Job| nodes(job, std::slice::from_ref(&command), |_| Vec::new())[1].step().cloned();
        assert_eq!(own(&job), None);
        let run = vec!["d".to_owned()];
        job.emerge.daemons.push(Daemon { name: "d".to_owned(), run, ready: None, timeout: 30, network: true });
        let step = own(&job).unwrap();
        assert_eq!((step.name.as_str(), step.daemons, step.network), ("@packages", job.emerge.daemons, true));
    }
}
