//! Unpacked stage3s and ebuild repositories by the SHA-512 of their tarball. A tree is unpacked under a temporary name and a lock,
//! synced and renamed. Nothing writes to it afterwards.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Store;
use super::lock::{self, Lock, Mode};
use crate::archive::unpack::Deferred;
use crate::base::digest::{Sha256, Sha512};
use crate::base::error::{Context, Error, Kind, Result};
use crate::fs::rootfs::Rootfs;

/// An unpacked tree. It is not removed while this value exists.
#[derive(Debug)]
pub struct Tree {
    directory: PathBuf,
    meta: TreeMeta,
    _lock: Lock,
}

/// Metadata of a tree, stored in `tree.json`.
#[derive(Debug, Serialize, Deserialize)]
struct TreeMeta {
    /// SHA-512 of the tarball.
    sha512: Sha512,
    /// Name of the tarball.
    name: String,
    /// Nodes and attributes that the kernel refused to create.
    record: Deferred,
}

impl Tree {
    /// Returns the path of the root directory.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Returns the nodes and attributes that the kernel refused to create. Packing adds them to the archive.
    pub fn record(&self) -> &Deferred {
        &self.meta.record
    }

    /// Returns the SHA-512 of the tarball.
    pub fn sha512(&self) -> Sha512 {
        self.meta.sha512
    }

    /// Returns the name of the tarball.
    pub fn name(&self) -> &str {
        &self.meta.name
    }
}

impl Store {
    /// Returns the tree of the tarball with this digest, if it was unpacked with the same ID mapping: owners in a tree differ between
    /// user namespaces. Calls `waiting` before it waits for a process that is unpacking the tree.
    ///
    /// # Errors
    /// [`Kind::System`] when a tree cannot be read.
    pub fn tree(&self, sha512: &Sha512, waiting: impl FnOnce()) -> Result<Option<Tree>> {
        let directory = self.tree_directory(sha512)?;
        let lock = lock::take(&directory.with_added_extension("lock"), Mode::Shared, waiting)?;
        let path = directory.join("tree.json");
        let text = match fs_err::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::system("looking for an unpacked tree").with_source(error)),
        };
        let meta: TreeMeta =
            serde_json::from_slice(&text).context(Kind::System, || format!("reading {}", path.display()))?;
        if meta.sha512 != *sha512 {
            return Err(Error::system(format!("{} belongs to another tarball", directory.display()))
                .with_hint("remove the unpacked trees with `quern-builder clean --trees`"));
        }
        Ok(Some(Tree { directory, meta, _lock: lock }))
    }

    /// Returns the tree of the tarball with this digest, regardless of its ID mapping. For read-only use. Returns `None` while the tree
    /// is being unpacked.
    ///
    /// # Errors
    /// [`Kind::System`] when a tree cannot be read.
    pub fn tree_of_anyone(&self, sha512: &Sha512) -> Result<Option<Tree>> {
        let own = self.tree_directory(sha512)?;
        let prefix = format!("{}-", &sha512.hex()[..40]);
        let mut candidates = vec![own];
        for entry in fs_err::read_dir(self.root().join("trees")).system(|| "looking for an unpacked tree")? {
            let path = entry.system(|| "looking for an unpacked tree")?.path();
            let ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
            if ours && path.extension().is_none() {
                candidates.push(path);
            }
        }
        for directory in candidates {
            let Some(lock) = lock::try_take(&directory.with_added_extension("lock"), Mode::Shared)? else { continue };
            let Ok(text) = fs_err::read(directory.join("tree.json")) else { continue };
            if let Ok(meta) = serde_json::from_slice::<TreeMeta>(&text)
                && meta.sha512 == *sha512
            {
                return Ok(Some(Tree { directory, meta, _lock: lock }));
            }
        }
        Ok(None)
    }

    /// Creates a tree with `unpack`, unless another process has created it. Calls `waiting` before it waits for such a process.
    ///
    /// # Errors
    /// Those of `unpack`, and [`Kind::System`] when the tree cannot be stored. Nothing is left after an error.
    pub fn add_tree(
        &self,
        sha512: &Sha512,
        name: &str,
        waiting: impl Fn(),
        unpack: impl FnOnce(&Rootfs) -> Result<Deferred>,
    ) -> Result<Tree> {
        let directory = self.tree_directory(sha512)?;
        let lock = lock::take(&directory.with_added_extension("lock"), Mode::Exclusive, &waiting)?;
        if !directory.exists() {
            make(&directory, sha512, name, unpack)?;
        }
        drop(lock);
        self.tree(sha512, waiting)?.ok_or_else(|| {
            Error::system(format!("the unpacked tree {} was removed by another process", directory.display()))
                .with_hint("another process is cleaning the store; try again")
        })
    }

    /// Returns the digest and the name of the tarball of every readable tree.
    ///
    /// # Errors
    /// [`Kind::System`] when the trees cannot be listed.
    pub fn tree_names(&self) -> Result<Vec<(Sha512, String)>> {
        let mut names = Vec::new();
        for entry in fs_err::read_dir(self.root().join("trees")).system(|| "listing the store")? {
            let path = entry.system(|| "listing the store")?.path().join("tree.json");
            let meta = fs_err::read(path).ok().and_then(|text| serde_json::from_slice::<TreeMeta>(&text).ok());
            names.extend(meta.map(|meta| (meta.sha512, meta.name)));
        }
        Ok(names)
    }

    fn tree_directory(&self, sha512: &Sha512) -> Result<PathBuf> {
        Ok(self.root().join("trees").join(format!("{}-{}", &sha512.hex()[..40], id_map()?)))
    }
}

/// Unpacks a tree under a temporary name, syncs it and renames it. The caller holds the lock.
fn make(directory: &Path, sha512: &Sha512, name: &str, unpack: impl FnOnce(&Rootfs) -> Result<Deferred>) -> Result<()> {
    let partial = directory.with_extension("partial");
    remove_tree(&partial)?;
    let root = partial.join("root");
    fs_err::create_dir_all(&root).system(|| "creating a directory for the tree")?;
    let unpacked = Rootfs::open(&root).and_then(|root| unpack(&root));
    let record = unpacked.inspect_err(|_| _ = remove_tree(&partial))?;
    let meta = TreeMeta { sha512: *sha512, name: name.into(), record };
    let text = serde_json::to_vec(&meta).context(Kind::System, || "writing the metadata of the tree")?;
    fs_err::write(partial.join("tree.json"), text).system(|| "writing the metadata of the tree")?;
    let handle = fs_err::File::open(&partial).system(|| "syncing the tree")?;
    rustix::fs::syncfs(&handle).system(|| format!("syncing {} to disk", partial.display()))?;
    fs_err::rename(&partial, directory).system(|| "renaming the unpacked tree")
}

/// Removes a directory with its content, if it exists.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::system(format!("removing {}: the path has no parent", path.display())));
    };
    match Rootfs::open(parent) {
        Ok(parent) => parent.remove(Path::new(name)).map(|_| ()),
        Err(_) if !parent.exists() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns a name for the ID mapping of the current user namespace; `root` for that of the host.
pub(super) fn id_map() -> Result<String> {
    let read =
        |kind| fs_err::read_to_string(format!("/proc/self/{kind}")).system(|| "reading the ID mapping of this process");
    let maps = read("uid_map")? + &read("gid_map")?;
    let fields: Vec<&str> = maps.split_whitespace().collect();
    if fields == ["0", "0", "4294967295", "0", "0", "4294967295"] {
        return Ok("root".into());
    }
    Ok(Sha256::of(fields.join(" ").as_bytes()).hex()[..12].to_owned())
}
