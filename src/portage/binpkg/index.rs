//! The index of a directory of binary packages: the file `Packages`, as Portage reads and writes it.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use flate2::read::MultiGzDecoder;
use md5::Digest as _;

use super::depend::{Use, evaluated};
use super::gpkg::Metadata;
use super::{Fault, Result};
use crate::base::digest::hex;

/// Longest index in bytes, unpacked. Gentoo's own has about 20 MB.
const MAX_INDEX: u64 = 256 << 20;

/// The keys of a stanza that come from the metadata, by their names there.
const FROM_METADATA: [&str; 22] = [
    "BDEPEND",
    "BUILD_ID",
    "BUILD_TIME",
    "CHOST",
    "DEFINED_PHASES",
    "DEPEND",
    "EAPI",
    "IDEPEND",
    "IUSE",
    "KEYWORDS",
    "LICENSE",
    "PDEPEND",
    "PROPERTIES",
    "PROVIDES",
    "RDEPEND",
    "REPO_REVISIONS",
    "REQUIRES",
    "RESTRICT",
    "SLOT",
    "USE",
    "USER_PATCHES",
    "repository",
];
/// The keys whose USE conditionals are evaluated.
const EVALUATED: [&str; 8] =
    ["BDEPEND", "DEPEND", "IDEPEND", "LICENSE", "PDEPEND", "PROPERTIES", "RDEPEND", "RESTRICT"];
/// Names in the file that differ from those that Portage sorts by.
const RENAMED: [(&str, &str); 3] = [("DESC", "DESCRIPTION"), ("MTIME", "_mtime_"), ("REPO", "repository")];

/// An index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// The header, such as `ARCH` and `CHOST`. `TIMESTAMP`, `PACKAGES` and `VERSION` are set when it is written.
    pub header: BTreeMap<String, String>,
    /// The packages.
    pub packages: Vec<Stanza>,
}

/// A package in an index: keys as they are in the file, such as `CPV`, `MTIME` and `REPO`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stanza {
    fields: BTreeMap<String, String>,
}

/// Facts about the file of a package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileFacts {
    /// Path below the index, such as `sys-apps/sed/sed-4.9-1.gpkg.tar`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// MD5 in hex.
    pub md5: String,
    /// SHA-1 in hex.
    pub sha1: String,
}

impl FileFacts {
    /// Reads the file that `input` gives, and computes the digests that an index contains. They find damage; they prove nothing.
    ///
    /// # Errors
    /// Those of `input`.
    pub fn read(path: String, mtime: i64, input: &mut dyn Read) -> std::io::Result<Self> {
        let (mut md5, mut sha1, mut size) = (md5::Md5::new(), sha1::Sha1::new(), 0);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            md5.update(&buffer[..count]);
            sha1.update(&buffer[..count]);
            size += count as u64;
        }
        Ok(Self { path, size, mtime, md5: hex(&md5.finalize()), sha1: hex(&sha1.finalize()) })
    }
}

impl Stanza {
    /// The stanza of a package with this metadata in this file.
    ///
    /// # Errors
    /// [`Fault`] if the metadata lack a name or a slot, or have a dependency that cannot be read.
    pub fn new(metadata: &Metadata, file: &FileFacts) -> Result<Self> {
        let mut fields = BTreeMap::new();
        let enabled = metadata.value("USE");
        let enabled: Use<'_> = enabled.split(' ').collect();
        for key in FROM_METADATA {
            let mut value = metadata.value(key);
            if EVALUATED.contains(&key) {
                value = evaluated(&value, &enabled, key.ends_with("DEPEND"))?;
            }
            if value.contains(char::is_control) {
                return Err(Fault::new(format!("{key} contains a control character")));
            }
            fields.insert(if key == "repository" { "REPO" } else { key }.to_owned(), value);
        }
        if fields.get("SLOT").is_none_or(String::is_empty) {
            return Err(Fault::new("the metadata have no SLOT"));
        }
        let own = [
            ("CPV", metadata.cpv()?),
            ("MD5", file.md5.clone()),
            ("MTIME", file.mtime.to_string()),
            ("PATH", file.path.clone()),
            ("SHA1", file.sha1.clone()),
            ("SIZE", file.size.to_string()),
        ];
        fields.extend(own.map(|(key, value)| (key.to_owned(), value)));
        fields.retain(|_, value| !value.is_empty());
        Ok(Self { fields })
    }

    /// Returns the value of a key; empty if it is not there.
    pub fn get(&self, key: &str) -> &str {
        self.fields.get(key).map_or("", String::as_str)
    }

    /// Sets a key. Portage ignores keys that it does not know. An empty value removes the key, since an index has none.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.fields.insert(key.to_owned(), value.into());
        self.fields.retain(|_, value| !value.is_empty());
    }

    /// Returns the path of the package below the index. Paths that leave the directory and absolute ones count as none.
    pub fn path(&self) -> Option<&str> {
        let path = self.get("PATH");
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        (path.split('/').all(plain) && !path.contains(char::is_control)).then_some(path)
    }

    /// Returns `category/package-version`.
    pub fn cpv(&self) -> &str {
        self.get("CPV")
    }

    /// Removes the keys for which `wanted` returns false.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.fields.retain(|name, _| wanted(name));
    }

    /// Returns all keys and values.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl Index {
    /// Reads `Packages`, or `Packages.gz`, of at most 256 MiB.
    ///
    /// # Errors
    /// [`Fault`] if it is too large, damaged or not text.
    pub fn read(input: &[u8]) -> Result<Self> {
        let mut plain = Vec::new();
        let read = match input.starts_with(&[0x1f, 0x8b]) {
            true => MultiGzDecoder::new(input).take(MAX_INDEX + 1).read_to_end(&mut plain),
            false => (&mut &*input).take(MAX_INDEX + 1).read_to_end(&mut plain),
        };
        read.map_err(|error| Fault::new(format!("the index is damaged: {error}")))?;
        if plain.len() as u64 > MAX_INDEX {
            return Err(Fault::new("the index is too large"));
        }
        let text = String::from_utf8(plain).map_err(|_| Fault::new("the index is not text"))?;
        Self::parse(&text)
    }

    /// Parses the text of an index. Values that a stanza inherits from the header, and those that an index leaves out, are filled in.
    ///
    /// # Errors
    /// [`Fault`] for another version of the format.
    pub fn parse(text: &str) -> Result<Self> {
        let mut index = Self::default();
        let mut lines = text.lines();
        index.header = stanza(&mut lines);
        if index.header.get("VERSION").is_some_and(|version| version.parse::<f64>().is_ok_and(|version| version > 0.0))
        {
            return Err(Fault::new("the index has a version of its format that is not known"));
        }
        let chost = index.header.get("CHOST").cloned();
        loop {
            let mut fields = stanza(&mut lines);
            if fields.is_empty() {
                return Ok(index);
            }
            if fields.get("CPV").is_none_or(String::is_empty) {
                continue;
            }
            for (key, default) in [("CHOST", chost.as_deref()), ("EAPI", Some("0")), ("SLOT", Some("0"))] {
                if let Some(default) = default {
                    fields.entry(key.to_owned()).or_insert_with(|| default.to_owned());
                }
            }
            index.packages.push(Stanza { fields });
        }
    }

    /// Writes the index, whose `TIMESTAMP` is `now` in seconds since 1970.
    pub fn text(&self, now: i64) -> String {
        let mut header = self.header.clone();
        header.insert("PACKAGES".to_owned(), self.packages.len().to_string());
        header.insert("TIMESTAMP".to_owned(), now.to_string());
        header.insert("VERSION".to_owned(), "0".to_owned());
        let mut out = String::new();
        write(&mut out, header.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect());
        let mut packages: Vec<&Stanza> = self.packages.iter().collect();
        packages.sort_by(|a, b| (a.cpv(), a.get("PATH")).cmp(&(b.cpv(), b.get("PATH"))));
        for package in packages {
            let default = |key: &str, value: &str| match key {
                "EAPI" | "SLOT" => value == "0",
                "CHOST" => header.get(key).is_some_and(|own| own == value),
                _ => false,
            };
            write(&mut out, package.fields().filter(|(key, value)| !default(key, value)).collect());
        }
        out
    }

    /// Compresses a text from [`Index::text`] for `Packages.gz`. Equal texts give equal bytes.
    pub fn compressed(text: &str) -> Vec<u8> {
        let mut encoder = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::default());
        // Writing to memory does not fail.
        encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).unwrap_or_default()
    }
}

/// Reads the lines up to the next empty one. A line with a control character is left out.
fn stanza<'a>(lines: &mut impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let lines = lines.take_while(|line| !line.is_empty());
    let lines = lines.filter(|line| !line.contains(char::is_control));
    let field = |line: &str| {
        let (key, value) = line.split_once(':')?;
        Some((key.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned()))
    };
    lines.filter_map(field).collect()
}

/// Writes keys in Portage's order, and an empty line.
fn write(out: &mut String, mut fields: Vec<(&str, &str)>) {
    let own = |key: &'_ str| {
        RENAMED.iter().find(|(file, _)| *file == key).map_or(key.to_owned(), |(_, own)| (*own).to_owned())
    };
    fields.sort_by_key(|(key, _)| own(key));
    for (key, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        out.push_str(&format!("{key}: {value}\n"));
    }
    out.push('\n');
}

#[cfg(test)]
mod tests;
