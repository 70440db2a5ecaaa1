//! Rules for single words of a recipe: names, addresses, paths, sizes. Pure. Each rule explains a mistake in a few words that
//! fit beside a caret. Most of these words end up in file names, configuration files or command lines.

use super::diagnostic::Problem;
use super::{ProfileName, dated};
use crate::base::text::quoted;

mod emerge;
mod image;
mod path;
mod server;
mod size;
mod system;
#[cfg(test)]
mod tests;

pub(super) use emerge::{distcc_host, make_conf_variable, option, owned_variable, use_flag};
pub(super) use image::{port, tag, user};
pub(super) use path::{
    exclude, host_path, image_directory, image_path, mode, mount_point, shown_path, strip_path, tmpfs,
};
pub(super) use server::{
    branch, commit, day, ending, fingerprint, server_path, sha256, sha512, snapshot_format, timestamp, url, variant,
};
pub(super) use size::{age, bytes, duration, max_bytes, max_entries, storage};
pub(super) use system::{
    account, fstab_line, group, hostname, id, is_ssh_key, keymap, locale, locale_gen, module, passwd_field,
    passwd_path, password_hash, runlevel, service, ssh_key, sysctl_name, target, timezone, unit,
};

/// The placeholder of a date.
pub(super) const DATE: &str = "{date}";

/// The value that a rule makes of a word, or the mistake in the word.
pub(super) type Checked<T = ()> = Result<T, Problem>;

/// Accepts a name for results, directories and tags.
pub(super) fn name(text: &str) -> Checked {
    chars(text, "a name", |c| c.is_ascii_alphanumeric(), |c| c.is_ascii_alphanumeric() || "._+-".contains(c))?;
    if text.len() > 128 {
        return Err(Problem::new("longer than 128 characters"));
    }
    Ok(())
}

/// Accepts the name of a step, and of other things that a recipe names.
pub(super) fn item_name(text: &str) -> Checked {
    chars(text, "a name", |c| c.is_ascii_alphanumeric(), |c| c.is_ascii_alphanumeric() || "._-".contains(c))?;
    if text.len() > 64 { Err(Problem::new("longer than 64 characters")) } else { Ok(()) }
}

/// Accepts the base name of the results, and drops their suffix if it is written.
pub(super) fn image_name(text: &str, suffix: &str) -> Checked<String> {
    let base = text.strip_suffix(suffix).unwrap_or(text);
    name(&dated(base, "2000-01-01"))?;
    if let Some(other) = [".tar", ".tgz", ".bz2", ".xz", ".zst", ".zip", ".gz"].iter().find(|end| base.ends_with(**end))
    {
        return Err(Problem::new(format!("this recipe does not make `{other}`"))
            .help(format!("the result is a {suffix}; `compression` in [build] changes that")));
    }
    Ok(base.to_owned())
}

/// Parses `repository:path`, or a path in the main repository.
pub(super) fn profile(text: &str) -> Checked<ProfileName> {
    let help = "write a profile as repository:path, for example gentoo:default/linux/amd64/23.0/musl";
    let (repo, path) = match text.split_once(':') {
        Some((repo, path)) => (Some(repo), path),
        None => (None, text),
    };
    if let Some(repo) = repo {
        repository(repo).map_err(|problem| problem.help(help))?;
    }
    if path.is_empty() {
        return Err(Problem::new("no path").help(help));
    }
    for part in path.split('/') {
        if part == ".." || part == "." {
            return Err(Problem::new(format!("`{part}` is not allowed in a profile's path")).help(help));
        }
        let part_of = |c: char| c.is_ascii_alphanumeric() || "_+.-@".contains(c);
        chars(part, "a component of a profile's path", |c| c.is_ascii_alphanumeric() || "_.".contains(c), part_of)
            .map_err(|problem| problem.help(help))?;
    }
    Ok(ProfileName { repo: repo.map(str::to_owned), path: path.to_owned() })
}

/// Accepts the name of a part of a Funtoo profile: `name`, or `repository:name`.
pub(super) fn profile_part(text: &str) -> Checked {
    match profile(text) {
        Ok(name) if name.path.contains('/') => Err(Problem::new("a name must not contain `/`")),
        Ok(_) => Ok(()),
        Err(problem) => Err(Problem { help: None, ..problem }),
    }
}

/// Accepts a repository's name (PMS 3.1.5).
pub(super) fn repository(text: &str) -> Checked {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    chars(text, "a repository's name", letter, |c| letter(c) || c == '-')
}

/// Accepts one line of text without control characters.
pub(super) fn printable(text: &str) -> Checked {
    match text.chars().find(|c| c.is_control()) {
        Some('\n' | '\r') => Err(Problem::new("more than one line")),
        Some(c) => Err(Problem::new(format!("a control character ({})", c.escape_unicode()))),
        None => Ok(()),
    }
}

/// Accepts text that can be an argument or an environment variable of a program.
pub(super) fn argument(text: &str) -> Checked {
    if text.contains('\0') { Err(Problem::new("a NUL byte")) } else { Ok(()) }
}

/// Accepts the name of an environment variable.
pub(super) fn environment_variable(text: &str) -> Checked {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    chars(text, "a variable's name", letter, |c| letter(c) || c.is_ascii_digit())
}

/// Accepts a text that is not empty and has only allowed characters. `what` names the kind of text for the message.
pub(super) fn chars(text: &str, what: &str, first: impl Fn(char) -> bool, rest: impl Fn(char) -> bool) -> Checked {
    let Some(begin) = text.chars().next() else {
        return Err(Problem::new(format!("{what} must not be empty")));
    };
    if !first(begin) {
        return Err(Problem::new(format!("{what} must not start with {}", quoted(&begin.to_string()))));
    }
    match text.chars().find(|c| !rest(*c)) {
        Some(bad) => Err(Problem::new(format!("{what} must not contain {}", quoted(&bad.to_string())))),
        None => Ok(()),
    }
}

/// Returns true for one or more decimal digits.
pub(super) fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
