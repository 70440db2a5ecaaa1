//! A tarball of this machine as the stage3. A detached signature, signed digests or a digest in the recipe proves it, or the user
//! accepts it unsigned.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::hashing::{self, Metered};
use super::model::{FileMeta, Location, SourceFile};
use super::obtain::Received;
use super::{BUFFER, Site, Trust, digests, pointer};
use crate::base::digest::{Algorithm, HashingReader, Sha512, Sums, hex};
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::text::printable;
use crate::base::time::now;
use crate::fs::rewound;
use crate::recipe::{BaseSpec, Source};
use crate::store::Store;
use crate::store::blobs::{PartOrBlob, PartialBlob};
use crate::verify::{self, Evidence, MAX_DOCUMENT, MAX_FILE};
use proof::{Form, Proof};

mod proof;

const REFS: &str = "file";

/// A file of this machine, as a recipe names it.
#[derive(Debug, Clone, Copy)]
pub struct LocalFile<'a> {
    path: &'a Path,
    signature: Option<&'a Path>,
    sha512: Option<&'a str>,
    allow_unsigned: bool,
    trust: Trust<'a>,
}

/// The result of a judgement, valid until the file changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    identity: Identity,
    #[serde(rename = "facts")]
    meta: FileMeta,
    unsigned: bool,
}

/// Identity of an unchanged file. Only the kernel sets the change time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<'a> LocalFile<'a> {
    /// Returns the file that a recipe starts from, if it starts from one.
    pub(super) fn of_source(source: &'a Source) -> Option<Self> {
        let BaseSpec::File { path, signature, sha512, allow_unsigned } = &source.base else { return None };
        let (signature, sha512) = (signature.as_deref(), sha512.as_deref());
        Some(Self { path, signature, sha512, allow_unsigned: *allow_unsigned, trust: Trust::of_source(source) })
    }

    /// Hashes the file and checks its evidence. A file that has not changed since is not read again.
    pub(super) fn locate(&self, at: &Site<'_>) -> Result<SourceFile> {
        if let Some(known) = self.known(at.store)? {
            return Ok(known);
        }
        let path = self.path.display().to_string();
        at.ui.stage(&format!("checking {}", printable(&path)));
        let proof = self.proof()?;
        let file = if self.is_stdin() { spool(at)? } else { open(self.path)? };
        let before = identity(&file, &path)?;
        let name = self.path.file_name().and_then(|name| name.to_str());
        let timestamp = name.and_then(pointer::split_name).map(|(_, timestamp, _)| timestamp.to_owned());
        let mut meta = FileMeta { size: Some(before.size), timestamp, ..FileMeta::new(&self.trust_id(at.store)?) };
        let sha512 = self.judge(proof.as_ref(), &file, &mut meta, at)?;
        meta.sha512 = Some(sha512);
        self.check_recipe_digest(sha512, &mut meta)?;
        let unsigned = meta.trust_basis.is_empty();
        if unsigned {
            let also = proof.map_or_else(String::new, |list| format!(", with the digest in {}", last(&list.path)));
            meta.trust_basis = format!("unsigned, accepted by the recipe (allow-unsigned){also}");
            at.ui.warn(&format!("{} is not signed; the recipe accepts that", printable(&path)));
        }
        let after = identity(&file, &path)?;
        if before != after {
            return Err(changed(&path));
        }
        let remembered = Remembered { identity: after, meta, unsigned };
        // A file written within the clock's granularity could change again without a new change time.
        if !self.is_stdin() && remembered.identity.changed.0 + 2 < i64::try_from(now()).unwrap_or(i64::MAX) {
            at.store.write_ref(REFS, &self.ref_name(), &remembered)?;
        }
        at.ui.done();
        Ok(self.file(remembered))
    }

    /// Returns what the store remembers of the unchanged file.
    pub(super) fn known(&self, store: &Store) -> Result<Option<SourceFile>> {
        if self.is_stdin() {
            return Ok(None);
        }
        let Some(remembered) = store.read_ref::<Remembered>(REFS, &self.ref_name())? else { return Ok(None) };
        let file = open(self.path)?;
        let same = identity(&file, &self.path.display().to_string())? == remembered.identity;
        Ok((same && self.trust_id(store)? == remembered.meta.trust).then(|| self.file(remembered)))
    }

    /// Reads the whole file and checks it against `proof`. Notes the signer and the trust basis in `meta`.
    fn judge(&self, proof: Option<&Proof>, file: &File, meta: &mut FileMeta, at: &Site<'_>) -> Result<Sha512> {
        let path = self.path.display().to_string();
        let Some(Proof { path: document, bytes, form }) = proof else {
            return hashing::sha512(&hashing::of_file(file, &[Algorithm::Sha512], &path, at.ui)?.0);
        };
        let shown = printable(&document.display().to_string());
        match form {
            Form::Detached => {
                let keyring = self.trust.keyring(at.store)?;
                let metered = Metered::new(rewound(file)?, meta.size, at.ui);
                let mut reader = HashingReader::new(metered, &[Algorithm::Sha512]);
                let signer = verify::detached(&printable(&path), bytes, &mut reader, &keyring)?;
                // The verifier has read to the end of the file. Bytes that it did not read would not be hashed.
                hashing::rest(&mut reader).system(|| format!("reading {path}"))?;
                meta.trust_basis = format!("detached signature {} by {}", last(document), signer.primary);
                meta.signer = Some(signer);
                hashing::sha512(&reader.finish())
            }
            Form::Digests => {
                let signed = verify::clearsigned(&shown, bytes, &self.trust.keyring(at.store)?)?;
                meta.trust_basis = format!("clearsigned digests {} by {}", last(document), signed.signer.primary);
                meta.signer = Some(signed.signer);
                self.compare(file, &shown, &signed.text, at)
            }
            Form::Unsigned => {
                let text = std::str::from_utf8(bytes)
                    .map_err(|_| Error::refused(format!("{shown} is not a list of digests: it is not text")))?;
                // Anybody who can replace the file can replace this list: it finds damage, and proves nothing.
                self.compare(file, &shown, &format!("# SHA256 HASH\n{text}"), at)
            }
        }
    }

    /// Hashes the file and compares it with the digests that `list` gives for its name. Returns its SHA-512.
    fn compare(&self, file: &File, list: &str, text: &str, at: &Site<'_>) -> Result<Sha512> {
        let (path, name) = (self.path.display().to_string(), last(self.path));
        let digests = digests::parse(text)?;
        let (sha512, sha256) = (digests.sha512(&name)?, digests.sha256(&name)?);
        if sha512.is_none() && sha256.is_none() {
            return Err(Error::refused(format!("{list} gives neither SHA512 nor SHA256 for {name}"))
                .with_hint("a digest belongs to a name: rename the file to the name in the list"));
        }
        let algorithms: &[Algorithm] =
            if sha256.is_some() { &[Algorithm::Sha512, Algorithm::Sha256] } else { &[Algorithm::Sha512] };
        let sums: Sums = hashing::of_file(file, algorithms, &path, at.ui)?.0;
        if sha512.is_some_and(|wanted| sums.sha512() != Some(wanted))
            || sha256.is_some_and(|wanted| sums.sha256() != Some(wanted))
        {
            return Err(Error::refused(format!("{} does not have the digests that {list} gives", printable(&path)))
                .with_hint("the file is damaged or another one"));
        }
        hashing::sha512(&sums)
    }

    /// Compares the digest with the recipe's, if it has one.
    fn check_recipe_digest(&self, sha512: Sha512, meta: &mut FileMeta) -> Result<()> {
        let Some(wanted) = self.sha512 else { return Ok(()) };
        if Sha512::parse(wanted) != Some(sha512) {
            let path = printable(&self.path.display().to_string());
            return Err(Error::refused(format!("the SHA-512 of {path} differs from the recipe's"))
                .with_details(format!("file    {sha512}\nrecipe  {}", printable(wanted)))
                .with_hint("the file is damaged or another one; if it is the right one, correct source.sha512"));
        }
        let also = if meta.trust_basis.is_empty() { String::new() } else { format!(", {}", meta.trust_basis) };
        meta.trust_basis = format!("SHA-512 in the recipe{also}");
        Ok(())
    }

    fn file(&self, remembered: Remembered) -> SourceFile {
        SourceFile {
            name: if self.is_stdin() { "standard input".to_owned() } else { last(self.path) },
            location: Location::Path(self.path.to_owned()),
            evidence: if remembered.unsigned { Evidence::Unsigned } else { Evidence::Digest },
            meta: remembered.meta,
            offline: false,
            remember: (REFS, self.ref_name()),
            signature_age: None,
            unsigned_sha256: None,
        }
    }

    fn ref_name(&self) -> String {
        hex(&Sha256::digest(self.path.as_os_str().as_encoded_bytes()))
    }
}

/// Copies the file into the store. Its owner may go on writing to it, and the judged bytes must not change.
pub(super) fn copy(file: &SourceFile, path: &Path, at: &Site<'_>) -> Result<Received> {
    let what = path.display().to_string();
    let wanted = file.meta.sha512.ok_or_else(|| Error::system(format!("copying {what}: it was not hashed")))?;
    loop {
        let mut waiting = || at.ui.note(&format!("another build is copying {}; waiting for it", printable(&what)));
        match at.store.part(&format!("file-{}", &wanted.hex()[..32]), Some(&wanted), &mut waiting)? {
            PartOrBlob::Blob(blob) => {
                let stored = format!("the stored {}", file.name);
                let (sums, size) = hashing::of_file(&blob, &[Algorithm::Sha512], &stored, at.ui)?;
                if sums.sha512() == Some(wanted) {
                    return Ok(Received { file: blob, sha512: wanted, size });
                }
                at.ui.warn(&format!("the stored copy of {} is damaged; it is copied again", printable(&what)));
                at.store.remove_blob(&wanted)?;
            }
            PartOrBlob::Part(mut part) => {
                let source = open(path)?;
                let total = source.metadata().system(|| format!("reading {what}"))?.len();
                let (sums, size) = fill(&mut part, Metered::new(source, Some(total), at.ui), &what)?;
                if sums.sha512() != Some(wanted) {
                    part.discard()?;
                    return Err(changed(&what));
                }
                return Ok(Received { file: part.finish(at.store, &wanted)?, sha512: wanted, size });
            }
        }
    }
}

/// Copies standard input into the store, where it can be read more than once. It is judged afterwards.
fn spool(at: &Site<'_>) -> Result<File> {
    let mut waiting = || at.ui.note("another build is reading its standard input; waiting for it");
    let PartOrBlob::Part(mut part) = at.store.part("stdin", None, &mut waiting)? else {
        return Err(Error::system("reading standard input: the store has it already"));
    };
    let input = std::io::stdin().lock().take(MAX_FILE + 1);
    let (sums, size) = fill(&mut part, Metered::new(input, None, at.ui), "standard input")?;
    if size > MAX_FILE {
        part.discard()?;
        return Err(Error::refused("standard input is larger than any stage3"));
    }
    let file = part.finish(at.store, &hashing::sha512(&sums)?)?;
    rewound(&file)?;
    Ok(file)
}

/// Replaces the contents of a part. Returns their digest and size.
fn fill(part: &mut PartialBlob, input: Metered<'_, impl Read>, what: &str) -> Result<(Sums, u64)> {
    part.file().set_len(0).system(|| format!("emptying {}", part.path().display()))?;
    let mut reader = HashingReader::new(input, &[Algorithm::Sha512]);
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = reader.read(&mut buffer).system(|| format!("reading {what}"))?;
        if count == 0 {
            let size = reader.count();
            return Ok((reader.finish(), size));
        }
        part.file().write_all(&buffer[..count]).system(|| format!("copying {what} into the store"))?;
    }
}

fn read_small(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = open(path)?;
    (&file).take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).system(|| format!("reading {}", path.display()))?;
    Ok(bytes)
}

/// Opens a regular file. A FIFO would block for ever, and a device has no end.
fn open(path: &Path) -> Result<File> {
    let what = || format!("opening {}", printable(&path.display().to_string()));
    let kind =
        |error: &std::io::Error| if error.kind() == std::io::ErrorKind::NotFound { Kind::Usage } else { Kind::System };
    let file = rustix::fs::open(
        path,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map(File::from)
    .map_err(std::io::Error::from)
    .map_err(|error| Error::new(kind(&error), what()).with_source(error))?;
    if !file.metadata().system(what)?.is_file() {
        return Err(Error::usage(format!("{}: it is not a regular file", what())));
    }
    Ok(file)
}

fn identity(file: &File, path: &str) -> Result<Identity> {
    let stat = file.metadata().system(|| format!("reading {}", printable(path)))?;
    Ok(Identity {
        device: stat.dev(),
        inode: stat.ino(),
        size: stat.size(),
        modified: (stat.mtime(), stat.mtime_nsec()),
        changed: (stat.ctime(), stat.ctime_nsec()),
    })
}

fn changed(path: &str) -> Error {
    Error::refused(format!("{} changed while it was read", printable(path)))
        .with_hint("wait until nothing writes to it, and run again")
}

/// Returns the last component of a path, for a message.
fn last(path: &Path) -> String {
    printable(&path.file_name().unwrap_or_default().to_string_lossy())
}
