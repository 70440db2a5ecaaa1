//! `[build]`, `[emerge]` and `[strip]`: what is made, where, of which packages, and what is left out of it.

use crate::base::text::{escaped, nearest, quoted};
use std::path::{Path, PathBuf};

use super::repositories::{Known, similar};
use super::{Checker, Must, Word, absolute};
use crate::recipe::diagnostic::{Finding, Place, Problem};
use crate::recipe::parse::Is;
use crate::recipe::{Build, Compression, Emerge, ProfileName, Strip, TreeKind, atom, words};

/// More jobs than this is a typing error.
const JOBS: i64 = 1024;

impl Checker<'_> {
    /// The section, and the kind, which other defaults hang on; none when the kind is wrong.
    pub(super) fn build(&mut self, known: &Known) -> Option<(Option<Build>, TreeKind)> {
        let profile = match self.word("build", "profile") {
            Some(word) => self.profile(&word, known),
            None => {
                self.texts.find(Finding::missing("no profile is given").help(
                    "in [build] write profile = \"repository:path\"; it says what the system is made of, and \
                               neither an image nor a stage4 can be configured without one",
                ));
                None
            }
        };
        let unblocker = self.word("build", "unblocker-profile");
        let unblocker_profile = unblocker.and_then(|word| self.profile(&word, known));
        let outdir = self.outdir();
        let compression = self.compression().unwrap_or_default();
        let image_name = self.word("build", "image-name");
        let image_name = image_name
            .and_then(|word| self.follow(&word, "image name", |text| words::image_name(text, compression.suffix())));
        let storage = self.word("build", "workdir-storage");
        let workdir_tmpfs = storage.and_then(|word| self.follow(&word, "workdir storage", words::storage)).flatten();
        let kind = self.kind()?;
        let atoms =
            self.each("build", "baselayout-atoms", "package", |text| atom::package(text).map(|()| text.to_owned()));
        let baselayout_atoms = atoms.unwrap_or_else(|| match kind {
            TreeKind::Image => vec!["sys-apps/baselayout".to_owned()],
            TreeKind::Stage4 => Vec::new(),
        });
        let include_system = self.bool("build", "include-system").unwrap_or(false);
        let keep_failed = self.bool("build", "keep-failed").unwrap_or(true);
        let build = profile.zip(outdir).map(|(profile, outdir)| Build {
            profile,
            unblocker_profile,
            kind,
            outdir,
            include_system,
            baselayout_atoms,
            image_name,
            workdir_tmpfs,
            keep_failed,
            compression,
        });
        Some((build, kind))
    }

    fn kind(&mut self) -> Option<TreeKind> {
        let Some(word) = self.word("build", "kind") else { return Some(TreeKind::Image) };
        self.follow(&word, "kind", |text| match text {
            "image" => Ok(TreeKind::Image),
            "stage4" => Ok(TreeKind::Stage4),
            other => {
                let meant = nearest(other, ["image", "stage4"]).map(|meant| format!("did you mean \"{meant}\"?"));
                Err(Problem { label: "neither image nor stage4".to_owned(), help: meant })
            }
        })
    }

    fn compression(&mut self) -> Option<Compression> {
        let word = self.word("build", "compression")?;
        self.follow(&word, "compression", |text| match text {
            "gzip" => Ok(Compression::Gzip),
            "gzip-fast" => Ok(Compression::GzipFast),
            "xz" => Ok(Compression::Xz),
            "zstd" => Ok(Compression::Zstd),
            "none" => Ok(Compression::None),
            _ => Err(Problem::new("not supported").help("one of gzip, gzip-fast, xz, zstd and none")),
        })
    }

    fn outdir(&mut self) -> Option<PathBuf> {
        if let Some(word) = self.word("build", "outdir") {
            let path = self.path(&word, Must::BeMade)?;
            if path == Path::new("/") {
                self.texts.problem(
                    &word.at,
                    "results do not go to the root directory",
                    Problem::new("the root directory"),
                );
                return None;
            }
            return Some(path);
        }
        let dir = self.texts.main().map_or(self.request.cwd.as_path(), |main| main.dir.as_path()).to_owned();
        match absolute(&dir, Path::new("out")) {
            Ok(path) => Some(path),
            Err(error) => {
                let title = format!("the recipe's directory {} is gone: {error}", escaped(&dir.to_string_lossy()));
                self.texts.find(Finding::missing(title));
                None
            }
        }
    }

    /// A profile that is there, in one of the recipe's repositories.
    fn profile(&mut self, word: &Word, known: &Known) -> Option<ProfileName> {
        let profile = self.follow(word, "profile", words::profile)?;
        let repository = match &profile.repo {
            Some(name) => known.directories().find(|known| known.name == *name),
            None => known.main(),
        };
        let Some(repository) = repository else {
            // One that is yet to be fetched may have that name.
            if let (Some(name), true) = (&profile.repo, known.complete()) {
                let mut finding = Finding::at(
                    &word.at,
                    format!("no repository is named {}", quoted(name)),
                    "not one of the recipe's",
                );
                if let Some(meant) = nearest(name, known.directories().map(|known| known.name.as_str())) {
                    finding = finding.help(format!("did you mean `{}:{}`?", escaped(meant), escaped(&profile.path)));
                }
                self.texts.find(finding.help(known.listed()));
                return None;
            }
            return Some(profile);
        };
        let mut dir = repository.location.join("profiles");
        let mut found = Vec::new();
        for part in profile.path.split('/') {
            let next = dir.join(part);
            if !next.is_dir() {
                let meant = similar(&dir, part).map(|meant| {
                    found.push(meant.as_str().to_owned());
                    format!("did you mean `{}:{}`?", escaped(&repository.name), found.join("/"))
                });
                let label = format!("{} has no {}", escaped(&dir.to_string_lossy()), quoted(part));
                let title = format!("no such profile: {}", quoted(&word.text));
                self.texts.problem(&word.at, title, Problem { label, help: meant });
                return None;
            }
            found.push(part.to_owned());
            dir = next;
        }
        Some(profile)
    }

    pub(super) fn emerge(&mut self, kind: TreeKind) -> Option<Emerge> {
        if self.bool("emerge", "ask") == Some(true)
            && let Some(at) = self.place("emerge", "ask")
        {
            let problem =
                Problem::new("nobody is there to answer during a build").help("`--dry-run` shows what would be done");
            self.texts.problem(&at, "emerge cannot ask", problem);
        }
        let packages = self.packages(kind);
        let options = self
            .each("emerge", "options", "option for emerge", |option| words::option(option).map(|()| option.to_owned()));
        let jobs = match self.value("emerge", "jobs").map(|value| (value.at.clone(), &value.is)) {
            Some((at, Is::Int(number))) => match u32::try_from(*number) {
                Ok(jobs) if i64::from(jobs) <= JOBS => Some(jobs),
                _ => {
                    let problem = Problem::new(format!("0 to {JOBS}")).help("0 means one per processor");
                    self.texts.problem(&at, "not a number of jobs", problem);
                    None
                }
            },
            _ => Some(0),
        };
        Some(Emerge { packages: packages?, jobs: jobs?, options: options.unwrap_or_default() })
    }

    fn packages(&mut self, kind: TreeKind) -> Option<Vec<String>> {
        let written = self.list("emerge", "packages");
        if written.as_ref().is_some_and(Vec::is_empty) {
            let at = self.place("emerge", "packages")?;
            let problem = Problem::new("empty").help("@profile is what the profile lists");
            self.texts.problem(&at, "no package is given", problem);
            return None;
        }
        if written.is_none() && kind == TreeKind::Stage4 {
            let finding = Finding::missing("a stage4 is a stage3 and some packages, but no package is given");
            self.texts.find(finding.help("in [emerge] write packages = [\"…\"]"));
            return None;
        }
        let packages = self.each("emerge", "packages", "package", |text| atom::package(text).map(|()| text.to_owned()));
        Some(packages.unwrap_or_else(|| vec!["@profile".to_owned()]))
    }

    pub(super) fn strip(&mut self) -> Strip {
        let doc = self.bool("strip", "doc").unwrap_or(false);
        let paths = self.each("strip", "paths", "path to strip", words::strip_path).unwrap_or_default();
        Strip { doc, paths }
    }

    fn place(&self, section: &str, key: &str) -> Option<Place> {
        self.value(section, key).map(|value| value.at.clone())
    }
}
