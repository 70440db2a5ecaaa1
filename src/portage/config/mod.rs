//! The two configurations of a build and the one that a stage4 ships, as text.
//!
//! Portage takes the target's settings from `PORTAGE_CONFIGROOT` and the builder's own from `/etc/portage`; both are written
//! from the one recipe, as files, never through the environment. The recipe's make.conf variables and package files apply to
//! both: what a package needs at build time lands in the builder, and a user has one configuration in mind.

use crate::base::text::plain;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::portage::makeconf::{line, quote, recipe_variables};
use crate::portage::profile::link_target;
use crate::portage::{self, BuilderInfo, ConfigTree, Entry, Profile, Repos, Resolved};
use crate::recipe::{BaseSpec, Job, TreeKind};

/// Files of a directory-style configuration are read in the order of their names: ours comes last.
const OURS: &str = "zz-quern";
const MAKE_CONF: &str = "etc/portage/make.conf";
const MAKE_PROFILE: &str = "etc/portage/make.profile";
const REPOS_CONF: &str = "etc/portage/repos.conf";
const BINREPOS_CONF: &str = "etc/portage/binrepos.conf";
/// Most of one existing file that is kept.
const MAX_FILE: usize = 1 << 20;
/// Most files of one existing directory that are kept.
const MAX_FILES: usize = 1_000;

/// Names of package files that a recipe may set.
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

/// What stands at a path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A regular file, with what is in it.
    File(Vec<u8>),
    /// A directory, with the names in it.
    Directory(Vec<String>),
    /// A symbolic link, with its target.
    Symlink(PathBuf),
}

/// The part of an `/etc/portage` that the generated files have to get along with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Existing {
    files: BTreeMap<PathBuf, String>,
    links: BTreeMap<PathBuf, PathBuf>,
    directories: BTreeSet<PathBuf>,
}

impl Existing {
    /// Asks `look` for what is needed. It is given paths relative to the tree's root and must not follow a link in the last
    /// component; none means that nothing is there.
    ///
    /// # Errors
    /// Those of `look`, and a file that is not text or too long.
    pub fn gather(mut look: impl FnMut(&Path) -> Result<Option<Seen>>) -> Result<Self> {
        let mut existing = Self::default();
        let paths = [MAKE_CONF, MAKE_PROFILE, REPOS_CONF, BINREPOS_CONF].map(PathBuf::from);
        let packages = PACKAGE_FILES.iter().map(|name| package_path(name));
        for path in paths.into_iter().chain(packages) {
            let Some(seen) = look(&path)? else { continue };
            let Seen::Directory(names) = &seen else {
                existing.take(path, seen)?;
                continue;
            };
            existing.directories.insert(path.clone());
            let kept = path == Path::new(REPOS_CONF) || path == Path::new(BINREPOS_CONF);
            for name in names.iter().filter(|_| kept).take(MAX_FILES) {
                let path = path.join(name);
                if let Some(seen) = look(&path)? {
                    existing.take(path, seen)?;
                }
            }
        }
        Ok(existing)
    }

    fn take(&mut self, path: PathBuf, seen: Seen) -> Result<()> {
        match seen {
            Seen::File(bytes) => {
                let text = String::from_utf8(bytes)
                    .ok()
                    .filter(|text| text.len() <= MAX_FILE)
                    .ok_or_else(|| Error::build(format!("the tree's /{} is not text, or too long", path.display())))?;
                self.files.insert(path, text);
            }
            Seen::Symlink(target) => {
                self.links.insert(path, target);
            }
            Seen::Directory(_) => {
                self.directories.insert(path);
            }
        }
        Ok(())
    }

    /// Adds `text` to the file or directory at `path` of `tree`, keeping what is there.
    fn add(&self, tree: &mut ConfigTree, path: &Path, text: &str) {
        if self.directories.contains(path) {
            tree.file(path.join(OURS), text);
        } else if let Some(present) = self.files.get(path) {
            let separator = if present.is_empty() || present.ends_with('\n') { "" } else { "\n" };
            tree.file(path, format!("{present}{separator}\n{text}"));
        } else {
            tree.file(path, text);
        }
    }

    /// Writes back what is below `path`.
    fn restore(&self, tree: &mut ConfigTree, path: &Path) {
        let below = |found: &&PathBuf| found.starts_with(path);
        for found in self.files.keys().filter(below) {
            tree.file(found, self.files[found].clone());
        }
        for found in self.links.keys().filter(below) {
            tree.symlink(found, self.links[found].clone());
        }
    }
}

/// Refuses what cannot be written.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) for an unknown package file, a line with control characters, a mirror or host
/// with a blank in it.
pub fn check(job: &Job) -> Result<()> {
    for (name, lines) in &job.portage.package_files {
        package_text(name, lines)?;
    }
    let urls = job.source.mirrors.iter().map(|url| ("source.mirrors", url));
    let urls = urls.chain(job.portage.binhost.iter().map(|url| ("portage.binhost", url)));
    for (key, url) in urls {
        if url.is_empty() || url.contains(|c: char| c.is_whitespace() || c.is_control() || "\"'\\$%`".contains(c)) {
            return Err(Error::usage(format!("{key} has ‘{}’, which is no URL", plain(url, 200))));
        }
    }
    Ok(())
}

/// The target's configuration, for [`portage::CONFIGROOT`] (`kind = "image"`). `existing` is what the user's own
/// `portage.config` directory left there.
///
/// # Errors
/// As [`check`].
pub fn target(job: &Job, resolved: &Resolved, info: &BuilderInfo, existing: &Existing) -> Result<ConfigTree> {
    let mut tree = ConfigTree::default();
    let paths = [("ROOT", portage::ROOT), ("PKGDIR", portage::PKGDIR)];
    existing.add(&mut tree, Path::new(MAKE_CONF), &make_conf(job, info, &paths, job.strip.doc)?);
    tree.symlink(MAKE_PROFILE, resolved.profile.link_target(portage::CONFIGROOT));
    repositories(&mut tree, &resolved.repos);
    if !job.portage.binhost.is_empty() {
        binary_hosts(&mut tree, &job.portage.binhost);
    }
    package_files(&mut tree, job, existing)?;
    Ok(tree)
}

/// The builder's configuration, for `/`. `existing` is the stage3's or the host's own, which is kept where Portage can merge the two.
///
/// # Errors
/// As [`check`]; [`Kind::Usage`](crate::base::error::Kind::Usage) when no repository has its profile.
pub fn builder(job: &Job, resolved: &Resolved, info: &BuilderInfo, existing: &Existing) -> Result<ConfigTree> {
    let mut tree = ConfigTree::default();
    let stage4 = job.build.kind == TreeKind::Stage4;
    let packages = if stage4 { portage::PKGDIR } else { portage::BUILDER_PKGDIR };
    let mut text = make_conf(job, info, &[("PKGDIR", packages)], stage4 && job.strip.doc)?;
    let host = matches!(job.source.base, BaseSpec::Host { .. });
    if host {
        // Its settings hold for the builder, but neither its keys nor its helpers are there.
        text.insert_str(0, &line("FEATURES", "${FEATURES} -binpkg-signing -ccache -distcc -distcc-pump"));
    }
    existing.add(&mut tree, Path::new(MAKE_CONF), &text);
    match (&resolved.unblocker, stage4) {
        (Some(profile), _) => tree.symlink(MAKE_PROFILE, profile.link_target("/")),
        (None, true) => tree.symlink(MAKE_PROFILE, resolved.profile.link_target("/")),
        (None, false) => own_profile(&mut tree, &resolved.repos, existing, host)?,
    }
    repositories(&mut tree, &resolved.repos);
    // A stage3 brings its distribution's host, which is not the recipe's.
    tree.remove.insert(BINREPOS_CONF.into());
    if !job.portage.binhost.is_empty() {
        binary_hosts(&mut tree, &job.portage.binhost);
    }
    package_files(&mut tree, job, existing)?;
    Ok(tree)
}

/// What a stage4 ships in place of [`builder`]'s: nothing of the sandbox, the stage3's own files, the recipe's variables,
/// package files and profile. `existing` is what [`builder`] was given.
///
/// # Errors
/// As [`check`].
pub fn shipped(job: &Job, resolved: &Resolved, existing: &Existing) -> Result<ConfigTree> {
    let mut tree = ConfigTree::default();
    let mut text = String::new();
    for (name, value) in recipe_variables(job)? {
        let value = if name == "FEATURES" { format!("${{FEATURES}} {value}") } else { value };
        text.push_str(&line(&name, &value));
    }
    text.push_str(&flags(job));
    if text.is_empty() && !existing.directories.contains(Path::new(MAKE_CONF)) {
        tree.remove.insert(MAKE_CONF.into());
        existing.restore(&mut tree, Path::new(MAKE_CONF));
        // Portage wants one, even an empty one.
        tree.entries.entry(MAKE_CONF.into()).or_insert_with(|| Entry::File(String::new()));
    } else {
        existing.add(&mut tree, Path::new(MAKE_CONF), &text);
    }
    tree.symlink(MAKE_PROFILE, resolved.profile.link_target("/"));
    for path in [REPOS_CONF, BINREPOS_CONF].map(Path::new) {
        tree.remove.insert(path.into());
        existing.restore(&mut tree, path);
    }
    if let Some(text) = resolved.repos.shipped_repos_conf() {
        let path = Path::new(REPOS_CONF);
        match existing.files.contains_key(path) {
            true => existing.add(&mut tree, path, &text),
            false => tree.file(path.join("quern.conf"), text),
        }
    }
    package_files(&mut tree, job, existing)?;
    Ok(tree)
}

/// Our part of a make.conf: the sandbox's paths, defaults, the recipe's variables, and FEATURES with the recipe's last.
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
    let jobs = format!("-j{}", info.cpus.max(1));
    let mirrors = job.source.distfiles().join(" ");
    let defaults = [
        ("MAKEOPTS", jobs.as_str()),
        ("GENTOO_MIRRORS", &mirrors),
        ("EMERGE_DEFAULT_OPTS", ""),
        // As stage3s have it: reports look for English words in logs.
        ("LC_MESSAGES", "C.utf8"),
    ];
    for (name, value) in defaults {
        let absent = name == "GENTOO_MIRRORS" && value.is_empty();
        if !absent && !job.portage.make_conf.contains_key(name) {
            let (value, _) = quote(value).map_err(|why| Error::usage(format!("{name} {why}")))?;
            text.push_str(&line(name, &value));
        }
    }
    text.push_str(&line("FEATURES", &format!("${{FEATURES}} {}", features(info, nodoc).join(" "))));
    for (name, value) in recipe {
        // Incremental for Portage only between files: within one, a later FEATURES would replace ours.
        let value = if name == "FEATURES" { format!("${{FEATURES}} {value}") } else { value };
        text.push_str(&line(&name, &value));
    }
    text.push_str(&flags(job));
    Ok(text)
}

/// COMMON_FLAGS means nothing to Portage itself: a stage3's make.conf gives it its meaning, and so must we.
fn flags(job: &Job) -> String {
    let given = |name: &&str| job.portage.make_conf.contains_key(*name);
    let names = ["CFLAGS", "CXXFLAGS", "FCFLAGS", "FFLAGS"];
    let missing = names.iter().filter(|name| given(&"COMMON_FLAGS") && !given(name));
    missing.map(|name| line(name, "${COMMON_FLAGS}")).collect()
}

fn features(info: &BuilderInfo, nodoc: bool) -> Vec<&'static str> {
    let mut features = vec![
        "buildpkg",
        "binpkg-multi-instance",
        "parallel-fetch",
        "parallel-install",
        "network-sandbox",
        "ipc-sandbox",
        // It mounts a /proc, which a build as root must not (see `enter`); and what was built as root and what was not are to
        // be the same, down to the features that a package records.
        "-pid-sandbox",
        "observability",
        // The tree is thrown away when the machine stops: syncing it to disk after every package is lost time.
        "-merge-sync",
        "-news",
        // Failure reports read the logs.
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

fn repositories(tree: &mut ConfigTree, repos: &Repos) {
    tree.remove.insert(REPOS_CONF.into());
    tree.file(Path::new(REPOS_CONF).join("quern.conf"), repos.repos_conf());
}

fn binary_hosts(tree: &mut ConfigTree, hosts: &[String]) {
    let mut text = String::new();
    for (index, host) in hosts.iter().enumerate() {
        // Portage asks the host of the highest priority first.
        let (number, priority) = (index + 1, hosts.len() - index);
        text.push_str(&format!(
            "[quern-{number}]\npriority = {priority}\nsync-uri = {host}\nlocation = {}/quern-{number}\n\n",
            portage::BINHOST
        ));
    }
    tree.file(Path::new(BINREPOS_CONF).join("quern.conf"), text);
}

fn package_files(tree: &mut ConfigTree, job: &Job, existing: &Existing) -> Result<()> {
    for (name, lines) in &job.portage.package_files {
        let text = package_text(name, lines)?;
        let path = package_path(name);
        // A directory where nothing is, so that the user's own directory can be laid over it.
        if existing.files.contains_key(&path) || name == "package.provided" {
            existing.add(tree, &path, &text);
        } else {
            tree.file(path.join(OURS), text);
        }
    }
    Ok(())
}

/// `package.provided` is the one that belongs to the profile, and is a plain file there.
fn package_path(name: &str) -> PathBuf {
    let directory = if name == "package.provided" { "etc/portage/profile" } else { "etc/portage" };
    Path::new(directory).join(name)
}

fn package_text(name: &str, lines: &[String]) -> Result<String> {
    if !PACKAGE_FILES.contains(&name) {
        return Err(Error::usage(format!("portage.{} is no package file", plain(name, 40)))
            .with_hint(format!("known are: {}", PACKAGE_FILES.join(", "))));
    }
    let mut text = String::new();
    for line in lines.iter().flat_map(|line| line.lines()) {
        if line.contains(|c: char| c.is_control() && c != '\t') {
            return Err(Error::usage(format!("portage.{name} has a control character in ‘{}’", plain(line, 100))));
        }
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}

/// Points the builder's own profile link at where the sandbox has the repositories.
fn own_profile(tree: &mut ConfigTree, repos: &Repos, existing: &Existing, host: bool) -> Result<()> {
    let path = Path::new(MAKE_PROFILE);
    if existing.directories.contains(path) {
        return Ok(());
    }
    let what = if host { "host" } else { "stage3" };
    let mut hint = format!("set build.unblocker-profile to a profile that suits this {what}");
    if host && existing.links.is_empty() && existing.files.is_empty() {
        hint += "; or, if only some may read this host's settings, source.show = [\"/etc/portage\"]";
    }
    let Some(target) = existing.links.get(path) else {
        return Err(
            Error::usage(format!("the {what} has no profile: /etc/portage/make.profile is missing")).with_hint(hint)
        );
    };
    let text = target.to_string_lossy();
    let found = text.split_once("/profiles/").and_then(|(before, path)| {
        let named = before.rsplit('/').next().and_then(|name| repos.get(name));
        let name = crate::recipe::ProfileName { repo: None, path: path.to_owned() };
        // Where the main repository goes by another name, or once lived in /usr/portage.
        let mut candidates = named.into_iter().chain([repos.main()]);
        candidates.find_map(|repo| {
            let name = crate::recipe::ProfileName { repo: Some(repo.name().to_owned()), ..name.clone() };
            Profile::resolve(&name, repos).ok()
        })
    });
    match found {
        Some(profile) => tree.symlink(path, link_target("/", profile.repo(), profile.path())),
        None => {
            return Err(Error::usage(format!(
                "the {what}'s own profile {} is in none of portage.repositories",
                plain(&text, 200)
            ))
            .with_hint(hint));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
