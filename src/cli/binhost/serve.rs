//! `binhost serve`: serves a directory of binary packages.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::base::error::Result;
use crate::base::progress::Progress as _;
use crate::serve;
use crate::ui::Terminal;

/// Serve a directory of binary packages over HTTP until a signal ends it
///
/// Serves indexes (Packages, Packages.gz), packages and certificates (*.asc), and nothing else: no lists of files, no hidden files, no
/// symlinks. Prints its address on standard output. It is made for a trusted network: for TLS, passwords and many clients, put a web
/// server before it, or let that server serve the directory itself.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder binhost serve ./packages --listen 192.0.2.1:8080

A recipe on another machine then has:
  [portage]
  binhost = [{ url = \"http://192.0.2.1:8080\", keyring = \"packages.asc\" }]")]
pub(super) struct Args {
    /// The directory with the file Packages
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The address and the port to listen on; port 0 chooses a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let server = serve::start(&self.directory, self.listen)?;
        ui.plan(&format!("http://{}", server.address));
        ui.written()?;
        for line in server.log {
            ui.note(&line);
        }
        Ok(0)
    }
}
