//! A file that an option names and that is written last: there whole, or as it was.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use crate::base::error::{Context, Error, Kind, Result};
use crate::fs::rootfs::Rootfs;
use crate::fs::{atomic, directory_of};
use crate::os::process;

/// Where it goes, looked up before the tree is touched.
pub(super) enum Named {
    /// A name in a directory.
    At(Rootfs, PathBuf),
    /// A pipe or a device, or a file without a name.
    Open(File),
}

impl Named {
    /// Finds the place of the file `path`, which messages call `what`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when nothing can be written there.
    pub(super) fn find(path: &Path, what: &str) -> Result<Self> {
        let opening = || format!("opening the {what}");
        // A link to a file stays one: `/dev/stdout` may be.
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
            return Err(Error::usage(format!("{}: a {what} is a file", path.display())));
        };
        Ok(Self::At(Rootfs::open(directory_of(&real))?, name.into()))
    }

    /// The directory where it gets its name.
    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Self::At(dir, _) => Some(dir.path()),
            Self::Open(_) => None,
        }
    }

    /// Whether both are the same name, of a file that may not be there yet.
    pub(super) fn is(&self, other: &Self) -> bool {
        let inode = |dir: &Rootfs| rustix::fs::fstat(dir.fd()).map(|stat| (stat.st_dev, stat.st_ino));
        matches!((self, other), (Self::At(one, name), Self::At(two, other))
            if name == other && inode(one).is_ok_and(|one| inode(two) == Ok(one)))
    }

    /// Writes all of it.
    pub(super) fn write(self, from: &mut impl Read, what: &str) -> Result<()> {
        match self {
            Self::At(dir, name) => {
                let mode = 0o600 | (0o666 & !process::umask());
                atomic::replace_at(dir.fd(), name.as_os_str(), mode, from).system(|| format!("writing the {what}"))
            }
            Self::Open(mut file) => io::copy(from, &mut file).map(drop).system(|| format!("writing the {what}")),
        }
    }
}

/// A named file that is written bit by bit: until its end without a name, beside the place where it goes.
pub(super) struct Spool {
    place: Option<Named>,
    what: &'static str,
    file: BufWriter<File>,
}

impl Spool {
    pub(super) fn new(place: Named, what: &'static str) -> Result<Self> {
        let (place, file) = match place {
            Named::At(dir, name) => {
                let file = tempfile::tempfile_in(dir.path()).system(|| format!("writing the {what}"))?;
                (Some(Named::At(dir, name)), file)
            }
            // Nothing to wait with.
            Named::Open(file) => (None, file),
        };
        Ok(Self { place, what, file: BufWriter::new(file) })
    }

    /// Gives it its name.
    pub(super) fn keep(self) -> Result<()> {
        let Self { place, what, file } = self;
        let writing = || format!("writing the {what}");
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error).system(writing)?;
        let Some(place) = place else { return Ok(()) };
        file.rewind().system(writing)?;
        place.write(&mut file, what)
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
