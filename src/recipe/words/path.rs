//! Paths in the image and on this host.

use std::path::PathBuf;

use super::{Checked, printable};
use crate::recipe::diagnostic::Problem;

/// Paths that every build replaces by its own.
const REPLACED: [&str; 8] = ["/dev", "/proc", "/quern", "/run", "/sys", "/tmp", "/var/db/repos", "/var/tmp"];

/// Parses an absolute path inside the image, without `.` and repeated slashes.
pub(in crate::recipe) fn image_path(text: &str) -> Checked<String> {
    printable(text)?;
    if !text.starts_with('/') {
        return Err(Problem::new("not absolute")
            .help(format!("a path in the image starts with `/`: /{}", text.trim_start_matches("./"))));
    }
    let parts = components(text);
    if parts.contains(&"..") {
        return Err(Problem::new("`..` is not allowed in a path in the image"));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Parses an absolute path on this host.
pub(in crate::recipe) fn host_path(text: &str) -> Checked<PathBuf> {
    printable(text)?;
    if !text.starts_with('/') {
        return Err(Problem::new("not absolute").help("a path on the host starts with `/`"));
    }
    let parts = components(text);
    if parts.contains(&"..") {
        return Err(Problem::new("`..` is not allowed in a path on the host"));
    }
    if parts.is_empty() {
        return Err(Problem::new("this is the whole host"));
    }
    if text.contains(['*', '?', '[']) {
        return Err(Problem::new("globs are not supported here").help("name the directory"));
    }
    Ok(parts.into_iter().fold(PathBuf::from("/"), |path, part| path.join(part)))
}

/// Parses a path on this host that a build can see: one that the build does not replace by its own.
pub(in crate::recipe) fn shown_path(text: &str) -> Checked<PathBuf> {
    let path = host_path(text)?;
    match REPLACED.iter().find(|own| path.starts_with(own)) {
        Some(own) => Err(Problem::new(format!("a build has its own {own}"))),
        None => Ok(path),
    }
}

/// Parses a path to strip. Its last component may be a glob.
pub(in crate::recipe) fn strip_path(text: &str) -> Checked<String> {
    let path = image_path(text)?;
    let (parents, last) = path.rsplit_once('/').unwrap_or(("", ""));
    if path == "/" || (parents.is_empty() && last.chars().all(|c| c == '*')) {
        return Err(Problem::new("this is the whole image"));
    }
    if parents.contains(['*', '?', '[']) {
        return Err(Problem::new("a glob before the last `/`").help("only the last component of a path may be a glob"));
    }
    Ok(path)
}

fn components(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}
