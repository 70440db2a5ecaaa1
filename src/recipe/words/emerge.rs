//! Variables of make.conf, USE flags and options of emerge.

use super::{Checked, chars, printable};
use crate::recipe::diagnostic::Problem;

/// Variables of make.conf that the build sets, each with the alternative. A recipe that set them would break the build or make
/// it write elsewhere.
const OWNED: &[(&str, &str)] = &[
    ("ROOT", "leave it out: the build makes the image's root directory"),
    ("SYSROOT", "leave it out"),
    ("EPREFIX", "leave it out: prefixes are not supported"),
    ("EROOT", "leave it out"),
    ("ESYSROOT", "leave it out"),
    ("BROOT", "leave it out"),
    ("PORTAGE_CONFIGROOT", "a configuration directory of your own is `config` in [portage]"),
    ("PORTAGE_REPOSITORIES", "list repositories in `repositories` in [portage]"),
    ("PORTDIR", "list repositories in `repositories` in [portage]"),
    ("PORTDIR_OVERLAY", "list repositories in `repositories` in [portage]"),
    ("PKGDIR", "the cache of binary packages is `binpkg` in [portage]"),
    ("DISTDIR", "the cache of sources is `distfiles` in [portage]"),
    ("PORTAGE_TMPDIR", "to build packages on a tmpfs, write `workdir-storage = \"tmpfs:4G\"` in [build]"),
    ("BUILD_PREFIX", "leave it out"),
    ("PORT_LOGDIR", "leave it out: the build keeps the logs in the store"),
    ("PORTAGE_LOGDIR", "leave it out: the build keeps the logs in the store"),
    ("PORTAGE_LOG_FILE_SEP", "leave it out: the build finds logs by their names"),
    ("EMERGE_LOG_DIR", "leave it out: the build keeps the logs in the store"),
    ("GENTOO_MIRRORS", "list mirrors in `mirrors` in [source]"),
    ("PORTAGE_BINHOST", "list hosts of binary packages in `binhost` in [portage]"),
    ("EMERGE_DEFAULT_OPTS", "list options for every emerge in `options` in [emerge]"),
];

/// Options of emerge that a recipe must not set, each with the reason.
const FORBIDDEN: &[(&str, &str)] = &[
    ("--ask", "a build cannot answer questions"),
    ("--root", "the build sets the image's root directory"),
    ("--sysroot", "the build sets the image's root directory"),
    ("--config-root", "the build writes the configuration from the recipe"),
    ("--prefix", "prefixes are not supported"),
    ("--pretend", "`quern-builder build --dry-run` shows what a build would do"),
    ("--help", "emerge would not build anything"),
    ("--version", "emerge would not build anything"),
    ("--jobs", "write `jobs` in [emerge]"),
];

/// Returns what to do in place of setting a variable of make.conf, if the build owns it.
pub(in crate::recipe) fn owned_variable(name: &str) -> Option<&'static str> {
    OWNED.iter().find(|(owned, _)| *owned == name).map(|(_, instead)| *instead)
}

/// Accepts a variable of make.conf that a recipe may set.
pub(in crate::recipe) fn make_conf_variable(text: &str) -> Checked {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    chars(text, "a variable's name", letter, |c| letter(c) || c.is_ascii_digit())?;
    match owned_variable(text) {
        Some(instead) => Err(Problem::new("the build sets this variable").help(instead)),
        None => Ok(()),
    }
}

/// Accepts a USE flag, with or without a minus.
pub(in crate::recipe) fn use_flag(text: &str) -> Checked {
    let flag = text.strip_prefix('-').unwrap_or(text);
    if flag == "*" {
        return Ok(());
    }
    chars(flag, "a USE flag", |c| c.is_ascii_alphanumeric(), |c| c.is_ascii_alphanumeric() || "+_@-".contains(c))
}

/// Accepts a host in distcc's list, such as `192.0.2.7:3632/8,lzo`, or an option of the list, such as `--localslots=2`.
pub(in crate::recipe) fn distcc_host(text: &str) -> Checked {
    let of_host = |c: char| c.is_ascii_alphanumeric() || ".:/,=_-[]".contains(c);
    if text.contains('@') {
        let help = "run distccd on the host, and write its address";
        return Err(Problem::new("ssh has no keys in the build").help(help));
    }
    chars(text, "a host", |c| c.is_ascii_alphanumeric() || "[-".contains(c), of_host)?;
    if text.split(',').any(|option| option == "cpp") {
        return Err(Problem::new("pump mode does not work in a build").help("leave out `,cpp`"));
    }
    Ok(())
}

/// Accepts an option of emerge, unless it would change where or whether emerge works.
pub(in crate::recipe) fn option(text: &str) -> Checked {
    printable(text)?;
    let long = text.split('=').next().unwrap_or(text);
    if let Some((_, why)) = FORBIDDEN.iter().find(|(option, _)| *option == long) {
        return Err(Problem::new("a recipe must not set this option").help(*why));
    }
    let short = text.strip_prefix('-').filter(|rest| !rest.starts_with('-')).unwrap_or_default();
    if let Some(letter) = short.chars().take_while(char::is_ascii_alphabetic).find(|c| "aphVj".contains(*c)) {
        return Err(Problem::new(format!("a recipe must not set the option `-{letter}`")));
    }
    if text.trim().is_empty() {
        return Err(Problem::new("empty"));
    }
    Ok(())
}
