//! The index of a host, reduced to the packages that the recipe takes from it; and the comparison of a package with it.

use std::collections::BTreeSet;

use super::directory;
use crate::base::error::{Error, Result};
use crate::base::text::plain;
use crate::portage::binpkg::index::{Index, Stanza};
use crate::portage::installed::split_version;
use crate::recipe::Binhost;

/// The keys that decide if a package is taken, and what is installed with it.
const COMPARED: [&str; 17] = [
    "CPV",
    "SLOT",
    "USE",
    "IUSE",
    "EAPI",
    "REPO",
    "CHOST",
    "KEYWORDS",
    "LICENSE",
    "PROPERTIES",
    "RESTRICT",
    "RDEPEND",
    "PDEPEND",
    "IDEPEND",
    "BUILD_ID",
    "BUILD_TIME",
    "USER_PATCHES",
];

/// The packages that a recipe may take from a host.
#[derive(Debug, Default)]
pub struct HostIndex {
    index: Index,
}

impl HostIndex {
    /// Reads the index of the host with this number (from 1), and leaves out the packages that the recipe does not take from it.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::base::error::Kind::Refused) if it cannot be read, or names a package without a digest or a file twice.
    pub fn read(host: &Binhost, number: usize, bytes: &[u8]) -> Result<Self> {
        let refused = |why: &str| {
            Error::refused(format!("reading the index of {}: {}", plain(&host.url, 200), plain(why, 200)))
                .with_hint("`emaint --fix binhost` of Portage writes an index again")
        };
        let mut index = Index::read(bytes).map_err(|fault| refused(&fault.to_string()))?;
        let moved = index.header.get("URI").filter(|uri| uri.starts_with("https://") || uri.starts_with("http://"));
        let at = match (directory(host, number), moved) {
            (Some(path), _) => format!("file://{path}"),
            (None, Some(uri)) if uri.starts_with("https://") || !host.url.starts_with("https://") => uri.clone(),
            (None, _) => host.url.clone(),
        };
        index.header.insert("URI".to_owned(), at);
        index.packages.retain(|package| takes(host, package));
        let mut paths = BTreeSet::new();
        for package in &index.packages {
            let path = package.path().ok_or_else(|| refused(&format!("{} has no valid path", package.cpv())))?;
            if package.get("SIZE").is_empty() || (package.get("SHA1").is_empty() && package.get("MD5").is_empty()) {
                return Err(refused(&format!("{} has no size or no digest", package.cpv())));
            }
            if !paths.insert(path) {
                return Err(refused(&format!("{path} is named twice")));
            }
        }
        Ok(Self { index })
    }

    /// Returns the text that Portage reads in place of the host's index.
    pub fn text(&self) -> String {
        self.index.text(self.timestamp().and_then(|time| time.parse().ok()).unwrap_or(0))
    }

    /// Returns the time at which the host wrote its index, in seconds since 1970.
    pub fn timestamp(&self) -> Option<&str> {
        self.index.header.get("TIMESTAMP").map(String::as_str)
    }

    /// Returns the packages.
    pub fn packages(&self) -> &[Stanza] {
        &self.index.packages
    }

    /// Returns the keys in which a package differs from its stanza in the index, with both values.
    pub fn differences(&self, stanza: &Stanza, package: &Stanza) -> Vec<String> {
        let value = |of: &Stanza, key: &str| match (of.get(key), key) {
            ("", "SLOT" | "EAPI") => "0".to_owned(),
            ("", "REPO") => self.index.header.get("REPO").cloned().unwrap_or_default(),
            (value, _) => value.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        let differs = |key: &&str| value(stanza, key) != value(package, key);
        let shown = |key| {
            let (named, real) = (plain(&value(stanza, key), 200), plain(&value(package, key), 200));
            format!("{key}: the index says \"{named}\", the package says \"{real}\"")
        };
        let facts = ["SIZE", "MD5", "SHA1"].into_iter().filter(|key| !stanza.get(key).is_empty());
        COMPARED.into_iter().chain(facts).filter(differs).map(shown).collect()
    }
}

/// Returns true if the recipe takes a package from a host.
fn takes(host: &Binhost, package: &Stanza) -> bool {
    let slot = package.get("SLOT").split('/').next().filter(|slot| !slot.is_empty()).unwrap_or("0");
    let name = package_name(package.cpv());
    let fits = |pattern: &String| {
        let (pattern, wanted) =
            pattern.split_once(':').map_or((pattern.as_str(), None), |(name, slot)| (name, Some(slot)));
        matches(pattern.as_bytes(), name.as_bytes()) && wanted.is_none_or(|wanted| wanted == slot)
    };
    (host.only.is_empty() || host.only.iter().any(fits)) && !host.exclude.iter().any(fits)
}

/// Returns `category/package` of `category/package-version`.
pub fn package_name(cpv: &str) -> &str {
    split_version(cpv).map_or(cpv, |(name, _)| name)
}

/// Returns true if a text fits a pattern in which `*` stands for any text.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skipped| matches(rest, &text[skipped..])),
        Some((byte, rest)) => text.first() == Some(byte) && matches(rest, &text[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::fixture::binhost as host;

    const INDEX: &str = "ARCH: amd64\nCHOST: x86_64-pc-linux-musl\nTIMESTAMP: 1795825081\nURI: https://packages.example/x\nVERSION: 0\n\n\
        CPV: app-test/tiny-1\nMD5: 00\nPATH: app-test/tiny/tiny-1-1.gpkg.tar\nSIZE: 1\nUSE: foo\n\n\
        CPV: dev-lang/python-3.12.1-r1\nMD5: 01\nPATH: dev-lang/python/python-3.12.1-r1-1.gpkg.tar\nSIZE: 1\nSLOT: 3.12/x\n\n\
        CPV: dev-lang/python-exec-2\nMD5: 02\nPATH: p\nSIZE: 1\n\n";

    fn read(host: &Binhost, text: &str) -> Result<HostIndex> {
        HostIndex::read(host, 1, text.as_bytes())
    }

    fn taken(only: &[&str], exclude: &[&str]) -> Vec<String> {
        let list = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let host = Binhost { only: list(only), exclude: list(exclude), ..host("https://h.example") };
        read(&host, INDEX).unwrap().packages().iter().map(|package| package.cpv().to_owned()).collect()
    }

    #[test]
    fn a_recipe_takes_some_packages_of_a_host() {
        assert_eq!(taken(&[], &[]).len(), 3);
        assert_eq!(taken(&["dev-lang/python"], &[]), ["dev-lang/python-3.12.1-r1"]);
        assert_eq!(taken(&["dev-lang/python:3.12", "app-*/*"], &["*/tiny"]), ["dev-lang/python-3.12.1-r1"]);
        assert_eq!(taken(&["dev-lang/python:3.11"], &[]), [""; 0]);
        assert_eq!(taken(&[], &["dev-lang/*"]), ["app-test/tiny-1"]);
    }

    #[test]
    fn packages_come_from_where_the_index_says_but_never_over_a_weaker_connection() {
        let uri = |url: &str, text: &str| read(&host(url), text).unwrap().index.header["URI"].clone();
        assert_eq!(uri("https://h.example", INDEX), "https://packages.example/x");
        assert_eq!(uri("https://h.example", &INDEX.replace("https:", "http:")), "https://h.example");
        assert_eq!(uri("http://h.example", &INDEX.replace("https:", "http:")), "http://packages.example/x");
        assert_eq!(uri("https://h.example", &INDEX.replace("https:", "file:")), "https://h.example");
        assert_eq!(uri("file:///srv/packages", INDEX), "file:///quern/packages/1");
        let text = read(&host("https://h.example"), INDEX).unwrap().text();
        assert!(text.contains("TIMESTAMP: 1795825081\n") && text.contains("CPV: dev-lang/python-exec-2\n"), "{text}");
    }

    #[test]
    fn an_index_that_does_not_bind_its_packages_is_refused() {
        let host = host("https://h.example");
        for (from, to, why) in [
            ("MD5: 02\n", "", "no digest"),
            ("PATH: p\n", "PATH: ../p\n", "no valid path"),
            ("PATH: p\n", "PATH: app-test/tiny/tiny-1-1.gpkg.tar\n", "named twice"),
            ("VERSION: 0\n", "VERSION: 1\n", "version"),
        ] {
            let error = read(&host, &INDEX.replace(from, to)).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn a_package_that_differs_from_its_stanza_is_found() {
        let index = read(&host("https://h.example"), INDEX).unwrap();
        let stanza = index.packages()[0].clone();
        assert_eq!(index.differences(&stanza, &stanza), [""; 0]);
        let mut package = stanza.clone();
        package.set("USE", "bar");
        package.set("SLOT", "0");
        assert_eq!(index.differences(&stanza, &package), ["USE: the index says \"foo\", the package says \"bar\""]);
    }
}
