//! The file that `--record` names: what the kernel refused to make, for `raw pack`.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Kind, Result};
use crate::progress::Progress;
use crate::rootfs::Rootfs;
use crate::unpack::Record;

/// Where a record goes, looked up before the tree is touched.
pub(super) enum RecordFile {
    /// A name in a directory: there whole, or as it was.
    Named(Rootfs, PathBuf),
    /// A pipe or a device.
    Open(File),
}

impl RecordFile {
    /// Finds the place of the file `path`; it is made by [`RecordFile::keep`].
    pub(super) fn create(path: &Path) -> Result<Self> {
        if fs_err::metadata(path).is_ok_and(|meta| !meta.is_file()) {
            return Ok(Self::Open(
                fs_err::OpenOptions::new().write(true).open(path).context(Kind::Usage, || "opening the record")?.into(),
            ));
        }
        let Some(name) = path.file_name() else {
            return Err(Error::usage(format!("{}: a record is a file", path.display())));
        };
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self::Named(Rootfs::open(above)?, name.into()))
    }

    /// Writes what is missing to the file that was asked for, or says that nothing keeps it.
    pub(super) fn keep(file: Option<Self>, missing: &Record, ui: &dyn Progress) -> Result<()> {
        match file {
            Some(file) => file.write(missing),
            None if missing.is_empty() => Ok(()),
            None => {
                let attributes: usize = missing.xattrs().map(|(_, xattrs)| xattrs.len()).sum();
                let nodes = missing.nodes().len();
                ui.warn(&format!(
                    "{nodes} device nodes and {attributes} attributes could not be made; --record keeps them"
                ));
                Ok(())
            }
        }
    }

    fn write(self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record).system(|| "writing the record")?;
        match self {
            Self::Named(dir, name) => dir.write(&name, &text, 0o644),
            Self::Open(mut file) => file.write_all(&text).system(|| "writing the record"),
        }
    }
}

/// Reads what [`RecordFile::keep`] wrote.
pub(super) fn read(path: &Path) -> Result<Record> {
    let text = fs_err::read(path).context(Kind::Usage, || "reading the record")?;
    serde_json::from_slice(&text).context(Kind::Usage, || format!("reading {}", path.display()))
}
