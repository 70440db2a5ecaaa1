//! Processes that a package leaves behind when it is built or merged.

use std::collections::BTreeMap;

use super::failure::is_cpv;
use crate::base::text::plain;
use crate::enter::Fate;

/// Variables of an ebuild's environment that name its package and its phase.
pub const VARIABLES: [&str; 3] = ["CATEGORY", "PF", "EBUILD_PHASE"];

/// Returns a sentence about the process `command` with these [`VARIABLES`], or `None` if it does not belong to a package.
/// All of it is untrusted.
pub fn sentence(command: &str, variables: &BTreeMap<String, String>, fate: Fate) -> Option<String> {
    let [category, pf, phase] = VARIABLES.map(|name| variables.get(name).map(String::as_str).unwrap_or_default());
    let cpv = Some(format!("{category}/{pf}")).filter(|cpv| is_cpv(cpv));
    let command = plain(command, 80);
    let phase = if phase.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') { phase } else { "" };
    let place = if phase.is_empty() { String::new() } else { format!(" in its {phase} phase") };
    let who = match cpv {
        Some(cpv) => format!("{cpv} left the process ‘{command}’ running{place}"),
        // Such as an agent of GnuPG.
        None if fate == Fate::Outlived => return None,
        None => format!("the process ‘{command}’ still runs"),
    };
    Some(match fate {
        Fate::Awaited => format!("{who}; emerge waits for it"),
        Fate::Ended => format!("{who}; emerge waited for it, so it was ended"),
        Fate::Outlived => format!("{who}; it was ended"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(category: &str, pf: &str, phase: &str) -> BTreeMap<String, String> {
        VARIABLES
            .iter()
            .zip([category, pf, phase])
            .map(|(name, value)| ((*name).to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn a_process_is_named_with_its_package_and_phase() {
        let said = sentence("sleep 987", &of("app-misc", "d-1", "postinst"), Fate::Ended).unwrap();
        assert_eq!(
            said,
            "app-misc/d-1 left the process ‘sleep 987’ running in its postinst phase; emerge waited for it, so it was ended"
        );
        let said = sentence("d\x1b[0m", &of("app-misc", "d-1", "\x1b["), Fate::Outlived).unwrap();
        assert!(!said.contains('\x1b') && said.starts_with("app-misc/d-1 left the process ‘d"), "{said}");
    }

    #[test]
    fn a_process_of_no_package_matters_only_if_emerge_waited() {
        let hostile = of("app-misc\n", "d-1", "");
        assert_eq!(sentence("gpg-agent", &hostile, Fate::Outlived), None);
        let said = sentence("gpg-agent", &BTreeMap::new(), Fate::Awaited).unwrap();
        assert_eq!(said, "the process ‘gpg-agent’ still runs; emerge waits for it");
    }
}
