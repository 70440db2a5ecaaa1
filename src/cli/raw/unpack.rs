//! `raw unpack`: unpacks an archive from standard input into a directory.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::stream::{INPUT, Lines};
use crate::archive::unpack::hashed::Hashed;
use crate::archive::unpack::refusal::Refusal;
use crate::archive::unpack::{Deferred, Limits, RaisedBy, Unpacker};
use crate::base::digest::{Algorithm, Sha512};
use crate::base::error::{Context, Error, Result};
use crate::base::refusal::{Code, Reason};
use crate::cli::limits::LimitArgs;
use crate::cli::record::RecordFile;
use crate::cli::{session, standard};
use crate::fs::rootfs::Rootfs;
use crate::ui::Terminal;

/// Unpack an archive from standard input into a directory
///
/// The input is a tar archive, plain or compressed with gzip, xz, zstd or bzip2. Nothing outside the directory is changed, whatever
/// the archive contains. Malformed and ambiguous archives are refused with a code (exit code 3; see quern-refusals(7)). File systems
/// mounted below the directory are part of it; the root of the running system is refused. For an ordinary user, owners are mapped to
/// the user's range of subordinate IDs.
///
/// Labels and other attributes that belong to a machine or a file system are not restored: security.selinux, security.apparmor,
/// security.SMACK64*, security.evm, those of overlayfs, and every system.* attribute except ACLs. The same applies to NFSv4 ACLs and
/// to file flags (SCHILY.fflags). A warning gives their number and names.
///
/// The default limits are 256 GiB and ten million entries. They do not depend on the size of the archive, because a small archive may
/// contain a large sparse file.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
JSON output:
  One object per entry: \"path\" (relative to the root, \"\" for the root itself), \"type\" (file, hardlink, symlink, dir, char, block,
  fifo), \"mode\", \"uid\", \"gid\", \"size\", \"mtime\", \"mtime_nsec\", \"offset\" (of its header), and where they apply: \"link\",
  \"device\" (major, minor), \"xattrs\" (values in hex), \"sparse\" (offset and length of each segment). Names that are not UTF-8
  are arrays of bytes. If the archive is refused, the last object has \"refused\" (the code), \"reason\", and \"path\" and \"offset\"
  of the entry.

Examples:
  quern-builder raw unpack --root tree < stage3.tar.xz
  quern-builder raw unpack --root tree --sha512 $SUM < stage3.tar.xz
  quern-builder raw unpack --root tree --record tree.json < stage3.tar.xz")]
pub(super) struct Args {
    /// Directory to unpack into. It should be empty: an entry replaces an existing file, but not a directory with content
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
    /// Refuse the archive at its end unless this is its SHA-512 (hex). The unpacked files are not removed
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    sha512: Option<Sha512>,
    /// Print every entry as a line of JSON
    #[arg(long)]
    json: bool,
    /// Write device nodes and attributes that the kernel refused to create to this file, for `raw pack`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Limits.
    #[command(flatten)]
    limits: LimitArgs,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let input = standard::input()?;
        let mut lines = self.json.then(Lines::new).transpose()?;
        if let Some(code) = session::user_namespace()? {
            return Ok(code);
        }
        // Opened before the tree: afterwards only paths inside the tree are resolved.
        let record = self.record.as_deref().map(RecordFile::create).transpose()?;
        let running = fs_err::metadata("/").system(|| "looking at the running system")?;
        let root = Rootfs::open(&self.root)?;
        let target = rustix::fs::fstat(root.fd()).system(|| format!("looking at {}", self.root.display()))?;
        if (target.st_dev, target.st_ino) == (running.dev(), running.ino()) {
            let message = format!("unpacking {INPUT} into {}: this is the running system", self.root.display());
            return Err(Error::usage(message).with_hint("name another directory with --root"));
        }
        let unpacked = self.unpack(input, &root, lines.as_mut(), ui);
        if let Some(mut lines) = lines {
            if let Err(error) = &unpacked {
                lines.refused(error)?;
            }
            lines.finish()?;
        }
        RecordFile::keep(record, &unpacked?, ui).map(|()| 0)
    }

    fn unpack(&self, input: File, root: &Rootfs, mut lines: Option<&mut Lines>, ui: &Terminal) -> Result<Deferred> {
        let LimitArgs { max_bytes, max_entries } = self.limits;
        let limits = Limits::default().set(max_bytes, max_entries, RaisedBy::Options);
        let unpacker = Unpacker { name: INPUT, into: root, limits: &limits, ui };
        unpacker.check_size(&input)?;
        let (input, sums): (Box<dyn Read + Send>, _) = if self.sha512.is_some() {
            let (input, sums) = Hashed::new(input, Algorithm::Sha512);
            (Box::new(input), Some(sums))
        } else {
            (Box::new(input), None)
        };
        let deferred = unpacker.stream(input, None, &mut |entry| {
            lines.as_mut().map_or(Ok(()), |lines| lines.entry(entry)).map(|()| true)
        })?;
        let found = sums.and_then(|sums| sums.get()?.sha512());
        match &self.sha512 {
            Some(wanted) if found != Some(*wanted) => Err(other_digest(wanted, found)),
            _ => Ok(deferred),
        }
    }
}

fn other_digest(wanted: &Sha512, found: Option<Sha512>) -> Error {
    let found = found.map_or_else(|| "unknown".to_owned(), |found| found.hex());
    let reason = Reason::new(Code::DigestMismatch, "the archive has another SHA-512");
    Error::refused(format!("unpacking {INPUT}"))
        .with_source(Refusal { reason, name: Vec::new(), offset: 0 })
        .with_details(format!("expected {}\nfound    {found}", wanted.hex()))
        .with_hint("remove the unpacked files: they are not from the expected archive")
}

fn digest(text: &str) -> std::result::Result<Sha512, String> {
    Sha512::parse(&text.to_ascii_lowercase()).ok_or_else(|| "a SHA-512 has 128 hexadecimal digits".to_owned())
}
