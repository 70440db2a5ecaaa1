//! The work directory of one package, below `PORTAGE_TMPDIR`.

use std::path::{Component, Path, PathBuf};

use super::TMPDIR;

/// Returns the `PORTAGE_BUILDDIR` of the package `cpv`.
pub fn builddir(cpv: &str) -> PathBuf {
    Path::new(TMPDIR).join("portage").join(cpv)
}

/// Finds `S`, the directory of the sources, in the text of `temp/environment` of the package `cpv`. The package may have written anything:
/// only a path below its own `WORKDIR` counts.
pub fn sources(environment: &str, cpv: &str) -> Option<PathBuf> {
    let declared = |line: &str| -> Option<PathBuf> {
        let (_, value) = line.strip_prefix("declare -")?.split_once(" S=\"")?;
        let path = PathBuf::from(value.strip_suffix('"')?);
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        (plain && path.starts_with(builddir(cpv).join("work")) && !value.contains(['\\', '$', '`'])).then_some(path)
    };
    environment.lines().find_map(declared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_are_found_below_the_work_directory_only() {
        let of = |text: &str| sources(text, "a/b-1");
        let found = of("declare -x CFLAGS=\"-O2\"\ndeclare -x S=\"/var/tmp/portage/a/b-1/work/b\"\n");
        assert_eq!(found.as_deref(), Some(Path::new("/var/tmp/portage/a/b-1/work/b")));
        for line in [
            "declare -x S=\"/etc\"",
            "declare -x S=\"/var/tmp/portage/a/b-1/work/../../../../etc\"",
            "declare -x S=\"/var/tmp/portage/a/b-1/work/$(id)\"",
            "declare -x DIRS=\"/var/tmp/portage/a/b-1/work/b\"",
            "S=\"/var/tmp/portage/a/b-1/work/b\"",
            "declare -x S=\"",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
