//! `publish` and `tuples`: images that are there for others.

use super::Checker;
use crate::base::text::quoted;
use crate::recipe::diagnostic::{Finding, Problem};

impl Checker<'_> {
    /// Returns true if a build writes results. An image that merges the packages of tuples writes none.
    pub(super) fn publish(&mut self) -> bool {
        let publish = self.bool("", "publish");
        let Some(word) = self.word("", "tuples") else { return publish.unwrap_or(true) };
        if word.text != "all" {
            let problem =
                Problem::new("not all").help("tuples = \"all\" merges the packages of all tuples of the tree");
            self.texts.problem(&word.at, format!("not a valid value of `tuples`: {}", quoted(&word.text)), problem);
        } else if self.family.place.is_none() {
            self.texts.problem(&word.at, "only a tree has tuples", Problem::new("this recipe is not in a tree"));
        } else if let (Some(true), Some(at)) = (publish, self.value("", "publish").map(|value| value.at.clone())) {
            let title = "an image that merges the packages of tuples has no results";
            let finding = Finding::at(&at, title, "this asks for results").also(&word.at, "the packages of tuples");
            self.texts.find(finding.help("remove `publish`; make the results with another image"));
        }
        false
    }
}
