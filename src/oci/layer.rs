//! Reads layers: their entries, and the digest of the plain archive (the diff ID).

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;

use super::digest::Digest;
use super::layout::Descriptor;
use super::unpack::Demand;
use super::whiteout::{self, Whiteout};
use crate::archive::unpack::decode::{Decoder, Format};
use crate::archive::unpack::entry::Entry;
use crate::archive::unpack::limits::{Limits, RaisedBy, Spent};
use crate::archive::unpack::reader::Reader;
use crate::archive::unpack::refusal::{ReadError, Refusal};
use crate::base::digest::{Algorithm, HashingReader};
use crate::base::refusal::{Code, Reason};

/// The result of reading a layer to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Digest of the plain archive.
    pub digest: Option<Digest>,
    /// Part of the limits that the layer uses.
    pub spent: Spent,
}

/// Receives an entry of a layer, and the whiteout that it is. It may refuse the entry.
pub type Visitor<'a> = dyn FnMut(Entry, Option<Whiteout>) -> Result<(), Reason> + 'a;

/// Reads a layer to its end and passes each entry to `visit`.
pub fn read(
    file: File,
    format: Format,
    algorithm: Algorithm,
    limits: &Limits,
    visit: &mut Visitor<'_>,
) -> Result<Summary, ReadError> {
    let decoder = Decoder::of(format, file).map_err(|error| ReadError::of(error, &[], 0))?;
    let mut plain = HashingReader::new(decoder, &[algorithm]);
    let mut reader = Reader::of_layer(&mut plain, limits.clone());
    while let Some(entry) = reader.next_entry()? {
        let (name, offset) = (entry.path.as_os_str().as_bytes().to_vec(), entry.offset);
        let visited = whiteout::of(&entry).and_then(|whiteout| visit(entry, whiteout));
        visited.map_err(|reason| Refusal { reason, name, offset })?;
    }
    reader.finish()?;
    let (entries, bytes) = (reader.spent().entries - limits.spent.entries, reader.spent().bytes - limits.spent.bytes);
    let spent = Spent { entries, bytes };
    Ok(Summary { digest: Digest::from_sums(algorithm, &plain.finish()), spent })
}

/// Returns the limits that all layers of an image share. A layer that is listed again is unpacked again, so its compressed size
/// counts as unpacked bytes.
pub fn limits(layers: &[Descriptor], demand: &Demand) -> Result<Limits, Reason> {
    let (mut seen, mut once, mut again) = (BTreeSet::new(), 0u64, 0u64);
    for layer in layers {
        let sum = if seen.insert(&layer.digest) { &mut once } else { &mut again };
        *sum = sum.saturating_add(layer.size);
    }
    let limits = Limits::of_layers(once).set(demand.bytes, demand.entries, RaisedBy::Options);
    if again > limits.bytes {
        return Err(Reason::new(Code::TooLarge, format!("{again} bytes of layers are listed again")));
    }
    Ok(limits)
}

/// Adds what a layer used to the shared limits.
pub fn spend(limits: &mut Limits, spent: Spent) -> Result<(), Reason> {
    limits.spent.entries = limits.spent.entries.saturating_add(spent.entries);
    limits.spent.bytes = limits.spent.bytes.saturating_add(spent.bytes);
    if limits.spent.entries > limits.entries {
        return Err(Reason::new(Code::TooManyEntries, format!("the layers have more than {} entries", limits.entries)));
    }
    if limits.spent.bytes > limits.bytes {
        return Err(Reason::new(Code::TooLarge, format!("the layers have more than {} bytes unpacked", limits.bytes)));
    }
    Ok(())
}
