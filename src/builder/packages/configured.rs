//! The key of a configuration: Portage's settings, the files in `/etc/portage` that decide the content of packages, the stage3.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;

use super::Place;
use crate::base::digest::Sha256;
use crate::base::error::{Error, Result};
use crate::base::progress::Target;
use crate::builder::query::Query;
use crate::fs::rootfs::Rootfs;
use crate::portage::binpkg::exclude::Exclusion;
use crate::portage::binpkg::key::Key;
use crate::portage::binpkg::settings::Settings;
use crate::recipe::TreeKind;

/// Files and directories in `/etc/portage` that decide the content of packages.
const FILES: [&str; 6] =
    ["bashrc", "env", "package.bashrc", "package.env", "profile/package.bashrc", "profile/profile.bashrc"];
/// The first Portage that compares user patches before it takes a binary package.
const COMPARES_PATCHES: [u32; 3] = [3, 0, 83];
/// Longest file, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// Deepest directory.
const MAX_DEPTH: usize = 8;
/// Longest text that is shown in a key instead of its digest, in bytes.
const MAX_TEXT: usize = 400;

/// Returns the key of the packages that are built with `settings` for a tree and, if the tree has settings of single packages, the key
/// without them and the packages that have them.
pub(super) fn keys(place: &Place<'_>, settings: &Settings, target: Target) -> Result<(Key, Option<(Key, Exclusion)>)> {
    let own;
    let root = match (target, place.job.build.kind) {
        (Target::Image, TreeKind::Image) => {
            own = Rootfs::open(&place.work.config())?;
            &own
        }
        _ => place.root,
    };
    let mut parts = vec![("stage3".to_owned(), place.base.variant())];
    let patches = place.info.portage.is_none_or(|version| version < COMPARES_PATCHES);
    for name in FILES.into_iter().chain(patches.then_some("patches")) {
        collect(root, Path::new("etc/portage"), Path::new(name), MAX_DEPTH, &mut parts)?;
    }
    let mut key = Key::new(settings, parts);
    if let (TreeKind::Stage4, Some(unblocker)) = (place.job.build.kind, &place.resolved.unblocker) {
        // The first step has another profile, and puts its packages in the same directory.
        key.set("profile", format!("{}, {unblocker}", place.resolved.profile));
    }
    if let Some(options) = key.native() {
        key.set("native", native(place, key.get("CHOST"), &options)?);
    }
    let plain = key.without(is_of_packages);
    match plain == key {
        true => Ok((key, None)),
        false => {
            let exclusion = exclusion(root, &key)?;
            Ok((key, Some((plain, exclusion))))
        }
    }
}

/// Returns true for a part of a key that decides the content of single packages. A file in `env` does if `package.env` names it.
fn is_of_packages(name: &str) -> bool {
    name == "package.env" || ["package.env/", "patches/", "env/"].iter().any(|start| name.starts_with(start))
}

/// Finds the packages that have settings of their own.
fn exclusion(root: &Rootfs, key: &Key) -> Result<Exclusion> {
    let mut exclusion = Exclusion::default();
    for name in key.names().filter(|name| is_of_packages(name)) {
        let mut path = name.split('/');
        match (path.next(), path.next(), path.next()) {
            (Some("package.env"), ..) => {
                let bytes = root.read(&Path::new("etc/portage").join(name), MAX_FILE)?.unwrap_or_default();
                let text = String::from_utf8_lossy(&bytes);
                let atoms = text.lines().filter_map(|line| line.split_whitespace().next());
                atoms.filter(|atom| !atom.starts_with('#')).for_each(|atom| exclusion.add_atom(atom));
            }
            // Patches lie in the directories of their packages, and so do scripts that Portage runs for one package.
            (_, Some(category), Some(package)) => exclusion.add_directory(category, package),
            _ => {}
        }
    }
    Ok(exclusion)
}

/// Adds the files at `path` below `base`: short texts as they are, others as digests.
fn collect(root: &Rootfs, base: &Path, path: &Path, depth: usize, parts: &mut Vec<(String, String)>) -> Result<()> {
    let full = base.join(path);
    let Some(stat) = root.stat(&full)? else { return Ok(()) };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        // As Portage does, follow it inside the tree.
        FileType::Symlink if root.open_dir(&full).is_ok() => FileType::Directory,
        FileType::Symlink => FileType::RegularFile,
        kind => kind,
    };
    if kind == FileType::Directory && depth > 0 {
        for (name, _) in root.read_dir(&full)? {
            collect(root, base, &path.join(name), depth - 1, parts)?;
        }
    } else if kind == FileType::RegularFile
        && let Some(bytes) = root.read(&full, MAX_FILE)?
    {
        parts.push((path.to_string_lossy().into_owned(), content(path, &bytes)));
    }
    Ok(())
}

/// Describes a file. The date of the build, which every build writes, does not count.
fn content(path: &Path, bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(str::trim_end);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("export SOURCE_DATE_EPOCH="));
    let is_list = path.as_os_str().as_bytes().starts_with(b"package.env");
    let lines: Vec<&str> = lines.filter(|line| !(is_list && line.starts_with('#'))).collect();
    let text = lines.join("; ");
    match text.len() <= MAX_TEXT && !text.contains(char::is_control) && is_list || text.is_empty() {
        true => text,
        false => format!("sha256:{}", Sha256::of(lines.join("\n").as_bytes())),
    }
}

/// Asks the compiler for the meaning of options such as `-march=native` on this machine. Returns a digest of its answer.
fn native(place: &Place<'_>, chost: &str, options: &str) -> Result<String> {
    let script = "compiler=$(command -v \"$1-gcc\" || command -v gcc || command -v \"$1-clang\" || command -v clang) && shift && \
                  case $compiler in *clang) exec \"$compiler\" \"$@\" -E -x c /dev/null -\\#\\#\\# 2>&1;; esac && \
                  exec \"$compiler\" \"$@\" -Q --help=target";
    let words = ["sh", "-c", script, "sh", chost].into_iter().chain(options.split(' '));
    let answer = (place.ask)(&Query::new(words))?;
    match answer.exit.success() {
        true => Ok(format!("sha256:{}", Sha256::of(&answer.stdout))),
        false => Err(Error::build(format!("the builder's compiler does not tell the meaning of {options}"))
            .with_hint("name the processor in CFLAGS, for example -march=x86-64-v3")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_with_settings_of_their_own_are_excluded() {
        let place = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = place.path().join("etc/portage").join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        };
        write("package.env/zz-quern", "# a/comment x\n\n  =a/lined-2 slow.conf # why\n");
        write("env/slow.conf", "CFLAGS=\"-O1\"");
        write("env/a/scripted", "x");
        write("patches/a/patched-1:0/x.patch", "x");
        write("bashrc", "x");
        let root = Rootfs::open(place.path()).unwrap();
        let mut parts = Vec::new();
        for name in FILES.into_iter().chain(["patches"]) {
            collect(&root, Path::new("etc/portage"), Path::new(name), MAX_DEPTH, &mut parts).unwrap();
        }
        let key = Key::new(&Settings::default(), parts);
        assert_eq!(key.without(is_of_packages).names().collect::<Vec<_>>(), ["bashrc"]);
        let exclusion = exclusion(&root, &key).unwrap();
        let all = ["a/lined-1", "a/scripted-1", "a/patched-7", "a/comment-1", "a/other-1"];
        assert_eq!(all.map(|cpv| exclusion.has(cpv)), [true, true, true, false, false]);
    }

    #[test]
    fn files_are_described_without_the_date_and_without_empty_lines() {
        let of = |path: &str, text: &str| content(Path::new(path), text.as_bytes());
        assert_eq!(of("profile/profile.bashrc", "\nexport SOURCE_DATE_EPOCH=7\n"), "");
        assert_eq!(of("bashrc", "a\n\n"), of("bashrc", "a\nexport SOURCE_DATE_EPOCH=9\n"));
        assert!(of("bashrc", "a").starts_with("sha256:"));
        assert_eq!(of("package.env/zz-quern", "# x\na/b no-lto.conf\nc/d y\n"), "a/b no-lto.conf; c/d y");
    }

    #[test]
    fn files_are_found_in_directories_and_through_links() {
        let place = tempfile::tempdir().unwrap();
        let portage = place.path().join("etc/portage");
        fs_err::create_dir_all(portage.join("env/sub")).unwrap();
        fs_err::write(portage.join("env/sub/a.conf"), "x").unwrap();
        fs_err::write(portage.join("shared"), "y").unwrap();
        std::os::unix::fs::symlink("shared", portage.join("bashrc")).unwrap();
        let root = Rootfs::open(place.path()).unwrap();
        let mut parts = Vec::new();
        for name in FILES {
            collect(&root, Path::new("etc/portage"), Path::new(name), MAX_DEPTH, &mut parts).unwrap();
        }
        let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["bashrc", "env/sub/a.conf"]);
    }
}
