//! Gentoo's mirrors: `releases/<arch>/autobuilds/`, the signed pointer to the latest build, its signed digests.

use super::digests;
use super::fetch::{FailureKind, Http};
use super::memory::{self, Sighting};
use super::pointer::{self, Entry, Pointer};
use super::{Facts, Located, Place, Proof, Site, keyring};
use crate::base::arch;
use crate::base::digest::{Algorithm, Sha512};
use crate::base::error::{Error, Kind, Result};
use crate::base::text::printable;
use crate::base::time::{build_timestamp, now, readable};
use crate::recipe::{Source, Version};
use crate::store::Store;
use crate::verify::{self, Keyring, MAX_DOCUMENT, Signed, Signer};

/// Kind of the refs that hold [`Facts`] by file name.
const REFS: &str = "stage3";

const DAY: u64 = 86_400;

/// What one mirror said.
enum Answer<T> {
    Found(T),
    Missing(String),
}

/// A question put to the mirrors in turn.
struct Ask<'a> {
    http: Http,
    mirrors: Vec<&'a str>,
    keyring: Keyring,
    arch: &'static str,
    max_age: u64,
    at: &'a Site<'a>,
}

pub(super) fn locate(source: &Source, variant: &str, version: &Version, at: &Site<'_>) -> Result<Located> {
    at.ui.stage(&format!("looking for stage3 {}", printable(variant)));
    let mut ask = Ask {
        http: Http::default(),
        mirrors: source.mirrors.iter().map(String::as_str).collect(),
        keyring: keyring(source, at.store)?,
        arch: checked(variant)?,
        max_age: source.max_age,
        at,
    };
    let hint = |error: Error| with_offline_hint(error, source, variant, version, at.store);
    let (names, timestamp, size) = match version {
        Version::Latest => {
            let (index, entry) = ask.latest(variant).map_err(hint)?;
            // The mirror that just answered well is asked first from now on.
            let good = ask.mirrors.remove(index);
            ask.mirrors.insert(0, good);
            (vec![entry.name()], entry.timestamp, Some(entry.size))
        }
        Version::Timestamp(timestamp) => {
            if !pointer::is_timestamp(timestamp) {
                return Err(Error::usage(format!("source.version: {} is not YYYYMMDDTHHMMSSZ", printable(timestamp))));
            }
            // Without a list nothing says how that day's builds were compressed.
            let names = pointer::SUFFIXES.iter().map(|suffix| format!("stage3-{variant}-{timestamp}{suffix}"));
            (names.collect(), timestamp.clone(), None)
        }
    };
    let (name, facts, proof) = match ask.remembered(&names, size)? {
        Some((name, facts)) => (name, facts, Proof::Digest),
        None => ask.found(&names, &timestamp, size).map_err(hint)?,
    };
    let urls = ask.mirrors.iter().map(|mirror| url(mirror, ask.arch, &format!("{timestamp}/{name}"))).collect();
    at.ui.done();
    let remember = (REFS, name.clone());
    Ok(Located { name, place: Place::Urls(urls), proof, facts, offline: false, remember, dated: None, sha256: None })
}

/// What the first mirror that answers well offers for an architecture's directory, by its signed list of all variants.
pub fn offers(source: &Source, arch: &str, at: &Site<'_>) -> Result<Pointer> {
    let known = arch::directories();
    let Some(arch) = known.clone().find(|known| *known == arch) else {
        let known: Vec<&str> = known.collect();
        return Err(Error::usage(format!("{} is no directory of a mirror", printable(arch)))
            .with_hint(format!("one of {}", known.join(", "))));
    };
    at.ui.stage(&format!("looking for stage3s of {arch}"));
    let ask = Ask {
        http: Http::default(),
        mirrors: source.mirrors.iter().map(String::as_str).collect(),
        keyring: keyring(source, at.store)?,
        arch,
        max_age: source.max_age,
        at,
    };
    let list = "latest-stage3.txt";
    let found = ask.each(list, |mirror| {
        let url = url(mirror, arch, list);
        match ask.document(&url)? {
            Answer::Found(bytes) => {
                let pointer = ask.pointer(&url, &bytes)?;
                for entry in &pointer.entries {
                    not_from_the_future(&url, &pointer, entry)?;
                    memory::look(at.store, &ask.keyring, &printable(&url), &sighting(list, &pointer, entry))?;
                }
                Ok(Answer::Found(pointer))
            }
            Answer::Missing(why) => Ok(Answer::Missing(why)),
        }
    })?;
    at.ui.done();
    found
        .map(|(_, pointer)| pointer)
        .ok_or_else(|| Error::network(format!("no mirror lists stage3s of {arch}")).with_hint("check source.mirrors"))
}

/// The newest remembered build of the variant, or the one of the timestamp.
pub(super) fn known(source: &Source, variant: &str, version: &Version, store: &Store) -> Result<Option<Located>> {
    let arch = checked(variant)?;
    let keyring = keyring(source, store)?;
    let mut candidates: Vec<(bool, String, String, Facts)> = Vec::new();
    for name in store.ref_names(REFS)? {
        if let Some((found, timestamp, _)) = pointer::split_name(&name)
            && found == variant
            && !matches!(version, Version::Timestamp(wanted) if wanted != timestamp)
            && let Some(facts) = trusted(store, &name, &keyring)?
        {
            candidates.push((facts.fetched, timestamp.to_owned(), name.clone(), facts));
        }
    }
    // What was fetched once is worth more offline than something newer that never was.
    let newest = candidates.into_iter().max_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    Ok(newest.map(|(_, timestamp, name, facts)| {
        let urls = of_mirrors(source, arch, &timestamp, &name);
        let remember = (REFS, name.clone());
        Located {
            name,
            place: Place::Urls(urls),
            proof: Proof::Digest,
            facts,
            offline: true,
            remember,
            dated: None,
            sha256: None,
        }
    }))
}

/// Digests and names of all remembered builds.
pub(super) fn names(store: &Store) -> Result<Vec<(Sha512, String)>> {
    let mut names = Vec::new();
    for name in store.ref_names(REFS)? {
        let facts = store.read_ref::<Facts>(REFS, &name)?;
        names.extend(facts.and_then(|facts| facts.sha512).map(|sha512| (sha512, name)));
    }
    Ok(names)
}

/// Where every mirror would have a build.
pub(super) fn urls(source: &Source, variant: &str, timestamp: &str, name: &str) -> Result<Vec<String>> {
    Ok(of_mirrors(source, checked(variant)?, timestamp, name))
}

fn of_mirrors(source: &Source, arch: &str, timestamp: &str, name: &str) -> Vec<String> {
    source.mirrors.iter().map(|mirror| url(mirror, arch, &format!("{timestamp}/{name}"))).collect()
}

pub(super) fn first_urls(source: &Source, variant: &str, version: &Version) -> Result<Vec<String>> {
    let arch = checked(variant)?;
    let path = match version {
        Version::Latest => format!("latest-stage3-{variant}.txt"),
        Version::Timestamp(timestamp) => format!("{timestamp}/stage3-{variant}-{timestamp}.tar.xz.DIGESTS"),
    };
    Ok(source.mirrors.iter().map(|mirror| url(mirror, arch, &path)).collect())
}

impl Ask<'_> {
    /// The mirror's number and the entry that its signed pointer has for the variant.
    fn latest(&self, variant: &str) -> Result<(usize, Entry)> {
        let path = format!("latest-stage3-{variant}.txt");
        let found = self.each(&path, |mirror| {
            let url = url(mirror, self.arch, &path);
            let bytes = match self.document(&url)? {
                Answer::Found(bytes) => bytes,
                Answer::Missing(why) => return Ok(Answer::Missing(why)),
            };
            let pointer = self.pointer(&url, &bytes)?;
            match pointer.entry(variant)? {
                Some(entry) => self.not_seen_newer(&url, &path, &pointer, entry).map(Answer::Found),
                None => Err(Error::refused(format!(
                    "{}: the signed list does not name stage3 {variant}, but {}",
                    printable(&url),
                    pointer.names()
                ))
                .with_hint("another list was put in its place")),
            }
        })?;
        match found {
            Some(found) => Ok(found),
            None => self.latest_of_all(variant),
        }
    }

    /// From the list of all variants, where a variant has no list of its own.
    fn latest_of_all(&self, variant: &str) -> Result<(usize, Entry)> {
        let mut offered: Vec<String> = Vec::new();
        let found = self.each("latest-stage3.txt", |mirror| {
            let url = url(mirror, self.arch, "latest-stage3.txt");
            let bytes = match self.document(&url)? {
                Answer::Found(bytes) => bytes,
                Answer::Missing(why) => return Ok(Answer::Missing(why)),
            };
            let pointer = self.pointer(&url, &bytes)?;
            if let Some(entry) = pointer.entry(variant)? {
                return self.not_seen_newer(&url, "latest-stage3.txt", &pointer, entry).map(Answer::Found);
            }
            offered.extend(pointer.entries.into_iter().map(|entry| entry.variant));
            Ok(Answer::Missing(format!("{}: it does not name stage3 {variant}", printable(&url))))
        });
        match found {
            Ok(Some(found)) => Ok(found),
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

    /// Verifies a pointer and that it is fresh.
    fn pointer(&self, url: &str, bytes: &[u8]) -> Result<Pointer> {
        let Signed { text, signer } = verify::clearsigned(&printable(url), bytes, &self.keyring)?;
        let mut pointer = pointer::parse(&text)?;
        // Lists without a time of their own are at least not older than their signature.
        let published = *pointer.published.get_or_insert(signer.created);
        fresh(url, published, now(), self.max_age)?;
        Ok(pointer)
    }

    /// The entry, unless a newer one of its variant was seen before, in this list or the other.
    fn not_seen_newer(&self, url: &str, list: &str, pointer: &Pointer, entry: &Entry) -> Result<Entry> {
        not_from_the_future(url, pointer, entry)?;
        let sighting = sighting(list, pointer, entry);
        memory::check(&self.keyring, &printable(url), &sighting, self.at)?;
        Ok(entry.clone())
    }

    /// The first of these files that the store remembers well.
    fn remembered(&self, names: &[String], size: Option<u64>) -> Result<Option<(String, Facts)>> {
        for name in names {
            if let Some(facts) = trusted(self.at.store, name, &self.keyring)?
                && (size.is_none() || facts.size.is_none() || facts.size == size)
            {
                return Ok(Some((name.clone(), Facts { size: facts.size.or(size), ..facts })));
            }
        }
        Ok(None)
    }

    /// The first of these files that a mirror has, remembered from now on.
    fn found(&self, names: &[String], timestamp: &str, size: Option<u64>) -> Result<(String, Facts, Proof)> {
        for name in names {
            if let Some((facts, proof)) = self.facts(name, timestamp, size)? {
                if facts.sha512.is_some() {
                    self.at.store.write_ref(REFS, name, &facts)?;
                }
                return Ok((name.clone(), facts, proof));
            }
        }
        Err(Error::network(format!("no mirror has {}", names.first().map_or("it", String::as_str)))
            .with_hint("mirrors keep a build for about five weeks; use source.version = \"latest\", or a file of your own (source.file)"))
    }

    /// What the tarball must be: from its signed digests; where no mirror has them, its detached signature. None where no mirror
    /// has that either.
    fn facts(&self, name: &str, timestamp: &str, size: Option<u64>) -> Result<Option<(Facts, Proof)>> {
        let mut facts = Facts {
            size,
            sha512: None,
            blake2b: None,
            timestamp: Some(timestamp.to_owned()),
            signer: None,
            how: String::new(),
            verified_at: now(),
            trust: self.keyring.id().to_owned(),
            signature: None,
            digests: None,
            fetched: false,
        };
        let digests = self.each(&format!("{name}.DIGESTS"), |mirror| {
            let url = url(mirror, self.arch, &format!("{timestamp}/{name}.DIGESTS"));
            let bytes = match self.document(&url)? {
                Answer::Found(bytes) => bytes,
                Answer::Missing(why) => return Ok(Answer::Missing(why)),
            };
            let Signed { text, signer } = verify::clearsigned(&printable(&url), &bytes, &self.keyring)?;
            let digests = digests::parse(&text)?;
            let Some(sha512) = digests.of(name, Algorithm::Sha512)? else {
                return Err(Error::refused(format!(
                    "{}: the signed digests give no SHA512 for {name}, but {}",
                    printable(&url),
                    digests.given()
                )));
            };
            let blake2b = digests.of(name, Algorithm::Blake2b)?.map(str::to_owned);
            // Gentoo's are a few KiB; a ref is small.
            let signed = String::from_utf8(bytes).ok().filter(|signed| signed.len() <= 16 << 10);
            Ok(Answer::Found((digests::sha512(sha512)?, blake2b, signer, signed)))
        })?;
        if let Some((_, (sha512, blake2b, signer, signed))) = digests {
            facts.how = by(&signer);
            (facts.sha512, facts.blake2b, facts.signer, facts.digests) = (Some(sha512), blake2b, Some(signer), signed);
            return Ok(Some((facts, Proof::Digest)));
        }
        let signature = self.each(&format!("{name}.asc"), |mirror| {
            self.document(&url(mirror, self.arch, &format!("{timestamp}/{name}.asc")))
        })?;
        Ok(signature.map(|(_, signature)| {
            facts.how = "detached signature (there are no DIGESTS)".to_owned();
            (facts, Proof::Detached { signature, keyring: self.keyring.clone() })
        }))
    }

    fn document(&self, url: &str) -> Result<Answer<Vec<u8>>> {
        match self.http.document(url, MAX_DOCUMENT) {
            Ok(bytes) => Ok(Answer::Found(bytes)),
            Err(failure) if failure.kind == FailureKind::Missing => Ok(Answer::Missing(failure.to_string())),
            Err(failure) => Err(Error::network(failure.to_string())),
        }
    }

    /// Asks every mirror in turn until one answers well. None when all of them say that there is no such thing.
    fn each<T>(&self, what: &str, mut ask: impl FnMut(&str) -> Result<Answer<T>>) -> Result<Option<(usize, T)>> {
        let mut troubles: Vec<Error> = Vec::new();
        let mut missing: Vec<String> = Vec::new();
        for (index, mirror) in self.mirrors.iter().enumerate() {
            match ask(mirror) {
                Ok(Answer::Found(found)) => return Ok(Some((index, found))),
                Ok(Answer::Missing(why)) => missing.push(why),
                Err(error) if matches!(error.kind(), Kind::Refused | Kind::Network) => {
                    if index + 1 < self.mirrors.len() {
                        self.at.ui.warn(&format!("{}; trying the next mirror", chain(&error)));
                    }
                    troubles.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        if troubles.is_empty() {
            return Ok(None);
        }
        // A refusal says more than silence: it may be an attack.
        let worst = troubles.iter().position(|error| error.kind() == Kind::Refused).unwrap_or(0);
        if troubles.len() + missing.len() == 1 {
            return Err(troubles.swap_remove(worst));
        }
        let details: String = troubles.iter().map(chain).chain(missing).map(|line| format!("{line}\n")).collect();
        let error = Error::new(troubles[worst].kind(), format!("no mirror gives a good {what}")).with_details(details);
        Err(match troubles[worst].hint() {
            Some(hint) => error.with_hint(hint),
            None => error,
        })
    }
}

/// What the store remembers of a file, if who signed for it is trusted now. Under another keyring, such as one whose certificates
/// were renewed, the digests that proved it are judged again.
fn trusted(store: &Store, name: &str, keyring: &Keyring) -> Result<Option<Facts>> {
    let Some(facts) = store.read_ref::<Facts>(REFS, name)?.filter(|facts| facts.sha512.is_some()) else {
        return Ok(None);
    };
    if facts.trust == keyring.id() {
        return Ok(Some(facts));
    }
    let Some(signed) =
        facts.digests.as_ref().and_then(|signed| verify::clearsigned(name, signed.as_bytes(), keyring).ok())
    else {
        return Ok(None);
    };
    let given = digests::parse(&signed.text)?;
    if given.of(name, Algorithm::Sha512)?.map(digests::sha512).transpose()? != facts.sha512 {
        return Ok(None);
    }
    let (trust, how) = (keyring.id().to_owned(), by(&signed.signer));
    Ok(Some(Facts { trust, how, signer: Some(signed.signer), verified_at: now(), ..facts }))
}

/// What the trust in a file rests on that signed digests prove.
fn by(signer: &Signer) -> String {
    format!("clearsigned DIGESTS by {}", signer.primary)
}

fn sighting(list: &str, pointer: &Pointer, entry: &Entry) -> Sighting {
    Sighting {
        of: format!("stage3-{}", entry.variant),
        list: list.to_owned(),
        published: pointer.published.unwrap_or_default(),
        build: entry.timestamp.clone(),
    }
}

/// Refuses a build made after the list that names it: remembered, it would make every real one look old.
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

/// Refuses a list that is too old, or from the future.
pub(super) fn fresh(url: &str, published: u64, now: u64, max_age: u64) -> Result<()> {
    let clock = format!("this machine's clock says {}; if that is wrong, set the clock", readable(now));
    if published > now + DAY {
        return Err(Error::refused(format!(
            "{}: the signed list is from the future: {}",
            printable(url),
            readable(published)
        ))
        .with_hint(clock));
    }
    let age = now.saturating_sub(published);
    if age > max_age {
        let error = Error::refused(format!(
            "{}: the signed list is {} old ({}), and at most {} are accepted",
            printable(url),
            span(age),
            readable(published),
            span(max_age)
        ));
        return Err(error.with_hint(format!(
            "the mirror is no longer updated: name another in source.mirrors, pin source.version or raise source.max-age; \
             {clock}"
        )));
    }
    Ok(())
}

/// Seconds as days, or as hours where that says more.
fn span(seconds: u64) -> String {
    if seconds < 3 * DAY && !seconds.is_multiple_of(DAY) {
        format!("{} hours", seconds / 3600)
    } else {
        format!("{} days", seconds / DAY)
    }
}

fn checked(variant: &str) -> Result<&'static str> {
    if !pointer::is_variant(variant) {
        return Err(Error::usage(format!("source.stage3: {} cannot be the name of a stage3", printable(variant))));
    }
    arch::of_variant(variant).map(|arch| arch.directory).ok_or_else(|| {
        Error::usage(format!("source.stage3: {variant} begins with no known architecture"))
            .with_hint("it is the name exactly as in latest-stage3-<name>.txt, such as amd64-musl or rv64_lp64d-openrc")
    })
}

fn with_offline_hint(error: Error, source: &Source, variant: &str, version: &Version, store: &Store) -> Error {
    if error.kind() != Kind::Network || error.hint().is_some() {
        return error;
    }
    match known(source, variant, version, store) {
        Ok(Some(located)) => error.with_hint(format!("with --offline the stored {} is used", located.name)),
        _ => error.with_hint("check the network and source.mirrors (a proxy is taken from http_proxy and https_proxy)"),
    }
}

fn url(mirror: &str, arch: &str, path: &str) -> String {
    format!("{}/releases/{arch}/autobuilds/{path}", mirror.trim_end_matches('/'))
}

/// An error with its causes, in one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&printable(&cause.to_string()));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subarchitecture_has_its_directory() {
        for (variant, directory) in [
            ("amd64-musl", "amd64"),
            ("x32-openrc", "amd64"),
            ("i486-openrc", "x86"),
            ("i686-musl", "x86"),
            ("rv64_lp64d-openrc", "riscv"),
            ("rv32_ilp32-systemd", "riscv"),
            ("armv7a_hardfp-systemd", "arm"),
            ("armv4tl-openrc", "arm"),
            ("arm64-openrc", "arm64"),
            ("arm64_be-openrc", "arm64"),
            ("aarch64_be-openrc", "arm64"),
            ("ppc64le-musl-hardened-openrc", "ppc"),
            ("power9le-openrc", "ppc"),
            ("loong-openrc", "loong"),
            ("mips64el_multilib-openrc", "mips"),
            ("mipsel3_n32-openrc", "mips"),
            ("m68k-openrc", "m68k"),
            ("hppa1.1-openrc", "hppa"),
            ("s390x-openrc", "s390"),
            ("sparc64-openrc", "sparc"),
            ("alpha-openrc", "alpha"),
            ("sh4-openrc", "sh"),
            ("sh4eb-openrc", "sh"),
        ] {
            assert_eq!(arch::of_variant(variant).map(|arch| arch.directory), Some(directory), "{variant}");
        }
        assert!(arch::of_variant("musl").is_none());
        assert!(arch::of_variant("show").is_none());
        assert!(arch::of_variant("").is_none());
        assert!(checked("../amd64").is_err());
    }

    #[test]
    fn old_and_future_lists_are_refused() {
        let now = 1_786_404_601;
        assert!(fresh("u", now, now, 30 * DAY).is_ok());
        assert!(fresh("u", now - 29 * DAY, now, 30 * DAY).is_ok());
        assert!(fresh("u", now + 3600, now, 30 * DAY).is_ok());
        let old = fresh("u", now - 31 * DAY, now, 30 * DAY).unwrap_err();
        assert!(old.to_string().contains("31 days old"), "{old}");
        let old = fresh("u", now - 3 * 3600, now, 2 * 3600).unwrap_err();
        assert!(old.to_string().contains("3 hours old") && old.to_string().contains("at most 2 hours"), "{old}");
        let future = fresh("u", now + 2 * DAY, now, 30 * DAY).unwrap_err();
        assert!(future.hint().unwrap().contains("2026-08-10 23:30 UTC"), "{future:?}");
    }
}
