//! `raw unpack`: an archive on standard input → a directory.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::stream::{INPUT, Lines};
use crate::archive::unpack::hashed::Hashed;
use crate::archive::unpack::refusal::Refusal;
use crate::archive::unpack::{self, Limits, RaisedBy, Record};
use crate::base::error::{Context, Error, Result};
use crate::base::refusal::{Code, Reason};
use crate::cli::limits::LimitArgs;
use crate::cli::record::RecordFile;
use crate::cli::{session, standard};
use crate::fs::rootfs::Rootfs;
use crate::ui::Terminal;

/// Unpack an archive from standard input into a directory
///
/// A tar archive, plain or compressed, whatever its format. Nothing outside the directory is touched, whatever the archive says.
/// What is malformed or ambiguous is refused with a stable code (exit code 3). What is mounted in the directory is a part of it; the
/// root of the running system is no such directory. As an ordinary user, owners are those of the user's range
/// of subordinate ids.
///
/// An archive may have 256 GiB and ten million entries unless the options say otherwise. How small it is does not matter: one of a file
/// that is mostly a hole is small.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Lines of JSON:
  An object for each entry: \"path\" (relative to the root, \"\" for the root itself), \"type\" (file, hardlink, symlink, dir, char, block,
  fifo), \"mode\", \"uid\", \"gid\", \"size\", \"mtime\", \"mtime_nsec\", \"offset\" (of its header), and where there are such: \"link\",
  \"device\" (major, minor), \"xattrs\" (values in hex), \"sparse\" (offset and length of each piece of data). Names that are not UTF-8
  are arrays of bytes. When the archive is refused the last object has \"refused\" (a stable code), \"reason\", and \"path\" and \"offset\"
  of the entry.

Examples:
  quern-builder raw unpack --root tree < stage3.tar.xz
  quern-builder raw unpack --root tree --sha512 $SUM < stage3.tar.xz
  quern-builder raw unpack --root tree --record tree.json < stage3.tar.xz")]
pub(super) struct Args {
    /// The directory, which exists and is best empty: an entry takes the place of a file there, but not of a directory with something in it
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
    /// Refuse the archive, in the end, unless this is its SHA-512 (hex): what was unpacked of a wrong one is to be removed
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    sha512: Option<String>,
    /// Print every entry as a line of JSON
    #[arg(long)]
    json: bool,
    /// Write what the kernel refused to make (device nodes, attributes) to this file, for `raw pack`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// What it may demand.
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
        // Opened before the tree: from then on no path is followed but inside it.
        let record = self.record.as_deref().map(RecordFile::create).transpose()?;
        let running = fs_err::metadata("/").system(|| "looking at the running system")?;
        let root = Rootfs::open(&self.root)?;
        let meant = rustix::fs::fstat(root.fd()).system(|| format!("looking at {}", self.root.display()))?;
        if (meant.st_dev, meant.st_ino) == (running.dev(), running.ino()) {
            let message = format!("unpacking {INPUT} into {}: it is the running system", self.root.display());
            return Err(Error::usage(message).with_hint("name a directory with --root, best an empty one"));
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

    fn unpack(&self, input: File, root: &Rootfs, mut lines: Option<&mut Lines>, ui: &Terminal) -> Result<Record> {
        let LimitArgs { max_bytes, max_entries } = self.limits;
        let limits = Limits::default().set(max_bytes, max_entries, RaisedBy::Options);
        unpack::check_size(&input, root, INPUT, &limits)?;
        let (input, whole): (Box<dyn Read + Send>, _) = match &self.sha512 {
            None => (Box::new(input), None),
            Some(_) => {
                let (input, whole) = Hashed::<_>::new(input);
                (Box::new(input), Some(whole))
            }
        };
        let missing = unpack::extract_some(input, None, INPUT, root, &limits, ui, &mut |entry| {
            lines.as_mut().map_or(Ok(()), |lines| lines.entry(entry)).map(|()| true)
        })?;
        if let (Some(wanted), Some(whole)) = (&self.sha512, whole) {
            let found = whole.get().map_or("unknown", String::as_str);
            if found != wanted {
                let reason = Reason::new(Code::DigestMismatch, "its SHA-512 is another");
                return Err(Error::refused(format!("unpacking {INPUT}"))
                    .with_source(Refusal { reason, name: Vec::new(), offset: 0 })
                    .with_details(format!("it is      {found}\nand not    {wanted}"))
                    .with_hint("remove what was unpacked: it is not what it should be"));
            }
        }
        Ok(missing)
    }
}

fn digest(text: &str) -> std::result::Result<String, String> {
    match text.len() == 128 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("a SHA-512 has 128 hexadecimal digits".to_owned()),
    }
}
