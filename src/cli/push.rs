//! `push`: an image to a registry.

use std::path::{Path, PathBuf};

use super::registry::RegistryArgs;
use super::session;
use crate::base::error::{Context as _, Error, Kind, Result};
use crate::base::progress::Progress;
use crate::base::text::counted;
use crate::output::claim;
use crate::recipe::lineage;
use crate::registry::{self, PushOptions, Reference};
use crate::ui::Terminal;

/// Push an OCI image to a registry
///
/// Sends only the layers that the repository lacks, up to four at the same time. An upload whose connection breaks goes on where it
/// stopped, if the registry can do that. The tag appears when everything else is there. Prints HOST/NAME@DIGEST.
///
/// The credentials come from the file of --auth-file or REGISTRY_AUTH_FILE. Without one, they are those of `podman login` or `docker login`:
/// in containers/auth.json in XDG_RUNTIME_DIR or XDG_CONFIG_HOME, or in docker's config.json. Credential helpers that these files name
/// are asked. A registry on this machine may lack TLS.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder push demo.toml registry.example.org/demo
  quern-builder push out/demo-2026-11-27.oci localhost:5000/demo:1 --tag latest")]
pub struct Args {
    /// The image: a recipe, for its newest result, or a layout (the directory with index.json)
    #[arg(value_name = "RECIPE|DIR")]
    from: PathBuf,
    /// The destination: HOST[:PORT]/NAME[:TAG]. Without a tag, the image keeps its own
    #[arg(value_name = "REF")]
    to: String,
    /// Add another tag
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// The tag or the digest of the image, if the layout has several
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// Take layers from this repository of the registry, without an upload
    #[arg(long = "mount-from", value_name = "NAME")]
    mount_from: Vec<String>,
    /// The credentials, and the kind of connection.
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let to = Reference::parse(&self.to)?;
        session::signals()?;
        let connection = self.registry.connection(&to)?;
        let dir = if self.from.join("index.json").exists() { self.from } else { newest(&self.from)? };
        let options = PushOptions { image: self.image, tags: self.tags, sources: self.mount_from };
        let pushed = registry::push(&dir, &to, &options, &connection, ui)?;
        let [sent, mounted, present] = pushed.blobs;
        let elsewhere = if mounted > 0 { format!(", {mounted} taken from another repository") } else { String::new() };
        let sent = counted(sent, "blob");
        ui.note(&format!("{sent} sent ({} bytes){elsewhere}, {present} already there", pushed.sent));
        ui.plan(&pushed.reference);
        Ok(0)
    }
}

/// Returns the newest layout that a recipe made.
fn newest(path: &Path) -> Result<PathBuf> {
    let recipe =
        lineage::identity(&lineage::recipe_at(path)).context(Kind::Usage, || "finding the recipe or the layout")?;
    claim::newest_layout(&session::store()?, &recipe)?.ok_or_else(|| {
        Error::usage(format!("{} has no image to push", recipe.display()))
            .with_hint("build it, with an [oci] table in the recipe, or name the layout")
    })
}
