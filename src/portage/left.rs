//! Processes that a package leaves behind when it is built or merged.

use std::collections::BTreeMap;

use super::failure::is_cpv;
use crate::base::text::plain;

/// Variables of an ebuild's environment that name its package and its phase.
pub const VARIABLES: [&str; 3] = ["CATEGORY", "PF", "EBUILD_PHASE"];

/// Returns a sentence about the process `command` with these [`VARIABLES`], or `None` if it does not belong to a package.
/// `waited` is true if emerge waited for it. All of it is untrusted.
pub fn sentence(command: &str, variables: &BTreeMap<String, String>, waited: bool) -> Option<String> {
    let [category, pf, phase] = VARIABLES.map(|name| variables.get(name).map(String::as_str).unwrap_or_default());
    let cpv = Some(format!("{category}/{pf}")).filter(|cpv| is_cpv(cpv));
    let command = plain(command, 80);
    let phase = if phase.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') { phase } else { "" };
    let place = if phase.is_empty() { String::new() } else { format!(" in its {phase} phase") };
    match (cpv, waited) {
        (Some(cpv), true) => {
            Some(format!("{cpv} left the process ‘{command}’ running{place}; emerge waited for it, so it was ended"))
        }
        (Some(cpv), false) => Some(format!("{cpv} left the process ‘{command}’ running{place}; it was ended")),
        (None, true) => Some(format!("emerge waited for the process ‘{command}’, so it was ended")),
        // Such as an agent of GnuPG.
        (None, false) => None,
    }
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
        let said = sentence("sleep 987", &of("app-misc", "d-1", "postinst"), true).unwrap();
        assert_eq!(
            said,
            "app-misc/d-1 left the process ‘sleep 987’ running in its postinst phase; emerge waited for it, so it was ended"
        );
        let said = sentence("d\x1b[0m", &of("app-misc", "d-1", "\x1b["), false).unwrap();
        assert!(!said.contains('\x1b') && said.starts_with("app-misc/d-1 left the process ‘d"), "{said}");
    }

    #[test]
    fn a_process_of_no_package_matters_only_if_emerge_waited() {
        let hostile = of("app-misc\n", "d-1", "");
        assert_eq!(sentence("gpg-agent", &hostile, false), None);
        assert!(sentence("gpg-agent", &BTreeMap::new(), true).unwrap().starts_with("emerge waited for"));
    }
}
