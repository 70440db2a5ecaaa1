//! Paths in the image and on this host.

use std::path::PathBuf;

use super::{Checked, max_bytes, printable};
use crate::recipe::diagnostic::Problem;

/// Paths that every build replaces by its own.
const REPLACED: [&str; 8] = ["/dev", "/proc", "/quern", "/run", "/sys", "/tmp", "/var/db/repos", "/var/tmp"];

/// Paths at which every step has mounts that a recipe does not replace.
const OWN_MOUNTS: [&str; 4] = ["/dev", "/proc", "/quern", "/sys"];

/// The directory in the program's own one that it leaves to recipes, for helpers of scripts.
const HELPERS: &str = "/quern/lib";

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

/// Parses an absolute path of a directory below the root of the image.
pub(in crate::recipe) fn image_directory(text: &str) -> Checked<String> {
    let path = image_path(text)?;
    if path == "/" {
        return Err(Problem::new("this is the whole image"));
    }
    if path.contains(['*', '?', '[']) {
        return Err(Problem::new("globs are not supported here").help("name the directory"));
    }
    Ok(path)
}

/// Parses an absolute path below the root directory at which a step may have a mount of its own.
pub(in crate::recipe) fn mount_point(text: &str) -> Checked<PathBuf> {
    let path = PathBuf::from(image_path(text)?);
    match OWN_MOUNTS.iter().find(|own| path.starts_with(own) && !path.starts_with(HELPERS)) {
        Some(own) => {
            Err(Problem::new(format!("a step has its own {own}"))
                .help(format!("{HELPERS} is free for helpers of scripts")))
        }
        None if path.parent().is_none() => Err(Problem::new("this is the whole tree")),
        None => Ok(path),
    }
}

/// Parses `PATH` or `PATH:SIZE` into a mount point and a size in bytes.
pub(in crate::recipe) fn tmpfs(text: &str) -> Checked<(PathBuf, Option<u64>)> {
    match text.rsplit_once(':') {
        Some((path, size)) => Ok((mount_point(path)?, Some(max_bytes(size)?))),
        None => Ok((mount_point(text)?, None)),
    }
}

/// Parses permission bits in octal, such as `0755`.
pub(in crate::recipe) fn mode(text: &str) -> Checked<u32> {
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    mode.ok_or_else(|| Problem::new("not permission bits in octal").help("for example \"0644\" or \"0755\""))
}

/// Parses a path or a name to leave out of a copy. The last component may be a glob.
pub(in crate::recipe) fn exclude(text: &str) -> Checked<String> {
    printable(text)?;
    if text.starts_with('/') {
        return Err(Problem::new("absolute").help("write a path relative to `from`, or a name"));
    }
    let parts = components(text);
    let Some((_, parents)) = parts.split_last() else { return Err(Problem::new("empty")) };
    if parts.contains(&"..") {
        return Err(Problem::new("`..` is not allowed"));
    }
    if parents.iter().any(|part| part.contains(['*', '?', '['])) {
        return Err(Problem::new("a glob before the last `/`").help("only the last component of a path may be a glob"));
    }
    Ok(parts.join("/"))
}

fn components(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}
