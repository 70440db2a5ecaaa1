//! Running a command in a tree: namespaces, mounts, signals. Knows nothing of Gentoo, and is the only room that mounts.
//!
//! ```text
//! builder ── S1: this program again, one thread; a new pid namespace
//!             └─ S2: pid 1; mounts, pivot_root, enters a user namespace, drops what must be dropped, reaps
//!                 └─ the command
//! ```
//!
//! Root of the tree is never root of the host: S2 enters a user namespace even when the builder is real root. All state hangs
//! off S2: when any of the four dies, the kernel takes down the rest, and no mount outlives them.
//!
//! When the builder is real root, uid 0 of the tree still owns what root of the host owns, without root's capabilities. So
//! nothing that uid 0 may write by ownership alone is in its reach: device nodes are read-only binds (their data is not), the
//! parts of `/proc` that are about the host are read-only or hidden, nodes in the tree open nothing, and what is bound
//! read-only stays so.

mod child;
mod init;
mod mounts;
pub mod overlay;
mod parent;
pub mod plan;

pub use child::run_if_child;
pub use parent::{Io, Observer, run};
pub use plan::{Mount, Plan, Terminal};

use serde::{Deserialize, Serialize};

/// Names the descriptor of the control socket to S1.
const MARK: &str = "QUERN_SANDBOX_FD";

/// What S1 is called: its `argv[0]`.
const NAME: &str = "quern-sandbox";

/// What S1 and S2 tell the builder, one JSON line each.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    /// S2 is in its user namespace and waits for the maps.
    Unshared {
        /// Its process id, as the builder knows it.
        pid: i32,
    },
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
        /// Whether the command is wrong (not found, not executable), not the system.
        usage: bool,
    },
}
