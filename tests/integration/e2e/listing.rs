//! Tarballs as GNU tar and bsdtar see them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// An entry of a tarball.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// As `ls` shows it: `-rwxr-xr-x`, `h…` for a further name of a file.
    pub(super) mode: String,
    /// Owner, numeric.
    pub(super) owner: String,
    /// Size; numbers of a device.
    pub(super) size: String,
    /// What a link points to.
    pub(super) target: Option<String>,
}

/// What is in a tarball, by name (`./usr/bin`), which both programs agree on. Odd bytes are escaped.
#[derive(Debug)]
pub(super) struct Listing(BTreeMap<String, Entry>);

impl Listing {
    /// Reads a tarball with both programs.
    pub(super) fn of(tarball: &Path) -> Self {
        let mut gnu = Command::new("tar");
        gnu.args(["--list", "--verbose", "--numeric-owner", "--full-time", "--quoting-style=escape", "--file"]);
        let gnu = parse(&run(gnu.arg(tarball)), 5, |fields| [fields[0], fields[1], fields[2]].map(str::to_owned));
        let mut bsd = Command::new("bsdtar");
        bsd.args(["--list", "--verbose", "--numeric-owner", "--file"]).arg(tarball);
        let bsd = parse(&run(&mut bsd), 8, |fields| {
            [fields[0].to_owned(), format!("{}/{}", fields[2], fields[3]), fields[4].to_owned()]
        });
        for (name, entry) in &gnu {
            assert_eq!(Some(entry), bsd.get(name), "GNU tar and bsdtar differ about {name}");
        }
        assert_eq!(gnu.len(), bsd.len(), "bsdtar sees more");
        Self(gnu)
    }

    /// An entry, by its path in the tree (`usr/bin`).
    #[track_caller]
    pub(super) fn get(&self, path: &str) -> &Entry {
        self.find(path).unwrap_or_else(|| panic!("{path} is not in {:#?}", self.0.keys()))
    }

    /// Whether there is such an entry.
    pub(super) fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// All names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| name.trim_start_matches("./").trim_end_matches('/'))
    }

    pub(super) fn find(&self, path: &str) -> Option<&Entry> {
        self.0.get(&format!("./{path}")).or_else(|| self.0.get(&format!("./{path}/")))
    }
}

/// The content of one file in a tarball.
#[track_caller]
pub(super) fn content(tarball: &Path, path: &str) -> String {
    run(Command::new("tar").args(["--extract", "--to-stdout", "--file"]).arg(tarball).arg(format!("./{path}")))
}

/// The extended attributes in a tarball as GNU tar shows them: a line with `x:` below the file's.
pub(super) fn with_attributes(tarball: &Path) -> String {
    let mut tar = Command::new("tar");
    tar.args(["--list", "-vv", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--file"]);
    run(tar.arg(tarball))
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C").env("TZ", "UTC").output().expect("starting a tar");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("odd bytes are escaped")
}

/// Lines of `columns` columns, of which `pick` makes mode, owner and size, before a name.
fn parse(text: &str, columns: usize, pick: impl Fn(&[&str]) -> [String; 3]) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::new();
    for line in text.lines() {
        let (mut fields, mut rest) = (Vec::new(), line);
        for _ in 0..columns {
            let (field, after) = rest.trim_start().split_once(' ').unwrap_or_else(|| panic!("a listing has {line}"));
            fields.push(field);
            rest = after;
        }
        let (name, target) = match rest.split_once(" -> ").or_else(|| rest.split_once(" link to ")) {
            Some((name, target)) => (name, Some(target.to_owned())),
            None => (rest, None),
        };
        let [mode, owner, size] = pick(&fields);
        let entry = Entry { mode: mode.trim_end_matches('+').to_owned(), owner, size, target };
        assert!(entries.insert(name.to_owned(), entry).is_none(), "{name} is there twice");
    }
    entries
}
