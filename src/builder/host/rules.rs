//! Which paths of the host are seen: the table's rules and the recipe's, of which the longest path decides. Pure.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use super::table;

/// What is said of a path and of all below it that nothing else is said of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Absolute.
    pub(super) path: PathBuf,
    /// Whether it is seen.
    pub(super) seen: bool,
    /// Why.
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

/// How much of something is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// Nothing.
    Hidden,
    /// What ordinary users of the host may see.
    Guarded,
    /// All.
    Whole,
}

/// All rules. Of the same path, what the recipe says wins over the table, and what is said later over what is said earlier.
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

    /// Says of what a path leads to what is said of the path: `resolve` follows the links in it.
    pub(super) fn resolve(&mut self, resolve: impl Fn(&Path) -> Option<PathBuf>) {
        let resolved =
            |rule: &Rule| Some(Rule { path: resolve(&rule.path).filter(|path| *path != rule.path)?, ..rule.clone() });
        // What a directory of the table leads to is seen there, and nowhere else.
        let table: Vec<Rule> = self.table.iter().filter(|rule| !rule.seen).filter_map(resolved).collect();
        let recipe: Vec<Rule> = self.recipe.iter().filter_map(resolved).collect();
        self.table.extend(table);
        self.recipe.extend(recipe);
    }

    /// Hides one more path, unless the recipe says otherwise.
    pub(super) fn hide(&mut self, path: &Path, why: impl Into<Cow<'static, str>>) {
        self.table.push(Rule::new(path, false, why));
    }

    /// What is said of exactly this path.
    pub(super) fn exactly(&self, path: &Path) -> Option<Sight> {
        let last = |rules: &[Rule], seen| {
            let rule = rules.iter().rev().find(|rule| rule.path == path)?;
            Some(if rule.seen { seen } else { Sight::Hidden })
        };
        last(&self.recipe, Sight::Whole).or_else(|| last(&self.table, Sight::Guarded))
    }

    /// How much of `path` is seen, as far as rules say.
    pub(super) fn sight(&self, path: &Path) -> Sight {
        path.ancestors().find_map(|path| self.exactly(path)).unwrap_or(Sight::Hidden)
    }

    /// Whether something is said of a path below this one.
    pub(super) fn reach_below(&self, path: &Path) -> bool {
        self.iter().any(|rule| rule.path != path && rule.path.starts_with(path))
    }

    /// Whether a path below this one is seen.
    pub(super) fn show_below(&self, path: &Path) -> bool {
        self.seen().any(|rule| rule.path != path && rule.path.starts_with(path))
    }

    /// Paths that are seen and lie in nothing else that is, sorted.
    pub(super) fn roots(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = self.seen().map(|rule| rule.path.clone()).collect();
        all.sort();
        all.dedup();
        let outermost = |path: &&PathBuf| !all.iter().any(|other| other != *path && path.starts_with(other));
        all.iter().filter(outermost).cloned().collect()
    }

    /// Paths that the recipe wants to be seen.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &Path> {
        self.recipe.iter().filter(|rule| rule.seen).map(|rule| rule.path.as_path())
    }

    fn seen(&self) -> impl Iterator<Item = &Rule> {
        self.iter().filter(|rule| rule.seen && self.exactly(&rule.path) != Some(Sight::Hidden))
    }

    /// All of them.
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
    fn the_longest_path_decides_and_the_recipe_over_the_table() {
        let rules =
            rules(&["/etc/foo", "/usr/local/lib", "/opt"], &["/usr/local", "/etc/foo/bar", "/srv/x", "/etc/ssh"]);
        let sight = |path: &str| rules.sight(Path::new(path));
        assert_eq!(sight("/usr/bin/ls"), Sight::Guarded);
        assert_eq!(sight("/usr/local/bin"), Sight::Whole);
        assert_eq!(sight("/usr/local/lib/x"), Sight::Hidden);
        assert_eq!(sight("/etc/foo/x"), Sight::Hidden);
        assert_eq!(sight("/etc/foo/bar/x"), Sight::Whole);
        assert_eq!(sight("/etc/foobar"), Sight::Guarded);
        assert_eq!(sight("/etc/ssh/key"), Sight::Whole);
        assert_eq!(sight("/opt/x"), Sight::Hidden);
        for nothing in ["/", "/home/me", "/srv", "/srv/y", "/var/cache/quern", "/new"] {
            assert_eq!(sight(nothing), Sight::Hidden, "{nothing}");
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
    fn rules_follow_links() {
        let mut rules = rules(&["/etc/a/key"], &["/lib/firmware"]);
        rules.resolve(|path| {
            let path = path.to_str()?;
            Some(path.replace("/etc/a", "/opt/a").replace("/lib/", "/usr/lib/").replace("/etc/ssl", "/usr/ssl").into())
        });
        assert_eq!(rules.sight(Path::new("/opt/a/key")), Sight::Hidden);
        assert_eq!(rules.sight(Path::new("/usr/ssl/private")), Sight::Hidden);
        assert_eq!(rules.sight(Path::new("/usr/ssl/certs")), Sight::Guarded);
        assert_eq!(rules.sight(Path::new("/usr/lib/firmware/x")), Sight::Whole);
        rules.hide(Path::new("/usr/share"), "why");
        rules.hide(Path::new("/usr/lib/firmware"), "why");
        assert_eq!(rules.sight(Path::new("/usr/share/x")), Sight::Hidden);
        assert_eq!(rules.sight(Path::new("/usr/lib/firmware/x")), Sight::Whole, "the recipe wins");
    }
}
