//! The credentials of a user for a registry, from the files and helper programs of podman and docker.
//!
//! A file is looked up from the most specific name (`HOST/NAME`) to the host. In each file, a helper of the host comes first, then an
//! entry with a password or a token, then the helper for all hosts. The next file is read only if this one has nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::reference::{HUB, Reference};
use crate::base::error::{Context as _, Error, Result};
use crate::base::text::printable;
use crate::os::process::helper::{Helper, ask};

/// Largest file of credentials, and largest answer of a helper.
const LARGEST: u64 = 1 << 20;

/// The key of Docker Hub in docker's files and for helpers.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The name that a helper gives instead of a user if the secret is a token.
const TOKEN_USER: &str = "<token>";

/// Credentials. They are in no message and no log.
#[derive(Clone)]
pub enum Credentials {
    /// A user and a password.
    Password(String, Zeroizing<String>),
    /// A token that a token server changes for others.
    Identity(Zeroizing<String>),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Returns the value of `Authorization` for a user with a password.
    pub(super) fn basic(&self) -> Option<Zeroizing<String>> {
        let Self::Password(user, password) = self else { return None };
        let pair = Zeroizing::new(format!("{user}:{}", **password));
        let encoded = Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()));
        Some(Zeroizing::new(format!("Basic {}", *encoded)))
    }
}

/// The places where credentials are looked for.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The files, in order. The flag means that the file must exist.
    files: Vec<(PathBuf, bool)>,
    /// The environment of helpers.
    env: Vec<(OsString, OsString)>,
}

/// A file of credentials.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

/// The entry of a registry or a repository. Docker leaves it empty if a helper has the credentials.
#[derive(Deserialize, Default)]
struct Entry {
    auth: Option<Zeroizing<String>>,
    identitytoken: Option<Zeroizing<String>>,
}

/// The answer of a helper.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: Zeroizing<String>,
}

impl Places {
    /// Returns the places that podman and docker use in an environment. `given` is the file that the user names.
    pub fn of(given: Option<&Path>, env: Vec<(OsString, OsString)>, uid: u32) -> Self {
        let var = |name: &str| {
            let found = env.iter().find(|(known, _)| known == name).map(|(_, value)| PathBuf::from(value));
            found.filter(|value| !value.as_os_str().is_empty())
        };
        let files = match given.map(Path::to_owned).or_else(|| var("REGISTRY_AUTH_FILE")) {
            Some(file) => vec![(file, true)],
            None => {
                let run = var("XDG_RUNTIME_DIR").unwrap_or_else(|| PathBuf::from(format!("/run/containers/{uid}")));
                let run = if var("XDG_RUNTIME_DIR").is_some() { run.join("containers") } else { run };
                let home = var("HOME");
                let below_home = |path| home.as_ref().map(|home: &PathBuf| home.join(path));
                let config = var("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
                let docker = var("DOCKER_CONFIG").or_else(|| below_home(".docker"));
                [
                    Some(run.join("auth.json")),
                    config.map(|config| config.join("containers/auth.json")),
                    docker.map(|docker| docker.join("config.json")),
                ]
                .into_iter()
                .flatten()
                .map(|file| (file, false))
                .collect()
            }
        };
        Self { files, env }
    }

    /// Finds the credentials for a repository; `None` if there are none.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if a file is malformed, [`Kind::System`](crate::base::error::Kind::System) if it
    /// cannot be read or if a helper fails.
    pub fn find(&self, reference: &Reference) -> Result<Option<Credentials>> {
        for (path, needed) in &self.files {
            let Some(bytes) = read(path, *needed)? else { continue };
            if let Some(found) = self.in_file(&bytes, path, reference)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn in_file(&self, bytes: &[u8], path: &Path, reference: &Reference) -> Result<Option<Credentials>> {
        let file = parse(bytes).map_err(|what| malformed(path, what))?;
        let names = names(reference);
        for name in &names {
            let helper = file.cred_helpers.iter().find(|(known, _)| normal(known) == *name).map(|(_, helper)| helper);
            if let Some(helper) = helper
                && let Some(found) = self.of_helper(helper, reference)?
            {
                return Ok(Some(found));
            }
        }
        for name in &names {
            for (_, entry) in file.auths.iter().filter(|(known, _)| normal(known) == *name) {
                if let Some(found) = entry.credentials().map_err(|what| malformed(path, what))? {
                    return Ok(Some(found));
                }
            }
        }
        file.creds_store.as_deref().map_or(Ok(None), |helper| self.of_helper(helper, reference))
    }

    /// Asks the program `docker-credential-HELPER`.
    fn of_helper(&self, helper: &str, reference: &Reference) -> Result<Option<Credentials>> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if helper.is_empty() || !helper.bytes().all(is_name) {
            return Err(Error::usage(format!("`{}` is not the name of a credential helper", printable(helper))));
        }
        let program = format!("docker-credential-{helper}");
        let key = if reference.host == HUB.0 { HUB_KEY } else { &reference.host };
        let started = Helper::start_with(&program, &["get".to_owned()], &self.env, u64::MAX, key.as_bytes())?;
        let (exit, output, complaints) = ask(started, LARGEST)?;
        let output = Zeroizing::new(output);
        if !exit.success() {
            // The protocol has no other sign of it.
            let said = String::from_utf8_lossy(&output);
            if said.contains("credentials not found") {
                return Ok(None);
            }
            let said = printable(format!("{} {}", said.trim(), complaints.trim()).trim());
            return Err(Error::system(format!("{program} get for {key} failed")).with_source(said));
        }
        // An error of the parser would show a part of the text.
        let answer: HelperAnswer = serde_json::from_slice(&output)
            .map_err(|_| Error::system(format!("{program} get for {key} did not answer with credentials")))?;
        Ok(Some(match answer.username.as_str() {
            TOKEN_USER => Credentials::Identity(answer.secret),
            _ => Credentials::Password(answer.username, answer.secret),
        }))
    }
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Credentials::Identity(token.clone())));
        }
        let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let wrong = "an entry of `auths` is not the base64 of USER:PASSWORD";
        let plain = Zeroizing::new(BASE64_STANDARD.decode(auth.as_bytes()).map_err(|_| wrong)?);
        let plain = std::str::from_utf8(&plain).map_err(|_| wrong)?;
        let (user, password) = plain.split_once(':').ok_or(wrong)?;
        // Old versions of docker put NULs at the end.
        let password = Zeroizing::new(password.trim_end_matches('\0').to_owned());
        Ok(Some(Credentials::Password(user.to_owned(), password)))
    }
}

/// Returns the names of entries that fit a repository, the most specific first.
fn names(reference: &Reference) -> Vec<String> {
    let name = reference.name();
    let ends = name.match_indices('/').map(|(at, _)| at);
    let mut names: Vec<String> = ends.map(|at| name[..at].to_owned()).collect();
    names.push(name.clone());
    names.reverse();
    names
}

/// Returns the key of an entry in the form of podman: docker writes some as URLs.
fn normal(key: &str) -> String {
    let plain = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let key = plain.map_or(key, |plain| plain.split('/').next().unwrap_or_default());
    let (host, rest) = key.split_once('/').map_or((key, None), |(host, rest)| (host, Some(rest)));
    let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { HUB.0 } else { host };
    rest.map_or_else(|| host.to_owned(), |rest| format!("{host}/{rest}"))
}

/// Parses a file of credentials. The error does not show any part of the file.
fn parse(bytes: &[u8]) -> Result<File, &'static str> {
    serde_json::from_slice(bytes).map_err(|_| "it is not a JSON document with credentials")
}

/// Runs the parser of files, for fuzzing.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    for entry in parse(bytes).unwrap_or_default().auths.values() {
        let _ = entry.credentials();
    }
}

fn malformed(path: &Path, what: &str) -> Error {
    Error::usage(format!("reading the credentials in {}: {what}", path.display()))
        .with_hint("`podman login HOST` writes such a file")
}

fn read(path: &Path, needed: bool) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let reading = || format!("reading the credentials in {}", path.display());
    match fs_err::File::open(path) {
        Ok(file) => {
            let mut bytes = Zeroizing::new(Vec::new());
            file.take(LARGEST + 1).read_to_end(&mut bytes).system(reading)?;
            match bytes.len() as u64 > LARGEST {
                true => Err(malformed(path, "it is larger than 1 MiB")),
                false => Ok(Some(bytes)),
            }
        }
        Err(error)
            if !needed && matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        // Another user's directory, as for root in a user namespace, is not a place of this user.
        Err(error) if !needed && error.kind() == std::io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error).system(reading),
    }
}
