//! Questions about stage3s, put to the mirrors in turn.

use super::super::freshness::{DAY, fresh};
use super::super::mirrors::{self, Answer};
use super::super::model::FileMeta;
use super::super::pointer::{self, Entry, Pointer};
use super::super::rollback::{self, SeenVersion};
use super::super::{Site, Trust, digests};
use super::{REFS, by, trusted, url};
use crate::base::error::{Error, Result};
use crate::base::text::printable;
use crate::base::time::{build_timestamp, now};
use crate::net::http::Http;
use crate::recipe::Source;
use crate::verify::{self, Evidence, Keyring, Signed};

/// Name of the list of all variants.
const ALL: &str = "latest-stage3.txt";

/// Longest signed document that is remembered, in bytes. Gentoo's digests take a few KiB.
const REMEMBERED: usize = 16 << 10;

pub(super) struct Ask<'a> {
    http: Http,
    /// The preferred mirror is first.
    mirrors: Vec<&'a str>,
    keyring: Keyring,
    arch: &'static str,
    max_age: u64,
    at: &'a Site<'a>,
}

impl<'a> Ask<'a> {
    pub(super) fn new(source: &'a Source, arch: &'static str, at: &'a Site<'a>) -> Result<Self> {
        let mirrors = source.mirrors.iter().map(String::as_str).collect();
        let keyring = Trust::of_source(source).keyring(at.store)?;
        Ok(Self { http: Http::default(), mirrors, keyring, arch, max_age: source.max_age, at })
    }

    pub(super) fn mirrors(&self) -> impl Iterator<Item = &str> {
        self.mirrors.iter().copied()
    }

    pub(super) fn arch(&self) -> &'static str {
        self.arch
    }

    /// Asks the mirror at `index` first from now on.
    pub(super) fn prefer(&mut self, index: usize) {
        self.mirrors = mirrors::preferring(&self.mirrors, index);
    }

    /// Returns the entry of the variant in a signed pointer, and the index of the mirror that has it.
    pub(super) fn latest(&self, variant: &str) -> Result<(usize, Entry)> {
        let path = format!("latest-stage3-{variant}.txt");
        let found = self.each(&path, |mirror| {
            let url = url(mirror, self.arch, &path);
            let pointer = match self.pointer(&url)? {
                Answer::Found(pointer) => pointer,
                Answer::Missing(why) => return Ok(Answer::Missing(why)),
            };
            match pointer.entry(variant)? {
                Some(entry) => self.checked(&url, &path, &pointer, entry).map(Answer::Found),
                None => Err(Error::refused(format!(
                    "{}: the signed list does not name stage3 {variant}, but {}",
                    printable(&url),
                    pointer.names()
                ))
                .with_hint("another list was put in its place")),
            }
        })?;
        match found {
            Answer::Found(found) => Ok(found),
            Answer::Missing(_) => self.latest_of_all(variant),
        }
    }

    /// Looks in the list of all variants, for a variant without a list of its own.
    fn latest_of_all(&self, variant: &str) -> Result<(usize, Entry)> {
        let mut offered: Vec<String> = Vec::new();
        let found = self.each(ALL, |mirror| {
            let url = url(mirror, self.arch, ALL);
            let pointer = match self.pointer(&url)? {
                Answer::Found(pointer) => pointer,
                Answer::Missing(why) => return Ok(Answer::Missing(why)),
            };
            if let Some(entry) = pointer.entry(variant)? {
                return self.checked(&url, ALL, &pointer, entry).map(Answer::Found);
            }
            offered.extend(pointer.entries.into_iter().map(|entry| entry.variant));
            Ok(Answer::Missing(format!("{}: it does not name stage3 {variant}\n", printable(&url))))
        });
        match found {
            Ok(Answer::Found(found)) => Ok(found),
            Err(error) if offered.is_empty() => Err(error),
            _ => {
                offered.sort();
                offered.dedup();
                let hint = if offered.is_empty() {
                    "source.stage3 must be the name exactly as in latest-stage3-<name>.txt, such as amd64-openrc"
                        .to_owned()
                } else {
                    format!("offered for {}: {}", self.arch, offered.join(", "))
                };
                Err(Error::network(format!("no mirror has a stage3 called {variant}")).with_hint(hint))
            }
        }
    }

    /// Returns the list of all variants. Nothing is remembered of it.
    pub(super) fn offers(&self) -> Result<Answer<(usize, Pointer)>> {
        self.each(ALL, |mirror| {
            let url = url(mirror, self.arch, ALL);
            let found = self.pointer(&url)?;
            if let Answer::Found(pointer) = &found {
                for entry in &pointer.entries {
                    not_from_the_future(&url, pointer, entry)?;
                    let version = seen_version(ALL, pointer, entry);
                    rollback::look(self.at.store, &self.keyring, &printable(&url), &version)?;
                }
            }
            Ok(found)
        })
    }

    /// Downloads a pointer, and checks its signature and its age.
    fn pointer(&self, url: &str) -> Result<Answer<Pointer>> {
        let bytes = match mirrors::document(&self.http, url)? {
            Answer::Found(bytes) => bytes,
            Answer::Missing(why) => return Ok(Answer::Missing(why)),
        };
        let Signed { text, signer } = verify::clearsigned(&printable(url), &bytes, &self.keyring)?;
        let mut pointer = pointer::parse(&text)?;
        // A list without a time of its own is at least not older than its signature.
        let published = *pointer.published.get_or_insert(signer.created);
        fresh(url, published, now(), self.max_age)?;
        Ok(Answer::Found(pointer))
    }

    /// Returns the entry, unless a newer one of its variant was seen before in this list or the other.
    fn checked(&self, url: &str, list: &str, pointer: &Pointer, entry: &Entry) -> Result<Entry> {
        not_from_the_future(url, pointer, entry)?;
        rollback::check(&self.keyring, &printable(url), &seen_version(list, pointer, entry), self.at)?;
        Ok(entry.clone())
    }

    /// Returns the first of these files that the store remembers as verified.
    pub(super) fn remembered(&self, names: &[String], size: Option<u64>) -> Result<Option<(String, FileMeta)>> {
        for name in names {
            if let Some(meta) = trusted(self.at.store, name, &self.keyring)?
                && (size.is_none() || meta.size.is_none() || meta.size == size)
            {
                return Ok(Some((name.clone(), FileMeta { size: meta.size.or(size), ..meta })));
            }
        }
        Ok(None)
    }

    /// Finds the first of these files that a mirror has, and remembers it.
    pub(super) fn found(
        &self,
        names: &[String],
        timestamp: &str,
        size: Option<u64>,
    ) -> Result<(String, FileMeta, Evidence)> {
        for name in names {
            let path = format!("{timestamp}/{name}");
            let meta = FileMeta { size, timestamp: Some(timestamp.to_owned()), ..FileMeta::new(self.keyring.id()) };
            if let Some(meta) = self.digests(name, &path, &meta)? {
                self.at.store.write_ref(REFS, name, &meta)?;
                return Ok((name.clone(), meta, Evidence::Digest));
            }
            let signature = self.each(&format!("{name}.asc"), |mirror| {
                mirrors::document(&self.http, &url(mirror, self.arch, &format!("{path}.asc")))
            })?;
            if let Answer::Found((_, signature)) = signature {
                let trust_basis = "detached signature (there are no DIGESTS)".to_owned();
                let evidence = Evidence::Detached { signature, keyring: self.keyring.clone() };
                return Ok((name.clone(), FileMeta { trust_basis, ..meta }, evidence));
            }
        }
        Err(Error::network(format!("no mirror has {}", names.first().map_or("it", String::as_str))).with_hint(
            "mirrors keep a build for about five weeks; use source.version = \"latest\", or a file of your own (source.file)",
        ))
    }

    /// Reads the digests of a tarball from its signed DIGESTS. `None` when no mirror has them.
    fn digests(&self, name: &str, path: &str, meta: &FileMeta) -> Result<Option<FileMeta>> {
        let found = self.each(&format!("{name}.DIGESTS"), |mirror| {
            let url = url(mirror, self.arch, &format!("{path}.DIGESTS"));
            let bytes = match mirrors::document(&self.http, &url)? {
                Answer::Found(bytes) => bytes,
                Answer::Missing(why) => return Ok(Answer::Missing(why)),
            };
            let Signed { text, signer } = verify::clearsigned(&printable(&url), &bytes, &self.keyring)?;
            let digests = digests::parse(&text)?;
            let Some(sha512) = digests.sha512(name)? else {
                return Err(Error::refused(format!(
                    "{}: the signed digests give no SHA512 for {name}, but {}",
                    printable(&url),
                    digests.given()
                )));
            };
            Ok(Answer::Found(FileMeta {
                sha512: Some(sha512),
                blake2b: digests.blake2b(name)?,
                trust_basis: by(&signer),
                signer: Some(signer),
                digests: String::from_utf8(bytes).ok().filter(|signed| signed.len() <= REMEMBERED),
                ..meta.clone()
            }))
        })?;
        Ok(match found {
            Answer::Found((_, meta)) => Some(meta),
            Answer::Missing(_) => None,
        })
    }

    fn each<T>(&self, what: &str, ask: impl FnMut(&str) -> Result<Answer<T>>) -> Result<Answer<(usize, T)>> {
        mirrors::each(&self.mirrors, what, self.at.ui, ask)
    }
}

fn seen_version(list: &str, pointer: &Pointer, entry: &Entry) -> SeenVersion {
    SeenVersion {
        of: format!("stage3-{}", entry.variant),
        list: list.to_owned(),
        published: pointer.published.unwrap_or_default(),
        build: entry.timestamp.clone(),
    }
}

/// Refuses a build made after the list that names it. If it were remembered, every real build would look old.
fn not_from_the_future(url: &str, pointer: &Pointer, entry: &Entry) -> Result<()> {
    let latest = build_timestamp(pointer.published.unwrap_or_default() + DAY);
    if entry.timestamp > latest {
        return Err(Error::refused(format!(
            "{}: the signed list names a build from its future: {}",
            printable(url),
            entry.name()
        )));
    }
    Ok(())
}
