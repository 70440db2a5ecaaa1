//! A tarball of this machine as the base: proven by a detached signature, by signed digests, by a digest of the recipe, or by the
//! user's own word.

use crate::base::text::printable;
use crate::base::time::now;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::digests;
use super::hashing;
use super::{BUFFER, Facts, Got, Located, Place, Proof, Site, keyring, pointer};
use crate::base::digest::{Algorithm, Hasher, Sha512, hex};
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::progress::{Event, Progress};
use crate::recipe::{BaseSpec, Source};
use crate::store::Store;
use crate::store::blobs::PartOrBlob;
use crate::verify::{self, MAX_DOCUMENT};

const REFS: &str = "file";

/// Endings of lists of digests.
const DIGESTS: [&str; 3] = [".DIGESTS", ".DIGESTS.asc", ".sha256"];

/// What the recipe says.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) path: &'a Path,
    pub(super) signature: Option<&'a Path>,
    pub(super) sha512: Option<&'a str>,
    pub(super) allow_unsigned: bool,
}

impl<'a> Asked<'a> {
    /// Of a base that is a file of this machine.
    pub(super) fn of(base: &'a BaseSpec) -> Option<Self> {
        let BaseSpec::File { path, signature, sha512, allow_unsigned } = base else { return None };
        let (signature, sha512) = (signature.as_deref(), sha512.as_deref());
        Some(Self { path, signature, sha512, allow_unsigned: *allow_unsigned })
    }

    fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }
}

/// What lies beside the file, or is named by the recipe, to prove it.
#[derive(Debug)]
struct Beside {
    path: PathBuf,
    bytes: Vec<u8>,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Detached,
    /// Signed digests: Gentoo's `.DIGESTS` and `.sha256`.
    Digests,
    /// Digests that nobody signed.
    Unsigned,
}

/// What was found out about a file, for as long as the file is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    identity: Identity,
    facts: Facts,
    unsigned: bool,
}

/// A file that has not changed: the kernel sets the change time, nobody else can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Hashes the file and checks what proves it. A file that is unchanged since it was last looked at is not read again.
pub(super) fn locate(source: &Source, asked: &Asked<'_>, at: &Site<'_>) -> Result<Located> {
    if let Some(located) = known(source, asked, at.store)? {
        return Ok(located);
    }
    let path = asked.path.display().to_string();
    at.ui.stage(&format!("checking {}", printable(&path)));
    let proof = proof(asked)?;
    let file = if asked.is_stdin() { spool(at)? } else { open(asked.path)? };
    let before = identity(&file, &path)?;
    let mut facts = Facts {
        size: Some(before.size),
        sha512: None,
        blake2b: None,
        timestamp: asked
            .path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(pointer::split_name)
            .map(|(_, ts, _)| ts.to_owned()),
        signer: None,
        how: String::new(),
        verified_at: now(),
        trust: trust(source, asked, at.store)?,
        signature: None,
        digests: None,
        fetched: false,
    };
    let mut reader = Hashing::new(&file, &[Algorithm::Sha512], before.size, at.ui);
    let sha512 = match &proof {
        Some(Beside { path: signature, bytes, form: Form::Detached }) => {
            let keyring = keyring(source, at.store)?;
            let signer = verify::detached(&printable(&path), bytes, &mut reader, &keyring)?;
            // The verifier has read the file to its end; what it did not read would not be hashed.
            reader.rest(&path)?;
            facts.how = format!("detached signature {} by {}", last(signature), signer.primary);
            facts.signer = Some(signer);
            hashing::sha512(&reader.hasher.finish())?
        }
        Some(Beside { path: list, bytes, form: Form::Digests }) => {
            let shown = printable(&list.display().to_string());
            let signed = verify::clearsigned(&shown, bytes, &keyring(source, at.store)?)?;
            facts.how = format!("clearsigned digests {} by {}", last(list), signed.signer.primary);
            facts.signer = Some(signed.signer);
            reader.compare(&path, &shown, &signed.text, &last(asked.path))?
        }
        Some(Beside { path: list, bytes, form: Form::Unsigned }) => {
            let shown = printable(&list.display().to_string());
            let text = std::str::from_utf8(bytes)
                .map_err(|_| Error::refused(format!("{shown} is not a list of digests: it is not text")))?;
            // Who can replace the file can replace this: it finds damage, and proves nothing.
            let text = format!("# SHA256 HASH\n{text}");
            reader.compare(&path, &shown, &text, &last(asked.path))?
        }
        None => {
            reader.rest(&path)?;
            hashing::sha512(&reader.hasher.finish())?
        }
    };
    if let Some(wanted) = asked.sha512 {
        if Sha512::parse(wanted) != Some(sha512) {
            return Err(Error::refused(format!("the SHA-512 of {} is not the recipe's", printable(&path)))
                .with_details(format!("it is      {sha512}\nand not    {}", printable(wanted)))
                .with_hint("the file is damaged or another one; if it is the right one, correct source.sha512"));
        }
        let also = if facts.how.is_empty() { String::new() } else { format!(", {}", facts.how) };
        facts.how = format!("SHA-512 in the recipe{also}");
    }
    let unsigned = facts.how.is_empty();
    if unsigned {
        let also = proof.map_or_else(String::new, |list| format!(", with the digest in {}", last(&list.path)));
        facts.how = format!("unsigned, accepted by the recipe (allow-unsigned){also}");
        at.ui.warn(&format!("{} is not signed; the recipe accepts it so", printable(&path)));
    }
    facts.sha512 = Some(sha512);
    // A file written to within the clock's grain of being read could change again without its times changing.
    let after = identity(&file, &path)?;
    if before != after {
        return Err(changed(&path));
    }
    let remembered = Remembered { identity: after, facts, unsigned };
    if !asked.is_stdin() && remembered.identity.changed.0 + 2 < i64::try_from(now()).unwrap_or(i64::MAX) {
        at.store.write_ref(REFS, &ref_name(asked), &remembered)?;
    }
    at.ui.done();
    Ok(located(asked, remembered))
}

/// What the store remembers of the unchanged file.
pub(super) fn known(source: &Source, asked: &Asked<'_>, store: &Store) -> Result<Option<Located>> {
    if asked.is_stdin() {
        return Ok(None);
    }
    let Some(remembered) = store.read_ref::<Remembered>(REFS, &ref_name(asked))? else { return Ok(None) };
    let file = open(asked.path)?;
    if identity(&file, &asked.path.display().to_string())? != remembered.identity
        || trust(source, asked, store)? != remembered.facts.trust
    {
        return Ok(None);
    }
    Ok(Some(located(asked, remembered)))
}

/// Copies the file into the store: its owner may go on writing to it, and what is judged must stay as it was.
pub(super) fn copy(located: &Located, path: &Path, at: &Site<'_>) -> Result<Got> {
    let what = path.display().to_string();
    let wanted =
        located.facts.sha512.as_ref().ok_or_else(|| Error::system(format!("copying {what}: it was not hashed")))?;
    loop {
        let mut waiting = || at.ui.note(&format!("another build is copying {}; waiting for it", printable(&what)));
        let mut part = match at.store.part(&format!("file-{}", &wanted.hex()[..32]), Some(wanted), &mut waiting)? {
            PartOrBlob::Part(part) => part,
            PartOrBlob::Blob(file) => {
                let what = format!("the stored {}", located.name);
                let (sums, size) = hashing::of_file(&file, &[Algorithm::Sha512], &what, at.ui)?;
                let sha512 = hashing::sha512(&sums)?;
                if sha512 == *wanted {
                    return Ok(Got { file, sha512, size });
                }
                at.ui.warn(&format!("the stored copy of {} is damaged; it is copied again", printable(&what)));
                at.store.remove_blob(wanted)?;
                continue;
            }
        };
        let file = open(path)?;
        let total = file.metadata().system(|| format!("reading {what}"))?.len();
        let mut reader = Hashing::new(&file, &[Algorithm::Sha512], total, at.ui);
        part.file().set_len(0).system(|| format!("emptying {}", part.path().display()))?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = reader.read(&mut buffer).system(|| format!("reading {what}"))?;
            if count == 0 {
                break;
            }
            part.file().write_all(&buffer[..count]).system(|| format!("copying {what} into the store"))?;
        }
        let (sha512, size) = (hashing::sha512(&reader.hasher.finish())?, reader.done);
        if sha512 != *wanted {
            part.discard()?;
            return Err(changed(&what));
        }
        return Ok(Got { file: part.finish(at.store, &sha512)?, sha512, size });
    }
}

/// The signature that the recipe names or that lies beside the file; none is an error unless something else stands in for it.
fn proof(asked: &Asked<'_>) -> Result<Option<Beside>> {
    if let Some(path) = signature_path(asked) {
        let bytes = read_small(&path)?;
        let form = if bytes.trim_ascii_start().starts_with(b"-----BEGIN PGP SIGNED MESSAGE-----") {
            Form::Digests
        } else if asked.signature.is_none()
            && DIGESTS.iter().any(|suffix| path.as_os_str().as_encoded_bytes().ends_with(suffix.as_bytes()))
        {
            Form::Unsigned
        } else {
            Form::Detached
        };
        if form != Form::Unsigned || asked.allow_unsigned {
            return Ok(Some(Beside { path, bytes, form }));
        }
        let path = printable(&path.display().to_string());
        return Err(Error::refused(format!("{path} is not signed, and so proves nothing")).with_hint(
            "whoever can replace the file can replace its digest: give source.sha512, or accept the file as it is with \
             source.allow-unsigned = true",
        ));
    }
    if asked.sha512.is_some() || asked.allow_unsigned {
        return Ok(None);
    }
    if asked.is_stdin() {
        return Err(Error::refused("nothing proves standard input").with_hint(
            "name its signature in source.signature, give source.sha512, or accept it as it is with source.allow-unsigned = true",
        ));
    }
    let path = printable(&asked.path.display().to_string());
    Err(Error::refused(format!(
        "nothing proves {path}: there is no {path}.asc, .sig, .gpg, .DIGESTS or .sha256 beside it"
    ))
    .with_hint(
        "put its signature there, name it in source.signature, give source.sha512, or accept it as it is with \
         source.allow-unsigned = true",
    ))
}

/// Names what the trust rests on: with another keyring, signature or digest the file is judged anew.
fn trust(source: &Source, asked: &Asked<'_>, store: &Store) -> Result<String> {
    let mut trust = Sha256::new();
    if let Some(path) = signature_path(asked) {
        trust.update(keyring(source, store)?.id());
        trust.update(read_small(&path)?);
    }
    trust.update([u8::from(asked.allow_unsigned)]);
    trust.update(asked.sha512.unwrap_or_default());
    Ok(hex(&trust.finalize()))
}

fn signature_path(asked: &Asked<'_>) -> Option<PathBuf> {
    if let Some(path) = asked.signature {
        return Some(path.to_owned());
    }
    // A digest in the recipe stands in for a signature: one that happens to lie there need not be anybody's we know.
    if asked.sha512.is_some() || asked.is_stdin() {
        return None;
    }
    [".asc", ".sig", ".gpg"].into_iter().chain(DIGESTS).find_map(|suffix| {
        let mut path = asked.path.as_os_str().to_owned();
        path.push(suffix);
        let path = PathBuf::from(path);
        path.symlink_metadata().is_ok().then_some(path)
    })
}

fn read_small(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = open(path)?;
    (&file).take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).system(|| format!("reading {}", path.display()))?;
    Ok(bytes)
}

/// Opens a regular file: a FIFO would wait for ever, a device has no end.
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

fn ref_name(asked: &Asked<'_>) -> String {
    hex(&Sha256::digest(asked.path.as_os_str().as_encoded_bytes()))
}

fn located(asked: &Asked<'_>, remembered: Remembered) -> Located {
    Located {
        name: if asked.is_stdin() { "standard input".to_owned() } else { last(asked.path) },
        place: Place::File(asked.path.to_owned()),
        proof: if remembered.unsigned { Proof::Unsigned } else { Proof::Digest },
        facts: remembered.facts,
        offline: false,
        remember: (REFS, ref_name(asked)),
        dated: None,
        sha256: None,
    }
}

fn changed(path: &str) -> Error {
    Error::refused(format!("{} changed while it was read", printable(path)))
        .with_hint("wait until nothing writes to it, and run again")
}

/// Brings standard input into the store, where it can be read more than once. What it is, is judged afterwards.
fn spool(at: &Site<'_>) -> Result<File> {
    let mut waiting = || at.ui.note("another build is reading its standard input; waiting for it");
    let PartOrBlob::Part(mut part) = at.store.part("stdin", None, &mut waiting)? else {
        return Err(Error::system("reading standard input: the store has it already"));
    };
    let mut input = std::io::stdin().lock();
    let mut hasher = Hasher::new(&[Algorithm::Sha512]);
    let mut buffer = vec![0; BUFFER];
    let mut done = 0;
    part.file().set_len(0).system(|| format!("emptying {}", part.path().display()))?;
    loop {
        let count = input.read(&mut buffer).system(|| "reading standard input")?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        part.file().write_all(&buffer[..count]).system(|| "copying standard input into the store")?;
        done += count as u64;
        if done > pointer::MAX_SIZE {
            part.discard()?;
            return Err(Error::refused("standard input is larger than any stage3"));
        }
        at.ui.emit(Event::Bytes { done, total: None });
    }
    let file = part.finish(at.store, &hashing::sha512(&hasher.finish())?)?;
    super::rewound(&file)?;
    Ok(file)
}

/// The last component of a path, for a message.
fn last(path: &Path) -> String {
    printable(&path.file_name().unwrap_or_default().to_string_lossy())
}

/// Hashes what is read through it.
struct Hashing<'a> {
    file: &'a File,
    hasher: Hasher,
    done: u64,
    total: u64,
    ui: &'a dyn Progress,
}

impl<'a> Hashing<'a> {
    fn new(file: &'a File, algorithms: &[Algorithm], total: u64, ui: &'a dyn Progress) -> Self {
        Self { file, hasher: Hasher::new(algorithms), done: 0, total, ui }
    }

    /// Reads what nobody has read yet.
    fn rest(&mut self, path: &str) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        while self.read(&mut buffer).system(|| format!("reading {path}"))? > 0 {}
        Ok(())
    }

    /// Reads the file and holds it to the digests that `list` gives for `name`, of which there must be one. Returns its SHA-512.
    fn compare(mut self, path: &str, list: &str, text: &str, name: &str) -> Result<Sha512> {
        let digests = digests::parse(text)?;
        let (sha512, sha256) = (digests.of(name, Algorithm::Sha512)?, digests.of(name, Algorithm::Sha256)?);
        if sha512.is_none() && sha256.is_none() {
            return Err(Error::refused(format!("{list} gives neither SHA512 nor SHA256 for {name}"))
                .with_hint("a digest belongs to a name: the file must have the one that the list gives it"));
        }
        if sha256.is_some() {
            self.hasher = Hasher::new(&[Algorithm::Sha512, Algorithm::Sha256]);
        }
        self.rest(path)?;
        let sums = self.hasher.finish();
        let wrong = |wanted: Option<&str>, algorithm| wanted.is_some() && wanted != sums.hex(algorithm).as_deref();
        if wrong(sha512, Algorithm::Sha512) || wrong(sha256, Algorithm::Sha256) {
            return Err(Error::refused(format!(
                "{} is not the file that {list} gives the digests of",
                printable(path)
            ))
            .with_hint("the file is damaged or another one"));
        }
        hashing::sha512(&sums)
    }
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.done += count as u64;
        self.ui.emit(Event::Bytes { done: self.done, total: Some(self.total) });
        Ok(count)
    }
}
