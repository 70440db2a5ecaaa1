//! Faults of a builder or an image that do not stop a build, but that its user wants to know about.

use std::io::Read;
use std::path::Path;

use rustix::fs::FileType;

use super::elf;
use crate::base::error::Result;
use crate::base::text::plain;
use crate::fs::rootfs::Rootfs;

/// The directories of programs.
const PROGRAMS: [&str; 5] = ["usr/bin", "bin", "usr/sbin", "sbin", "usr/local/bin"];
/// The limit on the files that are read in a directory of programs.
const MAX_FILES: usize = 400;
/// The bytes at the beginning of a program that are read. Linkers put the name of the loader there.
const HEAD: u64 = 4096;

/// Warns if the builder `root` has a compiler, but none for `chost`.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if the tree cannot be read.
pub(super) fn compiler(root: &Rootfs, chost: &str) -> Result<Option<String>> {
    let directory = Path::new("usr/bin");
    if !is_directory(root, directory)? {
        return Ok(None);
    }
    let names = root.read_dir(directory)?;
    let names = names.iter().filter_map(|(name, _)| name.to_str());
    // A name such as `c99-gcc` or `gcc-12` does not name a platform.
    let platform = |name: &str| {
        let platform = ["-gcc", "-clang"].iter().find_map(|end| name.strip_suffix(end))?.to_owned();
        (platform.matches('-').count() >= 2).then_some(platform)
    };
    let platforms: Vec<String> = names.filter_map(platform).collect();
    let Some(other) = platforms.first().filter(|_| !platforms.iter().any(|platform| platform == chost)) else {
        return Ok(None);
    };
    Ok(Some(format!(
        "CHOST is {}, but the builder has no compiler for it (only for {}): packages are compiled for the wrong C library or \
         processor; use a stage3 and a profile that belong together",
        plain(chost, 60),
        plain(other, 60)
    )))
}

/// Warns if a program of the image needs a loader that the image does not have, as in an image without a C library.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if the tree cannot be read.
pub(super) fn loader(image: &Rootfs) -> Result<Option<String>> {
    for directory in PROGRAMS.map(Path::new) {
        if !is_directory(image, directory)? {
            continue;
        }
        let mut names = image.read_dir(directory)?;
        names.retain(|(_, kind)| kind.is_file());
        names.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (name, _) in names.into_iter().take(MAX_FILES) {
            let path = directory.join(name);
            let Some(file) = image.open_file(&path)? else { continue };
            let mut head = Vec::new();
            // A program that cannot be read has no part in a warning.
            let read = file.take(HEAD).read_to_end(&mut head).is_ok();
            let Some(loader) = elf::loader(&head).filter(|_| read) else { continue };
            if !matches!(image.open_file(Path::new(loader.trim_start_matches('/'))), Ok(Some(_))) {
                return Ok(Some(format!(
                    "/{} needs {}, which the image does not have: it has no C library; add virtual/libc or @system to \
                     emerge.packages",
                    plain(&path.to_string_lossy(), 100),
                    plain(&loader, 100)
                )));
            }
        }
    }
    Ok(None)
}

fn is_directory(root: &Rootfs, path: &Path) -> Result<bool> {
    Ok(root.stat(path)?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, path: &str, bytes: &[u8]) {
            let path = self.0.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, bytes).unwrap();
        }

        fn root(&self) -> Rootfs {
            Rootfs::open(self.0.path()).unwrap()
        }
    }

    #[test]
    fn an_image_without_a_c_library_is_a_warning() {
        let tree = Tree::new();
        assert_eq!(loader(&tree.root()).unwrap(), None);
        tree.write("usr/bin/a-script", b"#!/bin/sh\n");
        tree.write("usr/bin/own", &elf::tests::program("/lib64/ld-linux-x86-64.so.2"));
        symlink("usr/bin", tree.0.path().join("bin")).unwrap();
        let warning = loader(&tree.root()).unwrap().unwrap();
        assert!(warning.starts_with("/usr/bin/own needs /lib64/ld-linux-x86-64.so.2, which"), "{warning}");
        assert!(warning.contains("virtual/libc or @system"), "{warning}");
        // The loader may be a symlink in a directory that is one.
        tree.write("usr/lib64/real.so", b"");
        symlink("usr/lib64", tree.0.path().join("lib64")).unwrap();
        symlink("/usr/lib64/real.so", tree.0.path().join("usr/lib64/ld-linux-x86-64.so.2")).unwrap();
        assert_eq!(loader(&tree.root()).unwrap(), None);
    }

    #[test]
    fn a_builder_without_a_compiler_for_the_platform_is_a_warning() {
        let tree = Tree::new();
        let warning = |chost| compiler(&tree.root(), chost).unwrap();
        assert_eq!(warning("x86_64-pc-linux-musl"), None);
        for name in ["gcc", "gcc-12", "c99-gcc", "musl-gcc"] {
            tree.write(&format!("usr/bin/{name}"), b"");
        }
        assert_eq!(warning("x86_64-pc-linux-musl"), None);
        tree.write("usr/bin/x86_64-pc-linux-gnu-gcc", b"");
        assert!(warning("x86_64-pc-linux-musl").unwrap().contains("only for x86_64-pc-linux-gnu)"));
        assert_eq!(warning("x86_64-pc-linux-gnu"), None);
        tree.write("usr/bin/x86_64-pc-linux-musl-clang", b"");
        assert_eq!(warning("x86_64-pc-linux-musl"), None);
    }
}
