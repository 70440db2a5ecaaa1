//! Portage's settings, kept in the store: Portage needs seconds to report them, and reports the same as long as the base, the
//! configuration and the profiles are the same.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Place;
use crate::base::digest::{Algorithm, Hasher};
use crate::base::error::{Context, Kind, Result};
use crate::fs::atomic;
use crate::portage::binpkg::settings::{self, Settings};
use crate::recipe::Phase;
use crate::store::work::Below;

/// Longest answer, in bytes.
const MAX_ANSWER: u64 = 16 << 20;
/// The greatest number of files that a state consists of.
const MAX_FILES: usize = 200_000;
/// Deepest directory.
const MAX_DEPTH: usize = 16;
/// Compression level of zstd.
const LEVEL: i32 = 3;

/// The place of an answer.
pub(super) struct Kept(PathBuf);

impl Kept {
    /// Finds the place of the answer for a builder tree. `None` for the host, whose Portage may change at any time, and for a repository
    /// that cannot be read.
    pub(super) fn of(place: &Place<'_>) -> Option<Self> {
        let Below::Stage3(sha512) = place.base.below() else { return None };
        // A step before the packages may have changed anything.
        if place.job.steps.iter().any(|step| step.at <= Phase::BeforePackages) {
            return None;
        }
        let mut state = State { hasher: Hasher::with(&[Algorithm::Sha256], false), files: 0 };
        settings::command(true).iter().for_each(|word| state.field(word.as_bytes()));
        state.field(sha512.hex().as_bytes());
        state.field(place.configuration.as_bytes());
        state.directory(place.job.portage.config.as_deref())?;
        for (recipe, repo) in place.job.portage.repositories.iter().zip(place.resolved.repos.iter()) {
            state.field(repo.location().as_os_str().as_bytes());
            // The store does not change a repository that it has fetched.
            if recipe.location().is_some() {
                state.directory(Some(&repo.location().join("profiles")))?;
                state.file(&repo.layout_file());
            }
        }
        let name = format!("{}.json.zst", &state.hasher.finish().sha256()?.hex()[..32]);
        Some(Self(place.caches.settings.join(name)))
    }

    /// Reads the answer, if the store has it whole.
    pub(super) fn read(&self) -> Option<Vec<Settings>> {
        let file = fs_err::File::open(&self.0).ok()?;
        let mut text = Vec::new();
        zstd::Decoder::new(file).ok()?.take(MAX_ANSWER).read_to_end(&mut text).ok()?;
        settings::parse(&text).ok()
    }

    /// Keeps an answer.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be written.
    pub(super) fn write(&self, answer: &[u8]) -> Result<()> {
        let keeping = || "keeping the settings that Portage reports";
        fs_err::create_dir_all(self.0.parent().unwrap_or(&self.0)).system(keeping)?;
        let bytes = zstd::encode_all(answer, LEVEL).context(Kind::System, keeping)?;
        atomic::replace(&self.0, &bytes, 0o600)
    }
}

/// The state of files: names, sizes and times. Reading all profiles of a repository would take longer than Portage does.
struct State {
    hasher: Hasher,
    files: usize,
}

impl State {
    fn field(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }

    /// Adds a file or a directory. A symlink counts as its target, as it does for Portage.
    fn file(&mut self, path: &Path) -> Option<std::fs::Metadata> {
        self.files += 1;
        let stat = fs_err::metadata(path).ok();
        self.field(path.as_os_str().as_bytes());
        match &stat {
            Some(stat) => {
                let times = [stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec()];
                let numbers = [stat.ino(), stat.size(), u64::from(stat.mode())].into_iter();
                let all = numbers.map(u64::to_le_bytes).chain(times.map(i64::to_le_bytes));
                all.for_each(|number| self.hasher.update(&number));
            }
            None => self.field(b"missing"),
        }
        stat
    }

    /// Adds everything in a directory. `None` if it has too many files or is too deep.
    fn directory(&mut self, path: Option<&Path>) -> Option<()> {
        path.map_or(Some(()), |path| self.tree(path, MAX_DEPTH))
    }

    fn tree(&mut self, path: &Path, depth: usize) -> Option<()> {
        if !self.file(path).is_some_and(|stat| stat.is_dir()) {
            return (self.files < MAX_FILES).then_some(());
        }
        let mut names: Vec<_> =
            fs_err::read_dir(path).ok()?.map(|entry| Some(entry.ok()?.file_name())).collect::<Option<_>>()?;
        names.sort();
        let depth = depth.checked_sub(1)?;
        names.into_iter().try_for_each(|name| self.tree(&path.join(name), depth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(path: &Path) -> Option<String> {
        let mut state = State { hasher: Hasher::with(&[Algorithm::Sha256], false), files: 0 };
        state.directory(Some(path))?;
        Some(state.hasher.finish().sha256()?.hex())
    }

    #[test]
    fn a_state_changes_with_every_file() {
        let place = tempfile::tempdir().unwrap();
        let base = place.path().join("base");
        fs_err::create_dir(&base).unwrap();
        fs_err::write(base.join("make.defaults"), "A=1").unwrap();
        std::os::unix::fs::symlink("nothing", place.path().join("dangling")).unwrap();
        let first = state(place.path()).unwrap();
        assert_eq!(state(place.path()).unwrap(), first);
        fs_err::write(base.join("make.defaults"), "A=23").unwrap();
        let second = state(place.path()).unwrap();
        fs_err::write(base.join("parent"), "..").unwrap();
        let third = state(place.path()).unwrap();
        assert!(first != second && second != third);
        std::os::unix::fs::symlink(".", place.path().join("loop")).unwrap();
        assert_eq!(state(place.path()), None);
    }

    #[test]
    fn an_answer_is_kept_and_a_damaged_one_is_not_read() {
        let place = tempfile::tempdir().unwrap();
        let kept = Kept(place.path().join("new/x.json.zst"));
        assert!(kept.read().is_none());
        let answer = br#"[{"variables": {"CHOST": "c"}, "configured": [], "profile": "p"}]"#;
        kept.write(answer).unwrap();
        assert_eq!(kept.read().unwrap()[0].profile, "p");
        kept.write(b"[{}]").unwrap();
        assert!(kept.read().is_none());
        fs_err::write(&kept.0, "not zstd").unwrap();
        assert!(kept.read().is_none());
    }
}
