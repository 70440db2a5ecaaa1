//! Complete builds with the real emerge, in the stand-in world, as root and as an ordinary user. Other projects' programs check the
//! results.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::env::{self, Output, Privilege, Server, TestEnv, World, output};

mod accelerate;
mod binhost;
mod clean;
mod crash;
mod cuts;
mod daemons;
mod downloads;
mod examples;
mod failed;
mod failure;
mod fetched;
mod formats;
mod host;
mod hostile;
mod image;
mod kantoo;
mod kits;
mod listing;
mod lock;
mod many;
mod matrix;
mod merging;
mod metadata;
mod packages;
mod pushes;
mod python;
mod readme;
mod records;
mod refusals;
mod repeat;
mod repositories;
mod results;
mod sbom;
mod secrets;
mod seeing;
mod settings;
mod shell;
mod space;
mod split;
mod stage4;
mod step_attacks;
mod steps;
mod strict;
mod terminals;
mod together;
mod traces;
mod trees;
mod tuples;
mod uses;
mod volumes;

/// The head of all recipes here. The text after it continues `[build]`.
const HEAD: &str = "[source]\nstage3 = \"amd64-musl\"\n[build]\nprofile = \"gentoo:default/linux/amd64/23.0/musl\"\n";

/// A recipe, after [`HEAD`], for a small package.
const TINY: &str = "[emerge]\npackages = [\"app-test/tiny\"]\n";

/// `SOURCE_DATE_EPOCH` for results that are compared.
const EPOCH: &str = "1700000000";

/// The stand-in world, and an environment of a user who builds in it.
struct Stand {
    env: TestEnv,
    world: World,
    server: Server,
}

impl Stand {
    /// Makes an environment with its own, empty store, or returns `None` where the machine lacks something: the test is skipped.
    fn alone(privilege: Privilege) -> Option<Self> {
        let mut env = TestEnv::with(privilege)?;
        let world = env::require_world()?;
        let server = world.serve();
        env.use_world(&world, &server);
        Some(Self { env, world, server })
    }

    /// Makes an environment with the store that tests share, in which the stage3 is unpacked.
    fn sharing(privilege: Privilege) -> Option<Self> {
        static STORES: [OnceLock<Shared>; 2] = [OnceLock::new(), OnceLock::new()];
        let mut stand = Self::alone(privilege)?;
        let shared =
            STORES[usize::from(privilege == Privilege::Userns)].get_or_init(|| Shared::fill(&mut stand, privilege));
        stand.env.set("QUERN_HOME", &shared.home);
        Some(stand)
    }

    /// Uses an own, empty cache of binary packages.
    fn with_own_packages(mut self) -> Self {
        self.env.set("QUERN_PORTAGE_BINPKG", self.packages());
        self
    }

    /// Returns the path of the store.
    fn store(&self) -> PathBuf {
        self.env.get("QUERN_HOME").map_or_else(|| self.env.store(), PathBuf::from)
    }

    /// Returns the path of the own cache of binary packages.
    fn packages(&self) -> PathBuf {
        self.env.path("home/binpkgs")
    }

    /// Adds repositories to the main one.
    fn with_repositories(mut self, more: &[&Path]) -> Self {
        let all: Vec<_> = [self.world.repository()].into_iter().chain(more.iter().map(PathBuf::from)).collect();
        self.env.set("QUERN_PORTAGE_REPOSITORIES", format!("{all:?}"));
        self
    }

    /// Writes a recipe: [`HEAD`] and `rest`.
    fn recipe(&self, name: &str, rest: &str) -> PathBuf {
        self.env.write(format!("{name}.toml"), format!("{HEAD}{rest}"))
    }

    /// Builds a recipe, and runs every step: in a shared store, another test may have made the layers.
    fn build(&self, recipe: &Path) -> Output {
        self.env.run(["build".as_ref(), "--again=all".as_ref(), recipe.as_os_str()])
    }

    /// Builds a recipe, and runs only the steps of which the store has no layer.
    fn build_changed(&self, recipe: &Path) -> Output {
        self.env.run(["build".as_ref(), recipe.as_os_str()])
    }

    /// Builds a recipe, which must succeed. Returns the paths of the tarball and, if there is one, of the layout.
    #[track_caller]
    fn built(&self, recipe: &Path) -> Vec<PathBuf> {
        self.build(recipe).success().results()
    }

    /// Runs a command in the builder tree (or, with `--image` in `options`, in the image) of a recipe.
    fn shell(&self, recipe: &Path, options: &[&str], command: &[&str]) -> Output {
        let recipe = recipe.to_str().expect("a path of the test's own");
        self.env.run([&["shell", recipe], options, &["--"], command].concat())
    }

    /// Writes an ebuild into the overlay at `overlay`.
    fn ebuild(&self, category: &str, name: &str, body: &str) {
        let head = "EAPI=8\nDESCRIPTION=\"made by a test\"\nHOMEPAGE=\"https://example.org/\"\nS=\"${WORKDIR}\"\n\
                    LICENSE=\"public-domain\"\nSLOT=\"0\"\nKEYWORDS=\"amd64\"\n";
        self.env.write(format!("overlay/{category}/{name}/{name}-1.ebuild"), format!("{head}{body}"));
    }

    /// Adds an overlay, which [`Stand::ebuild`] fills, to the main repository.
    fn with_overlay(self) -> Self {
        let overlay = self.overlay("masters = gentoo\nthin-manifests = true\n");
        self.with_repositories(&[&overlay])
    }

    /// Writes an overlay with the category `app-own` and without ebuilds. Returns its path.
    fn overlay(&self, layout: &str) -> PathBuf {
        self.env.write("overlay/metadata/layout.conf", layout);
        self.env.write("overlay/profiles/repo_name", "own\n");
        self.env.write("overlay/profiles/categories", "app-own\n");
        self.env.path("overlay")
    }
}

/// A store that tests share. It is removed when the test program ends, however it ends.
struct Shared {
    home: PathBuf,
    _keeper: Child,
}

impl Shared {
    fn fill(stand: &mut Stand, privilege: Privilege) -> Self {
        let home = env::scratch().join(format!("quern-test-{privilege:?}-{}", std::process::id()).to_lowercase());
        let store = home.join("store");
        fs::DirBuilder::new().mode(0o700).create(&home).expect("a directory for the shared store");
        if let Some((uid, gid)) = stand.env.owner() {
            chown(&home, Some(uid), Some(gid)).expect("giving a directory away");
        }
        // The standard input of the shell ends with this process. Files of subordinate ids can be removed only in the program's namespace.
        let mut keeper = stand.env.command("sh");
        keeper.args(["-c", "cat; \"$0\" clean --all >/dev/null; rm -rf \"$1\"", env::PROGRAM]);
        keeper.arg(&home).env("QUERN_HOME", &store).current_dir("/").process_group(0);
        let keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("starting sh");
        stand.env.set("QUERN_HOME", &store);
        // A shell unpacks the stage3 without a build.
        let recipe = stand.recipe("fill", "[emerge]\npackages = [\"app-test/tiny\"]\n");
        let _ = stand.shell(&recipe, &[], &["true"]).success();
        Self { home: store, _keeper: keeper }
    }
}

/// Runs a program of another project, which must succeed. Returns its output.
#[track_caller]
fn ask(program: &str, arguments: &[&str]) -> String {
    output(Command::new(program).args(arguments)).success().stdout
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of the test's own")
}
