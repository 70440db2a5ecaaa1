//! Services of OpenRC: links in the directories of the runlevels, as rc-update(8) makes them.

use super::services::remove;
use super::{Change, Outcome, Tree, exists, unknown};
use crate::base::error::Result;
use crate::recipe::{Switch, System};

/// The runlevel of services that start by default.
const DEFAULT: &str = "default";

/// Appends the changes of the runlevels.
///
/// # Errors
/// [`Kind::Build`](crate::base::error::Kind::Build) if a service is unknown, with those that the tree has.
pub(super) fn changes(system: &System, tree: &dyn Tree, outcome: &mut Outcome) -> Result<()> {
    let by_default = (!system.services.is_empty()).then_some((DEFAULT, &system.services));
    let runlevels = system.runlevels.iter().map(|(name, switches)| (name.as_str(), switches));
    for (level, switches) in by_default.into_iter().chain(runlevels) {
        for switch in switches {
            one(level, switch, tree, outcome)?;
        }
    }
    Ok(())
}

fn one(level: &str, Switch { name, on }: &Switch, tree: &dyn Tree, outcome: &mut Outcome) -> Result<()> {
    let (script, link) = (format!("/etc/init.d/{name}"), format!("/etc/runlevels/{level}/{name}"));
    if !on {
        let removed = remove(link, tree, &mut outcome.changes)?;
        if !removed && !exists(tree, &script)? {
            outcome.warnings.push(format!("the tree has no service {name} to take from the runlevel {level}"));
        }
        return Ok(());
    }
    if !exists(tree, &script)? {
        let scripts = tree.list("/etc/init.d")?.unwrap_or_default();
        // Functions of other scripts.
        let services = scripts.iter().map(String::as_str).filter(|name| !name.ends_with(".sh"));
        return Err(unknown("service", name, services));
    }
    if !exists(tree, &link)? {
        outcome.changes.push(Change::link(link, script));
    }
    Ok(())
}
