//! The services of the init system that the tree has.

use super::{Change, Node, Outcome, Tree, exists, openrc, systemd};
use crate::base::error::{Error, Result};
use crate::recipe::{Init, System};

/// Returns the init system of a tree: the one that the recipe names, the one that `/sbin/init` leads to, or the only one there is.
///
/// # Errors
/// Those of the tree.
pub(super) fn init(named: Option<Init>, tree: &dyn Tree) -> Result<Option<Init>> {
    if named.is_some() {
        return Ok(named);
    }
    let any = |paths: &[&str]| -> Result<bool> {
        for path in paths {
            if exists(tree, path)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let systemd = any(&["/usr/lib/systemd/systemd", "/lib/systemd/systemd"])?;
    let open_rc = any(&["/sbin/openrc-init", "/sbin/openrc", "/usr/bin/openrc-init", "/usr/bin/openrc"])?;
    Ok(match (open_rc, systemd) {
        (true, true) => {
            let leads = |path| -> Result<bool> {
                Ok(matches!(tree.look(path)?, Some(Node::Link(target)) if target.contains("systemd")))
            };
            let systemd = leads("/sbin/init")? || leads("/usr/bin/init")?;
            Some(if systemd { Init::Systemd } else { Init::OpenRc })
        }
        (true, false) => Some(Init::OpenRc),
        (false, true) => Some(Init::Systemd),
        // Packages leave scripts of OpenRC in trees without an init system.
        (false, false) => tree.list("/etc/init.d")?.map(|_| Init::OpenRc),
    })
}

/// Appends the changes that add services and take them away.
///
/// # Errors
/// [`Kind::Build`](crate::base::error::Kind::Build) if the tree does not have a service, with those that it has.
pub(super) fn changes(system: &System, init: Option<Init>, tree: &dyn Tree, outcome: &mut Outcome) -> Result<()> {
    if system.services.is_empty() && system.runlevels.is_empty() && system.units.is_empty() {
        return Ok(());
    }
    let other = |key: &str, of: &str| {
        let error = Error::build(format!("setting system.{key}: the init system of the tree is {of}"));
        Err(error.with_hint("system.init names another one, if the tree has both"))
    };
    match init {
        Some(Init::OpenRc) if !system.units.is_empty() => other("units", "OpenRC"),
        Some(Init::OpenRc) => openrc::changes(system, tree, outcome),
        Some(Init::Systemd) if !system.runlevels.is_empty() => other("runlevels", "systemd"),
        Some(Init::Systemd) => systemd::changes(system, tree, outcome),
        None => {
            let error = Error::build("setting services: the tree has neither OpenRC nor systemd");
            Err(error.with_hint("merge an init system first; system.init names one that is not found"))
        }
    }
}

/// Appends the removal of a file, if the tree has it. Returns true if it has.
pub(super) fn remove(path: String, tree: &dyn Tree, changes: &mut Vec<Change>) -> Result<bool> {
    let there = exists(tree, &path)?;
    if there {
        changes.push(Change::Remove(path));
    }
    Ok(there)
}
