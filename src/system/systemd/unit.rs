//! Files of units: their names, their places, and their section `[Install]` (systemd.unit(5), systemd.syntax(7)).

use std::collections::BTreeMap;

use super::{CONFIG, NULL, PLACES};
use crate::base::error::{Error, Result};
use crate::system::{Node, Tree, text_of};

/// The suffixes of units.
const SUFFIXES: [&str; 11] =
    ["service", "socket", "target", "timer", "mount", "automount", "swap", "path", "slice", "scope", "device"];
/// The limit on links from a name to a unit.
const MAX_LINKS: usize = 8;

/// Returns true for a text that can be the name of a unit.
pub(super) fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    !name.is_empty() && name.len() < 256 && !name.starts_with('.') && name.chars().all(letter)
}

/// Returns true for the name of a unit with its suffix.
pub(super) fn has_suffix(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, suffix)| SUFFIXES.contains(&suffix))
}

/// The name of a unit: `prefix@instance.suffix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) full: String,
    pub(super) prefix: String,
    /// The instance, empty for a template; `None` for a plain unit.
    pub(super) instance: Option<String>,
    suffix: String,
}

impl Name {
    pub(super) fn parse(full: &str) -> Self {
        let (stem, suffix) = full.rsplit_once('.').unwrap_or((full, ""));
        let (prefix, instance) = match stem.split_once('@') {
            Some((prefix, instance)) => (prefix, Some(instance.to_owned())),
            None => (stem, None),
        };
        Self { full: full.to_owned(), prefix: prefix.to_owned(), instance, suffix: suffix.to_owned() }
    }

    pub(super) fn is_template(&self) -> bool {
        self.instance.as_deref() == Some("")
    }

    pub(super) fn with_instance(&self, instance: &str) -> Self {
        Self::parse(&format!("{}@{instance}.{}", self.prefix, self.suffix))
    }

    /// Returns the name of the template of an instance; that of any other unit is its own.
    pub(super) fn template(&self) -> String {
        if self.instance.is_some() { format!("{}@.{}", self.prefix, self.suffix) } else { self.full.clone() }
    }
}

/// A unit of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) name: Name,
    /// Its file, or `/dev/null` if it is masked.
    pub(super) path: String,
}

/// Finds a unit by its name or by that of a link to it. An instance has the file of its template.
pub(super) fn find(name: &str, tree: &dyn Tree) -> Result<Option<Unit>> {
    let mut name = Name::parse(name);
    for _ in 0..MAX_LINKS {
        let mut known = None;
        for file in [name.full.clone(), name.template()] {
            for place in PLACES {
                let path = format!("{place}/{file}");
                if known.is_none()
                    && let Some(node) = tree.look(&path)?
                {
                    known = Some((path, node));
                }
            }
        }
        let Some((path, node)) = known else { return Ok(None) };
        let Node::Link(target) = node else {
            return Ok(matches!(node, Node::File(_)).then_some(Unit { name, path }));
        };
        if target == NULL {
            return Ok(Some(Unit { name, path: target }));
        }
        let other = Name::parse(target.rsplit('/').next().unwrap_or_default());
        if !is_name(&other.full) || !has_suffix(&other.full) {
            return Ok(None);
        }
        if other.full == name.full || other.full == name.template() {
            // A unit that lies in another directory.
            let inside = format!("{}/{target}", path.rsplit_once('/').map_or("", |(directory, _)| directory));
            let real = if target.starts_with('/') { target } else { inside };
            return Ok(tree.read(&real)?.map(|_| Unit { name, path: real }));
        }
        name = match &name.instance {
            Some(instance) if other.is_template() => other.with_instance(instance),
            _ => other,
        };
    }
    Err(Error::build(format!("finding the unit {}: its links lead in a circle", name.full)))
}

/// The section `[Install]` of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Install {
    pub(super) alias: Vec<String>,
    pub(super) wanted_by: Vec<String>,
    pub(super) required_by: Vec<String>,
    pub(super) upheld_by: Vec<String>,
    pub(super) also: Vec<String>,
    pub(super) default_instance: Option<String>,
}

impl Install {
    /// Returns true if nothing can be enabled.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads a file, after those before it. An empty value takes the earlier ones away.
    pub(super) fn read(&mut self, text: &str) {
        let joined = joined(text);
        let mut section = "";
        for line in joined.iter().map(|line| line.trim()) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = if name == "Install" { "Install" } else { "" };
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| section == "Install") else { continue };
            let value = value.trim();
            let list = match key.trim() {
                "Alias" => &mut self.alias,
                "WantedBy" => &mut self.wanted_by,
                "RequiredBy" => &mut self.required_by,
                "UpheldBy" => &mut self.upheld_by,
                "Also" => &mut self.also,
                "DefaultInstance" => {
                    self.default_instance = Some(value.to_owned()).filter(|value| !value.is_empty());
                    continue;
                }
                _ => continue,
            };
            if value.is_empty() {
                list.clear();
            }
            list.extend(value.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()));
        }
    }
}

/// Returns the lines of a file without comments. A `\` at the end of a line joins it with the next one.
fn joined(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        if line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        let (part, more) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
        match lines.last_mut().filter(|_| open) {
            Some(last) => {
                last.push(' ');
                last.push_str(part);
            }
            None => lines.push(part.to_owned()),
        }
        open = more;
    }
    lines
}

/// Reads the section `[Install]` of a unit from its file and the files that change it.
pub(super) fn install(unit: &Unit, tree: &dyn Tree) -> Result<Install> {
    let mut install = Install::default();
    if unit.path != NULL {
        install.read(&text_of(tree, &unit.path)?);
    }
    let mut names = vec![unit.name.full.clone()];
    names.extend(Some(unit.name.template()).filter(|template| *template != unit.name.full));
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for place in PLACES.iter().copied().filter(|place| *place != CONFIG).rev().chain([CONFIG]) {
        for name in names.iter().rev() {
            let directory = format!("{place}/{name}.d");
            let found = tree.list(&directory)?.unwrap_or_default().into_iter().filter(|file| file.ends_with(".conf"));
            files.extend(found.map(|file| (file.clone(), format!("{directory}/{file}"))));
        }
    }
    for path in files.values() {
        // An empty file or a link to /dev/null hides one of the same name.
        if matches!(tree.look(path)?, Some(Node::File(_))) {
            install.read(&text_of(tree, path)?);
        }
    }
    Ok(install)
}
