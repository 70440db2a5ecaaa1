//! Refusals of emerge: read from its output, each with its own sentence, its next step and, where lines in the recipe can help,
//! those lines.

mod mask;
mod parse;
mod sentence;
mod use_flags;

use super::fix::Fix;
use mask::Candidate;
use use_flags::Flags;

pub(super) use parse::parse;

/// The limit on refusals of one output.
const MAX: usize = 30;

/// A refusal, and the chain of packages that leads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    is: Is,
    /// The packages and arguments that need the refused one, the nearest first.
    chain: Vec<String>,
    /// True if it is about the root `/`, which Portage does not name.
    builder: bool,
}

/// The kind of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Is {
    /// Every package that would do is masked.
    Masked {
        atom: String,
        candidates: Vec<Candidate>,
    },
    /// No package has the USE flags of a dependency; each package is shown with the changes that would do.
    UseFlags {
        atom: String,
        changes: Vec<(String, Vec<String>)>,
    },
    /// The ebuild does not have the USE flags of a dependency at all.
    NoSuchFlag {
        atom: String,
        package: String,
        flags: String,
    },
    /// REQUIRED_USE is not met. `complete` is the whole expression.
    RequiredUse {
        package: String,
        unsatisfied: String,
        complete: String,
        flags: Flags,
    },
    /// No repository has the package.
    NoEbuild {
        atom: String,
        similar: Vec<String>,
    },
    /// No binary package fits, and emerge may use nothing else.
    NoBinary {
        atom: String,
    },
    /// Packages need each other; each is shown with the changes that would break the cycle.
    Circular {
        packages: Vec<String>,
        changes: Vec<(String, Vec<String>)>,
    },
    /// Two versions of a package are needed in one slot.
    SlotConflict {
        slot: String,
        needs: Vec<String>,
        changes: Vec<(String, Vec<String>)>,
    },
    /// A package blocks another.
    Blocked {
        blocker: String,
        atom: String,
    },
    /// The source must be downloaded by hand.
    FetchRestricted {
        package: String,
        files: Vec<String>,
    },
    /// A source or an ebuild does not match the Manifest.
    Digest {
        file: String,
        hash: String,
        renamed: Option<String>,
    },
    /// The Manifest lacks an entry.
    NotInManifest {
        file: String,
    },
    /// A file belongs to another package already.
    Collision {
        package: String,
        files: Vec<String>,
        owner: Option<String>,
    },
    NoSet {
        name: String,
    },
    Ambiguous {
        name: String,
        candidates: Vec<String>,
    },
    InvalidAtom {
        atom: String,
    },
    /// A line of a package file that Portage ignores.
    InvalidLine {
        file: String,
        line: String,
    },
    InvalidProfile,
    /// A signature of a binary package cannot be verified; the summary says why.
    BinarySignature {
        summary: String,
    },
    /// A user or group is added before there is a directory `/etc`.
    NoPasswd {
        file: String,
    },
    /// A directory repository changed while emerge read it.
    Changed {
        package: String,
    },
    UnknownOption {
        words: String,
    },
}

impl Refusal {
    /// Returns true if both say the same, whatever led to it.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.builder, &self.is) == (other.builder, &other.is)
            || matches!((&self.is, &other.is), (Is::Changed { .. }, Is::Changed { .. }))
    }

    /// Returns true for a refusal about the root `/`: the builder, or the tree of a stage4.
    pub(super) fn is_for_builder(&self) -> bool {
        self.builder
    }

    /// Returns the package whose source must be downloaded by hand.
    pub(super) fn fetch_restricted(&self) -> Option<&str> {
        match &self.is {
            Is::FetchRestricted { package, .. } => Some(package),
            _ => None,
        }
    }

    /// Names the files of the package `cpv`, if its source must be downloaded by hand.
    pub(super) fn name_sources(&mut self, cpv: &str, names: &[String]) {
        if let Is::FetchRestricted { package, files } = &mut self.is
            && package == cpv
        {
            *files = names.to_vec();
        }
    }

    /// Returns true for a refusal of a source that a new download would not lift.
    pub(super) fn is_about_sources(&self) -> bool {
        matches!(self.is, Is::FetchRestricted { .. } | Is::Digest { .. } | Is::NotInManifest { .. })
    }

    /// Returns true for a message that is rarely the cause of a failure.
    pub(super) fn is_aside(&self) -> bool {
        matches!(self.is, Is::InvalidLine { .. } | Is::Changed { .. })
    }

    /// Returns the lines that would lift the refusal, as far as its message tells. `wanted` are the words of `package.use` that the recipe
    /// has for a package.
    pub(super) fn fixes(&self, wanted: impl Fn(&str) -> Vec<String>) -> Vec<Fix> {
        let of_use = |changes: &[(String, Vec<String>)]| -> Option<Fix> {
            let line =
                |(package, words): &(String, Vec<String>)| format!("={} {}", without_repo(package), words.join(" "));
            let (first, others) = changes.split_first()?;
            Some(Fix { others: others.iter().map(line).collect(), ..Fix::new("package.use", line(first)) })
        };
        let mut fixes = match &self.is {
            Is::Masked { candidates, .. } => {
                mask::easiest(candidates).and_then(Candidate::fixes).map(|(fixes, _)| fixes).unwrap_or_default()
            }
            Is::UseFlags { changes, .. } | Is::Circular { changes, .. } => of_use(changes).into_iter().collect(),
            // All changes together solve a conflict.
            Is::SlotConflict { changes, .. } => {
                changes.iter().filter_map(|change| of_use(std::slice::from_ref(change))).collect()
            }
            Is::RequiredUse { package, unsatisfied, complete, flags } => {
                let wanted = wanted(without_repo(package));
                let found = use_flags::candidates(unsatisfied, complete, flags, &wanted);
                let changes: Vec<_> = found.into_iter().map(|words| (package.clone(), words)).collect();
                of_use(&changes).into_iter().collect()
            }
            _ => Vec::new(),
        };
        for fix in &mut fixes {
            fix.builder = self.builder;
            fix.comments.splice(0..0, self.chain.iter().map(|by| format!("required by {by}")));
        }
        fixes
    }
}

/// Returns true for text of the form `category/package-version`.
pub(in crate::portage) fn is_cpv(text: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"+_.-".contains(&b)) && part.len() < 200
    };
    text.split_once('/').is_some_and(|(category, pf)| word(category) && word(pf))
}

/// Takes the repository off `category/package-version::repository`.
fn without_repo(package: &str) -> &str {
    package.split_once("::").map_or(package, |(cpv, _)| cpv)
}

/// Joins words as in a sentence.
pub(super) fn listed(words: &[String], last: &str) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., end] => format!("{} {last} {end}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests;
