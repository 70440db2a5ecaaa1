//! The command line. Each command has a file with its arguments, whose docstrings are the help text. Man pages and completions are
//! generated from the same definitions. No other room uses the argument parser.

// Docstrings of arguments are help texts: brackets in them are not links.
#![allow(rustdoc::broken_intra_doc_links)]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::base::error::Result;
use crate::recipe::{Secrets, lineage};
use crate::ui::{self, Terminal};

pub mod answers;
mod audit;
pub mod binhost;
pub mod build;
pub mod clean;
pub mod completions;
pub mod explain;
pub mod fetch;
mod images;
pub mod keys;
mod layers;
mod limits;
pub mod lock;
pub mod log;
mod look;
mod named;
pub mod oci;
mod parallel;
pub mod plan;
pub mod pull;
pub mod push;
pub mod raw;
mod record;
mod registry;
mod session;
pub mod shell;
mod standard;
pub mod store;
pub mod tree;
pub mod verify;
pub mod volume;

/// The examples of the short help, which fits a terminal.
const FIRST_EXAMPLES: &str = "\
Examples:
  quern-builder build musl-python3.toml               build the image of a recipe
  quern-builder shell demo.toml -- emerge --info      run a command in the builder tree";

const EXAMPLES: &str = "\
Examples:
  quern-builder build musl-python3.toml               build the image of a recipe
  quern-builder build demo.toml --set build.kind=stage4
  quern-builder shell demo.toml -- emerge --info      run a command in the builder tree
  quern-builder clean --builds                        remove work directories";

const REFERENCE: &str = "\
Exit codes:
  0      success
  1      the build failed, or `lock --check` found changes
  2      an error in the command line or the recipe
  3      an input failed verification
  4      a system error, such as missing namespaces, space or permissions
  5      no server had the file
  128+n  killed by signal n
  `shell` exits with the code of its command.

Environment:
  QUERN_HOME            directory of the store [default: $XDG_CACHE_HOME/quern, for root /var/cache/quern]
  QUERN_<TABLE>_<KEY>   a key of the recipe, such as QUERN_BUILD_OUTDIR or QUERN_SOURCE_MIRRORS
  QUERN_LOG             filter for the log, such as debug or quern_builder::enter=trace
  SOURCE_DATE_EPOCH     latest time of the files in the image, in seconds since 1970
  REGISTRY_AUTH_FILE    file with the credentials for push and pull; without it, the files of podman and docker
  NO_COLOR              disables colours
  http_proxy, https_proxy, no_proxy

Files:
  /etc/quern.toml, $XDG_CONFIG_HOME/quern/quern.toml   defaults for every recipe
  quern-recipe(5) describes every key of a recipe.";

/// Build Gentoo images from a recipe, without a daemon, Docker or root
///
/// Reads a recipe (TOML), downloads and verifies a Gentoo stage3, and unpacks it into a store. Then runs emerge in it, isolated by
/// Linux namespaces, and writes a stage4 tarball and, if the recipe has an [oci] table, an OCI image layout. All recipes share the
/// binary packages that they build. The paths of the results are the last lines on standard output. All other output goes to standard
/// error.
#[derive(Debug, Parser)]
#[command(name = "quern-builder", version, max_term_width = 100, after_help = FIRST_EXAMPLES)]
#[command(after_long_help = format!("{EXAMPLES}\n\n{REFERENCE}"))]
#[command(subcommand_required = true, arg_required_else_help = false)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct Global {
    /// Show the output of commands; twice: also the log
    #[arg(short, long, action = clap::ArgAction::Count, global = true, conflicts_with = "quiet")]
    verbose: u8,
    /// Show only warnings and errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Color::Auto, global = true)]
    color: Color,
}

/// The `--color` option.
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
    Plan(plan::Args),
    Explain(explain::Args),
    Log(log::Args),
    Audit(audit::Args),
    Shell(shell::Args),
    Fetch(fetch::Args),
    Verify(verify::Args),
    Lock(lock::Args),
    Keys(keys::Args),
    Clean(clean::Args),
    Binhost(binhost::Args),
    Volume(volume::Args),
    Store(store::Args),
    Tree(tree::Args),
    Completions(completions::Args),
    Push(push::Args),
    Pull(pull::Args),
    Oci(oci::Args),
    Raw(raw::Args),
}

/// Arguments of commands that read a recipe.
#[derive(Debug, Clone, Args)]
pub struct RecipeArgs {
    /// The recipe, or a directory with a quern.toml; several files are merged by key, and later files have priority
    #[arg(required = true, value_name = "RECIPE", value_parser = recipe_path())]
    pub files: Vec<PathBuf>,
    /// Set a key of the recipe: build.kind=stage4, emerge.packages='["@profile"]'
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Recipe")]
    pub set: Vec<String>,
    /// The answers to the questions of the recipe.
    #[command(flatten)]
    pub answers: answers::AnswerArgs,
    /// The treatment of secrets by the command, which is not an option.
    #[arg(skip = Secrets::Leave)]
    pub secrets: Secrets,
    /// True if the answers are for several images, which is not an option.
    #[arg(skip)]
    pub shared: bool,
}

/// The option of commands that read secrets.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Recipe")]
pub struct SecretArgs {
    /// Run the commands of secrets on this machine, as the recipe says
    #[arg(long)]
    allow_commands: bool,
}

impl SecretArgs {
    fn treatment(&self) -> Secrets {
        if self.allow_commands { Secrets::ReadAndRun } else { Secrets::Read }
    }

    /// The treatment by a command that only looks: nobody is asked.
    fn known(&self) -> Secrets {
        Secrets::Known { run: self.allow_commands }
    }
}

/// Returns the parser of an argument that names a recipe.
fn recipe_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| lineage::recipe_at(&path))
}

/// Runs the program with `arguments` and returns its exit code.
pub fn run<T: Into<OsString> + Clone>(arguments: impl IntoIterator<Item = T>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is not an error.
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

/// Returns the definition of the command line, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

impl Command {
    fn run(self, ui: &Terminal) -> Result<i32> {
        match self {
            Self::Build(args) => args.run(ui),
            Self::Plan(args) => args.run(ui),
            Self::Explain(args) => args.run(ui),
            Self::Log(args) => args.run(ui),
            Self::Audit(args) => args.run(ui),
            Self::Shell(args) => args.run(ui),
            Self::Fetch(args) => args.run(ui),
            Self::Verify(args) => args.run(ui),
            Self::Lock(args) => args.run(ui),
            Self::Keys(args) => args.run(ui),
            Self::Clean(args) => args.run(ui),
            Self::Binhost(args) => args.run(ui),
            Self::Volume(args) => args.run(ui),
            Self::Store(args) => args.run(ui),
            Self::Tree(args) => args.run(ui),
            Self::Completions(args) => args.run(),
            Self::Push(args) => args.run(ui),
            Self::Pull(args) => args.run(ui),
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
