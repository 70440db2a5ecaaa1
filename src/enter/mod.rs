//! Runs a command in a tree: namespaces, mounts, signals. Knows nothing of Gentoo, and is the only room that mounts.
//!
//! ```text
//! builder ── S1: this program again, one thread; a new pid namespace
//!             └─ S2: pid 1; mounts, pivot_root, enters a user namespace, drops what must be dropped, reaps
//!                 ├─ the daemons
//!                 └─ the command
//! ```
//!
//! Root of the tree is never root of the host: S2 enters a user namespace even if the builder is real root. All state belongs to S2:
//! when any of the four processes dies, the kernel ends the others and removes their mounts.
//!
//! If the builder is real root, uid 0 of the tree owns the files of the host's root, without root's capabilities. So the sandbox keeps
//! out of reach whatever uid 0 may write by ownership alone: device nodes are read-only binds (their data can be written), the parts of
//! `/proc` that describe the host are read-only or hidden, device nodes in the tree cannot be opened, and read-only binds stay
//! read-only.

mod capture;
mod child;
mod daemons;
mod init;
pub mod left;
mod mounts;
pub mod overlay;
mod parent;
pub mod plan;
mod watch;
mod wire;

pub use capture::Captured;
pub use child::run_if_child;
pub use daemons::{DaemonFailure, DaemonFate};
pub use left::{Fate, Left};
pub use parent::{Io, Observer, run, try_out};
pub use plan::{DaemonPlan, Identity, Mount, Plan, SecretFile, Sign, Terminal};

use serde::{Deserialize, Serialize};

use crate::os::process::Exit;

/// The variable with the number of the control socket, for S1.
const MARK: &str = "QUERN_SANDBOX_FD";

/// The `argv[0]` of S1.
const NAME: &str = "quern-sandbox";

/// The messages of S1 and S2 to the builder, one JSON line each.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    /// S2 is in its user namespace and waits for the id maps.
    Unshared {
        /// Its process id, as the builder knows it.
        pid: i32,
    },
    /// A daemon has a pipe for its output. Carries the end that is read; the reports are in the order of the daemons.
    Output,
    /// The sandbox is made: the daemons start now, and then the command. Carries the other end of its pseudo-terminal, if it has one.
    Started,
    /// A daemon failed.
    Daemon(DaemonFailure),
    /// The command left a process behind.
    Left(Left),
    /// The command has ended.
    Ended(Exit),
    /// The command could not be started.
    Failed {
        /// The operation that failed.
        message: String,
        /// The causes, outermost first.
        causes: Vec<String>,
        /// The next step, if one is known.
        hint: Option<String>,
        /// True if the command is at fault (not found, not executable) and not the system.
        usage: bool,
    },
}
