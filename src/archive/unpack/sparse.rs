//! Maps of sparse files, in the four formats of GNU tar: old GNU and PAX 0.0, 0.1 and 1.0. Pure.

use tar::GnuSparseHeader;

use super::entry::{BLOCK, number};
use super::pax::{decimal, once};
use crate::base::refusal::{Code, Reason};

/// Segments that a map may have.
pub const MAX_SEGMENTS: usize = 1 << 20;

/// A part of a sparse file that is not a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Position in the file.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// The `GNU.sparse.*` records of one entry.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Records {
    /// Name of the file. The record `path` holds a made-up name.
    pub name: Option<Vec<u8>>,
    /// Size of the file with its holes.
    pub real_size: Option<u64>,
    major: Option<u64>,
    minor: Option<u64>,
    count: Option<u64>,
    map: Option<Vec<u64>>,
    pairs: Vec<u64>,
    any: bool,
}

impl Records {
    /// Returns true if the entry has any such record.
    pub fn is_sparse(&self) -> bool {
        self.any
    }

    /// Returns true if the map is at the beginning of the data (PAX 1.0).
    pub fn map_in_data(&self) -> bool {
        self.major == Some(1)
    }

    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Reason> {
        self.any = true;
        match key {
            b"name" => {
                if value.is_empty() || value.contains(&0) {
                    return Err(bad("its name is empty or contains a NUL"));
                }
                once(&mut self.name, key, value.to_vec())
            }
            b"size" | b"realsize" => once(&mut self.real_size, key, decimal(key, value)?),
            b"major" => once(&mut self.major, key, decimal(key, value)?),
            b"minor" => once(&mut self.minor, key, decimal(key, value)?),
            b"numblocks" => once(&mut self.count, key, decimal(key, value)?),
            // GNU tar allocates its map when it reads the number of segments.
            b"map" | b"offset" if self.count.is_none() => Err(bad("its map comes before the number of its segments")),
            b"map" => {
                let numbers = match value {
                    [] => Ok(Vec::new()),
                    _ => value.split(|byte| *byte == b',').map(|part| decimal(key, part)).collect(),
                };
                once(&mut self.map, key, numbers?)
            }
            // PAX 0.0 repeats these two records in turn.
            b"offset" if self.pairs.len().is_multiple_of(2) => self.push(decimal(key, value)?),
            b"numbytes" if !self.pairs.len().is_multiple_of(2) => self.push(decimal(key, value)?),
            _ => Err(bad("its records are unknown or out of order")),
        }
    }

    fn push(&mut self, number: u64) -> Result<(), Reason> {
        self.pairs.push(number);
        Ok(())
    }

    /// Returns the map of PAX 0.0 and 0.1, or `None` for PAX 1.0, where the map is in the data.
    pub fn segments(&self) -> Result<Option<Vec<Segment>>, Reason> {
        match (self.major, self.minor) {
            (None, None) | (Some(0), Some(0 | 1)) => {}
            (Some(1), Some(0)) if self.map.is_none() && self.pairs.is_empty() => return Ok(None),
            _ => return Err(bad("the version of its map is not known")),
        }
        let numbers = match &self.map {
            Some(map) if self.pairs.is_empty() => map,
            Some(_) => return Err(bad("it has two maps")),
            None => &self.pairs,
        };
        if !numbers.len().is_multiple_of(2) || self.count != Some(numbers.len() as u64 / 2) {
            return Err(bad("the number of segments in its map is wrong"));
        }
        Ok(Some(numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect()))
    }
}

/// Appends the segments of an old GNU header to `to`. Returns false if the map ends in this header.
pub fn old_segments(headers: &[GnuSparseHeader], to: &mut Vec<Segment>) -> Result<bool, Reason> {
    let mut ended = false;
    for header in headers {
        if header.offset[0] == 0 || header.numbytes[0] == 0 {
            ended = true;
            continue;
        }
        let value = |field: &[u8]| number(field).and_then(|number| u64::try_from(number).ok());
        let (Some(offset), Some(length)) = (value(&header.offset), value(&header.numbytes)) else {
            return Err(bad("its map has a bad number"));
        };
        if ended || to.len() >= MAX_SEGMENTS {
            return Err(bad("its map has a gap or too many segments"));
        }
        to.push(Segment { offset, length });
    }
    Ok(!ended)
}

/// Reads the map of PAX 1.0: lines with the number of segments, then offsets and lengths. `next` returns the next byte.
pub fn map_from_data<E: From<Reason>>(mut next: impl FnMut() -> Result<u8, E>) -> Result<Vec<Segment>, E> {
    let mut line = || -> Result<u64, E> {
        let mut digits = Vec::new();
        loop {
            match next()? {
                b'\n' => return Ok(decimal(b"map", &digits)?),
                digit if digits.len() < 19 => digits.push(digit),
                _ => return Err(bad("its map has a line that is too long").into()),
            }
        }
    };
    let count = line()?;
    if count > MAX_SEGMENTS as u64 {
        return Err(bad("its map has too many segments").into());
    }
    let mut segments = Vec::new();
    for _ in 0..count {
        segments.push(Segment { offset: line()?, length: line()? });
    }
    Ok(segments)
}

/// Checks that the map describes the same file to every program: segments in order and without overlap, with all `stored` bytes,
/// and an end at the size `real` of the file.
///
/// GNU tar starts every segment at a block of the archive and ends the file with the last segment; bsdtar and Python join the
/// segments and use the size of the file. A map for which that makes a difference is refused.
pub fn check(segments: &[Segment], stored: u64, real: u64) -> Result<(), Reason> {
    let mut end = 0u64;
    let mut sum = 0u64;
    for segment in segments {
        if segment.offset < end {
            return Err(bad("the segments of its map overlap or are out of order"));
        }
        if segment.length > 0 && !sum.is_multiple_of(BLOCK as u64) {
            return Err(bad("a segment before the last one is not a multiple of 512 bytes long"));
        }
        end = segment.offset.checked_add(segment.length).ok_or_else(|| bad("a segment of its map is too long"))?;
        sum = sum.checked_add(segment.length).ok_or_else(|| bad("its map is too long"))?;
    }
    if end != real {
        return Err(bad("its map does not end at the size of the file"));
    }
    if sum != stored {
        return Err(bad("its map does not have as many bytes as are stored"));
    }
    Ok(())
}

pub(super) fn bad(text: &'static str) -> Reason {
    Reason::new(Code::BadSparse, format!("it is sparse, and {text}"))
}
