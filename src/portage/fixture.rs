//! Small repositories and jobs for tests.

use std::path::PathBuf;

use crate::recipe::{Job, Origin, ProfileName, ProfileSpec, RepositorySpec, fixture};

pub(crate) struct World {
    directory: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.path(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, text).unwrap();
        path
    }

    pub(crate) fn directory(&self, name: &str) -> RepositorySpec {
        fs_err::create_dir_all(self.path(name)).unwrap();
        RepositorySpec {
            origin: Origin::Location(self.path(name)),
            priority: None,
            masters: None,
            eclass_overrides: None,
            kit: None,
        }
    }

    pub(crate) fn repo_at(&self, directory: &str, name: &str, layout: &str) -> RepositorySpec {
        self.write(&format!("{directory}/profiles/repo_name"), &format!("{name}\n"));
        self.write(&format!("{directory}/metadata/layout.conf"), layout);
        self.directory(directory)
    }

    pub(crate) fn repo(&self, name: &str, layout: &str) -> RepositorySpec {
        let directory: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        self.repo_at(&format!("repo-{directory}"), name, layout)
    }

    /// Makes a main repository `gentoo` and an overlay `quern` that resemble the real ones.
    pub(crate) fn usual(&self) -> Vec<RepositorySpec> {
        let gentoo = self.repo("gentoo", "masters =\nprofile-formats = portage-2 profile-set\n");
        let quern = self.repo("quern", "masters = gentoo\nprofile-formats = portage-2 profile-set\n");
        self.write("repo-gentoo/profiles/base/packages", "*sys-apps/baselayout\n*app-shells/bash\n");
        self.write("repo-gentoo/profiles/arch/amd64/make.defaults", "ARCH=\"amd64\"\nCHOST=\"x86_64-pc-linux-gnu\"\n");
        self.write("repo-gentoo/profiles/default/linux/parent", "../../base\n");
        self.write("repo-gentoo/profiles/default/linux/amd64/23.0/parent", "../..\n../../../../arch/amd64\n");
        self.write("repo-gentoo/profiles/default/linux/amd64/23.0/musl/parent", "..\n");
        self.write(
            "repo-gentoo/profiles/default/linux/amd64/23.0/musl/make.defaults",
            "ELIBC=\"musl\"\nCHOST=\"x86_64-pc-linux-musl\"\n",
        );
        self.write(
            "repo-gentoo/profiles/profiles.desc",
            "# list\namd64\tdefault/linux/amd64/23.0\tstable\namd64 default/linux/amd64/23.0/musl dev\n",
        );
        self.write("repo-quern/profiles/musl-python3/parent", "gentoo:default/linux/amd64/23.0/musl\n");
        self.write("repo-quern/profiles/musl-python3/packages", "# ours\n-*app-shells/bash\ndev-lang/python:3.11\n");
        vec![gentoo, quern]
    }
}

pub(crate) fn profile_name(text: &str) -> ProfileName {
    match text.split_once(':') {
        Some((repo, path)) => ProfileName { repo: Some(repo.into()), path: path.into() },
        None => ProfileName { repo: None, path: text.into() },
    }
}

pub(crate) fn job(repositories: Vec<RepositorySpec>) -> Job {
    let mut job = fixture::job();
    job.name = "musl-python3".into();
    job.source.mirrors = vec!["https://mirror.example/gentoo".into(), "https://other.example".into()];
    job.portage.repositories = repositories;
    job.build.profile = ProfileSpec::Named(profile_name("quern:musl-python3"));
    job.build.baselayout_atoms = vec!["sys-apps/baselayout".into()];
    job.strip.doc = true;
    job
}
