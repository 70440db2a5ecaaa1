//! A layout in a directory: its named files, and its blobs by digest.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::digest::{self, Digest};
use super::document::{self, Document, Index, Marker};
use super::{Checked, Fault};
use crate::base::error::{Context, Result};
use crate::base::refusal::{Code, Reason};
use crate::fs::rootfs::Rootfs;

pub use super::document::{CONFIG, Config, Descriptor, INDEX, MANIFEST, Manifest, Platform, layer_format};

/// Largest document that is read, as the distribution specification recommends.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// Depth of nested indexes that is followed.
pub const MAX_DEPTH: usize = 8;

/// Paths of the files in a directory of blobs, with the digests that name them.
pub type Names = Vec<(PathBuf, Option<Digest>)>;

/// A layout in a directory.
#[derive(Debug)]
pub struct Layout {
    root: Rootfs,
}

impl Layout {
    /// Opens the directory without reading anything in it.
    pub fn open(dir: &Path) -> Result<Self> {
        Rootfs::open(dir).map(|root| Self { root })
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Checks `oci-layout` and reads `index.json`.
    pub fn index(&self) -> Checked<Index> {
        document::parse::<Marker>(&self.named("oci-layout", Code::NoLayout)?)?.check()?;
        let index: Index = document::parse(&self.named("index.json", Code::NoIndex)?)?;
        index.check()?;
        Ok(index)
    }

    /// Returns the content of `oci-layout` or `index.json`.
    pub(super) fn named_file(&self, name: &'static str) -> Checked<Vec<u8>> {
        self.named(name, Code::NoIndex)
    }

    /// Returns the content of a file with a fixed name.
    fn named(&self, name: &'static str, missing: Code) -> Checked<Vec<u8>> {
        let file = self.open_file(Path::new(name), Reason::new(missing, format!("{name} is missing")))?;
        let mut bytes = Vec::new();
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).system(|| self.root.doing("reading", Path::new(name)))?;
        if bytes.len() as u64 > MAX_DOCUMENT { Err(too_large().into()) } else { Ok(bytes) }
    }

    /// Opens a regular file, following symlinks inside the layout. A file that does not exist is the fault `missing`.
    fn open_file(&self, path: &Path, missing: Reason) -> Checked<File> {
        let handle = match self.root.openat2(path, OFlags::PATH, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(missing.into()),
            other => other.system(|| self.root.doing("opening", path))?,
        };
        let stat = rustix::fs::fstat(&handle).system(|| self.root.doing("examining", path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Reason::new(Code::BadFile, "it is not a regular file").into());
        }
        self.root.open_file(path)?.ok_or_else(|| missing.into())
    }

    /// Opens a blob and verifies its size and digest. The file is at its beginning.
    pub fn blob(&self, descriptor: &Descriptor) -> Checked<File> {
        let mut file = self.open_blob(descriptor)?;
        let doing = || format!("reading {} in {}", descriptor.digest, self.path().display());
        let expected = Digest::parse(&descriptor.digest)?;
        if Digest::of(expected.algorithm(), &file).system(doing)? != Some(expected) {
            return Err(digest::mismatch().into());
        }
        file.rewind().system(doing)?;
        Ok(file)
    }

    /// Opens a blob and verifies only its size.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Checked<File> {
        let path = Digest::parse(&descriptor.digest)?.path();
        let file = self.open_file(&path, missing_blob())?;
        let size = file.metadata().system(|| self.root.doing("examining", &path))?.len();
        if size != descriptor.size {
            let text = format!("it has {size} bytes instead of {}", descriptor.size);
            return Err(Reason::new(Code::SizeMismatch, text).into());
        }
        Ok(file)
    }

    /// Reads a document.
    pub fn document<T: Document>(&self, descriptor: &Descriptor) -> Checked<T> {
        Ok(document::parse(&self.bytes(descriptor)?)?)
    }

    /// Reads the bytes of a document, which have its digest.
    pub fn bytes(&self, descriptor: &Descriptor) -> Checked<Vec<u8>> {
        if descriptor.size > MAX_DOCUMENT {
            return Err(too_large().into());
        }
        let file = self.open_blob(descriptor)?;
        let mut bytes = Vec::new();
        let doing = || format!("reading {} in {}", descriptor.digest, self.path().display());
        file.take(MAX_DOCUMENT).read_to_end(&mut bytes).system(doing)?;
        document::has_digest(&bytes, &Digest::parse(&descriptor.digest)?)?;
        Ok(bytes)
    }

    /// Lists the directories of blobs and the files in them; `None` instead of the files if a path is not a directory.
    pub fn blobs(&self) -> Result<Vec<(PathBuf, Option<Names>)>> {
        let mut all = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let dir = Path::new("blobs").join(algorithm);
            match self.root.openat2(&dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    all.push((dir, None));
                    continue;
                }
                other => drop(other.system(|| self.root.doing("opening", &dir))?),
            }
            let named = |(name, _): (OsString, FileType)| {
                let digest = name.to_str().and_then(|name| Digest::parse(&format!("{algorithm}:{name}")).ok());
                (dir.join(&name), digest)
            };
            let names = self.root.read_dir(&dir)?.into_iter().map(named).collect();
            all.push((dir, Some(names)));
        }
        Ok(all)
    }

    /// Verifies that the content of a blob has the digest of its file name.
    pub fn check_blob(&self, digest: &Digest) -> Checked<()> {
        let path = digest.path();
        let file = self.open_file(&path, missing_blob())?;
        let found = Digest::of(digest.algorithm(), file).system(|| self.root.doing("reading", &path))?;
        if found == Some(*digest) { Ok(()) } else { Err(Fault::Wrong(digest::mismatch())) }
    }
}

fn missing_blob() -> Reason {
    Reason::new(Code::MissingBlob, "the layout does not have this blob")
}

fn too_large() -> Reason {
    Reason::new(Code::TooLarge, format!("it has more than {MAX_DOCUMENT} bytes"))
}
