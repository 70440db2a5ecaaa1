//! A look at the steps of a build: their keys and layers, without running anything.

use super::base::Base;
use super::chain::Chain;
pub use super::configure::Configurations;
use super::configure::{identity, own_inputs, plain_key, portage_inputs};
use super::layer::{ALL_STEPS, inputs, refusal};
use super::reason::Reasons;
use super::{StepOptions, second};
use crate::base::digest::Sha256;
use crate::base::error::Result;
use crate::plan::Plan;
use crate::plan::nodes::{self, Action, Inputs, Node};
use crate::plan::status::{Status, StepState, Why};
use crate::portage::Resolved;
use crate::recipe::Job;
use crate::source::Site;
use crate::source::binhost::BinhostInput;
use crate::source::inputs::RepositoryInput;
use crate::store::layers::MAX_CHAIN;
use crate::store::work::WorkPaths;

/// The parts of a look.
#[derive(Debug, Clone, Copy)]
pub struct LookParts<'a> {
    pub job: &'a Job,
    pub resolved: &'a Resolved,
    pub repositories: &'a [RepositoryInput],
    pub binhosts: &'a [BinhostInput],
    pub base: &'a Base,
    pub plan: &'a Plan,
    /// The work directory of the recipe, with the record of the last build.
    pub work: &'a WorkPaths,
    /// The directory for the mounts. It exists, and this process holds its lock.
    pub scratch: &'a WorkPaths,
    pub options: &'a StepOptions,
}

/// The trees as far as they are known.
struct Look<'a> {
    parts: LookParts<'a>,
    configurations: &'a mut Configurations,
    chain: Chain,
    reasons: Reasons,
    /// The inputs of every emerge command, once they are known.
    portage: Inputs,
    /// The event that has to happen before the state of the trees is known.
    until: Option<String>,
    /// The event that gives a secret a value, if the state of a step depends on one that has none.
    lacks: Option<String>,
    /// True from the step on that runs again.
    again: bool,
    /// True if the chain has the layers of all steps so far.
    whole: bool,
}

/// The steps of a build, and their result.
#[derive(Debug)]
pub struct Seen {
    pub steps: Vec<Status>,
    /// The layers of all steps, if the store has them.
    pub chain: Option<Chain>,
    /// The secret without a value on which the state of the steps depends, as the event that makes it known.
    pub lacks: Option<String>,
}

/// Returns the steps of a build on the layers `below` and their states. Nothing runs, and nothing is kept.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses a mount, and those of the inputs and the configuration.
pub fn look(parts: LookParts<'_>, configurations: &mut Configurations, below: Chain, at: &Site<'_>) -> Result<Seen> {
    let reasons = Reasons::read(parts.work, &super::below_word(parts.job, parts.base));
    let mut look = Look {
        parts,
        configurations,
        chain: below,
        reasons,
        portage: Inputs::new(),
        until: None,
        lacks: None,
        again: false,
        whole: true,
    };
    let mut steps = Vec::new();
    for node in &parts.plan.nodes {
        steps.push(look.at(node, at)?);
        if parts.options.until.as_ref() == Some(&node.name) {
            break;
        }
    }
    steps.extend(parts.job.skipped.iter().map(|name| Status::bare(name, StepState::Skipped)));
    let whole = look.whole && look.until.is_none();
    Ok(Seen { steps, chain: whole.then_some(look.chain), lacks: look.lacks })
}

impl Look<'_> {
    /// Looks at the next step.
    fn at(&mut self, node: &Node, at: &Site<'_>) -> Result<Status> {
        if node.action == Action::Configure {
            if self.until.is_none() {
                let identity = self.configuration(at)?;
                let LookParts { resolved, repositories, binhosts, .. } = self.parts;
                self.portage = portage_inputs(resolved, repositories, binhosts, &identity);
                self.reasons.see(&node.name, self.chain.state(), &own_inputs(&identity));
                match at.store.layer(&second::known_key(plain_key(&self.chain, &identity), at.store)?)? {
                    Some(layer) => self.chain.push(&node.name, layer),
                    None => {
                        self.whole = false;
                        self.chain.assume(&identity);
                    }
                }
            }
            return Ok(Status::bare(&node.name, StepState::Always));
        }
        let inputs = inputs(node, &self.portage, self.parts.plan, &self.chain, at.store)?;
        self.again |= self.parts.options.again.as_ref().is_some_and(|again| *again == node.name || again == ALL_STEPS);
        if matches!(node.action, Action::Emerge(..)) && self.until.is_none() && !at.options.offline {
            let unasked = self.parts.binhosts.iter().find(|host| host.index.is_none());
            self.until = unasked.map(|host| format!("{} is asked for its packages", host.spec.url));
        }
        let lacks = node.absent_secret().map(|name| format!("the secret {name} has a value"));
        if self.until.is_none() && lacks.is_some() {
            (self.until, self.lacks) = (lacks.clone(), lacks.clone());
        }
        let mut status = match &self.until {
            Some(event) => Status::bare(&node.name, StepState::Unknown(event.clone())),
            None => self.known(node, &inputs, at)?,
        };
        if self.again {
            status.state = StepState::Run(Why::Again);
        }
        if matches!(status.state, StepState::Run(_)) {
            self.until.get_or_insert_with(|| format!("{} has run", node.name));
        }
        // Without the configuration, an emerge command would seem to lack inputs; the state of a volume may not be known.
        let configured = matches!(node.action, Action::Step(_)) || !self.portage.is_empty();
        if configured && lacks.is_none() && (self.until.is_none() || node.volumes().is_empty()) {
            status.difference = self.reasons.difference(&node.name, &inputs);
        }
        Ok(Status { inputs, ..status })
    }

    /// Looks for the layer of a step on trees whose state is known.
    fn known(&mut self, node: &Node, inputs: &Inputs, at: &Site<'_>) -> Result<Status> {
        let key = nodes::key(self.chain.state(), inputs);
        let why = self.reasons.see(&node.name, self.chain.state(), inputs);
        let layer = at.store.layer(&second::known_key(key, at.store)?)?;
        let record = layer.as_ref().map(|layer| layer.record().clone());
        let refused = record.as_ref().and_then(|record| refusal(self.parts.job, node, record, at.store));
        let state = match (layer, &record, refused) {
            (Some(layer), Some(record), None) => {
                let made = record.started;
                self.chain.push(&node.name, layer);
                // The configuration needs the trees after the first steps; later ones are not mounted.
                if self.portage.is_empty() {
                    self.chain.shorten(MAX_CHAIN, at.store)?;
                }
                StepState::Cached(made)
            }
            (Some(_), _, refused) => StepState::Run(refused.unwrap_or(Why::Refused)),
            (None, ..) => StepState::Run(why),
        };
        Ok(Status { key: Some(key), layer: record, ..Status::bare(&node.name, state) })
    }

    /// Returns the digest of Portage's configuration. The trees are mounted for it, and the changes thrown away.
    fn configuration(&mut self, at: &Site<'_>) -> Result<Sha256> {
        let LookParts { job, resolved, base, plan, scratch, .. } = self.parts;
        let below = self.chain.unconfigured(at.store)?;
        let chain = below.as_ref().unwrap_or(&self.chain);
        let before = self.configurations.before(chain, (job, base), (scratch, &plan.view))?;
        identity(job, &before.identity(job, resolved, &plan.info)?)
    }
}
