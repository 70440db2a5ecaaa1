//! An output file that an option names. It is written last, and appears complete or stays as it was.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use super::standard;
use crate::base::error::{Context, Error, Kind, Result};
use crate::fs::rootfs::Rootfs;
use crate::fs::staging::Directory;
use crate::fs::{atomic, directory_of};
use crate::os::{probe, space};
use crate::ui::Terminal;

/// An output file, looked up before any tree is opened.
pub(super) enum OutputFile {
    /// A name in a directory.
    At(Rootfs, PathBuf),
    /// A pipe, a device, or an unnamed file.
    Open(File),
}

impl OutputFile {
    /// Looks up `path`. `what` names the file in messages.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the file cannot be written.
    pub(super) fn find(path: &Path, what: &str) -> Result<Self> {
        let opening = || format!("opening the {what}");
        // Follow a symlink to a file instead of replacing it: `/dev/stdout` may be one.
        let real = match fs_err::metadata(path) {
            Ok(metadata) if !metadata.is_file() => None,
            Ok(_) => match fs_err::canonicalize(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                other => Some(other.system(opening)?),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(path.to_owned()),
            Err(error) => return Err(error).system(opening),
        };
        let Some(real) = real else {
            let file = fs_err::OpenOptions::new().write(true).truncate(true).open(path);
            return Ok(Self::Open(file.context(Kind::Usage, opening)?.into()));
        };
        let Some(name) = real.file_name() else {
            return Err(Error::usage(format!("opening the {what}: {} is not the name of a file", path.display())));
        };
        Ok(Self::At(Rootfs::open(directory_of(&real))?, name.into()))
    }

    /// Returns the directory that the file will be in, unless the file is open already.
    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Self::At(dir, _) => Some(dir.path()),
            Self::Open(_) => None,
        }
    }

    /// Tests whether both are the same name in the same directory. The file need not exist.
    pub(super) fn is(&self, other: &Self) -> bool {
        let inode = |dir: &Rootfs| rustix::fs::fstat(dir.fd()).map(|stat| (stat.st_dev, stat.st_ino));
        matches!((self, other), (Self::At(one, name), Self::At(two, other))
            if name == other && inode(one).is_ok_and(|one| inode(two) == Ok(one)))
    }

    /// Writes the whole file.
    pub(super) fn write(self, from: &mut impl Read, what: &str) -> Result<()> {
        match self {
            Self::At(dir, name) => {
                let mode = 0o600 | (0o666 & !probe::umask());
                atomic::replace_at(dir.fd(), name.as_os_str(), mode, from).system(|| format!("writing the {what}"))
            }
            Self::Open(mut file) => io::copy(from, &mut file).map(drop).system(|| format!("writing the {what}")),
        }
    }
}

/// An output file that is written in parts. Until it is complete, it is an unnamed file in the directory of its destination.
pub(super) struct SpooledOutput {
    /// `None` if the parts go straight to an open file.
    destination: Option<OutputFile>,
    what: &'static str,
    file: BufWriter<File>,
}

impl SpooledOutput {
    pub(super) fn new(destination: OutputFile, what: &'static str) -> Result<Self> {
        let (destination, file) = match destination {
            OutputFile::At(dir, name) => {
                let file = tempfile::tempfile_in(dir.path()).system(|| format!("writing the {what}"))?;
                (Some(OutputFile::At(dir, name)), file)
            }
            OutputFile::Open(file) => (None, file),
        };
        Ok(Self { destination, what, file: BufWriter::new(file) })
    }

    /// Moves the complete file to its destination.
    pub(super) fn keep(self) -> Result<()> {
        let Self { destination, what, file } = self;
        let writing = || format!("writing the {what}");
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error).system(writing)?;
        let Some(destination) = destination else { return Ok(()) };
        file.rewind().system(writing)?;
        destination.write(&mut file, what)
    }
}

impl Write for SpooledOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes an archive of about `needed` bytes to a new file, which appears when it is complete, or to standard output.
pub(super) fn write_archive(
    output: Option<&Path>,
    needed: u64,
    ui: &Terminal,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let Some(output) = output else {
        let mut out = standard::archive()?;
        if out.metadata().is_ok_and(|metadata| metadata.is_file()) {
            space::check(&out, Path::new("the file system of standard output"), "exporting", needed)?;
        }
        return write(&mut out);
    };
    let directory = directory_of(output);
    let doing = || format!("writing {}", output.display());
    if output.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Error::usage(format!("{}: an existing directory or special file is in the way", doing())));
    }
    let above = fs_err::File::open(directory).system(doing)?;
    let staging = Directory::create(above.file().as_fd(), directory, ui)?;
    let path = directory.join(staging.name()).join("archive");
    let mut file = fs_err::File::create(&path).system(doing)?;
    space::check(file.file(), directory, doing(), needed)?;
    write(&mut file).map_err(|error| space::told(error, &[directory]))?;
    file.sync_all().system(doing)?;
    staging.undisturbed(|| fs_err::rename(&path, output)).system(doing)?;
    ui.result(output);
    Ok(())
}
