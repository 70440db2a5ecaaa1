//! The rules for what a build sees of the host: the table's and the recipe's. The rule with the longest path decides. Pure.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use super::table;

/// A visibility rule. It applies to its path and to everything below, unless a more specific rule matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Absolute.
    pub(super) path: PathBuf,
    /// True if the build sees the path.
    pub(super) seen: bool,
    /// The reason, for the user.
    pub(super) why: Cow<'static, str>,
}

impl Rule {
    pub(super) fn new(path: impl Into<PathBuf>, seen: bool, why: impl Into<Cow<'static, str>>) -> Self {
        Self { path: path.into(), seen, why: why.into() }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", if self.seen { "show" } else { "hide" }, self.path.display(), self.why)
    }
}

/// The part of a file or directory that a build sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visibility {
    /// Nothing.
    Hidden,
    /// The files that ordinary users of the host may read.
    Guarded,
    /// Everything.
    Whole,
}

/// All rules. Of two rules for one path, the recipe's wins over the table's, and the later one over the earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    table: Vec<Rule>,
    recipe: Vec<Rule>,
}

impl Rules {
    /// The table's rules and a recipe's.
    pub(super) fn new(hide: &[PathBuf], show: &[PathBuf]) -> Self {
        let hide = hide.iter().map(|path| Rule::new(path, false, "the recipe's source.hide"));
        let show = show.iter().map(|path| Rule::new(path, true, "the recipe's source.show"));
        Self { table: table::seen().chain(table::hidden()).collect(), recipe: hide.chain(show).collect() }
    }

    /// Extends each rule to the target of its path, with symlinks resolved by `resolve`.
    pub(super) fn resolve(&mut self, resolve: impl Fn(&Path) -> Option<PathBuf>) {
        let resolved =
            |rule: &Rule| Some(Rule { path: resolve(&rule.path).filter(|path| *path != rule.path)?, ..rule.clone() });
        // The target of a directory that the table shows stays hidden at its own path.
        let table: Vec<Rule> = self.table.iter().filter(|rule| !rule.seen).filter_map(resolved).collect();
        let recipe: Vec<Rule> = self.recipe.iter().filter_map(resolved).collect();
        self.table.extend(table);
        self.recipe.extend(recipe);
    }

    /// Hides one more path, unless the recipe shows it.
    pub(super) fn hide(&mut self, path: &Path, why: impl Into<Cow<'static, str>>) {
        self.table.push(Rule::new(path, false, why));
    }

    /// Returns the visibility by the rules for exactly this path, if there are any.
    pub(super) fn exactly(&self, path: &Path) -> Option<Visibility> {
        let last = |rules: &[Rule], seen| {
            let rule = rules.iter().rev().find(|rule| rule.path == path)?;
            Some(if rule.seen { seen } else { Visibility::Hidden })
        };
        last(&self.recipe, Visibility::Whole).or_else(|| last(&self.table, Visibility::Guarded))
    }

    /// Returns the visibility of `path` by the rules.
    pub(super) fn visibility(&self, path: &Path) -> Visibility {
        path.ancestors().find_map(|path| self.exactly(path)).unwrap_or(Visibility::Hidden)
    }

    /// Returns whether there is a rule for a path below this one.
    pub(super) fn reach_below(&self, path: &Path) -> bool {
        self.iter().any(|rule| rule.path != path && rule.path.starts_with(path))
    }

    /// Returns whether a rule shows a path below this one.
    pub(super) fn show_below(&self, path: &Path) -> bool {
        self.seen().any(|rule| rule.path != path && rule.path.starts_with(path))
    }

    /// Returns the shown paths that do not lie in another shown path, sorted.
    pub(super) fn roots(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = self.seen().map(|rule| rule.path.clone()).collect();
        all.sort();
        all.dedup();
        let outermost = |path: &&PathBuf| !all.iter().any(|other| other != *path && path.starts_with(other));
        all.iter().filter(outermost).cloned().collect()
    }

    fn seen(&self) -> impl Iterator<Item = &Rule> {
        self.iter().filter(|rule| rule.seen && self.exactly(&rule.path) != Some(Visibility::Hidden))
    }

    /// All rules.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.table.iter().chain(&self.recipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(hide: &[&str], show: &[&str]) -> Rules {
        let paths = |paths: &[&str]| -> Vec<PathBuf> { paths.iter().map(PathBuf::from).collect() };
        Rules::new(&paths(hide), &paths(show))
    }

    #[test]
    fn the_longest_path_decides_and_the_recipe_wins_over_the_table() {
        let rules =
            rules(&["/etc/foo", "/usr/local/lib", "/opt"], &["/usr/local", "/etc/foo/bar", "/srv/x", "/etc/ssh"]);
        let visibility = |path: &str| rules.visibility(Path::new(path));
        assert_eq!(visibility("/usr/bin/ls"), Visibility::Guarded);
        assert_eq!(visibility("/usr/local/bin"), Visibility::Whole);
        assert_eq!(visibility("/usr/local/lib/x"), Visibility::Hidden);
        assert_eq!(visibility("/etc/foo/x"), Visibility::Hidden);
        assert_eq!(visibility("/etc/foo/bar/x"), Visibility::Whole);
        assert_eq!(visibility("/etc/foobar"), Visibility::Guarded);
        assert_eq!(visibility("/etc/ssh/key"), Visibility::Whole);
        assert_eq!(visibility("/opt/x"), Visibility::Hidden);
        for nothing in ["/", "/home/me", "/srv", "/srv/y", "/var/cache/quern", "/new"] {
            assert_eq!(visibility(nothing), Visibility::Hidden, "{nothing}");
        }
        let roots = rules.roots();
        assert!(
            roots.contains(&"/srv/x".into()) && roots.contains(&"/etc".into()) && roots.contains(&"/var/db/pkg".into())
        );
        assert!(!roots.iter().any(|root| root.starts_with("/usr/local") || root.starts_with("/opt")), "{roots:?}");
        assert!(rules.show_below(Path::new("/etc/foo")) && !rules.show_below(Path::new("/etc/wireguard")));
        assert!(rules.reach_below(Path::new("/usr")) && !rules.reach_below(Path::new("/usr/bin")));
    }

    #[test]
    fn rules_follow_symlinks() {
        let mut rules = rules(&["/etc/a/key"], &["/lib/firmware"]);
        rules.resolve(|path| {
            let path = path.to_str()?;
            Some(path.replace("/etc/a", "/opt/a").replace("/lib/", "/usr/lib/").replace("/etc/ssl", "/usr/ssl").into())
        });
        assert_eq!(rules.visibility(Path::new("/opt/a/key")), Visibility::Hidden);
        assert_eq!(rules.visibility(Path::new("/usr/ssl/private")), Visibility::Hidden);
        assert_eq!(rules.visibility(Path::new("/usr/ssl/certs")), Visibility::Guarded);
        assert_eq!(rules.visibility(Path::new("/usr/lib/firmware/x")), Visibility::Whole);
        rules.hide(Path::new("/usr/share"), "why");
        rules.hide(Path::new("/usr/lib/firmware"), "why");
        assert_eq!(rules.visibility(Path::new("/usr/share/x")), Visibility::Hidden);
        assert_eq!(rules.visibility(Path::new("/usr/lib/firmware/x")), Visibility::Whole, "the recipe wins");
    }
}
