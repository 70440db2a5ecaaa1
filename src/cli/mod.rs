//! The command line: a file per verb, each with its arguments (whose comments are the help) and what it runs. The only place that
//! knows the argument parser; man pages and completions come from the same definitions.

// Comments on arguments are help texts: brackets in them are no links.
#![allow(rustdoc::broken_intra_doc_links)]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::base::error::Result;
use crate::ui::{self, Terminal};

pub mod build;
pub mod clean;
pub mod completions;
pub mod fetch;
pub mod keys;
mod limits;
pub mod lock;
mod named;
pub mod oci;
pub mod raw;
mod record;
mod session;
pub mod shell;
mod standard;
pub mod store;
pub mod verify;

const EXAMPLES: &str = "\
Examples:
  quern-builder build musl-python3.toml               an image from a recipe
  quern-builder build base.toml arm64.toml            two files, the second over the first
  quern-builder build demo.toml --set build.kind=stage4
  quern-builder shell demo.toml -- emerge --info      a command where the image is built
  quern-builder clean --builds                        what builds left behind";

const REFERENCE: &str = "\
Exit codes:
  0      done
  1      the build failed; of `lock --check`: something moved
  2      the command line or the recipe is wrong
  3      verification refused what was downloaded or given
  4      the kernel or the system refuses: namespaces, space, permission
  5      no server gave what was asked
  128+n  killed by signal n
  `shell` exits with the code of its command.

Environment:
  QUERN_HOME            the store, instead of $XDG_CACHE_HOME/quern (as root /var/cache/quern)
  QUERN_<TABLE>_<KEY>   any key of a recipe: QUERN_BUILD_OUTDIR, QUERN_SOURCE_MIRRORS, …
  QUERN_LOG             what to log, as a filter: debug, quern_builder::enter=trace, …
  SOURCE_DATE_EPOCH     the time of everything in the image, in seconds since 1970
  NO_COLOR              no colours
  http_proxy, https_proxy, no_proxy

Files:
  /etc/quern.toml, $XDG_CONFIG_HOME/quern/quern.toml   defaults for every recipe
  quern-recipe(5) has every key of a recipe.";

/// Build Gentoo images from one recipe: no daemon, no Docker, no root
///
/// Reads a recipe (TOML), downloads and verifies a Gentoo stage3, unpacks it into a store, runs the real emerge in it through Linux
/// namespaces, and writes a stage4 tarball and, if the recipe asks, an OCI image layout. Binary packages are kept and shared by all
/// recipes. The paths of what was made are the last lines on standard output; everything else goes to standard error.
#[derive(Debug, Parser)]
#[command(name = "quern-builder", version, max_term_width = 100, after_help = EXAMPLES)]
#[command(after_long_help = format!("{EXAMPLES}\n\n{REFERENCE}"), disable_help_subcommand = true)]
#[command(subcommand_required = true, arg_required_else_help = false)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct Global {
    /// Show the output of what runs; twice: the log as well
    #[arg(short, long, action = clap::ArgAction::Count, global = true, conflicts_with = "quiet")]
    verbose: u8,
    /// Show only warnings and errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Color::Auto, global = true)]
    color: Color,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Build(build::Args),
    Shell(shell::Args),
    Fetch(fetch::Args),
    Verify(verify::Args),
    Lock(lock::Args),
    Keys(keys::Args),
    Clean(clean::Args),
    Store(store::Args),
    Completions(completions::Args),
    Oci(oci::Args),
    Raw(raw::Args),
}

/// Arguments of every verb that reads a recipe.
#[derive(Debug, Clone, Args)]
pub struct RecipeArgs {
    /// The recipe; of several files later ones win, key by key
    #[arg(required = true, value_name = "RECIPE")]
    pub files: Vec<PathBuf>,
    /// Set a key of the recipe, over all files: build.kind=stage4, emerge.packages='["@profile"]'
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Recipe")]
    pub set: Vec<String>,
}

/// Runs the program with these arguments; returns its exit code.
pub fn run<T: Into<OsString> + Clone>(arguments: impl IntoIterator<Item = T>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody left to read the help is no failure.
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 };
        }
    };
    let color = match cli.global.color {
        Color::Auto => ui::Color::Auto,
        Color::Always => ui::Color::Always,
        Color::Never => ui::Color::Never,
    };
    let ui = Terminal::new(ui::Options { verbose: cli.global.verbose, quiet: cli.global.quiet, color });
    ui.start_log();
    let code = cli.command.run(&ui).and_then(|code| ui.written().map(|()| code)).unwrap_or_else(|error| {
        ui.error(&error);
        error.exit_code()
    });
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// The whole definition, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

impl Command {
    fn run(self, ui: &Terminal) -> Result<i32> {
        match self {
            Self::Build(args) => args.run(ui),
            Self::Shell(args) => args.run(ui),
            Self::Fetch(args) => args.run(ui),
            Self::Verify(args) => args.run(ui),
            Self::Lock(args) => args.run(ui),
            Self::Keys(args) => args.run(ui),
            Self::Clean(args) => args.run(ui),
            Self::Store(args) => args.run(ui),
            Self::Completions(args) => args.run(),
            Self::Oci(args) => args.run(ui),
            Self::Raw(args) => args.run(ui),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }
}
