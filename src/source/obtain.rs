//! The way of an input: locate, fetch, verify, unpack. It is written here once, for stage3s, snapshots and commits alike.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::download::{self, NamedBy, Request};
use super::local_file::{self, LocalFile};
use super::model::{Location, SourceFile};
use super::repository::git::{self, Commit};
use super::repository::snapshot;
use super::repository::tree::{self, Admission};
use super::trust::warn_of_expiry;
use super::{Site, Trust, gentoo, locked, signed_file, without_network};
use crate::archive::unpack::{Deferred, Limits, RaisedBy, Unpacker};
use crate::base::digest::Sha512;
use crate::base::error::{Error, Kind, Result};
use crate::base::text::printable;
use crate::fs::rewound;
use crate::fs::rootfs::Rootfs;
use crate::net::http::Http;
use crate::recipe::{BaseSpec, Bounds, Git, Job, Origin, RepositorySpec, SignedFile, Snapshot, SnapshotFormat};
use crate::recipe::{Source, Version};
use crate::store::Store;
use crate::store::trees::Tree;
use crate::verify::{self, Candidate, Evidence, Verified};

/// An input that a recipe asks for.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// A stage3 of Gentoo's mirrors.
    Stage3 { source: &'a Source, variant: &'a str, version: &'a Version },
    /// A stage3 of a server without a signed list.
    SignedFile { source: &'a Source, file: &'a SignedFile },
    /// A stage3 on this machine.
    LocalFile { source: &'a Source, file: LocalFile<'a> },
    /// A snapshot of Gentoo's repository. `index` is its position among the recipe's repositories, by which a lock names it.
    Snapshot { snapshot: &'a Snapshot, index: usize },
    /// A commit of a git repository.
    Commit { git: &'a Git, index: usize },
}

/// An input that was found, and perhaps not fetched yet.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "few of them exist at a time")]
pub enum Located {
    /// A stage3 or a snapshot.
    File(SourceFile),
    /// A commit.
    Commit(Commit),
}

/// Bytes in the store, with their measurements.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) file: File,
    pub(super) sha512: Sha512,
    pub(super) size: u64,
}

impl Located {
    /// Returns the file, unless it is a commit.
    pub fn file(self) -> Option<SourceFile> {
        match self {
            Self::File(file) => Some(file),
            Self::Commit(_) => None,
        }
    }

    /// Returns the digest that names its tree in the store. `None` if only the bytes tell it.
    pub fn tree_key(&self) -> Option<Sha512> {
        match self {
            Self::File(file) => file.sha512(),
            Self::Commit(commit) => Some(commit.tree_key()),
        }
    }
}

impl<'a> Wanted<'a> {
    /// Returns the stage3 of a recipe.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a recipe that is built from the host.
    pub fn base(job: &'a Job) -> Result<Self> {
        let source = &job.source;
        Ok(match &source.base {
            BaseSpec::Gentoo { stage3, version } => Self::Stage3 { source, variant: stage3, version },
            BaseSpec::SignedFile(file) => Self::SignedFile { source, file },
            BaseSpec::File { .. } | BaseSpec::Host { .. } => match LocalFile::of_source(source) {
                Some(file) => Self::LocalFile { source, file },
                None => {
                    return Err(Error::usage(format!(
                        "{} is built from this host, without a stage3 to fetch or verify",
                        job.name
                    )));
                }
            },
        })
    }

    /// Returns the repository at `index` of a recipe, unless it is a directory of this machine or a meta-repo.
    pub fn repository(repository: &'a RepositorySpec, index: usize) -> Option<Self> {
        match &repository.origin {
            Origin::Location(_) | Origin::MetaRepo(_) => None,
            Origin::Snapshot(snapshot) => Some(Self::Snapshot { snapshot, index }),
            Origin::Git(git) => Some(Self::Commit { git, index }),
        }
    }

    /// Finds the file or the commit: the locked one, the one that the store knows if no server may be asked, otherwise the one that
    /// the servers offer.
    ///
    /// # Errors
    /// [`Kind::Refused`] for anything without a trusted signature, [`Kind::Network`] when no server has it.
    pub fn locate(&self, at: &Site<'_>) -> Result<Located> {
        if at.options.locked.is_some() {
            return self.locate_locked(at);
        }
        if at.options.offline && !matches!(self, Self::LocalFile { .. } | Self::Commit { .. }) {
            return self.known(at.store)?.ok_or_else(|| {
                Error::network(format!("the store has no verified {}", self.described()))
                    .with_hint(without_network(&at.options))
            });
        }
        let file = match *self {
            Self::Stage3 { source, variant, version } => gentoo::locate(source, variant, version, at)?,
            Self::SignedFile { source, file } => signed_file::Request::of_stage3(source, file).locate(at)?,
            Self::LocalFile { file, .. } => file.locate(at)?,
            Self::Snapshot { snapshot, .. } => return snapshot::locate(snapshot, at).map(Located::File),
            Self::Commit { git, .. } => return git::locate(git, at).map(Located::Commit),
        };
        if let (Some(signer), Some(trust)) = (file.signer(), self.trust()) {
            warn_of_expiry(&trust.keyring(at.store)?, signer, at.ui);
        }
        Ok(Located::File(file))
    }

    fn locate_locked(&self, at: &Site<'_>) -> Result<Located> {
        let locks = at.options.locked;
        let repository = |index: usize| locks.and_then(|locked| locked.repository.get(index));
        match *self {
            Self::Stage3 { source, .. } | Self::SignedFile { source, .. } | Self::LocalFile { source, .. } => {
                match locks.and_then(|locked| locked.stage3.as_ref()) {
                    Some(file) => locked::stage3(source, file, at).map(Located::File),
                    None => Err(locked::changed("a stage3", "nothing")),
                }
            }
            Self::Snapshot { snapshot, index } => match repository(index).and_then(|one| one.snapshot.as_ref()) {
                Some(file) => locked::snapshot(snapshot, file, at).map(Located::File),
                None => Err(locked::changed(&snapshot::asked(snapshot), "something else")),
            },
            Self::Commit { git, index } => git::locate(&locked_commit(git, index, at)?, at).map(Located::Commit),
        }
    }

    /// Returns the newest of it that the store knows, without asking a server.
    ///
    /// # Errors
    /// Those of the keyring and the store.
    pub fn known(&self, store: &Store) -> Result<Option<Located>> {
        let file = match *self {
            Self::Stage3 { source, variant, version } => gentoo::known(source, variant, version, store)?,
            Self::SignedFile { source, file } => signed_file::Request::of_stage3(source, file).known(store)?,
            Self::LocalFile { file, .. } => file.known(store)?,
            Self::Snapshot { snapshot, .. } => snapshot::known(snapshot, store)?,
            Self::Commit { git, .. } => return Ok(git::known(git, store)?.map(Located::Commit)),
        };
        Ok(file.map(Located::File))
    }

    /// Lists the addresses of the documents that are asked for first.
    ///
    /// # Errors
    /// [`Kind::Usage`] for an unknown variant.
    pub fn first_urls(&self) -> Result<Vec<String>> {
        Ok(match *self {
            Self::Stage3 { source, variant, version } => gentoo::first_urls(source, variant, version)?,
            Self::SignedFile { source, file } => signed_file::Request::of_stage3(source, file).first_urls(),
            Self::LocalFile { .. } => Vec::new(),
            Self::Snapshot { snapshot, .. } => snapshot::first_urls(snapshot),
            Self::Commit { git, .. } => {
                vec![format!("{} {}", git.url, git.commit.as_deref().or(git.branch.as_deref()).unwrap_or_default())]
            }
        })
    }

    /// Fetches the file, unless the store has it, and judges it. Also returns what the bytes tell about it.
    ///
    /// # Errors
    /// Those of [`Wanted::locate`], and [`Kind::Refused`] when the bytes are not the ones asked for.
    pub fn bytes(&self, at: &Site<'_>) -> Result<(SourceFile, Verified)> {
        match self.locate(at)? {
            Located::File(file) => self.verified(file, at),
            Located::Commit(commit) => Err(Error::system(format!("{} is a commit, not a file", commit.name()))),
        }
    }

    /// Judges the input again, and describes the verdict in a paragraph.
    ///
    /// # Errors
    /// Those of [`Wanted::bytes`].
    pub fn judge(&self, at: &Site<'_>) -> Result<String> {
        match *self {
            Self::Commit { git, index } => {
                let git = locked_commit(git, index, at)?;
                let commit = if at.options.offline { git::locate(&git, at) } else { git::judge(&git, at) };
                commit.map(|commit| commit.to_string())
            }
            _ => self.bytes(at).map(|(_, verified)| verified.to_string()),
        }
    }

    /// Returns its tree in the store, fetched, verified and unpacked if the store lacks it.
    ///
    /// # Errors
    /// Those of [`Wanted::bytes`] and of unpacking.
    pub fn tree(&self, at: &Site<'_>) -> Result<(Located, Tree)> {
        let located = self.locate(at)?;
        let waiting = || at.ui.note(&format!("waiting for another process that unpacks the same {}", self.kind()));
        if let Some(key) = located.tree_key()
            && let Some(tree) = at.store.tree(&key, waiting)?
        {
            return Ok((located, tree));
        }
        match located {
            Located::Commit(commit) => {
                let (key, name) = (commit.tree_key(), commit.name());
                let tree = at.store.add_tree(&key, &name, waiting, |root| {
                    self.unpack(&name, None, root, at, |unpacker| match *self {
                        Self::Commit { git, .. } => {
                            git::archive(git, &commit, at, |tarball| unpack_repository(unpacker, tarball, None, None))
                        }
                        _ => Err(Error::system(format!("{name} is a commit"))),
                    })
                })?;
                Ok((Located::Commit(commit), tree))
            }
            Located::File(file) => {
                let (file, verified) = self.verified(file, at)?;
                let (key, name, size) = (verified.sha512(), verified.name(), verified.size());
                let tree = at.store.add_tree(&key, name, waiting, |root| {
                    self.unpack(name, Some(size), root, at, |unpacker| {
                        let bytes = verified.open()?;
                        match *self {
                            Self::Snapshot { snapshot, .. } => match snapshot.format {
                                SnapshotFormat::Tar => {
                                    unpacker.check_size(&bytes)?;
                                    unpack_repository(unpacker, bytes, Some(size), self.top().as_deref())
                                }
                                SnapshotFormat::Squashfs => unpack_image(unpacker, &bytes),
                            },
                            _ => unpacker.file(bytes),
                        }
                    })
                })?;
                Ok((Located::File(file), tree))
            }
        }
    }

    /// Runs `unpack` with the limits of this input.
    fn unpack(
        &self,
        name: &str,
        size: Option<u64>,
        root: &Rootfs,
        at: &Site<'_>,
        unpack: impl FnOnce(&Unpacker<'_>) -> Result<Deferred>,
    ) -> Result<Deferred> {
        at.ui.stage(&format!("unpacking {name}"));
        let (Bounds { max_unpacked, max_entries }, raised_by) = match *self {
            Self::Stage3 { source, .. } | Self::SignedFile { source, .. } | Self::LocalFile { source, .. } => {
                (source.bounds, RaisedBy::Source)
            }
            Self::Snapshot { snapshot, .. } => (snapshot.bounds, RaisedBy::Repository),
            Self::Commit { git, .. } => (git.bounds, RaisedBy::Repository),
        };
        let limits = Limits::of_release(size.unwrap_or_default()).set(max_unpacked, max_entries, raised_by);
        let deferred = unpack(&Unpacker { name, into: root, limits: &limits, ui: at.ui })?;
        at.ui.done();
        Ok(deferred)
    }

    /// Returns the name that the top directory of its tree must have, if one is known.
    pub(super) fn top(&self) -> Option<String> {
        match self {
            Self::Snapshot { snapshot, .. } => snapshot::top(snapshot),
            _ => None,
        }
    }

    /// Returns the name that a snapshot gives itself: its top directory, or the file name of an image.
    pub(super) fn name_of(&self, top: String, file: &SourceFile) -> String {
        match self {
            Self::Snapshot { snapshot, .. } => snapshot::called(snapshot, top, file.name()),
            _ => top,
        }
    }

    pub(super) fn verified(&self, file: SourceFile, at: &Site<'_>) -> Result<(SourceFile, Verified)> {
        let verified = match *self {
            Self::Snapshot { snapshot, .. } => snapshot::verified(snapshot, &file, at)?,
            _ => verify::verify(fetch(&file, at)?)?,
        };
        Ok((file.with(&verified), verified))
    }

    fn trust(&self) -> Option<Trust<'a>> {
        match *self {
            Self::Stage3 { source, .. } | Self::SignedFile { source, .. } | Self::LocalFile { source, .. } => {
                Some(Trust::of_source(source))
            }
            Self::Snapshot { .. } | Self::Commit { .. } => None,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Stage3 { .. } | Self::SignedFile { .. } | Self::LocalFile { .. } => "stage3",
            Self::Snapshot { .. } | Self::Commit { .. } => "repository",
        }
    }

    fn described(&self) -> String {
        match *self {
            Self::Stage3 { variant, version: Version::Latest, .. } => format!("stage3 {variant}"),
            Self::Stage3 { variant, version: Version::Timestamp(timestamp), .. } => {
                format!("stage3 {variant} of {timestamp}")
            }
            Self::SignedFile { file, .. } => file.path.clone(),
            Self::LocalFile { .. } => "file".to_owned(),
            Self::Snapshot { snapshot, .. } => snapshot::path(snapshot),
            Self::Commit { git, .. } => format!("commit of {}", git.url),
        }
    }
}

/// Returns the request for a commit, held to the lock if there is one.
fn locked_commit(git: &Git, index: usize, at: &Site<'_>) -> Result<Git> {
    let Some(locked) = at.options.locked else { return Ok(git.clone()) };
    match locked.repository.get(index).and_then(|repository| repository.git.as_ref()) {
        Some(commit) => locked::commit(commit, git),
        None => Err(locked::changed(&git.url, "something else")),
    }
}

/// Brings the bytes of a file into the store, unless they are there. A download is resumed and hashed on the way; a local file is
/// copied, so that the judged bytes cannot change.
pub(super) fn fetch(file: &SourceFile, at: &Site<'_>) -> Result<Candidate> {
    at.ui.stage(&format!("fetching {}", printable(&file.name)));
    let mut meta = file.meta.clone();
    let received = match &file.location {
        Location::Path(path) => local_file::copy(file, path, at)?,
        Location::Urls(urls) => {
            let mut signer = None;
            let mut accept = |bytes: &File| match &file.evidence {
                Evidence::Detached { signature, keyring } => {
                    let good = verify::detached(&file.name, signature, rewound(bytes)?, keyring)?;
                    if let Some(age) = &file.signature_age {
                        age.check(keyring, &file.name, good.created, at)?;
                    }
                    signer = Some(good);
                    Ok(())
                }
                Evidence::Digest | Evidence::Locked | Evidence::Unsigned => Ok(()),
            };
            let request = Request {
                name: &file.name,
                urls,
                size: meta.size,
                sha512: meta.sha512,
                blake2b: meta.blake2b,
                sha256: file.unsigned_sha256,
                named_by: NamedBy::Signer,
                offline: file.offline.then(|| without_network(&at.options)),
            };
            let received = download::download(&Http::default(), &request, at.store, &mut accept, at.ui);
            let received = received.map_err(|error| match (&file.evidence, error.kind()) {
                (Evidence::Locked, Kind::Network) if !file.offline => error.with_hint(locked::GONE),
                (Evidence::Locked, Kind::Refused) => error.with_hint(locked::OTHER),
                _ => error,
            })?;
            if let Some(signer) = signer {
                meta.trust_basis = format!("detached signature by {}", signer.primary);
                meta.signer = Some(signer);
            }
            if !meta.fetched {
                (meta.fetched, meta.size, meta.sha512) = (true, Some(received.size), Some(received.sha512));
                at.store.write_ref(file.remember.0, &file.remember.1, &meta)?;
            }
            received
        }
    };
    at.ui.done();
    let Received { file: bytes, sha512, size } = received;
    Ok(Candidate {
        name: file.name.clone(),
        file: bytes,
        sha512,
        size,
        expected_size: meta.size,
        expected_sha512: meta.sha512,
        evidence: file.evidence.clone(),
        signer: meta.signer,
        trust_basis: meta.trust_basis,
    })
}

/// Unpacks a tarball that must hold an ebuild repository. Nothing else is left in the store.
fn unpack_repository(
    unpacker: &Unpacker<'_>,
    tarball: impl Read + Send + 'static,
    size: Option<u64>,
    top: Option<&str>,
) -> Result<Deferred> {
    let mut admission = Admission::new(unpacker.name);
    let deferred = unpacker.stream(tarball, size, &mut |entry| admission.admit(entry))?;
    tree::top(unpacker.into, unpacker.name, top)?;
    Ok(deferred)
}

/// Unpacks a squashfs image of an ebuild repository into a directory of its own.
fn unpack_image(unpacker: &Unpacker<'_>, image: &File) -> Result<Deferred> {
    let mut admission = Admission::new(unpacker.name);
    let deferred = unpacker.squashfs(image, Path::new("gentoo"), &mut |entry| admission.admit(entry))?;
    tree::top(unpacker.into, unpacker.name, None)?;
    Ok(deferred)
}
