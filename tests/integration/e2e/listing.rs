//! The entries of tarballs, according to GNU tar and bsdtar.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// An entry of a tarball.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The mode as `ls` shows it: `-rwxr-xr-x`, or `h…` for a hard link.
    pub(super) mode: String,
    /// The numeric owner and group.
    pub(super) owner: String,
    /// The size, or the numbers of a device.
    pub(super) size: String,
    /// The target of a link.
    pub(super) target: Option<String>,
}

/// The entries of a tarball by name (`./usr/bin`), on which both programs agree. Bytes that are not printable are escaped.
#[derive(Debug)]
pub(super) struct Listing(BTreeMap<String, Entry>);

impl Listing {
    /// Reads a tarball with both programs.
    pub(super) fn of(tarball: &Path) -> Self {
        let Self(gnu) = Self::by_gnu(tarball);
        let mut bsd = Command::new("bsdtar");
        bsd.args(["--list", "--verbose", "--numeric-owner", "--file"]).arg(tarball);
        let bsd = parse(&run(&mut bsd), 8, |fields| {
            [fields[0].to_owned(), format!("{}/{}", fields[2], fields[3]), fields[4].to_owned()]
        });
        for (name, entry) in &gnu {
            assert_eq!(Some(entry), bsd.get(name), "GNU tar and bsdtar disagree about {name}");
        }
        assert_eq!(gnu.len(), bsd.len(), "bsdtar lists more entries");
        Self(gnu)
    }

    /// Reads a tarball with GNU tar.
    pub(super) fn by_gnu(tarball: &Path) -> Self {
        let mut gnu = Command::new("tar");
        gnu.args(["--list", "--verbose", "--numeric-owner", "--quoting-style=escape", "--file"]);
        Self(parse(&run(gnu.arg(tarball)), 5, |fields| [fields[0], fields[1], fields[2]].map(str::to_owned)))
    }

    /// Returns the entry of a path in the tree (`usr/bin`).
    #[track_caller]
    pub(super) fn get(&self, path: &str) -> &Entry {
        self.find(path).unwrap_or_else(|| panic!("{path} is not among {} names", self.0.len()))
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// Returns all names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| name.trim_start_matches("./").trim_end_matches('/'))
    }

    pub(super) fn find(&self, path: &str) -> Option<&Entry> {
        self.0.get(&format!("./{path}")).or_else(|| self.0.get(&format!("./{path}/")))
    }
}

/// Returns the content of a file in a tarball.
#[track_caller]
pub(super) fn content(tarball: &Path, path: &str) -> String {
    run(Command::new("tar").args(["--extract", "--to-stdout", "--file"]).arg(tarball).arg(format!("./{path}")))
}

/// Returns GNU tar's listing with extended attributes: a line with `x:` below that of the file.
pub(super) fn with_attributes(tarball: &Path) -> String {
    let mut tar = Command::new("tar");
    tar.args(["--list", "-vv", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--file"]);
    run(tar.arg(tarball))
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").output().expect("starting a tar");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("output in UTF-8")
}

/// Parses lines of `columns` columns and a name. `pick` returns the mode, owner and size from the columns.
fn parse(text: &str, columns: usize, pick: impl Fn(&[&str]) -> [String; 3]) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::new();
    for line in text.lines() {
        let (mut fields, mut rest) = (Vec::new(), line);
        for _ in 0..columns {
            let (field, after) = rest.trim_start().split_once(' ').unwrap_or_else(|| panic!("unexpected line: {line}"));
            fields.push(field);
            rest = after;
        }
        let (name, target) = match rest.split_once(" -> ").or_else(|| rest.split_once(" link to ")) {
            Some((name, target)) => (name, Some(target.to_owned())),
            None => (rest, None),
        };
        let [mode, owner, size] = pick(&fields);
        let entry = Entry { mode: mode.trim_end_matches('+').to_owned(), owner, size, target };
        assert!(entries.insert(name.to_owned(), entry).is_none(), "{name} is listed twice");
    }
    entries
}
