//! The two configurations of a build and the one that a stage4 ships, as text.
//!
//! Portage reads the target's settings from `PORTAGE_CONFIGROOT` and the builder's own from `/etc/portage`. Both are written
//! from the one recipe, as files, never through the environment. The recipe's make.conf variables and package files apply to
//! both: a package that is needed at build time is merged into the builder, and users expect one configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::base::text::plain;
use crate::portage::makeconf::{env_file, flags, line, quote, recipe_variables};
use crate::portage::{
    self, BuilderInfo, ConfigTree, Entry, MakeProfile, PackageDirs, Profile, Repos, Resolved, accelerate, binhost,
};
use crate::recipe::{BaseSpec, Job, Jobserver, ProfileName, TreeKind};

mod existing;

pub use existing::{Existing, Seen};

/// Our file in a directory of configuration files. Portage reads the files in the order of their names, ours last.
const OURS: &str = "zz-quern";
const MAKE_CONF: &str = "etc/portage/make.conf";
pub(super) const MAKE_PROFILE: &str = "etc/portage/make.profile";
const REPOS_CONF: &str = "etc/portage/repos.conf";
/// The user's own lines of `packages`.
const PROFILE_PACKAGES: &str = "etc/portage/profile/packages";
/// The directory of the files that package.env names.
const ENV: &str = "etc/portage/env";
/// The user's own part of the profile.
const USER_PROFILE: &str = "etc/portage/profile";
/// The directory of the user's sets.
const SETS: &str = "etc/portage/sets";
/// The shell script that Portage runs before each phase of each package.
const BASHRC: &str = "etc/portage/profile/profile.bashrc";
/// Our rules for the program `sandbox`, which forbids writing elsewhere.
const SANDBOX: &str = "etc/sandbox.d/90quern";
const BINREPOS_CONF: &str = "etc/portage/binrepos.conf";
/// Our file for the packages of earlier builds.
const SHARED: &str = "quern-shared.conf";
/// The package files that a recipe may set.
pub const PACKAGE_FILES: [&str; 9] = [
    "package.accept_keywords",
    "package.accept_restrict",
    "package.env",
    "package.license",
    "package.mask",
    "package.properties",
    "package.provided",
    "package.unmask",
    "package.use",
];

/// Refuses values that cannot be written to a configuration file.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) for an unknown package file, a line with control characters, and the
/// address of a mirror or host with a blank or a special character.
pub fn check(job: &Job) -> Result<()> {
    for (name, lines) in &job.portage.package_files {
        package_text(name, lines)?;
    }
    let urls = job.source.mirrors.iter().map(|url| ("source.mirrors", url));
    for (key, url) in urls {
        if url.is_empty() || url.contains(|c: char| c.is_whitespace() || c.is_control() || "\"'\\$%`".contains(c)) {
            return Err(Error::usage(format!("{key}: ‘{}’ is not a URL", plain(url, 200))));
        }
    }
    Ok(())
}

/// Writes the target's configuration, for [`portage::CONFIGROOT`] (`kind = "image"`). `existing` has the files from the user's
/// own `portage.config` directory.
///
/// # Errors
/// Those of [`check`].
pub fn target(job: &Job, resolved: &Resolved, info: &BuilderInfo, existing: &Existing) -> Result<ConfigTree> {
    let mut tree = ConfigTree::default();
    let paths = [("ROOT", portage::ROOT), ("PKGDIR", portage::PACKAGES.pkgdir)];
    existing.add(&mut tree, Path::new(MAKE_CONF), &make_conf(job, info, &paths, job.strip.doc)?);
    tree.make_profile(&resolved.profile.make_profile(portage::CONFIGROOT));
    profile_packages(&mut tree, job, existing);
    repositories(&mut tree, &resolved.repos);
    if !asks_hosts(job) {
        tree.remove.insert(BINREPOS_CONF.into());
    }
    binary_hosts(&mut tree, job);
    if asks_hosts(job) && existing.has_file(Path::new(BINREPOS_CONF)) {
        existing.add(&mut tree, Path::new(BINREPOS_CONF), &shared_packages(portage::PACKAGES));
    } else {
        tree.file(Path::new(BINREPOS_CONF).join(SHARED), shared_packages(portage::PACKAGES));
    }
    date(&mut tree, job, info, existing);
    package_files(&mut tree, job, &job.portage.package_files, existing)?;
    sets(&mut tree, job);
    Ok(tree)
}

/// Writes the builder's configuration, for `/`. `existing` has the files of the stage3 or the host, which are kept if Portage
/// can merge both.
///
/// # Errors
/// Those of [`check`]; [`Kind::Usage`](crate::base::error::Kind::Usage) if no repository contains the builder's own profile.
pub fn builder(job: &Job, resolved: &Resolved, info: &BuilderInfo, existing: &Existing) -> Result<ConfigTree> {
    let mut tree = ConfigTree::default();
    let stage4 = job.build.kind == TreeKind::Stage4;
    let packages = if stage4 { portage::PACKAGES } else { portage::BUILDER_PACKAGES };
    let mut text = make_conf(job, info, &[("PKGDIR", packages.pkgdir)], stage4 && job.strip.doc)?;
    let host = matches!(job.source.base, BaseSpec::Host { .. });
    if host {
        // The host's settings apply to the builder, but its keys and helper programs are not available there.
        text.insert_str(0, &line("FEATURES", "${FEATURES} -binpkg-signing -ccache -distcc -distcc-pump"));
    }
    existing.add(&mut tree, Path::new(MAKE_CONF), &text);
    match (&resolved.unblocker, stage4) {
        (Some(profile), _) => tree.make_profile(&profile.make_profile("/")),
        (None, true) => tree.make_profile(&resolved.profile.make_profile("/")),
        (None, false) => own_profile(&mut tree, &resolved.repos, existing, host)?,
    }
    if stage4 {
        profile_packages(&mut tree, job, existing);
    }
    repositories(&mut tree, &resolved.repos);
    // A stage3 configures its distribution's binary package host, which the recipe did not ask for.
    tree.remove.insert(BINREPOS_CONF.into());
    binary_hosts(&mut tree, job);
    tree.file(Path::new(BINREPOS_CONF).join(SHARED), shared_packages(packages));
    date(&mut tree, job, info, existing);
    if info.sandbox && info.tools.jobserver.is_some() {
        tree.file(SANDBOX, line("SANDBOX_WRITE", accelerate::JOBS));
    }
    let files = if stage4 { job.portage.package_files.clone() } else { of_builder(job) };
    package_files(&mut tree, job, &files, existing)?;
    sets(&mut tree, job);
    Ok(tree)
}

/// Writes the configuration that a stage4 ships in place of [`builder`]'s: the stage3's own files and the recipe's variables,
/// package files and profile, without settings of the sandbox. `existing` is the same as for [`builder`].
///
/// # Errors
/// Those of [`check`].
pub fn shipped(job: &Job, resolved: &Resolved, existing: &Existing) -> Result<ConfigTree> {
    let mut tree = ConfigTree::default();
    let mut text = String::new();
    for (name, value) in recipe_variables(job)? {
        let value = if name == "FEATURES" { format!("${{FEATURES}} {value}") } else { value };
        text.push_str(&line(&name, &value));
    }
    text.push_str(&flags(&job.portage.make_conf));
    if text.is_empty() && !existing.has_directory(Path::new(MAKE_CONF)) {
        tree.remove.insert(MAKE_CONF.into());
        existing.restore(&mut tree, Path::new(MAKE_CONF));
        // Portage needs the file, even if it is empty.
        tree.entries.entry(MAKE_CONF.into()).or_insert_with(|| Entry::File(String::new()));
    } else {
        existing.add(&mut tree, Path::new(MAKE_CONF), &text);
    }
    tree.make_profile(&resolved.profile.make_profile("/"));
    for path in [REPOS_CONF, BINREPOS_CONF].map(Path::new) {
        tree.remove.insert(path.into());
        existing.restore(&mut tree, path);
    }
    let own = resolved.repos.shipped_repos_conf().map(|text| ("quern.conf".to_owned(), text));
    let files: Vec<_> = resolved.repos.shipped_kits().into_iter().chain(own).collect();
    let path = Path::new(REPOS_CONF);
    if existing.has_file(path) && !files.is_empty() {
        existing.add(&mut tree, path, &files.into_iter().map(|(_, text)| text).collect::<String>());
    } else {
        files.into_iter().for_each(|(name, text)| tree.file(path.join(name), text));
    }
    let user_profile = existing.has_directory(Path::new(USER_PROFILE));
    tree.remove.insert(if user_profile { BASHRC } else { USER_PROFILE }.into());
    existing.restore(&mut tree, Path::new(BASHRC));
    profile_packages(&mut tree, job, existing);
    if job.accelerate.jobserver != Jobserver::Off {
        tree.remove.insert(SANDBOX.into());
    }
    package_files(&mut tree, job, &job.portage.package_files, existing)?;
    Ok(tree)
}

/// Sets SOURCE_DATE_EPOCH for all phases of all packages. A variable of make.conf would not do: Portage runs a binary package in the
/// environment that it was built in.
fn date(tree: &mut ConfigTree, job: &Job, info: &BuilderInfo, existing: &Existing) {
    let name = "SOURCE_DATE_EPOCH";
    if let Some(date) = info.date.filter(|_| !job.portage.make_conf.contains_key(name)) {
        existing.add(tree, Path::new(BASHRC), &format!("export {name}={}\n", date.epoch()));
    }
}

/// Writes our part of a make.conf: the sandbox's paths, defaults, FEATURES, and the recipe's variables last.
fn make_conf(job: &Job, info: &BuilderInfo, paths: &[(&str, &str)], nodoc: bool) -> Result<String> {
    let mut text = String::from("# Written by quern-builder from the recipe.\n");
    let common = [
        ("DISTDIR", portage::DISTDIR),
        ("PORTAGE_TMPDIR", portage::TMPDIR),
        ("PORTAGE_LOGDIR", portage::LOGDIR),
        ("EMERGE_LOG_DIR", portage::LOGDIR),
    ];
    for (name, value) in paths.iter().chain(&common) {
        text.push_str(&line(name, value));
    }
    let recipe = recipe_variables(job)?;
    let mirrors = job.source.distfiles().join(" ");
    let helpers = accelerate::variables(job, info);
    let defaults = [
        ("GENTOO_MIRRORS", mirrors.as_str()),
        ("EMERGE_DEFAULT_OPTS", ""),
        // The failure report looks for English words in logs. Stage3s set the same value.
        ("LC_MESSAGES", "C.utf8"),
    ];
    for (name, value) in helpers.iter().map(|(name, value)| (*name, value.as_str())).chain(defaults) {
        let absent = name == "GENTOO_MIRRORS" && value.is_empty();
        if !absent && !job.portage.make_conf.contains_key(name) {
            let (value, _) = quote(value).map_err(|why| Error::usage(format!("{name} {why}")))?;
            text.push_str(&line(name, &value));
        }
    }
    text.push_str(&line(
        "FEATURES",
        &format!("${{FEATURES}} {}", [features(job, info, nodoc), accelerate::features(job, info)].concat().join(" ")),
    ));
    for (name, value) in recipe {
        // FEATURES accumulates between files, but within a file a later value would replace ours.
        let value = if name == "FEATURES" { format!("${{FEATURES}} {value}") } else { value };
        text.push_str(&line(&name, &value));
    }
    text.push_str(&flags(&job.portage.make_conf));
    text.push_str(&binhost::make_conf(job));
    Ok(text)
}

fn features(job: &Job, info: &BuilderInfo, nodoc: bool) -> Vec<&'static str> {
    let mut features = vec![
        if job.emerge.binary_only { "-buildpkg" } else { "buildpkg" },
        "binpkg-multi-instance",
        "parallel-fetch",
        // Of two packages that are merged at the same time, neither sees the files of the other: whether a collision is found would
        // be a matter of chance.
        "-parallel-install",
        "network-sandbox",
        "ipc-sandbox",
        // pid-sandbox mounts a /proc, which a build as root must not do (see `enter`). Builds by root and by ordinary users must
        // be equal, including the features that a package records.
        "-pid-sandbox",
        "observability",
        // Syncing after every package is not needed: after a crash, the tree is built again.
        "-merge-sync",
        "-news",
        // The failure report reads the logs.
        "-compress-build-logs",
        "-clean-logs",
    ];
    if nodoc {
        features.extend(["nodoc", "noman", "noinfo"]);
    }
    if !info.sandbox {
        features.extend(["-sandbox", "-usersandbox"]);
    }
    features
}

/// Changes the builder's profile.
pub fn make_profile(profile: &MakeProfile) -> ConfigTree {
    let mut tree = ConfigTree::default();
    tree.make_profile(profile);
    tree
}

/// Writes the recipe's lines of `packages`. Only in the user's own part of a profile do they add to `@profile`, whatever the formats of
/// repositories are.
fn profile_packages(tree: &mut ConfigTree, job: &Job, existing: &Existing) {
    let lines = &job.build.profile_packages;
    if !lines.is_empty() {
        existing.add(tree, Path::new(PROFILE_PACKAGES), &(lines.join("\n") + "\n"));
    }
}

fn repositories(tree: &mut ConfigTree, repos: &Repos) {
    tree.remove.insert(REPOS_CONF.into());
    tree.file(Path::new(REPOS_CONF).join("quern.conf"), repos.repos_conf());
}

/// Returns true if the recipe asks for packages of other hosts.
fn asks_hosts(job: &Job) -> bool {
    let option = |option: &String| option == "-g" || option.starts_with("--getbinpkg");
    !job.portage.binhost.is_empty() || job.emerge.options.iter().any(option)
}

/// Returns the section for the packages of earlier builds: a local host that is asked first and from which nothing is copied.
fn shared_packages(packages: PackageDirs) -> String {
    let (index, shared) = (packages.index, portage::SHARED);
    format!(
        "[quern-shared]\npriority = 9999\nsync-uri = file://{index}\nlocation = {shared}\nverify-signature = false\n"
    )
}

fn binary_hosts(tree: &mut ConfigTree, job: &Job) {
    if !job.portage.binhost.is_empty() {
        tree.file(Path::new(BINREPOS_CONF).join("quern.conf"), binhost::binrepos_conf(job));
    }
}

/// Returns the package files of an image's builder: the files of `portage.config`, which lie in the image's configuration alone, and
/// the recipe's lines.
fn of_builder(job: &Job) -> BTreeMap<String, Vec<String>> {
    let mut files = job.portage.config_files.clone();
    for (name, lines) in &job.portage.package_files {
        files.entry(name.clone()).or_default().extend(lines.iter().cloned());
    }
    files
}

fn package_files(
    tree: &mut ConfigTree,
    job: &Job,
    files: &BTreeMap<String, Vec<String>>,
    existing: &Existing,
) -> Result<()> {
    for (name, lines) in files {
        let text = package_text(name, lines)?;
        let path = package_path(name);
        // Use a directory unless a file exists, so that the user's own directory can be laid over it.
        if existing.has_file(&path) || name == "package.provided" {
            existing.add(tree, &path, &text);
        } else {
            tree.file(path.join(OURS), text);
        }
    }
    for name in job.portage.env.keys() {
        tree.file(Path::new(ENV).join(name), env_file(job, name)?);
    }
    Ok(())
}

/// Returns the changes that take the package files of an earlier recipe away, where `job` has none. `existing` are the files from
/// before.
pub fn without_package_files(job: &Job, existing: &Existing) -> ConfigTree {
    let mut tree = ConfigTree::default();
    for name in PACKAGE_FILES.iter().filter(|name| !job.portage.package_files.contains_key(**name)) {
        let path = package_path(name);
        if existing.has_file(&path) {
            existing.restore(&mut tree, &path);
        } else if *name == "package.provided" {
            tree.remove.insert(path);
        } else {
            tree.remove.insert(path.join(OURS));
        }
    }
    tree
}

/// Returns the path of a package file. `package.provided` belongs to the profile, where it must be a file.
/// Writes the sets of the recipe, which `@name` in lists of packages stands for.
fn sets(tree: &mut ConfigTree, job: &Job) {
    for (name, packages) in &job.portage.sets {
        tree.file(Path::new(SETS).join(name), packages.join("\n") + "\n");
    }
}

fn package_path(name: &str) -> PathBuf {
    let directory = if name == "package.provided" { USER_PROFILE } else { "etc/portage" };
    Path::new(directory).join(name)
}

fn package_text(name: &str, lines: &[String]) -> Result<String> {
    if !PACKAGE_FILES.contains(&name) {
        return Err(Error::usage(format!("portage.{} is not a package file", plain(name, 40)))
            .with_hint(format!("known package files: {}", PACKAGE_FILES.join(", "))));
    }
    let mut text = String::new();
    for line in lines.iter().flat_map(|line| line.lines()) {
        if line.contains(|c: char| c.is_control() && c != '\t') {
            return Err(Error::usage(format!("portage.{name} contains a control character in ‘{}’", plain(line, 100))));
        }
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}

/// Points the builder's own profile link to the repositories in the sandbox.
fn own_profile(tree: &mut ConfigTree, repos: &Repos, existing: &Existing, host: bool) -> Result<()> {
    let path = Path::new(MAKE_PROFILE);
    if existing.has_directory(path) {
        return Ok(());
    }
    let what = if host { "host" } else { "stage3" };
    let mut hint = format!("set build.unblocker-profile to a profile for this {what}");
    if host && existing.is_empty() {
        hint += "; or, if ordinary users cannot read /etc/portage on this host, set source.show = [\"/etc/portage\"]";
    }
    let Some(target) = existing.link(path) else {
        return Err(
            Error::usage(format!("the {what} has no profile: /etc/portage/make.profile is missing")).with_hint(hint)
        );
    };
    let text = target.to_string_lossy();
    let found = text.split_once("/profiles/").and_then(|(before, path)| {
        let named = before.rsplit('/').next().and_then(|name| repos.get(name));
        // The main repository may have another name in the link, or be in /usr/portage.
        let mut candidates = named.into_iter().chain([repos.main()]);
        candidates.find_map(|repo| {
            let name = ProfileName { repo: Some(repo.name().to_owned()), path: path.to_owned() };
            Profile::resolve(&name, repos).ok()
        })
    });
    let profile = found.ok_or_else(|| {
        let shown = plain(&text, 200);
        Error::usage(format!("no repository of portage.repositories contains the {what}'s own profile {shown}"))
            .with_hint(hint)
    })?;
    tree.make_profile(&profile.make_profile("/"));
    Ok(())
}

#[cfg(test)]
mod tests;
