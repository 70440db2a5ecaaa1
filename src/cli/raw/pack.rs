//! `raw pack`: packs a directory into an archive on standard output.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;

use super::stream;
use crate::archive::pack::{self, Digests, Options, Outputs, Sizes, Tree};
use crate::archive::unpack::Deferred;
use crate::base::error::{Context, Error, Result};
use crate::cli::named::{OutputFile, SpooledOutput};
use crate::cli::{record, session, standard};
use crate::fs::directory_of;
use crate::fs::rootfs::Rootfs;
use crate::ui::Terminal;

/// Names of output files in messages.
const MANIFEST: &str = "manifest";
const DIGESTS: &str = "file of digests";

/// Pack a directory into an archive on standard output
///
/// The same tree gives the same bytes on any machine, with any number of threads and any order of directories. If SOURCE_DATE_EPOCH is
/// set, later times are clamped to it.
///
/// A mount point in the tree is an error (exit code 4). So is a file that is modified, or replaced by another file, while the tree is
/// packed. Sockets are left out, with a note for each.
///
/// Holes of sparse files are expanded: the archive contains zeros in their place, and its uncompressed size counts them. The holes are
/// not read from the disk, and their zeros compress to almost nothing. Unpacking with `raw unpack` makes holes of long runs of zeros
/// again; GNU tar does not.
///
/// Some extended attributes belong to this machine and not to the tree, and are left out: security labels (`security.selinux`,
/// `security.SMACK64*`, `security.apparmor`, `security.evm`), attributes of the file system (`system.*` except POSIX ACLs, `btrfs.*`
/// and other namespaces) and attributes of overlayfs (`trusted.overlay.*`, `user.overlay.*`). A note at the end counts them. The kernel
/// shows `trusted.*` only to root.
///
/// An ordinary user can pack only files owned by the user or by the user's subordinate ids (/etc/subuid, /etc/subgid). Any other owner
/// is an error.
///
/// The archive, the manifest, the file of digests and the cache must be outside of the tree.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder raw pack tree > root.tar.gz
  quern-builder raw pack tree --record tree.json --format tar.xz > root.tar.xz
  quern-builder raw pack tree --digests tree.json > root.tar.gz && jq -r .diff_id tree.json
  quern-builder raw pack tree --manifest root.mtree > root.tar.gz && mtree -p /mnt/copy -f root.mtree")]
pub(super) struct Args {
    /// The root of the tree
    dir: PathBuf,
    /// Format of the archive
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::TarGz)]
    format: Format,
    /// Level of compression: 1 to 12, for xz to 9 [default: 5 for gzip, 6 for xz, 3 for Zstandard]
    ///
    /// gzip at level 1 takes about half of the time of level 5, and its result is about 8 % larger. Zstandard is faster than that, and
    /// its result is smaller than that of gzip.
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..=12))]
    level: Option<u32>,
    /// Number of threads that compress; 0 is one per processor
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    threads: u16,
    /// Keep compressed chunks in this directory, and reuse those of unchanged files
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Write every entry with the SHA-256 of its data to this file, in the format of mtree(5)
    ///
    /// The file is replaced when the archive is complete.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Write the sizes and digests of the archive to this file, as JSON
    ///
    /// The object has the `size` and `digest` (SHA-256) of the archive, its `tar_size` and `diff_id` before compression, and its number of
    /// `entries`. `digest` and `diff_id` are those of an OCI layer. The file is replaced when the archive is complete. The digests cost
    /// hashing the archive before and after compression.
    #[arg(long, value_name = "FILE")]
    digests: Option<PathBuf>,
    /// Add the nodes and attributes in this file, which `raw unpack --record` wrote
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// Archive formats.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Uncompressed
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
            Some(_) => session::source_date()?.epoch(),
            None => u64::MAX,
        };
        if let Some(code) = session::user_namespace()? {
            return Ok(code);
        }
        let record = match &self.record {
            Some(path) => record::read(path)?,
            None => Deferred::default(),
        };
        let find = |path: &Option<PathBuf>, what| path.as_deref().map(|path| OutputFile::find(path, what)).transpose();
        let (manifest, digests) = (find(&self.manifest, MANIFEST)?, find(&self.digests, DIGESTS)?);
        let named = [(MANIFEST, &self.manifest, &manifest), (DIGESTS, &self.digests, &digests)];
        let named = named.into_iter().filter_map(|(what, path, place)| Some((what, path.as_deref()?, place.as_ref()?)));
        self.check_outputs(&out, &named.collect::<Vec<_>>())?;
        let mut manifest = manifest.map(|place| SpooledOutput::new(place, MANIFEST)).transpose()?;
        let options = Options {
            format: match self.format {
                Format::Tar => pack::Format::Plain,
                Format::TarGz => pack::Format::Gzip,
                Format::TarXz => pack::Format::Xz,
                Format::TarZst => pack::Format::Zstd,
            },
            epoch,
            spans: Vec::new(),
            level: self.level,
            threads: self.threads.into(),
            cache: self.cache.as_deref().map(pack::Cache::open).transpose()?.map(Arc::new),
            layer: false,
        };
        let tree = Rootfs::open(&self.dir)?;
        let tree = Tree { root: &tree, deferred: &record, part: None };
        let outputs =
            Outputs { manifest: manifest.as_mut().map(|manifest| manifest as _), ..Outputs::archive(&mut out) };
        let mut computed = digests.is_some().then(Digests::default);
        let sizes = pack::archive(tree, outputs, computed.as_mut(), &options, ui).map_err(stream::unread)?;
        manifest.map_or(Ok(()), SpooledOutput::keep)?;
        if let (Some(file), Some(computed)) = (digests, computed) {
            file.write(&mut json(sizes, computed).as_bytes(), DIGESTS)?;
        }
        Ok(0)
    }

    /// Refuses outputs inside the tree, and two outputs in one file.
    fn check_outputs(&self, out: &File, named: &[(&str, &Path, &OutputFile)]) -> Result<()> {
        let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
        // Opening the tree reports a missing one.
        let Ok(tree) = fs_err::metadata(&self.dir).map(|found| identity(&found)) else { return Ok(()) };
        let inside = |place: &Path| {
            let real = [place, directory_of(place)].into_iter().find_map(|path| fs_err::canonicalize(path).ok());
            let mut above = real.iter().flat_map(|path| path.ancestors());
            above.any(|path| fs_err::metadata(path).is_ok_and(|found| identity(&found) == tree))
        };
        let written = out.metadata().system(|| "looking at standard output")?;
        let file = written.is_file().then_some(("archive", Path::new("/proc/self/fd/1")));
        let cache = self.cache.as_deref().map(|path| ("cache", path));
        let directories = named.iter().filter_map(|(what, _, named)| Some((*what, named.directory()?)));
        if let Some((what, _)) = file.into_iter().chain(cache).chain(directories).find(|(_, place)| inside(place)) {
            let message = format!("packing {}: the {what} would be written into it", self.dir.display());
            return Err(Error::usage(message).with_hint(pack::walk::RESULT_IN_TREE));
        }
        let same = |one: &str, other: &str| {
            Error::usage(format!("the {one} and the {other} would be written to the same file"))
        };
        for (at, (what, path, place)) in named.iter().enumerate() {
            let found = fs_err::metadata(path).is_ok_and(|found| identity(&found) == identity(&written));
            if found && !written.file_type().is_char_device() {
                return Err(same("archive", what));
            }
            if let Some((other, ..)) = named[..at].iter().find(|(.., before)| before.is(place)) {
                return Err(same(other, what));
            }
        }
        Ok(())
    }
}

/// Formats sizes and digests, with the names of the OCI image specification.
fn json(Sizes { size, tar_size, entries }: Sizes, digests: Digests) -> String {
    let (sha256, diff_id) = digests.finish();
    let object = serde_json::json!({
        "size": size,
        "digest": format!("sha256:{sha256}"),
        "tar_size": tar_size,
        "diff_id": format!("sha256:{diff_id}"),
        "entries": entries,
    });
    format!("{object}\n")
}
