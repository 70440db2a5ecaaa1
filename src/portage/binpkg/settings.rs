//! Portage's settings as Portage itself reports them: the command that asks, and its answer.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Fault, Result};
use crate::portage::{CONFIGROOT, KITS, REPOS, ROOT};

/// Prints the settings of each pair of a configuration root and a root as one JSON document.
const SCRIPT: &str = r#"
import json, os, sys
import portage

def told(config_root, root):
    settings = portage.config(config_root=config_root, target_root=root)
    profile = os.path.realpath(settings.profile_path or "/")
    name, inside, path = profile.partition("/profiles/")
    parent = os.path.join(profile, "parent")
    if inside and os.path.dirname(name) in sys.argv[1].split(":"):
        profile = os.path.basename(name) + ":" + path
    elif os.path.exists(parent):
        with open(parent) as lines:
            profile = " ".join(lines.read().split())
    variables = {k: v for k, v in settings.items() if isinstance(v, str)}
    return {"variables": variables, "configured": sorted(settings.configdict["conf"]), "profile": profile}

pairs = zip(sys.argv[2::2], sys.argv[3::2])
json.dump([told(*pair) for pair in pairs], sys.stdout)
"#;

/// The keys of an index's header that come from the settings.
const HEADER: [&str; 17] = [
    "ACCEPT_KEYWORDS",
    "ACCEPT_LICENSE",
    "ACCEPT_PROPERTIES",
    "ACCEPT_RESTRICT",
    "CBUILD",
    "CHOST",
    "CONFIG_PROTECT",
    "CONFIG_PROTECT_MASK",
    "FEATURES",
    "GENTOO_MIRRORS",
    "INSTALL_MASK",
    "IUSE_IMPLICIT",
    "USE",
    "USE_EXPAND",
    "USE_EXPAND_HIDDEN",
    "USE_EXPAND_IMPLICIT",
    "USE_EXPAND_UNPREFIXED",
];

/// The settings of one configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Settings {
    /// All variables.
    pub variables: BTreeMap<String, String>,
    /// The names of those that a make.conf sets.
    pub configured: BTreeSet<String>,
    /// The profile as `repository:path`, or its parents if it is a directory of its own.
    pub profile: String,
}

/// Returns the command that prints the builder's settings and, if `image`, those of the image.
pub fn command(image: bool) -> Vec<String> {
    let repositories = format!("{REPOS}:{KITS}");
    let mut words = vec!["python3", "-c", SCRIPT, &repositories, "/", "/"];
    if image {
        words.extend([CONFIGROOT, ROOT]);
    }
    words.into_iter().map(str::to_owned).collect()
}

/// Parses the output of [`command`].
///
/// # Errors
/// [`Fault`] if it is something else.
pub fn parse(output: &[u8]) -> Result<Vec<Settings>> {
    let settings: Vec<Settings> = serde_json::from_slice(output)
        .map_err(|error| Fault::new(format!("Portage's settings cannot be read: {error}")))?;
    let has_chost = |one: &Settings| one.variables.get("CHOST").is_some_and(|chost| !chost.trim().is_empty());
    match settings.iter().all(has_chost) {
        true => Ok(settings),
        false => Err(Fault::new("Portage's settings have no CHOST")),
    }
}

impl Settings {
    /// Returns the header of an index of packages that are built with these settings, as Portage writes it.
    pub fn header(&self) -> BTreeMap<String, String> {
        let list = |name: &str| self.variables.get(name).map_or("", String::as_str).split_whitespace();
        let mut names: BTreeSet<String> = HEADER.iter().map(|name| (*name).to_owned()).collect();
        names.extend(list("USE_EXPAND_UNPREFIXED").chain(list("USE_EXPAND_IMPLICIT")).map(str::to_owned));
        names.extend(list("USE_EXPAND_IMPLICIT").map(|name| format!("USE_EXPAND_VALUES_{name}")));
        let values = names.into_iter().filter_map(|name| Some((name.clone(), self.variables.get(&name)?.clone())));
        let mut header: BTreeMap<String, String> =
            values.filter(|(_, value)| !value.is_empty() && !value.contains(char::is_control)).collect();
        header.insert("PROFILE".to_owned(), self.profile.rsplit(':').next().unwrap_or_default().to_owned());
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_parsed_and_give_a_header() {
        let text = r#"[{"variables": {"CHOST": "c", "USE_EXPAND_IMPLICIT": "ELIBC", "ELIBC": "musl",
            "USE_EXPAND_VALUES_ELIBC": "glibc musl", "HOME": "/root", "USE": ""}, "configured": ["USE"], "profile": "gentoo:a/b"}]"#;
        let settings = parse(text.as_bytes()).unwrap();
        let header = settings[0].header();
        let names: Vec<&str> = header.keys().map(String::as_str).collect();
        assert_eq!(names, ["CHOST", "ELIBC", "PROFILE", "USE_EXPAND_IMPLICIT", "USE_EXPAND_VALUES_ELIBC"]);
        assert_eq!(header["PROFILE"], "a/b");
        for wrong in ["", "{}", r#"[{"variables": {}, "configured": [], "profile": ""}]"#] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert_eq!((command(false).len(), command(true).len()), (6, 8));
    }
}
