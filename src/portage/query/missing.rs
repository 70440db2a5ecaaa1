//! The question which of some atoms no installed package matches.

/// A program for the builder's Python. Its arguments are atoms; it prints those that no package in ROOT matches, one in a line.
pub const PROGRAM: &str = r#"
import sys
import portage
installed = portage.db[portage.settings["EROOT"]]["vartree"].dbapi
for atom in sys.argv[1:]:
    if not installed.match(atom):
        print(atom)
"#;
