//! The recipe's ebuild repositories, read from their directories: names, masters, profile formats.

use std::path::{Path, PathBuf};

use crate::base::error::{Context, Error, Kind, Result};
use crate::base::text::plain;
use crate::recipe::RepositorySpec;

/// The size limit of a repository's configuration file, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The section that removes the repository `gentoo` of Portage's default configuration.
const NO_GENTOO: &str = "\n[gentoo]\nlocation =\n";

/// A repository in a directory of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    name: String,
    location: PathBuf,
    recipe: RepositorySpec,
    masters: Option<Vec<String>>,
    aliases: Vec<String>,
    profile_formats: Vec<String>,
}

impl Repo {
    /// Reads a repository of the recipe from its directory.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the directory is not a repository or its name is invalid.
    pub fn load(recipe: &RepositorySpec, directory: &Path) -> Result<Self> {
        let location = fs_err::canonicalize(directory)
            .context(Kind::Usage, || format!("opening the repository {}", directory.display()))?;
        let name_file = location.join("profiles/repo_name");
        let layout_file = location.join("metadata/layout.conf");
        let layout = read(&layout_file)?.unwrap_or_default();
        let first_line = read(&name_file)?.and_then(|text| text.lines().next().map(|line| line.trim().to_owned()));
        // layout.conf overrides repo_name, as in Portage.
        let name = value(&layout, "repo-name").filter(|name| !name.is_empty()).or(first_line).ok_or_else(|| {
            Error::usage(format!("{} is not an ebuild repository", directory.display()))
                .with_hint(format!("{} is missing; it must contain the repository's name", name_file.display()))
        })?;
        if !is_name(&name) {
            let shown = plain(&name, 40);
            return Err(Error::usage(format!("the repository {} has the invalid name ‘{shown}’", directory.display()))
                .with_hint("a name consists of letters, digits, _ and -, and does not begin with -"));
        }
        if let Some(kit) = recipe.kit.as_ref().filter(|kit| **kit != name) {
            return Err(Error::usage(format!("the kit {kit} calls itself {name}"))
                .with_hint(format!("the meta-repo and {} disagree", name_file.display())));
        }
        let words = |key| value(&layout, key).map(|text| text.split_whitespace().map(str::to_owned).collect());
        Ok(Self {
            name,
            masters: recipe.masters.clone().or_else(|| words("masters")),
            aliases: words("aliases").unwrap_or_default(),
            profile_formats: words("profile-formats").unwrap_or_default(),
            recipe: recipe.clone(),
            location,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its directory on the host, with symlinks resolved.
    pub fn location(&self) -> &Path {
        &self.location
    }

    /// Returns true for a kit of a meta-repo.
    pub fn is_kit(&self) -> bool {
        self.recipe.kit.is_some()
    }

    /// Returns true if the recipe names its directory, so that the user may edit it.
    pub fn is_of_this_machine(&self) -> bool {
        self.recipe.location().is_some()
    }

    /// Returns its directory inside the sandbox.
    pub fn mountpoint(&self) -> PathBuf {
        let directory = if self.is_kit() { super::KITS } else { super::REPOS };
        Path::new(directory).join(&self.name)
    }

    /// Returns true if its layout.conf lists this profile format.
    pub fn has_format(&self, format: &str) -> bool {
        self.profile_formats.iter().any(|present| present == format)
    }

    /// Returns the path of its `metadata/layout.conf`.
    pub fn layout_file(&self) -> PathBuf {
        self.location.join("metadata/layout.conf")
    }

    fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }
}

/// The repositories of a recipe, the main one first. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repos {
    repos: Vec<Repo>,
}

impl Repos {
    /// Reads the repositories of a recipe from the directories that it names.
    ///
    /// # Errors
    /// Those of [`Repos::load_from`], and [`Kind::Usage`] for a repository that is not on this machine.
    pub fn load(recipes: &[RepositorySpec]) -> Result<Self> {
        let located = recipes.iter().map(|recipe| match recipe.location() {
            Some(path) => Ok((recipe, path)),
            None => Err(Error::usage("a repository of the recipe is not downloaded yet")),
        });
        Self::load_from(&located.collect::<Result<Vec<_>>>()?)
    }

    /// Reads the repositories of a recipe, each from its directory.
    ///
    /// # Errors
    /// [`Kind::Usage`] if a repository cannot be read, two have the same name, or one needs another that is missing.
    pub fn load_from(located: &[(&RepositorySpec, &Path)]) -> Result<Self> {
        let each = located.iter().map(|(recipe, directory)| Repo::load(recipe, directory));
        let repos = Self { repos: each.collect::<Result<_>>()? };
        if repos.repos.is_empty() {
            return Err(Error::usage("portage.repositories is empty")
                .with_hint("name at least the main repository, for example /var/db/repos/gentoo"));
        }
        for (index, repo) in repos.repos.iter().enumerate() {
            if let Some(other) = repos.repos[..index].iter().find(|other| other.name == repo.name) {
                return Err(Error::usage(format!(
                    "two repositories are named {}: {} and {}",
                    repo.name,
                    other.location.display(),
                    repo.location.display()
                ))
                .with_hint("change profiles/repo_name in one of them, or remove one"));
            }
            let masters = repo.masters.iter().flatten().map(|name| ("masters", name));
            let overrides = repo.recipe.eclass_overrides.iter().flatten().map(|name| ("eclass-overrides", name));
            for (key, name) in masters.chain(overrides) {
                if repos.get(name).is_none() {
                    return Err(Error::usage(format!(
                        "the repository {} names {} in its {key}, but portage.repositories does not contain that repository",
                        repo.name,
                        plain(name, 40)
                    ))
                    .with_hint(format!(
                        "add that repository, or change {key} (see {})",
                        repo.layout_file().display()
                    )));
                }
            }
        }
        Ok(repos)
    }

    /// Returns the main repository.
    pub fn main(&self) -> &Repo {
        &self.repos[0]
    }

    /// Returns the repositories, the main one first.
    pub fn iter(&self) -> std::slice::Iter<'_, Repo> {
        self.repos.iter()
    }

    /// Finds a repository by name or alias.
    pub fn get(&self, name: &str) -> Option<&Repo> {
        self.iter().find(|repo| repo.name == name).or_else(|| self.iter().find(|repo| repo.answers_to(name)))
    }

    /// Finds the repository that a profile names.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there is none.
    pub fn named(&self, name: &str) -> Result<&Repo> {
        self.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.iter().map(Repo::name).collect();
            Error::usage(format!("the profile names an unknown repository, ‘{}’", plain(name, 40)))
                .with_hint(format!("portage.repositories contains: {}", known.join(", ")))
        })
    }

    /// Returns warnings for the user.
    pub fn warnings(&self) -> Vec<String> {
        self.iter()
            .skip(1)
            .filter(|repo| repo.masters.is_none())
            .map(|repo| {
                format!(
                    "the repository {} has no masters in {}: using {}",
                    repo.name,
                    repo.layout_file().display(),
                    self.main().name
                )
            })
            .collect()
    }

    /// Writes repos.conf for the sandbox.
    pub fn repos_conf(&self) -> String {
        let mut text = self.default_section();
        for repo in self.iter() {
            text.push_str(&section(repo));
        }
        // Portage's default configuration names a repository `gentoo`. Without a directory for it, every emerge warns, and more so if
        // another repository has that alias.
        if self.iter().all(|repo| repo.name != "gentoo") {
            text.push_str(NO_GENTOO);
        }
        text
    }

    /// Writes the files of repos.conf that a stage4 ships for the kits of a meta-repo, as `ego` does: `ego-<kit>` for each.
    pub fn shipped_kits(&self) -> Vec<(String, String)> {
        let file = |repo: &Repo| {
            let main = repo.name == self.main().name;
            let text = format!("{}{}", if main { self.default_section() } else { String::new() }, section(repo));
            (format!("ego-{}", repo.name), text)
        };
        self.iter().filter(|repo| repo.is_kit()).map(file).collect()
    }

    fn default_section(&self) -> String {
        format!("[DEFAULT]\nmain-repo = {}\n", self.main().name)
    }

    /// Writes the repos.conf that a stage4 ships, without kits. `gentoo` keeps Portage's default, so that it can be synced.
    pub fn shipped_repos_conf(&self) -> Option<String> {
        let mut text = String::new();
        if self.main().name != "gentoo" && !self.main().is_kit() {
            text.push_str(&self.default_section());
        }
        for repo in self.iter().filter(|repo| repo.name != "gentoo" && !repo.is_kit()) {
            text.push_str(&section(repo));
        }
        if self.get("gentoo").is_some_and(|repo| repo.name != "gentoo") {
            text.push_str(NO_GENTOO);
        }
        (!text.is_empty()).then_some(text)
    }
}

impl<'a> IntoIterator for &'a Repos {
    type Item = &'a Repo;
    type IntoIter = std::slice::Iter<'a, Repo>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

fn section(repo: &Repo) -> String {
    let mut text = format!("\n[{}]\nlocation = {}\n", repo.name, repo.mountpoint().display());
    if let Some(priority) = repo.recipe.priority {
        text.push_str(&format!("priority = {priority}\n"));
    }
    if let Some(masters) = &repo.recipe.masters {
        text.push_str(&format!("masters = {}\n", masters.join(" ")));
    }
    if let Some(overrides) = &repo.recipe.eclass_overrides {
        text.push_str(&format!("eclass-overrides = {}\n", overrides.join(" ")));
    }
    text.push_str("auto-sync = no\n");
    text
}

/// Returns true for a valid name. `DEFAULT` is invalid: it is a special section of repos.conf.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') && name != "DEFAULT"
}

/// Returns the value of the last line `key = value`.
fn value(text: &str, key: &str) -> Option<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().to_owned())
        .next_back()
}

/// Reads a file of a repository. Returns `None` if it is missing.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs_err::OpenOptions::new();
    // Opening a FIFO must not block.
    options.read(true);
    options.options_mut().custom_flags(nix::libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => {
            return Err(Error::usage(format!("reading {}", path.display())).with_source(error));
        }
    };
    let usage = || format!("reading {}", path.display());
    if !file.metadata().context(Kind::Usage, usage)?.is_file() {
        return Err(Error::usage(format!("{} is not a regular file", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).context(Kind::Usage, usage)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::usage(format!("{} is larger than {MAX_FILE} bytes", path.display())));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::portage::fixture::World;
    use crate::recipe::Origin;

    #[test]
    fn repositories_are_written_to_repos_conf() {
        let world = World::new();
        let gentoo = world.repo("gentoo", "masters =\nprofile-formats = portage-2 profile-set\n");
        let mut quern = world.repo("quern", "masters = gentoo\n# profile-formats = x\nprofile-formats = portage-2\n");
        quern.priority = Some(50);
        quern.eclass_overrides = Some(vec!["gentoo".into()]);
        let repos = Repos::load(&[gentoo, quern]).unwrap();
        assert_eq!(repos.main().name(), "gentoo");
        assert!(repos.get("gentoo").unwrap().has_format("profile-set"));
        assert!(!repos.get("quern").unwrap().has_format("profile-set"));
        assert_eq!(
            repos.repos_conf(),
            "[DEFAULT]\nmain-repo = gentoo\n\n[gentoo]\nlocation = /var/db/repos/gentoo\nauto-sync = no\n\n[quern]\n\
             location = /var/db/repos/quern\npriority = 50\neclass-overrides = gentoo\nauto-sync = no\n"
        );
        let shipped = repos.shipped_repos_conf().unwrap();
        assert!(shipped.starts_with("\n[quern]\n") && !shipped.contains("[gentoo]"));
    }

    #[test]
    fn layout_conf_may_change_the_name_and_add_aliases() {
        let world = World::new();
        let main = world.repo("core", "masters =\naliases = gentoo\nrepo-name = core-kit\n");
        let repos = Repos::load(&[main]).unwrap();
        assert_eq!(repos.main().name(), "core-kit");
        assert_eq!(repos.get("gentoo").unwrap().name(), "core-kit");
        let shipped = repos.shipped_repos_conf().unwrap();
        assert!(shipped.contains("main-repo = core-kit"));
        for text in [repos.repos_conf(), shipped] {
            assert!(text.contains("[core-kit]\n") && text.ends_with("\n[gentoo]\nlocation =\n"), "{text}");
        }
    }

    #[test]
    fn kits_lie_below_the_meta_repo_and_are_shipped_in_files_of_their_own() {
        let world = World::new();
        let kit = |name: &str, repo_name: &str| RepositorySpec {
            kit: Some(name.to_owned()),
            priority: Some(1),
            ..world.repo_at(name, repo_name, "masters =\naliases = gentoo\n")
        };
        let repos = Repos::load(&[kit("core-kit", "core-kit"), world.repo("own", "masters = core-kit\n")]).unwrap();
        let section = "\n[core-kit]\nlocation = /var/git/meta-repo/kits/core-kit\npriority = 1\nauto-sync = no\n";
        assert!(repos.repos_conf().contains(section));
        let core = ("ego-core-kit".to_owned(), format!("[DEFAULT]\nmain-repo = core-kit\n{section}"));
        assert_eq!(repos.shipped_kits(), [core]);
        let rest = repos.shipped_repos_conf().unwrap();
        assert!(rest.contains("[own]\n") && !rest.contains("core-kit"), "{rest}");
        let error = Repos::load(&[kit("core-kit", "other")]).unwrap_err();
        assert!(error.to_string().contains("the kit core-kit calls itself other"), "{error}");
    }

    #[test]
    fn a_directory_that_is_not_a_repository_is_a_usage_error_with_a_hint() {
        let world = World::new();
        let plain = world.directory("plain");
        let error = Repos::load(&[plain]).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.hint().unwrap().contains("profiles/repo_name"), "{error}");
        let mut missing = world.directory("x");
        missing.origin = Origin::Location(world.path("nowhere"));
        assert_eq!(Repos::load(&[missing]).unwrap_err().kind(), Kind::Usage);
        assert!(Repos::load(&[]).is_err());
    }

    #[test]
    fn invalid_and_duplicate_names_are_refused() {
        let world = World::new();
        for name in ["a b", "-x", "", "a/b", "DEFAULT", "a]b", "..", "é"] {
            let repo = world.repo(name, "masters =\n");
            assert!(Repos::load(&[repo]).is_err(), "{name:?}");
        }
        let one = world.repo("same", "masters =\n");
        let two = world.repo_at("elsewhere", "same", "masters =\n");
        assert!(Repos::load(&[one, two]).unwrap_err().to_string().contains("two repositories"));
    }

    #[test]
    fn missing_masters_are_refused_unless_the_recipe_sets_others() {
        let world = World::new();
        let main = world.repo("main", "masters =\n");
        let mut overlay = world.repo("overlay", "masters = gentoo\n");
        let error = Repos::load(&[main.clone(), overlay.clone()]).unwrap_err();
        assert!(error.to_string().contains("names gentoo in its masters"), "{error}");
        overlay.masters = Some(vec!["main".into()]);
        let repos = Repos::load(&[main, overlay]).unwrap();
        assert!(repos.repos_conf().contains("masters = main\n"));
    }

    #[test]
    fn an_overlay_without_masters_is_a_warning() {
        let world = World::new();
        let repos = Repos::load(&[world.repo("gentoo", ""), world.repo("own", "")]).unwrap();
        assert_eq!(repos.warnings().len(), 1);
    }

    proptest! {
        #[test]
        fn a_name_never_breaks_out_of_its_section(name in any::<String>()) {
            if is_name(&name) {
                prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
            }
        }

        #[test]
        fn layout_values_never_panic(text in any::<String>(), key in "[a-z-]{1,5}") {
            let _ = value(&text, &key);
        }
    }
}
