//! Values of `[system]`: names of hosts, accounts, zones, services and units, and lines of their files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Checked, chars, digits, image_directory, printable};
use crate::recipe::diagnostic::Problem;

/// The longest host name of Linux, in characters.
const MAX_HOSTNAME: usize = 64;
/// The longest name of a user or a group (useradd(8)).
const MAX_ACCOUNT: usize = 32;
/// The types of OpenSSH's public keys.
const KEY_TYPES: [&str; 9] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-ed448",
];
/// The types of units that can be enabled (systemd.unit(5)).
const UNIT_TYPES: [&str; 10] =
    ["service", "socket", "target", "timer", "mount", "automount", "swap", "path", "slice", "device"];

/// Accepts a host name (hostname(5)).
pub(in crate::recipe) fn hostname(text: &str) -> Checked {
    if text.len() > MAX_HOSTNAME {
        return Err(Problem::new(format!("longer than {MAX_HOSTNAME} characters")));
    }
    for label in text.split('.') {
        let letter = |c: char| c.is_ascii_alphanumeric();
        chars(label, "a part of a host name", letter, |c| letter(c) || c == '-')?;
        if label.ends_with('-') {
            return Err(Problem::new("a part of a host name must not end with `-`"));
        }
    }
    Ok(())
}

/// Accepts a name for a user or a group.
pub(in crate::recipe) fn account(text: &str) -> Checked {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    chars(text, "a name", letter, |c| letter(c) || c.is_ascii_digit() || "-.".contains(c))?;
    if text.len() > MAX_ACCOUNT {
        return Err(Problem::new(format!("longer than {MAX_ACCOUNT} characters")));
    }
    Ok(())
}

/// Accepts a group by its name or its number.
pub(in crate::recipe) fn group(text: &str) -> Checked {
    if digits(text) { id(text).map(drop) } else { account(text) }
}

/// Parses the id of a user or a group.
pub(in crate::recipe) fn id(text: &str) -> Checked<u32> {
    let id = text.parse::<u32>().ok().filter(|id| *id < u32::MAX - 1);
    id.ok_or_else(|| Problem::new("not a user or group id"))
}

/// Accepts a field of passwd(5).
pub(in crate::recipe) fn passwd_field(text: &str) -> Checked {
    printable(text)?;
    if text.contains(':') {
        return Err(Problem::new("a `:` separates the fields of /etc/passwd"));
    }
    Ok(())
}

/// Parses the absolute path of a home directory or a shell.
pub(in crate::recipe) fn passwd_path(text: &str) -> Checked<String> {
    passwd_field(text)?;
    if text == "/" { Ok(text.to_owned()) } else { image_directory(text) }
}

/// Accepts the hash of a password, as crypt(5) describes it.
pub(in crate::recipe) fn password_hash(text: &str) -> Checked {
    let help = "for example the output of `openssl passwd -6`";
    let parts: Vec<&str> = text.split('$').collect();
    let hashed = text.starts_with('$') && parts.len() >= 4 && parts[1..].iter().all(|part| !part.is_empty());
    let letter = |c: char| c.is_ascii_alphanumeric() || "./$=,+-_".contains(c);
    if !hashed || !text.chars().all(letter) {
        return Err(Problem::new("not a hash such as `$6$SALT$HASH`").help(help));
    }
    Ok(())
}

/// Accepts a time zone, a path below /usr/share/zoneinfo.
pub(in crate::recipe) fn timezone(text: &str) -> Checked {
    for part in text.split('/') {
        let rest = |c: char| c.is_ascii_alphanumeric() || "+-_".contains(c);
        chars(part, "a part of a time zone", |c| c.is_ascii_alphabetic(), rest)
            .map_err(|problem| problem.help("for example Europe/Berlin"))?;
    }
    Ok(())
}

/// Accepts the name of a locale, such as `en_US.UTF-8`.
pub(in crate::recipe) fn locale(text: &str) -> Checked {
    let letter = |c: char| c.is_ascii_alphanumeric();
    chars(text, "a locale", letter, |c| letter(c) || "_.@-".contains(c))
}

/// Accepts a line of /etc/locale.gen: a locale and its character set.
pub(in crate::recipe) fn locale_gen(text: &str) -> Checked {
    let Some((name, charset)) = text.split_once(' ') else {
        return Err(Problem::new("no character set").help("for example \"en_US.UTF-8 UTF-8\""));
    };
    locale(name)?;
    let letter = |c: char| c.is_ascii_alphanumeric();
    chars(charset, "a character set", letter, |c| letter(c) || "_-".contains(c))
}

/// Accepts the name of a keymap, which may be a path.
pub(in crate::recipe) fn keymap(text: &str) -> Checked {
    let letter = |c: char| c.is_ascii_alphanumeric();
    chars(text, "a keymap", letter, |c| letter(c) || "_+-./@".contains(c))
}

/// Accepts the name of a service, of a unit without its suffix, or of a runlevel.
pub(in crate::recipe) fn service(text: &str) -> Checked {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    chars(text, "a name", letter, |c| letter(c) || "-.+:@\\".contains(c))?;
    if text.len() > 255 { Err(Problem::new("longer than 255 characters")) } else { Ok(()) }
}

/// Accepts the name of a runlevel.
pub(in crate::recipe) fn runlevel(text: &str) -> Checked {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    chars(text, "a runlevel", letter, |c| letter(c) || "-.".contains(c))
}

/// Accepts the name of a unit with its suffix.
pub(in crate::recipe) fn unit(text: &str) -> Checked {
    service(text)?;
    match text.rsplit_once('.') {
        Some((_, suffix)) if UNIT_TYPES.contains(&suffix) => Ok(()),
        _ => Err(Problem::new("no suffix of a unit").help(format!("for example {text}.service"))),
    }
}

/// Accepts a target, or its name without the suffix, and returns it with the suffix.
pub(in crate::recipe) fn target(text: &str) -> Checked<String> {
    let name = text.strip_suffix(".target").unwrap_or(text);
    service(name)?;
    Ok(format!("{name}.target"))
}

/// Accepts the name of a kernel module.
pub(in crate::recipe) fn module(text: &str) -> Checked {
    let letter = |c: char| c.is_ascii_alphanumeric();
    chars(text, "a module", letter, |c| letter(c) || "_-".contains(c))
}

/// Accepts the name of a variable of sysctl(8).
pub(in crate::recipe) fn sysctl_name(text: &str) -> Checked {
    let letter = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    chars(text, "a variable of the kernel", letter, |c| letter(c) || "./*:@".contains(c))
}

/// Accepts a line of fstab(5).
pub(in crate::recipe) fn fstab_line(text: &str) -> Checked {
    printable(&text.replace('\t', " "))?;
    let fields: Vec<&str> = text.split_whitespace().collect();
    if text.starts_with('#') || fields.is_empty() || (4..=6).contains(&fields.len()) {
        return Ok(());
    }
    let help = "for example \"/dev/vda1 / ext4 defaults 0 1\"";
    Err(Problem::new(format!("{} fields; a line has 4 to 6", fields.len())).help(help))
}

/// Accepts a line of authorized_keys (sshd(8)): options, a type, a key, and a comment.
pub(in crate::recipe) fn ssh_key(text: &str) -> Checked {
    if text.contains("-----BEGIN") {
        return Err(Problem::new("this is a private key").help("use the file with the suffix .pub"));
    }
    printable(&text.replace('\t', " "))?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let key = words.windows(2).find(|pair| KEY_TYPES.contains(&pair[0]));
    let help = "for example \"ssh-ed25519 AAAAC3… me@example.org\"";
    let Some([kind, key]) = key else {
        return Err(Problem::new("not a public key of OpenSSH").help(help));
    };
    let bytes = STANDARD.decode(key).unwrap_or_default();
    let named = bytes.get(..4).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
    let named = named.and_then(|length| bytes.get(4..)?.get(..usize::try_from(length).ok()?));
    if named != Some(kind.as_bytes()) || bytes.len() <= 4 + kind.len() {
        return Err(Problem::new(format!("the key is not a key of type {kind}")).help(help));
    }
    Ok(())
}

/// Returns true for a text that is a public key, and not the name of a file with one.
pub(in crate::recipe) fn is_ssh_key(text: &str) -> bool {
    text.split_whitespace().any(|word| KEY_TYPES.contains(&word))
}
