//! The sources of a binary package in a repository that is a directory: someone may edit an ebuild or its files there without a new
//! revision. A digest of them tells whether a package was built from their present state.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::gpkg::Metadata;
use super::index::Stanza;
use crate::archive::unpack::decode::{Decoder, Format};
use crate::base::digest::{Algorithm, Hasher, Sha256};
use crate::portage::Repos;
use crate::portage::installed::split_version;

/// Key of an index: the digest of the sources that the package was built from.
const SOURCE: &str = "QUERN_SOURCE";
/// Key of an index: the downloaded files that the package was built from.
const DISTFILES: &str = "QUERN_DISTFILES";
/// Key of an index: the eclasses of the ebuild.
const ECLASSES: &str = "QUERN_ECLASSES";

/// Longest environment of a package in bytes, unpacked.
const MAX_ENVIRONMENT: u64 = 16 << 20;
/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// Deepest directory below `files`.
const MAX_DEPTH: usize = 10;

/// The repositories of a recipe that are directories of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources(Vec<Directory>);

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Directory {
    name: String,
    path: PathBuf,
    /// True for the main repository. Its eclasses change often and rarely matter, so they do not count.
    main: bool,
}

/// A place in a repository: the directory of a package, and an ebuild in it.
#[derive(Debug, Clone, Copy)]
struct Ebuild<'a> {
    repository: &'a Directory,
    category: &'a str,
    name: &'a str,
    pf: &'a str,
}

impl Sources {
    /// The repositories of this machine among `repos`.
    pub fn new(repos: &Repos) -> Self {
        let directory = |(index, repo): (usize, &crate::portage::Repo)| {
            repo.is_of_this_machine().then(|| Directory {
                name: repo.name().to_owned(),
                path: repo.location().to_owned(),
                main: index == 0,
            })
        };
        Self(repos.iter().enumerate().filter_map(directory).collect())
    }

    /// Records in the stanza of a package that was just built the sources that it was built from. Returns false if they have changed
    /// since `began`, in seconds since 1970.
    pub fn record(&self, stanza: &mut Stanza, metadata: &Metadata, began: i64) -> bool {
        self.note(stanza, metadata, |ebuild| !ebuild.has_newer_files(began))
    }

    /// Records sources in the stanza of a package that was built at some time: the present ones if the ebuild in the package is the
    /// present one and has no other files.
    pub fn adopt(&self, stanza: &mut Stanza, metadata: &Metadata) {
        self.note(stanza, metadata, |ebuild| !ebuild.directory().join("files").exists());
    }

    fn note(&self, stanza: &mut Stanza, metadata: &Metadata, accepted: impl FnOnce(&Ebuild<'_>) -> bool) -> bool {
        stanza.set(DISTFILES, distfiles(metadata).join(" "));
        stanza.set(ECLASSES, metadata.value("INHERITED"));
        let found = stanza.clone();
        let Some(ebuild) = self.ebuild(&found) else { return self.is_foreign(stanza) };
        let text = metadata.bytes(&format!("{}.ebuild", ebuild.pf)).map(normal);
        if text.is_none() || text != ebuild.text() || !accepted(&ebuild) {
            return false;
        }
        match self.digest(&ebuild, stanza) {
            Some(digest) => {
                stanza.set(SOURCE, digest.hex());
                true
            }
            None => false,
        }
    }

    /// Returns true if the package comes from none of these repositories, or was built from their present state.
    pub fn is_current(&self, stanza: &Stanza) -> bool {
        let digest = || Some(self.digest(&self.ebuild(stanza)?, stanza)?.hex());
        self.is_foreign(stanza) || digest().is_some_and(|digest| digest == stanza.get(SOURCE))
    }

    fn is_foreign(&self, stanza: &Stanza) -> bool {
        !self.0.iter().any(|repository| repository.name == stanza.get("REPO"))
    }

    fn ebuild<'a>(&'a self, stanza: &'a Stanza) -> Option<Ebuild<'a>> {
        let repository = self.0.iter().find(|repository| repository.name == stanza.get("REPO"))?;
        // The name becomes a path in the repository.
        let (category, pf) = stanza.cpv().split_once('/').filter(|(_, pf)| !pf.contains('/'))?;
        Some(Ebuild { repository, category, name: split_version(pf)?.0, pf })
    }

    /// Computes the digest of an ebuild, its files, the Manifest lines of its downloads, and its eclasses in repositories other than the
    /// main one. `None` if the ebuild was removed.
    fn digest(&self, ebuild: &Ebuild<'_>, stanza: &Stanza) -> Option<Sha256> {
        let mut hasher = Hasher::with(&[Algorithm::Sha256], false);
        let mut field = |name: &[u8], bytes: &[u8]| {
            for part in [name, bytes] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        };
        field(b"ebuild", ebuild.text()?.as_bytes());
        files(&ebuild.directory().join("files"), Path::new(""), MAX_DEPTH, &mut field)?;
        let manifest = read(&ebuild.directory().join("Manifest")).unwrap_or_default();
        let manifest = String::from_utf8_lossy(&manifest);
        let mut lines: Vec<&str> = manifest.lines().filter(|line| is_download(line, stanza.get(DISTFILES))).collect();
        lines.sort_unstable();
        lines.iter().for_each(|line| field(b"Manifest", line.as_bytes()));
        for eclass in stanza.get(ECLASSES).split_whitespace().filter(|name| !name.contains('/')) {
            let file = format!("eclass/{eclass}.eclass");
            let own = std::iter::once(ebuild.repository).chain(&self.0).filter(|repository| !repository.main);
            if let Some(text) = own.filter_map(|repository| read(&repository.path.join(&file))).next() {
                field(file.as_bytes(), &text);
            }
        }
        hasher.finish().sha256()
    }
}

impl Ebuild<'_> {
    fn directory(&self) -> PathBuf {
        self.repository.path.join(self.category).join(self.name)
    }

    fn path(&self) -> PathBuf {
        self.directory().join(format!("{}.ebuild", self.pf))
    }

    fn text(&self) -> Option<String> {
        read(&self.path()).map(|bytes| normal(&bytes))
    }

    /// Returns true if a file beside the ebuild was changed after `began`. The package has a copy of the ebuild itself, which is compared.
    fn has_newer_files(&self, began: i64) -> bool {
        newest(&self.directory().join("files"), MAX_DEPTH) > began
    }
}

/// Returns the text of an ebuild without the parts that cannot change the result: keywords, and the comment at the top.
fn normal(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let body = text.lines().skip_while(|line| line.is_empty() || line.starts_with('#'));
    body.filter(|line| !(line.starts_with("KEYWORDS=\"") && line.ends_with('"'))).collect::<Vec<_>>().join("\n")
}

/// Returns true for the Manifest's line of one of the files.
fn is_download(line: &str, files: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    words.next() == Some("DIST") && words.next().is_some_and(|name| files.split(' ').any(|file| file == name))
}

/// Returns the names of the downloaded files that a package was built from: the variable `A` of its environment.
fn distfiles(metadata: &Metadata) -> Vec<String> {
    let environment = metadata.bytes("environment.bz2").unwrap_or_default().to_vec();
    let mut text = Vec::new();
    if let Ok(decoder) = Decoder::of(Format::Bzip2, std::io::Cursor::new(environment)) {
        // A damaged environment gives the part before the damage.
        decoder.take(MAX_ENVIRONMENT).read_to_end(&mut text).ok();
    }
    let text = String::from_utf8_lossy(&text);
    let value = text.lines().find_map(|line| line.strip_prefix("declare -x A=\"")?.strip_suffix('"'));
    let plain = |name: &&str| !name.contains(|c: char| c.is_control() || "\"\\/".contains(c));
    value.unwrap_or_default().split_whitespace().filter(plain).map(str::to_owned).collect()
}

/// Passes on the files of a directory, sorted, with their paths and contents. `None` if one cannot be read.
fn files(directory: &Path, below: &Path, depth: usize, field: &mut impl FnMut(&[u8], &[u8])) -> Option<()> {
    let entries = match fs_err::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(()),
        Err(_) => return None,
    };
    let mut names: Vec<_> = entries.map(|entry| Some(entry.ok()?.file_name())).collect::<Option<_>>()?;
    names.sort();
    for name in names {
        let (path, shown) = (directory.join(&name), below.join(&name));
        // A symlink counts as the file that it leads to, as it does for an ebuild.
        let stat = fs_err::metadata(&path).ok()?;
        if stat.is_dir() {
            files(&path, &shown, depth.checked_sub(1)?, field)?;
        } else {
            let executable = if stat.mode() & 0o111 != 0 { "x " } else { "- " };
            field(&[executable.as_bytes(), shown.as_os_str().as_bytes()].concat(), &read(&path)?);
        }
    }
    Some(())
}

/// Returns the time of the last change in a tree, in seconds since 1970.
fn newest(path: &Path, depth: usize) -> i64 {
    let own = fs_err::metadata(path).map_or(i64::MIN, |stat| stat.ctime());
    let below = fs_err::read_dir(path).ok().filter(|_| depth > 0);
    below.into_iter().flatten().flatten().map(|entry| newest(&entry.path(), depth - 1)).fold(own, i64::max)
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let file = fs_err::File::open(path).ok()?;
    let stat = file.metadata().ok()?;
    let mut bytes = Vec::new();
    if stat.is_file() && stat.len() <= MAX_FILE {
        file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
        return Some(bytes);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portage::binpkg::fixture::Make;
    use crate::portage::binpkg::gpkg::Gpkg;
    use crate::portage::binpkg::index::FileFacts;

    const EBUILD: &str = "# Copyright 2026\nEAPI=8\nKEYWORDS=\"amd64\"\nsrc_install() { :; }\n";

    struct Place {
        root: tempfile::TempDir,
        sources: Sources,
    }

    impl Place {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let directory = |name: &str, main| Directory { name: name.to_owned(), path: root.path().join(name), main };
            let sources = Sources(vec![directory("main", true), directory("own", false)]);
            let place = Self { root, sources };
            place.write("own/a/b/b-1-r1.ebuild", EBUILD);
            place
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.root.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }

        /// Returns the stanza of a package that was just built, and the answer of [`Sources::record`].
        fn built(&self, began: i64) -> (Stanza, Metadata, bool) {
            let mut environment =
                bzip2::read::BzEncoder::new(&b"x\ndeclare -x A=\"b-1.tar.gz\"\n"[..], bzip2::Compression::fast());
            let mut bytes = Vec::new();
            environment.read_to_end(&mut bytes).unwrap();
            let make = Make::new("a", "b-1-r1").key("b-1-r1.ebuild", EBUILD).key("repository", "own\n");
            let make = make.key("INHERITED", "mine theirs").file("environment.bz2", bytes);
            let metadata = Gpkg::open(make.bytes()).unwrap().metadata().unwrap();
            let mut stanza = Stanza::new(&metadata, &FileFacts::default()).unwrap();
            let recorded = self.sources.record(&mut stanza, &metadata, began);
            (stanza, metadata, recorded)
        }
    }

    #[test]
    fn a_package_is_current_until_its_sources_change() {
        let changes: [(&str, &str, bool); 9] = [
            ("own/a/b/b-1-r1.ebuild", "EAPI=8\nKEYWORDS=\"~amd64\"\nsrc_install() { :; }\n", true),
            ("own/a/b/b-1-r1.ebuild", "EAPI=8\nKEYWORDS=\"amd64\"\nsrc_install() { die; }\n", false),
            ("own/a/b/b-2.ebuild", "EAPI=8", true),
            ("own/a/b/files/fix.patch", "x", false),
            ("own/a/b/Manifest", "DIST b-2.tar.gz 7 SHA512 aa\n", true),
            ("own/a/b/Manifest", "DIST b-1.tar.gz 7 SHA512 aa\n", false),
            ("own/eclass/mine.eclass", "x", false),
            ("own/eclass/other.eclass", "x", true),
            ("main/eclass/theirs.eclass", "x", true),
        ];
        for (path, text, current) in changes {
            let place = Place::new();
            let (stanza, ..) = place.built(i64::MAX);
            assert!(place.sources.is_current(&stanza), "{path}");
            place.write(path, text);
            assert_eq!(place.sources.is_current(&stanza), current, "{path}: {text}");
        }
        let place = Place::new();
        let (mut stanza, ..) = place.built(i64::MAX);
        fs_err::remove_file(place.root.path().join("own/a/b/b-1-r1.ebuild")).unwrap();
        assert!(!place.sources.is_current(&stanza), "without its ebuild");
        stanza.set("REPO", "elsewhere");
        assert!(place.sources.is_current(&stanza), "from another repository");
    }

    #[test]
    fn sources_that_changed_during_the_build_are_not_recorded() {
        let place = Place::new();
        // A hard link or another mode changes the time of the ebuild, and not the ebuild.
        assert!(place.built(0).2);
        place.write("own/a/b/files/x", "x");
        let (stanza, _, recorded) = place.built(0);
        assert!(!recorded && !place.sources.is_current(&stanza));
        place.write("own/a/b/b-1-r1.ebuild", "EAPI=7\n");
        assert!(!place.built(i64::MAX).2, "another ebuild than the one in the package");
    }

    #[test]
    fn a_package_of_unknown_origin_is_adopted_if_its_ebuild_tells_everything() {
        let place = Place::new();
        let (mut stanza, metadata, _) = place.built(0);
        place.sources.adopt(&mut stanza, &metadata);
        assert!(place.sources.is_current(&stanza));
        place.write("own/a/b/files/x", "x");
        let (mut stanza, metadata, _) = place.built(0);
        place.sources.adopt(&mut stanza, &metadata);
        assert!(!place.sources.is_current(&stanza));
    }
}
