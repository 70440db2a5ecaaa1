//! A build that attacks the host. Root of a tree is not root of the host.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::listing::content;
use super::{Stand, text};
use crate::env::Privilege;

#[test]
fn root_a_hostile_build_leaves_the_host_untouched() {
    let Some(stand) = Stand::sharing(Privilege::Root) else { return };
    let overlay = stand.overlay("masters = gentoo\nthin-manifests = true\n");
    let stand = stand.with_repositories(&[&overlay]).with_own_packages();
    let canary = stand.env.write("canary/file", "sings");
    stand.env.write("canary/directory/file", "sings too");
    let mut sleeper =
        Sleeper(Command::new("sleep").arg("3600").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());

    // Every attempt must fail; the numbers of successful ones are written into the image. They run as root of the tree, without
    // Portage's own sandbox.
    let attempts = [
        format!("echo x >{}", text(&canary)),
        format!("ls {}", text(&stand.env.path("canary"))),
        "echo x >/var/db/repos/gentoo/profiles/repo_name".to_owned(),
        "touch /var/db/repos/own/x".to_owned(),
        "mount -o remount,rw /var/db/repos/own && touch /var/db/repos/own/x".to_owned(),
        "mount -o remount,bind,rw /var/db/repos/own && touch /var/db/repos/own/x".to_owned(),
        "umount -l /var/db/repos/own".to_owned(),
        // These are harmless if they succeed.
        "cd /proc/sys/kernel && pattern=$(<core_pattern) && echo \"${pattern}\" >core_pattern".to_owned(),
        "echo 1 >/proc/sys/vm/drop_caches".to_owned(),
        "echo h >/proc/sysrq-trigger".to_owned(),
        "ls -d /proc/[0-9]* | grep -q 'proc/1$' && ls /proc/1/root/".to_owned(),
        format!("nsenter --target {} --mount true", std::process::id()),
        "mknod /dev/sda0 b 8 0 && head -c 1 /dev/sda0".to_owned(),
        "mount -t sysfs none /sys".to_owned(),
        "chroot /proc/1/root true".to_owned(),
        "unshare --cgroup --mount sh -c 'mount -t cgroup2 none /mnt'".to_owned(),
        "unshare --cgroup --mount sh -c 'mount -t cgroup -o freezer none /mnt'".to_owned(),
        "mount -t cgroup2 none /mnt".to_owned(),
        "umount /proc/sys && echo 1 >/proc/sys/vm/drop_caches".to_owned(),
        "umount -R /proc; mount -t proc none /proc && echo 1 >/proc/sys/vm/drop_caches".to_owned(),
        "unshare --pid --fork --mount --mount-proc sh -c 'echo 1 >/proc/sys/vm/drop_caches'".to_owned(),
        "date -s \"@$(date +%s)\"".to_owned(),
        "echo taken >/proc/sys/kernel/domainname".to_owned(),
        "insmod /nowhere.ko || dmesg".to_owned(),
        "ip link set dev lo mtu 1400".to_owned(),
        "unshare --user --map-root-user true && unshare --user --mount --map-root-user umount -l /var/db/repos/own"
            .to_owned(),
    ];
    let tried: String = attempts
        .iter()
        .enumerate()
        .map(|(number, attempt)| format!("\t( {attempt} ) &>/dev/null && echo {number} >>\"${{out}}\"\n"))
        .collect();
    let body = format!(
        "pkg_postinst() {{\n\tlocal out=${{EROOT}}/succeeded\n\t: >\"${{out}}\"\n{tried}\thostname taken\n\tkill -9 {}\n\ttrue\n}}\n",
        sleeper.0.id()
    );
    stand.ebuild("app-own", "hostile", &body);
    let recipe = stand.recipe("hostile", "[emerge]\npackages = [\"app-own/hostile\"]\n");

    let watched = [PathBuf::from("/etc"), stand.env.path("canary"), overlay];
    let before = watched.each_ref().map(|path| list(path));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let result = stand.built(&recipe).remove(0);
    let after = watched.each_ref().map(|path| list(path));
    let succeeded = content(&result, "succeeded");
    let succeeded: Vec<_> = succeeded.lines().map(|number| &attempts[number.parse::<usize>().unwrap()]).collect();
    assert!(succeeded.is_empty(), "{succeeded:#?}");
    assert_eq!(before, after);
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), host);
    assert!(sleeper.0.try_wait().unwrap().is_none(), "a process of the host was killed");
}

/// A process of the host.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("ending a process of the test's own");
    }
}

/// Returns the inode, size, mode and times of all files below a directory.
pub(super) fn list(directory: &Path) -> BTreeMap<PathBuf, (u64, u64, u32, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let facts = (metadata.ino(), metadata.size(), metadata.mode(), metadata.mtime_nsec(), metadata.ctime_nsec());
        found.insert(path, facts);
    }
    found
}
