//! The file that `--record` names. It lists what the kernel refused to create while a tree was unpacked, for use by `raw pack`.

use std::path::Path;

use super::named::OutputFile;
use crate::archive::unpack::Deferred;
use crate::base::error::{Context, Kind, Result};
use crate::base::progress::Progress;

/// The destination of a record.
pub(super) struct RecordFile(OutputFile);

impl RecordFile {
    /// Looks up `path`. [`RecordFile::keep`] creates the file.
    pub(super) fn create(path: &Path) -> Result<Self> {
        OutputFile::find(path, "record").map(Self)
    }

    /// Writes the refused nodes and attributes to the file, or warns that they are lost without one.
    pub(super) fn keep(file: Option<Self>, refused: &Deferred, ui: &dyn Progress) -> Result<()> {
        match file {
            Some(file) => file.write(refused),
            None if refused.is_empty() => Ok(()),
            None => {
                let nodes = refused.nodes().len();
                let attributes: usize = refused.xattrs().values().map(Vec::len).sum();
                ui.warn(&format!(
                    "the kernel refused to create {nodes} device nodes and {attributes} extended attributes, and they are lost: \
                     --record FILE keeps them for raw pack"
                ));
                Ok(())
            }
        }
    }

    fn write(self, record: &Deferred) -> Result<()> {
        let text = serde_json::to_vec(record).system(|| "writing the record")?;
        self.0.write(&mut &text[..], "record")
    }
}

/// Reads a record that [`RecordFile::keep`] wrote.
pub(super) fn read(path: &Path) -> Result<Deferred> {
    let text = fs_err::read(path).context(Kind::Usage, || "reading the record")?;
    serde_json::from_slice(&text).context(Kind::Usage, || format!("reading the record {}", path.display()))
}
