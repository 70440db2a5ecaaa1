//! The order of steps: by phase, then by `before` and `after`, then as written.

use super::{Checker, Word};
use crate::base::text::{nearest, quoted};
use crate::recipe::diagnostic::{Finding, Place};
use crate::recipe::{Phase, Step};

/// A step or a group, with its place among the others.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) name_at: Place,
    /// The place of its own `at`.
    pub(super) at: Option<Place>,
    pub(super) phase: Phase,
    pub(super) skip: bool,
    /// The steps of a group, which run before it.
    pub(super) children: Vec<usize>,
    /// True and the step to run before, or false and the step to run after.
    pub(super) anchor: Option<(bool, Word)>,
    /// `None` for a group without an action.
    pub(super) step: Option<Step>,
}

/// The steps to run immediately before and after each node.
#[derive(Debug, Default, Clone)]
struct Beside {
    before: Vec<usize>,
    after: Vec<usize>,
}

impl Checker<'_> {
    /// Returns the steps in the order in which they run. `top` are the indices of those outside groups, as written.
    pub(super) fn in_order_of_run(&mut self, top: Vec<usize>, mut nodes: Vec<Node>) -> Vec<Step> {
        let mut beside = vec![Beside::default(); nodes.len()];
        let mut targets = vec![None; nodes.len()];
        for index in 0..nodes.len() {
            let Some((before, word)) = nodes[index].anchor.clone() else { continue };
            let Some(target) = self.target(&nodes, index, &word) else { continue };
            targets[index] = Some(target);
            let list = if before { &mut beside[target].before } else { &mut beside[target].after };
            list.push(index);
        }
        let mut order = Vec::new();
        let free: Vec<usize> = top.into_iter().filter(|index| targets[*index].is_none()).collect();
        free.iter().for_each(|index| place(*index, &nodes, &beside, &targets, &mut order));
        for (index, node) in nodes.iter().enumerate() {
            if let Some((before, word)) =
                node.anchor.as_ref().filter(|_| targets[index].is_some() && !order.contains(&index))
            {
                let key = if *before { "before" } else { "after" };
                let finding = Finding::at(&word.at, "steps wait for each other in a circle", format!("this `{key}`"));
                self.texts.find(finding.also(&node.name_at, "of this step"));
            }
        }
        self.follow_phases(&mut nodes, &order, &targets);
        let mut steps: Vec<Step> = Vec::new();
        for index in order {
            let node = &mut nodes[index];
            if let Some(step) = node.step.take().filter(|_| !node.skip) {
                steps.push(Step { at: node.phase, ..step });
            }
        }
        steps.sort_by_key(|step| step.at);
        steps
    }

    /// Finds the step that `word` names: one of the same group, or one by its full name.
    fn target(&mut self, nodes: &[Node], index: usize, word: &Word) -> Option<usize> {
        let own = &nodes[index].name;
        let sibling = own.rsplit_once('/').map(|(group, _)| format!("{group}/{}", word.text));
        let by_name = |name: &str| nodes.iter().position(|node| node.name == name);
        let found = sibling.as_deref().and_then(by_name).or_else(|| by_name(&word.text));
        if found == Some(index) {
            self.texts.find(Finding::at(&word.at, "a step cannot wait for itself", "this is the step itself"));
            return None;
        }
        if found.is_none() {
            let names = nodes.iter().map(|node| node.name.as_str()).filter(|name| name != own);
            let meant = nearest(&word.text, names).map(|meant| format!("did you mean {}?", quoted(meant)));
            let title = format!("no step is named {}", quoted(&word.text));
            self.texts.find(Finding::at(&word.at, title, "not a step").maybe_help(meant));
        }
        found
    }

    /// Gives a step without `at` the phase of the step beside it or of its group, and refuses another phase than that of the step
    /// beside it.
    fn follow_phases(&mut self, nodes: &mut [Node], order: &[usize], targets: &[Option<usize>]) {
        let mut leaders = targets.to_vec();
        for (index, node) in nodes.iter().enumerate() {
            node.children.iter().for_each(|child| leaders[*child] = leaders[*child].or(Some(index)));
        }
        // A chain of leaders is as long as there are steps.
        for _ in 0..order.len() {
            let mut changed = false;
            for index in order.iter().copied() {
                let Some(phase) = leaders[index].map(|leader| nodes[leader].phase) else { continue };
                if nodes[index].at.is_none() && nodes[index].phase != phase {
                    nodes[index].phase = phase;
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        for index in order.iter().copied() {
            let (Some(target), Some(at)) = (targets[index], &nodes[index].at) else { continue };
            if nodes[index].phase != nodes[target].phase {
                let name = quoted(&nodes[target].name);
                let title =
                    format!("`at` contradicts the place beside {name}, which runs at `{}`", nodes[target].phase.name());
                let finding = Finding::at(at, title, "remove this");
                let finding = match &nodes[index].anchor {
                    Some((_, word)) => finding.also(&word.at, "because of this"),
                    None => finding,
                };
                self.texts.find(finding);
            }
        }
    }
}

/// Appends a node, the steps of its group and those beside it.
fn place(index: usize, nodes: &[Node], beside: &[Beside], targets: &[Option<usize>], order: &mut Vec<usize>) {
    let mut next = |index: usize| place(index, nodes, beside, targets, order);
    beside[index].before.iter().copied().for_each(&mut next);
    nodes[index].children.iter().copied().filter(|child| targets[*child].is_none()).for_each(&mut next);
    order.push(index);
    beside[index].after.iter().copied().for_each(|index| place(index, nodes, beside, targets, order));
}
