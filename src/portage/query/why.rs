//! The reason why a package is built although there are binary packages of it.

use std::fmt;

use super::Text;
use super::plan::{Flags, Package, Present, by_variable};

/// The limit on the versions that are named.
const NAMED: usize = 4;

/// The reason why a package is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// There are no binary packages of it.
    Missing,
    /// There are binary packages of other versions only.
    Versions(Vec<Text>),
    /// The nearest binary package of this version differs.
    Differs {
        /// The binary package.
        present: Box<Present>,
        /// The differences; none if only Portage knows them.
        differences: Vec<Difference>,
    },
}

/// A difference between the wanted package and one that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Flags of one variable, such as `USE`, in which both differ: as the binary package has them and as they are wanted.
    Use { variable: String, wanted: Vec<String>, present: Vec<String> },
    /// A setting of the compiler or the machine.
    Setting { name: String, wanted: String, present: String },
    /// The repository of the ebuild.
    Repository { wanted: Text, present: Text },
    /// A reason for which Portage masks the binary package.
    Masked(Text),
}

impl Why {
    /// Returns the reason why `package` is built.
    pub fn of(package: &Package) -> Self {
        let same = package.present.iter().filter(|present| present.version == package.version);
        let nearest = same.map(|present| (present, differences(package, present))).min_by_key(|(_, found)| found.len());
        match nearest {
            Some((present, differences)) => Self::Differs { present: Box::new(present.clone()), differences },
            None if package.present.is_empty() => Self::Missing,
            None => {
                let mut versions: Vec<Text> = Vec::new();
                for present in &package.present {
                    if !versions.contains(&present.version) {
                        versions.push(present.version.clone());
                    }
                }
                Self::Versions(versions)
            }
        }
    }
}

/// Compares a package with a binary package of the same version.
fn differences(package: &Package, present: &Present) -> Vec<Difference> {
    let mut found = Vec::new();
    let other = |flags: &Flags, flag: &Text, enabled: bool| {
        !(if enabled { &flags.enabled } else { &flags.disabled }).contains(flag)
    };
    let (wanted, has) = (&package.flags, &present.flags);
    // A flag that one of them lacks has no word there.
    let mut wanted = by_variable(wanted.each().filter(|(flag, on)| other(has, flag, *on)), &package.expand);
    let mut has = by_variable(has.each().filter(|(flag, on)| other(&package.flags, flag, *on)), &package.expand);
    for variable in std::iter::once("USE").chain(package.expand.iter().map(Text::as_str)) {
        let words = |groups: &mut Vec<(&str, Vec<String>)>| {
            let at = groups.iter().position(|(name, _)| *name == variable);
            at.map(|at| groups.swap_remove(at).1).unwrap_or_default()
        };
        let (wanted, present) = (words(&mut wanted), words(&mut has));
        if wanted != present {
            found.push(Difference::Use { variable: variable.to_owned(), wanted, present });
        }
    }
    if let Some(chost) = package.settings.get("CHOST").filter(|chost| **chost != present.chost) {
        found.push(Difference::Setting {
            name: "CHOST".into(),
            wanted: chost.to_string(),
            present: present.chost.to_string(),
        });
    }
    if package.repository != present.repository {
        let (wanted, present) = (package.repository.clone(), present.repository.clone());
        found.push(Difference::Repository { wanted, present });
    }
    // CHOST is told above, with both values.
    let masks = present.masks.iter().filter(|mask| !mask.as_str().starts_with("CHOST"));
    found.extend(masks.cloned().map(Difference::Masked));
    found
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no binary package"),
            Self::Versions(versions) => {
                let named: Vec<&str> = versions.iter().take(NAMED).map(Text::as_str).collect();
                write!(f, "no binary package of this version, only of {}", named.join(", "))?;
                if versions.len() > NAMED { write!(f, " and {} more", versions.len() - NAMED) } else { Ok(()) }
            }
            Self::Differs { differences, .. } if differences.is_empty() => {
                f.write_str("Portage does not accept the binary package")
            }
            Self::Differs { differences, .. } => {
                let all: Vec<String> = differences.iter().map(ToString::to_string).collect();
                write!(f, "the binary package differs: {}", all.join("; "))
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |words: &[String]| if words.is_empty() { "no such flag".to_owned() } else { words.join(" ") };
        match self {
            Self::Use { variable, wanted, present } => {
                write!(f, "{variable} is {}, wanted is {}", or_none(present), or_none(wanted))
            }
            Self::Setting { name, wanted, present } => write!(f, "{name} is {present}, wanted is {wanted}"),
            Self::Repository { wanted, present } => write!(f, "its repository is {present}, wanted is {wanted}"),
            Self::Masked(mask) => write!(f, "masked by {mask}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Text {
        Text::from(text.to_owned())
    }

    fn flags(enabled: &[&str], disabled: &[&str]) -> Flags {
        let all = |names: &[&str]| names.iter().map(|name| text(name)).collect();
        Flags { enabled: all(enabled), disabled: all(disabled) }
    }

    fn wanted(present: Vec<Present>) -> Package {
        Package {
            version: text("2"),
            repository: text("gentoo"),
            flags: flags(&["bar"], &["foo"]),
            settings: [(text("CHOST"), text("x86_64-pc-linux-musl"))].into(),
            present,
            ..Package::default()
        }
    }

    fn built(version: &str, flags: Flags) -> Present {
        Present {
            version: text(version),
            repository: text("gentoo"),
            chost: text("x86_64-pc-linux-musl"),
            flags,
            ..Present::default()
        }
    }

    #[test]
    fn the_nearest_binary_package_explains_a_build() {
        let why = |present| Why::of(&wanted(present)).to_string();
        assert_eq!(why(Vec::new()), "no binary package");
        let old = || vec![built("1", flags(&[], &[])), built("1", flags(&[], &[])), built("3", flags(&[], &[]))];
        assert_eq!(why(old()), "no binary package of this version, only of 1, 3");
        let mut present = old();
        present.push(built("2", flags(&["foo"], &["bar"])));
        assert_eq!(why(present.clone()), "the binary package differs: USE is foo -bar, wanted is bar -foo");
        // One difference is nearer than two.
        let mut far = built("2", flags(&["foo"], &["bar"]));
        far.chost = text("x86_64-pc-linux-gnu");
        far.masks = vec![text("CHOST")];
        assert!(why(vec![far.clone(), present[3].clone()]).ends_with("USE is foo -bar, wanted is bar -foo"));
        far.flags = flags(&["bar"], &[]);
        far.repository = text("own");
        far.masks.push(text("KEYWORDS: ~amd64"));
        assert_eq!(
            why(vec![far]),
            "the binary package differs: USE is no such flag, wanted is -foo; CHOST is x86_64-pc-linux-gnu, wanted is \
             x86_64-pc-linux-musl; its repository is own, wanted is gentoo; masked by KEYWORDS: ~amd64"
        );
        assert_eq!(why(vec![built("2", flags(&["bar"], &["foo"]))]), "Portage does not accept the binary package");
    }
}
