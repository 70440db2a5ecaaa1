//! `oci archive`: a layout as a tar archive.

use std::path::PathBuf;

use crate::base::error::Result;
use crate::cli::named;
use crate::cli::session;
use crate::oci::archive::{Archive, Form, check_name};
use crate::ui::Terminal;

/// Write a layout to a tar archive, also for `docker load`
///
/// The archive has the documents and blobs that index.json refers to. With --docker, it has one image in the older form that every
/// version of `docker load` reads. Digests are verified. The same layout gives the same bytes.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder oci archive demo.oci -o demo.tar
  quern-builder oci archive demo.oci --docker --name demo:1 | docker load")]
pub(super) struct Args {
    /// The layout: the directory with index.json
    dir: PathBuf,
    /// Write one image, in the form of `docker save`
    #[arg(long)]
    docker: bool,
    /// The tag or the digest of the image, if the layout has several
    #[arg(long, value_name = "NAME", requires = "docker")]
    image: Option<String>,
    /// The name that `docker load` gives the image: NAME:TAG
    #[arg(long = "name", value_name = "NAME", requires = "docker")]
    names: Vec<String>,
    /// Write to this file instead of standard output; it appears when it is complete
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        self.names.iter().try_for_each(|name| check_name(name))?;
        session::signals()?;
        let form = if self.docker { Form::Docker { image: self.image, names: self.names } } else { Form::Layout };
        let archive = Archive::of(&self.dir, &form)?;
        named::write_archive(self.output.as_deref(), archive.size(), ui, |to| archive.write(to, ui))?;
        Ok(0)
    }
}
