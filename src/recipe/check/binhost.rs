//! `portage.binhost`: hosts of binary packages and the signers of their packages.

use std::path::PathBuf;

use super::path::Must;
use super::{Checker, Word, unchanged};
use crate::recipe::diagnostic::{Place, Problem};
use crate::recipe::parse::{Is, Table, Value};
use crate::recipe::{BaseSpec, Binhost, GENTOO_RELEASES, Source, atom, words};

/// The short name of Gentoo's own host.
const OFFICIAL: &str = "gentoo";

impl Checker<'_> {
    pub(super) fn binhosts(&mut self, source: Option<&Source>) -> Vec<Binhost> {
        let list = match self.value("portage", "binhost") {
            Some(Value { is: Is::List(list), .. }) => list.clone(),
            _ => return Vec::new(),
        };
        let mut hosts: Vec<Binhost> = Vec::new();
        for value in list {
            let Some((at, host)) = self.binhost(&value, source) else { continue };
            if hosts.iter().any(|other| other.url == host.url) {
                self.texts.problem(&at, "a host of binary packages is given twice", Problem::new("again here"));
                continue;
            }
            hosts.push(host);
        }
        hosts
    }

    fn binhost(&mut self, value: &Value, source: Option<&Source>) -> Option<(Place, Binhost)> {
        let empty = Table::new();
        let (table, address) = match &value.is {
            Is::Table(table) => (table, table.get("url").map(|item| &item.value)),
            _ => (&empty, Some(value)),
        };
        let Some(address) = address.and_then(Word::of) else {
            let help = "for example { url = \"https://example.org/binpkgs\", keyring = \"packages.asc\" }";
            let problem = Problem::new("no `url`").help(help);
            self.texts.problem(&value.at, "a host of binary packages needs `url`", problem);
            return None;
        };
        let url = self.address(&address, source)?;
        let keyring = match table.get("keyring").and_then(|item| Word::of(&item.value)) {
            Some(word) => Some(self.path(&word, Must::File)?),
            None => None,
        };
        let words = |list: Option<Vec<(Word, String)>>| -> Vec<String> {
            list.unwrap_or_default().into_iter().map(|(_, text)| text).collect()
        };
        let fingerprints = words(self.words_in(table, "fingerprints", "fingerprint", words::fingerprint));
        let exclude = words(self.words_in(table, "exclude", "package", unchanged(atom::name)));
        let only = words(self.words_in(table, "only", "package", unchanged(atom::name)));
        let priority = self.priority(table);
        let named = keyring.is_some() || !fingerprints.is_empty();
        let unsigned = table.get("allow-unsigned").filter(|item| matches!(item.value.is, Is::Bool(true)));
        if let Some(item) = unsigned.filter(|_| named) {
            let problem = Problem::new("remove this, or the signers");
            let title = "`allow-unsigned` contradicts `keyring` and `fingerprints`";
            self.texts.problem(&item.key_at, title, problem);
            return None;
        }
        // A directory of this machine is as trustworthy as the cache of binary packages.
        let allow_unsigned = unsigned.is_some() || (url.starts_with("file:") && !named);
        Some((address.at, Binhost { url, keyring, fingerprints, allow_unsigned, priority, exclude, only }))
    }

    /// Returns the address of a host in the form that [`Binhost`] has.
    fn address(&mut self, word: &Word, source: Option<&Source>) -> Option<String> {
        if word.text == OFFICIAL {
            let profile = self.word("build", "profile").map(|word| word.text).unwrap_or_default();
            let stage3 = match source.map(|source| &source.base) {
                Some(BaseSpec::Gentoo { stage3, .. }) => stage3.as_str(),
                _ => "",
            };
            let found = official(&profile, stage3);
            if found.is_none() {
                let problem = Problem::new("unknown for this profile and stage3")
                    .help("write its address, for example \"https://distfiles.gentoo.org/releases/amd64/binpackages/23.0/x86-64-v3\"");
                self.texts.problem(&word.at, "the address of Gentoo's binary packages is not known", problem);
            }
            return found;
        }
        if let Some(path) = word.text.strip_prefix("file:") {
            let path = Word { text: path.strip_prefix("//").unwrap_or(path).to_owned(), at: word.at.clone() };
            let path: PathBuf = self.path(&path, Must::Directory)?;
            return Some(format!("file://{}", path.display()));
        }
        self.follow(word, "address of a host of binary packages", words::url)
    }
}

/// Returns the address of Gentoo's own packages for a profile or, if it is not one of Gentoo's, for the variant of a stage3. Gentoo
/// builds them for two architectures, with the flags of its stage3s.
fn official(profile: &str, stage3: &str) -> Option<String> {
    let path = profile.rsplit(':').next().unwrap_or_default();
    let (arch, words): (&str, Vec<&str>) =
        match path.strip_prefix("default/linux/").and_then(|path| path.split_once('/')) {
            Some((arch, rest)) => (
                arch,
                rest.strip_prefix("23.0").filter(|rest| rest.is_empty() || rest.starts_with('/'))?.split('/').collect(),
            ),
            None => {
                let (arch, rest) = stage3.split_once('-')?;
                (arch, rest.split('-').collect())
            }
        };
    let has = |word: &str| words.contains(&word);
    let (arch, mut name) = match arch {
        "amd64" if has("x32") => ("amd64", "x32".to_owned()),
        "x32" => ("amd64", "x32".to_owned()),
        "amd64" => ("amd64", "x86-64".to_owned()),
        "arm64" => ("arm64", "arm64".to_owned()),
        _ => return None,
    };
    for kind in ["musl", "hardened", "llvm"].into_iter().filter(|kind| has(kind)) {
        name.push('_');
        name.push_str(kind);
    }
    Some(format!("{GENTOO_RELEASES}/{arch}/binpackages/23.0/{name}"))
}

#[cfg(test)]
mod tests {
    use super::official;

    #[test]
    fn gentoos_own_packages_have_an_address_for_each_of_its_profiles() {
        let cases = [
            ("gentoo:default/linux/amd64/23.0", "amd64-openrc", "amd64/binpackages/23.0/x86-64"),
            ("default/linux/amd64/23.0/split-usr/no-multilib/systemd", "", "amd64/binpackages/23.0/x86-64"),
            ("default/linux/amd64/23.0/musl/hardened", "amd64-openrc", "amd64/binpackages/23.0/x86-64_musl_hardened"),
            ("default/linux/amd64/23.0/x32/systemd", "", "amd64/binpackages/23.0/x32"),
            ("default/linux/arm64/23.0/musl/llvm", "", "arm64/binpackages/23.0/arm64_musl_llvm"),
            ("own:server", "amd64-musl-llvm", "amd64/binpackages/23.0/x86-64_musl_llvm"),
            ("own:server", "arm64-systemd", "arm64/binpackages/23.0/arm64"),
        ];
        for (profile, stage3, path) in cases {
            let found = official(profile, stage3).unwrap();
            assert_eq!(found, format!("https://distfiles.gentoo.org/releases/{path}"), "{profile} {stage3}");
        }
        for (profile, stage3) in
            [("default/linux/amd64/17.1", "amd64-openrc"), ("own:x", "ppc64le-musl"), ("own:x", "")]
        {
            assert_eq!(official(profile, stage3), None, "{profile} {stage3}");
        }
    }
}
