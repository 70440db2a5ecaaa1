//! Hosts of binary packages: Portage's configuration for them, and its refusals of their packages.
//!
//! Portage never asks a host for its index. The build fetches each index once, and Portage reads that copy: so all commands of a build
//! see the same index, and the build knows the text that Portage relied on. Portage does download the packages.

use std::fmt::Write as _;

use crate::base::error::{Error, Result};
use crate::base::text::plain;
use crate::portage::makeconf::line;
use crate::portage::{BINHOST, BINHOST_DIRECTORIES, BINHOST_INDEXES, TRUST_HOME};
use crate::recipe::{Binhost, Job};

mod host_index;
mod refusal;

pub use host_index::{HostIndex, package_name};
pub use refusal::refusal;

/// The first version of Portage with `verify-signature` in binrepos.conf. Older versions ignore the key.
pub const WITH_VERIFICATION: [u32; 3] = [3, 0, 74];

/// Refuses addresses that cannot be written to a configuration file.
pub(super) fn check(job: &Job) -> Result<()> {
    for host in &job.portage.binhost {
        let bad =
            |c: char| c.is_control() || (host.directory().is_none() && (c.is_whitespace() || "\"'\\$%`".contains(c)));
        if host.url.is_empty() || host.url.contains(bad) {
            return Err(Error::usage(format!("portage.binhost: ‘{}’ is not a URL", plain(&host.url, 200))));
        }
    }
    Ok(())
}

/// Returns true if a host of the recipe must sign its packages.
pub fn must_verify(job: &Job) -> bool {
    job.portage.binhost.iter().any(|host| !host.allow_unsigned)
}

/// Returns the address in the sandbox at which Portage finds the packages of the host with this number (from 1), if they are in a
/// directory of this machine.
pub fn directory(host: &Binhost, number: usize) -> Option<String> {
    host.directory().map(|_| format!("{BINHOST_DIRECTORIES}/{number}"))
}

/// Writes binrepos.conf. Hosts that the user's own files add must sign, too, unless the files say otherwise.
pub(super) fn binrepos_conf(job: &Job) -> String {
    let hosts = &job.portage.binhost;
    let mut text = "[DEFAULT]\nverify-signature = true\n\n".to_owned();
    for (index, host) in hosts.iter().enumerate() {
        // Portage asks the host with the highest priority first.
        let (number, earlier) = (index + 1, i32::try_from(hosts.len() - index).unwrap_or(i32::MAX));
        let _ = write!(
            text,
            "[quern-{number}]\npriority = {}\nsync-uri = file://{BINHOST_INDEXES}/{number}\nlocation = {BINHOST}/quern-{number}\n\
             verify-signature = {}\n\n",
            host.priority.unwrap_or(earlier),
            !host.allow_unsigned
        );
    }
    text
}

/// Writes the variables of make.conf that make Portage verify signatures with the recipe's certificates only.
pub(super) fn make_conf(job: &Job) -> String {
    if !must_verify(job) {
        return String::new();
    }
    [
        ("BINPKG_GPG_VERIFY_GPG_HOME", TRUST_HOME),
        // Portage's helper would fetch Gentoo's keys and trust them.
        ("PORTAGE_TRUST_HELPER", "/bin/true"),
        // This feature would accept every signature.
        ("FEATURES", "${FEATURES} -binpkg-ignore-signature"),
    ]
    .into_iter()
    .map(|(name, value)| line(name, value))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portage::fixture::job;
    use crate::recipe::fixture::binhost as host;

    #[test]
    fn earlier_hosts_come_first_and_must_sign() {
        let mut job = job(Vec::new());
        assert_eq!(make_conf(&job), "");
        job.portage.binhost = vec![host("https://one.example"), host("https://two.example")];
        job.portage.binhost[1].allow_unsigned = true;
        let text = binrepos_conf(&job);
        let one = "[quern-1]\npriority = 2\nsync-uri = file:///quern/binhost/1\nlocation = /var/cache/binhost/quern-1\n\
                   verify-signature = true\n";
        let two = "[quern-2]\npriority = 1\nsync-uri = file:///quern/binhost/2\nlocation = /var/cache/binhost/quern-2\n\
                   verify-signature = false\n";
        assert_eq!(text, format!("[DEFAULT]\nverify-signature = true\n\n{one}\n{two}\n"));
        assert!(make_conf(&job).contains("BINPKG_GPG_VERIFY_GPG_HOME=\"/quern/gnupg\"\n"));
        assert!(make_conf(&job).ends_with("FEATURES=\"${FEATURES} -binpkg-ignore-signature\"\n"));
        job.portage.binhost.remove(0);
        assert_eq!(make_conf(&job), "", "nothing is verified");
    }

    #[test]
    fn addresses_cannot_add_lines() {
        let mut job = job(Vec::new());
        for url in ["", "http://x\n[evil]", "http://x/%(home)s", "http://x/ y", "file:///a\nb"] {
            job.portage.binhost = vec![host(url)];
            assert!(check(&job).is_err(), "{url:?}");
        }
        job.portage.binhost = vec![host("file:///a b")];
        assert!(check(&job).is_ok());
    }
}
