//! Units of systemd: links below `/etc/systemd/system`, as `systemctl --root` makes them.

mod unit;

use std::collections::BTreeSet;

use super::{Change, Node, Outcome, Tree, unknown};
use crate::base::error::{Error, Result};
use crate::base::text::quoted;
use crate::recipe::System;
use unit::{Install, Name, Unit};

/// The directory of links.
const CONFIG: &str = "/etc/systemd/system";
/// The directories of units, the first ones win.
const PLACES: [&str; 4] = [CONFIG, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// The target of masked units.
const NULL: &str = "/dev/null";
/// The limit on units that are enabled because of another one.
const MAX_ALSO: usize = 256;

/// Appends the changes of the units: those to disable first, then those to enable and to mask.
///
/// # Errors
/// [`Kind::Build`](crate::base::error::Kind::Build) if a unit is unknown or cannot be enabled.
pub(super) fn changes(system: &System, tree: &dyn Tree, outcome: &mut Outcome) -> Result<()> {
    let units = &system.units;
    let of = |on: bool| system.services.iter().filter(move |switch| switch.on == on).map(|switch| full(&switch.name));
    let disable: Vec<String> = of(false).chain(units.disable.iter().cloned()).collect();
    let enable: Vec<String> = of(true).chain(units.enable.iter().cloned()).collect();
    let mut links = Links::default();
    for name in &disable {
        links.disable(name, tree, outcome)?;
    }
    for name in &enable {
        links.enable(name, tree, outcome)?;
    }
    for name in &units.mask {
        let path = format!("{CONFIG}/{name}");
        match tree.look(&path)? {
            Some(Node::Link(target)) if target == NULL => continue,
            Some(Node::Link(_)) | None => {}
            Some(_) => return Err(Error::build(format!("masking the unit {name}: {path} is a file of the tree"))),
        }
        if unit::find(name, tree)?.is_none() {
            outcome.warnings.push(format!("the tree has no unit {name}; it is masked all the same"));
        }
        outcome.changes.push(Change::link(path, NULL));
    }
    if let Some(target) = &units.default_target {
        let found = unit::find(target, tree)?;
        let found = found.ok_or_else(|| unknown_unit(target, tree))?;
        outcome.changes.push(Change::link(format!("{CONFIG}/default.target"), found.path));
    }
    Ok(())
}

/// Returns the name of a unit with its suffix, which is that of a service if none is written.
fn full(name: &str) -> String {
    if unit::has_suffix(name) { name.to_owned() } else { format!("{name}.service") }
}

fn unknown_unit(name: &str, tree: &dyn Tree) -> Error {
    let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
    let mut names: BTreeSet<String> = BTreeSet::new();
    for place in PLACES {
        match tree.list(place) {
            Ok(found) => names.extend(found.unwrap_or_default().into_iter().filter(|name| name.ends_with(suffix))),
            Err(error) => return error,
        }
    }
    unknown(if suffix == "service" { "service" } else { "unit" }, name, names.iter().map(String::as_str))
}

/// The links of the settings so far.
#[derive(Debug, Default)]
struct Links {
    /// Paths that an earlier change removed.
    removed: BTreeSet<String>,
    /// Paths that an earlier change made.
    made: BTreeSet<String>,
}

impl Links {
    /// Enables a unit and those that belong to it.
    fn enable(&mut self, name: &str, tree: &dyn Tree, outcome: &mut Outcome) -> Result<()> {
        let mut pending = vec![(name.to_owned(), true)];
        let mut done = BTreeSet::new();
        while let Some((name, named)) = pending.pop() {
            if !done.insert(name.clone()) || done.len() > MAX_ALSO {
                continue;
            }
            let unit = match unit::find(&name, tree)? {
                Some(unit) if unit.path != NULL => unit,
                found if named => {
                    let masked = || {
                        let error = Error::build(format!("enabling {}: the unit is masked", quoted(&name)));
                        error.with_hint("an earlier step can remove its link to /dev/null")
                    };
                    return Err(found.map_or_else(|| unknown_unit(&name, tree), |_| masked()));
                }
                _ => {
                    outcome.warnings.push(format!("the unit {name} belongs to another one, but the tree lacks it"));
                    continue;
                }
            };
            let install = unit::install(&unit, tree)?;
            if install.is_empty() && named {
                outcome.warnings.push(format!("the unit {name} has nothing to enable: it has no section [Install]"));
            }
            self.link(&unit, &install, tree, outcome)?;
            let also = install.also.iter().map(|name| expanded(name, &unit.name));
            pending.extend(also.collect::<Result<Vec<_>>>()?.into_iter().map(|name| (name, false)));
        }
        Ok(())
    }

    /// Makes the links of a unit.
    fn link(&mut self, unit: &Unit, install: &Install, tree: &dyn Tree, outcome: &mut Outcome) -> Result<()> {
        for alias in &install.alias {
            let alias = expanded(alias, &unit.name)?;
            let path = format!("{CONFIG}/{alias}");
            if tree.look(&path)?.is_some_and(|node| !matches!(node, Node::Link(_))) {
                let error = Error::build(format!("enabling {}: {path} is a file of the tree", unit.name.full));
                return Err(error);
            }
            self.add(path, &unit.path, tree, outcome)?;
        }
        let mut name = unit.name.clone();
        let lists =
            [(&install.wanted_by, "wants"), (&install.required_by, "requires"), (&install.upheld_by, "upholds")];
        if name.is_template() && lists.iter().any(|(list, _)| !list.is_empty()) {
            match &install.default_instance {
                Some(instance) => name = name.with_instance(&expanded(instance, &unit.name)?),
                None => {
                    let every = lists.iter().flat_map(|(list, _)| list.iter());
                    let every = every.map(|target| expanded(target, &name)).collect::<Result<Vec<_>>>()?;
                    // A template can be a part of another template.
                    if !every.iter().all(|target| Name::parse(target).is_template()) {
                        let error =
                            Error::build(format!("enabling {}: the template needs an instance", unit.name.full));
                        let example = unit.name.with_instance("INSTANCE").full;
                        return Err(error.with_hint(format!("for example {example}")));
                    }
                }
            }
        }
        for (list, kind) in lists {
            for target in list {
                let target = expanded(target, &name)?;
                if unit::find(&target, tree)?.is_none() {
                    outcome.warnings.push(format!("{} belongs to {target}, which the tree does not have", name.full));
                }
                self.add(format!("{CONFIG}/{target}.{kind}/{}", name.full), &unit.path, tree, outcome)?;
            }
        }
        Ok(())
    }

    /// Makes a link, unless it is there.
    fn add(&mut self, path: String, target: &str, tree: &dyn Tree, outcome: &mut Outcome) -> Result<()> {
        let there = match tree.look(&path)? {
            Some(Node::Link(found)) => found == target && !self.removed.contains(&path),
            _ => false,
        };
        if !there && self.made.insert(path.clone()) {
            outcome.changes.push(Change::link(path, target));
        }
        Ok(())
    }

    /// Removes all links to a unit and to those that belong to it.
    fn disable(&mut self, name: &str, tree: &dyn Tree, outcome: &mut Outcome) -> Result<()> {
        let mut names = BTreeSet::new();
        let mut pending = vec![(name.to_owned(), true)];
        while let Some((name, named)) = pending.pop() {
            if !names.insert(name.clone()) || names.len() > MAX_ALSO {
                continue;
            }
            match unit::find(&name, tree)? {
                Some(unit) => {
                    let also = unit::install(&unit, tree)?.also;
                    let also = also.iter().map(|name| expanded(name, &unit.name)).collect::<Result<Vec<_>>>()?;
                    pending.extend(also.into_iter().map(|name| (name, false)));
                    // The links to a unit have its own name, and not always the one that it is known by.
                    names.insert(unit.name.full);
                }
                None if named => outcome.warnings.push(format!("the tree has no unit {name} to disable")),
                None => {}
            }
        }
        let matches = |name: &str| names.contains(name) || names.contains(&Name::parse(name).template());
        let mut found = Vec::new();
        for entry in tree.list(CONFIG)?.unwrap_or_default() {
            let path = format!("{CONFIG}/{entry}");
            let kinds = [".wants", ".requires", ".upholds"];
            match tree.look(&path)? {
                Some(Node::Directory(_)) if kinds.iter().any(|kind| entry.ends_with(kind)) => {
                    let inner = tree.list(&path)?.unwrap_or_default();
                    let paths: Vec<String> = inner.iter().map(|name| format!("{path}/{name}")).collect();
                    let links = paths.iter().map(|path| leads_to(path, &matches, tree)).collect::<Result<Vec<_>>>()?;
                    let all = links.iter().all(|link| *link);
                    let links = paths.into_iter().zip(links).filter(|(_, link)| *link).map(|(path, _)| path);
                    let before = found.len();
                    found.extend(links.map(Change::Remove));
                    if all && found.len() > before {
                        found.push(Change::RemoveEmpty(path));
                    }
                }
                Some(Node::Link(_)) if leads_to(&path, &matches, tree)? => found.push(Change::Remove(path)),
                _ => {}
            }
        }
        for change in found {
            if let Change::Remove(path) = &change
                && !self.removed.insert(path.clone())
            {
                continue;
            }
            outcome.changes.push(change);
        }
        Ok(())
    }
}

/// Returns true for a link to a unit whose name, or the name of the link, is wanted. Links to `/dev/null` are masks.
fn leads_to(path: &str, wanted: &dyn Fn(&str) -> bool, tree: &dyn Tree) -> Result<bool> {
    let Some(Node::Link(target)) = tree.look(path)? else { return Ok(false) };
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    Ok(target != NULL && (wanted(&last(path)) || wanted(&last(&target))))
}

/// Replaces the specifiers of a name in a section `[Install]` (systemd.unit(5)), and refuses what is not a name.
fn expanded(text: &str, of: &Name) -> Result<String> {
    let wrong = |why: &str| {
        let error = Error::build(format!("enabling {}: {why} in {}", quoted(&of.full), quoted(text)));
        Err(error.with_hint("enable it in a step with `systemctl --root`, or with a unit of your own"))
    };
    let (mut made, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        if c != '%' {
            made.push(c);
            continue;
        }
        match chars.next() {
            Some('i') => made.push_str(of.instance.as_deref().unwrap_or_default()),
            Some('j') => made.push_str(of.prefix.rsplit('-').next().unwrap_or_default()),
            Some('n') => made.push_str(&of.full),
            Some('N') => made.push_str(of.full.rsplit_once('.').map_or(of.full.as_str(), |(name, _)| name)),
            Some('p') => made.push_str(&of.prefix),
            Some('%') => made.push('%'),
            _ => return wrong("a specifier that depends on the machine"),
        }
    }
    if !unit::is_name(&made) {
        return wrong("not a name of a unit");
    }
    Ok(made)
}
