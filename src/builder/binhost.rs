//! Hosts of binary packages in a builder tree: their indexes, the GnuPG home with the certificates of their signers, and the check of
//! the packages that came from them.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::query::{self, Query};
use crate::base::error::{Context, Error, Result};
use crate::base::text::plain;
use crate::fs::rootfs::Rootfs;
use crate::plan::view::View;
use crate::portage::binhost::{HostIndex, WITH_VERIFICATION};
use crate::portage::binpkg::gpkg::Gpkg;
use crate::portage::binpkg::index::{FileFacts, Stanza};
use crate::portage::{BINHOST, BuilderInfo, TRUST_HOME};
use crate::source::binhost::BinhostInput;
use crate::store::work::WorkPaths;
use crate::verify::{self, Keyring};

/// The certificates in the GnuPG home, armored.
const CERTIFICATES: &str = "certificates.asc";
/// The trusted fingerprints in the GnuPG home.
const TRUSTED: &str = "trusted.txt";

/// A mounted builder tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) view: &'a View,
    pub(super) paths: &'a WorkPaths,
    pub(super) root: &'a Rootfs,
}

/// A package from a host that a build used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromHost {
    /// `category/package-version`.
    pub cpv: String,
    /// The primary fingerprint of the certificate that signed it. `None` if the recipe accepts unsigned packages.
    pub signer: Option<String>,
}

/// Writes the indexes of the hosts, and the GnuPG home with which Portage verifies their packages.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if the builder cannot verify signatures,
/// [`Kind::Refused`](crate::base::error::Kind::Refused) for an index that cannot be read.
pub(super) fn add(place: Place<'_>, hosts: &[BinhostInput], info: &BuilderInfo) -> Result<()> {
    let indexes = indexes(hosts)?;
    for (number, index) in (1..).zip(&indexes) {
        let directory = place.paths.binhosts().join(number.to_string());
        let writing = || format!("writing the index {}", directory.display());
        fs_err::create_dir(&directory).system(writing)?;
        fs_err::write(directory.join("Packages"), index.text()).system(writing)?;
    }
    if hosts.iter().any(|host| host.keyring.is_some()) {
        check_verification(place.root, info)?;
        make_trust_home(place, hosts)?;
    }
    Ok(())
}

/// Reads the indexes of the hosts.
///
/// # Errors
/// [`Kind::Refused`](crate::base::error::Kind::Refused) for one that cannot be read.
pub(super) fn indexes(hosts: &[BinhostInput]) -> Result<Vec<HostIndex>> {
    let read = |(number, host): (usize, &BinhostInput)| match &host.index {
        Some(bytes) => HostIndex::read(&host.spec, number, bytes),
        None => Ok(HostIndex::default()),
    };
    (1..).zip(hosts).map(read).collect()
}

/// Checks that the builder has Portage and GnuPG with which it can verify packages.
fn check_verification(root: &Rootfs, info: &BuilderInfo) -> Result<()> {
    const VERIFYING: &str = "verifying the packages of `binhost` in [portage]";
    if let Some([major, minor, patch]) = info.portage.filter(|version| *version < WITH_VERIFICATION) {
        let error = Error::usage(format!("{VERIFYING}: Portage {major}.{minor}.{patch} of the builder cannot do that"));
        return Err(error.with_hint("use a stage3 with Portage 3.0.74 or newer"));
    }
    if root.stat(Path::new("usr/bin/gpg"))?.is_none() {
        return Err(Error::usage(format!("{VERIFYING}: gpg not found in the builder"))
            .with_hint("use a stage3 that contains app-crypt/gnupg"));
    }
    Ok(())
}

/// Makes the GnuPG home. Only the certificates that the recipe trusts are in it, each with ultimate trust: Portage accepts a
/// signature of no other.
fn make_trust_home(place: Place<'_>, hosts: &[BinhostInput]) -> Result<()> {
    let home = place.paths.gnupg();
    let mut certificates = Vec::new();
    let mut trusted = BTreeSet::new();
    for keyring in hosts.iter().filter_map(|host| host.keyring.as_ref()) {
        for primary in keyring.trusted() {
            certificates.extend(keyring.export(primary)?.unwrap_or_default());
            trusted.insert(format!("{primary}:6:\n"));
        }
    }
    let writing = || format!("writing to {}", home.display());
    fs_err::write(home.join(CERTIFICATES), certificates).system(writing)?;
    fs_err::write(home.join(TRUSTED), trusted.into_iter().collect::<String>()).system(writing)?;
    let inside = |name: &str| format!("{TRUST_HOME}/{name}");
    gpg(place, &home, &["--import", &inside(CERTIFICATES)])?;
    gpg(place, &home, &["--import-ownertrust", &inside(TRUSTED)])?;
    gpg(place, &home, &["--check-trustdb"])?;
    // Portage verifies as another user.
    for entry in fs_err::read_dir(&home).system(writing)? {
        let entry = entry.system(writing)?;
        if entry.file_type().system(writing)?.is_file() {
            let readable = std::fs::Permissions::from_mode(0o644);
            fs_err::set_permissions(entry.path(), readable).system(writing)?;
        }
    }
    Ok(())
}

fn gpg(place: Place<'_>, home: &Path, arguments: &[&str]) -> Result<()> {
    let options = ["gpg", "--homedir", TRUST_HOME, "--batch", "--no-tty", "--no-permission-warning", "--no-autostart"];
    let query = Query::new(options.iter().chain(arguments).copied());
    let answer = query::ask(&place.view.trusting(home), place.paths.tree(), &query)?;
    if answer.exit.success() {
        return Ok(());
    }
    Err(Error::system("making the GnuPG home for binary packages: gpg of the builder failed")
        .with_details(answer.complaint()))
}

/// Compares every package that came from a host with its stanza in the index, which nobody signs, and verifies its signature again,
/// now with the certificates of this host alone. Returns the packages of each host.
///
/// # Errors
/// [`Kind::Refused`](crate::base::error::Kind::Refused) for a package that is not the one that the index describes.
pub(super) fn check(root: &Rootfs, hosts: &[BinhostInput], indexes: &[HostIndex]) -> Result<Vec<Vec<FromHost>>> {
    let mut used = Vec::new();
    for (number, (host, index)) in (1..).zip(hosts.iter().zip(indexes)) {
        let mut packages = Vec::new();
        for stanza in index.packages() {
            let path = stanza.path().unwrap_or_default();
            let at = PathBuf::from(format!("{BINHOST}/quern-{number}/{path}"));
            // Portage downloads a package when it installs it.
            if root.stat(&at)?.is_some() {
                packages.push(check_package(root, &at, stanza, (index, host.keyring.as_ref()))?);
            }
        }
        used.push(packages);
    }
    Ok(used)
}

fn check_package(
    root: &Rootfs,
    at: &Path,
    stanza: &Stanza,
    (index, keyring): (&HostIndex, Option<&Keyring>),
) -> Result<FromHost> {
    let path = stanza.path().unwrap_or_default();
    let what = format!("the binary package {}", plain(path, 200));
    let gone = || Error::refused(format!("verifying {what}: it was removed after it was downloaded"));
    let unusable = |fault: crate::portage::binpkg::Fault| Error::refused(format!("verifying {what}: {fault}"));
    let mut file = root.open_file(at)?.ok_or_else(gone)?;
    let facts = FileFacts::read(path.to_owned(), 0, &mut file).system(|| format!("reading {what}"))?;
    let package = Gpkg::open(file).map_err(unusable)?;
    let described = Stanza::new(&package.metadata().map_err(unusable)?, &facts).map_err(unusable)?;
    let differences = index.differences(stanza, &described);
    if !differences.is_empty() {
        return Err(Error::refused(format!(
            "verifying {what}: it is not the package that the index of its host describes"
        ))
        .with_details(differences.join("\n"))
        .with_hint("the index is damaged or was changed: the image is not published"));
    }
    let signer = match keyring {
        Some(keyring) => {
            let manifest = package.manifest().map_err(unusable)?;
            Some(verify::clearsigned(&format!("the Manifest of {what}"), &manifest, keyring)?.signer.primary)
        }
        None => None,
    };
    package.verify().map_err(unusable)?;
    Ok(FromHost { cpv: stanza.cpv().to_owned(), signer })
}
