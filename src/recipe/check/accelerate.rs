//! `[accelerate]`: the compiler cache, compilers on other machines, and the shared jobserver.

use std::collections::BTreeMap;

use super::build::MAX_JOBS;
use super::path::Must;
use super::{Checker, Word, unchanged};
use crate::recipe::diagnostic::{Finding, Place, Problem};
use crate::recipe::parse::{Is, Table};
use crate::recipe::{Accelerate, Ccache, Jobserver, words};

/// The variables of make.conf with flags of compilers.
const FLAGS: [&str; 5] = ["COMMON_FLAGS", "CFLAGS", "CXXFLAGS", "FCFLAGS", "FFLAGS"];

impl Checker<'_> {
    /// Returns the section; `make_conf` are the recipe's variables, which must agree with it.
    pub(super) fn accelerate(&mut self, make_conf: Option<&BTreeMap<String, String>>) -> Option<Accelerate> {
        let none = BTreeMap::new();
        let make_conf = make_conf.unwrap_or(&none);
        let ccache = match self.tool("ccache") {
            Some((_, Some(table))) => Some(self.ccache(&table)?),
            Some((_, None)) => Some(Ccache::default()),
            None => None,
        };
        let distcc = match self.tool("distcc") {
            Some((at, table)) => self.distcc(&at, &table.unwrap_or_default(), make_conf)?,
            None => Vec::new(),
        };
        Some(Accelerate { ccache, distcc, jobserver: self.jobserver(make_conf)? })
    }

    /// Returns the place and the table of a tool that is not switched off.
    fn tool(&self, key: &str) -> Option<(Place, Option<Table>)> {
        let value = self.value("accelerate", key)?;
        match &value.is {
            Is::Bool(true) => Some((value.at.clone(), None)),
            Is::Table(table) => Some((value.at.clone(), Some(table.clone()))),
            _ => None,
        }
    }

    fn ccache(&mut self, table: &Table) -> Option<Ccache> {
        let word = |key: &str| table.get(key).and_then(|item| Word::of(&item.value));
        let dir = word("dir").map(|word| self.path(&word, Must::BeMade));
        let max_size = word("max-size").map(|word| self.follow(&word, "size", words::max_bytes));
        // A wrong value is an error; an absent one is not.
        Some(Ccache {
            dir: dir.map_or(Some(None), |dir| dir.map(Some))?,
            max_size: max_size.map_or(Some(None), |size| size.map(Some))?,
        })
    }

    fn distcc(&mut self, at: &Place, table: &Table, make_conf: &BTreeMap<String, String>) -> Option<Vec<String>> {
        let hosts: Vec<Word> = match table.get("hosts").map(|item| &item.value.is) {
            Some(Is::List(list)) => list.iter().filter_map(Word::of).collect(),
            _ => Vec::new(),
        };
        if hosts.is_empty() {
            let problem = Problem::new("no host").help("for example: distcc = { hosts = [\"192.0.2.7/8\"] }");
            self.texts.problem(at, "distcc needs the hosts that compile", problem);
            return None;
        }
        if let Some(name) =
            FLAGS.iter().find(|name| make_conf.get(**name).is_some_and(|flags| flags.contains("=native")))
        {
            let title = format!("{name} is for this machine's processor, and distcc compiles on others");
            let finding = Finding::at(at, title, "other processors");
            self.texts
                .find(finding.help("write the processor's name in place of `native`, for example -march=x86-64-v3"));
            return None;
        }
        let count = hosts.len();
        let hosts: Vec<String> = hosts
            .iter()
            .filter_map(|word| self.follow(word, "host of distcc", unchanged(words::distcc_host)))
            .collect();
        (hosts.len() == count).then_some(hosts)
    }

    fn jobserver(&mut self, make_conf: &BTreeMap<String, String>) -> Option<Jobserver> {
        let Some(value) = self.value("accelerate", "jobserver") else { return Some(Jobserver::Off) };
        let at = value.at.clone();
        let jobserver = match &value.is {
            Is::Bool(false) => return Some(Jobserver::Off),
            Is::Bool(true) => Some(Jobserver::Auto),
            Is::Str(word) if word == "auto" => Some(Jobserver::Auto),
            Is::Int(number) if (1..=MAX_JOBS).contains(number) => u32::try_from(*number).ok().map(Jobserver::Jobs),
            _ => None,
        };
        if jobserver.is_none() {
            let problem = Problem::new(format!("not \"auto\", 1 to {MAX_JOBS}, or false"));
            self.texts.problem(&at, "not a valid jobserver", problem.help("\"auto\" shares one job per processor"));
        }
        if let Some(name) = ["MAKEOPTS", "MAKEFLAGS"].iter().find(|name| make_conf.contains_key(**name)) {
            let title = format!("{name} in portage.make-conf replaces the jobserver");
            self.texts.find(Finding::at(&at, title, "would have no effect").help("leave out one of the two"));
            return None;
        }
        jobserver
    }
}
