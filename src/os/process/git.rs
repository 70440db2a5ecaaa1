//! The host's git, without any configuration of the host, hooks, filters or prompts.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::helper::Helper;
use crate::base::error::Result;

/// Settings that replace those of a repository.
const SETTINGS: [&str; 13] = [
    "transfer.fsckObjects=true",
    "fetch.unpackLimit=1",
    "fetch.recurseSubmodules=false",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.autocrlf=false",
    "core.fsmonitor=false",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "tar.umask=0022",
];

/// Git in one repository.
#[derive(Debug)]
pub(crate) struct GitProgram {
    env: Vec<(OsString, OsString)>,
    protocols: Vec<String>,
}

impl GitProgram {
    /// Names the repository in `directory`, and the only protocols that git may use: none, or `http` and `https`.
    pub(crate) fn new(directory: &Path, protocols: &[&str]) -> Self {
        let allowed = protocols.join(":");
        let own = [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_SYSTEM", "/dev/null"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_NO_LAZY_FETCH", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ALLOW_PROTOCOL", if allowed.is_empty() { "none" } else { &allowed }),
            ("LC_ALL", "C"),
        ];
        let mut env = inherited(std::env::vars_os());
        env.extend(own.map(|(name, value)| (name.into(), value.into())));
        env.push(("GIT_DIR".into(), directory.into()));
        let protocols = protocols.iter().map(|protocol| format!("protocol.{protocol}.allow=always")).collect();
        Self { env, protocols }
    }

    /// Starts a git command. It cannot write files longer than `largest` bytes.
    pub(crate) fn start(&self, arguments: &[&str], largest: u64) -> Result<Helper> {
        let settings = ["protocol.allow=never"].into_iter().chain(self.protocols.iter().map(String::as_str));
        let settings = settings.chain(SETTINGS).flat_map(|setting| ["-c", setting]);
        let arguments: Vec<String> = settings.chain(arguments.iter().copied()).map(str::to_owned).collect();
        Helper::start("git", &arguments, &self.env, largest)
            .map_err(|error| error.with_hint("a git repository in a recipe needs the program git on this machine"))
    }
}

/// Selects the variables that git inherits: the search path, proxies and CA certificates. Names and values may be any bytes.
fn inherited(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let wanted = |name: &OsStr| {
        let lower = name.to_ascii_lowercase();
        lower.as_encoded_bytes().ends_with(b"_proxy")
            || ["PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|one| OsStr::new(one) == name)
    };
    all.filter(|(name, _)| wanted(name)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn variables_of_any_bytes_are_inherited_or_left_out() {
        let odd = || OsString::from_vec(b"\xff\xfe".to_vec());
        let named = |name: &str| (OsString::from(name), odd());
        let all = vec![named("HOME"), (odd(), odd()), named("PATH"), named("https_proxy"), named("NO_PROXY")];
        let kept = inherited(all.into_iter());
        assert_eq!(kept, [named("PATH"), named("https_proxy"), named("NO_PROXY")]);
    }
}
