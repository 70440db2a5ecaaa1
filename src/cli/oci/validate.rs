//! `oci validate`: validates a whole layout.

use std::path::PathBuf;

use serde_json::json;

use crate::base::error::{Context as _, Error, Result};
use crate::base::text::{self, counted};
use crate::oci::validate::{self, Finding};
use crate::ui::Terminal;

/// Check an image layout: documents, media types, sizes, digests, diff IDs
///
/// Checks everything that index.json refers to, the entries of every layer, and every other blob. Prints all faults, and notes such as
/// unused blobs. Exits with 3 if there is a fault.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The layout: the directory with index.json
    dir: PathBuf,
    /// Print each finding as a line of JSON with "wrong", "code", "about" and "text"
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let report = validate::validate(&self.dir)?;
        let line = |found: &Finding| match self.json {
            true => text::json(
                &json!({ "wrong": found.wrong, "code": found.code.as_str(), "about": found.about, "text": found.text }),
            )
            .system(|| "writing to standard output"),
            false => {
                let kind = if found.wrong { "wrong" } else { "note" };
                Ok(text::line(&format!("{kind}: {}: {} [{}]", found.about, found.text, found.code)))
            }
        };
        let lines: Vec<String> = report.findings.iter().map(line).collect::<Result<_>>()?;
        if !lines.is_empty() {
            ui.plan(&lines.join("\n"));
        }
        if !report.is_valid() {
            let wrong = report.findings.iter().filter(|finding| finding.wrong).count();
            return Err(Error::refused(format!("{} is not valid: {}", self.dir.display(), counted(wrong, "fault"))));
        }
        if !self.json {
            let (images, blobs) = (counted(report.images, "image"), counted(report.blobs, "blob"));
            ui.plan(&format!("{}: valid, {images}, {blobs}", self.dir.display()));
        }
        Ok(0)
    }
}
