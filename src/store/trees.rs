//! Unpacked stage3s and ebuild repositories, by the SHA-512 of the tarball. A tree is made once, under a hidden name and a lock, and renamed when it is
//! whole and on disk; nothing writes to it afterwards.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Store;
use super::lock::{self, Lock, Mode};
use crate::archive::unpack::Deferred;
use crate::base::digest::{Sha256, Sha512};
use crate::base::error::{Context, Error, Kind, Result};
use crate::fs::rootfs::Rootfs;

/// An unpacked tree, which stays for as long as this value lives.
#[derive(Debug)]
pub struct Tree {
    directory: PathBuf,
    meta: TreeMeta,
    _lock: Lock,
}

/// Metadata that is kept beside a tree.
#[derive(Debug, Serialize, Deserialize)]
struct TreeMeta {
    /// SHA-512 of the tarball.
    sha512: Sha512,
    /// The tarball's name.
    name: String,
    /// What the kernel refused to make.
    record: Deferred,
}

impl Tree {
    /// The root directory of the tree.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Nodes that the kernel refused to make, to be written back when packing.
    pub fn record(&self) -> &Deferred {
        &self.meta.record
    }

    /// SHA-512 of the tarball that it was unpacked from.
    pub fn sha512(&self) -> Sha512 {
        self.meta.sha512
    }

    /// Name of the tarball that it was unpacked from.
    pub fn name(&self) -> &str {
        &self.meta.name
    }
}

impl Store {
    /// The tree of the tarball with this digest, if it was unpacked before by the same kind of user: ids that one user's
    /// namespace gives to a tree are not another's. `waiting` is called before waiting for a process that unpacks it just now.
    ///
    /// # Errors
    /// [`Kind::System`] when what is there cannot be read.
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
            return Err(Error::system(format!("{} is of another tarball", directory.display()))
                .with_hint("`quern-builder clean --trees` removes what is unpacked"));
        }
        Ok(Some(Tree { directory, meta, _lock: lock }))
    }

    /// The tree of the tarball with this digest, whichever user's ids it has: for who only reads it. None while it is being made.
    ///
    /// # Errors
    /// [`Kind::System`] when what is there cannot be read.
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

    /// Makes a tree with `unpack`, unless another process has done so meanwhile; `waiting` is called before waiting for one.
    ///
    /// # Errors
    /// Those of `unpack`, after which nothing is left, and [`Kind::System`] when the result cannot be kept.
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
            Error::system(format!("the unpacked tree {} was removed at once", directory.display()))
                .with_hint("another process cleans the store; try again")
        })
    }

    /// Digest and name of the tarball of every tree that can be read.
    ///
    /// # Errors
    /// [`Kind::System`] when the trees cannot be listed.
    pub fn tree_names(&self) -> Result<Vec<(Sha512, String)>> {
        let mut names = Vec::new();
        for entry in fs_err::read_dir(self.root().join("trees")).system(|| "looking through the store")? {
            let path = entry.system(|| "looking through the store")?.path().join("tree.json");
            let meta = fs_err::read(path).ok().and_then(|text| serde_json::from_slice::<TreeMeta>(&text).ok());
            names.extend(meta.map(|meta| (meta.sha512, meta.name)));
        }
        Ok(names)
    }

    fn tree_directory(&self, sha512: &Sha512) -> Result<PathBuf> {
        Ok(self.root().join("trees").join(format!("{}-{}", &sha512.hex()[..40], id_map()?)))
    }
}

/// Unpacks into a hidden directory and names it when it is whole and on disk. The caller holds the lock.
fn make(directory: &Path, sha512: &Sha512, name: &str, unpack: impl FnOnce(&Rootfs) -> Result<Deferred>) -> Result<()> {
    let partial = directory.with_extension("partial");
    remove_tree(&partial)?;
    let root = partial.join("root");
    fs_err::create_dir_all(&root).system(|| "making a directory for the tree")?;
    let unpacked = Rootfs::open(&root).and_then(|root| unpack(&root));
    let record = unpacked.inspect_err(|_| _ = remove_tree(&partial))?;
    let meta = TreeMeta { sha512: *sha512, name: name.into(), record };
    let text = serde_json::to_vec(&meta).context(Kind::System, || "writing down what was unpacked")?;
    fs_err::write(partial.join("tree.json"), text).system(|| "writing down what was unpacked")?;
    let handle = fs_err::File::open(&partial).system(|| "syncing the tree")?;
    rustix::fs::syncfs(&handle).system(|| format!("syncing {} to disk", partial.display()))?;
    fs_err::rename(&partial, directory).system(|| "naming the unpacked tree")
}

/// Removes a directory and all in it; one that is missing is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::system(format!("removing {}: not below anything", path.display())));
    };
    match Rootfs::open(parent) {
        Ok(parent) => parent.remove(Path::new(name)).map(|_| ()),
        Err(_) if !parent.exists() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Names the present user namespace's map of ids: `root` for the host's own.
fn id_map() -> Result<String> {
    let read = |kind| fs_err::read_to_string(format!("/proc/self/{kind}")).system(|| "reading this process's id map");
    let maps = read("uid_map")? + &read("gid_map")?;
    let fields: Vec<&str> = maps.split_whitespace().collect();
    if fields == ["0", "0", "4294967295", "0", "0", "4294967295"] {
        return Ok("root".into());
    }
    Ok(Sha256::of(fields.join(" ").as_bytes()).hex()[..12].to_owned())
}
