//! Running a command in a tree: namespaces, mounts, signals. Knows nothing of Gentoo, and is the only room that mounts.
//!
//! ```text
//! builder ── S1: this program again, one thread; new user, mount, pid, ipc and uts namespaces
//!             └─ S2: pid 1; mounts, pivot_root, drops what must be dropped, reaps
//!                 └─ the command, in user and mount namespaces of its own, where those mounts are locked
//! ```
//!
//! Root of the tree is never root of the host: S1 gets a user namespace even when the builder is real root. All state hangs
//! off S2: when any of the four dies, the kernel takes down the rest, and no mount outlives them.

mod child;
mod init;
mod mounts;
pub mod overlay;
mod parent;
pub mod plan;

pub use child::run_if_child;
pub use parent::{Io, Observer, run};
pub use plan::{Mount, Plan};

use serde::{Deserialize, Serialize};

/// Names the descriptor of the control socket to S1.
const MARK: &str = "QUERN_SANDBOX_FD";

/// What S1 and S2 tell the builder, one JSON line each.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    /// S1 is in its user namespace and waits for the maps.
    Unshared,
    /// The command runs.
    Started,
    /// It could not be started.
    Failed {
        /// What was being done.
        message: String,
        /// Why it failed, outermost first.
        causes: Vec<String>,
        /// The next step, if one is known.
        hint: Option<String>,
        /// Whether the command itself was not found or not executable.
        not_found: bool,
    },
}
