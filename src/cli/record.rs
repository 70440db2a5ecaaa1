//! The file that `--record` names: what the kernel refused to make, for `raw pack`.

use std::path::Path;

use super::named::Named;
use crate::archive::unpack::Record;
use crate::base::error::{Context, Kind, Result};
use crate::base::progress::Progress;

/// Where a record goes.
pub(super) struct RecordFile(Named);

impl RecordFile {
    /// Finds the place of the file `path`; it is made by [`RecordFile::keep`].
    pub(super) fn create(path: &Path) -> Result<Self> {
        Named::find(path, "record").map(Self)
    }

    /// Writes what is missing to the file that was asked for, or says that nothing keeps it.
    pub(super) fn keep(file: Option<Self>, missing: &Record, ui: &dyn Progress) -> Result<()> {
        match file {
            Some(file) => file.write(missing),
            None if missing.is_empty() => Ok(()),
            None => {
                let (nodes, attributes) =
                    (missing.nodes().len(), missing.xattrs().values().map(Vec::len).sum::<usize>());
                ui.warn(&format!(
                    "{nodes} device nodes and {attributes} attributes could not be made; --record keeps them"
                ));
                Ok(())
            }
        }
    }

    fn write(self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record).system(|| "writing the record")?;
        self.0.write(&mut &text[..], "record")
    }
}

/// Reads what [`RecordFile::keep`] wrote.
pub(super) fn read(path: &Path) -> Result<Record> {
    let text = fs_err::read(path).context(Kind::Usage, || "reading the record")?;
    serde_json::from_slice(&text).context(Kind::Usage, || format!("reading {}", path.display()))
}
