//! Splits a plain archive into entries and their data. Reads from any input and does not access the file system.

use std::io::{self, BufRead};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::entry::{self, BLOCK, Entry, Extensions, Family, MAX_PATH};
use super::limits::{Limits, Spent};
use super::pax::Pax;
use super::refusal::{ReadError, Refusal};
use super::sparse::{self, Segment};
use super::unsupported;
use crate::base::refusal::{Code, Reason};

/// Bytes that may follow the end of an archive. Padding to the record size of a tape is much shorter.
const MAX_TRAILING: u64 = 64 << 20;

/// Reads the entries of an archive, one after the other.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    limits: Limits,
    /// Offset of a global header that no entry has followed yet.
    global: Option<u64>,
    /// Bytes of the plain archive consumed so far.
    offset: u64,
    /// Unread bytes of the current entry's data, and of the padding after the data.
    left: u64,
    padding: u64,
    /// Name and offset of the current entry, as far as they are known.
    name: Vec<u8>,
    at: u64,
    spent: Spent,
    ended: bool,
    /// Set if the archive ended without blocks of zeros.
    unmarked: bool,
    /// Set if the padding of the last entry may be missing.
    is_layer: bool,
}

/// A header, or `None` at the end of the archive.
type Found = Option<(Header, Family)>;

impl<R: BufRead> Reader<R> {
    /// Reads the plain archive `input`.
    pub fn new(input: R, limits: Limits) -> Self {
        let spent = limits.spent;
        let (name, at) = (Vec::new(), 0);
        Self {
            input,
            limits,
            global: None,
            offset: 0,
            left: 0,
            padding: 0,
            name,
            at,
            spent,
            ended: false,
            unmarked: false,
            is_layer: false,
        }
    }

    /// Reads the plain layer of an image. The padding of its last entry may be missing, as in layers of `umoci insert`: GNU tar, bsdtar
    /// and Python refuse such an archive, but container tools are written in Go and accept it. The digest of a layer shows that
    /// nothing else is missing.
    pub fn of_layer(input: R, limits: Limits) -> Self {
        Self { is_layer: true, ..Self::new(input, limits) }
    }

    /// Returns the number of bytes of the plain archive read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the part of the limits that is used up.
    pub fn spent(&self) -> Spent {
        self.spent
    }

    /// Returns true if the archive ended after an entry, without the blocks of zeros that mark the end.
    pub fn is_unmarked(&self) -> bool {
        self.unmarked
    }

    pub fn input(&self) -> &R {
        &self.input
    }

    /// Returns the next entry, or `None` at the end of the archive. Skips the unread data of the current entry.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        self.skip_rest().map_err(|error| self.blame(error.into()))?;
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
                    let reason = Reason::new(Code::Orphan, "an extended header is not followed by an entry");
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

    /// Returns the next bytes of the current entry's data, or none at its end. The caller reports the bytes it used to
    /// [`Reader::consume`].
    pub fn data(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let bytes = filled(&mut self.input)?;
        let length = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        Ok(&bytes[..length])
    }

    /// Marks `count` of the bytes that [`Reader::data`] returned as used.
    pub fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.left -= count as u64;
        self.offset += count as u64;
    }

    /// Reads the input to its end, so that the checksums of the compressed file are verified. Returns the number of bytes after the
    /// archive that are not zero.
    ///
    /// # Errors
    /// Those of the input, and a refusal if more than 64 MiB follow the archive.
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
            if self.offset - end > MAX_TRAILING {
                let text = format!("more than {MAX_TRAILING} bytes follow the end of the archive");
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
        let segments =
            if header.entry_type() == EntryType::GNUSparse { Some(self.old_sparse(header, family)?) } else { None };
        let mut entry = entry::entry(header, family, extensions, segments, offset)?;
        if !self.limits.whiteouts {
            entry::refuse_long_whiteouts(&entry)?;
        }
        self.padding = entry.stored.wrapping_neg() % BLOCK as u64;
        self.count_bytes(entry.size.max(entry.stored).saturating_add(self.padding))?;
        self.left = entry.stored;
        if map_in_data {
            let segments = sparse::map_from_data(|| self.data_byte())?;
            // The map is padded to a multiple of the block size.
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

    /// Reads a header that extends the next one into `to`. Returns false for the header of an entry.
    fn extension(
        &mut self,
        header: &Header,
        family: Family,
        to: &mut Extensions,
        offset: u64,
    ) -> Result<bool, ReadErrorOrReason> {
        entry::check_rest(header, family)?;
        let kind = header.entry_type();
        // A leading `./`, the slash of a directory, and a final NUL.
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
            return Err(Reason::new(Code::RepeatedExtension, "the same kind of extended header comes twice").into());
        }
        let size = entry::number(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
        let size =
            size.ok_or_else(|| Reason::new(Code::BadNumber, "the size of an extended header is not a number"))?;
        if size > limit {
            let text = format!("an extended header has {size} bytes, more than {limit}");
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
        let gnu = gnu.ok_or_else(|| sparse::bad("its header is not a GNU header"))?;
        let real = entry::number(&gnu.realsize).and_then(|size| u64::try_from(size).ok());
        let real = real.ok_or_else(|| sparse::bad("its size is not a number"))?;
        let mut segments = Vec::new();
        let mut full = sparse::old_segments(&gnu.sparse, &mut segments)?;
        let mut more = gnu.is_extended();
        while more {
            if !full {
                return Err(sparse::bad("its map continues after its end").into());
            }
            let mut block = GnuExtSparseHeader::new();
            self.read_exact(block.as_mut_bytes())?;
            full = sparse::old_segments(block.sparse(), &mut segments)?;
            more = block.is_extended();
        }
        Ok((segments, real))
    }

    /// Returns the next header, or `None` at the end of the archive. The end is marked by two blocks of zeros. Like GNU tar, bsdtar
    /// and Python, this also accepts the end of the input after one block of zeros or after an entry: `umoci insert` writes
    /// such archives.
    fn header(&mut self) -> Result<Found, ReadErrorOrReason> {
        let mut header = Header::new_old();
        let first = self.offset == 0;
        if self.at_end()? {
            if first {
                return Err(Reason::new(Code::Truncated, "the archive is empty").into());
            }
            self.unmarked = true;
            return Ok(None);
        }
        let count = self.read_up_to(header.as_mut_bytes())?;
        let other_format = |bytes: &[u8]| if first { unsupported::by_content(bytes) } else { None };
        if count < BLOCK {
            let format = other_format(&header.as_bytes()[..count]);
            return Err(format.map_or_else(|| cut_off().into(), ReadErrorOrReason::Reason));
        }
        if is_zero(header.as_bytes()) {
            if self.at_end()? {
                return Ok(None);
            }
            self.read_exact(header.as_mut_bytes())?;
            if is_zero(header.as_bytes()) {
                return Ok(None);
            }
            return Err(Reason::new(Code::LoneZeroBlock, "a single block of zeros stands before the header").into());
        }
        let family = entry::family(&header).map_err(|reason| match other_format(header.as_bytes()) {
            Some(format) => format,
            None if first => Reason { text: format!("it is not a tar archive: {}", reason.text).into(), ..reason },
            None => reason,
        })?;
        Ok(Some((header, family)))
    }

    fn at_end(&mut self) -> io::Result<bool> {
        Ok(self.input.fill_buf()?.is_empty())
    }

    /// Reads `size` bytes of data (at most [`Limits::pax`]) and their padding.
    fn block_data(&mut self, size: usize) -> Result<Vec<u8>, ReadErrorOrReason> {
        let mut data = vec![0; size.next_multiple_of(BLOCK)];
        self.read_exact(&mut data)?;
        Ok(data)
    }

    /// Fills `to` with bytes that are not the data of a file.
    fn read_exact(&mut self, to: &mut [u8]) -> Result<(), ReadErrorOrReason> {
        if self.read_up_to(to)? < to.len() { Err(cut_off().into()) } else { Ok(()) }
    }

    /// Reads like [`Reader::read_exact`], but stops at the end of the input. Returns the number of bytes.
    fn read_up_to(&mut self, to: &mut [u8]) -> Result<usize, ReadErrorOrReason> {
        self.count_bytes(to.len() as u64)?;
        let mut count = 0;
        while count < to.len() {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                break;
            }
            let length = bytes.len().min(to.len() - count);
            to[count..count + length].copy_from_slice(&bytes[..length]);
            self.input.consume(length);
            self.offset += length as u64;
            count += length;
        }
        Ok(count)
    }

    /// Skips the unread data of the current entry and its padding.
    fn skip_rest(&mut self) -> io::Result<()> {
        self.skip(self.left)?;
        match self.skip(self.padding) {
            Err(error) if self.is_layer && error.kind() == io::ErrorKind::UnexpectedEof && self.at_end()? => Ok(()),
            other => other,
        }
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

/// Returns all entries of a plain archive in memory, without their data.
#[cfg(any(test, fuzzing))]
pub fn entries(archive: &[u8], limits: Limits) -> Result<Vec<Entry>, ReadError> {
    let mut reader = Reader::new(archive, limits);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        all.push(entry);
    }
    Ok(all)
}

/// An error without the entry that it belongs to.
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

/// Returns at least one byte of `input`, or an error at its end.
fn filled<R: BufRead>(input: &mut R) -> io::Result<&[u8]> {
    let bytes = input.fill_buf()?;
    if bytes.is_empty() {
        return Err(cut_off());
    }
    Ok(bytes)
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off")
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// Returns the long name in a GNU extension of `size` bytes. Some programs use the size and some the NUL after the name, so both
/// must agree.
fn long_name(blocks: &[u8], size: usize) -> Result<Vec<u8>, Reason> {
    let end = blocks[..size].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    match blocks.get(end) {
        Some(0) => Ok(blocks[..end].to_vec()),
        _ => {
            Err(Reason::new(Code::AmbiguousName, "its GNU long name does not end with the NUL that its size promises"))
        }
    }
}
