//! The parts of a running Gentoo that a build sees by default. This is an allow list: a path that it does not mention is hidden.

use super::rules::Rule;

/// Directories that a build sees, with the reasons why it needs them.
const SEEN: [(&str, &str); 12] = [
    ("/usr", "programs, libraries and headers"),
    ("/bin", "programs, where they are not in /usr"),
    ("/sbin", "programs, where they are not in /usr"),
    ("/lib", "libraries, where they are not in /usr"),
    ("/lib32", "libraries, where they are not in /usr"),
    ("/lib64", "libraries, where they are not in /usr"),
    ("/libx32", "libraries, where they are not in /usr"),
    ("/opt", "programs of packages that bring them ready-made"),
    ("/etc", "settings of programs and of Portage"),
    ("/var/db/pkg", "the list of installed packages"),
    ("/var/lib/portage", "Portage's state of the installed packages"),
    ("/var/lib/texmf", "files that TeX packages generate"),
];

/// Paths in them that are hidden, with reasons. Most of them are also hidden because ordinary users may not read them.
const HIDDEN: [(&str, &str); 39] = [
    ("/etc/.git", "the history of everything else here"),
    ("/etc/.pwd.lock", "a lock of this machine's account files"),
    ("/etc/NetworkManager", "keys of networks"),
    ("/etc/conf.d", "settings of this machine's services"),
    ("/etc/cron.d", "jobs of this machine"),
    ("/etc/cron.daily", "jobs of this machine"),
    ("/etc/cron.hourly", "jobs of this machine"),
    ("/etc/cron.monthly", "jobs of this machine"),
    ("/etc/cron.weekly", "jobs of this machine"),
    ("/etc/crontab", "jobs of this machine"),
    ("/etc/crypttab", "keys of disks"),
    ("/etc/davfs2", "passwords of shares"),
    ("/etc/docker", "keys of registries"),
    ("/etc/fstab", "mounts of this machine, some with passwords"),
    ("/etc/hostid", "identity of this machine"),
    ("/etc/ipsec.d", "keys of networks"),
    ("/etc/ipsec.secrets", "keys of networks"),
    ("/etc/krb5.keytab", "keys of this machine"),
    ("/etc/kubernetes", "keys of clusters"),
    ("/etc/letsencrypt", "private keys"),
    ("/etc/machine-id", "identity of this machine"),
    ("/etc/openvpn", "keys of networks"),
    ("/etc/portage/binrepos.conf", "hosts of binary packages, some with passwords; the recipe names its own"),
    ("/etc/portage/gnupg", "this machine's key of trust"),
    ("/etc/portage/repos.conf", "where repositories come from; the recipe names its own"),
    ("/etc/ppp", "passwords of networks"),
    ("/etc/quern.toml", "defaults of recipes, some with passwords"),
    ("/etc/samba", "passwords of shares"),
    ("/etc/ssh", "keys of this machine"),
    ("/etc/ssl/private", "private keys"),
    ("/etc/sudoers", "privileges of users of this machine"),
    ("/etc/sudoers.d", "privileges of users of this machine"),
    ("/etc/swanctl", "keys of networks"),
    ("/etc/wireguard", "keys of networks"),
    ("/etc/wpa_supplicant", "keys of networks"),
    ("/etc/zfs", "keys of disks"),
    ("/opt/containerd", "containers of this machine"),
    ("/usr/local", "files that no package owns"),
    ("/usr/src", "sources of this machine's kernel"),
];

/// Directories in which everything is hidden that an ordinary user of the host may not read.
const GUARDED: [&str; 2] = ["/etc", "/opt"];

/// Account files that programs need. A build sees them without passwords.
pub(super) const ACCOUNTS: [&str; 2] = ["/etc/shadow", "/etc/gshadow"];

/// Directories of every system, empty in a build: path and mode.
pub(super) const SKELETON: [(&str, u32); 19] = [
    ("boot", 0o755),
    ("dev", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/db", 0o755),
    ("var/empty", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

/// Symlinks of every system.
pub(super) const LINKS: [(&str, &str); 2] = [("var/lock", "/run/lock"), ("var/run", "/run")];

/// Virtual and remote file systems, by prefixes of their names. They are hidden wherever they are mounted.
const ELSEWHERE: [&str; 27] = [
    "9p",
    "afs",
    "autofs",
    "binfmt_misc",
    "bpf",
    "ceph",
    "cgroup",
    "cifs",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fuse",
    "glusterfs",
    "hugetlbfs",
    "mqueue",
    "nfs",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "smb",
    "sysfs",
    "tracefs",
];

/// Returns the rules for [`SEEN`].
pub(super) fn seen() -> impl Iterator<Item = Rule> {
    SEEN.into_iter().map(|(path, why)| Rule::new(path, true, why))
}

/// Returns the rules for [`HIDDEN`].
pub(super) fn hidden() -> impl Iterator<Item = Rule> {
    HIDDEN.into_iter().map(|(path, why)| Rule::new(path, false, why))
}

/// Returns whether files at `path` are hidden if only their owner may read them.
pub(super) fn is_guarded(path: &std::path::Path) -> bool {
    GUARDED.iter().any(|guarded| path.starts_with(guarded))
}

/// Returns whether a file system of this type is on this machine's disks or in its memory.
pub(super) fn is_local(kind: &str) -> bool {
    !ELSEWHERE.iter().any(|elsewhere| kind.starts_with(elsewhere))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_paths_lie_in_shown_ones() {
        for hidden in hidden() {
            let inside = seen().any(|seen| hidden.path.starts_with(&seen.path) && hidden.path != seen.path);
            assert!(inside, "{} is in nothing that is seen", hidden.path.display());
        }
        assert!(HIDDEN.is_sorted());
        for never in ["/home", "/root", "/var/cache", "/var/log", "/var/spool", "/srv", "/boot", "/mnt", "/data"] {
            assert!(
                !seen().any(|seen| seen.path.starts_with(never) || std::path::Path::new(never).starts_with(&seen.path))
            );
        }
        assert!(is_local("ext4") && is_local("zfs") && is_local("tmpfs") && is_local("overlay") && is_local("fscrypt"));
        assert!(!is_local("nfs4") && !is_local("fuse.sshfs") && !is_local("cgroup2") && !is_local("proc"));
    }
}
