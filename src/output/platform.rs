//! Finds the OCI platform of a recipe's image.

use std::path::Path;

use crate::base::arch::{self, Platform};
use crate::recipe::{BaseSpec, Job, ProfileSpec};

/// Finds the platform of the image that `job` builds: by the stage3's variant or file name, otherwise by the profile's path, otherwise
/// this machine's.
pub fn of_job(job: &Job) -> Platform {
    let stage3 = match &job.source.base {
        BaseSpec::Gentoo { stage3, .. } => arch::of_variant(stage3).and_then(|arch| arch.platform),
        BaseSpec::SignedFile(direct) => arch::of_funtoo(&direct.arch),
        BaseSpec::File { path, .. } => of_file(path),
        BaseSpec::Host { .. } => None,
    };
    let profile = || match &job.build.profile {
        ProfileSpec::Named(name) => arch::of_profile(&name.path),
        ProfileSpec::Parents(names) => names.iter().find_map(|name| arch::of_profile(&name.path)),
        ProfileSpec::Funtoo(parts) => arch::of_funtoo(&parts.arch),
    };
    stage3.or_else(profile).unwrap_or_else(arch::host)
}

fn of_file(path: &Path) -> Option<Platform> {
    arch::of_variant(path.file_name()?.to_str()?.strip_prefix("stage3-")?)?.platform
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_stage3_gives_the_platform() {
        assert_eq!(of_file(Path::new("/x/stage3-ppc64le-x-1.tar.xz")).unwrap().architecture, "ppc64le");
        assert_eq!(of_file(Path::new("/x/mine.tar.xz")), None);
    }
}
