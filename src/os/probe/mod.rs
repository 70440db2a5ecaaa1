//! Facts about this machine and this process that must be read from files. [`look`] reads them at the start: once a hostile tree is
//! open, this program makes no path lookups except inside the tree.

mod ram;

use std::sync::OnceLock;

use crate::base::error::{Error, Result};
use crate::os::userns::owners;

/// Facts that stay the same for as long as this process runs.
#[derive(Debug)]
struct Facts {
    processors: usize,
    ram: u64,
    umask: u32,
}

fn facts() -> &'static Facts {
    static FACTS: OnceLock<Facts> = OnceLock::new();
    FACTS.get_or_init(|| Facts {
        processors: std::thread::available_parallelism().map_or(1, |count| count.get()),
        ram: ram::read(),
        umask: read_umask(),
    })
}

/// Reads all facts. Call it at the start, as the user and in the user namespace that the work is done in.
pub fn look() {
    facts();
    owners::look();
}

/// The number of processors that this process may use, by its affinity and its control groups.
pub fn processors() -> usize {
    facts().processors
}

/// Bytes of memory that this process may use: the machine's, or less if a control group has a limit; 0 if unknown.
pub fn ram() -> u64 {
    facts().ram
}

/// The umask that this process was started with; all bits if it is unknown.
pub fn umask() -> u32 {
    facts().umask
}

fn read_umask() -> u32 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o777)
}

/// The oldest kernel that this program works with: mount_setattr(2).
const OLDEST: (u32, u32) = (5, 12);

/// Checks the version of the kernel.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if it is too old.
pub fn check_kernel() -> Result<()> {
    let release = fs_err::read_to_string("/proc/sys/kernel/osrelease").map_err(|error| {
        Error::system("reading the version of the kernel").with_source(error).with_hint("mount /proc")
    })?;
    match version(&release) {
        Some(version) if version < OLDEST => {
            Err(Error::system(format!("this kernel is too old: Linux {}", release.trim()))
                .with_hint(format!("building needs Linux {}.{} or newer", OLDEST.0, OLDEST.1)))
        }
        _ => Ok(()),
    }
}

/// Parses the release of a kernel, such as `6.1.0-13-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Returns whether this machine runs programs of an architecture, both by Go's name: itself, as its 32-bit variant, or through an
/// interpreter (qemu) that the kernel knows.
pub fn runs(wanted: &str, host: &str) -> bool {
    const VARIANTS: [(&str, &str); 7] = [
        ("amd64", "386"),
        ("arm64", "arm"),
        ("ppc64", "ppc"),
        ("s390x", "s390"),
        ("mips64", "mips"),
        ("mips64le", "mipsle"),
        ("riscv64", "riscv"),
    ];
    if wanted == host || VARIANTS.contains(&(host, wanted)) {
        return true;
    }
    let qemu = match wanted {
        "amd64" => "x86_64",
        "386" => "i386",
        "arm64" => "aarch64",
        "loong64" => "loongarch64",
        "riscv" => "riscv32",
        "mipsle" => "mipsel",
        "mips64le" => "mips64el",
        other => other,
    };
    let entries = fs_err::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    let mut texts = entries.filter_map(|entry| fs_err::read_to_string(entry.path()).ok());
    texts.any(|text| emulates(&text, qemu))
}

/// Returns true if an entry of binfmt_misc is enabled and runs qemu for an architecture, by qemu's name. The kernel must have opened the
/// interpreter already (the flag F), because no tree has it.
fn emulates(entry: &str, architecture: &str) -> bool {
    let field = |name: &str| entry.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let program = field("interpreter").and_then(|path| path.rsplit('/').next());
    let program = program.and_then(|name| name.strip_suffix("-static").unwrap_or(name).strip_prefix("qemu-"));
    entry.starts_with("enabled")
        && program == Some(architecture)
        && field("flags:").is_some_and(|flags| flags.contains('F'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_kernels_are_read() {
        assert_eq!(version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(version("5.12-rc1"), Some((5, 12)));
        assert_eq!(version("unknown"), None);
        assert!(version("5.10.234").unwrap() < OLDEST && version("5.12.0").unwrap() >= OLDEST);
    }

    #[test]
    fn a_machine_runs_its_own_programs_and_their_32_bit_variants() {
        assert!(runs("amd64", "amd64") && runs("386", "amd64") && runs("arm", "arm64"));
        assert!(!runs("no-such-architecture", "amd64"));
    }

    #[test]
    fn an_entry_of_binfmt_misc_emulates_one_architecture() {
        let entry =
            "enabled\ninterpreter /usr/libexec/qemu-binfmt/qemu-arm-static\nflags: POCF\noffset 0\nmagic 7f454c46\n";
        assert!(emulates(entry, "arm") && emulates(&entry.replace("-static", ""), "arm"));
        assert!(!emulates(entry, "aarch64") && !emulates(&entry.replace("qemu-arm", "qemu-armeb"), "arm"));
        assert!(!emulates(&entry.replace("enabled", "disabled"), "arm"));
        assert!(!emulates(&entry.replace("POCF", "POC"), "arm"), "the program would have to be in the tree");
        assert!(!emulates("", "arm") && !emulates("enabled\n", "arm"));
    }
}
