//! Architectures: Gentoo's and Funtoo's names for them, and the OCI platform (Go's `GOARCH` and variant) of each.

/// An OCI platform. The operating system is always Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform {
    /// Go's name of the architecture (`GOARCH`).
    pub architecture: &'static str,
    /// The variant, where OCI defines one.
    pub variant: Option<&'static str>,
}

/// A row of the table of architectures.
#[derive(Debug)]
pub struct Arch {
    /// Sub-architectures, as stage3 names begin with them; a `*` stands for any ending.
    names: &'static [&'static str],
    /// The directory below `releases/` on Gentoo's mirrors.
    pub directory: &'static str,
    /// The OCI platform; `None` where Go does not know the architecture.
    pub platform: Option<Platform>,
}

const fn row(
    names: &'static [&'static str],
    directory: &'static str,
    architecture: &'static str,
    variant: Option<&'static str>,
) -> Arch {
    Arch { names, directory, platform: Some(Platform { architecture, variant }) }
}

/// All architectures. The first row that matches counts, so exact names come before patterns.
static TABLE: [Arch; 26] = [
    row(&["alpha*"], "alpha", "alpha", None),
    row(&["amd64", "x32"], "amd64", "amd64", None),
    row(&["arm64*", "aarch64*"], "arm64", "arm64", Some("v8")),
    row(&["armv7*"], "arm", "arm", Some("v7")),
    row(&["armv6*"], "arm", "arm", Some("v6")),
    row(&["armv5*", "armv4*"], "arm", "arm", Some("v5")),
    row(&["arm*"], "arm", "arm", None),
    row(&["hppa*"], "hppa", "hppa", None),
    row(&["ia64"], "ia64", "ia64", None),
    row(&["loong*"], "loong", "loong64", None),
    row(&["m68k*"], "m68k", "m68k", None),
    row(&["mips64el*", "mipsel3*", "mips64r6el*"], "mips", "mips64le", None),
    row(&["mips64*", "mips3*"], "mips", "mips64", None),
    row(&["mipsel*", "mips32r6el*"], "mips", "mipsle", None),
    row(&["mips*"], "mips", "mips", None),
    row(&["ppc64le*", "power8le*", "power9le*"], "ppc", "ppc64le", None),
    row(&["ppc64*", "power*", "970"], "ppc", "ppc64", None),
    row(&["ppc*"], "ppc", "ppc", None),
    row(&["rv32*"], "riscv", "riscv", None),
    row(&["rv64*", "riscv*"], "riscv", "riscv64", None),
    row(&["s390x*"], "s390", "s390x", None),
    row(&["s390*"], "s390", "s390", None),
    Arch { names: &["sh"], directory: "sh", platform: None },
    row(&["sparc*"], "sparc", "sparc64", None),
    row(&["x86"], "x86", "386", None),
    row(&["i486", "i586", "i686"], "x86", "386", None),
];

/// Finds the architecture of a stage3 variant such as `amd64-musl` or `armv7a_hardfp-openrc`.
pub fn of_variant(variant: &str) -> Option<&'static Arch> {
    let name = variant.split('-').next().unwrap_or_default();
    // `sh4`, `sh4eb`, …, but not `sha` or the like.
    let name = match name.strip_prefix("sh") {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => "sh",
        _ => name,
    };
    let fits = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *pattern,
    };
    TABLE.iter().find(|arch| arch.names.iter().any(fits))
}

/// The directories below `releases/` on Gentoo's mirrors.
pub fn directories() -> impl Iterator<Item = &'static str> + Clone {
    TABLE
        .iter()
        .enumerate()
        .filter(|(at, arch)| *at == 0 || TABLE[at - 1].directory != arch.directory)
        .map(|(_, arch)| arch.directory)
}

/// Finds the platform of a directory on Funtoo's server (`x86-64bit`, `arm-64bit`).
pub fn of_funtoo(directory: &str) -> Option<Platform> {
    let name = match directory {
        "x86-64bit" => "amd64",
        "x86-32bit" => "x86",
        "arm-64bit" => "arm64",
        "arm-32bit" => "arm",
        "riscv-64bit" => "riscv",
        other => other,
    };
    of_variant(name)?.platform
}

/// Finds the platform of a profile such as `default/linux/amd64/23.0/musl`.
pub fn of_profile(path: &str) -> Option<Platform> {
    let mut parts = path.split('/').skip_while(|part| *part != "linux").skip(1);
    of_variant(parts.next()?)?.platform
}

/// The platform of this machine.
pub fn host() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "loongarch64" => "loong64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "powerpc" => "ppc",
        "mips" if cfg!(target_endian = "little") => "mipsle",
        "mips64" if cfg!(target_endian = "little") => "mips64le",
        other => other,
    };
    Platform { architecture, variant: (architecture == "arm64").then_some("v8") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage3_variants_have_their_platform_and_directory() {
        let cases = [
            ("amd64-musl", "amd64", "amd64", None),
            ("amd64-openrc-splitusr", "amd64", "amd64", None),
            ("x32-openrc", "amd64", "amd64", None),
            ("i686-openrc", "x86", "386", None),
            ("arm64-systemd", "arm64", "arm64", Some("v8")),
            ("aarch64_be-openrc", "arm64", "arm64", Some("v8")),
            ("armv7a_hardfp-openrc", "arm", "arm", Some("v7")),
            ("armv6j_hardfp_musl-openrc", "arm", "arm", Some("v6")),
            ("armv4tl-openrc", "arm", "arm", Some("v5")),
            ("mipsel3_n32-openrc", "mips", "mips64le", None),
            ("ppc64le-openrc", "ppc", "ppc64le", None),
            ("power9le-openrc", "ppc", "ppc64le", None),
            ("rv64_lp64d-openrc", "riscv", "riscv64", None),
            ("rv32_ilp32d-openrc", "riscv", "riscv", None),
            ("loong-openrc", "loong", "loong64", None),
        ];
        for (name, directory, architecture, variant) in cases {
            let arch = of_variant(name).unwrap();
            assert_eq!(
                (arch.directory, arch.platform),
                (directory, Some(Platform { architecture, variant })),
                "{name}"
            );
        }
        assert_eq!(of_variant("sh4-openrc").map(|arch| (arch.directory, arch.platform)), Some(("sh", None)));
        assert!(of_variant("vax-openrc").is_none() && of_variant("sha-openrc").is_none());
    }

    #[test]
    fn every_directory_is_listed_once() {
        let listed: Vec<_> = directories().collect();
        let distinct: std::collections::BTreeSet<_> = TABLE.iter().map(|arch| arch.directory).collect();
        assert_eq!(listed.len(), distinct.len(), "{listed:?}");
    }

    #[test]
    fn funtoo_directories_and_profiles_have_their_platform() {
        assert_eq!(of_funtoo("x86-64bit").unwrap().architecture, "amd64");
        assert_eq!(of_funtoo("arm-64bit").unwrap().variant, Some("v8"));
        assert_eq!(of_profile("default/linux/arm64/23.0").unwrap().architecture, "arm64");
        assert_eq!(of_profile("musl-python3"), None);
    }
}
