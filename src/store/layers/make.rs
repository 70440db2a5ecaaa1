//! Makes a layer.

use std::path::{Path, PathBuf};

use super::super::lock::{self, Lock, Mode};
use super::super::trees::remove_tree;
use super::{DAEMONS, LOG, Layer, LayerRecord, RECORD, USED, manifest, upper};
use crate::archive::changes::Changes;
use crate::base::digest::Sha256;
use crate::base::error::{Context, Error, Kind, Result};

/// Level of compression of the output.
const LEVEL: i32 = 3;

/// Name of the output while the step runs.
const OUTPUT: &str = "log";

/// A layer that is being made, in a directory beside its final name. Dropping it removes the directory.
///
/// It holds the lock of the key. A killed process leaves the directory without that lock, and the next process that needs the layer
/// removes the directory.
#[derive(Debug)]
pub struct Partial {
    key: Sha256,
    /// The final name.
    directory: PathBuf,
    /// The directory, until it is kept or moved.
    partial: Option<PathBuf>,
    /// The exclusive lock of the key.
    _own: Lock,
}

impl Partial {
    /// Creates the empty directory of a layer whose final name will be `directory`.
    pub(super) fn new(directory: PathBuf, key: &Sha256, own: Lock) -> Result<Self> {
        let partial = directory.with_extension("partial");
        remove_tree(&partial)?;
        fs_err::create_dir(&partial).system(|| "making a directory for a layer")?;
        Ok(Self { key: *key, directory, partial: Some(partial), _own: own })
    }

    /// The directory, for everything that the step needs beside its layer: what is in it and is not a part of a layer goes when the
    /// layer is kept.
    pub fn directory(&self) -> &Path {
        self.partial.as_deref().unwrap_or(&self.directory)
    }

    /// The upper directory for the overlay at `place`, an absolute path. It does not exist yet.
    pub fn upper(&self, place: &str) -> PathBuf {
        upper(self.directory(), place)
    }

    /// The file for the output of the step. It does not exist yet.
    pub fn log(&self) -> PathBuf {
        self.directory().join(OUTPUT)
    }

    /// Keeps the layer, whose overlays are not mounted any more: removes what is not a part of it, writes the record and the lists of
    /// changes (place and changes of each overlay), and syncs and renames it.
    ///
    /// # Errors
    /// [`Kind::System`] if the layer cannot be written. Nothing is left then.
    pub fn keep(mut self, record: LayerRecord, changes: &[(&str, Changes)]) -> Result<Layer> {
        if record.key != self.key {
            return Err(Error::system(format!("keeping the layer {}: the record has another key", self.key)));
        }
        let partial = self.directory().to_owned();
        let keeping = || format!("keeping the layer {}", self.directory.display());
        self.compress_logs()?;
        for entry in fs_err::read_dir(&partial).system(keeping)? {
            let entry = entry.system(keeping)?;
            if !["upper", "uppers", LOG, DAEMONS].iter().any(|part| entry.file_name() == **part) {
                remove_tree(&entry.path())?;
            }
        }
        for (place, changes) in changes {
            let path = manifest(&partial, place);
            fs_err::create_dir_all(path.parent().unwrap_or(&partial)).system(keeping)?;
            changes.write(&mut fs_err::File::create(path).system(keeping)?)?;
        }
        let text = serde_json::to_vec_pretty(&record).context(Kind::System, keeping)?;
        fs_err::write(partial.join(RECORD), text).system(keeping)?;
        fs_err::write(partial.join(USED), "").system(keeping)?;
        let used = fs_err::File::open(&partial).system(keeping)?.into_file();
        rustix::fs::syncfs(&used).system(|| format!("syncing {} to disk", partial.display()))?;
        // Locked before it has its final name, under which another process could remove it.
        lock::hold(&used, &partial, Mode::Shared, || {})?;
        fs_err::rename(&partial, &self.directory).system(keeping)?;
        self.partial = None;
        let above = self.directory.parent().unwrap_or(&self.directory);
        fs_err::File::open(above).and_then(|above| above.sync_all()).system(keeping)?;
        Ok(Layer { directory: self.directory.clone(), record, _used: used })
    }

    /// Moves the directory to `to`, which must not exist, on the same file system: a step failed, and a shell may look at its changes.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be moved. Nothing is left then.
    pub fn move_to(mut self, to: &Path) -> Result<()> {
        fs_err::rename(self.directory(), to).system(|| "moving the changes of a failed step")?;
        self.partial = None;
        Ok(())
    }

    /// Compresses the output of the step and of its daemons, if there is any.
    fn compress_logs(&self) -> Result<()> {
        let plain = self.log();
        if plain.exists() {
            compress(&plain, &self.directory().join(LOG))?;
        }
        let daemons = self.directory().join(DAEMONS);
        if !daemons.exists() {
            return Ok(());
        }
        for entry in fs_err::read_dir(&daemons).system(|| "listing the output of daemons")? {
            let plain = entry.system(|| "listing the output of daemons")?.path();
            compress(&plain, &plain.with_extension("zst"))?;
            fs_err::remove_file(&plain).system(|| "removing the output of a daemon")?;
        }
        Ok(())
    }
}

fn compress(from: &Path, to: &Path) -> Result<()> {
    let doing = || format!("compressing {}", from.display());
    let (from, to) = (fs_err::File::open(from).system(doing)?, fs_err::File::create(to).system(doing)?);
    zstd::stream::copy_encode(from, to, LEVEL).system(doing)
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(partial) = self.partial.take()
            && let Err(error) = remove_tree(&partial)
        {
            tracing::warn!("{error}");
        }
    }
}
