//! `unmerge`, `depclean` and `rebuild` of `[emerge]`: steps of the program's own, after those before packages are unmerged.

use super::Checker;
use crate::recipe::check::unchanged;
use crate::recipe::check::uses::Uses;
use crate::recipe::parse::{Is, Table};
use crate::recipe::{Action, Daemon, Phase, Step, atom};

impl Checker<'_> {
    /// Adds the steps of the program's own to those of the recipe. `daemons` run beside those that merge packages.
    pub(in crate::recipe::check) fn unmerging(&mut self, steps: &mut Vec<Step>, daemons: &[Daemon]) {
        let table = self.emerge_table();
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
            let daemons = if matches!(action, Action::Rebuild(_)) { daemons.to_vec() } else { Vec::new() };
            Step { network, daemons, ..Step::new(name, Phase::BeforeUnmerge, action) }
        });
        steps.splice(place..place, own);
    }

    /// Returns the daemons beside the commands of emerge that are not steps of the recipe.
    pub(in crate::recipe::check) fn daemons_of_emerge(&mut self, uses: &Uses) -> Vec<Daemon> {
        let table = self.emerge_table();
        self.daemons(&table, uses).into_iter().map(|(_, daemon)| daemon).collect()
    }

    /// Returns the table `[emerge]`, empty if there is none.
    fn emerge_table(&self) -> Table {
        match self.tree.get("emerge").map(|item| &item.value.is) {
            Some(Is::Table(table)) => table.clone(),
            _ => Table::new(),
        }
    }
}
