//! `[source]`: the stage3 and its trusted signers, or this host.

use std::collections::{BTreeMap, BTreeSet};

use super::path::Must;
use super::{Checker, Word, unchanged};
use crate::base::text::{nearest, quoted};
use crate::recipe::diagnostic::{Finding, Place, Problem};
use crate::recipe::merge::VARIABLES;
use crate::recipe::{
    BaseSpec, DEFAULT_MAX_AGE, DEFAULT_MIRROR, FUNTOO_LAYOUT, FUNTOO_MIRROR, SignedFile, Source, Version, words,
};

/// The keys of a stage3 from a mirror. The first makes the choice.
const MIRRORED: [&str; 2] = ["stage3", "version"];
/// The keys of a stage3 from a server with another layout.
const SIGNED_FILE: [&str; 4] = ["release", "arch", "subarch", "layout"];
/// The keys of this host.
const HOST: [&str; 2] = ["hide", "show"];
/// The keys of a file on this machine. The first makes the choice.
const LOCAL: [&str; 4] = ["file", "signature", "sha512", "allow-unsigned"];

impl Checker<'_> {
    pub(super) fn source(&mut self) -> Option<Source> {
        let distro = self.distro();
        let funtoo = distro == Some(true);
        let mirrors = self.mirrors(funtoo);
        let keyring = self.path_of("source", "keyring", Must::File);
        let mut fingerprints =
            self.each("source", "fingerprints", "fingerprint", words::fingerprint).unwrap_or_default();
        fingerprints.dedup();
        let max_age = match self.word("source", "max-age") {
            Some(word) => self.follow(&word, "age", words::age),
            None => Some(DEFAULT_MAX_AGE),
        };
        let bounds = self.bounds(|checker, key| checker.value("source", key).cloned());
        // A file may be of any distribution. On servers, each distribution has its own names.
        let base = if self.is_host(funtoo)? {
            self.host()
        } else if funtoo && self.item("source", "file").is_none() {
            self.signed_file()
        } else {
            self.base(!funtoo)
        };
        distro?;
        Some(Source { base: base?, mirrors, keyring, fingerprints, max_age: max_age?, bounds: bounds? })
    }

    /// Returns true for Funtoo, false for Gentoo, and `None` for any other distribution.
    fn distro(&mut self) -> Option<bool> {
        let Some(word) = self.word("source", "distro") else { return Some(false) };
        match word.text.as_str() {
            "gentoo" => Some(false),
            "funtoo" => Some(true),
            other => {
                let meant = nearest(other, ["gentoo", "funtoo"]).map(|meant| format!("did you mean \"{meant}\"?"));
                let problem = Problem { label: "not gentoo or funtoo".to_owned(), help: meant };
                let title = format!("cannot use the distribution {}", quoted(&word.text));
                self.texts.problem(&word.at, title, problem);
                None
            }
        }
    }

    /// Returns true if the recipe starts from this host. Returns `None` if it also has keys of a stage3.
    fn is_host(&mut self, funtoo: bool) -> Option<bool> {
        let rank = |checker: &Self, key: &str| checker.key(key).map(|at| checker.texts.rank(&at));
        let asked = if self.bool("source", "host") == Some(true) { rank(self, "host") } else { None };
        // The later layer wins: what earlier layers say about another base no longer matters.
        let stage3 = ["stage3", "file"].into_iter().filter_map(|key| rank(self, key)).max();
        if asked.is_none() || stage3 > asked {
            let level = stage3.or(asked);
            for other in HOST {
                let Some(at) = self.key(other).filter(|at| Some(self.texts.rank(at)) >= level) else { continue };
                let problem = Problem::new("only with host = true").help("a build sees all of a stage3");
                self.texts.problem(&at, format!("`{other}` does not apply to a stage3"), problem);
            }
            return Some(false);
        }
        let host_at = self.key("host")?;
        let mut whole = true;
        let distro = funtoo.then_some("distro");
        for other in MIRRORED.iter().chain(&SIGNED_FILE).chain(&LOCAL).copied().chain(distro) {
            let Some(at) = self.key(other).filter(|at| Some(self.texts.rank(at)) >= asked) else { continue };
            let title = format!("`{other}` does not apply to a build from this host");
            self.texts.find(Finding::at(&at, title, "remove this").also(&host_at, "because of `host`"));
            whole = false;
        }
        whole.then_some(true)
    }

    fn host(&mut self) -> Option<BaseSpec> {
        let hide = self.each("source", "hide", "path", words::host_path).unwrap_or_default();
        let show = self.each("source", "show", "path", words::shown_path).unwrap_or_default();
        let listed = self.list("source", "show").unwrap_or_default();
        for word in listed.iter().filter(|word| words::host_path(&word.text).is_ok_and(|path| hide.contains(&path))) {
            let problem = Problem::new("also in `hide`");
            self.texts.problem(&word.at, format!("{} is both hidden and shown", quoted(&word.text)), problem);
        }
        Some(BaseSpec::Host { hide, show })
    }

    fn mirrors(&mut self, funtoo: bool) -> Vec<String> {
        let Some(mut mirrors) = self.each("source", "mirrors", "mirror", words::url) else {
            return vec![if funtoo { FUNTOO_MIRROR } else { DEFAULT_MIRROR }.to_owned()];
        };
        let written = self.list("source", "mirrors").unwrap_or_default();
        if let Some(at) = self.value("source", "mirrors").filter(|_| written.is_empty()).map(|value| value.at.clone()) {
            let problem = Problem::new("empty").help("remove `mirrors` to use the distribution's own");
            self.texts.problem(&at, "no mirror is given", problem);
        }
        let mut seen = BTreeSet::new();
        mirrors.retain(|mirror| seen.insert(mirror.clone()));
        mirrors
    }

    fn base(&mut self, gentoo: bool) -> Option<BaseSpec> {
        if gentoo {
            for key in SIGNED_FILE {
                let Some(at) = self.key(key) else { continue };
                let problem =
                    Problem::new("only with distro = \"funtoo\"").help("`stage3` alone names a stage3 of Gentoo");
                self.texts.problem(&at, format!("`{key}` does not apply to a stage3 of Gentoo"), problem);
            }
        }
        let rank = |checker: &Self, keys: &[&str]| {
            let ranks = keys.iter().filter_map(|key| checker.item("source", key));
            ranks.map(|item| checker.texts.rank(&item.key_at)).max()
        };
        let choice = (rank(self, &MIRRORED[..1]), rank(self, &LOCAL[..1]));
        let local = match choice {
            (None, None) => {
                self.texts.find(Finding::missing("no stage3 is given").help(
                    "in [source] write stage3 = \"amd64-musl\", or file = \"./stage3-….tar.xz\", or host = true",
                ));
                return None;
            }
            (Some(mirrored), Some(local)) if mirrored == local => {
                let (at, other) = (self.key("file")?, self.key("stage3")?);
                let title = "a stage3 comes from a mirror or from a file, not from both";
                self.texts.find(Finding::at(&at, title, "from a file").also(&other, "from a mirror"));
                return None;
            }
            // The later layer wins: what earlier layers say about the other kind no longer matters.
            (mirrored, local) => local > mirrored,
        };
        let (chosen, others) = if local { (LOCAL[0], &MIRRORED[1..]) } else { (MIRRORED[0], &LOCAL[1..]) };
        let level = rank(self, &[chosen]);
        for other in others {
            let Some(at) = self.key(other).filter(|at| Some(self.texts.rank(at)) >= level) else { continue };
            let chosen_at = self.key(chosen)?;
            let title = format!("`{other}` does not apply to a stage3 with `{chosen}`");
            self.texts.find(Finding::at(&at, title, "remove this").also(&chosen_at, format!("because of `{chosen}`")));
        }
        if local { self.local(level) } else { self.mirrored() }
    }

    fn mirrored(&mut self) -> Option<BaseSpec> {
        let stage3 = self.plain("source", "stage3", "stage3 variant", words::variant);
        let version = match self.word("source", "version") {
            None => Some(Version::Latest),
            Some(Word { text, .. }) if text == "latest" => Some(Version::Latest),
            Some(word) => self
                .follow(&word, "version", |text| words::timestamp(text).map(|()| Version::Timestamp(text.to_owned()))),
        };
        Some(BaseSpec::Gentoo { stage3: stage3?, version: version? })
    }

    /// Returns a file on a server with Funtoo's layout, or with the recipe's.
    fn signed_file(&mut self) -> Option<BaseSpec> {
        if let Some(at) = self.key("stage3") {
            let problem = Problem::new("only with distro = \"gentoo\"")
                .help("`release`, `arch` and `subarch` name a stage3 of Funtoo");
            self.texts.problem(&at, "`stage3` does not apply to a stage3 of Funtoo", problem);
        }
        let version = match self.word("source", "version").filter(|word| word.text != "latest") {
            Some(word) => Some(self.follow(&word, "version", unchanged(words::name))?),
            None => None,
        };
        let mut values = vec![("version", version.clone().unwrap_or_default())];
        let mut complete = true;
        for (key, example) in [("release", "1.4-release-std"), ("arch", "x86-64bit"), ("subarch", "generic_64")] {
            match self.word("source", key) {
                Some(_) => match self.plain("source", key, key, words::name) {
                    Some(value) => values.push((key, value)),
                    None => complete = false,
                },
                None => {
                    let title = format!("a stage3 of Funtoo needs `{key}`");
                    self.texts.find(Finding::missing(title).help(format!("in [source] write {key} = \"{example}\"")));
                    complete = false;
                }
            }
        }
        let layout = self.layout();
        complete.then_some(())?;
        let layout = layout?;
        let mut path = layout[if version.is_some() { "dated" } else { "latest" }].clone();
        for (key, value) in &values {
            path = path.replace(&format!("{{{key}}}"), value);
        }
        let arch = values.into_iter().find(|(key, _)| *key == "arch").map(|(_, arch)| arch)?;
        Some(BaseSpec::SignedFile(SignedFile {
            path,
            signature: layout["signature"].clone(),
            digest: layout["digest"].clone(),
            latest: version.is_none(),
            arch,
        }))
    }

    /// Returns Funtoo's layout with the recipe's changes.
    fn layout(&mut self) -> Option<BTreeMap<&'static str, String>> {
        let mut layout = BTreeMap::from(FUNTOO_LAYOUT.map(|(key, value)| (key, value.to_owned())));
        let mut complete = true;
        for (key, value) in self.map("source", "layout") {
            let Some(known) = FUNTOO_LAYOUT.iter().map(|(known, _)| *known).find(|known| *known == key.text) else {
                let problem = Problem::new("not a key").help("known keys: latest, dated, signature, digest");
                self.texts.problem(&key.at, format!("unknown key {} of a layout", quoted(&key.text)), problem);
                complete = false;
                continue;
            };
            let rule = if matches!(known, "latest" | "dated") { words::server_path } else { words::ending };
            match self.follow(&value, "part of a layout", unchanged(rule)) {
                Some(text) => _ = layout.insert(known, text),
                None => complete = false,
            }
        }
        complete.then_some(layout)
    }

    fn local(&mut self, level: Option<usize>) -> Option<BaseSpec> {
        // The signature, digest or permission of an earlier layer belongs to another file. The variables and options of one
        // command line belong together.
        let level = level.map(|level| level.min(VARIABLES));
        let mut ours = [false; 3];
        for (ours, key) in ours.iter_mut().zip(&LOCAL[1..]) {
            let Some(at) = self.key(key) else { continue };
            *ours = Some(self.texts.rank(&at)) >= level;
            if !*ours {
                self.texts.warn(&at, &format!("`{key}` is not used: a later `file` replaces the file it belongs to"));
            }
        }
        let path = match self.word("source", "file") {
            Some(word) if word.text == "-" => {
                if self.request.files.iter().any(|file| file.as_os_str() == "-") {
                    let problem = Problem::new("the recipe itself is read from standard input");
                    self.texts.problem(&word.at, "cannot use standard input", problem);
                    return None;
                }
                Some(word.text.into())
            }
            _ => self.path_of("source", "file", Must::File),
        };
        let signature = if ours[0] { self.path_of("source", "signature", Must::File).map(Some) } else { Some(None) };
        let sha512 = match self.word("source", "sha512").filter(|_| ours[1]) {
            Some(word) => self.follow(&word, "SHA-512", words::sha512).map(Some),
            None => Some(None),
        };
        let allow_unsigned = ours[2] && self.bool("source", "allow-unsigned").unwrap_or(false);
        Some(BaseSpec::File { path: path?, signature: signature?, sha512: sha512?, allow_unsigned })
    }

    fn key(&self, key: &str) -> Option<Place> {
        self.item("source", key).map(|item| item.key_at.clone())
    }
}
