//! Lists layers, and removes those that are not used any more.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::super::Store;
use super::super::clean::{Item, children, disk_usage};
use super::super::lock::{self, Lock, Mode};
use super::super::trees::remove_tree;
use super::{LayerRecord, MAX_RECORD, RECORD, USED, lock_path, read};
use crate::base::digest::Sha256;
use crate::base::error::{Context, Result};
use crate::fs::lock::try_lock;

/// Conditions for the removal of layers. Without any, all layers are removed that no process uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Remove the least recently used layers until the rest takes at most so many bytes on disk.
    pub keep: Option<u64>,
    /// Remove layers that were not used for so long.
    pub unused: Option<Duration>,
    /// Remove these layers.
    pub of: Option<Chosen>,
}

/// Layers that are chosen by their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    pub keys: Vec<Sha256>,
    /// True to remove also the layers that were made on top of them.
    pub above: bool,
}

impl Chosen {
    /// Returns the indexes of the chosen layers.
    fn among(&self, layers: &[Candidate]) -> HashSet<usize> {
        let keys = |index: &usize| self.keys.contains(&layers[*index].record.key);
        let mut chosen: HashSet<usize> = (0..layers.len()).filter(keys).collect();
        let mut grown = self.above;
        while grown {
            let states: HashSet<Sha256> = chosen.iter().map(|index| layers[*index].record.chain()).collect();
            let before = chosen.len();
            chosen.extend((0..layers.len()).filter(|index| states.contains(&layers[*index].record.parent)));
            grown = chosen.len() > before;
        }
        chosen
    }
}

/// A layer in the store.
#[derive(Debug, Clone)]
pub struct Listed {
    pub directory: PathBuf,
    pub record: LayerRecord,
    /// The time of its last use.
    pub used: SystemTime,
    /// True while a process uses it.
    pub busy: bool,
}

impl Store {
    /// Returns the layers of all ID mappings, sorted by image and age.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the store cannot be read.
    pub fn layers(&self) -> Result<Vec<Listed>> {
        let mut found = Vec::new();
        for directory in children(&self.layers_directory())? {
            if let Some((record, used)) = facts(&directory)? {
                let busy = claim(&directory)?.is_none();
                found.push(Listed { directory, record, used, busy });
            }
        }
        found.sort_by_cached_key(|layer| (layer.record.image.clone(), layer.record.started, layer.directory.clone()));
        Ok(found)
    }

    /// Removes layers, or with `pretend` nothing, and what killed processes left. A layer stays while a process uses it or a layer
    /// above it. Calls `each` for every layer that is removed, or that stays only because it is used.
    pub(in crate::store) fn clean_layers(
        &self,
        limits: &Limits,
        pretend: bool,
        each: &mut dyn FnMut(&Item),
    ) -> Result<()> {
        let mut layers = Vec::new();
        for path in children(&self.layers_directory())? {
            if path.extension() == Some(OsStr::new("lock")) {
                continue;
            }
            match facts(&path)? {
                Some((record, used)) => layers.push(Candidate { record, used, bytes: disk_usage(&path), path }),
                // Somebody makes it, was killed while making it, or another version of the program made it.
                None => each(&remove(&path, disk_usage(&path), pretend)?),
            }
        }
        let now = SystemTime::now();
        let mut total: u64 = layers.iter().map(|layer| layer.bytes).sum();
        let of = limits.of.as_ref().map(|chosen| chosen.among(&layers)).unwrap_or_default();
        // The states that layers that stay are based on.
        let mut needed = HashSet::new();
        for (used, index) in oldest_first(&layers) {
            let layer = &layers[index];
            let old = limits.unused.is_some_and(|age| now.duration_since(used).is_ok_and(|since| since >= age));
            let chosen = *limits == Limits::default()
                || old
                || of.contains(&index)
                || limits.keep.is_some_and(|keep| total > keep);
            let removed = match chosen {
                false => false,
                true if needed.contains(&layer.record.chain()) => {
                    each(&Item { path: layer.path.clone(), bytes: layer.bytes, busy: true });
                    false
                }
                true => {
                    let item = remove(&layer.path, layer.bytes, pretend)?;
                    each(&item);
                    !item.busy
                }
            };
            if removed {
                total -= layer.bytes;
            } else {
                needed.insert(layer.record.parent);
            }
        }
        Ok(())
    }
}

/// A layer that may be removed.
struct Candidate {
    record: LayerRecord,
    used: SystemTime,
    /// Disk usage.
    bytes: u64,
    path: PathBuf,
}

/// Sorts layers by their last use, which is also returned, a layer after all that lie above it: whoever uses a layer uses those below
/// it, too.
fn oldest_first(layers: &[Candidate]) -> Vec<(SystemTime, usize)> {
    let mut above: HashMap<Sha256, Vec<usize>> = HashMap::new();
    for (index, layer) in layers.iter().enumerate() {
        above.entry(layer.record.parent).or_default().push(index);
    }
    let mut known = vec![None; layers.len()];
    let mut sorted: Vec<_> = (0..layers.len()).map(|index| (rank(index, layers, &above, &mut known), index)).collect();
    sorted.sort_unstable_by(|(one, first), (other, second)| {
        (one, &layers[*first].path).cmp(&(other, &layers[*second].path))
    });
    sorted.into_iter().map(|((used, _), index)| (used, index)).collect()
}

/// The last use of a layer and those above it, and the number of layers in the longest chain above it.
type Rank = (SystemTime, usize);

fn rank(index: usize, layers: &[Candidate], above: &HashMap<Sha256, Vec<usize>>, known: &mut [Option<Rank>]) -> Rank {
    if let Some(rank) = known[index] {
        return rank;
    }
    let mut rank = (layers[index].used, 0);
    for child in above.get(&layers[index].record.chain()).into_iter().flatten() {
        let (used, height) = self::rank(*child, layers, above, known);
        rank = (rank.0.max(used), rank.1.max(height + 1));
    }
    known[index] = Some(rank);
    rank
}

/// Reads the record and the last use of a layer; `None` if the directory is not a whole layer.
fn facts(directory: &Path) -> Result<Option<(LayerRecord, SystemTime)>> {
    if directory.extension().is_some() {
        return Ok(None);
    }
    let record = read(&directory.join(RECORD), MAX_RECORD)?.and_then(|text| LayerRecord::parse(&text));
    let used = fs_err::metadata(directory.join(USED)).and_then(|metadata| metadata.modified());
    Ok(record.map(|record| {
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(record.started.min(i32::MAX as u64));
        (record, used.unwrap_or(started))
    }))
}

/// Locks a layer that nobody uses or makes.
fn claim(directory: &Path) -> Result<Option<(Lock, File)>> {
    let partial = directory.extension() == Some(OsStr::new("partial"));
    let path = if partial { directory.with_extension("lock") } else { lock_path(directory) };
    let Some(lock) = lock::try_take(&path, Mode::Exclusive)? else { return Ok(None) };
    let locking = || format!("locking {}", directory.display());
    let file = fs_err::File::open(directory).system(locking)?.into_file();
    Ok(try_lock(&file, Mode::Exclusive).system(locking)?.then_some((lock, file)))
}

fn remove(path: &Path, bytes: u64, pretend: bool) -> Result<Item> {
    let claimed = claim(path)?;
    if claimed.is_some() && !pretend {
        remove_tree(path)?;
    }
    Ok(Item { path: path.to_owned(), bytes, busy: claimed.is_none() })
}
