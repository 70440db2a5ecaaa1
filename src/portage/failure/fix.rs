//! Lines for the recipe that help after a refusal: read from emerge's own proposals, and written as TOML.

use std::collections::BTreeMap;

use crate::base::text::escaped;
use crate::recipe;

/// The limit on lines, and on comments of one line.
const MAX: usize = 200;
const MAX_COMMENTS: usize = 20;

/// The lines of a recipe for package files, by Portage's name of the file.
pub type PackageFiles = BTreeMap<String, Vec<String>>;

/// A line of a package file that helps, such as `=app-misc/x-1 ~amd64` in `package.accept_keywords`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// Portage's name of the file.
    pub file: &'static str,
    /// The line itself.
    pub line: String,
    /// The packages that need it and other facts, a line each.
    pub comments: Vec<String>,
    /// Lines that would do in its place.
    pub others: Vec<String>,
    /// True if emerge needs it for the root `/`, which is the builder, or for the tree of a stage4.
    pub(super) builder: bool,
}

/// The files that emerge proposes changes of, by the word in the message.
const PROPOSED: [(&str, &str); 4] = [
    ("The following keyword changes are necessary", "package.accept_keywords"),
    ("The following mask changes are necessary", "package.unmask"),
    ("The following USE changes are necessary", "package.use"),
    ("The following license changes are necessary", "package.license"),
];

impl Fix {
    pub(super) fn new(file: &'static str, line: String) -> Self {
        Self { file, line, comments: Vec::new(), others: Vec::new(), builder: false }
    }

    /// Returns a warning about a line that lifts a serious mask.
    fn warning(&self) -> Option<&'static str> {
        match self.file {
            "package.unmask" => Some("warning: this package is masked for the reason above"),
            "package.accept_keywords" if self.line.ends_with(" **") => {
                Some("warning: nobody has tested this package on this architecture")
            }
            _ => None,
        }
    }

    /// Lists its comments and its warning, each safe in a line of TOML.
    pub fn notes(&self) -> Vec<String> {
        let others = self.others.iter().map(|other| format!("or in its place: {other}"));
        let notes = self.comments.iter().cloned().chain(others).chain(self.warning().map(str::to_owned));
        notes.take(MAX_COMMENTS).map(|note| escaped(&note)).collect()
    }
}

/// Reads the changes that emerge proposes with --autounmask. Lines that a recipe would not accept are left out.
pub(super) fn proposed(lines: &[String]) -> Vec<Fix> {
    let mut fixes = Vec::new();
    let mut file = None;
    let mut comments: Vec<String> = Vec::new();
    // With changes for several roots, each has a heading.
    let mut heading = None;
    for line in lines {
        let line = line.trim();
        if let Some(directory) =
            line.strip_prefix("For /").filter(|rest| rest.ends_with("/etc/portage:") || *rest == "etc/portage:")
        {
            heading = Some(directory == "etc/portage:");
            file = None;
        } else if let Some((_, named)) = PROPOSED.iter().find(|(head, _)| line.starts_with(head)) {
            file = Some(*named);
            comments.clear();
        } else if let (Some(named), false) = (file, line.is_empty()) {
            if let Some(comment) = line.strip_prefix('#') {
                comments.push(comment.trim_start_matches(['#', ' ']).to_owned());
            } else if !line.starts_with("(see ") {
                let builder = heading.unwrap_or_else(|| is_merged_into_builder(lines, line));
                let comments = std::mem::take(&mut comments);
                fixes.push(Fix { comments, builder, ..Fix::new(named, line.to_owned()) });
            }
        } else {
            file = None;
        }
    }
    accepted(fixes)
}

/// Returns true if the list of packages to merge has the package of a proposed line for the root `/` alone. Portage names only other roots
/// (`to /quern/image/`).
fn is_merged_into_builder(lines: &[String], fix: &str) -> bool {
    let cpv = fix.split([' ', ':']).next().unwrap_or_default().trim_start_matches(['=', '>', '<', '~']);
    let entry = |line: &String| {
        let (state, rest) = line.trim_start().strip_prefix('[')?.split_once("] ")?;
        let mut words = rest.split_whitespace();
        let is_it = words.next()?.split("::").next() == Some(cpv) && !state.starts_with("nomerge");
        is_it.then(|| words.next() != Some("to"))
    };
    let mut roots = lines.iter().filter_map(entry).peekable();
    roots.peek().is_some() && roots.all(|builder| builder)
}

/// Keeps the lines that a recipe accepts, each once.
pub(super) fn accepted(fixes: Vec<Fix>) -> Vec<Fix> {
    let mut kept: Vec<Fix> = Vec::new();
    for mut fix in fixes {
        let Some(line) =
            recipe::package_line(fix.file, &fix.line).filter(|line| !line.starts_with('-') && !line.contains('#'))
        else {
            continue;
        };
        fix.others.retain(|other| recipe::package_line(fix.file, other).is_some());
        fix.comments.retain(|comment| !comment.is_empty());
        if kept.len() < MAX && !kept.iter().any(|known| known.file == fix.file && known.line == line) {
            kept.push(Fix { line, ..fix });
        }
    }
    kept
}

/// Writes the lines as `[portage]` of a recipe. Each key has the lines that the recipe has already, as a later value of a key replaces
/// an earlier one.
pub fn toml(present: &PackageFiles, fixes: &[Fix]) -> String {
    let mut files: Vec<&'static str> = Vec::new();
    for fix in fixes {
        if !files.contains(&fix.file) {
            files.push(fix.file);
        }
    }
    let mut text = String::from("[portage]\n");
    for file in files {
        let Some(key) = recipe::package_key(file) else { continue };
        text.push_str(&format!("{key} = [\n"));
        for line in present.get(file).into_iter().flatten() {
            text.push_str(&format!("  {},\n", recipe::toml_string(line)));
        }
        for fix in fixes.iter().filter(|fix| fix.file == file) {
            fix.notes().iter().for_each(|note| text.push_str(&format!("  # {note}\n")));
            text.push_str(&format!("  {},\n", recipe::toml_string(&fix.line)));
        }
        text.push_str("]\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portage::failure::text::lines;

    const OUTPUT: &str = "\
For /quern/config/etc/portage:

The following keyword changes are necessary to proceed:
 (see \"package.accept_keywords\" in the portage(5) man page for more details)
# required by app-exp/needs-1::exp
# required by app-exp/needs (argument)
=app-exp/unstable-1 ~amd64
# required by app-exp/live (argument)
=app-exp/live-9999 **

The following mask changes are necessary to proceed:
 (see \"package.unmask\" in the portage(5) man page for more details)
# required by app-exp/masked (argument)
# /var/db/repos/exp/profiles/package.mask:
# Broken beyond repair. Removal in 30 days.
=app-exp/masked-1

The following USE changes are necessary to proceed:
 (see \"package.use\" in the portage(5) man page for more details)
>=app-exp/flags-1 foo -bar
>=app-exp/flags-1 foo -bar
>=app-exp/$(id)-1 foo

The following license changes are necessary to proceed:
 (see \"package.license\" in the portage(5) man page for more details)
>=app-exp/eula-1 EXP-EULA

Use --autounmask-write to write changes to config files (honoring
";

    #[test]
    fn proposals_of_every_kind_are_read() {
        let fixes = proposed(&lines(OUTPUT.as_bytes()));
        let read: Vec<(&str, &str)> = fixes.iter().map(|fix| (fix.file, fix.line.as_str())).collect();
        let expected = [
            ("package.accept_keywords", "=app-exp/unstable-1 ~amd64"),
            ("package.accept_keywords", "=app-exp/live-9999 **"),
            ("package.unmask", "=app-exp/masked-1"),
            ("package.use", ">=app-exp/flags-1 foo -bar"),
            ("package.license", ">=app-exp/eula-1 EXP-EULA"),
        ];
        assert_eq!(read, expected);
        assert_eq!(fixes[0].comments, ["required by app-exp/needs-1::exp", "required by app-exp/needs (argument)"]);
        assert!(fixes[3].comments.is_empty());
    }

    #[test]
    fn a_proposal_for_the_builder_is_told_apart() {
        let of_builder =
            |output: &str| -> Vec<bool> { proposed(&lines(output.as_bytes())).iter().map(|fix| fix.builder).collect() };
        let proposal = "\nThe following keyword changes are necessary to proceed:\n=a/b-1 ~amd64\n>=a/c-2:0 ~amd64\n";
        let list =
            "[ebuild  N    ~] a/b-1::x to /quern/image/ USE=\"y\" 0 KiB\n[ebuild  N    ~]  a/c-2::x  USE=\"y\"\n";
        assert_eq!(of_builder(&format!("{list}{proposal}")), [false, true]);
        let both = "[ebuild  N    ~] a/c-2::x to /quern/image/\n";
        assert_eq!(of_builder(&format!("{list}{both}{proposal}")), [false, false]);
        assert_eq!(of_builder(proposal), [false, false]);
        let headed =
            format!("For /quern/config/etc/portage:\n{proposal}\nFor /etc/portage:\n{}", proposal.replace("a/", "z/"));
        assert_eq!(of_builder(&headed), [false, false, true, true]);
    }

    #[test]
    fn the_toml_keeps_the_lines_of_the_recipe() {
        let present = PackageFiles::from([("package.use".into(), vec!["a/b c".into()])]);
        let text = toml(&present, &proposed(&lines(OUTPUT.as_bytes())));
        let expected = "\
[portage]
package-accept-keywords = [
  # required by app-exp/needs-1::exp
  # required by app-exp/needs (argument)
  \"=app-exp/unstable-1 ~amd64\",
  # required by app-exp/live (argument)
  # warning: nobody has tested this package on this architecture
  \"=app-exp/live-9999 **\",
]
package-unmask = [
  # required by app-exp/masked (argument)
  # /var/db/repos/exp/profiles/package.mask:
  # Broken beyond repair. Removal in 30 days.
  # warning: this package is masked for the reason above
  \"=app-exp/masked-1\",
]
package-use = [
  \"a/b c\",
  \">=app-exp/flags-1 foo -bar\",
]
package-license = [
  \">=app-exp/eula-1 EXP-EULA\",
]
";
        assert_eq!(text, expected);
        assert!(::toml::from_str::<::toml::Table>(&text).is_ok());
    }

    #[test]
    fn comments_cannot_end_their_line() {
        let fix = Fix { comments: vec!["a\u{2028}b\u{7f}".into()], ..Fix::new("package.use", "a/b c".into()) };
        let text = toml(&PackageFiles::new(), &[fix]);
        assert!(text.contains("# a\\u{2028}b\\u{7f}\n"), "{text}");
    }
}
