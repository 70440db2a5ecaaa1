//! The things that steps use: what a recipe declares, and what each step names of it.

mod bind;
mod daemon;
mod secret;
mod sysroot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::secret::SecretSource;
use super::{Checker, Word, unchanged};
use crate::base::text::{nearest, quoted};
use crate::recipe::diagnostic::{Finding, Place, Problem};
use crate::recipe::needs;
use crate::recipe::parse::{Is, Table};
use crate::recipe::{Bind, Daemon, Fetch, FetchFrom, Secret, Sharing, StepCache, Volume, words};

/// Caches of the build, which steps can read.
const BUILT_IN: [(&str, &str); 3] =
    [("binpkgs", "/var/cache/binpkgs"), ("distfiles", "/var/cache/distfiles"), ("ccache", "/var/cache/ccache")];

/// The things that a recipe declares for its steps, by name. `None`: declared with a mistake.
#[derive(Debug, Default)]
pub(super) struct Uses {
    binds: BTreeMap<String, Option<Bind>>,
    /// Binds that every step has.
    sysroot: Vec<Bind>,
    /// The names of their declarations.
    sysroots: Vec<String>,
    caches: BTreeMap<String, Option<StepCache>>,
    volumes: BTreeMap<String, Option<Volume>>,
    fetches: BTreeMap<String, Option<Fetch>>,
    daemons: BTreeMap<String, Option<Daemon>>,
    secrets: BTreeMap<String, Option<SecretSource>>,
}

/// The things that one step uses.
#[derive(Debug)]
pub(super) struct Used {
    pub(super) binds: Vec<Bind>,
    pub(super) fetch: Vec<Fetch>,
    pub(super) caches: Vec<StepCache>,
    pub(super) volumes: Vec<Volume>,
    pub(super) daemons: Vec<Daemon>,
    pub(super) secrets: Vec<Secret>,
    pub(super) leak_allowed: bool,
    /// The place that names a daemon which uses the network.
    pub(super) networked: Option<Place>,
    /// The places of the mounts, with those in the recipe that name them.
    pub(super) mounts: Vec<(Place, PathBuf)>,
}

impl Checker<'_> {
    /// Returns the declared things, if the recipe has steps or settings that can name them.
    pub(super) fn uses(&mut self) -> Uses {
        let mut uses = Uses::default();
        let users = [("", "step"), ("", "system"), ("emerge", "daemons")];
        if users.into_iter().all(|(section, key)| self.item(section, key).is_none()) {
            return uses;
        }
        for (name, table) in self.declared("bind") {
            if table.contains_key("sysroot") {
                uses.sysroot.extend(self.sysroot(&name, &table));
                uses.sysroots.push(name.text);
            } else {
                let bind = self.bind(&name.at, &name.text, &table);
                uses.binds.insert(name.text, bind);
            }
        }
        for (name, table) in self.declared("cache") {
            let cache = self.cache(&name, &table);
            uses.caches.insert(name.text, cache);
        }
        for (name, at) in BUILT_IN {
            let cache = StepCache {
                name: name.to_owned(),
                at: PathBuf::from(at),
                sharing: Sharing::Shared,
                mode: None,
                uid: None,
                gid: None,
            };
            uses.caches.entry(name.to_owned()).or_insert(Some(cache));
        }
        for (name, table) in self.declared("volume") {
            let at = self.needed(&name.at, &table, "a volume", "at");
            let at = at.and_then(|at| self.follow(&at, "mount point", words::mount_point));
            let of = Word::in_table(&table, "of").map(|of| self.of_other(&name.text, &of));
            let volume = at.map(|at| Volume { name: name.text.clone(), at, of });
            uses.volumes.insert(name.text, volume);
        }
        for (name, table) in self.declared("fetch") {
            let fetch = self.fetch(&name, &table);
            uses.fetches.insert(name.text, fetch);
        }
        for (name, table) in self.declared("daemon") {
            let daemon = self.daemon(&name, &table);
            uses.daemons.insert(name.text, daemon);
        }
        for (name, table) in self.declared("secret") {
            let secret = self.secret(&name, &table);
            uses.secrets.insert(name.text, secret);
        }
        for (name, value) in &self.variables.secrets {
            let secret = SecretSource::answer(value.clone());
            uses.secrets.insert(name.clone(), Some(secret));
        }
        uses
    }

    /// Returns the recipe of the image whose volume `volume` this one begins with. Refuses another state than that in the image that this
    /// one starts from.
    fn of_other(&mut self, volume: &str, of: &Word) -> PathBuf {
        let origin = needs::origin(self.texts, &of.at, &of.text);
        let steps = self.family.parent.as_ref().map(|parent| parent.job.all_steps()).unwrap_or_default();
        let before = steps.iter().flat_map(|step| &step.volumes).find(|other| other.name == volume);
        if before.is_some_and(|before| before.of.as_ref() != Some(&origin)) {
            let title = format!("the volume {volume} has a state in the image that this one starts from");
            self.texts.find(Finding::at(&of.at, title, "this would replace it").help("give the volume another name"));
        }
        origin
    }

    /// Returns the named tables of a key whose names are valid, in the order in which they were written.
    fn declared(&mut self, key: &str) -> Vec<(Word, Table)> {
        let Some(Is::Table(tables)) = self.value("", key).map(|value| value.is.clone()) else { return Vec::new() };
        let mut declared: Vec<(Word, Table)> = tables
            .into_iter()
            .filter_map(|(name, item)| match item.value.is {
                Is::Table(table) => Some((Word { text: name, at: item.key_at }, table)),
                _ => None,
            })
            .collect();
        declared.sort_by_key(|(name, _)| (self.texts.rank(&name.at), name.at.text, name.at.span.start));
        declared.retain(|(name, _)| self.follow(name, "name", unchanged(words::item_name)).is_some());
        declared
    }

    /// Returns the things that a step names.
    pub(super) fn used(&mut self, table: &Table, uses: &Uses, skip: bool) -> Option<Used> {
        let mut mounts = Vec::new();
        let binds = self.binds(table, uses, &mut mounts)?;
        let fetch = self.names(table, "fetch", "fetch", &uses.fetches).into_iter().map(|(_, fetch)| fetch).collect();
        let caches = self.names(table, "caches", "cache", &uses.caches);
        mounts.extend(caches.iter().map(|(word, cache)| (word.at.clone(), cache.at.clone())));
        self.with_ccache(&caches);
        let volumes = self.names(table, "volumes", "volume", &uses.volumes);
        mounts.extend(volumes.iter().map(|(word, volume)| (word.at.clone(), volume.at.clone())));
        let daemons = self.daemons(table, uses);
        let named = self.names(table, "secrets", "secret", &uses.secrets);
        let mut secrets = Vec::new();
        // A step that does not run needs no secrets.
        for (word, source) in named.into_iter().filter(|_| !skip) {
            secrets.push(self.value_of(&source, &word)?);
        }
        let leak = Word::in_table(table, "leak");
        let leak = leak.map(|word| (self.one_of(&word, "`leak`", &["refuse", "allow"]), word));
        if let (Some((_, word)), true) = (&leak, secrets.is_empty() && !skip) {
            let problem = Problem::new("no secrets").help("remove it, or name secrets = [\"…\"]");
            self.texts.problem(&word.at, "`leak` has no effect on a step without secrets", problem);
        }
        Some(Used {
            binds,
            fetch,
            caches: caches.into_iter().map(|(_, cache)| cache).collect(),
            volumes: volumes.into_iter().map(|(_, volume)| volume).collect(),
            networked: daemons.iter().find(|(_, daemon)| daemon.network).map(|(word, _)| word.at.clone()),
            daemons: daemons.into_iter().map(|(_, daemon)| daemon).collect(),
            secrets,
            leak_allowed: leak.is_some_and(|(leak, _)| leak == Some(1)),
            mounts,
        })
    }

    /// Returns the secret that `word` names.
    pub(super) fn secret_named(&mut self, word: &Word, uses: &Uses) -> Option<Secret> {
        let source = self.named(word, "secret", &uses.secrets)?;
        self.value_of(&source, word)
    }

    /// Returns the daemons that a table names.
    pub(super) fn daemons(&mut self, table: &Table, uses: &Uses) -> Vec<(Word, Daemon)> {
        let daemons = self.names(table, "daemons", "daemon", &uses.daemons);
        for (index, (word, daemon)) in daemons.iter().enumerate() {
            if daemons[..index].iter().any(|(_, other)| other.name == daemon.name) {
                let title = format!("the daemon {} is named twice", quoted(&word.text));
                self.texts.problem(&word.at, title, Problem::new("again here"));
            }
        }
        daemons
    }

    /// Refuses the cache of compiled files in a recipe that does not use ccache.
    fn with_ccache(&mut self, caches: &[(Word, StepCache)]) {
        let off = match self.value("accelerate", "ccache").map(|value| &value.is) {
            None => true,
            Some(is) => *is == Is::Bool(false),
        };
        for (word, _) in caches.iter().filter(|(_, cache)| off && cache.name == "ccache") {
            let problem = Problem::new("no ccache").help("set accelerate.ccache = true");
            self.texts.problem(&word.at, "the recipe does not use ccache", problem);
        }
    }

    /// Looks the names of a list up among the declared things.
    fn names<T: Clone>(
        &mut self,
        table: &Table,
        key: &str,
        of: &str,
        declared: &BTreeMap<String, Option<T>>,
    ) -> Vec<(Word, T)> {
        let Some(Is::List(list)) = table.get(key).map(|item| &item.value.is) else { return Vec::new() };
        let words: Vec<Word> = list.iter().filter_map(Word::of).collect();
        words.into_iter().filter_map(|word| Some((word.clone(), self.named(&word, of, declared)?))).collect()
    }

    /// Returns a declared thing. Notes an unknown name.
    fn named<T: Clone>(&mut self, word: &Word, of: &str, declared: &BTreeMap<String, Option<T>>) -> Option<T> {
        let found = declared.get(&word.text);
        if found.is_none() {
            let meant = nearest(&word.text, declared.keys().map(String::as_str));
            let help = match meant {
                Some(meant) => format!("did you mean {}?", quoted(meant)),
                None => format!("declare it in a table [{of}.{}]", quoted(&word.text).trim_matches('`')),
            };
            let title = format!("the recipe has no {of} {}", quoted(&word.text));
            self.texts.find(Finding::at(&word.at, title, "not declared").help(help));
        }
        found?.clone()
    }

    fn cache(&mut self, name: &Word, table: &Table) -> Option<StepCache> {
        if BUILT_IN.iter().any(|(built_in, _)| *built_in == name.text) {
            let problem = Problem::new("every recipe has this cache").help("choose another name");
            self.texts.problem(&name.at, format!("the cache {} is built in", quoted(&name.text)), problem);
        }
        let at = self.needed(&name.at, table, "a cache", "at");
        let at = at.and_then(|at| self.follow(&at, "mount point", words::mount_point));
        let sharing = match Word::in_table(table, "sharing") {
            Some(word) => self.one_of(&word, "`sharing`", &["shared", "locked", "private"]),
            None => Some(0),
        };
        let mode = Word::in_table(table, "mode").map(|word| self.follow(&word, "mode", words::mode));
        let (uid, gid) = (self.id(table, "uid"), self.id(table, "gid"));
        Some(StepCache {
            name: name.text.clone(),
            at: at?,
            sharing: [Sharing::Shared, Sharing::Locked, Sharing::Private][sharing?],
            mode: mode.map_or(Some(None), |mode| mode.map(Some))?,
            uid: uid?,
            gid: gid?,
        })
    }

    fn id(&mut self, table: &Table, key: &str) -> Option<Option<u32>> {
        let Some(item) = table.get(key) else { return Some(None) };
        let Is::Int(number) = item.value.is else { return Some(None) };
        let id = u32::try_from(number).ok().filter(|id| *id != u32::MAX);
        if id.is_none() {
            let problem = Problem::new("not a user or group id");
            self.texts.problem(&item.value.at, format!("not a valid `{key}`"), problem);
        }
        id.map(Some)
    }

    fn fetch(&mut self, name: &Word, table: &Table) -> Option<Fetch> {
        let (url, git) = (Word::in_table(table, "url"), Word::in_table(table, "git"));
        let unpack = super::steps::flag(table, "unpack");
        let other: &[&str] = match (&url, &git) {
            (Some(_), None) => &["commit", "branch", "keyring", "fingerprints", "allow-unsigned"],
            (None, Some(_)) => &["sha256", "sha512", "unpack"],
            _ => {
                let help = "for example url = \"https://example.org/a.patch\", with `sha256` or `sha512`";
                let problem = Problem::new("one of `url` and `git`").help(help);
                self.texts.problem(&name.at, "a download has one origin", problem);
                return None;
            }
        };
        for (key, item) in other.iter().filter_map(|key| Some((*key, table.get(*key)?))) {
            let why = if url.is_some() { "a file has a digest" } else { "a commit has its ID and its signers" };
            self.texts.problem(&item.key_at, format!("`{key}` has no effect on this download"), Problem::new(why));
        }
        if let Some(git) = git {
            let git = self.git(&git, table)?;
            return Some(Fetch { name: name.text.clone(), from: FetchFrom::Git(git), unpack: false });
        }
        let url = self.follow(&url?, "address of a file", words::url);
        let sha256 = Word::in_table(table, "sha256").map(|word| self.follow(&word, "SHA-256", words::sha256));
        let sha512 = Word::in_table(table, "sha512").map(|word| self.follow(&word, "SHA-512", words::sha512));
        if sha256.is_none() && sha512.is_none() {
            let problem = Problem::new("no digest").help("add sha256 = \"…\" or sha512 = \"…\"");
            self.texts.problem(&name.at, "a download needs a digest", problem);
            return None;
        }
        let from = FetchFrom::File {
            url: url?,
            sha256: sha256.map_or(Some(None), |digest| digest.map(Some))?,
            sha512: sha512.map_or(Some(None), |digest| digest.map(Some))?,
        };
        Some(Fetch { name: name.text.clone(), from, unpack })
    }
}

/// Returns true for a path at or below one that every step has.
fn own_mount(path: &Path) -> bool {
    path.to_str().is_some_and(|path| words::mount_point(path).is_err())
}
