//! Packages for which no binary package fits: what is wanted, what there is, and the differences.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::packages::title;
use crate::base::error::Error;
use crate::base::time::readable;
use crate::portage::query::Text;
use crate::portage::query::plan::{Flags, Package};
use crate::portage::query::why::{Difference, Why};

/// The number of packages that an error explains.
const SHOWN: usize = 12;

/// A package that emerge would build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    package: Package,
    why: Why,
    /// The settings of the nearest binary package, by variable.
    settings: BTreeMap<Text, Text>,
}

impl Miss {
    /// Explains `package`. `value` looks up a setting in the nearest binary package.
    pub fn new(package: Package, mut why: Why, value: impl Fn(&str) -> Option<Text>) -> Self {
        let names = package.settings.keys();
        let settings: BTreeMap<Text, Text> =
            names.filter_map(|name| Some((name.clone(), value(name.as_str())?))).collect();
        if let Why::Differs { differences, .. } = &mut why {
            for (name, present) in &settings {
                let wanted = &package.settings[name];
                // CHOST is compared already, as Portage does.
                if wanted != present && name.as_str() != "CHOST" {
                    differences.push(Difference::Setting {
                        name: name.to_string(),
                        wanted: wanted.to_string(),
                        present: present.to_string(),
                    });
                }
            }
        }
        Self { package, why, settings }
    }

    /// Returns the miss as part of a JSON document.
    pub fn document(&self) -> impl Serialize {
        let (present, differences) = match &self.why {
            Why::Differs { present, differences } => (
                Some(Side {
                    version: present.version.clone(),
                    build_id: Some(present.build_id.clone()),
                    flags: present.flags.clone(),
                    settings: self.settings.clone(),
                }),
                differences.iter().map(ToString::to_string).collect(),
            ),
            why => (None, vec![why.to_string()]),
        };
        let wanted = Side {
            version: self.package.version.clone(),
            build_id: None,
            flags: self.package.flags.clone(),
            settings: self.package.settings.clone(),
        };
        Entry { package: self.package.name.clone(), wanted, present, differences }
    }
}

/// Adds `misses` to the error of an emerge that may only use binary packages.
pub fn explain(error: Error, misses: &[Miss]) -> Error {
    if misses.is_empty() {
        return error;
    }
    let said = error.details().unwrap_or_default().trim_end().to_owned();
    let mut shown: String = misses.iter().take(SHOWN).map(|miss| format!("\n{miss}")).collect();
    if misses.len() > SHOWN {
        shown += &format!("\nand {} more; `quern-builder explain` lists them\n", misses.len() - SHOWN);
    }
    error.with_details(format!("{said}\n\nno binary package fits:\n{shown}")).with_hint(
        "build these packages once with emerge.binary-only = false, change their USE flags, or add a host to portage.binhost",
    )
}

#[derive(Serialize)]
struct Entry {
    package: Text,
    wanted: Side,
    present: Option<Side>,
    differences: Vec<String>,
}

#[derive(Serialize)]
struct Side {
    version: Text,
    build_id: Option<Text>,
    #[serde(rename = "use")]
    flags: Flags,
    settings: BTreeMap<Text, Text>,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", title(&self.package))?;
        writeln!(f, "  wanted:   {}", facts(&self.package.flags, &self.package.expand, &self.package.settings))?;
        let Why::Differs { present, differences } = &self.why else { return writeln!(f, "  present:  {}", self.why) };
        let seconds = present.built.as_str().parse().unwrap_or(0);
        let date = readable(seconds);
        writeln!(f, "  present:  {}", facts(&present.flags, &self.package.expand, &self.settings))?;
        writeln!(f, "            build {} of {date}", present.build_id)?;
        if differences.is_empty() {
            return writeln!(f, "  {}", self.why);
        }
        differences.iter().try_for_each(|difference| writeln!(f, "  differs:  {difference}"))
    }
}

/// Writes USE flags and settings as in make.conf.
fn facts(flags: &Flags, expand: &[Text], settings: &BTreeMap<Text, Text>) -> String {
    let used = flags.assignments(expand);
    let settings = settings.iter().filter(|(_, value)| !value.is_empty());
    let all: Vec<String> =
        used.into_iter().chain(settings.map(|(name, value)| format!("{name}=\"{value}\""))).collect();
    if all.is_empty() { "no USE flags".to_owned() } else { all.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portage::query::plan::Present;

    fn text(text: &str) -> Text {
        Text::from(text.to_owned())
    }

    fn miss(present: Vec<Present>) -> Miss {
        let package = Package {
            name: text("app-misc/hello"),
            version: text("1"),
            slot: text("0"),
            repository: text("gentoo"),
            source: true,
            flags: Flags { enabled: vec![text("nls")], disabled: vec![text("static")] },
            settings: [("CFLAGS", "-O3"), ("CHOST", "x86_64-pc-linux-gnu"), ("LDFLAGS", "")]
                .map(|(name, value)| (text(name), text(value)))
                .into(),
            present,
            ..Package::default()
        };
        let why = Why::of(&package);
        Miss::new(package, why, |name| Some(text(if name == "CFLAGS" { "-O2" } else { "" })))
    }

    #[test]
    fn a_miss_names_what_is_wanted_and_what_there_is() {
        let present = Present {
            version: text("1"),
            build_id: text("2"),
            built: text("1700000000"),
            repository: text("gentoo"),
            chost: text("x86_64-pc-linux-gnu"),
            flags: Flags { enabled: Vec::new(), disabled: vec![text("nls"), text("static")] },
            ..Present::default()
        };
        let expected = "\
app-misc/hello-1:0::gentoo
  wanted:   USE=\"nls -static\" CFLAGS=\"-O3\" CHOST=\"x86_64-pc-linux-gnu\"
  present:  USE=\"-nls -static\" CFLAGS=\"-O2\"
            build 2 of 2023-11-14 22:13 UTC
  differs:  USE is -nls, wanted is nls
  differs:  CFLAGS is -O2, wanted is -O3
";
        assert_eq!(miss(vec![present]).to_string(), expected);
    }

    #[test]
    fn an_error_explains_some_misses_and_counts_the_rest() {
        let one = miss(Vec::new());
        let explained = |count| explain(Error::build("x").with_details("said\n"), &vec![one.clone(); count]);
        assert!(explained(0).hint().is_none());
        let details = explained(SHOWN + 2).details().unwrap().to_owned();
        assert!(details.starts_with("said\n\nno binary package fits:\n\napp-misc/hello-1:0::gentoo\n"), "{details}");
        assert_eq!(details.matches("present:  no binary package\n").count(), SHOWN);
        assert!(details.ends_with("and 2 more; `quern-builder explain` lists them\n"), "{details}");
    }
}
