//! What a build starts from.

use std::path::Path;

use super::host::Host;
use super::layers::Layer;
use crate::archive::unpack::Deferred;
use crate::base::error::Result;
use crate::recipe::{Job, TreeKind};
use crate::store::trees::Tree;
use crate::store::work::Below;

/// What lies below a builder tree. It stays for as long as this value lives.
#[derive(Debug)]
pub enum Base {
    /// A stage3 that is unpacked in the store.
    Stage3(Tree),
    /// The running system.
    Host(Host),
}

impl Base {
    /// What the work directory remembers it by.
    pub fn below(&self) -> Below {
        match self {
            Self::Stage3(tree) => Below::Stage3(tree.sha512()),
            Self::Host(_) => Below::Host,
        }
    }

    /// What it is made of. `directory`, a build's or a shell's own, takes what has to be made for it.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when it cannot be made.
    pub fn layers(&self, directory: &Path) -> Result<Vec<Layer>> {
        match self {
            Self::Stage3(tree) => Ok(vec![Layer::root(tree.root())]),
            Self::Host(host) => host.layers(directory),
        }
    }

    /// What the shipped tree lacks because the kernel refused it: a stage4 holds the stage3.
    pub fn record(&self, job: &Job) -> Deferred {
        match (job.build.kind, self) {
            (TreeKind::Stage4, Self::Stage3(tree)) => tree.record().clone(),
            _ => Deferred::default(),
        }
    }
}
