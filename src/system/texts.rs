//! Settings that are lines of a file or a link: host name, time zone, locale, keymap, modules, variables of the kernel, fstab, messages.

use super::{Change, Outcome, Tree, exists, text_of, unknown};
use crate::base::error::{Error, Result};
use crate::base::text::quoted;
use crate::recipe::{Init, System};

/// The time zones of a tree.
const ZONES: &str = "/usr/share/zoneinfo";
/// The programs that make locales of glibc.
const LOCALE_GEN: [&str; 3] = ["/usr/sbin/locale-gen", "/usr/bin/locale-gen", "/sbin/locale-gen"];

/// Appends the changes.
///
/// # Errors
/// [`Kind::Build`](crate::base::error::Kind::Build) if the tree does not have the time zone or the program that makes locales.
pub(super) fn changes(system: &System, init: Option<Init>, tree: &dyn Tree, outcome: &mut Outcome) -> Result<()> {
    let open_rc = init == Some(Init::OpenRc);
    if let Some(name) = &system.hostname {
        outcome.changes.push(Change::file("/etc/hostname", format!("{name}\n")));
        if open_rc {
            outcome.changes.push(with_line("/etc/conf.d/hostname", "hostname=", &format!("\"{name}\""), tree)?);
        }
    }
    if let Some(zone) = &system.timezone {
        outcome.changes.extend(timezone(zone, tree)?);
    }
    locale(system, open_rc, tree, outcome)?;
    if let Some(keymap) = &system.keymap {
        outcome.changes.push(match open_rc {
            true => with_line("/etc/conf.d/keymaps", "keymap=", &format!("\"{keymap}\""), tree)?,
            false => with_line("/etc/vconsole.conf", "KEYMAP=", keymap, tree)?,
        });
    }
    let lines = |lines: &mut dyn Iterator<Item = String>| lines.map(|line| line + "\n").collect::<String>();
    let blacklist = &mut system.modules_blacklist.iter().map(|module| format!("blacklist {module}"));
    let sysctl = &mut system.sysctl.iter().map(|(name, value)| format!("{name} = {value}"));
    let files = [
        ("/etc/modules-load.d/quern.conf", lines(&mut system.modules.iter().cloned())),
        ("/etc/modprobe.d/quern.conf", lines(blacklist)),
        ("/etc/sysctl.d/quern.conf", lines(sysctl)),
    ];
    let files = files.into_iter().filter(|(_, text)| !text.is_empty());
    outcome.changes.extend(files.map(|(path, text)| Change::file(path, text)));
    let fstab = system.fstab.as_ref().map(|fstab| lines(&mut fstab.iter().cloned()));
    let whole = [("/etc/fstab", fstab), ("/etc/motd", system.motd.clone()), ("/etc/issue", system.issue.clone())];
    outcome.changes.extend(whole.into_iter().filter_map(|(path, text)| Some(Change::file(path, text?))));
    Ok(())
}

/// Returns the changes that set the time zone, after a check that the tree has it.
fn timezone(zone: &str, tree: &dyn Tree) -> Result<[Change; 2]> {
    let path = format!("{ZONES}/{zone}");
    if tree.look(&path)?.is_none() || tree.list(&path)?.is_some() {
        if tree.list(ZONES)?.is_none() {
            let error = Error::build(format!("the tree has no time zone {}, and no {ZONES}", quoted(zone)));
            return Err(error.with_hint("the package sys-libs/timezone-data has the time zones"));
        }
        let region = zone
            .rsplit_once('/')
            .map(|(region, _)| region)
            .filter(|region| tree.list(&format!("{ZONES}/{region}")).is_ok_and(|names| names.is_some()));
        let directory = region.map_or_else(|| ZONES.to_owned(), |region| format!("{ZONES}/{region}"));
        let names = tree.list(&directory)?.unwrap_or_default();
        let names: Vec<String> =
            names.into_iter().map(|name| region.map_or(name.clone(), |region| format!("{region}/{name}"))).collect();
        return Err(unknown("time zone", zone, names.iter().map(String::as_str)));
    }
    let target = format!("../usr/share/zoneinfo/{zone}");
    Ok([Change::link("/etc/localtime", target), Change::file("/etc/timezone", format!("{zone}\n"))])
}

/// Sets the locale. Those of glibc are made by a program of the tree.
fn locale(system: &System, open_rc: bool, tree: &dyn Tree, outcome: &mut Outcome) -> Result<()> {
    if let Some(lang) = &system.lang {
        if open_rc {
            outcome.changes.push(with_line("/etc/env.d/02locale", "LANG=", &format!("\"{lang}\""), tree)?);
            // The files that env-update makes of env.d.
            let made = [
                ("/etc/profile.env", "export LANG=", format!("'{lang}'")),
                ("/etc/csh.env", "setenv LANG ", format!("'{lang}'")),
                ("/etc/environment.d/10-gentoo-env.conf", "LANG=", lang.clone()),
            ];
            for (path, key, value) in made {
                if exists(tree, path)? {
                    outcome.changes.push(with_line(path, key, &value, tree)?);
                }
            }
        } else {
            outcome.changes.push(with_line("/etc/locale.conf", "LANG=", lang, tree)?);
        }
    }
    if system.locales.is_empty() {
        return Ok(());
    }
    let mut program = None;
    for path in LOCALE_GEN {
        if program.is_none() && exists(tree, path)? {
            program = Some(path);
        }
    }
    match program {
        Some(program) => {
            let text: String = system.locales.iter().map(|line| format!("{line}\n")).collect();
            outcome.changes.push(Change::file("/etc/locale.gen", text));
            outcome.command = Some(vec![program.to_owned()]);
        }
        None if is_musl(tree)? => {
            outcome.warnings.push(
                "system.locale.generate has no effect: the tree has musl, which has no locales to make".to_owned(),
            );
        }
        None => {
            let error = Error::build("making locales: the tree has no locale-gen");
            return Err(error.with_hint("the package sys-apps/locale-gen or sys-libs/glibc has it"));
        }
    }
    Ok(())
}

/// Returns true for a tree whose C library is musl.
fn is_musl(tree: &dyn Tree) -> Result<bool> {
    for directory in ["/lib", "/usr/lib"] {
        let names = tree.list(directory)?.unwrap_or_default();
        if names.iter().any(|name| name.starts_with("ld-musl-")) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the file with `key` and `value` in place of the first line that sets `key`, or at its end.
fn with_line(path: &str, key: &str, value: &str, tree: &dyn Tree) -> Result<Change> {
    let text = text_of(tree, path)?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let sets = |line: &String| line.trim_start().starts_with(key);
    let line = format!("{key}{value}");
    match lines.iter().position(sets) {
        Some(first) => {
            let mut number = 0;
            lines.retain(|line| {
                number += 1;
                number <= first + 1 || !sets(line)
            });
            lines[first] = line;
        }
        None => lines.push(line),
    }
    Ok(Change::file(path, lines.join("\n") + "\n"))
}
