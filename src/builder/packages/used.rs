//! The packages that an image consists of, for a build whose result they are.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Packages, shelf};
use crate::base::error::{Context, Error, Result};
use crate::base::progress::Target;
use crate::builder::installed;
use crate::fs::rootfs::Rootfs;
use crate::portage::binpkg::index::Index;
use crate::store::packages::Shelf;

/// A directory of packages to be published.
#[derive(Debug)]
pub struct Used {
    /// Path, open file and modification time of each package.
    pub packages: Vec<(PathBuf, File, SystemTime)>,
    /// The key and the index, by file name.
    pub documents: Vec<(&'static str, Vec<u8>)>,
    /// The time of the index.
    pub time: SystemTime,
}

impl Packages {
    /// Finds the binary package of each package that is installed in `image`: by the digest that Portage records, or else one that was
    /// built with the same USE flags, since of two equal packages only one is kept.
    ///
    /// # Errors
    /// [`Kind::Build`](crate::base::error::Kind::Build) if one is not among the packages of this key.
    pub fn used(&self, image: &Rootfs) -> Result<Used> {
        let part = self.parts.iter().find(|part| part.target == Target::Image);
        let part = part.ok_or_else(|| Error::build("the build has no packages for an image"))?;
        let shelf = Shelf::open(part.directory())?;
        let plain = shelf::plain(part)?;
        let mut all = shelf::current(&shelf, part, &self.sources)?.0;
        let mut shared = match &plain {
            Some(plain) => shelf::without_excluded(plain, part, &self.sources)?,
            None => Index::default(),
        };
        let mut index = Index { header: all.header.clone(), packages: Vec::new() };
        let mut packages = Vec::new();
        for cpv in installed::names(image)? {
            let Installed { cpv, md5, flags } = Installed::read(image, cpv)?;
            let find = |all: &Index| {
                let find = |key: &str, value: &str| {
                    all.packages.iter().rposition(|package| package.cpv() == cpv && package.get(key) == value)
                };
                find("MD5", &md5).or_else(|| find("USE", &flags))
            };
            let own = find(&all).map(|at| (&shelf, all.packages.swap_remove(at)));
            let found = own.or_else(|| Some((plain.as_ref()?, shared.packages.swap_remove(find(&shared)?))));
            let Some((shelf, mut package)) = found else {
                return Err(Error::build(format!("{cpv} of the image has no binary package of this build's key"))
                    .with_hint("a build of packages cannot take packages from hosts: remove portage.binhost"));
            };
            let path = PathBuf::from(package.path().unwrap_or_default());
            let file = shelf.file(&path).system(|| format!("opening {}", shelf.path().join(&path).display()))?;
            let time = UNIX_EPOCH + Duration::from_secs(package.get("MTIME").parse().unwrap_or(0));
            packages.push((path, file, time));
            package.retain(|name| !name.starts_with(shelf::OWN));
            index.packages.push(package);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let text = index.text(i64::try_from(now).unwrap_or(0));
        let compressed = Index::compressed(&text);
        let documents = vec![
            ("key.json", part.key.text().into_bytes()),
            ("Packages.gz", compressed),
            ("Packages", text.into_bytes()),
        ];
        Ok(Used { packages, documents, time: UNIX_EPOCH + Duration::from_secs(now) })
    }
}

/// An installed package.
pub(super) struct Installed {
    /// `category/package-version`.
    pub(super) cpv: String,
    /// The MD5 of the binary package that it came from.
    md5: String,
    /// Its USE flags.
    pub(super) flags: String,
}

impl Installed {
    /// Reads the record of the package `cpv` in the tree `image`.
    pub(super) fn read(image: &Rootfs, cpv: String) -> Result<Self> {
        let field = |name| installed::field(image, &cpv, name);
        Ok(Self { md5: field("BINPKGMD5")?, flags: field("USE")?, cpv })
    }
}
