//! Gentoo's names of architectures → those of OCI (Go's `GOARCH` and its variants).

use std::path::Path;

use crate::oci::layout::machine;
use crate::recipe::{Base, Job};

/// An OCI platform; the operating system is always Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform {
    /// Go's name of the architecture.
    pub architecture: &'static str,
    /// The variant, where OCI names one.
    pub variant: Option<&'static str>,
}

/// The platform of what `job` builds: from the stage3's variant or file name, else the profile's path, else this machine's.
pub fn of_job(job: &Job) -> Platform {
    let stage3 = match &job.source.base {
        Base::Gentoo { stage3, .. } => gentoo(stage3),
        Base::Direct(direct) => funtoo(&direct.arch),
        Base::File { path, .. } => of_file(path),
        Base::Host { .. } => None,
    };
    stage3.or_else(|| of_profile(&job.build.profile.path)).unwrap_or_else(host)
}

/// The platform of a stage3 variant such as `amd64-musl` or `armv7a_hardfp-openrc`.
fn gentoo(variant: &str) -> Option<Platform> {
    let first = variant.split('-').next().unwrap_or_default();
    let (architecture, variant) = match first {
        // x32 is a variant's second word of amd64 too; Go knows it by no name of its own.
        "amd64" | "x32" => ("amd64", None),
        "x86" | "i486" | "i586" | "i686" => ("386", None),
        "arm64" | "aarch64" | "aarch64_be" => ("arm64", Some("v8")),
        "hppa" | "hppa1.1" | "hppa2.0" => ("hppa", None),
        "ia64" => ("ia64", None),
        "alpha" => ("alpha", None),
        "loong" => ("loong64", None),
        "m68k" => ("m68k", None),
        "mips64el" | "mipsel3" | "mips64r6el" => ("mips64le", None),
        "mips64" | "mips3" => ("mips64", None),
        "mipsel" | "mips32r6el" => ("mipsle", None),
        "mips" => ("mips", None),
        "ppc64le" | "power8le" | "power9le" => ("ppc64le", None),
        "ppc64" | "970" => ("ppc64", None),
        "ppc" => ("ppc", None),
        "riscv" | "rv64_lp64d" | "rv64_lp64" => ("riscv64", None),
        "rv32_ilp32d" | "rv32_ilp32" => ("riscv", None),
        "s390x" => ("s390x", None),
        "s390" => ("s390", None),
        "sparc" | "sparc64" => ("sparc64", None),
        arm if arm.starts_with("armv7") => ("arm", Some("v7")),
        arm if arm.starts_with("armv6") => ("arm", Some("v6")),
        arm if arm.starts_with("armv5") || arm.starts_with("armv4") => ("arm", Some("v5")),
        "arm" => ("arm", None),
        _ => return None,
    };
    Some(Platform { architecture, variant })
}

/// The platform of a directory of Funtoo's server.
fn funtoo(arch: &str) -> Option<Platform> {
    let (architecture, variant) = match arch {
        "x86-64bit" => ("amd64", None),
        "x86-32bit" => ("386", None),
        "arm-64bit" => ("arm64", Some("v8")),
        "arm-32bit" => ("arm", None),
        "riscv-64bit" => ("riscv64", None),
        other => return gentoo(other),
    };
    Some(Platform { architecture, variant })
}

fn of_file(path: &Path) -> Option<Platform> {
    gentoo(path.file_name()?.to_str()?.strip_prefix("stage3-")?)
}

/// The platform of a profile path such as `default/linux/amd64/23.0/musl`.
fn of_profile(path: &str) -> Option<Platform> {
    let mut parts = path.split('/').skip_while(|part| *part != "linux").skip(1);
    gentoo(parts.next()?)
}

fn host() -> Platform {
    let architecture = machine();
    Platform { architecture, variant: (architecture == "arm64").then_some("v8") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_of_gentoo_have_their_platform() {
        let cases = [
            ("amd64-musl", "amd64", None),
            ("amd64-openrc-splitusr", "amd64", None),
            ("i686-openrc", "386", None),
            ("arm64-systemd", "arm64", Some("v8")),
            ("armv7a_hardfp-openrc", "arm", Some("v7")),
            ("armv6j_hardfp_musl-openrc", "arm", Some("v6")),
            ("ppc64le-openrc", "ppc64le", None),
            ("rv64_lp64d-openrc", "riscv64", None),
            ("loong-openrc", "loong64", None),
        ];
        for (name, architecture, variant) in cases {
            assert_eq!(gentoo(name), Some(Platform { architecture, variant }), "{name}");
        }
        assert_eq!(gentoo("vax-openrc"), None);
    }

    #[test]
    fn a_file_is_known_by_its_name_and_a_profile_by_its_path() {
        assert_eq!(of_file(Path::new("/x/stage3-ppc64le-x-1.tar.xz")).unwrap().architecture, "ppc64le");
        assert_eq!(of_file(Path::new("/x/mine.tar.xz")), None);
        assert_eq!(of_profile("default/linux/arm64/23.0").unwrap().architecture, "arm64");
        assert_eq!(of_profile("musl-python3"), None);
    }
}
