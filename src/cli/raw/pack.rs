//! `raw pack`: a directory → an archive on standard output.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;

use super::stream;
use crate::cli::{record, session, standard};
use crate::error::{Context, Result};
use crate::pack::{self, Options};
use crate::rootfs::Rootfs;
use crate::ui::Terminal;
use crate::unpack::Record;

/// Pack a directory into an archive on standard output
///
/// The same bytes for the same tree, whatever the machine, the number of threads or the order of directories. No time is later than
/// SOURCE_DATE_EPOCH, if that is set.
///
/// What is mounted in the tree is not of the tree: where something is, packing ends with an error (exit code 4). Sockets are left out,
/// as is said. A file that becomes shorter meanwhile, and a name that becomes something else, are errors too; of one that grows, as
/// many bytes are packed as it had. As an ordinary user, owners are as `raw unpack` takes them; others become nobody, with a warning.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder raw pack tree > tree.tar.gz
  quern-builder raw pack tree --record tree.json --format tar.xz > tree.tar.xz
  quern-builder raw pack tree --manifest tree.mtree > tree.tar.gz && mtree -p /mnt/copy -f tree.mtree")]
pub(super) struct Args {
    /// The root of the tree
    dir: PathBuf,
    /// Format of the archive
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::TarGz)]
    format: Format,
    /// Level of compression, 1 to 12; 9 is the highest of xz [default: 5 for gzip, 6 for xz, 3 for Zstandard]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..=12))]
    level: Option<u32>,
    /// Compressing threads; 0 is one for each processor
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    threads: u16,
    /// Keep compressed pieces in this directory, and take from it those that have not changed
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Write every entry with the SHA-256 of its data to this file, in the format of mtree(5)
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Add what `raw unpack --record` wrote to this file
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// Formats of archives.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Not compressed
    Tar,
    /// gzip
    #[value(name = "tar.gz")]
    TarGz,
    /// xz
    #[value(name = "tar.xz")]
    TarXz,
    /// Zstandard
    #[value(name = "tar.zst")]
    TarZst,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let mut out = standard::archive()?;
        let epoch = match std::env::var_os("SOURCE_DATE_EPOCH") {
            Some(_) => session::moment()?.epoch(),
            None => u64::MAX,
        };
        if let Some(code) = session::user_namespace()? {
            return Ok(code);
        }
        let record = match &self.record {
            Some(path) => record::read(path)?,
            None => Record::default(),
        };
        let options = Options {
            format: match self.format {
                Format::Tar => pack::Format::Plain,
                Format::TarGz => pack::Format::Gzip,
                Format::TarXz => pack::Format::Xz,
                Format::TarZst => pack::Format::Zstd,
            },
            epoch,
            level: self.level,
            threads: self.threads.into(),
            cache: self.cache.as_deref().map(pack::Cache::open).transpose()?.map(Arc::new),
            expected: None,
        };
        let manifest =
            self.manifest.as_ref().map(fs_err::File::create).transpose().system(|| "opening the manifest")?;
        let mut manifest = manifest.map(BufWriter::new);
        let tree = Rootfs::open(&self.dir)?;
        let lists = pack::Lists {
            contents: &mut std::io::sink(),
            manifest: manifest.as_mut().map(|manifest| manifest as &mut dyn Write),
        };
        pack::pack(&tree, &record, &options, &mut out, lists, ui).map_err(stream::unread)?;
        manifest.map_or(Ok(()), |mut manifest| manifest.flush()).system(|| "writing the manifest").map(|()| 0)
    }
}
