//! Metadata of ebuilds, for repositories without a cache of their own (`metadata/md5-cache`): Portage runs each ebuild to learn its
//! metadata, and the store keeps the answers for later builds.
//!
//! Portage uses an entry only if it names the digests of the ebuild and its eclasses as they are, so an old entry does no harm. A false
//! one would: an ebuild that runs can write entries for others. The store therefore keeps entries for one set of repositories in one
//! state. An ebuild can mislead only builds that have the same ebuild.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;

use crate::base::digest::Sha256;
use crate::base::error::{Context, Kind, Result};
use crate::base::progress::Progress;
use crate::fs::atomic;
use crate::fs::rootfs::Rootfs;
use crate::portage::{BuilderInfo, Repos};
use crate::source::inputs::RepositoryInput;
use crate::store::Store;

/// Portage's directory of metadata that it has generated.
const DEPCACHE: &str = "var/cache/edb/dep";
/// Greatest number of entries that are kept.
const MAX_ENTRIES: usize = 50_000;
/// Longest entry, in bytes.
const MAX_ENTRY: u64 = 256 << 10;
/// Longest file of the store, in bytes, uncompressed.
const MAX_FILE: u64 = 256 << 20;
/// Deepest directory below [`DEPCACHE`].
const MAX_DEPTH: usize = 12;
/// Compression level of zstd.
const LEVEL: i32 = 3;

/// The entries of a set of repositories. The keys are paths below [`DEPCACHE`].
type Entries = BTreeMap<PathBuf, String>;

/// The metadata of one set of repositories in one state.
#[derive(Debug)]
pub struct Metadata {
    file: PathBuf,
    /// The entries that the store had.
    known: Entries,
}

impl Metadata {
    /// Reads the metadata that the store has for these repositories. `None` if each of them has a cache of its own, or if the state of
    /// one is not known.
    ///
    /// # Errors
    /// [`Kind::System`] if the directory in the store cannot be made.
    pub fn of(repos: &Repos, inputs: &[RepositoryInput], info: &BuilderInfo, store: &Store) -> Result<Option<Self>> {
        if !are_missing(repos) {
            return Ok(None);
        }
        let mut text = format!("quern-builder metadata 1\nportage {:?}\n", info.portage);
        for (repo, input) in repos.iter().zip(inputs) {
            let Some(state) = input.version.state() else { return Ok(None) };
            text.push_str(&format!("{} {state}\n", repo.name()));
        }
        let name = format!("{}.json.zst", &Sha256::of(text.as_bytes()).hex()[..32]);
        let file = store.cache("metadata")?.join(name);
        let known = fs_err::File::open(&file).ok().and_then(read).unwrap_or_default();
        Ok(Some(Self { file, known }))
    }

    /// Writes the known entries into the builder tree `root`.
    ///
    /// # Errors
    /// [`Kind::System`] if an entry cannot be written.
    pub fn restore(&self, root: &Rootfs) -> Result<()> {
        let write =
            |(path, text): (&PathBuf, &String)| root.write(&Path::new(DEPCACHE).join(path), text.as_bytes(), 0o644);
        self.known.iter().try_for_each(write)
    }

    /// Keeps the entries that the builder tree `root` has now. A failure costs the next build some time, and is a warning.
    pub fn keep(&self, root: &Rootfs, ui: &dyn Progress) {
        if let Err(error) = self.write(root) {
            ui.warn(&format!("{error}: the next build generates the metadata of ebuilds again"));
        }
    }

    fn write(&self, root: &Rootfs) -> Result<()> {
        let mut entries = Entries::new();
        if root.stat(Path::new(DEPCACHE))?.is_some() {
            collect(root, Path::new(""), MAX_DEPTH, &mut entries)?;
        }
        if entries.is_empty() || entries == self.known {
            return Ok(());
        }
        let keeping = || "keeping the metadata of ebuilds";
        let text = serde_json::to_vec(&entries).context(Kind::System, keeping)?;
        let bytes = zstd::encode_all(&text[..], LEVEL).system(keeping)?;
        atomic::replace(&self.file, &bytes, 0o600)
    }
}

/// Removes the entries of the builder tree `root`: a layer must not depend on what the store knew before.
///
/// # Errors
/// [`Kind::System`] if one cannot be removed.
pub fn remove(root: &Rootfs) -> Result<()> {
    let directory = Path::new(DEPCACHE);
    if root.stat(directory)?.is_none() {
        return Ok(());
    }
    root.read_dir(directory)?.iter().try_for_each(|(name, _)| root.remove(&directory.join(name)).map(drop))
}

/// Returns true if a repository does not come with the metadata of its ebuilds.
pub fn are_missing(repos: &Repos) -> bool {
    repos.iter().any(|repo| !repo.location().join("metadata/md5-cache").is_dir())
}

/// Reads the entries of a file of the store. `None` if they are damaged.
fn read(file: fs_err::File) -> Option<Entries> {
    let mut text = Vec::new();
    zstd::Decoder::new(file).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
    let entries: Entries = serde_json::from_slice(&text).ok()?;
    let plain = |path: &PathBuf| path.components().all(|part| matches!(part, Component::Normal(_)));
    entries.keys().all(plain).then_some(entries)
}

/// Collects the entries in the directory `below` of [`DEPCACHE`].
fn collect(root: &Rootfs, below: &Path, depth: usize, entries: &mut Entries) -> Result<()> {
    for (name, kind) in root.read_dir(&Path::new(DEPCACHE).join(below))? {
        let path = below.join(&name);
        // Portage writes an entry under a hidden name first.
        if name.to_str().is_none_or(|name| name.starts_with('.')) || entries.len() == MAX_ENTRIES {
            continue;
        }
        match kind {
            FileType::Directory if depth > 0 => collect(root, &path, depth - 1, entries)?,
            FileType::RegularFile => {
                // An entry that is too long is generated again.
                let bytes = root.read(&Path::new(DEPCACHE).join(&path), MAX_ENTRY).unwrap_or_default();
                if let Some(text) = bytes.and_then(|bytes| String::from_utf8(bytes).ok()) {
                    entries.insert(path, text);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(place: &Path) -> Metadata {
        let file = place.join("kept.json.zst");
        let known = fs_err::File::open(&file).ok().and_then(read).unwrap_or_default();
        Metadata { file, known }
    }

    #[test]
    fn entries_are_kept_and_restored() {
        let place = tempfile::tempdir().unwrap();
        let (first, second) = (place.path().join("first"), place.path().join("second"));
        for root in [&first, &second] {
            fs_err::create_dir(root).unwrap();
        }
        let category = first.join("var/cache/edb/dep/var/db/repos/own/app-own");
        fs_err::create_dir_all(&category).unwrap();
        fs_err::write(category.join("x-1"), "SLOT=0\n").unwrap();
        fs_err::write(category.join(".update.7.y-1"), "SLOT=").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", category.join("z-1")).unwrap();
        metadata(place.path()).write(&Rootfs::open(&first).unwrap()).unwrap();
        let kept = metadata(place.path());
        let path = PathBuf::from("var/db/repos/own/app-own/x-1");
        assert_eq!(kept.known, Entries::from([(path, "SLOT=0\n".to_owned())]));
        kept.restore(&Rootfs::open(&second).unwrap()).unwrap();
        let restored = second.join("var/cache/edb/dep/var/db/repos/own/app-own/x-1");
        assert_eq!(fs_err::read_to_string(restored).unwrap(), "SLOT=0\n");
    }

    #[test]
    fn damaged_and_foreign_files_of_the_store_count_as_empty() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("kept.json.zst");
        for text in ["", "{", "[]", r#"{"../x":"y"}"#, r#"{"/x":"y"}"#] {
            fs_err::write(&file, zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
            assert!(metadata(place.path()).known.is_empty(), "{text}");
        }
        fs_err::write(&file, "not zstd").unwrap();
        assert!(metadata(place.path()).known.is_empty());
    }
}
