//! The packages that a build would merge, as a value, a table and a document.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::base::text::counted;
use crate::portage::query::Text;
use crate::portage::query::plan::{Flags, Package};
use crate::portage::query::why::Why;

/// The width of the table in columns.
const WIDTH: usize = 80;
/// The indentation of the lines below a package.
const INDENT: usize = 11;

/// A tree that packages are merged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    Builder,
    Image,
}

/// The packages of a build, in the order of the merges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packages {
    pub packages: Vec<(Target, Package)>,
    /// Sentences about differences from a build.
    pub notes: Vec<String>,
}

impl Packages {
    /// Adds the packages that one resolution would merge, except those that an earlier one merges into the same tree.
    pub fn add(&mut self, packages: Vec<Package>, target: impl Fn(&Package) -> Target) {
        let key = |target: Target, package: &Package| {
            (target, package.name.clone(), package.version.clone(), package.repository.clone())
        };
        let mut seen: BTreeSet<_> = self.packages.iter().map(|(target, package)| key(*target, package)).collect();
        for package in packages {
            let target = target(&package);
            if seen.insert(key(target, &package)) {
                self.packages.push((target, package));
            }
        }
    }

    /// The bytes to fetch; a file that several packages need counts once.
    fn bytes(&self) -> u64 {
        let files: BTreeMap<&Text, u64> =
            self.packages.iter().flat_map(|(_, package)| &package.fetch).map(|(name, size)| (name, *size)).collect();
        files.values().fold(0, |sum, size| sum.saturating_add(*size))
    }

    fn totals(&self) -> Totals {
        let built = self.packages.iter().filter(|(_, package)| package.source).count();
        Totals { packages: self.packages.len(), built, reused: self.packages.len() - built, fetch: self.bytes() }
    }

    /// Returns the packages as a JSON document.
    pub fn document(&self) -> impl Serialize {
        Document {
            version: 1,
            packages: self.packages.iter().map(|(target, package)| Entry::new(*target, package)).collect(),
            totals: self.totals(),
            notes: self.notes.clone(),
        }
    }
}

#[derive(Serialize)]
struct Document {
    version: u32,
    packages: Vec<Entry>,
    totals: Totals,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Totals {
    packages: usize,
    built: usize,
    reused: usize,
    fetch: u64,
}

#[derive(Serialize)]
struct Entry {
    package: Text,
    version: Text,
    slot: String,
    repository: Text,
    #[serde(rename = "use")]
    flags: Flags,
    from: &'static str,
    build_id: Option<Text>,
    target: Target,
    replaces: Vec<Text>,
    fetch: BTreeMap<Text, u64>,
    why: Option<String>,
}

impl Entry {
    fn new(target: Target, package: &Package) -> Self {
        Self {
            package: package.name.clone(),
            version: package.version.clone(),
            slot: slot(package),
            repository: package.repository.clone(),
            flags: package.flags.clone(),
            from: from(package),
            build_id: Some(package.build_id.clone()).filter(|id| !id.is_empty()),
            target,
            replaces: package.replaces.clone(),
            fetch: package.fetch.clone(),
            why: package.source.then(|| Why::of(package).to_string()),
        }
    }
}

fn from(package: &Package) -> &'static str {
    if package.source { "source" } else { "binary" }
}

/// Returns the slot, with the subslot if both differ.
fn slot(package: &Package) -> String {
    match (package.slot.as_str(), package.subslot.as_str()) {
        (slot, subslot) if subslot.is_empty() || subslot == slot => slot.to_owned(),
        (slot, subslot) => format!("{slot}/{subslot}"),
    }
}

impl fmt::Display for Packages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (target, title) in [(Target::Builder, "for the builder"), (Target::Image, "for the image")] {
            let mut packages = self.packages.iter().filter(|(found, _)| *found == target).peekable();
            if packages.peek().is_some() {
                writeln!(f, "{title}")?;
                packages.try_for_each(|(_, package)| row(f, package))?;
                writeln!(f)?;
            }
        }
        self.notes.iter().try_for_each(|note| wrap(f, 0, &format!("note: {note}")))?;
        let Totals { packages, built, reused, fetch } = self.totals();
        writeln!(f, "{}: {built} to build, {reused} reused; {} to fetch", counted(packages, "package"), size(fetch))
    }
}

/// Returns the name of a package with its version, slot and repository: `app-misc/hello-2.10:0::gentoo`.
pub(super) fn title(package: &Package) -> String {
    let id = if package.build_id.is_empty() { String::new() } else { format!("-{}", package.build_id) };
    let Package { name, version, repository, .. } = package;
    format!("{name}-{version}{id}:{}::{repository}", slot(package))
}

/// Writes the lines of one package.
fn row(f: &mut fmt::Formatter<'_>, package: &Package) -> fmt::Result {
    let bytes = package.fetch.values().fold(0_u64, |sum, size| sum.saturating_add(*size));
    let bytes = if bytes == 0 { String::new() } else { size(bytes) };
    let line = format!("  {}   {}", from(package), title(package));
    let space = WIDTH.saturating_sub(line.chars().count()).max(bytes.len() + 1);
    if bytes.is_empty() {
        writeln!(f, "{line}")?
    } else {
        writeln!(f, "{line}{bytes:>space$}")?
    }
    let flags = package.flags.assignments(&package.expand);
    flags.iter().try_for_each(|flags| wrap(f, INDENT, flags))?;
    if !package.replaces.is_empty() {
        let replaced: Vec<&str> = package.replaces.iter().map(Text::as_str).collect();
        wrap(f, INDENT, &format!("replaces {}", replaced.join(", ")))?;
    }
    if package.source { wrap(f, INDENT, &Why::of(package).to_string()) } else { Ok(()) }
}

/// Formats a number of bytes: `4096 B`, `1.5 MiB`.
fn size(bytes: u64) -> String {
    let units = [("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1)];
    match units.iter().find(|(_, power)| bytes >> (10 * power) >= 1) {
        Some((unit, power)) => format!("{:.1} {unit}", bytes as f64 / 1024_f64.powi(*power)),
        None => format!("{bytes} B"),
    }
}

/// Writes words with an indentation, in lines of the table's width.
fn wrap(f: &mut fmt::Formatter<'_>, indent: usize, text: &str) -> fmt::Result {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(f, "{:indent$}{line}", "")?;
            line = String::new();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(f, "{:indent$}{line}", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, source: bool) -> Package {
        let text = |text: &str| Text::from(text.to_owned());
        Package {
            name: text(name),
            version: text("1.2"),
            slot: text("0"),
            subslot: text(if source { "3" } else { "0" }),
            repository: text("gentoo"),
            source,
            build_id: text(if source { "" } else { "4" }),
            flags: Flags {
                enabled: (0..9)
                    .map(|number| text(&format!("flag-{number}")))
                    .chain([text("python_targets_python3_13")])
                    .collect(),
                disabled: vec![text("off")],
            },
            expand: vec![text("PYTHON_TARGETS")],
            fetch: [(text("file.tar"), 3 << 20)].into(),
            ..Package::default()
        }
    }

    #[test]
    fn sizes_have_the_largest_unit_that_fits() {
        let sizes = [0, 1023, 1024, 1536 << 10, 5 << 30, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 GiB", "16777216.0 TiB"]);
    }

    #[test]
    fn the_table_fits_into_80_columns() {
        let mut packages = Packages::default();
        packages.add(vec![package("sys-libs/musl", true)], |_| Target::Image);
        let again = vec![package("sys-libs/musl", true), package("sys-libs/musl", false), package("app-misc/b", false)];
        packages.add(again, |package| if package.source { Target::Image } else { Target::Builder });
        packages.notes.push("a note".into());
        let table = packages.to_string();
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        let expected = r#"for the builder
  binary   sys-libs/musl-1.2-4:0::gentoo                                 3.0 MiB
           USE="flag-0 flag-1 flag-2 flag-3 flag-4 flag-5 flag-6 flag-7 flag-8
           -off"
           PYTHON_TARGETS="python3_13"
  binary   app-misc/b-1.2-4:0::gentoo                                    3.0 MiB
           USE="flag-0 flag-1 flag-2 flag-3 flag-4 flag-5 flag-6 flag-7 flag-8
           -off"
           PYTHON_TARGETS="python3_13"

for the image
  source   sys-libs/musl-1.2:0/3::gentoo                                 3.0 MiB
           USE="flag-0 flag-1 flag-2 flag-3 flag-4 flag-5 flag-6 flag-7 flag-8
           -off"
           PYTHON_TARGETS="python3_13"
           no binary package

note: a note
3 packages: 1 to build, 2 reused; 3.0 MiB to fetch
"#;
        assert_eq!(table, expected);
        let document = serde_json::to_value(packages.document()).unwrap();
        assert_eq!(document["totals"]["fetch"], 3 << 20);
        // The document has Portage's own names of flags.
        assert_eq!(document["packages"][0]["use"]["enabled"][9], "python_targets_python3_13");
        assert_eq!(document["packages"][0]["why"], "no binary package");
        assert_eq!(document["packages"][1]["target"], "builder");
        assert_eq!(document["packages"][1]["build_id"], "4");
    }
}
