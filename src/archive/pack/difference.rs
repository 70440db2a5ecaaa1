//! The difference between two trees: the part of the newer one that turns the older one into it.
//!
//! Both trees are walked at once, so that memory grows with the difference and not with the trees.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{IntoIter, sync_channel};

use super::walk::{Identity, Item, walk_names};
use super::{Options, Part, Tree, packer};
use crate::archive::unpack::entry::{Meta, NodeKind};
use crate::base::error::{Context, Error, Result};
use crate::base::progress::Silent;

/// Items of the older tree that wait for the newer one. Each may hold an open file.
const WAITING: usize = 64;

/// Bytes that are compared at once.
const BUFFER: usize = 64 << 10;

/// Returns the entries of `newer` that are new or differ from those of `older`, and the names that are gone. Times count as in
/// an archive with `options`.
///
/// Names of one file stay together: if one of them differs, the part has all of them. Archives of the parts, applied one after the
/// other, therefore have the hard links of the tree, and no entry is a link to a file of another archive.
///
/// # Errors
/// Those of [`pack`](super::pack()), and [`Kind::Build`](crate::base::error::Kind::Build) for a name that an OCI layer cannot have.
pub fn difference(older: Tree<'_>, newer: Tree<'_>, options: &Options) -> Result<Part> {
    let (send, receive) = sync_channel(WAITING);
    std::thread::scope(|scope| {
        let walking = scope.spawn(move || {
            let mut pass =
                |item| send.send(item).map_err(|_| Error::system("comparing trees: the comparison has ended"));
            walk_names(older, &Silent, &mut pass)
        });
        let mut comparison = Comparison::new(receive.into_iter().peekable(), options);
        let compared = walk_names(newer, &Silent, &mut |item| comparison.take(item));
        let part = compared.map(|()| comparison.finish());
        let walked = walking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // An error of the comparison also ends the walk.
        let part = part?;
        walked.map(|()| part)
    })
}

/// A name of a file that has several, in one of the trees or in both.
struct Name {
    path: PathBuf,
    /// The file in the newer tree, if it has several names there.
    newer: Option<Identity>,
    /// The file in the older tree, if it has several names there.
    older: Option<Identity>,
    /// Both trees have the same there.
    same: bool,
}

struct Comparison<'a> {
    /// The items of the older tree that are still to come.
    older: Peekable<IntoIter<Item>>,
    options: &'a Options,
    part: Part,
    /// The last path of the older tree that is not a directory any more. Everything below it is gone with it.
    replaced: Option<PathBuf>,
    names: Vec<Name>,
}

impl<'a> Comparison<'a> {
    fn new(older: Peekable<IntoIter<Item>>, options: &'a Options) -> Self {
        Self { older, options, part: Part::default(), replaced: None, names: Vec::new() }
    }

    /// Takes the next item of the newer tree.
    fn take(&mut self, newer: Item) -> Result<()> {
        packer::check_name(&newer.path)?;
        while let Some(older) = self.older.next_if(|older| older.path < newer.path) {
            self.gone(older);
        }
        let older = self.older.next_if(|older| older.path == newer.path);
        if older.as_ref().is_some_and(|older| older.kind == NodeKind::Dir) && newer.kind != NodeKind::Dir {
            self.replaced = Some(newer.path.clone());
        }
        let before = older.as_ref().filter(|older| older.linked).map(|older| older.identity);
        let now = newer.linked.then_some(newer.identity);
        let path = newer.path.clone();
        let same = older.map_or(Ok(false), |older| self.same(older, newer))?;
        if !same {
            self.part.add(&path);
        }
        if now.is_some() || (same && before.is_some()) {
            self.names.push(Name { path, newer: now, older: before, same });
        }
        Ok(())
    }

    /// Takes an item of the older tree that the newer one lacks.
    fn gone(&mut self, older: Item) {
        if !self.replaced.as_ref().is_some_and(|above| older.path.starts_with(above)) {
            self.part.remove(&older.path);
            self.replaced = Some(older.path);
        }
    }

    /// Returns true if archives have the same entries for both items.
    fn same(&self, older: Item, newer: Item) -> Result<bool> {
        let attributes = |meta: &Meta| Meta { mtime: self.options.clamped(meta.mtime), ..meta.clone() };
        if older.kind != newer.kind || older.size != newer.size || attributes(&older.meta) != attributes(&newer.meta) {
            return Ok(false);
        }
        // The trees may be overlays of the same layers, with device numbers of their own.
        let inode = |item: &Item| (item.identity.1, item.changed, item.meta.mtime);
        if older.size == 0 || inode(&older) == inode(&newer) {
            return Ok(true);
        }
        same_data(older, newer)
    }

    /// Ends the comparison after the last item of the newer tree.
    fn finish(mut self) -> Part {
        while let Some(older) = self.older.next() {
            self.gone(older);
        }
        self.join_names();
        self.part
    }

    /// Adds all names of each file that does not have the same names as before, or fewer of them.
    fn join_names(&mut self) {
        let mut files: Vec<Vec<Name>> = Vec::new();
        let mut known: HashMap<Identity, usize> = HashMap::new();
        for name in std::mem::take(&mut self.names) {
            match name.newer.map(|file| known.entry(file)) {
                Some(Entry::Occupied(at)) => files[*at.get()].push(name),
                entry => {
                    if let Some(Entry::Vacant(free)) = entry {
                        free.insert(files.len());
                    }
                    files.push(vec![name]);
                }
            }
        }
        // Names of one file of the older tree stay names of one file only if a single file of the newer tree has them.
        let mut taken = HashSet::new();
        for names in files {
            let older = names[0].older;
            let together = names.len() == 1 || older.is_some();
            let intact = together
                && names.iter().all(|name| name.same && name.older == older)
                && older.is_none_or(|file| taken.insert(file));
            if !intact {
                names.iter().for_each(|name| self.part.add(&name.path));
            }
        }
    }
}

/// Compares the data of two open files of the same size.
fn same_data(older: Item, newer: Item) -> Result<bool> {
    let path = newer.path;
    let (Some(older), Some(newer)) = (older.file, newer.file) else { return Ok(false) };
    let reader = |file| BufReader::with_capacity(BUFFER, File::from(file));
    let (mut older, mut newer) = (reader(older), reader(newer));
    loop {
        let (left, right) = (fill(&mut older, &path)?, fill(&mut newer, &path)?);
        let count = left.len().min(right.len());
        if count == 0 {
            return Ok(left.len() == right.len());
        }
        if left[..count] != right[..count] {
            return Ok(false);
        }
        older.consume(count);
        newer.consume(count);
    }
}

fn fill<'a>(reader: &'a mut BufReader<File>, path: &Path) -> Result<&'a [u8]> {
    reader.fill_buf().system(|| format!("comparing /{}", path.as_os_str().as_bytes().escape_ascii()))
}
