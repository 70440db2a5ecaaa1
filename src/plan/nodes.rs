//! The steps of a build as nodes: a key for each, made of the state of the trees before it and of its inputs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::digest::Sha256;
use crate::portage::emerge;
use crate::recipe::{Job, Phase, Step, Volume};
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
    /// The volumes that the step names.
    pub fn volumes(&self) -> &[Volume] {
        match &self.action {
            Action::Step(step) => &step.volumes,
            Action::Configure | Action::Emerge(_) => &[],
        }
    }
}

/// The work of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Portage's configuration.
    Configure,
    /// An emerge command.
    Emerge(emerge::Step),
    /// A step of the recipe.
    Step(Box<Step>),
}

/// Name of the step that writes Portage's configuration.
pub const CONFIGURE: &str = "@configure";

/// Returns the steps of a build in order: those of the recipe by their phase, around the program's own, which run `commands`. `of_step`
/// returns the emerge commands of a step of the recipe, if it has any.
pub fn nodes(job: &Job, commands: &[emerge::Step], of_step: impl Fn(&Step) -> Vec<emerge::Step>) -> Vec<Node> {
    let merging = |step: emerge::Step| Node { name: step.name.clone(), action: Action::Emerge(step) };
    let of = |phase: Phase| {
        let steps = job.steps.iter().filter(move |step| step.at == phase);
        steps.flat_map(|step| {
            let commands = of_step(step);
            if commands.is_empty() {
                vec![Node { name: step.name.clone(), action: Action::Step(Box::new(step.clone())) }]
            } else {
                commands.into_iter().map(merging).collect()
            }
        })
    };
    let configure = Node { name: CONFIGURE.to_owned(), action: Action::Configure };
    let commands = commands.iter().cloned().map(merging);
    of(Phase::Start)
        .chain([configure])
        .chain(of(Phase::BeforePackages))
        .chain(commands)
        .chain([Phase::Packages, Phase::BeforeUnmerge, Phase::AfterUnmerge, Phase::End].into_iter().flat_map(of))
        .collect()
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
}
