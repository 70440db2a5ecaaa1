//! `unmerge`, `depclean` and `rebuild` of `[emerge]`: steps of the program's own, after those before packages are unmerged.

use super::Checker;
use crate::recipe::check::unchanged;
use crate::recipe::parse::{Is, Table};
use crate::recipe::{Action, Phase, Step, atom};

impl Checker<'_> {
    /// Adds the steps of the program's own to those of the recipe.
    pub(in crate::recipe::check) fn unmerging(&mut self, steps: &mut Vec<Step>) {
        let table = match self.tree.get("emerge").map(|item| &item.value.is) {
            Some(Is::Table(table)) => table.clone(),
            _ => Table::new(),
        };
        let unmerge = self.words_in(&table, "unmerge", "package", unchanged(atom::package)).unwrap_or_default();
        let unmerge: Vec<String> = unmerge.into_iter().map(|(_, atom)| atom).collect();
        let depclean = super::flag(&table, "depclean");
        let rebuild = self.rebuild(&table, "rebuild").unwrap_or_default();
        let own = [
            ("@unmerge", Action::Unmerge(unmerge.clone()), !unmerge.is_empty()),
            ("@depclean", Action::Depclean, depclean),
            ("@rebuild", Action::Rebuild(rebuild.clone()), !rebuild.is_empty()),
        ];
        let place = steps.partition_point(|step| step.at <= Phase::BeforeUnmerge);
        let own = own.into_iter().filter(|(_, _, wanted)| *wanted);
        let own = own.map(|(name, action, _)| {
            let network = action.has_network();
            Step { network, ..Step::new(name, Phase::BeforeUnmerge, action) }
        });
        steps.splice(place..place, own);
    }
}
