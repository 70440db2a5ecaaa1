//! Masked packages: the reasons that emerge gives, and the lines that lift them.

use super::use_flags::is_flag;
use super::{is_cpv, listed, without_repo};
use crate::portage::failure::fix::Fix;

/// A package that would do, but is masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// `category/package-version::repository`.
    pub(super) package: String,
    pub(super) reasons: Vec<Reason>,
}

/// A reason for a mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// The keyword that would have to be accepted, such as `~amd64`.
    Keyword(String),
    /// No keyword of this architecture, or `-amd64`.
    NoKeyword,
    /// `package.mask`: the file and the comment above the line.
    PackageMask(Vec<String>),
    Licences(Vec<String>),
    Properties(Vec<String>),
    Restrict(Vec<String>),
    Eapi(String),
    /// Metadata that cannot be generated, and the words of the error.
    Corruption(Option<String>),
    /// Metadata that is wrong.
    Invalid(String),
    Chost(String),
    /// A binary package that does not fit, and why.
    Binary(&'static str),
    Other(String),
}

/// Masks of binary packages, as emerge writes them.
const OF_BINARIES: [(&str, &str); 5] = [
    ("use flag configuration mismatch", "its USE flags differ from the configured ones"),
    ("changed deps", "the dependencies of its ebuild have changed"),
    ("user patches", "the user patches have changed"),
    ("need to rebuild from source", "it must be rebuilt from source"),
    ("ebuild not available", "no repository has its ebuild"),
];

impl Reason {
    /// Reads the text after `masked by:`.
    pub(super) fn read(text: &str) -> Vec<Self> {
        let mut reasons = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            // Messages about invalid metadata contain commas.
            let whole =
                ["invalid: ", "LICENSE: ", "PROPERTIES: ", "RESTRICT: "].iter().any(|start| rest.starts_with(start));
            let (one, after) = if whole { (rest, "") } else { rest.split_once(", ").unwrap_or((rest, "")) };
            reasons.push(Self::one(one.trim()));
            rest = after;
        }
        reasons
    }

    fn one(text: &str) -> Self {
        let words = |list: &str| -> Vec<String> {
            let word = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || "+_.-@*".contains(c));
            list.split_whitespace().filter(word).map(str::to_owned).collect()
        };
        if let Some(keyword) = text.strip_suffix(" keyword") {
            let known = keyword.strip_prefix('~').is_some_and(is_flag);
            return if known { Self::Keyword(keyword.to_owned()) } else { Self::NoKeyword };
        }
        if let Some((_, because)) = OF_BINARIES.iter().find(|(said, _)| *said == text) {
            return Self::Binary(because);
        }
        if let Some(names) = text.strip_suffix(" license(s)") {
            return Self::Licences(words(names));
        }
        if let Some(names) = text.strip_suffix(" properties") {
            return Self::Properties(words(names));
        }
        if let Some(names) = text.strip_suffix(" in RESTRICT") {
            return Self::Restrict(words(names));
        }
        match text.split_once(' ') {
            _ if text == "package.mask" => Self::PackageMask(Vec::new()),
            _ if text == "corruption" || text == "ebuild corrupt" => Self::Corruption(None),
            Some(("EAPI", eapi)) => Self::Eapi(eapi.to_owned()),
            Some(("CHOST:", chost)) => Self::Chost(chost.to_owned()),
            Some(("invalid:" | "LICENSE:" | "PROPERTIES:" | "RESTRICT:" | "SLOT:", _)) => {
                Self::Invalid(text.strip_prefix("invalid: ").unwrap_or(text).to_owned())
            }
            _ => Self::Other(text.to_owned()),
        }
    }

    /// Says the reason in a clause.
    pub(super) fn clause(&self) -> String {
        match self {
            Self::Keyword(keyword) => format!("its keyword is {keyword}"),
            Self::NoKeyword => "it has no keyword for this architecture".into(),
            Self::PackageMask(comment) => match comment.last() {
                Some(last) => format!("package.mask has it ({})", last.trim_start_matches(['#', ' '])),
                None => "package.mask has it".into(),
            },
            Self::Licences(names) => format!("its licence {} is not accepted", listed(names, "and")),
            Self::Properties(names) => format!("its PROPERTIES are not accepted: {}", names.join(" ")),
            Self::Restrict(names) => format!("its RESTRICT is not accepted: {}", names.join(" ")),
            Self::Eapi(eapi) => format!("the Portage of the builder does not know EAPI {eapi}"),
            Self::Corruption(None) => "its metadata cannot be generated".into(),
            Self::Corruption(Some(why)) => format!("its metadata cannot be generated: {why}"),
            Self::Invalid(why) => format!("its metadata is invalid: {why}"),
            Self::Chost(chost) => format!("it is a binary package for {chost}"),
            Self::Binary(why) => format!("it is a binary package, and {why}"),
            Self::Other(text) => format!("emerge says: {text}"),
        }
    }

    /// Names the next step.
    pub(super) fn next(&self) -> &'static str {
        match self {
            Self::Keyword(_) => {
                "accept the keyword: add a line to portage.package-accept-keywords, or set ACCEPT_KEYWORDS in portage.make-conf"
            }
            Self::NoKeyword => {
                "nobody has tested the package on this architecture; `**` in portage.package-accept-keywords accepts it all the same"
            }
            Self::PackageMask(_) => "read the reason of the mask; a line in portage.package-unmask lifts it",
            Self::Licences(_) => {
                "accept the licence: add a line to portage.package-license, or set ACCEPT_LICENSE in portage.make-conf"
            }
            Self::Properties(_) => {
                "accept the property: add a line to portage.package-properties (an interactive package gets no answers)"
            }
            Self::Restrict(_) => "accept the restriction: add a line to portage.package-accept-restrict",
            Self::Eapi(_) => {
                "use a newer stage3 (source.version), or update the builder first with build.unblocker-profile"
            }
            Self::Corruption(_) => {
                "emerge shows the error above: correct the ebuild, or add the repository that has its eclass to \
                 portage.repositories and to the masters of its own repository"
            }
            Self::Invalid(_) => "correct the ebuild, or choose another version with portage.package-mask",
            Self::Chost(_) | Self::Binary(_) => {
                "allow emerge to build from source: leave usepkgonly out of emerge.options, or use the settings that the binary \
                 package was built with"
            }
            Self::Other(_) => "portage.package-mask or another atom can choose another version",
        }
    }

    /// Returns the line that lifts the mask of `package`, if there is one, and the trouble that it may bring: the higher, the worse.
    fn fix(&self, package: &str) -> Option<(Fix, u8)> {
        let exact = format!("={}", without_repo(package));
        let fix = |file, words: &str| Fix::new(file, format!("{exact} {words}"));
        Some(match self {
            Self::Keyword(keyword) => (fix("package.accept_keywords", keyword), 1),
            Self::NoKeyword => (fix("package.accept_keywords", "**"), 3),
            Self::PackageMask(comment) => {
                let mut unmask = Fix::new("package.unmask", exact);
                unmask.comments.extend(comment.iter().map(|line| line.trim_start_matches(['#', ' ']).to_owned()));
                (unmask, 4)
            }
            Self::Licences(names) if !names.is_empty() => (fix("package.license", &names.join(" ")), 1),
            Self::Properties(names) if !names.is_empty() => (fix("package.properties", &names.join(" ")), 2),
            Self::Restrict(names) if !names.is_empty() => (fix("package.accept_restrict", &names.join(" ")), 2),
            _ => return None,
        })
    }
}

impl Candidate {
    /// Reads the candidates of a message, from their lines. Errors of their ebuilds stand before the message.
    pub(super) fn read(before: &[String], lines: &[String]) -> Vec<Self> {
        let mut candidates: Vec<Self> = Vec::new();
        for line in lines {
            let read = line.strip_prefix("- ").and_then(|rest| rest.split_once(" (masked by: "));
            if let Some((package, reasons)) = read {
                if candidates.len() < 50 && is_cpv(without_repo(package)) {
                    let mut reasons = Reason::read(reasons.strip_suffix(')').unwrap_or(reasons));
                    reasons.iter_mut().for_each(|reason| {
                        if let Reason::Corruption(why) = reason {
                            *why = error_of(package, before);
                        }
                    });
                    candidates.push(Self { package: package.to_owned(), reasons });
                }
                continue;
            }
            // The file with the mask and its comment follow the package.
            let mask = candidates.last_mut().and_then(|last| {
                last.reasons.iter_mut().find_map(|reason| match reason {
                    Reason::PackageMask(comment) => Some(comment),
                    _ => None,
                })
            });
            let is_comment = line.starts_with('#') || (line.starts_with('/') && line.ends_with(':'));
            if let Some(comment) = mask.filter(|comment| is_comment && comment.len() < 20) {
                comment.push(line.clone());
            }
        }
        candidates
    }

    /// Returns the lines that lift all its masks, and their trouble. `None` if no line can.
    pub(super) fn fixes(&self) -> Option<(Vec<Fix>, u8)> {
        let fixes: Option<Vec<(Fix, u8)>> = self.reasons.iter().map(|reason| reason.fix(&self.package)).collect();
        let fixes = fixes.filter(|fixes| !fixes.is_empty())?;
        let worst = fixes.iter().map(|(_, trouble)| *trouble).max().unwrap_or_default();
        Some((fixes.into_iter().map(|(fix, _)| fix).collect(), worst))
    }
}

/// Returns the words of the error that an ebuild ended with while its metadata was generated.
fn error_of(package: &str, before: &[String]) -> Option<String> {
    let head = format!("* ERROR: {package} failed (depend phase)");
    let at = before.iter().rposition(|line| line.trim_start().starts_with(&head))?;
    before.get(at + 1).map(|line| line.trim_start_matches([' ', '*']).to_owned()).filter(|why| !why.is_empty())
}

/// Returns the candidate that is the easiest to allow: the first of those with the least trouble.
pub(super) fn easiest(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().min_by_key(|candidate| candidate.fixes().map_or(u8::MAX, |(_, trouble)| trouble))
}
