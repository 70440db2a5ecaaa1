//! The sentence and the next step of each refusal.

use super::{Is, Refusal, listed, mask, without_repo};

impl Refusal {
    /// Says the refusal in a sentence without a full stop. Everything in it is safe to show.
    pub(in crate::portage::failure) fn sentence(&self) -> String {
        match &self.is {
            Is::Masked { atom, candidates } => match mask::easiest(candidates) {
                Some(candidate) => {
                    let clauses: Vec<String> = candidate.reasons.iter().map(mask::Reason::clause).collect();
                    format!("every version of {atom} is masked; {}: {}", candidate.package, clauses.join(", and "))
                }
                None => format!("every version of {atom} is masked"),
            },
            Is::UseFlags { atom, changes } => match changes.first() {
                Some((package, words)) => {
                    format!("{atom} needs other USE flags: {} with USE=\"{}\"", without_repo(package), words.join(" "))
                }
                None => format!("no package has the USE flags of {atom}"),
            },
            Is::NoSuchFlag { atom, package, flags } => {
                format!("{atom} needs a USE flag that {package} does not have: {flags}")
            }
            Is::RequiredUse { package, unsatisfied, .. } => {
                format!("REQUIRED_USE of {package} is not met: {unsatisfied}")
            }
            Is::NoEbuild { atom, .. } if atom.contains('[') => {
                format!("no ebuild satisfies {atom}: there is none, or the profile fixes one of the USE flags")
            }
            Is::NoEbuild { atom, .. } => format!("no repository has an ebuild for {atom}"),
            Is::NoBinary { atom } => format!("no binary package satisfies {atom}"),
            Is::Circular { packages, .. } if packages.is_empty() => "packages need each other to be built".into(),
            Is::Circular { packages, .. } => {
                format!("these packages need each other to be built: {}", packages.join(", "))
            }
            Is::SlotConflict { slot, needs, .. } => match needs.is_empty() {
                true => format!("two versions of {slot} are needed, and the slot takes one"),
                false => format!("two versions of {slot} are needed, and the slot takes one: {}", needs.join("; ")),
            },
            Is::Blocked { blocker, atom } => format!("{blocker} blocks {atom}: they cannot be installed together"),
            Is::FetchRestricted { package, files } => match files.is_empty() {
                true => format!("emerge must not download the source of {package}"),
                false => format!("emerge must not download the source of {package}: {}", listed(files, "and")),
            },
            Is::Digest { file, hash, .. } => format!("{file} does not match its Manifest ({hash})"),
            Is::NotInManifest { file } => format!("the Manifest has no digest for {file}"),
            Is::Collision { package, files, owner } => {
                let whose = owner.as_ref().map_or("another package", String::as_str);
                format!("{package} has files that belong to {whose}: {}", listed(files, "and"))
            }
            Is::NoSet { name } => format!("the set @{name} does not exist"),
            Is::Ambiguous { name, candidates } if candidates.is_empty() => format!("the name {name} is ambiguous"),
            Is::Ambiguous { name, candidates } => format!("the name {name} is ambiguous: {}", listed(candidates, "or")),
            Is::InvalidAtom { atom } => format!("{atom} is not a valid atom"),
            Is::InvalidLine { file, line } => format!("Portage ignored a line of {file}: {line}"),
            Is::InvalidProfile => "Portage cannot use the profile".into(),
            Is::BinarySignature { summary } if summary.is_empty() => "a binary package could not be verified".into(),
            Is::BinarySignature { summary } => format!("a binary package could not be verified: {summary}"),
            Is::NoPasswd { file } => format!("a user or group cannot be added: the tree has no {file} yet"),
            Is::Changed { package } => {
                format!("a repository changed while emerge read it: the ebuild of {package} is gone")
            }
            Is::UnknownOption { words } => format!("emerge does not know the option {words}"),
        }
    }

    /// Names the next steps.
    pub(in crate::portage::failure) fn next(&self) -> Vec<String> {
        let one = |step: &str| vec![step.to_owned()];
        match &self.is {
            Is::Masked { candidates, .. } => {
                let candidate = mask::easiest(candidates);
                let mut steps: Vec<String> =
                    candidate.iter().flat_map(|one| &one.reasons).map(|reason| reason.next().to_owned()).collect();
                steps.dedup();
                steps
            }
            Is::UseFlags { .. } => one("set the USE flags that emerge names in portage.package-use"),
            Is::NoSuchFlag { .. } => one(
                "choose another version of either package with portage.package-mask, or correct the dependency in the ebuild",
            ),
            Is::RequiredUse { .. } => one("set USE flags that satisfy the expression in portage.package-use"),
            Is::NoEbuild { atom, similar } => {
                let mut steps = Vec::new();
                if !similar.is_empty() {
                    steps.push(format!("similar names: {}", similar.join(", ")));
                }
                steps.push(match atom.contains('[') {
                    true => "check the USE flags of the atom against the profile (use.mask, use.force)".into(),
                    false => "check the atom and its version, or add the overlay that has the package to portage.repositories".into(),
                });
                steps
            }
            Is::NoBinary { .. } => one(
                "build the package first, name a host that has it in portage.binhost, or leave usepkgonly out of emerge.options",
            ),
            Is::Circular { changes, .. } if changes.is_empty() => one(
                "no USE flag breaks the cycle: correct the dependencies of the ebuilds, or provide a binary package of one of them",
            ),
            Is::Circular { .. } => one("turn off one of the USE flags that cause the cycle in portage.package-use"),
            Is::SlotConflict { .. } => one(
                "leave one of the packages out, choose a version with portage.package-mask, or raise the limit of emerge's backtrack option in emerge.options",
            ),
            Is::Blocked { .. } => {
                one("leave one of the two packages out of emerge.packages, or choose a version that is not blocked")
            }
            Is::FetchRestricted { files, .. } => {
                let what = if files.is_empty() { "the file".to_owned() } else { listed(files, "and") };
                one(&format!("get {what} as the ebuild says, and put it into the directory of portage.distfiles"))
            }
            Is::Digest { file, renamed, .. } => {
                let mut steps = one(&format!(
                    "replace {file} in portage.distfiles by the right file, or correct the Manifest if the new file is the right one"
                ));
                steps.extend(renamed.iter().map(|name| format!("emerge renamed the wrong file to {name}")));
                steps
            }
            Is::NotInManifest { .. } => one(
                "add the entry to the Manifest of the package in its repository: run `ebuild FILE.ebuild manifest` there",
            ),
            Is::Collision { .. } => one(
                "leave one of the packages out, correct the ebuilds, or remove the file from one of them with INSTALL_MASK in \
                 portage.make-conf",
            ),
            Is::NoSet { .. } => {
                one("check the name in emerge.packages; a repository or portage.config (sets/) can define a set")
            }
            Is::Ambiguous { .. } => one("write the category in emerge.packages"),
            Is::InvalidAtom { .. } => {
                one("correct the atom in emerge.packages; a version needs an operator, as in =app-misc/hello-2.12")
            }
            Is::InvalidLine { .. } => one("correct the line"),
            Is::InvalidProfile => one("check build.profile and build.unblocker-profile"),
            Is::BinarySignature { .. } => one(
                "check the key that signs the packages of portage.binhost, or leave the host out to build from source",
            ),
            Is::NoPasswd { .. } => one("merge sys-apps/baselayout first: name it in build.baselayout-atoms"),
            Is::Changed { .. } => one("build again when the update of the repository has ended"),
            Is::UnknownOption { .. } => one("check emerge.options against the Portage of the builder"),
        }
    }
}
