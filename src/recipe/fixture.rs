//! A small recipe for tests.

use super::*;

/// Returns the recipe of an image of `@profile`. It names no repository.
pub(crate) fn job() -> Job {
    Job {
        name: "test".to_owned(),
        from: None,
        axes: BTreeMap::new(),
        configurations: Vec::new(),
        path: "test".to_owned(),
        needs: Vec::new(),
        for_packages: false,
        publish: true,
        jobs_images: None,
        keep_layers: None,
        source: Source {
            base: BaseSpec::Gentoo { stage3: "amd64-musl".to_owned(), version: Version::Latest },
            mirrors: vec!["https://mirror.example".to_owned()],
            keyring: None,
            fingerprints: Vec::new(),
            max_age: DEFAULT_MAX_AGE,
            bounds: Bounds::default(),
        },
        portage: Portage {
            repositories: Vec::new(),
            binpkg: None,
            binpkg_shared: false,
            binpkg_write: true,
            distfiles: None,
            binhost: Vec::new(),
            make_conf: BTreeMap::new(),
            env: BTreeMap::new(),
            package_files: BTreeMap::new(),
            config: None,
            patches: None,
            config_files: BTreeMap::new(),
            sets: BTreeMap::new(),
        },
        build: Build {
            profile: ProfileSpec::Named(ProfileName { repo: None, path: "p".to_owned() }),
            profile_packages: Vec::new(),
            unblocker_profile: None,
            kind: TreeKind::Image,
            packages_only: false,
            outdir: "/nonexistent".into(),
            include_system: false,
            baselayout_atoms: Vec::new(),
            image_name: None,
            workdir_tmpfs: None,
            keep_failed: false,
            sbom: Vec::new(),
            compression: Compression::default(),
            epoch: None,
        },
        emerge: Emerge {
            packages: vec!["@profile".to_owned()],
            jobs: 0,
            load_average: None,
            options: Vec::new(),
            binary_only: false,
            update_world: false,
            keep_going: false,
            daemons: Vec::new(),
        },
        accelerate: Accelerate::default(),
        steps: Vec::new(),
        skipped: Vec::new(),
        strip: Strip { doc: false, paths: Vec::new(), empty: Vec::new() },
        split: BTreeMap::new(),
        oci: None,
    }
}

/// Returns a host of binary packages that must sign them.
pub(crate) fn binhost(url: &str) -> Binhost {
    Binhost {
        url: url.to_owned(),
        keyring: None,
        fingerprints: Vec::new(),
        allow_unsigned: false,
        priority: None,
        exclude: Vec::new(),
        only: Vec::new(),
    }
}
