//! The emerge commands of a build, in order.

use std::collections::BTreeMap;

use crate::base::error::{Error, Result};
use crate::base::text::plain;
use crate::portage::{self, BuilderInfo, MakeProfile, Resolved};
use crate::recipe::{self, Action, Job, Rebuild, StepRoot, TreeKind};

/// The first version of Portage with `--jobs-tmpdir-require-free-gb`. Without the option, it runs fewer jobs without notice.
const WITH_TMPDIR_OPTION: [u32; 3] = [3, 0, 74];

/// The tree that a command merges packages into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// The image tree, at [`portage::ROOT`].
    Target,
    /// The builder tree itself.
    Builder,
}

/// The set of all packages that a tree wants.
const WORLD: &str = "@world";

/// The option that builds the other packages if one fails. Emerge then fails too.
const KEEP_GOING: &str = "--keep-going";

/// The option that removes packages that nothing needs.
const DEPCLEAN: &str = "--depclean";

/// Options that make a command pretend, and propose changes of every kind.
const PRETENDING: [&str; 9] = [
    "--pretend",
    "--package-moves=n",
    "--autounmask=y",
    "--autounmask-use=y",
    "--autounmask-license=y",
    "--autounmask-keep-keywords=n",
    "--autounmask-keep-masks=n",
    "--autounmask-backtrack=y",
    "--autounmask-write=n",
];

/// Options that a pretending command must not have: for binary packages, which leave no changes to propose (Portage turns proposals off
/// with --binpkg-respect-use=y), and for other actions. Portage tests some only for their presence.
const NOT_PRETENDING: [&str; 17] = [
    "--usepkg",
    "--usepkgonly",
    "--getbinpkg",
    "--getbinpkgonly",
    "--binpkg-respect-use",
    "--binpkg-changed-deps",
    "--autounmask",
    "--autounmask-use",
    "--autounmask-license",
    "--autounmask-keep-keywords",
    "--autounmask-keep-masks",
    "--autounmask-backtrack",
    "--autounmask-continue",
    "--autounmask-write",
    "--autounmask-only",
    "--ask",
    "--package-moves",
];

/// An emerge command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name among the steps of a build.
    pub name: String,
    /// The work, in the present participle ("merging @profile").
    pub what: String,
    /// The command. The first word is looked up in PATH.
    pub argv: Vec<String>,
    /// The last words of the command: the packages and sets.
    pub atoms: Vec<String>,
    /// Additions to the environment. Other variables of Portage are never set there.
    pub env: BTreeMap<String, String>,
    pub root: Root,
    /// The builder's `etc/portage/make.profile` during the command; `None` leaves it alone.
    pub profile: Option<MakeProfile>,
}

impl Step {
    /// Returns a command that only pretends to merge the same packages, and proposes changes of the configuration.
    pub fn pretending(&self) -> Vec<String> {
        let unwanted = |name: &str| NOT_PRETENDING.contains(&name) || ["-k", "-K", "-g", "-G", "-a"].contains(&name);
        let mut argv = without(&self.argv, unwanted);
        argv.extend(PRETENDING.map(str::to_owned));
        argv
    }

    /// Describes the resolution of its packages, in the present participle ("resolving @profile").
    pub fn resolving(&self) -> String {
        match self.what.strip_prefix("merging ") {
            Some(packages) => format!("resolving {packages}"),
            None => format!("resolving the packages for {}", self.what),
        }
    }

    /// Returns true if the command merges packages and does nothing else.
    pub fn merges(&self) -> bool {
        let other = [DEPCLEAN, "--unmerge"];
        self.argv.first().is_some_and(|program| program == "emerge")
            && !self.argv.iter().any(|word| other.contains(&word.as_str()))
    }

    /// Returns true if the command removes packages that nothing needs.
    pub fn is_depclean(&self) -> bool {
        self.argv.iter().any(|word| word == DEPCLEAN)
    }

    /// Returns the command in the syntax of a shell.
    pub fn display(&self) -> String {
        let env = self.env.iter().map(|(name, value)| format!("{name}={}", shell_quote(value)));
        env.chain(self.argv.iter().map(|word| shell_quote(word))).collect::<Vec<_>>().join(" ")
    }
}

/// Refuses atoms that emerge would not read as atoms, and options that the build sets itself.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage).
pub fn check(job: &Job) -> Result<()> {
    let lists = [("emerge.packages", &job.emerge.packages), ("build.baselayout-atoms", &job.build.baselayout_atoms)];
    for (key, atoms) in lists {
        for atom in atoms {
            if atom.is_empty() || atom.starts_with('-') || atom.contains(|c: char| c.is_whitespace() || c.is_control())
            {
                return Err(Error::usage(format!("{key}: ‘{}’ is not an atom", plain(atom, 100)))
                    .with_hint("list options in emerge.options, one word each"));
            }
        }
    }
    for option in &job.emerge.options {
        let name = option.split('=').next().unwrap_or_default();
        if option.contains('\0') {
            return Err(Error::usage("emerge.options contains a NUL character"));
        }
        if matches!(name, "--root" | "--config-root" | "--prefix") {
            return Err(Error::usage(format!("emerge.options contains {name}, which the build sets")));
        }
    }
    Ok(())
}

/// Returns the commands of a build: the update under the unblocker profile, the update of `@world`, the base layout, `@system` if the recipe asks for
/// it, and the packages.
pub fn steps(job: &Job, resolved: &Resolved, builder: &BuilderInfo) -> Vec<Step> {
    let mut steps = Vec::new();
    let jobs = jobs(job, builder);
    let step = |name: &str, what: String, root: Root, jobs: u32, extra: &[&str], atoms: &[String]| {
        let mut argv: Vec<String> = vec!["emerge".into()];
        argv.extend(options(job, builder, jobs));
        argv.extend(extra.iter().map(|&option| option.to_owned()));
        argv.extend(job.emerge.options.iter().cloned());
        argv.extend(atoms.iter().cloned());
        command(name, what, argv, root, atoms)
    };
    if let Some(unblocker) = &resolved.unblocker {
        let update = &["--oneshot", "--newuse", "--update"];
        let what = format!("updating the builder under {unblocker}");
        let mut first = step("@unblocker", what, Root::Builder, jobs, update, &[WORLD.into()]);
        first.profile = Some(unblocker.make_profile("/"));
        steps.push(first);
    }
    let (root, again) = of_image(job);
    if job.emerge.update_world {
        let update = &["--update", "--deep", "--newuse"];
        let mut world = step("@world", "updating @world".into(), root, jobs, update, &[WORLD.into()]);
        world.profile = Some(resolved.profile.make_profile("/"));
        steps.push(world);
    }
    // A step does not merge again what an earlier one merged. In a stage4, it does if the stage3 has other USE flags.
    let before = steps.len();
    if !job.build.baselayout_atoms.is_empty() {
        let atoms = &job.build.baselayout_atoms;
        let extra: Vec<&str> = ["--oneshot"].into_iter().chain(again.iter().copied()).collect();
        steps.push(step("@baselayout", format!("merging {}", short(atoms)), root, 1, &extra, atoms));
    }
    if job.build.include_system {
        steps.push(step("@system", "merging @system".into(), root, jobs, again, &["@system".into()]));
    }
    if !job.emerge.packages.is_empty() {
        let atoms = &job.emerge.packages;
        steps.push(step("@packages", format!("merging {}", short(atoms)), root, jobs, again, atoms));
    }
    if root == Root::Builder
        && let Some(first) = steps.get_mut(before)
    {
        first.profile = Some(resolved.profile.make_profile("/"));
    }
    steps
}

/// Returns the number of packages that are built at once.
fn jobs(job: &Job, builder: &BuilderInfo) -> u32 {
    if job.emerge.jobs == 0 { builder.cpus.max(1) } else { job.emerge.jobs }
}

/// Returns the tree that packages of the image are merged into, and the options for packages that it has already.
fn of_image(job: &Job) -> (Root, &'static [&'static str]) {
    match job.build.kind {
        TreeKind::Image => (Root::Target, &["--noreplace"]),
        TreeKind::Stage4 => (Root::Builder, &["--noreplace", "--changed-use"]),
    }
}

/// A command for packages of `root`, whose last words are `atoms`.
fn command(name: &str, what: String, argv: Vec<String>, root: Root, atoms: &[String]) -> Step {
    let mut env = BTreeMap::new();
    if root == Root::Target {
        env.insert("PORTAGE_CONFIGROOT".into(), portage::CONFIGROOT.into());
    }
    Step { name: name.to_owned(), what, argv, atoms: atoms.to_vec(), env, root, profile: None }
}

/// Returns the commands of a step of the recipe that merges or unmerges packages; none for other steps.
pub fn of_step(job: &Job, builder: &BuilderInfo, step: &recipe::Step) -> Vec<Step> {
    let (of_image, again) = of_image(job);
    let root = if step.root == StepRoot::Builder { Root::Builder } else { of_image };
    let name = step.name.as_str();
    let words = |words: &[&str]| -> Vec<String> { words.iter().map(|&word| word.to_owned()).collect() };
    let quiet = ["emerge", "--ask=n", "--color=n", "--nospinner"];
    let merging = |extra: &[&str], atoms: &[String]| {
        let mut argv = words(&["emerge"]);
        argv.extend(options(job, builder, jobs(job, builder)));
        argv.extend(words(extra));
        argv.extend(job.emerge.options.iter().cloned());
        argv.extend(atoms.iter().cloned());
        argv
    };
    let mut commands = match &step.action {
        Action::Emerge(atoms) => {
            vec![command(name, format!("merging {}", short(atoms)), merging(again, atoms), root, atoms)]
        }
        Action::Unmerge(atoms) => {
            let argv = [words(&quiet), words(&["--unmerge"]), atoms.clone()].concat();
            vec![command(name, format!("unmerging {}", short(atoms)), argv, root, atoms)]
        }
        Action::Depclean => {
            let argv = [words(&quiet), words(&[DEPCLEAN, "--with-bdeps=n"])].concat();
            vec![command(name, "unmerging packages that nothing needs".to_owned(), argv, root, &[])]
        }
        Action::Rebuild(kinds) => {
            let rebuild = |kind: &Rebuild| {
                // Each command is a step of its own.
                let name = if kinds.len() > 1 { format!("{name}/{}", kind.name()) } else { name.to_owned() };
                let (what, argv, atoms) = match kind {
                    Rebuild::Preserved | Rebuild::Modules => {
                        let (what, set) = match kind {
                            Rebuild::Preserved => ("rebuilding users of preserved libraries", "@preserved-rebuild"),
                            _ => ("rebuilding modules of the kernel", "@module-rebuild"),
                        };
                        let atoms = words(&[set]);
                        (what, merging(&["--oneshot"], &atoms), atoms)
                    }
                    Rebuild::Links => {
                        let argv = [
                            words(&["revdep-rebuild", "--no-color", "--"]),
                            merging(&["--oneshot"], &[])[1..].to_vec(),
                        ];
                        ("rebuilding packages with broken links", argv.concat(), Vec::new())
                    }
                };
                command(&name, what.to_owned(), argv, root, &atoms)
            };
            kinds.iter().map(rebuild).collect()
        }
        Action::Run(_) | Action::Copy(_) | Action::Write(_) | Action::Delete(_) | Action::Settings(_) => Vec::new(),
    };
    for command in &mut commands {
        let own = std::mem::replace(&mut command.env, step.env.clone());
        command.env.extend(own);
    }
    commands
}

/// Returns the arguments of one emerge that merges the packages of all `steps`, which act on one tree.
pub fn together(steps: &[Step]) -> Vec<String> {
    let Some((last, others)) = steps.split_last() else { return Vec::new() };
    let atoms = others.iter().flat_map(|step| &step.atoms).filter(|atom| !last.atoms.contains(atom));
    last.argv.iter().skip(1).chain(atoms).cloned().collect()
}

/// Returns the words of a command that decide its result: without the options for the number of jobs, for the output and for failures.
pub fn essential(argv: &[String]) -> Vec<String> {
    let unwanted = |name: &str| {
        let of_jobs = ["--jobs", "--load-average", "--jobs-tmpdir-require-free-gb", KEEP_GOING];
        let of_output = ["--color", "--nospinner", "--verbose"];
        of_jobs.contains(&name) || of_output.contains(&name) || name.starts_with("--quiet") || name.starts_with("-j")
    };
    without(argv, unwanted)
}

/// Returns `words` without the options that forbid ebuilds. Portage takes such an option for set even if its value is `n`.
pub fn with_sources(words: &[String]) -> Vec<String> {
    without(words, |name| matches!(name, "--usepkgonly" | "-K" | "--getbinpkgonly" | "-G"))
}

/// Returns `words` without the options of the names for which `unwanted` returns true, and without their values.
fn without(words: &[String], unwanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        if !unwanted(word.split('=').next().unwrap_or_default()) {
            kept.push(word.clone());
        } else if !word.contains('=') {
            // The value may be a word of its own.
            words.next_if(|value| matches!(value.as_str(), "y" | "n"));
        }
    }
    kept
}

fn options(job: &Job, builder: &BuilderInfo, jobs: u32) -> Vec<String> {
    let mut options = vec![
        "--ask=n".to_owned(),
        "--color=n".to_owned(),
        "--nospinner".to_owned(),
        "--quiet-build=y".to_owned(),
        format!("--jobs={jobs}"),
        "--usepkg=y".to_owned(),
        // --usepkgonly, which a recipe may add, turns this off by default.
        "--binpkg-respect-use=y".to_owned(),
        // Portage adds the C library in ROOT to the dependencies of what it builds there. In an empty ROOT, it would then
        // consider its own binary packages outdated. A changed ebuild still has a new revision; the line above handles USE.
        "--binpkg-changed-deps=n".to_owned(),
        // The packages of earlier builds are a local host.
        "--getbinpkg=y".to_owned(),
        // By default, emerge replaces the recorded dependencies of an installed package by those of its ebuild. It takes those of a
        // binary package as recorded. So a later command of a build would see other dependencies than the one that merged the package.
        "--dynamic-deps=n".to_owned(),
        "--with-bdeps=n".to_owned(),
    ];
    if let Some(load) = job.emerge.load_average {
        options.push(format!("--load-average={load}"));
    }
    if job.emerge.binary_only {
        options.push("--usepkgonly=y".to_owned());
    }
    if job.emerge.keep_going {
        options.push(KEEP_GOING.to_owned());
    }
    if jobs > 1 && builder.portage.is_some_and(|version| version >= WITH_TMPDIR_OPTION) {
        options.push("--jobs-tmpdir-require-free-gb=0".to_owned());
    }
    options
}

fn short(atoms: &[String]) -> String {
    match atoms {
        [one] => one.clone(),
        [one, two] => format!("{one} and {two}"),
        [one, rest @ ..] => format!("{one} and {} more", rest.len()),
        [] => "nothing".to_owned(),
    }
}

/// Quotes a word for a POSIX shell.
fn shell_quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"@%_-+=:,./".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    // An escape would act on the terminal that shows the command.
    let shown: String = word.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    format!("'{}'", shown.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::portage::accelerate::Tools;
    use crate::portage::fixture::{World, job, profile_name};

    const BUILDER: BuilderInfo =
        BuilderInfo { sandbox: true, cpus: 4, portage: Some([3, 0, 83]), date: None, tools: Tools::UNKNOWN };

    fn tail(step: &Step) -> String {
        let at = step.argv.iter().position(|word| word == "--with-bdeps=n").unwrap();
        step.argv[at + 1..].join(" ")
    }

    #[test]
    fn the_commands_of_an_image_are_in_order() {
        let world = World::new();
        let mut job = job(world.usual());
        job.build.include_system = true;
        job.build.unblocker_profile = Some(profile_name("default/linux/amd64/23.0"));
        job.emerge.options = vec!["--keep-going".into()];
        let steps = steps(&job, &Resolved::new(&job).unwrap(), &BUILDER);
        let tails: Vec<String> = steps.iter().map(tail).collect();
        assert_eq!(
            tails,
            [
                "--jobs-tmpdir-require-free-gb=0 --oneshot --newuse --update --keep-going @world",
                "--oneshot --noreplace --keep-going sys-apps/baselayout",
                "--jobs-tmpdir-require-free-gb=0 --noreplace --keep-going @system",
                "--jobs-tmpdir-require-free-gb=0 --noreplace --keep-going @profile",
            ]
        );
        let jobs: Vec<bool> = steps.iter().map(|step| step.argv.contains(&"--jobs=4".to_owned())).collect();
        assert_eq!(jobs, [true, false, true, true]);
        assert!(steps[1].argv.contains(&"--jobs=1".to_owned()));
        assert_eq!(steps[0].root, Root::Builder);
        assert!(steps[0].env.is_empty());
        let link = "../../var/db/repos/gentoo/profiles/default/linux/amd64/23.0";
        assert_eq!(steps[0].profile, Some(MakeProfile::Link(link.into())));
        for step in &steps[1..] {
            assert_eq!(step.env.iter().collect::<Vec<_>>(), [(&"PORTAGE_CONFIGROOT".into(), &"/quern/config".into())]);
            assert_eq!((step.root, &step.profile), (Root::Target, &None));
            assert!(step.argv.contains(&"--getbinpkg=y".to_owned()));
        }
        assert_eq!(steps[3].what, "merging @profile");
        let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(job.own_steps()[1..], names);
    }

    #[test]
    fn a_stage4_is_built_in_place_under_its_own_profile() {
        let world = World::new();
        let mut job = job(world.usual());
        job.build.kind = TreeKind::Stage4;
        job.build.baselayout_atoms.clear();
        job.build.unblocker_profile = Some(profile_name("default/linux/amd64/23.0"));
        job.portage.binhost = vec![crate::recipe::fixture::binhost("https://x.example")];
        job.emerge.packages = vec!["a/b".into(), "=c/d-1*".into(), "e/f".into()];
        job.emerge.jobs = 2;
        let builder = BuilderInfo { portage: None, ..BUILDER };
        let steps = steps(&job, &Resolved::new(&job).unwrap(), &builder);
        assert_eq!(job.own_steps(), ["@configure", "@unblocker", "@packages"]);
        assert_eq!(steps.len(), 2);
        assert_eq!(tail(&steps[1]), "--noreplace --changed-use a/b =c/d-1* e/f");
        assert!(steps[1].argv.contains(&"--getbinpkg=y".to_owned()) && steps[1].argv.contains(&"--jobs=2".to_owned()));
        assert_eq!((steps[1].root, steps[1].env.len()), (Root::Builder, 0));
        let link = "../../var/db/repos/quern/profiles/musl-python3";
        assert_eq!(steps[1].profile, Some(MakeProfile::Link(link.into())));
        assert_eq!(steps[1].what, "merging a/b and 2 more");
    }

    #[test]
    fn the_world_of_a_stage4_is_updated_before_its_packages() {
        let world = World::new();
        let mut job = job(world.usual());
        job.build.kind = TreeKind::Stage4;
        job.build.baselayout_atoms.clear();
        job.build.unblocker_profile = Some(profile_name("default/linux/amd64/23.0"));
        (job.emerge.packages, job.emerge.update_world) = (vec!["a/b".into()], true);
        let steps = steps(&job, &Resolved::new(&job).unwrap(), &BUILDER);
        assert_eq!(job.own_steps(), ["@configure", "@unblocker", "@world", "@packages"]);
        let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(job.own_steps()[1..], names);
        assert!(tail(&steps[1]).ends_with("--update --deep --newuse @world"), "{}", tail(&steps[1]));
        let own = MakeProfile::Link("../../var/db/repos/quern/profiles/musl-python3".into());
        assert_eq!([&steps[1].profile, &steps[2].profile], [&Some(own.clone()), &Some(own)]);
        assert_eq!(steps[1].root, Root::Builder);
    }

    #[test]
    fn a_displayed_command_can_be_pasted_into_a_shell() {
        let step = Step {
            name: String::new(),
            what: String::new(),
            argv: vec!["emerge".into(), ">=a/b-1[x]".into(), "it's".into(), String::new(), "\x1b[0m".into()],
            atoms: Vec::new(),
            env: BTreeMap::from([("A".into(), "b c".into())]),
            root: Root::Target,
            profile: None,
        };
        assert_eq!(step.display(), "A='b c' emerge '>=a/b-1[x]' 'it'\\''s' '' '\u{fffd}[0m'");
    }

    #[test]
    fn a_pretending_command_proposes_changes() {
        let argv = "emerge --usepkg=y --binpkg-respect-use=y --getbinpkg=n --oneshot -K --usepkgonly y --backtrack=50 --autounmask n a/b y/z";
        let argv = argv.split(' ').map(str::to_owned).collect();
        let step = Step {
            name: String::new(),
            what: String::new(),
            argv,
            atoms: Vec::new(),
            env: BTreeMap::new(),
            root: Root::Target,
            profile: None,
        };
        let pretending = step.pretending();
        assert_eq!(pretending[..5], ["emerge", "--oneshot", "--backtrack=50", "a/b", "y/z"]);
        assert_eq!(pretending[5..], PRETENDING);
        let words = step.argv.iter().filter(|word| !["-K", "--usepkgonly", "y"].contains(&word.as_str())).cloned();
        assert_eq!(with_sources(&step.argv), words.collect::<Vec<_>>());
    }

    #[test]
    fn no_key_depends_on_what_follows_a_failure() {
        let world = World::new();
        let mut job = job(world.usual());
        let before = steps(&job, &Resolved::new(&job).unwrap(), &BUILDER).remove(0).argv;
        job.emerge.keep_going = true;
        let after = steps(&job, &Resolved::new(&job).unwrap(), &BUILDER).remove(0).argv;
        assert!(after.contains(&"--keep-going".to_owned()) && !before.contains(&"--keep-going".to_owned()));
        assert_eq!(essential(&after), essential(&before));
        let step = recipe::Step::new("s", recipe::Phase::Packages, Action::Emerge(vec!["a/b".to_owned()]));
        assert!(of_step(&job, &BUILDER, &step)[0].argv.contains(&"--keep-going".to_owned()));
    }

    #[test]
    fn options_that_move_the_trees_are_refused() {
        let world = World::new();
        for option in ["--root=/x", "--config-root", "a\0b"] {
            let mut job = job(world.usual());
            job.emerge.options = vec![option.into()];
            assert!(check(&job).is_err(), "{option:?}");
        }
    }

    proptest! {
        #[test]
        fn a_shell_reads_a_quoted_word_back(word in "[ -~]{0,20}") {
            let quoted = shell_quote(&word);
            let mut out = String::new();
            let mut single = false;
            let mut chars = quoted.chars();
            while let Some(c) = chars.next() {
                match c {
                    '\'' => single = !single,
                    '\\' if !single => out.push(chars.next().unwrap()),
                    c => out.push(c),
                }
            }
            prop_assert!(!single);
            prop_assert_eq!(out, word);
        }
    }
}
