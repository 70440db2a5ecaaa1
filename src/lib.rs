//! quern-builder turns one TOML recipe into an operating-system image made of Gentoo packages: no daemon, no Docker, no root.
//!
//! This page is the architecture. The program is a thin `main.rs` over this library; [`cli`] is what the user calls.
//!
//! # The pipeline
//!
//! ```text
//! recipe ─▶ source ─▶ verify ─▶ unpack ─▶ enter ─▶ emerge ─▶ strip ─▶ pack ─▶ publish
//!           (bytes)   (trust)   (tree)    (sandbox)          (rules)  (bytes) (names)
//! ```
//!
//! Each stage consumes what the one before made, so that the compiler checks their order: nothing but verification makes a
//! verified tarball, nothing but unpacking takes one. Stages do not call each other; one straight function does.
//!
//! # The rooms
//!
//! | module | what it does | what it may not do |
//! |---|---|---|
//! | [`pipeline`] | the one straight function | open files, use the network or start processes itself |
//! | [`recipe`] | TOML files, variables, options → a typed, valid [`recipe::Job`] | touch anything but the files it is given |
//! | [`source`] | which bytes, and getting them; its `fetch.rs` alone knows HTTP, its `repository/git.rs` runs git | judge signatures |
//! | [`verify`] | what was fetched → what is trusted; alone knows OpenPGP | reach the network or a tree |
//! | [`lockfile`] | `quern.lock`: what recipes were locked to, read and written | find out or judge what is in it |
//! | [`store`] | blobs, trees, work directories, caches: whole or absent, locked while used | know what is in them |
//! | [`archive::unpack`] | a verified tarball → a tree | write outside it, whatever the archive says |
//! | [`enter`] | runs a command in a tree; alone mounts | know Gentoo |
//! | [`portage`] | Portage's configuration, commands and reports as values | touch the tree |
//! | [`builder`] | one build's builder tree: its base and overlays, configuration, emerge in it | know how a sandbox is made |
//! | [`strip`] | rules → removals, applied through [`fs::rootfs`] | decide at removal time |
//! | [`archive::pack`] | a tree → bytes, all digests in one pass | change the tree |
//! | [`output`] | bytes → final names: tarball, sums, lists, provenance, OCI layout | show a name before all of it is on the disk |
//! | [`oci`] | image layouts, read: judged, and made into trees | believe a blob before its digest |
//! | [`fs::rootfs`] | handle of a tree: every path below it is resolved by the kernel inside it | know what the tree is for |
//! | [`os::userns`] | becoming root once, by running the program again; telling owners apart that its map leaves out | become root after a thread exists |
//! | `staging` | hidden directories beside results in the making: locked while they live, removed by the next when left | know what is in them |
//! | [`os::space`] | the room that file systems have, and errors that say what is missing of it | know what for |
//! | [`os::process`] | waiting, and passing signals on; starting a helper of the host | know what for |
//! | [`base::progress`] | what stages tell of their work, as events | know a terminal |
//! | [`base::hex`] | bytes as digests are written | know of what |
//! | [`base::error`] | one error: kind (the exit code), cause, details, next step | print |
//! | [`ui`] | the terminal: bars, colours, the log, how an error looks | know what is built |
//! | [`cli`] | a file per verb: its arguments, its help and what it runs | hold logic of a stage |
//!
//! # Processes
//!
//! ```text
//! quern-builder build            P0  not root? becomes root in a user namespace before any thread exists, by running itself
//!  │                                 again; then only waits and forwards signals
//!  └─ B   the builder            uid 0, real or mapped. May have threads. Every stage runs here
//!      └─ S1  /proc/self/exe     one for each command in a tree: reads its plan from an inherited descriptor. One thread
//!          └─ S2  PID 1          mounts, pivot_root, enters a user namespace, drops privileges; reaps, forwards signals
//!              └─ payload        the command
//! ```
//!
//! Where a tree that an ordinary user packs has files of `nobody`, B starts one more process, in a user namespace of its own, and asks it
//! whether they are ([`os::userns::owners`]).
//!
//! Everything hangs off one PID namespace and one mount namespace: kill any of them and no mount and no process is left.
//!
//! # Two trees
//!
//! The *builder tree* is the unpacked stage3, read-only in the store and seen by a build through an overlay; or, with
//! `source.host`, directories of the running system, each seen through an overlay of its own ([`builder::host`]). The *image tree* is
//! what is shipped: a fresh `ROOT` that emerge fills, or, for a stage4, the builder tree itself. Portage reads the image's
//! configuration from `PORTAGE_CONFIGROOT` and the builder's from `/etc/portage`; both are written from the recipe, as files.
//!
//! # Invariants
//!
//! 1. Nothing unverified is unpacked into the store or published. Verification fails closed.
//! 2. The host is never written outside the store, the outdir and a private temporary directory, whatever an archive or a recipe
//!    contains. Paths inside a tree are only reached through [`fs::rootfs::Rootfs`], by descriptor.
//! 3. Same recipe, same inputs, same bytes: sorted names, numeric owners, clamped times; no dependence on threads, host, locale,
//!    umask, or on whether root built it.
//! 4. Two builds may share every cache at the same time. A crash leaves nothing that must be cleaned by hand.
//! 5. What a build made is visible under its final name only when it is whole.
//! 6. An error names the operation, the object and the next step; nothing is skipped silently.
//!
//! What parses foreign bytes is fuzzed: `fuzz.rs`, built for tests and for `scripts/fuzz` only, has a body for each such parser.
//!
//! `tests/integration/architecture.rs` holds the rooms to their rules.

#![allow(dead_code)]

mod archive;
mod base;
mod builder;
mod cli;
mod enter;
mod fs;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod lockfile;
mod oci;
mod os;
mod output;
mod pipeline;
mod portage;
mod recipe;
mod source;
mod store;
mod strip;
#[doc(hidden)]
pub mod testing;
mod ui;
mod verify;

pub use cli::run;

/// The rooms by floor, from the ground up. A room may use only rooms on lower floors; `tests/integration/architecture.rs` checks every
/// import against this list.
#[doc(hidden)]
pub const FLOORS: &[&[&str]] = &[
    &["base"],
    &["os"],
    &["fs"],
    &["archive", "verify", "enter"],
    &["recipe", "oci", "store", "lockfile"],
    &["portage", "strip", "source"],
    &["builder", "output"],
    &["pipeline"],
    &["ui"],
    &["cli"],
];

/// Runs the part of the program that a child process stands for, if this process was started as one: the inside of a sandbox, or the
/// process that looks up owners. Returns its exit code.
pub fn run_if_child() -> Option<i32> {
    enter::run_if_child().or_else(os::userns::owners::run_if_child)
}
