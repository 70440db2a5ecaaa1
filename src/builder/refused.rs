//! Questions after a failed emerge, for its report: the changes that a pretending emerge proposes, and the names of sources.

use super::query::{Answer, Query};
use crate::base::error::Result;
use crate::plan::view::View;
use crate::portage;
use crate::portage::dir::Dir;
use crate::portage::emerge::Step;
use crate::portage::failure::{self, Failure};

/// The limit on packages whose sources are looked up.
const PACKAGES: usize = 5;

/// Asks a builder with the mounts of `view` about a failed step, and adds the answers to `failure`. `refused` is true if emerge began to
/// merge nothing. A question that fails is left out: the report is about the step.
pub(super) fn look_closer(
    ask: impl Fn(&Query) -> Result<Answer>,
    view: &View,
    step: &Step,
    refused: bool,
    failure: &mut Failure,
) {
    let query = |argv: Vec<String>| Query { env: step.env.clone(), ..Query::new(argv) };
    if refused
        && failure.packages.is_empty()
        && let Ok(answer) = ask(&query(step.pretending()))
    {
        failure.learn(&[answer.stdout, answer.stderr].concat());
    }
    let restricted: Vec<String> = failure.fetch_restricted().take(PACKAGES).map(str::to_owned).collect();
    for cpv in restricted {
        let argv = ["portageq", "metadata", "/", "ebuild", &cpv, "SRC_URI"].map(str::to_owned);
        let Ok(answer) = ask(&query(argv.to_vec())) else { continue };
        let distfiles = view.source_of(portage::DISTDIR).and_then(Dir::open);
        let has = |name: &String| distfiles.as_ref().is_some_and(|dir| dir.file(name.as_ref()).is_some());
        let sources = failure::sources(&String::from_utf8_lossy(&answer.stdout));
        let missing: Vec<String> = sources.into_iter().filter(|name| !has(name)).collect();
        failure.name_sources(&cpv, &missing);
    }
}
