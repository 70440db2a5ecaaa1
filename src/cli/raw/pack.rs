//! `raw pack`: a directory → an archive on standard output.

use std::fs::{File, Metadata};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;

use super::stream;
use crate::archive::pack::{self, Digests, Options, Sizes};
use crate::archive::unpack::Record;
use crate::base::error::{Context, Error, Result};
use crate::cli::named::{Named, Spool};
use crate::cli::{record, session, standard};
use crate::fs::directory_of;
use crate::fs::rootfs::Rootfs;
use crate::ui::Terminal;

/// What messages call the files that options name.
const MANIFEST: &str = "manifest";
const DIGESTS: &str = "file of digests";

/// Pack a directory into an archive on standard output
///
/// The same bytes for the same tree, whatever the machine, the number of threads or the order of directories. No time is later than
/// SOURCE_DATE_EPOCH, if that is set.
///
/// What is mounted in the tree is not of the tree: where something is, packing ends with an error (exit code 4). Sockets are left out,
/// as is said. A file that is written to while it is read, and a name that becomes something else, are errors too.
///
/// Of extended attributes those of the machine are left out (the labels of SELinux, SMACK and AppArmor, `security.evm`), and those of
/// its file system (`system.*` but POSIX lists of access, `btrfs.*`). The kernel shows `trusted.*` to root only.
///
/// An ordinary user packs what is his and what is of his ids in /etc/subuid and /etc/subgid; a file of anybody else is an error.
///
/// Neither the archive nor the manifest nor the digests nor the cache may be in the tree.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder raw pack tree > tree.tar.gz
  quern-builder raw pack tree --record tree.json --format tar.xz > tree.tar.xz
  quern-builder raw pack tree --digests tree.json > tree.tar.gz && jq -r .diff_id tree.json
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
    /// Write every entry with the SHA-256 of its data to this file, in the format of mtree(5); it is replaced when all is packed
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Write the archive's size and SHA-256 (`digest` of an OCI layer), those before compression (its `diff_id`) and how many entries it
    /// has to this file, as JSON; it is replaced when all is packed. It costs hashing all of it, before and after compression
    #[arg(long, value_name = "FILE")]
    digests: Option<PathBuf>,
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
        let find = |path: &Option<PathBuf>, what| path.as_deref().map(|path| Named::find(path, what)).transpose();
        let (manifest, digests) = (find(&self.manifest, MANIFEST)?, find(&self.digests, DIGESTS)?);
        let named = [(MANIFEST, &self.manifest, &manifest), (DIGESTS, &self.digests, &digests)];
        let named = named.into_iter().filter_map(|(what, path, place)| Some((what, path.as_deref()?, place.as_ref()?)));
        self.check_places(&out, &named.collect::<Vec<_>>())?;
        let mut manifest = manifest.map(|place| Spool::new(place, MANIFEST)).transpose()?;
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
        let tree = Rootfs::open(&self.dir)?;
        let lists =
            pack::Lists { contents: None, manifest: manifest.as_mut().map(|manifest| manifest as &mut dyn Write) };
        let mut taken = digests.is_some().then(Digests::default);
        let sizes = pack::archive(&tree, &record, &options, &mut out, lists, taken.as_mut(), ui);
        let sizes = sizes.map_err(stream::unread)?;
        manifest.map_or(Ok(()), Spool::keep)?;
        if let (Some(place), Some(taken)) = (digests, taken) {
            place.write(&mut json(sizes, taken).as_bytes(), DIGESTS)?;
        }
        Ok(0)
    }

    /// Nothing is written into the tree that is packed, nor two results into one file.
    fn check_places(&self, out: &File, named: &[(&str, &Path, &Named)]) -> Result<()> {
        let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
        // That there is none is said when it is opened.
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
            let message = format!("packing {}: the {what} would go into it", self.dir.display());
            return Err(Error::usage(message).with_hint(pack::walk::RESULT_IN_TREE));
        }
        let same = |one: &str, other: &str| Error::usage(format!("the {one} and the {other} go to the same place"));
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

/// What is told of an archive, in words of the OCI image specification where it has such.
fn json(Sizes { size, tar_size, entries }: Sizes, digests: Digests) -> String {
    let (sha256, diff_id) = digests.told();
    let object = serde_json::json!({
        "size": size,
        "digest": format!("sha256:{sha256}"),
        "tar_size": tar_size,
        "diff_id": format!("sha256:{diff_id}"),
        "entries": entries,
    });
    format!("{object}\n")
}
