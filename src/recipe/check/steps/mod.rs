//! `[[step]]`: named changes of the tree.

mod action;
mod order;
#[cfg(test)]
mod tests;
mod unmerge;

pub(super) use action::entries;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::uses::{Used, Uses};
use super::{Checker, Word, unchanged};
use crate::base::text::{nearest, quoted};
use crate::recipe::diagnostic::{Finding, Place, Problem};
use crate::recipe::parse::{Is, Item, Table};
use crate::recipe::{Action, EMERGE_MOUNTS, Phase, Refresh, Step, StepRoot, StepTmpfs, words};
use order::Node;

/// The limit on groups in groups.
const MAX_DEPTH: usize = 8;
/// The limit on the steps of a recipe.
const MAX_STEPS: usize = 1000;

/// The context of a step: the groups around it.
#[derive(Debug, Clone)]
struct Around {
    /// The name of the group with a `/`; empty at the top.
    prefix: String,
    depth: usize,
    /// The phase of the group.
    at: Phase,
    skip: bool,
    /// The keys of `[steps]`.
    defaults: Common,
}

/// Keys of a step that also have defaults for all steps.
#[derive(Debug, Clone, Default)]
struct Common {
    env: BTreeMap<String, String>,
    shell: Option<Vec<String>>,
    network: Option<bool>,
    timeout: Option<u64>,
    user: Option<String>,
    workdir: Option<PathBuf>,
}

impl Common {
    /// Adds the defaults for the steps of an action.
    fn or(self, defaults: &Self, action: &Action) -> Self {
        let (script, program) = (matches!(action, Action::Run(_)), action.is_program());
        let of_scripts = if script { defaults.clone() } else { Self::default() };
        let mut env = if program { defaults.env.clone() } else { BTreeMap::new() };
        env.extend(self.env);
        Self {
            env,
            shell: self.shell.or(of_scripts.shell),
            network: self.network.or(of_scripts.network),
            timeout: self.timeout.or(defaults.timeout.filter(|_| program)),
            user: self.user.or(of_scripts.user),
            workdir: self.workdir.or(of_scripts.workdir),
        }
    }
}

impl Checker<'_> {
    /// Returns the steps in the order in which they run, and the names of those that are left out.
    pub(super) fn steps(&mut self, uses: &Uses) -> (Vec<Step>, Vec<String>) {
        let Some(Is::Steps(written)) = self.value("", "step").map(|value| value.is.clone()) else {
            return (Vec::new(), Vec::new());
        };
        let defaults = match self.tree.get("steps").map(|item| &item.value.is) {
            Some(Is::Table(table)) => self.common(table),
            _ => Some(Common::default()),
        };
        let mut nodes = Vec::new();
        let around = Around {
            prefix: String::new(),
            depth: 1,
            at: Phase::Packages,
            skip: false,
            defaults: defaults.unwrap_or_default(),
        };
        let top = self.nodes(&written, &around, uses, &mut nodes);
        if nodes.len() > MAX_STEPS
            && let Some(at) = written.last().map(|item| item.key_at.clone())
        {
            self.texts.problem(&at, "too many steps", Problem::new(format!("more than {MAX_STEPS} steps")));
            return (Vec::new(), Vec::new());
        }
        let skipped = nodes.iter().filter(|node| node.skip).map(|node| node.name.clone()).collect();
        (self.in_order_of_run(top, nodes), skipped)
    }

    /// Appends steps and the steps in them. Returns the indices of the steps at this level.
    fn nodes(&mut self, written: &[Item], around: &Around, uses: &Uses, nodes: &mut Vec<Node>) -> Vec<usize> {
        let mut level = Vec::new();
        for item in written {
            let Is::Table(table) = &item.value.is else { continue };
            let Some(name) = Word::in_table(table, "name") else { continue };
            if self.follow(&name, "name of a step", unchanged(words::item_name)).is_none() {
                continue;
            }
            if around.depth > MAX_DEPTH {
                let problem = Problem::new(format!("deeper than {MAX_DEPTH} groups"));
                self.texts.problem(&name.at, "groups of steps are nested too deep", problem);
                continue;
            }
            let full = format!("{}{}", around.prefix, name.text);
            let at = self.phase(table);
            let phase = at.as_ref().map_or(around.at, |(_, phase)| *phase);
            let skip = around.skip || flag(table, "skip");
            let inner =
                Around { prefix: format!("{full}/"), depth: around.depth + 1, at: phase, skip, ..around.clone() };
            let group = match table.get("step").map(|item| &item.value.is) {
                Some(Is::Steps(steps)) => steps.clone(),
                _ => Vec::new(),
            };
            let children = self.nodes(&group, &inner, uses, nodes);
            let action = self.action(table, &name.at, !group.is_empty());
            let used = self.used(table, uses, skip);
            let step = self.step(table, (&full, phase), &around.defaults, (action, used));
            let anchor = self.anchor(table);
            let at = at.map(|(at, _)| at);
            nodes.push(Node { name: full, name_at: name.at, at, phase, skip, children, anchor, step });
            level.push(nodes.len() - 1);
        }
        level
    }

    fn phase(&mut self, table: &Table) -> Option<(Place, Phase)> {
        let word = Word::in_table(table, "at")?;
        let known = Phase::ALL.map(Phase::name);
        let phase = self.one_of(&word, "`at`", &known)?;
        Some((word.at, Phase::ALL[phase]))
    }

    /// Returns the index of a word in a list of known words.
    pub(super) fn one_of(&mut self, word: &Word, what: &str, known: &[&str]) -> Option<usize> {
        self.follow(word, what, |text| {
            known.iter().position(|name| *name == text).ok_or_else(|| {
                let help = match nearest(text, known.iter().copied()) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => format!("known: {}", known.join(", ")),
                };
                Problem::new("not known").help(help)
            })
        })
    }

    /// Returns true and the step to run before, or false and the step to run after.
    fn anchor(&mut self, table: &Table) -> Option<(bool, Word)> {
        let (before, after) = (Word::in_table(table, "before"), Word::in_table(table, "after"));
        if let (Some(before), Some(after)) = (&before, &after) {
            let (one, other) = (self.texts.rank(&before.at), self.texts.rank(&after.at));
            if one == other {
                let finding = Finding::at(&after.at, "a step has one place", "remove one of the two");
                self.texts.find(finding.also(&before.at, "because of `before`"));
                return None;
            }
            return Some(if one > other { (true, before.clone()) } else { (false, after.clone()) });
        }
        before.map(|word| (true, word)).or_else(|| after.map(|word| (false, word)))
    }

    /// Returns the step of a table, or `None` if it is a group alone or has mistakes. `of` is its name and its phase.
    fn step(
        &mut self,
        table: &Table,
        of: (&str, Phase),
        defaults: &Common,
        (action, used): (Option<Action>, Option<Used>),
    ) -> Option<Step> {
        let root = match Word::in_table(table, "in") {
            Some(word) => self.one_of(&word, "tree", &["image", "builder"]),
            None => Some(0),
        };
        let args = self.texts_in(table, "args", "argument");
        let common = self.common(table);
        let vars = self.vars(table);
        let creates = self.words_in(table, "creates", "path in the image", words::image_path).unwrap_or_default();
        let refresh = Word::in_table(table, "refresh").map(|word| {
            self.follow(&word, "age", |text| match text {
                "always" => Ok(Refresh::Always),
                _ => words::duration(text).map(Refresh::After),
            })
        });
        let tmpfs = self.words_in(table, "tmpfs", "file system in memory", words::tmpfs).unwrap_or_default();
        let used = used?;
        let mounts = used.mounts.iter().map(|(place, at)| (place, at));
        let mounts: Vec<_> = mounts.chain(tmpfs.iter().map(|(word, (at, _))| (&word.at, at))).collect();
        self.once(mounts.iter().copied());
        self.beside(&mounts, &used);
        let action = action?;
        if of.1 == Phase::Start {
            self.before_configuration(&mounts, &used);
        }
        if action.is_emerge() {
            self.apart_from_emerge(table, &mounts, &used);
        }
        let common = common?.or(defaults, &action);
        if let (Some(place), false) = (&used.networked, common.network.unwrap_or(action.has_network())) {
            let problem = Problem::new("the step has no network").help("add network = true to the step");
            self.texts.problem(place, "a daemon has the network of its step", problem);
        }
        let mut env = common.env;
        env.extend(vars);
        let runs = action.is_program();
        Some(Step {
            name: of.0.to_owned(),
            at: of.1,
            network: common.network.unwrap_or(action.has_network()),
            action,
            root: if root? == 0 { StepRoot::Image } else { StepRoot::Builder },
            shell: common.shell,
            args,
            env,
            user: common.user,
            workdir: common.workdir.unwrap_or_else(|| PathBuf::from("/")),
            tty: flag(table, "tty"),
            timeout: common.timeout,
            creates: creates.into_iter().map(|(_, path)| PathBuf::from(path)).collect(),
            refresh: refresh.map_or(Some(None), |refresh| refresh.map(Some))?,
            tmpfs: tmpfs.into_iter().map(|(_, (at, size))| StepTmpfs { at, size }).collect(),
            binds: if runs { used.binds } else { Vec::new() },
            fetch: used.fetch,
            caches: used.caches,
            volumes: used.volumes,
            daemons: used.daemons,
            secrets: used.secrets,
            leak_allowed: used.leak_allowed,
        })
    }

    /// Returns the keys that a step and `[steps]` have in common.
    fn common(&mut self, table: &Table) -> Option<Common> {
        let env = self.environment(table, "env");
        let shell = self.shell(table);
        let network = table.get("network").map(|_| flag(table, "network"));
        let timeout = Word::in_table(table, "timeout").map(|word| self.follow(&word, "timeout", words::duration));
        let user = Word::in_table(table, "user").map(|word| self.follow(&word, "user", unchanged(words::user)));
        let workdir = Word::in_table(table, "workdir");
        let workdir = workdir.map(|word| self.follow(&word, "working directory", words::image_path));
        // A wrong value is an error; an absent one is not.
        Some(Common {
            env,
            shell,
            network,
            timeout: timeout.map_or(Some(None), |timeout| timeout.map(Some))?,
            user: user.map_or(Some(None), |user| user.map(Some))?,
            workdir: workdir.map_or(Some(None), |workdir| workdir.map(PathBuf::from).map(Some))?,
        })
    }

    /// Returns the variables of the recipe that a step names, as environment variables.
    fn vars(&mut self, table: &Table) -> BTreeMap<String, String> {
        let Some(Is::List(list)) = table.get("vars").map(|item| &item.value.is) else { return BTreeMap::new() };
        let mut variables = BTreeMap::new();
        for word in list.iter().filter_map(Word::of) {
            let own = match table.get("env").map(|item| &item.value.is) {
                Some(Is::Table(env)) => env.get(&word.text),
                _ => None,
            };
            if let Some(item) = own {
                let title = format!("the variable {} is given twice", quoted(&word.text));
                let finding = Finding::at(&word.at, title, "as a variable of the recipe");
                self.texts.find(finding.also(&item.key_at, "and here"));
            } else if let Some(value) = self.variables.get(self.texts, &word.text, &word.at) {
                variables.insert(word.text, value);
            }
        }
        variables
    }

    fn shell(&mut self, table: &Table) -> Option<Vec<String>> {
        let shell = self.texts_in(table, "shell", "word of the shell");
        let at = &table.get("shell")?.value.at;
        if shell.first().is_none_or(String::is_empty) {
            let problem = Problem::new("no program").help("for example shell = [\"/bin/sh\", \"-e\"]");
            self.texts.problem(at, "a shell needs a program", problem);
        }
        Some(shell)
    }

    /// Returns the strings of a list, each of which can be an argument of a program.
    pub(super) fn texts_in(&mut self, table: &Table, key: &str, what: &str) -> Vec<String> {
        let words = self.words_in(table, key, what, unchanged(words::argument)).unwrap_or_default();
        words.into_iter().map(|(_, text)| text).collect()
    }

    /// Returns the environment variables of a table.
    fn environment(&mut self, table: &Table, key: &str) -> BTreeMap<String, String> {
        let Some(Is::Table(written)) = table.get(key).map(|item| &item.value.is) else { return BTreeMap::new() };
        let mut variables = BTreeMap::new();
        for (name, value) in self.in_order(written) {
            let named = self.follow(&name, "environment variable", words::environment_variable).is_some();
            if self.follow(&value, "value", words::argument).is_some() && named {
                variables.insert(name.text, value.text);
            }
        }
        variables
    }

    /// Refuses mounts in a cache or a volume of the step: their content would get mount points.
    fn beside(&mut self, mounts: &[(&Place, &PathBuf)], used: &Used) {
        let caches = used.caches.iter().map(|cache| ("cache", &cache.name, &cache.at));
        let volumes = used.volumes.iter().map(|volume| ("volume", &volume.name, &volume.at));
        for (kind, name, at) in caches.chain(volumes) {
            for (place, inner) in mounts.iter().filter(|(_, inner)| inner.starts_with(at) && *inner != at) {
                let title =
                    format!("the mount at {} lies in the {kind} {}", quoted(&inner.to_string_lossy()), quoted(name));
                self.texts.problem(place, title, Problem::new(format!("below {}", at.display())));
            }
        }
    }

    /// Refuses the packages of the build before Portage is configured.
    fn before_configuration(&mut self, mounts: &[(&Place, &PathBuf)], used: &Used) {
        let Some(packages) = used.caches.iter().find(|cache| cache.name == "binpkgs") else { return };
        for (place, _) in mounts.iter().filter(|(_, at)| **at == packages.at) {
            let problem = Problem::new("not known before Portage is configured")
                .help("let the step run later, for example with at = \"before-packages\"");
            self.texts.problem(place, "the packages of the build have no key yet", problem);
        }
    }

    /// Refuses mounts of an emerge step at places that emerge needs, and those of a sysroot.
    fn apart_from_emerge(&mut self, table: &Table, mounts: &[(&Place, &PathBuf)], used: &Used) {
        let meets = |at: &Path| EMERGE_MOUNTS.iter().find(|own| at.starts_with(own) || Path::new(own).starts_with(at));
        let built_in = |at: &Path| used.caches.iter().any(|cache| cache.is_built_in() && cache.at == at);
        for (place, at) in mounts.iter().filter(|(_, at)| !built_in(at)) {
            if let Some(own) = meets(at) {
                let title = format!("a step of emerge cannot have a mount at {}", quoted(&at.to_string_lossy()));
                self.texts.problem(place, title, Problem::new(format!("emerge has its own {own}")));
            }
        }
        let named = |at: &PathBuf| mounts.iter().any(|(_, other)| *other == at);
        let Some(bind) = used.binds.iter().find(|bind| !named(&bind.at) && meets(&bind.at).is_some()) else { return };
        if let Some(item) = ["emerge", "unmerge", "depclean", "rebuild"].iter().find_map(|key| table.get(*key)) {
            let title = format!("a step of emerge cannot see {} of the sysroot", quoted(&bind.at.to_string_lossy()));
            let problem = Problem::new("emerge has a mount of its own there").help("add sysroot = false to the step");
            self.texts.problem(&item.key_at.clone(), title, problem);
        }
    }

    /// Refuses two mounts at one place.
    fn once<'a>(&mut self, mounts: impl Iterator<Item = (&'a Place, &'a PathBuf)>) {
        let mut seen = BTreeSet::new();
        for (place, at) in mounts {
            if !seen.insert(at) {
                let title = format!("a step has two mounts at {}", quoted(&at.to_string_lossy()));
                self.texts.problem(place, title, Problem::new("again here"));
            }
        }
    }
}

/// Returns the value of a boolean key, or false.
pub(super) fn flag(table: &Table, key: &str) -> bool {
    table.get(key).is_some_and(|item| matches!(item.value.is, Is::Bool(true)))
}
