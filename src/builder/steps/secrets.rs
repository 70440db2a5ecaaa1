//! The secrets of steps: the search for their values in what steps leave.

use crate::archive::leak::{self, Scan};
use crate::recipe::Step;

/// Returns the names and the values of the secrets of a step.
pub(super) fn of(step: &Step) -> impl Iterator<Item = leak::Secret<'_>> {
    step.secrets.iter().map(|secret| (secret.name.as_str(), secret.value.expose()))
}

/// Returns the search for the secrets of `steps` that have at least `shortest` bytes, apart from those that one of the steps `done` may
/// leave in the tree. `None` if there are none.
pub(in crate::builder) fn scan<'a>(
    steps: &[&'a Step],
    done: impl Iterator<Item = &'a Step>,
    shortest: usize,
) -> Option<Scan> {
    let allowed: Vec<&str> = done.filter(|step| step.leak_allowed).flat_map(of).map(|(name, _)| name).collect();
    Scan::new(steps.iter().copied().flat_map(of).filter(|(name, _)| !allowed.contains(name)), shortest)
}
