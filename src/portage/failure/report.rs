//! A failure as an error: its message, the words of the cause, and the next steps.

use super::fix::{self, Fix, PackageFiles};
use super::refusal::{Refusal, listed};
use super::{Failure, Package};
use crate::base::error::{Error, Kind};
use crate::base::text::plain;

/// The limit on the missing files that are named, on other failed packages, and on refusals.
const MISSING_NAMED: usize = 20;
const OTHERS_NAMED: usize = 10;
const REFUSALS: usize = 6;
/// A comment on a line for a package of the builder. The lines of a recipe apply to both trees.
const FOR_BUILDER: &str = "for the builder; the line applies to the image too";
/// The limit on the characters of a sentence.
const WIDTH: usize = 600;

impl Failure {
    /// Returns the error to report; `what` is the step that failed. `present` are the lines that the recipe has for package files.
    pub fn into_error(self, what: &str, present: &PackageFiles) -> Error {
        let message = format!("{what}: {}", self.cause());
        let mut error = Error::new(if self.system { Kind::System } else { Kind::Build }, message);
        if !self.lines.is_empty() {
            error = error.with_details(self.lines.join("\n"));
        }
        let mut hints = self.steps();
        let fixes = self.fixes(present);
        if !fixes.is_empty() {
            hints.push(format!(
                "lines for the recipe, which `quern-builder explain --fix` can add (in its [portage], they replace the same keys):\n{}",
                fix::toml(present, &fixes).trim_end()
            ));
        }
        for package in self.packages.iter().take(OTHERS_NAMED) {
            if let Some(log) = &package.log {
                let log = plain(&log.display().to_string(), 4_096);
                hints.push(match self.packages.len() {
                    1 => format!("the whole log: {log}"),
                    _ => format!("the whole log of {}: {log}", package.cpv),
                });
            }
        }
        if hints.is_empty() { error } else { error.with_hint(hints.join("\n")) }
    }

    /// Says what failed, and the first reason.
    fn cause(&self) -> String {
        let reason = self.refusals.first().map(|refusal| self.sentence(refusal));
        let Some((first, others)) = self.packages.split_first() else {
            return match reason {
                Some(reason) => reason,
                None if self.proposed.is_empty() => "emerge failed".into(),
                None => "emerge needs changes of the configuration".into(),
            };
        };
        let mut cause = first.failed();
        match reason {
            Some(reason) => cause.push_str(&format!(": {reason}")),
            None if self.fetch && first.phase.is_none() => cause.push_str(": its source could not be downloaded"),
            None => {}
        }
        if !others.is_empty() {
            let mut names: Vec<String> = others.iter().take(OTHERS_NAMED).map(|other| other.cpv.clone()).collect();
            if others.len() > OTHERS_NAMED {
                names.push(format!("{} more", others.len() - OTHERS_NAMED));
            }
            cause.push_str(&format!("; {} failed too", listed(&names, "and")));
        }
        cause
    }

    /// Says a refusal, and that it concerns the builder if a recipe's reader would think of the image.
    fn sentence(&self, refusal: &Refusal) -> String {
        let sentence = refusal.sentence();
        match self.image && refusal.is_for_builder() {
            true => plain(&format!("for the builder, {sentence}"), WIDTH),
            false => plain(&sentence, WIDTH),
        }
    }

    /// Lists the next steps of all refusals, the first of which is in the message.
    fn steps(&self) -> Vec<String> {
        let mut steps = self.fetch_steps();
        for (index, refusal) in self.refusals.iter().take(REFUSALS).enumerate() {
            if index > 0 {
                steps.push(format!("also, {}", self.sentence(refusal)));
            }
            for step in refusal.next().iter().map(|step| plain(step, WIDTH)) {
                if !steps.contains(&step) {
                    steps.push(step);
                }
            }
        }
        steps.extend(self.hints.iter().map(|&hint| hint.to_owned()));
        steps
    }

    /// Returns the lines that help: those that emerge proposes, and those that its refusals suggest for other packages.
    pub fn fixes(&self, present: &PackageFiles) -> Vec<Fix> {
        let wanted = |cpv: &str| wanted(present, cpv);
        let mut fixes = self.proposed.clone();
        for fix in self.refusals.iter().flat_map(|refusal| refusal.fixes(wanted)) {
            let covered = |known: &Fix| known.file == fix.file && package_of(&known.line) == package_of(&fix.line);
            if !self.proposed.iter().any(covered) {
                fixes.push(fix);
            }
        }
        for fix in fixes.iter_mut().filter(|fix| self.image && fix.builder) {
            fix.comments.push(FOR_BUILDER.to_owned());
        }
        fix::accepted(fixes)
    }

    /// Names the files that could not be downloaded, and the next step.
    fn fetch_steps(&self) -> Vec<String> {
        // A file with a wrong digest, or one that must not be downloaded, has a step of its own.
        if !self.fetch || self.refusals.iter().any(Refusal::is_about_sources) {
            return Vec::new();
        }
        let mut missing = self.missing.clone();
        // With a network, what could not be fetched ahead may well have been fetched later.
        missing.extend(self.prefetch.iter().filter(|name| self.offline && !self.missing.contains(name)).cloned());
        let mut hints = Vec::new();
        if !missing.is_empty() {
            let mut names = missing[..missing.len().min(MISSING_NAMED)].join(", ");
            if missing.len() > MISSING_NAMED {
                names += &format!(" and {} more", missing.len() - MISSING_NAMED);
            }
            hints.push(format!("missing in portage.distfiles: {names}"));
        }
        hints.push(if self.offline {
            "a build with --offline has no network: run it once without --offline to download the missing files".into()
        } else {
            "sources could not be downloaded: check source.mirrors, or put the files into portage.distfiles".into()
        });
        hints
    }
}

impl Package {
    fn failed(&self) -> String {
        let Self { cpv, repo, phase, .. } = self;
        match (repo, phase) {
            (Some(repo), Some(phase)) => format!("{cpv}::{repo} failed in its {phase} phase"),
            (None, Some(phase)) => format!("{cpv} failed in its {phase} phase"),
            (_, None) => format!("{cpv} failed"),
        }
    }
}

/// Returns the USE flags that the recipe sets for a package.
fn wanted(present: &PackageFiles, cpv: &str) -> Vec<String> {
    let lines = present.get("package.use").into_iter().flatten();
    let of_package = lines.filter(|line| package_of(line) == package_of(cpv));
    of_package.flat_map(|line| line.split(' ').skip(1)).map(str::to_owned).collect()
}

/// Returns `category/package` of a line or an atom.
fn package_of(line: &str) -> &str {
    let atom = line.split(' ').next().unwrap_or_default().trim_start_matches(['=', '<', '>', '~']);
    let atom = atom.split([':', '[']).next().unwrap_or_default();
    let version = atom.rmatch_indices('-').find(|(at, _)| atom[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
    version.map_or(atom, |(at, _)| &atom[..at])
}

#[cfg(test)]
mod tests {
    use super::package_of;

    #[test]
    fn the_package_of_a_line_has_no_version() {
        assert_eq!(package_of("=a/b-1.2-r3 ~amd64"), "a/b");
        assert_eq!(package_of(">=a/b-c-20:2 x"), "a/b-c");
        assert_eq!(package_of("a/b-c x"), "a/b-c");
        assert_eq!(package_of("a/b[c-1]"), "a/b");
        assert_eq!(package_of(""), "");
    }
}
