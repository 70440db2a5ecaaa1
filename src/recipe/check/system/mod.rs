//! `[system]`: the settings of the image. They are a step of the program's own, after those after packages are unmerged.

mod accounts;
mod files;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::uses::Uses;
use super::{Checker, Word, unchanged};
use crate::base::text::quoted;
use crate::recipe::diagnostic::{Finding, Problem};
use crate::recipe::parse::{Is, Table};
use crate::recipe::{Action, Init, Password, Phase, Step, Switch, System, Units, words};

/// The name of the step.
const SETTINGS: &str = "@settings";

impl Checker<'_> {
    /// Adds the step that writes the settings, if the recipe has any.
    pub(super) fn settings(&mut self, steps: &mut Vec<Step>, uses: &Uses) {
        let Some(system) = self.system(uses).filter(|system| *system != System::default()) else { return };
        let mut secrets = Vec::new();
        for user in &system.users {
            if let Some(Password::Secret(secret)) = &user.password
                && !secrets.contains(secret)
            {
                secrets.push(secret.clone());
            }
        }
        let place = steps.partition_point(|step| step.at <= Phase::AfterUnmerge);
        let step = Step::new(SETTINGS, Phase::AfterUnmerge, Action::Settings(Box::new(system)));
        steps.insert(place, Step { secrets, ..step });
    }

    /// Returns the settings, if the recipe has the table.
    fn system(&mut self, uses: &Uses) -> Option<System> {
        self.tree.get("system")?;
        let init = match self.word("system", "init") {
            Some(word) => self.one_of(&word, "init system", &["openrc", "systemd"]),
            None => None,
        };
        let (lang, locales) = self.locale();
        let system = System {
            init: init.map(|init| [Init::OpenRc, Init::Systemd][init]),
            hostname: self.plain("system", "hostname", "host name", words::hostname),
            timezone: self.plain("system", "timezone", "time zone", words::timezone),
            lang,
            locales,
            keymap: self.plain("system", "keymap", "keymap", words::keymap),
            groups: self.groups(),
            users: self.users(uses),
            services: self.switches_of("services"),
            runlevels: self.runlevels(),
            units: self.units(),
            files: self.system_files(),
            modules: self.each("system", "modules", "module", unchanged(words::module)).unwrap_or_default(),
            modules_blacklist: self
                .each("system", "modules-blacklist", "module", unchanged(words::module))
                .unwrap_or_default(),
            sysctl: self.sysctl(),
            fstab: self.each("system", "fstab", "line of fstab", unchanged(words::fstab_line)),
            motd: self.long_text("motd"),
            issue: self.long_text("issue"),
        };
        self.one_init(&system);
        Some(system)
    }

    /// Refuses keys of another init system than the one that the recipe names.
    fn one_init(&mut self, system: &System) {
        let (key, name) = match system.init {
            Some(Init::OpenRc) => ("units", "openrc"),
            Some(Init::Systemd) => ("runlevels", "systemd"),
            None if system.runlevels.is_empty() || system.units.is_empty() => return,
            None => {
                let (Some(runlevels), Some(units)) = (self.item("system", "runlevels"), self.item("system", "units"))
                else {
                    return;
                };
                let finding = Finding::at(&units.key_at, "an image has one init system", "these are of systemd");
                let finding = finding.also(&runlevels.key_at, "these are of OpenRC");
                self.texts.find(finding.help("remove one of the two"));
                return;
            }
        };
        let places = self.item("system", key).map(|item| item.key_at.clone()).zip(self.word("system", "init"));
        if let Some((at, init)) = places {
            let finding = Finding::at(&at, format!("`{key}` has no effect with the init system {name}"), "remove this");
            self.texts.find(finding.also(&init.at, "because of this"));
        }
    }

    fn system_table(&self, key: &str) -> Table {
        match self.value("system", key).map(|value| &value.is) {
            Some(Is::Table(table)) => table.clone(),
            _ => Table::new(),
        }
    }

    /// Returns `LANG`, and the lines of locale.gen.
    fn locale(&mut self) -> (Option<String>, Vec<String>) {
        let table = self.system_table("locale");
        let lang = Word::in_table(&table, "lang");
        let lang = lang.and_then(|word| self.follow(&word, "locale", unchanged(words::locale)));
        let lines = self.words_in(&table, "generate", "line of locale.gen", unchanged(words::locale_gen));
        (lang, lines.unwrap_or_default().into_iter().map(|(_, line)| line).collect())
    }

    fn switches_of(&mut self, key: &str) -> Vec<Switch> {
        let list = self.list("system", key).unwrap_or_default();
        self.switches(list)
    }

    /// Returns services, each once. A `-` before the name takes it away.
    fn switches(&mut self, list: Vec<Word>) -> Vec<Switch> {
        let mut seen: Vec<(Word, Switch)> = Vec::new();
        for word in list {
            let switch = self.follow(&word, "service", |text| {
                let name = text.strip_prefix('-').unwrap_or(text);
                words::service(name).map(|()| Switch { name: name.to_owned(), on: name == text })
            });
            let Some(switch) = switch else { continue };
            if let Some((first, _)) = seen.iter().find(|(_, known)| known.name == switch.name) {
                let title = format!("the service {} is named twice", quoted(&switch.name));
                self.texts.find(Finding::at(&word.at, title, "again here").also(&first.at, "first here"));
                continue;
            }
            seen.push((word, switch));
        }
        seen.into_iter().map(|(_, switch)| switch).collect()
    }

    fn runlevels(&mut self) -> BTreeMap<String, Vec<Switch>> {
        let mut runlevels = BTreeMap::new();
        for (name, item) in self.system_table("runlevels") {
            let word = Word { text: name, at: item.key_at };
            let Is::List(list) = &item.value.is else { continue };
            let switches = self.switches(list.iter().filter_map(Word::of).collect());
            if let (Some(name), false) =
                (self.follow(&word, "runlevel", unchanged(words::runlevel)), switches.is_empty())
            {
                runlevels.insert(name, switches);
            }
        }
        runlevels
    }

    fn units(&mut self) -> Units {
        let table = self.system_table("units");
        let mut list = |key: &str| -> Vec<String> {
            let units = self.words_in(&table, key, "unit", unchanged(words::unit)).unwrap_or_default();
            units.into_iter().map(|(_, unit)| unit).collect()
        };
        let (enable, disable, mask) = (list("enable"), list("disable"), list("mask"));
        let target = Word::in_table(&table, "default-target");
        let default_target = target.and_then(|word| self.follow(&word, "target", words::target));
        Units { enable, disable, mask, default_target }
    }

    fn sysctl(&mut self) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        for (name, value) in self.map("system", "sysctl") {
            let named = self.follow(&name, "variable of the kernel", words::sysctl_name).is_some();
            if self.follow(&value, "value", words::printable).is_some() && named {
                variables.insert(name.text, value.text);
            }
        }
        variables
    }

    /// Returns a text of one or more lines. The last line gets its end.
    fn long_text(&mut self, key: &str) -> Option<String> {
        let word = self.word("system", key)?;
        let rule = |text: &str| match text.chars().find(|c| c.is_control() && !"\n\t\u{1b}".contains(*c)) {
            Some(c) => Err(Problem::new(format!("a control character ({})", c.escape_unicode()))),
            None if text.is_empty() || text.ends_with('\n') => Ok(text.to_owned()),
            None => Ok(format!("{text}\n")),
        };
        self.follow(&word, "text", rule)
    }
}
