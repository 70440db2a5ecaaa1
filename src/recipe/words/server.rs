//! Names on servers, and what proves that a file is the right one: addresses, stage3 variants, dates, commits, fingerprints.

use super::{Checked, chars, digits};
use crate::base::text::quoted;
use crate::recipe::SnapshotFormat;
use crate::recipe::diagnostic::Problem;

/// Accepts a stage3 variant, as in the name of its signed pointer.
pub(in crate::recipe) fn variant(text: &str) -> Checked {
    let example = "write only the variant, for example amd64-musl";
    if text.starts_with("stage3-") || text.starts_with("latest-") {
        return Err(Problem::new("this is the name of a file").help(example));
    }
    let rest = |c: char| c.is_ascii_alphanumeric() || "_-+.".contains(c);
    chars(text, "a variant", |c| c.is_ascii_alphanumeric(), rest).map_err(|problem| problem.help(example))?;
    if text.contains("..") || text.contains(".tar") || text.len() > 128 {
        return Err(Problem::new("not the name of a variant").help(example));
    }
    Ok(())
}

/// Accepts the timestamp of a build, `YYYYMMDDTHHMMSSZ`.
pub(in crate::recipe) fn timestamp(text: &str) -> Checked {
    let help = "write \"latest\", or a timestamp as in the mirror's directories, for example 20260719T170103Z";
    let number = |from: usize, to: usize| text.get(from..to).and_then(|digits| digits.parse::<u32>().ok());
    let formed = text.len() == 16
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    let inside = |value: Option<u32>, from: u32, to: u32| value.is_some_and(|value| (from..=to).contains(&value));
    if !formed {
        return Err(Problem::new("not a timestamp").help(help));
    }
    let real = inside(number(4, 6), 1, 12)
        && inside(number(6, 8), 1, 31)
        && inside(number(9, 11), 0, 23)
        && inside(number(11, 13), 0, 59)
        && inside(number(13, 15), 0, 60);
    if real { Ok(()) } else { Err(Problem::new("no such date or time").help(help)) }
}

/// Parses the format of a snapshot.
pub(in crate::recipe) fn snapshot_format(text: &str) -> Checked<SnapshotFormat> {
    match text {
        "tar" => Ok(SnapshotFormat::Tar),
        "squashfs" => Ok(SnapshotFormat::Squashfs),
        _ => Err(Problem::new("not tar or squashfs").help("mirrors have snapshots as \"tar\" and as \"squashfs\"")),
    }
}

/// Accepts a day, `YYYYMMDD`.
pub(in crate::recipe) fn day(text: &str) -> Checked {
    let help = "write \"latest\", or a day as in the names on a mirror, for example 20261121";
    if text.len() != 8 || !digits(text) {
        return Err(Problem::new("not latest or a day").help(help));
    }
    timestamp(&format!("{text}T000000Z")).map_err(|_| Problem::new("no such day").help(help))
}

/// Parses the ID of a git commit, and turns it into lower case.
pub(in crate::recipe) fn commit(text: &str) -> Checked<String> {
    let help = "`git rev-parse HEAD` prints the full ID: 40 or 64 digits";
    if !text.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(Problem::new("not hexadecimal").help(help));
    }
    if !matches!(text.len(), 40 | 64) {
        return Err(Problem::new(format!("{} digits", text.len())).help(help));
    }
    Ok(text.to_ascii_lowercase())
}

/// Accepts the name of a git branch. Characters that git or a shell could interpret are refused, although git allows some.
pub(in crate::recipe) fn branch(text: &str) -> Checked {
    let letter = |c: char| c.is_ascii_alphanumeric();
    chars(text, "a branch", letter, |c| letter(c) || "._+-/".contains(c))?;
    let bad = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock") || part.ends_with('.');
    if text.len() > 128 || text.contains("..") || text.split('/').any(bad) {
        return Err(Problem::new("not the name of a branch"));
    }
    Ok(())
}

/// Accepts a path below a server's root, with placeholders.
pub(in crate::recipe) fn server_path(text: &str) -> Checked {
    let help = "for example \"{release}/{subarch}/stage3-latest.tar.xz\"";
    let mut plain = text.to_owned();
    for name in ["release", "arch", "subarch", "version"] {
        plain = plain.replace(&format!("{{{name}}}"), "x");
    }
    let letter = |c: char| c.is_ascii_alphanumeric();
    chars(&plain, "a path", letter, |c| letter(c) || "._+-/".contains(c)).map_err(|problem| problem.help(help))?;
    if plain.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Problem::new("an empty component, `.` or `..`").help(help));
    }
    Ok(())
}

/// Accepts a suffix of a file's name. It may be empty.
pub(in crate::recipe) fn ending(text: &str) -> Checked {
    if text.is_empty() {
        return Ok(());
    }
    chars(text, "a suffix", |c| ".-_".contains(c), |c| c.is_ascii_alphanumeric() || "._+-".contains(c))
}

/// Parses the root of a server, and drops its trailing slashes.
pub(in crate::recipe) fn url(text: &str) -> Checked<String> {
    let lower = text.to_ascii_lowercase();
    let help = "for example https://distfiles.gentoo.org";
    let Some(scheme) = ["https://", "http://"].into_iter().find(|scheme| lower.starts_with(scheme)) else {
        return Err(Problem::new("not an http:// or https:// address").help(help));
    };
    let rest = &text[scheme.len()..];
    // The characters of a URL, without those that a shell or make.conf would interpret.
    if let Some(bad) = rest.chars().find(|c| !(c.is_ascii_alphanumeric() || "-._~:/[]@+,=%!*()&".contains(*c))) {
        let help = if "?#".contains(bad) { "write the address of a directory" } else { help };
        return Err(Problem::new(format!("an address must not contain {}", quoted(&bad.to_string()))).help(help));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err(Problem::new("the results would record the user or password in this address"));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if host.is_empty() {
        return Err(Problem::new("no host").help(help));
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(Problem::new("not a port"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Parses a primary fingerprint into upper case. Other programs group it with spaces, which are dropped.
pub(in crate::recipe) fn fingerprint(text: &str) -> Checked<String> {
    let hex: String = text.chars().filter(|c| *c != ' ').collect::<String>().to_ascii_uppercase();
    let hex = hex.strip_prefix("0X").unwrap_or(&hex);
    if !hex.chars().all(|c| c.is_ascii_hexdigit()) || hex.is_empty() {
        return Err(Problem::new("not hexadecimal"));
    }
    match hex.len() {
        40 | 64 => Ok(hex.to_owned()),
        8 | 16 => Err(Problem::new("a key ID, which anyone can forge")
            .help("write the full fingerprint of the primary key: 40 or 64 digits")),
        length => {
            Err(Problem::new(format!("{length} digits")).help("the fingerprint of a primary key has 40 or 64 digits"))
        }
    }
}

/// Parses a SHA-512 into lower case.
pub(in crate::recipe) fn sha512(text: &str) -> Checked<String> {
    digest(text, 128, "a SHA-512 has 128 digits")
}

/// Parses a SHA-256 into lower-case digits.
pub(in crate::recipe) fn sha256(text: &str) -> Checked<String> {
    digest(text, 64, "a SHA-256 has 64 digits")
}

fn digest(text: &str, digits: usize, help: &str) -> Checked<String> {
    if !text.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(Problem::new("not hexadecimal"));
    }
    if text.len() != digits {
        return Err(Problem::new(format!("{} digits", text.len())).help(help));
    }
    Ok(text.to_ascii_lowercase())
}
