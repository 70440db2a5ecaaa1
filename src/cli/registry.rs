//! The options of commands that speak to a registry.

use std::path::PathBuf;

use crate::base::error::Result;
use crate::registry::credentials::Places;
use crate::registry::{Connection, Reference};

/// The options of commands that speak to a registry.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Registry")]
pub struct RegistryArgs {
    /// Read the credentials from this file, in the form of podman and docker
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
    /// Use http without TLS, although the registry is not on this machine
    #[arg(long)]
    plain_http: bool,
}

impl RegistryArgs {
    /// Looks up the credentials for a registry, as the user who started the program.
    pub(super) fn connection(&self, reference: &Reference) -> Result<Connection> {
        let places =
            Places::of(self.auth_file.as_deref(), std::env::vars_os().collect(), rustix::process::getuid().as_raw());
        Ok(Connection { credentials: places.find(reference)?, plain_http: self.plain_http })
    }
}
