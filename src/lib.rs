//! quern-builder turns one TOML recipe into an operating-system image made of Gentoo packages, without a daemon, without Docker and
//! without root.
//!
//! This page describes the architecture. The program is a thin `main.rs` over this library; [`cli`] holds the commands.
//!
//! # The pipeline
//!
//! ```text
//! recipe ─▶ source ─▶ verify ─▶ unpack ─▶ enter ─▶ emerge ─▶ strip ─▶ pack ─▶ publish
//!           (bytes)   (trust)   (tree)    (sandbox)          (rules)  (bytes) (names)
//! ```
//!
//! Each stage consumes the result of the stage before it, so the compiler checks their order: only verification makes a verified
//! tarball, and only a verified tarball can be unpacked. Stages do not call each other; one straight function in [`pipeline`] does.
//!
//! # The rooms
//!
//! Each module is a room on a floor. A room may use only rooms on lower floors. [`FLOORS`] holds the list, and
//! `tests/integration/architecture.rs` checks every import against it.
//!
//! | floor | room | task | must not |
//! |---|---|---|---|
//! | 11 | [`cli`] | one file per command: its arguments, its help, what it calls | hold the logic of a stage |
//! | 10 | [`ui`] | the terminal: progress, colours, the log, rendered errors; records of a build | know recipes or images |
//! | 9 | [`pipeline`] | build, lock, shell, plan: one straight function per file | open files, use the network or start processes itself |
//! | 9 | [`serve`] | the web server for a directory of binary packages | write, follow symlinks |
//! | 8 | [`builder`] | the trees of one build: overlays, and the steps that change them | know how a sandbox is made |
//! | 8 | [`output`] | results: tarball, checksums, listings, provenance, bills of materials, OCI layout | show a name before the result is whole and on disk |
//! | 7 | [`plan`] | what a build does, as a value: steps and their keys, mounts, removals, results | do any of it |
//! | 6 | [`source`] | a recipe's inputs: located, fetched, verified, unpacked; trees of git branches | judge signatures |
//! | 6 | [`portage`] | Portage's configuration, command lines and reports as values | touch a tree |
//! | 6 | [`system`] | settings of an image → changes of its files: users, services, host name, locale. Pure | write, run a program |
//! | 6 | [`registry`] | images to and from registries | trust an answer, send credentials to another server |
//! | 6 | [`strip`] | removal rules, applied through [`fs::rootfs`] | decide while removing |
//! | 5 | [`recipe`] | TOML files, variables and options → a typed, valid [`recipe::Job`] | touch any file but those it is given |
//! | 5 | [`lockfile`] | `quern.lock`, read and written | find out or judge its contents |
//! | 5 | [`store`] | blobs, trees, layers, work directories, caches: whole or absent, locked while in use | know what they mean |
//! | 5 | [`oci`] | image layouts: validated, and unpacked into trees | trust a blob before its digest |
//! | 4 | [`archive`] | tar bytes to a tree ([`archive::unpack`]) and back ([`archive::pack`]); the changes in an overlay; secrets in a tree | write outside the tree, whatever the archive says |
//! | 4 | [`net`] | the HTTP client: bounded answers | trust an answer |
//! | 4 | [`verify`] | bytes and evidence → verified bytes; the only user of OpenPGP | reach the network or a tree |
//! | 4 | [`enter`] | runs a command in a tree; the only room that mounts | know Gentoo |
//! | 3 | [`fs`] | a tree's handle, file locks, atomic replacement, staging directories | know what a tree is for |
//! | 2 | [`os`] | system calls (the only `unsafe`), processes, user namespaces, facts about the machine, free space | know what they are for |
//! | 1 | [`base`] | errors, digests, text, time, architectures, progress events | do I/O |
//!
//! `fuzz.rs` holds one body for each parser of foreign bytes; it is built for tests and for `scripts/fuzz` only. [`testing`] exports
//! the few items that `tests/` and `benches/` use.
//!
//! # Processes
//!
//! ```text
//! quern-builder build            P0  becomes root in a user namespace, unless it is root, by running itself again before any thread
//!  │                                 exists; then only waits and forwards signals
//!  └─ B   the builder            uid 0, real or mapped. May have threads. Runs every stage
//!      └─ S1  /proc/self/exe     one for each command in a tree: reads its plan from an inherited descriptor. One thread
//!          └─ S2  PID 1          mounts, pivot_root, enters a user namespace, drops privileges; reaps, forwards signals
//!              ├─ daemons        processes that live while the command runs
//!              └─ payload        the command
//! ```
//!
//! When an ordinary user packs a tree with files of `nobody`, B starts one more process in a user namespace of its own and asks it
//! whether the owner is mapped ([`os::userns::owners`]).
//!
//! All of this hangs off one PID namespace and one mount namespace: when any of these processes is killed, no mount and no process
//! remains.
//!
//! B runs one sandbox at a time. It inherits the orphans of a sandbox, and if S1 dies before S2 has reported its process id, B waits for
//! all its children. The signals that B gets go to all children that are registered for them ([`os::process`]).
//!
//! # Two trees
//!
//! The *builder tree* is the unpacked stage3. The store keeps it read-only, and a build sees it through an overlay. With `source.host`,
//! the builder tree is made of directories of the running system instead, each behind an overlay of its own ([`builder::host`]). The
//! *image tree* becomes the result: an empty `ROOT` that emerge fills or, for a stage4, the builder tree itself. Portage reads the
//! image's configuration from `PORTAGE_CONFIGROOT` and the builder's from `/etc/portage`; both are files written from the recipe.
//!
//! # Steps and layers
//!
//! A build is a list of steps ([`plan::nodes`]): the recipe's own, around those of the program, which write Portage's configuration
//! (`@configure`) and run emerge (`@unblocker`, `@world`, `@baselayout`, `@system`, `@packages`). Each step has a *key*, made of the state of the
//! trees before it and of its inputs by content. If the store has a *layer* for the key, the step does not run. Otherwise the trees are
//! mounted with an empty upper directory on top of the layers so far, the step runs, and its changes become a layer
//! ([`store::layers`]). The state after a step is made of the digest of its result, not of its key: a changed script with the same result
//! makes no later step run. A layer is never shipped: the image is the merged tree, without what the strip rules remove in one last upper
//! directory.
//!
//! The steps of an image begin on its base, or on the layers of the image that it starts from ([`recipe::lineage`]). A build brings that
//! image up to date first (`pipeline::below`), so a change of it reaches its children. Portage's configuration is made anew for each image, from
//! the files that the base had before the first one.
//!
//! A tuple is an image of a tree that has no directory: its recipe is made of fragments (`recipe::merge`), which are united and must not
//! contradict each other. A value of an axis may be a branch of a git repository, whose tree the store keeps. An image with
//! `tuples = "all"` has one more image for each configuration of Portage in the tuples (`recipe::configurations`), which merges their
//! packages (`pipeline::tuples`).
//!
//! The layers of an OCI image that is cut after steps ([`builder::cuts`]) are not those of the store either. The tree after each cut is
//! mounted and treated as the image is: configuration, strip rules. A layer is the difference between two such trees
//! ([`archive::pack::difference`]), so no layer has a stripped file, and all layers together make exactly the tree of the tarball.
//!
//! The settings of a recipe are one more step, `@settings`, before the steps at the end. [`system`] turns them into changes of files, after
//! a look at the tree, and the step makes the changes through [`fs::rootfs`]: nothing of the tree runs, apart from the program that makes the
//! locales of glibc.
//!
//! A volume is a directory that steps share: the changes of a step to it are a part of the layer, apart from those to the trees
//! ([`builder::volumes`]). Its state is in the keys of the steps that name it, and in no others.
//!
//! A step sees the files of this machine that it names, read-only unless the recipe says otherwise, and caches, which are kept in the
//! store and are in no layer. All of them are mounts. Mount points that the tree lacks come from a throw-away lower layer, so a layer
//! has no trace of them. The inputs of the key have the content of such files, and of a cache its place, mode and owner.
//!
//! Secrets reach a step through the control socket and a tmpfs of its sandbox. The key has an HMAC of each value under a key of the store.
//! The output is masked, and the values are searched for in the changes of every step and in the image ([`archive::leak`]).
//!
//! `@configure` always runs, because it takes no time and depends on the machine. The state after it leaves out what does, such as the
//! number of processors. The state of a running system is not known, so a build from the host uses no layer of another build.
//!
//! # Binary packages
//!
//! The store keeps packages in one directory for each key ([`portage::binpkg::key`]): the settings that decide the content of a package
//! and that Portage does not compare. Process B asks Portage for them in the builder, before anything is merged, and the
//! store keeps the answer for each state of the configuration and the profiles. A build writes into a
//! PKGDIR in its work directory and sees the packages of its key read-only, as a local binary package host whose index leaves out
//! packages of edited ebuilds ([`portage::binpkg::source`]). A recipe with settings of single packages also sees the packages of the key
//! without these settings, except the packages that have them ([`portage::binpkg::exclude`]). After each step, B checks the new packages, copies them into the directory
//! of the key and writes its index ([`builder::packages`]).
//!
//! # Invariants
//!
//! 1. Nothing unverified is unpacked into the store or published. Verification fails closed.
//! 2. The host is never written outside the store, the outdir, a private temporary directory, the records that a user asks for and the
//!    binds that a recipe makes writable, whatever an archive or a step contains. Paths inside a tree are reached only through [`fs::rootfs::Rootfs`], by descriptor.
//! 3. The same recipe and the same inputs give the same bytes: sorted names, numeric owners, clamped times. Threads, host, locale, umask
//!    and privilege make no difference.
//! 4. Two builds may share every cache at the same time. A crash leaves nothing that someone must clean up by hand.
//! 5. A result is visible under its final name only when it is whole.
//! 6. An error names the operation, the object and the next step. Nothing is skipped silently.

mod archive;
mod base;
mod builder;
mod cli;
mod enter;
mod fs;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod lockfile;
mod net;
mod oci;
mod os;
mod output;
mod pipeline;
mod plan;
mod portage;
mod recipe;
mod registry;
mod serve;
mod source;
mod store;
mod strip;
mod system;
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
    &["archive", "net", "verify", "enter"],
    &["recipe", "oci", "store", "lockfile"],
    &["portage", "registry", "system", "strip", "source"],
    &["plan"],
    &["builder", "output"],
    &["pipeline", "serve"],
    &["ui"],
    &["cli"],
];

/// Runs the part of the program that a child process stands for, if this process was started as one: the inside of a sandbox, or the
/// process that looks up owners. Returns its exit code.
pub fn run_if_child() -> Option<i32> {
    enter::run_if_child().or_else(os::userns::owners::run_if_child)
}
