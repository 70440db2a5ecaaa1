//! Signing binary packages with Portage's `gpkg-sign`, in a sandbox that sees the packages, the keys and the builder, and no network.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::error::{Context, Error, Result};
use crate::builder::base::Base;
use crate::builder::overlays::Tree;
use crate::builder::query::{self, Query};
use crate::builder::trees;
use crate::plan::view::View;
use crate::portage::{SIGNED_DIRECTORY, SIGNING_KEYS};
use crate::store::work::Scratch;
use crate::verify::Keyring;

/// The certificate of the signer, in the directory with the packages.
const CERTIFICATE: &str = "certificate";
/// Largest certificate in bytes.
const MAX_CERTIFICATE: u64 = 1 << 20;
/// Longest time for signing one package.
const TIME: Duration = Duration::from_secs(600);

/// Makes a home for GnuPG from the keys, which are read-only: GnuPG makes locks and sockets in its home. Then exports the certificate, or
/// signs packages.
const SCRIPT: &str = include_str!("sign.sh");

/// A key that signs, and a builder with the programs for it.
#[derive(Debug)]
pub struct Signer<'a> {
    /// The base of the builder tree.
    pub base: &'a Base,
    /// A directory for the copies.
    pub scratch: &'a Scratch,
    /// The GnuPG home with the key.
    pub home: &'a Path,
    /// The fingerprint of the key.
    pub fingerprint: &'a str,
}

impl Signer<'_> {
    /// Returns the certificate of the key, armored.
    pub(super) fn certificate(&self) -> Result<Vec<u8>> {
        let path = self.directory()?.join(CERTIFICATE);
        let mut bytes = Vec::new();
        let read = fs_err::File::open(&path).and_then(|file| file.take(MAX_CERTIFICATE).read_to_end(&mut bytes));
        read.system(|| format!("reading the certificate {}", self.fingerprint)).map(|_| bytes)
    }

    /// Returns the certificate of the key as the only trusted one.
    pub(super) fn keyring(&self) -> Result<Keyring> {
        let directory = self.directory()?;
        self.run(&[])?;
        let path = directory.join(CERTIFICATE);
        if !path.is_file() {
            return Err(Error::usage(format!("{} has no key {}", self.home.display(), self.fingerprint))
                .with_hint("`gpg --list-secret-keys` lists the keys of a home; --key-home names the home"));
        }
        Keyring::load(&path, &[self.fingerprint.to_owned()])
    }

    /// Signs copies of packages, and returns the copies in the same order.
    pub(super) fn sign(&self, packages: Vec<File>) -> Result<Vec<File>> {
        let directory = self.directory()?;
        let mut names = Vec::new();
        for (number, mut package) in packages.into_iter().enumerate() {
            let name = format!("{number}.gpkg.tar");
            let copying = || format!("copying a package to {}", directory.display());
            package.seek(SeekFrom::Start(0)).system(copying)?;
            let mut copy = fs_err::File::create(directory.join(&name)).system(copying)?;
            // This makes a reflink where the file system can.
            std::io::copy(&mut package, &mut copy).system(copying)?;
            names.push(name);
        }
        self.run(&names)?;
        let open = |name: &String| {
            let path = directory.join(name);
            fs_err::File::open(&path).map(fs_err::File::into_file).system(|| format!("opening {}", path.display()))
        };
        names.iter().map(open).collect()
    }

    /// Runs the script for these packages; without any, it exports the certificate.
    fn run(&self, packages: &[String]) -> Result<()> {
        let paths = self.scratch.paths();
        let view = View::signing(&self.directory()?, self.home);
        let tree = Tree::mount(&self.base.overlays(paths)?, paths, &trees::shown(&view, &[]))?;
        let fixed = ["/bin/sh", "-c", SCRIPT, "sh", SIGNING_KEYS, SIGNED_DIRECTORY, self.fingerprint];
        let mut query = Query::new(fixed.into_iter().chain(packages.iter().map(String::as_str)));
        query.time = TIME.saturating_mul(u32::try_from(packages.len().max(1)).unwrap_or(u32::MAX));
        query.env.extend(
            [
                ("BINPKG_GPG_SIGNING_GPG_HOME", "/run/keys"),
                ("BINPKG_GPG_SIGNING_KEY", &format!("0x{}", self.fingerprint)),
                // Signatures that a package has already are replaced; nobody here can verify them.
                ("FEATURES", "binpkg-ignore-signature -gpg-keepalive"),
                ("NOCOLOR", "true"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let answer = query::ask(&view, paths.tree(), &query);
        tree.unmount()?;
        // The next run mounts the same tree again.
        for path in [paths.overlay_work(), paths.mount_points(), paths.upper()] {
            crate::store::trees::remove_tree(&path)?;
        }
        let answer = answer?;
        if answer.exit.success() {
            return Ok(());
        }
        Err(Error::system(format!("signing with the key {}: the builder's gpg or gpkg-sign failed", self.fingerprint))
            .with_details(answer.complaint())
            .with_hint("the key must be in the home that --key-home names, and have no passphrase"))
    }

    fn directory(&self) -> Result<PathBuf> {
        let path = self.scratch.paths().directory().join("signed");
        fs_err::create_dir_all(&path).system(|| format!("making {}", path.display())).map(|()| path)
    }
}
