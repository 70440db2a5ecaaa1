//! Files with the output of steps: `DIR/IMAGE/NN-STEP-TIME.log`, where `NN` is the place of the step in the build and the time is UTC.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};

use crate::base::error::{Context as _, Kind, Result};
use crate::base::time::{SourceDate, now};

/// The most files of one name.
const MAX_EQUAL: usize = 100;

/// The directory of an image in the directory that the user named.
#[derive(Debug)]
pub(super) struct Logs {
    top: PathBuf,
    /// The directory of the image and its path. A step that can write to this directory cannot make it another one.
    image: Option<(OwnedFd, PathBuf)>,
}

impl Logs {
    /// Creates the directory.
    ///
    /// # Errors
    /// [`Kind::Usage`] if that is not possible.
    pub(super) fn create(top: &Path) -> Result<Self> {
        fs_err::create_dir_all(top).context(Kind::Usage, || "making the directory for logs")?;
        Ok(Self { top: top.to_owned(), image: None })
    }

    /// Creates the directory of an image, whose name may be a path.
    ///
    /// # Errors
    /// [`Kind::Usage`] if that is not possible.
    pub(super) fn image(&mut self, name: &str) -> Result<()> {
        let making = || "making the directory for logs";
        let path = self.top.join(name.trim_start_matches('/'));
        fs_err::create_dir_all(&path).context(Kind::Usage, making)?;
        let directory = fs_err::File::open(&path).context(Kind::Usage, making)?;
        self.image = Some((OwnedFd::from(directory.into_file()), path));
        Ok(())
    }

    /// Creates the file for the output of the step `name`, the step number `number` of the build.
    ///
    /// # Errors
    /// [`Kind::System`] if that is not possible.
    pub(super) fn open(&self, number: usize, name: &str) -> Result<Option<Log>> {
        let Some((directory, path)) = &self.image else { return Ok(None) };
        let time = SourceDate::new(now()).rfc3339();
        let stem = format!("{number:02}-{}-{}", name.replace('/', "-"), time.trim_end_matches('Z'));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut equal = 1;
        loop {
            let name = if equal == 1 { format!("{stem}.log") } else { format!("{stem}.{equal}.log") };
            let path = path.join(&name);
            match openat(directory, &name, flags, Mode::from_raw_mode(0o666)) {
                Err(rustix::io::Errno::EXIST) if equal < MAX_EQUAL => equal += 1,
                file => {
                    let file = file.system(|| format!("making the log {}", path.display()))?;
                    return Ok(Some(Log { file: File::from(file), path }));
                }
            }
        }
    }
}

/// The output of a step.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    path: PathBuf,
}

impl Log {
    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be written.
    pub(super) fn write(&mut self, line: &str) -> Result<()> {
        self.file
            .write_all(format!("{line}\n").as_bytes())
            .system(|| format!("writing the log {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_of_the_same_second_have_names_of_their_own() {
        let place = tempfile::tempdir().unwrap();
        let mut logs = Logs::create(&place.path().join("a/b")).unwrap();
        assert!(logs.open(1, "x").unwrap().is_none());
        logs.image("tree/image").unwrap();
        let mut paths: Vec<PathBuf> = (0..3).map(|_| logs.open(7, "g/x").unwrap().unwrap().path).collect();
        assert!(paths.iter().all(|path| path.parent() == Some(&place.path().join("a/b/tree/image"))), "{paths:?}");
        paths.dedup();
        assert_eq!(paths.len(), 3);
    }
}
