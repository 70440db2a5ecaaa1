//! `[build]`, `[emerge]` and `[strip]`: the kind and the place of the results, the packages, and the files to leave out.

use std::path::{Path, PathBuf};

use super::path::{Must, absolute};
use super::repositories::Known;
use super::{Checker, unchanged};
use crate::base::text::{escaped, nearest};
use crate::recipe::diagnostic::{Finding, Place, Problem};
use crate::recipe::parse::Is;
use crate::recipe::variables::tree_name;
use crate::recipe::{Build, Compression, Emerge, SbomFormat, Strip, TreeKind, atom, package_files, words};

/// The limit on `jobs`. A greater number is a typing error.
pub(super) const MAX_JOBS: i64 = 1024;

/// The limit on times, in seconds since 1970: the year 9999, the last that all formats have.
const MAX_EPOCH: u64 = 253_402_300_799;

impl Checker<'_> {
    /// Returns the section and the kind, on which other defaults depend; `None` if the kind is wrong.
    pub(super) fn build(&mut self, known: &Known) -> Option<(Option<Build>, TreeKind)> {
        let profile = match self.value("build", "profile").cloned() {
            Some(value) => self.profile_spec(&value, known),
            None => {
                self.texts.find(
                    Finding::missing("no profile is given").help("in [build] write profile = \"repository:path\""),
                );
                None
            }
        };
        let line = |line: &str| package_files::line("packages", line);
        let profile_packages = self.each("build", "profile-packages", "line of packages", line).unwrap_or_default();
        let unblocker = self.word("build", "unblocker-profile");
        let unblocker_profile = unblocker.and_then(|word| self.profile(&word, known));
        let outdir = self.outdir();
        let compression = self.compression().unwrap_or_default();
        let image_name = self.word("build", "image-name");
        let image_name = image_name
            .and_then(|word| self.follow(&word, "image name", |text| words::image_name(text, compression.suffix())));
        let storage = self.word("build", "workdir-storage");
        let workdir_tmpfs = storage.and_then(|word| self.follow(&word, "workdir storage", words::storage)).flatten();
        let (kind, packages_only) = self.kind()?;
        let atoms = self.each("build", "baselayout-atoms", "package", unchanged(atom::package));
        // An image that starts from an image has a base layout.
        let laid_out = self.parent_kind() == Some(TreeKind::Image);
        let baselayout_atoms = atoms.unwrap_or_else(|| match kind {
            TreeKind::Image if !laid_out => vec!["sys-apps/baselayout".to_owned()],
            TreeKind::Image | TreeKind::Stage4 => Vec::new(),
        });
        let include_system = self.bool("build", "include-system").unwrap_or(false);
        let keep_failed = self.bool("build", "keep-failed").unwrap_or(true);
        let epoch = self.epoch();
        let sbom = self.sbom();
        let build = profile.zip(outdir).map(|(profile, outdir)| Build {
            profile,
            profile_packages,
            unblocker_profile,
            kind,
            packages_only,
            outdir,
            include_system,
            baselayout_atoms,
            image_name,
            workdir_tmpfs,
            keep_failed,
            compression,
            epoch,
            sbom,
        });
        Some((build, kind))
    }

    fn sbom(&mut self) -> Vec<SbomFormat> {
        let format = |text: &str| match text {
            "spdx" => Ok(SbomFormat::Spdx),
            "cyclonedx" => Ok(SbomFormat::CycloneDx),
            _ => Err(Problem::new("not a form of a bill of materials").help("use spdx and cyclonedx")),
        };
        let mut forms = self.each("build", "sbom", "form", format).unwrap_or_default();
        forms.sort_by_key(|form| form.suffix());
        forms.dedup();
        forms
    }

    fn epoch(&mut self) -> Option<u64> {
        let Some((at, Is::Int(seconds))) = self.value("build", "epoch").map(|value| (value.at.clone(), &value.is))
        else {
            return None;
        };
        let epoch = u64::try_from(*seconds).ok().filter(|seconds| *seconds <= MAX_EPOCH);
        if epoch.is_none() {
            let problem = Problem::new("not a number of seconds since 1970").help("for example 1700000000");
            self.texts.problem(&at, "not a valid time", problem);
        }
        epoch
    }

    /// Returns the kind of the tree, and true if only its binary packages are a result.
    fn kind(&mut self) -> Option<(TreeKind, bool)> {
        let Some(word) = self.word("build", "kind") else { return Some((TreeKind::Image, false)) };
        self.follow(&word, "kind", |text| match text {
            "image" => Ok((TreeKind::Image, false)),
            "packages" => Ok((TreeKind::Image, true)),
            "stage4" => Ok((TreeKind::Stage4, false)),
            other => {
                let known = ["image", "packages", "stage4"];
                let meant = nearest(other, known).map(|meant| format!("did you mean \"{meant}\"?"));
                Err(Problem { label: "not image, packages or stage4".to_owned(), help: meant })
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
            _ => Err(Problem::new("not supported").help("use gzip, gzip-fast, xz, zstd or none")),
        })
    }

    fn outdir(&mut self) -> Option<PathBuf> {
        if let Some(word) = self.word("build", "outdir") {
            let path = self.path(&word, Must::BeMade)?;
            if path == Path::new("/") {
                let problem = Problem::new("the root directory");
                self.texts.problem(&word.at, "the root directory cannot be the outdir", problem);
                return None;
            }
            return Some(self.in_tree(path));
        }
        let dir = match &self.family.place {
            Some(place) => place.root.clone(),
            None => self.texts.main().map_or(self.request.cwd.as_path(), |main| main.dir.as_path()).to_owned(),
        };
        match absolute(&dir, Path::new("out")) {
            Ok(path) => Some(self.in_tree(path)),
            Err(error) => {
                let dir = escaped(&dir.to_string_lossy());
                self.texts.find(Finding::missing(format!("cannot open the recipe's directory {dir}: {error}")));
                None
            }
        }
    }

    /// Returns the directory below `outdir` in which an image of a tree has its results.
    fn in_tree(&self, outdir: PathBuf) -> PathBuf {
        let Some(place) = &self.family.place else { return outdir };
        let Some((_, above)) = place.names.split_last() else { return outdir };
        above.iter().fold(outdir.join(place.tree_name(tree_name(self.tree))), |path, name| path.join(name))
    }

    pub(super) fn emerge(&mut self, kind: TreeKind) -> Option<Emerge> {
        if self.bool("emerge", "ask") == Some(true)
            && let Some(at) = self.place("emerge", "ask")
        {
            let problem = Problem::new("a build cannot answer questions")
                .help("`quern-builder build --dry-run` shows what a build would do");
            self.texts.problem(&at, "emerge cannot ask", problem);
        }
        let update_world = self.update_world(kind);
        let packages = self.packages(kind);
        let options = self.each("emerge", "options", "option for emerge", unchanged(words::option));
        let jobs = self.number("emerge", "jobs", 0, "0 means one per processor").map(Option::unwrap_or_default);
        let load_average = self.number("emerge", "load-average", 1, "for example the number of processors");
        Some(Emerge {
            packages: packages?,
            jobs: jobs?,
            load_average: load_average?,
            options: options.unwrap_or_default(),
            binary_only: self.bool("emerge", "binary-only").unwrap_or(false),
            update_world,
            keep_going: self.bool("emerge", "keep-going").unwrap_or(false),
            daemons: Vec::new(),
        })
    }

    /// Returns true if `@world` is updated. It contains `@system`, so an update of an image that lacks it would merge all of it.
    fn update_world(&mut self, kind: TreeKind) -> bool {
        let wanted = self.bool("emerge", "update-world").unwrap_or(false);
        if wanted
            && kind == TreeKind::Image
            && let Some(at) = self.place("emerge", "update-world")
        {
            let problem = Problem::new("@world of an image is all of @system, and an image need not have it")
                .help("set build.kind = \"stage4\", or merge packages again with a [[step]] and emerge");
            self.texts.problem(&at, "only a stage4 has a world to update", problem);
        }
        wanted
    }

    /// Returns the number of a key, at least `least`, or `None` if it is wrong.
    pub(super) fn number(&mut self, section: &str, key: &str, least: u32, help: &str) -> Option<Option<u32>> {
        let Some((at, Is::Int(number))) = self.value(section, key).map(|value| (value.at.clone(), &value.is)) else {
            return Some(None);
        };
        match u32::try_from(*number) {
            Ok(number) if number >= least && i64::from(number) <= MAX_JOBS => Some(Some(number)),
            _ => {
                let problem = Problem::new(format!("{least} to {MAX_JOBS}")).help(help);
                self.texts.problem(&at, format!("not a valid value of `{key}`"), problem);
                None
            }
        }
    }

    fn packages(&mut self, kind: TreeKind) -> Option<Vec<String>> {
        let written = self.list("emerge", "packages");
        // Steps can make an image alone, and an image in a tree may be there for others.
        let parent = self.parent_kind();
        let steps = self.value("", "step").is_some()
            || self.tree.contains_key("system")
            || self.bool("emerge", "update-world") == Some(true)
            || self.family.place.is_some()
            || parent.is_some();
        if written.as_ref().is_some_and(Vec::is_empty) && !steps {
            let at = self.place("emerge", "packages")?;
            let problem = Problem::new("empty").help("\"@profile\" stands for the packages that the profile lists");
            self.texts.problem(&at, "no package is given", problem);
            return None;
        }
        if written.is_none() && (kind == TreeKind::Stage4 || parent == Some(kind)) {
            if steps {
                return Some(Vec::new());
            }
            let finding = Finding::missing("a stage4 needs packages, but no package is given");
            self.texts.find(finding.help("in [emerge] write packages = [\"…\"], or add a [[step]]"));
            return None;
        }
        let packages = self.each("emerge", "packages", "package", unchanged(atom::package));
        Some(packages.unwrap_or_else(|| vec!["@profile".to_owned()]))
    }

    /// Returns the kind of the image that this one starts from.
    fn parent_kind(&self) -> Option<TreeKind> {
        self.family.parent.as_ref().map(|parent| parent.job.build.kind)
    }

    pub(super) fn strip(&mut self) -> Strip {
        let doc = self.bool("strip", "doc").unwrap_or(false);
        let paths = self.each("strip", "paths", "path to strip", words::strip_path).unwrap_or_default();
        let empty = self.each("strip", "empty", "directory to empty", words::image_directory).unwrap_or_default();
        Strip { doc, paths, empty }
    }

    pub(super) fn place(&self, section: &str, key: &str) -> Option<Place> {
        self.value(section, key).map(|value| value.at.clone())
    }
}
