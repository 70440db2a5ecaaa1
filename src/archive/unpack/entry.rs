//! Parses a tar header and the extensions before it into an [`Entry`]. Pure.
//!
//! A header that GNU tar, bsdtar and Python's tarfile would read differently is refused.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use tar::{EntryType, Header};

use super::acl;
use super::pax::Pax;
use super::sparse;
use crate::base::refusal::{Code, Reason};

/// Longest path in bytes: the kernel's PATH_MAX without the final NUL.
pub const MAX_PATH: usize = 4095;
/// Longest component of a path in bytes.
pub const MAX_NAME: usize = 255;
/// Largest major device number on Linux.
pub const MAX_MAJOR: u32 = 0xfff;
/// Largest minor device number on Linux.
pub const MAX_MINOR: u32 = 0xf_ffff;
/// Block size of the tar format.
pub const BLOCK: usize = 512;

/// A modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
pub struct Time {
    /// Seconds since 1970. May be negative.
    pub sec: i64,
    /// Nanoseconds after `sec`, 0 to 999,999,999.
    pub nsec: u32,
}

/// The type of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file. Its data follows the header.
    File,
    /// A hard link to an earlier entry, given by its path inside the tree.
    Hardlink(PathBuf),
    /// A symlink with this target.
    Symlink(Vec<u8>),
    /// A character device: major and minor number.
    Char(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
    /// A directory.
    Dir,
    /// A named pipe.
    Fifo,
}

/// Extended attributes as names and values.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Owner, mode, time and extended attributes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits, including setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes, sorted by name.
    pub xattrs: Xattrs,
}

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path relative to the root of the tree; empty for the root itself. Contains no `..`, `.` or empty component.
    pub path: PathBuf,
    /// Type.
    pub kind: NodeKind,
    /// Owner, mode, time and attributes.
    pub meta: Meta,
    /// Size of the file with its holes.
    pub size: u64,
    /// Bytes of data in the archive.
    pub stored: u64,
    /// Map of the stored bytes if the file is sparse.
    pub sparse: Option<Vec<sparse::Segment>>,
    /// Offset of its first header in the plain archive.
    pub offset: u64,
    /// Properties that are not restored, for a warning.
    pub dropped: BTreeSet<&'static str>,
}

/// The extended headers that belong to a header.
#[derive(Debug, Default)]
pub struct Extensions {
    /// PAX records.
    pub pax: Option<Pax>,
    /// GNU long name.
    pub name: Option<Vec<u8>>,
    /// GNU long link.
    pub link: Option<Vec<u8>>,
    /// Offset of the first of them.
    pub offset: Option<u64>,
}

/// The family of formats that a header belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// POSIX ustar, and PAX.
    Ustar,
    /// GNU.
    Gnu,
    /// Unix V7, before both.
    V7,
}

/// Checks the checksum and the magic number of a header. Returns its family.
pub fn family(header: &Header) -> Result<Family, Reason> {
    let bytes = header.as_bytes();
    let sum =
        number(&header.as_old().cksum).ok_or_else(|| Reason::new(Code::BadChecksum, "the checksum is not a number"))?;
    let fold = |add: fn(u8) -> i64| {
        bytes.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { add(*byte) }).sum::<i64>()
    };
    // Some old writers added signed bytes; all readers accept both sums.
    if sum != fold(i64::from) && sum != fold(|byte| i64::from(byte as i8)) {
        return Err(Reason::new(Code::BadChecksum, "the checksum of the header is wrong"));
    }
    match &bytes[257..265] {
        b"ustar  \0" => Ok(Family::Gnu),
        // Old Java writers leave the version out, and readers do not check it.
        [b'u', b's', b't', b'a', b'r', 0, _, _] => Ok(Family::Ustar),
        // GNU tar writes device numbers nevertheless. Python would read a prefix here; others would not.
        [0, 0, 0, 0, 0, 0, _, _] if bytes[345..].iter().all(|byte| *byte == 0) => Ok(Family::V7),
        _ => Err(Reason::new(Code::BadMagic, "the header has an unknown magic number")),
    }
}

/// Checks the fields that the entry does not use but that some programs refuse or interpret differently.
pub fn check_rest(header: &Header, family: Family) -> Result<(), Reason> {
    let bytes = header.as_bytes();
    // Where ustar has a prefix, GNU has the times of incremental dumps and the maps of sparse files.
    let other = family == Family::Gnu && header.entry_type() != EntryType::GNUSparse;
    if other && bytes[345..500].iter().any(|byte| *byte != 0) {
        return Err(Reason::new(Code::AmbiguousName, "it has a GNU header with data in place of the prefix"));
    }
    let fields = [("mode", 100..108), ("uid", 108..116), ("gid", 116..124), ("size", 124..136), ("mtime", 136..148)];
    for (what, field) in fields {
        number(&bytes[field]).ok_or_else(|| bad_number(what))?;
    }
    // star stores access and change times after a shorter prefix.
    let times = if is_star(header) { 476..500 } else { 0..0 };
    for field in [&bytes[329..337], &bytes[337..345]].into_iter().chain(bytes[times].chunks(12)) {
        if !field.iter().all(|byte| *byte == b' ') {
            number(field).ok_or_else(|| bad_number("device number"))?;
        }
    }
    Ok(())
}

/// Builds an [`Entry`] from the header of an entry and the extensions before it. `segments` is the map of an old GNU sparse entry
/// and the size of its file.
pub fn entry(
    header: &Header,
    family: Family,
    extensions: Extensions,
    segments: Option<(Vec<sparse::Segment>, u64)>,
    offset: u64,
) -> Result<Entry, Reason> {
    let offset = extensions.offset.unwrap_or(offset);
    let pax = extensions.pax.unwrap_or_default();
    let old = header.as_old();

    let name = either("name", extensions.name, pax.path.as_deref(), || plain_name(header, family))?;
    let name = pax.sparse.name.clone().unwrap_or(name);
    let link = either("link", extensions.link, pax.linkpath.as_deref(), || Ok(until_nul(&old.linkname).to_vec()))?;

    let in_header = number(&old.size).filter(|size| *size >= 0).map(|size| size as u64);
    let in_header = in_header.ok_or_else(|| bad_number("size"))?;
    let stored = match pax.size {
        Some(size) if in_header != 0 && in_header != size && size < 1 << 33 => {
            return Err(Reason::new(
                Code::SizeContradiction,
                format!("its size is {in_header} in the header and {size} in PAX"),
            ));
        }
        Some(size) => size,
        None => in_header,
    };

    let source = Source { header, family, pax: &pax };
    let kind = source.kind(&name, &link, stored)?;
    let path = inside(&name)?;
    if path.as_os_str().is_empty() && kind != NodeKind::Dir {
        return Err(Reason::new(Code::RootReplaced, "the root of the tree can only be a directory"));
    }
    if kind != NodeKind::Dir && leads_into(&name) {
        return Err(Reason::new(
            Code::AmbiguousType,
            "it is not a directory, but its name ends like that of a directory",
        ));
    }
    if kind != NodeKind::File && stored != 0 {
        let text = format!("it is not a regular file, but has {stored} bytes of data");
        return Err(Reason::new(Code::UnexpectedData, text));
    }
    let (size, map) = source.sparse(&kind, segments, stored)?;
    let dropped = pax.dropped.clone();
    let meta = meta(header, pax)?;
    Ok(Entry { path, kind, meta, size, stored, sparse: map, offset, dropped })
}

fn meta(header: &Header, mut pax: Pax) -> Result<Meta, Reason> {
    let old = header.as_old();
    let mode = number(&old.mode).filter(|mode| (0..=0o7_777_777).contains(mode)).ok_or_else(|| bad_number("mode"))?;
    let id = |field: &[u8], pax: Option<u64>, what| {
        let id = match pax {
            Some(id) => id,
            None => number(field).and_then(|id| u64::try_from(id).ok()).ok_or_else(|| bad_number(what))?,
        };
        // To chown(2) the largest number means "no change".
        u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| bad_number(what))
    };
    let mtime = match pax.mtime {
        Some(time) => time,
        None => Time { sec: number(&old.mtime).ok_or_else(|| bad_number("mtime"))?, nsec: 0 },
    };
    let mut xattrs = pax.take_xattrs()?;
    for (text, name) in [(&pax.acl_access, acl::ACCESS), (&pax.acl_default, acl::DEFAULT)] {
        // An empty value means that there is no ACL.
        let Some(text) = text.as_ref().filter(|text| !text.is_empty()) else { continue };
        let attribute = xattrs.iter().find(|(have, _)| have == name.as_bytes());
        match (acl::parse(text), attribute) {
            (Ok(list), None) => xattrs.push((name.as_bytes().to_vec(), list)),
            // GNU tar restores the text, container tools restore the attribute.
            (Ok(list), Some((_, value))) if !acl::same(&list, value) => {
                return Err(Reason::new(Code::PaxContradiction, format!("PAX gives two different ACLs for {name}")));
            }
            // The attribute has the numbers of the same ACL.
            (Err(reason), Some(_)) if reason.code == Code::AclByName => {}
            (list, _) => drop(list?),
        }
    }
    Ok(Meta {
        mode: mode as u32 & 0o7777,
        uid: id(&old.uid, pax.uid, "uid")?,
        gid: id(&old.gid, pax.gid, "gid")?,
        mtime,
        xattrs,
    })
}

/// A header and the PAX records before it.
struct Source<'a> {
    header: &'a Header,
    family: Family,
    pax: &'a Pax,
}

impl Source<'_> {
    /// Returns the size of the file with its holes, and its map if it is sparse. `old` is the map of an old GNU header.
    fn sparse(
        &self,
        kind: &NodeKind,
        old: Option<(Vec<sparse::Segment>, u64)>,
        stored: u64,
    ) -> Result<(u64, Option<Vec<sparse::Segment>>), Reason> {
        let records = &self.pax.sparse;
        let bad = |text| Err(Reason::new(Code::BadSparse, text));
        let (size, map) = match old {
            Some(_) if records.is_sparse() => return bad("it has two different sparse maps"),
            Some((segments, real)) => (real, Some(segments)),
            None if !records.is_sparse() => return Ok((stored, None)),
            None if *kind != NodeKind::File || self.header.entry_type() != EntryType::Regular => {
                return bad("it is sparse, but not a regular file");
            }
            // GNU tar would look for the map in a GNU header.
            None if self.family != Family::Ustar => {
                return bad("it is sparse in PAX, but does not have a POSIX header");
            }
            // Python uses the last size for the file. Only a size too large for the header has to be in PAX.
            None if self.pax.size.is_some_and(|size| size < 1 << 33) => {
                return Err(Reason::new(Code::SizeContradiction, "it is sparse, and PAX also gives its stored size"));
            }
            None => {
                let Some(size) = records.real_size else { return bad("the size of the sparse file is missing") };
                // The map of PAX 1.0 is in the data: the reader adds it.
                (size, records.segments()?)
            }
        };
        if let Some(segments) = &map {
            sparse::check(segments, stored, size)?;
        }
        Ok((size, map))
    }

    fn kind(&self, name: &[u8], link: &[u8], stored: u64) -> Result<NodeKind, Reason> {
        let Self { header, family, pax } = *self;
        let slash = name.ends_with(b"/");
        let old = header.as_bytes()[156] == 0;
        let own_slash = until_nul(&header.as_old().name).ends_with(b"/");
        let link_target = || match link {
            [] => Err(Reason::new(Code::BadLink, "it is a link without a target")),
            _ if link.contains(&0) => Err(Reason::new(Code::BadLink, "its target contains a NUL")),
            _ => Ok(link),
        };
        let device = || {
            if pax.device_numbers {
                return Err(Reason::new(Code::UnsupportedRecord, "its device numbers are in PAX records"));
            }
            let bytes = header.as_bytes();
            let part = |field: &[u8], max: u32, what| {
                let value = number(field).filter(|value| (0..=max.into()).contains(value));
                value.map(|value| value as u32).ok_or_else(|| bad_number(what))
            };
            Ok((
                part(&bytes[329..337], MAX_MAJOR, "major device number")?,
                part(&bytes[337..345], MAX_MINOR, "minor device number")?,
            ))
        };
        let kind = header.entry_type();
        match kind {
            // Before ustar a directory was a regular file whose name ends in a slash.
            EntryType::Regular if old && slash && own_slash && stored == 0 => Ok(NodeKind::Dir),
            EntryType::Regular if old && slash != own_slash => {
                Err(Reason::new(Code::AmbiguousType, "only one of its names ends in a slash"))
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse if slash => {
                Err(Reason::new(Code::AmbiguousType, "it is a file whose name ends in a slash"))
            }
            EntryType::Regular => Ok(NodeKind::File),
            _ if family == Family::V7
                && !matches!(kind, EntryType::Link | EntryType::Symlink | EntryType::Directory) =>
            {
                Err(Reason::new(Code::AmbiguousType, "its type does not exist in headers of this age"))
            }
            EntryType::Continuous | EntryType::GNUSparse => Ok(NodeKind::File),
            EntryType::Link if leads_into(link) => Err(Reason::new(Code::BadLink, "it is a link to a directory")),
            EntryType::Link => Ok(NodeKind::Hardlink(inside(link_target()?)?)),
            EntryType::Symlink if link.len() > MAX_PATH => {
                Err(Reason::new(Code::NameTooLong, "its target is too long"))
            }
            EntryType::Symlink => Ok(NodeKind::Symlink(link_target()?.to_vec())),
            EntryType::Char => device().map(|(major, minor)| NodeKind::Char(major, minor)),
            EntryType::Block => device().map(|(major, minor)| NodeKind::Block(major, minor)),
            EntryType::Directory => Ok(NodeKind::Dir),
            EntryType::Fifo => Ok(NodeKind::Fifo),
            other => {
                let text = format!("entries of type '{}' are not supported", other.as_byte().escape_ascii());
                Err(Reason::new(Code::UnsupportedType, text))
            }
        }
    }
}

/// Returns true for a name that the kernel resolves only to a directory.
fn leads_into(name: &[u8]) -> bool {
    name.ends_with(b"/") || name.ends_with(b"/.")
}

/// Returns the name from the GNU extension, PAX or the header. GNU and PAX must agree.
fn either(
    what: &str,
    gnu: Option<Vec<u8>>,
    pax: Option<&[u8]>,
    plain: impl FnOnce() -> Result<Vec<u8>, Reason>,
) -> Result<Vec<u8>, Reason> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => {
            Err(Reason::new(Code::NameContradiction, format!("its {what} differs between GNU and PAX headers")))
        }
        (Some(gnu), _) => Ok(gnu),
        (None, Some(pax)) => Ok(pax.to_vec()),
        (None, None) => plain(),
    }
}

/// Returns the name in the header itself.
pub fn plain_name(header: &Header, family: Family) -> Result<Vec<u8>, Reason> {
    let name = until_nul(&header.as_old().name);
    if family != Family::Ustar {
        return Ok(name.to_vec());
    }
    let prefix = until_nul(&header.as_bytes()[345..500]);
    // star ends its prefix with a NUL before its times; other programs do not know about them.
    if is_star(header) && prefix.len() > 130 {
        return Err(Reason::new(Code::AmbiguousName, "it has a header of star with a prefix that is too long"));
    }
    match prefix {
        [] => Ok(name.to_vec()),
        _ if name.is_empty() => Err(Reason::new(Code::AmbiguousName, "its name consists only of a prefix")),
        _ => Ok([prefix, b"/", name].concat()),
    }
}

/// Returns true for a header of star, which stores times at the end of the prefix and `tar` at the end of the header.
fn is_star(header: &Header) -> bool {
    header.as_bytes()[508..] == *b"tar\0"
}

/// Returns true for the whiteout of a file whose own name is not too long. In a layer it is never created under this name.
fn is_long_whiteout(name: &[u8]) -> bool {
    name.strip_prefix(b".wh.").is_some_and(|removed| removed.len() <= MAX_NAME)
}

/// Refuses names that only whiteouts may have, for archives without whiteouts.
pub(super) fn refuse_long_whiteouts(entry: &Entry) -> Result<(), Reason> {
    let target = if let NodeKind::Hardlink(target) = &entry.kind { Some(target) } else { None };
    let longest = [Some(&entry.path), target].into_iter().flatten().flat_map(|path| path.iter()).map(OsStr::len).max();
    longest.filter(|length| *length > MAX_NAME).map_or(Ok(()), |length| Err(long_name(length)))
}

fn long_name(length: usize) -> Reason {
    Reason::new(Code::NameTooLong, format!("a component of its name has {length} bytes, more than {MAX_NAME}"))
}

/// Converts a name to a path inside the tree. Leading slashes and `.` components are removed; `..` is refused.
pub fn inside(name: &[u8]) -> Result<PathBuf, Reason> {
    use std::os::unix::ffi::OsStrExt;
    if name.is_empty() {
        return Err(Reason::new(Code::EmptyName, "its name is empty"));
    }
    if name.contains(&0) {
        return Err(Reason::new(Code::NulInName, "its name contains a NUL"));
    }
    let mut path = PathBuf::new();
    for component in Path::new(std::ffi::OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(part) if part.len() > MAX_NAME && !is_long_whiteout(part.as_bytes()) => {
                return Err(long_name(part.len()));
            }
            Component::Normal(part) => path.push(part),
            Component::ParentDir => return Err(Reason::new(Code::ParentInName, "its name contains `..`")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    // The length of the path that the kernel gets, without a leading `./`.
    let length = path.as_os_str().len();
    if length > MAX_PATH {
        return Err(Reason::new(Code::NameTooLong, format!("its name has {length} bytes, more than {MAX_PATH}")));
    }
    Ok(path)
}

/// Parses a numeric field: octal digits with spaces before and spaces or NULs after them, or base 256 (GNU). A field of NULs is 0.
/// Returns `None` for a malformed field or one of spaces only, as GNU tar does.
pub fn number(field: &[u8]) -> Option<i64> {
    match field.split_first()? {
        (0x80, rest) => rest.iter().try_fold(0i64, |sum, byte| sum.checked_mul(256)?.checked_add(i64::from(*byte))),
        (0xff, rest) => rest.iter().try_fold(-1i64, |sum, byte| sum.checked_mul(256)?.checked_add(i64::from(*byte))),
        _ => {
            let start = field.iter().position(|byte| *byte != b' ').unwrap_or(field.len());
            let digits = &field[start..];
            if digits.is_empty() {
                return None;
            }
            let end = digits.iter().position(|byte| !(b'0'..=b'7').contains(byte)).unwrap_or(digits.len());
            let (digits, rest) = digits.split_at(end);
            if rest.iter().any(|byte| *byte != 0 && *byte != b' ') {
                return None;
            }
            digits.iter().try_fold(0i64, |sum, digit| sum.checked_mul(8)?.checked_add(i64::from(digit - b'0')))
        }
    }
}

/// Returns the bytes before the first NUL.
pub fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn bad_number(what: &str) -> Reason {
    Reason::new(Code::BadNumber, format!("its {what} is not a number in range"))
}
