//! Stage3s of Gentoo's mirrors: `releases/<arch>/autobuilds/`, with a signed pointer to the latest build and signed digests.

use super::digests;
use super::mirrors::Answer;
use super::model::{FileMeta, Location, SourceFile};
use super::pointer::{self, Pointer};
use super::{Site, Trust};
use crate::base::arch;
use crate::base::digest::Sha512;
use crate::base::error::{Error, Kind, Result};
use crate::base::text::printable;
use crate::base::time::{is_build_timestamp, now};
use crate::recipe::{Source, Version};
use crate::store::Store;
use crate::verify::{self, Evidence, Keyring, Signer};
use ask::Ask;

mod ask;

/// Kind of the refs that hold [`FileMeta`] by file name.
const REFS: &str = "stage3";

/// Asks the mirrors for the recipe's build of a variant.
pub(super) fn locate(source: &Source, variant: &str, version: &Version, at: &Site<'_>) -> Result<SourceFile> {
    at.ui.stage(&format!("looking for stage3 {}", printable(variant)));
    let mut ask = Ask::new(source, checked(variant)?, at)?;
    let hint = |error: Error| with_offline_hint(error, source, variant, version, at.store);
    let (names, timestamp, size) = match version {
        Version::Latest => {
            let (index, entry) = ask.latest(variant).map_err(hint)?;
            ask.prefer(index);
            (vec![entry.name()], entry.timestamp, Some(entry.size))
        }
        Version::Timestamp(timestamp) => {
            if !is_build_timestamp(timestamp) {
                return Err(Error::usage(format!("source.version: {} is not YYYYMMDDTHHMMSSZ", printable(timestamp))));
            }
            // Without a list, the compression of that day's builds is unknown.
            let names = pointer::SUFFIXES.iter().map(|suffix| format!("stage3-{variant}-{timestamp}{suffix}"));
            (names.collect(), timestamp.clone(), None)
        }
    };
    let (name, meta, evidence) = match ask.remembered(&names, size)? {
        Some((name, meta)) => (name, meta, Evidence::Digest),
        None => ask.found(&names, &timestamp, size).map_err(hint)?,
    };
    let urls = ask.mirrors().map(|mirror| url(mirror, ask.arch(), &format!("{timestamp}/{name}"))).collect();
    at.ui.done();
    Ok(SourceFile { evidence, ..file(name, urls, meta) })
}

/// Returns the signed list of all variants for an architecture's directory, from the first mirror that answers well.
///
/// # Errors
/// [`Kind::Usage`] for an unknown architecture, otherwise those of the mirrors.
pub fn offers(source: &Source, arch: &str, at: &Site<'_>) -> Result<Pointer> {
    let known = arch::directories();
    let Some(arch) = known.clone().find(|known| *known == arch) else {
        let known: Vec<&str> = known.collect();
        return Err(Error::usage(format!("mirrors have no directory {}", printable(arch)))
            .with_hint(format!("one of {}", known.join(", "))));
    };
    at.ui.stage(&format!("looking for stage3s of {arch}"));
    let found = Ask::new(source, arch, at)?.offers()?;
    at.ui.done();
    match found {
        Answer::Found((_, pointer)) => Ok(pointer),
        Answer::Missing(details) => Err(Error::network(format!("no mirror lists stage3s of {arch}"))
            .with_details(details)
            .with_hint("check source.mirrors")),
    }
}

/// Returns the newest remembered build of the variant, or the one of the timestamp.
pub(super) fn known(source: &Source, variant: &str, version: &Version, store: &Store) -> Result<Option<SourceFile>> {
    let arch = checked(variant)?;
    let keyring = Trust::of_source(source).keyring(store)?;
    let mut candidates: Vec<(bool, String, String, FileMeta)> = Vec::new();
    for name in store.ref_names(REFS)? {
        if let Some((found, timestamp, _)) = pointer::split_name(&name)
            && found == variant
            && !matches!(version, Version::Timestamp(wanted) if wanted != timestamp)
            && let Some(meta) = trusted(store, &name, &keyring)?
        {
            candidates.push((meta.fetched, timestamp.to_owned(), name.clone(), meta));
        }
    }
    // Without a network, a fetched build is more useful than a newer one that was never fetched.
    let newest = candidates.into_iter().max_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    Ok(newest.map(|(_, timestamp, name, meta)| {
        let urls = of_mirrors(source, arch, &timestamp, &name);
        SourceFile { offline: true, ..file(name, urls, meta) }
    }))
}

fn file(name: String, urls: Vec<String>, meta: FileMeta) -> SourceFile {
    SourceFile {
        remember: (REFS, name.clone()),
        name,
        location: Location::Urls(urls),
        evidence: Evidence::Digest,
        meta,
        offline: false,
        signature_age: None,
        unsigned_sha256: None,
    }
}

/// Lists digests and names of all remembered builds.
pub(super) fn names(store: &Store) -> Result<Vec<(Sha512, String)>> {
    let mut names = Vec::new();
    for name in store.ref_names(REFS)? {
        let meta = store.read_ref::<FileMeta>(REFS, &name)?;
        names.extend(meta.and_then(|meta| meta.sha512).map(|sha512| (sha512, name)));
    }
    Ok(names)
}

/// Lists the addresses of a build on every mirror.
pub(super) fn urls(source: &Source, variant: &str, timestamp: &str, name: &str) -> Result<Vec<String>> {
    Ok(of_mirrors(source, checked(variant)?, timestamp, name))
}

fn of_mirrors(source: &Source, arch: &str, timestamp: &str, name: &str) -> Vec<String> {
    source.mirrors.iter().map(|mirror| url(mirror, arch, &format!("{timestamp}/{name}"))).collect()
}

/// Lists the addresses of the first document that is asked for.
pub(super) fn first_urls(source: &Source, variant: &str, version: &Version) -> Result<Vec<String>> {
    let arch = checked(variant)?;
    let path = match version {
        Version::Latest => format!("latest-stage3-{variant}.txt"),
        Version::Timestamp(timestamp) => format!("{timestamp}/stage3-{variant}-{timestamp}.tar.xz.DIGESTS"),
    };
    Ok(source.mirrors.iter().map(|mirror| url(mirror, arch, &path)).collect())
}

/// Returns what the store remembers of a file, if its signer is trusted now. Under another keyring, for example one with renewed
/// certificates, the remembered digests are judged again.
fn trusted(store: &Store, name: &str, keyring: &Keyring) -> Result<Option<FileMeta>> {
    let Some(meta) = store.read_ref::<FileMeta>(REFS, name)?.filter(|meta| meta.sha512.is_some()) else {
        return Ok(None);
    };
    if meta.is_good(keyring) {
        return Ok(Some(meta));
    }
    let signed = meta.digests.as_ref();
    let Some(signed) = signed.and_then(|signed| verify::clearsigned(name, signed.as_bytes(), keyring).ok()) else {
        return Ok(None);
    };
    if digests::parse(&signed.text)?.sha512(name)? != meta.sha512 {
        return Ok(None);
    }
    let (trust, trust_basis) = (keyring.id().to_owned(), by(&signed.signer));
    Ok(Some(FileMeta { trust, trust_basis, signer: Some(signed.signer), verified_at: now(), ..meta }))
}

/// Describes the trust in a file that signed digests prove.
fn by(signer: &Signer) -> String {
    format!("clearsigned DIGESTS by {}", signer.primary)
}

fn checked(variant: &str) -> Result<&'static str> {
    if !pointer::is_variant(variant) {
        return Err(Error::usage(format!("source.stage3: {} cannot be the name of a stage3", printable(variant))));
    }
    arch::of_variant(variant).map(|arch| arch.directory).ok_or_else(|| {
        Error::usage(format!("source.stage3: {variant} does not begin with a known architecture"))
            .with_hint("it is the name exactly as in latest-stage3-<name>.txt, such as amd64-musl or rv64_lp64d-openrc")
    })
}

fn with_offline_hint(error: Error, source: &Source, variant: &str, version: &Version, store: &Store) -> Error {
    if error.kind() != Kind::Network || error.hint().is_some() {
        return error;
    }
    match known(source, variant, version, store) {
        Ok(Some(file)) => error.with_hint(format!("with --offline the stored {} is used", file.name)),
        _ => error.with_hint(
            "check the network and source.mirrors (a proxy is taken from http_proxy and https_proxy); without a network, a \
             locked recipe is built from an imported store with --locked",
        ),
    }
}

fn url(mirror: &str, arch: &str, path: &str) -> String {
    format!("{}/releases/{arch}/autobuilds/{path}", mirror.trim_end_matches('/'))
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
}
