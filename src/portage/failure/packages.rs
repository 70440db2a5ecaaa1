//! The packages that emerge itself reports as failed, and the files that it could not download.

use super::refusal::is_cpv;
use crate::base::text::plain;

/// The limit on failed packages, and on missing files.
const MAX_FAILED: usize = 100;
const MAX_MISSING: usize = 1_000;

/// Returns the failed packages in emerge's order, each once.
pub(super) fn failed(lines: &[String]) -> Vec<String> {
    let mut failed: Vec<String> = Vec::new();
    let mut summary = false;
    for line in lines {
        let words = line.trim_start_matches(['*', ' ']);
        summary |= words.starts_with("The following") && words.contains("failed to build");
        let cpv = if let Some((_, rest)) = line.split_once(">>> Failed to ") {
            rest.split_whitespace().nth(1)
        } else if let Some((_, rest)) = line.split_once("Fetch failed for '") {
            rest.split('\'').next()
        } else if summary && words.contains("Log file:") {
            // `(category/package-1:0/0::repository, ebuild scheduled for merge …), Log file:`
            words.strip_prefix('(').and_then(|rest| rest.split([':', ',']).next())
        } else {
            None
        };
        if let Some(cpv) = cpv.map(|cpv| cpv.trim_end_matches(',')).filter(|cpv| is_cpv(cpv))
            && !failed.iter().any(|known| known == cpv)
            && failed.len() < MAX_FAILED
        {
            failed.push(cpv.to_owned());
        }
    }
    failed
}

/// Adds the names of distfiles that a text reports as not downloaded.
pub(super) fn missing_files(text: &[u8], missing: &mut Vec<String>) {
    for line in String::from_utf8_lossy(text).lines() {
        let name = ["Couldn't download '", "No mirrors available for file '"].iter().find_map(|said| {
            let (_, rest) = line.split_once(said)?;
            rest.rsplit_once('\'').map(|(name, _)| plain(name, 200))
        });
        // Portage also fetches the layout of each mirror.
        let Some(name) =
            name.filter(|name| !name.is_empty() && !name.contains('/') && !name.starts_with(".layout.conf"))
        else {
            continue;
        };
        if missing.len() < MAX_MISSING && !missing.contains(&name) {
            missing.push(name);
        }
    }
}

/// Returns the names of the files in a SRC_URI (PMS 8.2.7).
pub fn sources(src_uri: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut words = src_uri.split_whitespace().take(MAX_MISSING).peekable();
    while let Some(word) = words.next() {
        if matches!(word, "(" | ")" | "||" | "->") || word.ends_with('?') {
            continue;
        }
        let name = match words.next_if_eq(&"->") {
            Some(_) => words.next().unwrap_or_default(),
            None => word.rsplit('/').next().unwrap_or_default(),
        };
        let name = plain(name, 200);
        if !name.is_empty() && !name.contains('/') && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sources_are_read() {
        let uri = "https://x.example/a-1.tar.gz doc? ( !y? ( mirror://z/d/b.zip -> c.zip ) ) plain.tar https://x.example/a-1.tar.gz";
        assert_eq!(sources(uri), ["a-1.tar.gz", "c.zip", "plain.tar"]);
        assert!(sources("-> ( ) ->").is_empty());
    }

    #[test]
    fn failed_packages_are_read_from_lines_and_from_the_summary() {
        let text = [
            ">>> Failed to emerge a/b-1 for /quern/image/, Log file:",
            " * The following 3 packages have failed to build, install, or execute",
            " * postinst:",
            " *  (a/b-1:0/1::gentoo, ebuild scheduled for merge to '/quern/image/'), Log file:",
            " *   '/var/log/portage/a:b-1:20261127-181931.log'",
            " *  (c/d-2:0/6::gentoo, binary scheduled for merge), Log file:",
            " * Fetch failed for 'e/f-3', Log file:",
        ];
        assert_eq!(failed(&text.map(str::to_owned)), ["a/b-1", "c/d-2", "e/f-3"]);
    }
}
