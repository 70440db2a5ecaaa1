//! The plain archive as a sequence of entries and their data. Reads from anything; touches no file system.

use std::io::{self, BufRead};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::entry::{self, BLOCK, Entry, Extensions, Family, MAX_PATH};
use super::limits::{Limits, Spent};
use super::pax::Pax;
use super::refusal::{ReadError, Refusal};
use super::sparse::{self, Segment};
use crate::base::refusal::{Code, Reason};

/// The most bytes that may stand behind an archive's end: what fills the last record of a tape is far less.
const MOST_BEHIND: u64 = 64 << 20;

/// Reads entries one after the other.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    limits: Limits,
    /// Where a global header begins that no entry has followed yet.
    global: Option<u64>,
    /// Bytes of the plain archive consumed.
    offset: u64,
    /// Bytes of the present entry's data that are left, and of the padding behind them.
    left: u64,
    padding: u64,
    /// The name and the offset of the present entry, as far as they are known.
    name: Vec<u8>,
    at: u64,
    spent: Spent,
    ended: bool,
}

/// A block that is not one of the extensions.
type Found = Option<(Header, Family)>;

impl<R: BufRead> Reader<R> {
    /// Reads the plain archive `input`.
    pub fn new(input: R, limits: Limits) -> Self {
        let spent = limits.spent;
        let (name, at) = (Vec::new(), 0);
        Self { input, limits, global: None, offset: 0, left: 0, padding: 0, name, at, spent, ended: false }
    }

    /// Bytes of the plain archive read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What is spent of the limits so far.
    pub fn spent(&self) -> Spent {
        self.spent
    }

    /// What is read from.
    pub fn input(&self) -> &R {
        &self.input
    }

    /// The next entry, whatever is left of the last one's data skipped; none at the archive's end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        self.skip(self.left + self.padding).map_err(|error| self.blame(error.into()))?;
        (self.left, self.padding) = (0, 0);
        let mut extensions = Extensions::default();
        loop {
            let offset = self.offset;
            self.at = offset;
            self.name.clear();
            let found = self.header().map_err(|error| self.blame(error))?;
            let Some((header, family)) = found else {
                self.ended = true;
                if let Some(offset) = extensions.offset.or(self.global) {
                    let reason = Reason::new(Code::Orphan, "an extension belongs to no entry");
                    return Err(Refusal { reason, name: Vec::new(), offset }.into());
                }
                return Ok(None);
            };
            let name = extensions.pax.as_ref().and_then(|pax| pax.path.as_ref()).or(extensions.name.as_ref());
            self.name.extend_from_slice(name.map_or(entry::until_nul(&header.as_old().name), |name| &name[..]));
            self.at = extensions.offset.unwrap_or(offset);
            let extended = self.extension(&header, family, &mut extensions, offset);
            if extended.map_err(|error| self.blame(error))? {
                continue;
            }
            self.global = None;
            let entry = self.entry(&header, family, extensions, offset);
            return entry.map(Some).map_err(|error| self.blame(error));
        }
    }

    /// Some of the data of the present entry; empty at its end. [`Reader::consume`] says how much was taken.
    pub fn data(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let bytes = filled(&mut self.input)?;
        let length = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        Ok(&bytes[..length])
    }

    /// Takes `count` bytes of what [`Reader::data`] gave.
    pub fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.left -= count as u64;
        self.offset += count as u64;
    }

    /// Reads what is behind the archive's end, so that checksums of the compressed file are looked at. Returns how many bytes
    /// that were not zero it met.
    ///
    /// # Errors
    /// Those of the input, and the refusal of an archive with very much behind its end.
    pub fn finish(&mut self) -> Result<u64, ReadError> {
        let (end, mut foreign) = (self.offset, 0);
        loop {
            let bytes = self.input.fill_buf().map_err(|error| ReadError::of(error, &[], end))?;
            if bytes.is_empty() {
                return Ok(foreign);
            }
            let count = bytes.len();
            foreign += bytes.iter().filter(|byte| **byte != 0).count() as u64;
            self.input.consume(count);
            self.offset += count as u64;
            if self.offset - end > MOST_BEHIND {
                let text = format!("more than {MOST_BEHIND} bytes stand behind the end of the archive");
                return Err(
                    Refusal { reason: Reason::new(Code::TrailingData, text), name: Vec::new(), offset: end }.into()
                );
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        family: Family,
        extensions: Extensions,
        offset: u64,
    ) -> Result<Entry, ReadErrorOrReason> {
        self.count_entry()?;
        let map_in_data = extensions.pax.as_ref().is_some_and(|pax| pax.sparse.map_in_data());
        let segments = match header.entry_type() == EntryType::GNUSparse {
            true => Some(self.old_sparse(header, family)?),
            false => None,
        };
        let mut entry = entry::entry(header, family, extensions, segments, offset)?;
        self.padding = entry.stored.wrapping_neg() % BLOCK as u64;
        self.count_bytes(entry.size.max(entry.stored).saturating_add(self.padding))?;
        self.left = entry.stored;
        if map_in_data {
            let segments = sparse::map_from_data(|| self.data_byte())?;
            // The map is padded to a block of its own.
            let taken = entry.stored - self.left;
            let padding = taken.wrapping_neg() % BLOCK as u64;
            for _ in 0..padding {
                self.data_byte()?;
            }
            sparse::check(&segments, self.left, entry.size)?;
            entry.stored = self.left;
            entry.sparse = Some(segments);
        }
        Ok(entry)
    }

    fn count_entry(&mut self) -> Result<(), Reason> {
        self.spent.entries += 1;
        if self.spent.entries > self.limits.entries { Err(self.limits.too_many()) } else { Ok(()) }
    }

    fn count_bytes(&mut self, bytes: u64) -> Result<(), Reason> {
        self.spent.bytes = self.spent.bytes.saturating_add(bytes);
        if self.spent.bytes > self.limits.bytes { Err(self.limits.too_large()) } else { Ok(()) }
    }

    fn data_byte(&mut self) -> Result<u8, ReadErrorOrReason> {
        let byte = *self.data()?.first().ok_or_else(|| sparse::bad("its map is longer than its data"))?;
        self.consume(1);
        Ok(byte)
    }

    /// Takes in a header that only extends the next one. False when it is an entry of its own.
    fn extension(
        &mut self,
        header: &Header,
        family: Family,
        to: &mut Extensions,
        offset: u64,
    ) -> Result<bool, ReadErrorOrReason> {
        entry::check_rest(header, family)?;
        let kind = header.entry_type();
        // `./` before it, the slash of a directory, and a NUL behind.
        let name_limit = MAX_PATH as u64 + 4;
        let (limit, taken) = match kind {
            _ if family == Family::V7 => return Ok(false),
            EntryType::XHeader => (self.limits.pax, to.pax.is_some()),
            EntryType::XGlobalHeader => (self.limits.pax, to.offset.is_some()),
            EntryType::GNULongName => (name_limit, to.name.is_some()),
            EntryType::GNULongLink => (name_limit, to.link.is_some()),
            _ => return Ok(false),
        };
        if taken {
            return Err(Reason::new(Code::RepeatedExtension, "an extension stands where it may not, or twice").into());
        }
        let size = entry::number(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| Reason::new(Code::BadNumber, "the size of an extension is not a number"))?;
        if size > limit {
            let text = format!("an extension of {size} bytes is larger than {limit}");
            return Err(Reason::new(Code::ExtensionTooLarge, text).into());
        }
        let size = size as usize;
        let data = self.block_data(size)?;
        match kind {
            EntryType::XGlobalHeader => {
                self.count_entry()?;
                Pax::parse(&data[..size], true)?;
                self.global.get_or_insert(offset);
            }
            EntryType::XHeader => to.pax = Some(Pax::parse(&data[..size], false)?),
            EntryType::GNULongName => to.name = Some(long_name(&data, size)?),
            _ => to.link = Some(long_name(&data, size)?),
        }
        if kind != EntryType::XGlobalHeader {
            to.offset.get_or_insert(offset);
        }
        Ok(true)
    }

    fn old_sparse(&mut self, header: &Header, family: Family) -> Result<(Vec<Segment>, u64), ReadErrorOrReason> {
        let gnu = header.as_gnu().filter(|_| family == Family::Gnu);
        let gnu = gnu.ok_or_else(|| sparse::bad("its header is not GNU's"))?;
        let real = entry::number(&gnu.realsize).and_then(|size| u64::try_from(size).ok());
        let real = real.ok_or_else(|| sparse::bad("its size is not a number"))?;
        let mut segments = Vec::new();
        let mut full = sparse::old_segments(&gnu.sparse, &mut segments)?;
        let mut more = gnu.is_extended();
        while more {
            if !full {
                return Err(sparse::bad("its map goes on behind its end").into());
            }
            let mut block = GnuExtSparseHeader::new();
            self.read_exact(block.as_mut_bytes())?;
            full = sparse::old_segments(block.sparse(), &mut segments)?;
            more = block.is_extended();
        }
        Ok((segments, real))
    }

    /// The next header; none when two blocks of zeros (or one, and then nothing) end the archive.
    fn header(&mut self) -> Result<Found, ReadErrorOrReason> {
        let mut header = Header::new_old();
        if self.at_end()? {
            let text = if self.offset == 0 { "it is empty" } else { "its end mark is missing" };
            return Err(Reason::new(Code::Truncated, format!("the archive is cut off: {text}")).into());
        }
        self.read_exact(header.as_mut_bytes())?;
        if is_zero(header.as_bytes()) {
            if self.at_end()? {
                return Ok(None);
            }
            self.read_exact(header.as_mut_bytes())?;
            if is_zero(header.as_bytes()) {
                return Ok(None);
            }
            return Err(Reason::new(Code::LoneZeroBlock, "an empty block stands before it").into());
        }
        let family = entry::family(&header)?;
        Ok(Some((header, family)))
    }

    fn at_end(&mut self) -> io::Result<bool> {
        Ok(self.input.fill_buf()?.is_empty())
    }

    /// `size` bytes of data, which are at most [`Limits::pax`], and their padding.
    fn block_data(&mut self, size: usize) -> Result<Vec<u8>, ReadErrorOrReason> {
        let mut data = vec![0; size.next_multiple_of(BLOCK)];
        self.read_exact(&mut data)?;
        Ok(data)
    }

    /// Reads what is no data of a file.
    fn read_exact(&mut self, mut to: &mut [u8]) -> Result<(), ReadErrorOrReason> {
        self.count_bytes(to.len() as u64)?;
        while !to.is_empty() {
            let bytes = filled(&mut self.input)?;
            let length = bytes.len().min(to.len());
            to[..length].copy_from_slice(&bytes[..length]);
            self.input.consume(length);
            self.offset += length as u64;
            to = &mut to[length..];
        }
        Ok(())
    }

    fn skip(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let bytes = filled(&mut self.input)?;
            let length = bytes.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            self.input.consume(length);
            self.offset += length as u64;
            count -= length as u64;
        }
        Ok(())
    }

    fn blame(&self, error: ReadErrorOrReason) -> ReadError {
        match error {
            ReadErrorOrReason::Reason(reason) => Refusal { reason, name: self.name.clone(), offset: self.at }.into(),
            ReadErrorOrReason::Input(error) => ReadError::of(error, &self.name, self.at),
        }
    }
}

/// All entries of a plain archive held in memory, without their data: for listings, comparisons and fuzzing.
pub fn entries(archive: &[u8], limits: Limits) -> Result<Vec<Entry>, ReadError> {
    let mut reader = Reader::new(archive, limits);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        all.push(entry);
    }
    Ok(all)
}

/// An error that does not know its entry yet.
enum ReadErrorOrReason {
    Reason(Reason),
    Input(io::Error),
}

impl From<Reason> for ReadErrorOrReason {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}

impl From<io::Error> for ReadErrorOrReason {
    fn from(error: io::Error) -> Self {
        Self::Input(error)
    }
}

/// At least one byte of input, or the error that it is cut off.
fn filled<R: BufRead>(input: &mut R) -> io::Result<&[u8]> {
    let bytes = input.fill_buf()?;
    if bytes.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off"));
    }
    Ok(bytes)
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// A long name of GNU's, `size` bytes of these blocks. Readers go by the size or by the NUL behind it: both must be right.
fn long_name(blocks: &[u8], size: usize) -> Result<Vec<u8>, Reason> {
    let end = blocks[..size].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    match blocks.get(end) {
        Some(0) => Ok(blocks[..end].to_vec()),
        _ => Err(Reason::new(Code::AmbiguousName, "its long name does not end where it says")),
    }
}
