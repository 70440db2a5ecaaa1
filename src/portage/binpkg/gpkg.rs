//! The reader of a binary package in Gentoo's format (GLEP 78): a tar archive of `gpkg-1`, `metadata.tar*`, `image.tar*` and
//! `Manifest`, all in one directory.
//!
//! [`Gpkg::open`] reads the headers and the Manifest. [`Gpkg::metadata`] and [`Gpkg::verify`] check digests before they use a
//! member. Signatures are not judged.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{Fault, Result};
use crate::archive::unpack::decode::Decoder;
use crate::archive::unpack::entry::{BLOCK, Entry, NodeKind};
use crate::archive::unpack::limits::Limits;
use crate::archive::unpack::reader::Reader;
use crate::base::digest::{Algorithm, Hasher, Sha256};
use crate::verify::cleartext;

/// Greatest number of members, with signatures.
const MAX_MEMBERS: usize = 16;
/// Longest Manifest in bytes.
const MAX_MANIFEST: u64 = 1 << 20;
/// Longest metadata in bytes, unpacked.
const MAX_METADATA: u64 = 64 << 20;
/// Greatest number of metadata files.
const MAX_KEYS: u64 = 1000;
/// Longest package in bytes, and longest image, unpacked.
const MAX_IMAGE: u64 = 256 << 30;
/// Greatest number of files in an image.
const MAX_FILES: u64 = 4 << 20;
/// Bytes after the last member: two blocks of zeros, padded to a record.
const MAX_TRAILING: u64 = 64 << 10;

/// Random access to the bytes of a package.
pub trait Source: Send + Sync + 'static {
    /// Reads bytes at an offset. Returns 0 at the end.
    ///
    /// # Errors
    /// Those of the system.
    fn read_at(&self, to: &mut [u8], at: u64) -> io::Result<usize>;
}

impl Source for File {
    fn read_at(&self, to: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, to, at)
    }
}

impl Source for Vec<u8> {
    fn read_at(&self, to: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let count = rest.len().min(to.len());
        to[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// A package whose headers and Manifest were read.
#[derive(Debug)]
pub struct Gpkg<S> {
    source: Arc<S>,
    prefix: String,
    members: Vec<Member>,
    manifest: Vec<Record>,
}

/// A member of the outer archive.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    name: String,
    at: u64,
    size: u64,
}

/// A line of the Manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    name: String,
    size: u64,
    /// Digests of known algorithms, in lower-case hex.
    digests: Vec<(Algorithm, String)>,
}

/// The metadata of a package: file names and contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    files: BTreeMap<String, Vec<u8>>,
}

impl Metadata {
    /// Returns the content of a file.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// Returns a value as Portage reads it: words with one space between them. Empty if there is no such file.
    pub fn value(&self, name: &str) -> String {
        let text = String::from_utf8_lossy(self.bytes(name).unwrap_or_default());
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Returns `category/package-version`.
    ///
    /// # Errors
    /// [`Fault`] if the package has no valid category or name.
    pub fn cpv(&self) -> Result<String> {
        let (category, pf) = (self.value("CATEGORY"), self.value("PF"));
        for (key, value) in [("CATEGORY", &category), ("PF", &pf)] {
            let starts = value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            if !starts
                || value.len() > 200
                || value.contains(|c: char| !c.is_ascii_alphanumeric() && !"._+-".contains(c))
            {
                return Err(Fault::new(format!("the metadata has no valid {key}")));
            }
        }
        Ok(format!("{category}/{pf}"))
    }
}

impl<S: Source> Gpkg<S> {
    /// Reads the headers and the Manifest of a package, and checks that both agree.
    ///
    /// # Errors
    /// [`Fault`] if it is not a package, or if it cannot be read.
    pub fn open(source: S) -> Result<Self> {
        let source = Arc::new(source);
        let (members, end) = members(&source)?;
        let prefix = members.first().and_then(|member| Some(member.name.split_once('/')?.0.to_owned()));
        let prefix = prefix.ok_or_else(|| Fault::new("it is not a binary package"))?;
        let mut inner = Vec::with_capacity(members.len());
        for member in members {
            match member.name.split_once('/') {
                Some((directory, name)) if directory == prefix && !name.is_empty() && !name.contains('/') => {
                    inner.push(Member { name: name.to_owned(), ..member });
                }
                _ => return Err(Fault::new(format!("the member {} is not in the directory {prefix}", member.name))),
            }
        }
        for (at, member) in inner.iter().enumerate() {
            if inner[..at].iter().any(|other| other.name == member.name) {
                return Err(Fault::new(format!("two members are called {}", member.name)));
            }
        }
        let mut rest = vec![0; MAX_TRAILING as usize + 1];
        let count = full(source.as_ref(), &mut rest, end)?;
        if count > MAX_TRAILING as usize || rest[..count].iter().any(|byte| *byte != 0) {
            return Err(Fault::new("other data follow the package"));
        }
        let mut gpkg = Self { source, prefix, members: inner, manifest: Vec::new() };
        gpkg.member("gpkg-1").ok_or_else(|| Fault::new("it is not a binary package: gpkg-1 is missing"))?;
        gpkg.manifest = gpkg.read_manifest()?;
        Ok(gpkg)
    }

    /// Returns the directory that all members are in, such as `bash-5.2-1`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Checks the digests of all members.
    ///
    /// # Errors
    /// [`Fault`] with the name of the first member whose content is wrong.
    pub fn verify(&self) -> Result<()> {
        self.members.iter().filter(|member| member.name != "Manifest").try_for_each(|member| self.check(member))
    }

    /// Reads the metadata, after a check of their digests.
    ///
    /// # Errors
    /// [`Fault`] if they are missing, wrong, too large or not made of regular files.
    pub fn metadata(&self) -> Result<Metadata> {
        let member = self.archive("metadata")?;
        self.check(member)?;
        let limits = Limits { entries: MAX_KEYS, bytes: MAX_METADATA, ..Limits::default() };
        let mut files = BTreeMap::new();
        self.entries(member, limits, &mut |entry, reader| {
            let path = entry.path.to_str().and_then(|path| path.strip_prefix("metadata/"));
            let name = path.filter(|name| !name.is_empty() && !name.contains('/') && entry.kind == NodeKind::File);
            let Some(name) = name else {
                return Err(Fault::new(format!("its metadata contain {}", entry.path.display())));
            };
            let mut bytes = Vec::new();
            each(reader, &mut |part| bytes.extend_from_slice(part))?;
            match files.insert(name.to_owned(), bytes) {
                None => Ok(()),
                Some(_) => Err(Fault::new(format!("its metadata contain {name} twice"))),
            }
        })?;
        Ok(Metadata { files })
    }

    /// Computes a digest of the image: of the path, type, mode, owner, attributes and content of each file, in the order of the paths.
    /// Times are left out, so that two builds with equal results have the same digest. Call [`Gpkg::verify`] first.
    ///
    /// # Errors
    /// [`Fault`] if the image is missing, damaged or too large.
    pub fn image(&self) -> Result<Sha256> {
        let limits = Limits { entries: MAX_FILES, bytes: MAX_IMAGE, ..Limits::default() };
        let mut files = Vec::new();
        self.entries(self.archive("image")?, limits, &mut |entry, reader| {
            let mut hasher = Hasher::with(&[Algorithm::Sha256], false);
            describe(entry, &mut |part| hasher.update(part));
            each(reader, &mut |part| hasher.update(part))?;
            let digest = hasher.finish().sha256().map(|digest| digest.hex()).unwrap_or_default();
            files.push((entry.path.clone(), digest));
            Ok(())
        })?;
        files.sort();
        let mut hasher = Hasher::with(&[Algorithm::Sha256], false);
        files.iter().for_each(|(_, digest)| hasher.update(digest.as_bytes()));
        hasher.finish().sha256().ok_or_else(|| Fault::new("the digest of the image is missing"))
    }

    fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// Finds the archive `metadata` or `image`, whose suffix names its compression.
    fn archive(&self, name: &str) -> Result<&Member> {
        let suffix = |member: &'_ Member| Some(member.name.strip_prefix(name)?.strip_prefix(".tar")?.to_owned());
        let mut found = self.members.iter().filter_map(|member| Some((member, suffix(member)?)));
        let (member, suffix) =
            found.find(|(_, suffix)| suffix != ".sig").ok_or_else(|| Fault::new(format!("it has no {name}.tar")))?;
        match suffix.as_str() {
            "" | ".gz" | ".bz2" | ".xz" | ".zst" => Ok(member),
            _ => Err(Fault::new(format!(
                "{} has a compression that is not supported (BINPKG_COMPRESS: zstd, xz, gzip, bzip2 or none)",
                member.name
            ))),
        }
    }

    /// Calls `act` for each entry of the archive in a member.
    fn entries(
        &self,
        member: &Member,
        limits: Limits,
        act: &mut dyn FnMut(&Entry, &mut Reader<Decoder>) -> Result<()>,
    ) -> Result<()> {
        let broken = |what: String| Fault::new(format!("{}: {what}", member.name));
        let section = Section { source: self.source.clone(), at: member.at, end: member.at + member.size };
        let decoder = Decoder::new(section).map_err(|error| broken(error.to_string()))?;
        let mut reader = Reader::new(decoder, limits);
        while let Some(entry) = reader.next_entry().map_err(|error| broken(error.to_string()))? {
            act(&entry, &mut reader)?;
        }
        reader.finish().map_err(|error| broken(error.to_string()))?;
        Ok(())
    }

    /// Checks the size and the digests of a member.
    fn check(&self, member: &Member) -> Result<()> {
        let wrong = || Fault::new(format!("{} does not match the Manifest", member.name));
        let record = self.manifest.iter().find(|record| record.name == member.name).ok_or_else(wrong)?;
        let algorithms: Vec<Algorithm> = record.digests.iter().map(|(algorithm, _)| *algorithm).collect();
        let mut hasher = Hasher::new(&algorithms);
        let mut section = Section { source: self.source.clone(), at: member.at, end: member.at + member.size };
        let mut buffer = vec![0; 256 << 10];
        loop {
            match section.read(&mut buffer).map_err(|error| Fault::new(format!("{}: {error}", member.name)))? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        let sums = hasher.finish();
        for (algorithm, digest) in &record.digests {
            let computed = match algorithm {
                Algorithm::Sha256 => sums.sha256().map(|sum| sum.hex()),
                Algorithm::Sha512 => sums.sha512().map(|sum| sum.hex()),
                Algorithm::Blake2b => sums.blake2b().map(|sum| sum.hex()),
            };
            if computed.as_ref() != Some(digest) {
                return Err(wrong());
            }
        }
        Ok(())
    }

    /// Returns true if any member is signed.
    pub fn is_signed(&self) -> bool {
        self.members.iter().any(|member| member.name.ends_with(".sig"))
    }

    /// Returns the names and digests of the metadata and the image. A signature does not change them.
    pub fn content(&self) -> Vec<String> {
        let parts = self.manifest.iter().filter(|record| !record.name.ends_with(".sig"));
        let mut lines: Vec<String> = parts
            .map(|record| {
                let mut digests: Vec<String> =
                    record.digests.iter().map(|(algorithm, digest)| format!("{algorithm:?} {digest}")).collect();
                digests.sort();
                format!("{} {} {}", record.name, record.size, digests.join(" "))
            })
            .collect();
        lines.sort();
        lines
    }

    /// Returns the Manifest as it is in the package, with its signature if it has one.
    ///
    /// # Errors
    /// [`Fault`] if it is missing or too large.
    pub fn manifest(&self) -> Result<Vec<u8>> {
        let member = self.member("Manifest").ok_or_else(|| Fault::new("it has no Manifest"))?;
        if member.size > MAX_MANIFEST {
            return Err(Fault::new("its Manifest is too large"));
        }
        let mut bytes = vec![0; member.size as usize];
        full(self.source.as_ref(), &mut bytes, member.at)?;
        Ok(bytes)
    }

    fn read_manifest(&self) -> Result<Vec<Record>> {
        let bytes = self.manifest()?;
        let text = match bytes.starts_with(b"-----BEGIN PGP") {
            true => cleartext::document(&bytes).map_err(|why| Fault::new(format!("Manifest: {why}")))?.text,
            false => String::from_utf8(bytes).map_err(|_| Fault::new("its Manifest is not text"))?,
        };
        let records = records(&text)?;
        for member in self.members.iter().filter(|member| member.name != "Manifest") {
            if !records.iter().any(|record| record.name == member.name && record.size == member.size) {
                return Err(Fault::new(format!("{} does not match the Manifest", member.name)));
            }
        }
        match records.iter().find(|record| self.member(&record.name).is_none()) {
            Some(record) => Err(Fault::new(format!("{} of the Manifest is missing", record.name))),
            None => Ok(records),
        }
    }
}

/// Lists the members of the outer archive, with the offset of its end. Jumps over their data.
fn members<S: Source>(source: &Arc<S>) -> Result<(Vec<Member>, u64)> {
    let limits = Limits { entries: 1, bytes: MAX_IMAGE, ..Limits::default() };
    let (mut members, mut at) = (Vec::new(), 0);
    loop {
        let section = Section { source: source.clone(), at, end: u64::MAX };
        let mut reader = Reader::new(BufReader::with_capacity(4 * BLOCK, section), limits.clone());
        let entry =
            reader.next_entry().map_err(|error| Fault::new(format!("it is not a whole binary package: {error}")))?;
        let Some(entry) = entry else { return Ok((members, at + reader.offset())) };
        let name = entry.path.to_str().filter(|name| !name.contains(char::is_control));
        let Some(name) = name.filter(|_| entry.kind == NodeKind::File && entry.sparse.is_none()) else {
            return Err(Fault::new(format!("the member {} is not a regular file", entry.path.display())));
        };
        if members.len() == MAX_MEMBERS {
            return Err(Fault::new("it has too many members"));
        }
        let data = at + reader.offset();
        members.push(Member { name: name.to_owned(), at: data, size: entry.size });
        at = data + entry.size.next_multiple_of(BLOCK as u64);
    }
}

/// Parses a Manifest.
fn records(text: &str) -> Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let wrong = || Fault::new("its Manifest has a line that cannot be read");
        let mut words = line.split_ascii_whitespace();
        let (Some("DATA"), Some(name), Some(size)) = (words.next(), words.next(), words.next()) else {
            return Err(wrong());
        };
        let size = size.parse().map_err(|_| wrong())?;
        let mut digests = Vec::new();
        while let (Some(algorithm), Some(digest)) = (words.next(), words.next()) {
            let algorithm = match algorithm {
                "SHA256" => Algorithm::Sha256,
                "SHA512" => Algorithm::Sha512,
                "BLAKE2B" => Algorithm::Blake2b,
                _ => continue,
            };
            digests.push((algorithm, digest.to_ascii_lowercase()));
        }
        if digests.is_empty() || records.len() == MAX_MEMBERS || records.iter().any(|record| record.name == name) {
            return Err(wrong());
        }
        records.push(Record { name: name.to_owned(), size, digests });
    }
    Ok(records)
}

/// Describes an entry without its times, each field after its length.
fn describe(entry: &Entry, to: &mut dyn FnMut(&[u8])) {
    use std::os::unix::ffi::OsStrExt;
    let mut field = |bytes: &[u8]| {
        to(&(bytes.len() as u64).to_le_bytes());
        to(bytes);
    };
    field(entry.path.as_os_str().as_bytes());
    match &entry.kind {
        NodeKind::File => field(b"file"),
        NodeKind::Dir => field(b"directory"),
        NodeKind::Fifo => field(b"fifo"),
        NodeKind::Hardlink(target) => [b"hard link", target.as_os_str().as_bytes()].into_iter().for_each(&mut field),
        NodeKind::Symlink(target) => [b"symlink", &target[..]].into_iter().for_each(&mut field),
        NodeKind::Char(major, minor) => field(format!("char {major} {minor}").as_bytes()),
        NodeKind::Block(major, minor) => field(format!("block {major} {minor}").as_bytes()),
    }
    let meta = &entry.meta;
    field(format!("{:o} {} {} {} {}", meta.mode, meta.uid, meta.gid, entry.size, meta.xattrs.len()).as_bytes());
    for (name, value) in &meta.xattrs {
        field(name);
        field(value);
    }
    for segment in entry.sparse.iter().flatten() {
        field(format!("{} {}", segment.offset, segment.length).as_bytes());
    }
}

/// Passes on the data of the current entry.
fn each(reader: &mut Reader<Decoder>, to: &mut dyn FnMut(&[u8])) -> Result<()> {
    loop {
        let part = reader.data().map_err(|error| Fault::new(error.to_string()))?;
        if part.is_empty() {
            return Ok(());
        }
        to(part);
        let count = part.len();
        reader.consume(count);
    }
}

/// Fills the buffer from `at` as far as there are bytes, and returns their number.
fn full(source: &impl Source, to: &mut [u8], at: u64) -> Result<usize> {
    let mut filled = 0;
    while filled < to.len() {
        match source.read_at(&mut to[filled..], at.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Fault::new(format!("it cannot be read: {error}"))),
        }
    }
    Ok(filled)
}

/// A part of a source, read in order.
struct Section<S> {
    source: Arc<S>,
    at: u64,
    end: u64,
}

impl<S: Source> Read for Section<S> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(to.len());
        let count = self.source.read_at(&mut to[..left], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
