//! The memory of the machine, and the limits that control groups set.

use std::path::{Path, PathBuf};

/// Bytes of memory that this process may use: the machine's, or less if its control group or one above has a limit; 0 if unknown.
pub(super) fn read() -> u64 {
    let machine = nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total());
    let groups = fs_err::read_to_string("/proc/self/cgroup").unwrap_or_default();
    allowed(&groups, Path::new("/sys/fs/cgroup")).map_or(machine, |allowed| allowed.min(machine))
}

/// Returns the lowest limit of the control groups in the text of `/proc/self/cgroup`, whose hierarchies are mounted in `top`.
///
/// A container may see its own group at the top although the text has the path from outside: a missing file sets no limit.
fn allowed(groups: &str, top: &Path) -> Option<u64> {
    let limit = |file: PathBuf| fs_err::read_to_string(top.join(file)).ok()?.trim().parse::<u64>().ok();
    groups.lines().flat_map(files).filter_map(limit).min()
}

/// Returns the files with the memory limits for a line of `/proc/self/cgroup`, of version 2 or of version 1.
fn files(line: &str) -> Vec<PathBuf> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { return Vec::new() };
    let (mount, names): (_, &[&str]) = match controllers {
        "" => ("", &["memory.max", "memory.high"]),
        _ if controllers.split(',').any(|name| name == "memory") => ("memory", &["memory.limit_in_bytes"]),
        _ => return Vec::new(),
    };
    let group = Path::new(path.trim_start_matches('/'));
    let above = group.ancestors().map(|group| Path::new(mount).join(group));
    above.flat_map(|group| names.iter().map(move |name| group.join(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a directory with these files of control groups and their contents.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        for (file, text) in files {
            fs_err::create_dir_all(top.path().join(file).parent().unwrap()).unwrap();
            fs_err::write(top.path().join(file), text).unwrap();
        }
        top
    }

    #[test]
    fn the_lowest_limit_of_all_groups_above_counts() {
        let top = tree(&[
            ("a/memory.max", "4000\n"),
            ("a/b/memory.max", "max\n"),
            ("a/b/memory.high", "3000\n"),
            ("a/b/c/memory.max", "5000\n"),
            ("other/memory.max", "1\n"),
        ]);
        let allowed = |groups| allowed(groups, top.path());
        assert_eq!(allowed("0::/a/b/c\n"), Some(3000));
        assert_eq!(allowed("0::/a/b\n"), Some(3000));
        assert_eq!(allowed("0::/a/none:with:colons\n"), Some(4000));
        assert_eq!(allowed("0::/\n"), None);
        assert_eq!(allowed(""), None);
        assert_eq!(allowed("nonsense\n0:\n"), None);
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_top() {
        let top = tree(&[("memory.max", "7000\n"), ("memory/memory.limit_in_bytes", "6000\n")]);
        assert_eq!(allowed("0::/\n", top.path()), Some(7000));
        assert_eq!(allowed("0::/../outside\n", top.path()), Some(7000));
        assert_eq!(allowed("4:memory:/docker/0123\n0::/\n", top.path()), Some(6000));
    }

    #[test]
    fn limits_of_version_1_are_read() {
        let top = tree(&[
            ("memory/a/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/a/b/memory.limit_in_bytes", "2000\n"),
            ("cpu/a/b/memory.limit_in_bytes", "1\n"),
        ]);
        let groups = "9:name=systemd:/a/b\n4:cpu:/a/b\n3:blkio,memory:/a/b\n0::/\n";
        assert_eq!(allowed(groups, top.path()), Some(2000));
        assert_eq!(allowed("3:memory:/a\n", top.path()), Some(9_223_372_036_854_771_712));
        assert_eq!(allowed("4:cpu:/a/b\n", top.path()), None);
    }
}
