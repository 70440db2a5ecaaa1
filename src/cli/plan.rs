//! What `--dry-run` prints: the plan of a build in sections, one for each stage.

use crate::base::time::SourceDate;
use std::fmt;

use crate::base::error::Result;
use crate::output::{self, Role};
use crate::recipe::Job;
use crate::strip;

/// A plan; its text is what is printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    sections: Vec<(String, Vec<String>)>,
}

impl Plan {
    /// Adds a section, unless it is empty.
    pub fn section(&mut self, title: &str, lines: impl IntoIterator<Item = String>) {
        let lines: Vec<_> = lines.into_iter().collect();
        if !lines.is_empty() {
            self.sections.push((title.to_owned(), lines));
        }
    }

    /// Adds what is removed from the image.
    pub fn strip(&mut self, job: &Job) {
        self.section("strip", strip::rules(job).iter().map(ToString::to_string));
    }

    /// Adds the results, whose names are an error here rather than after an hour of building.
    pub fn publish(&mut self, job: &Job, date: SourceDate) -> Result<()> {
        let line = |(role, name): (Role, String)| {
            let path = job.build.outdir.join(name).display().to_string();
            match role {
                Role::OciLayout { tag } => format!("{path} (tag {tag})"),
                _ => path,
            }
        };
        let lines = output::expected(job, date)?.into_iter().map(line);
        self.section("publish", lines);
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (title, lines)) in self.sections.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            writeln!(f, "{title}")?;
            for line in lines {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::output::tests::job;

    #[test]
    fn a_plan_names_removals_and_results() {
        let mut job = job(Path::new("/out"));
        job.strip.paths = vec!["/var/db/pkg".to_owned()];
        let mut plan = Plan::default();
        plan.section("source", ["a".to_owned()]);
        plan.section("nothing", []);
        plan.strip(&job);
        plan.publish(&job, SourceDate::new(0)).unwrap();
        let text = plan.to_string();
        assert!(text.starts_with("source\n  a\n\nstrip\n  /var/db/pkg (the recipe's strip.paths)\n"), "{text}");
        assert!(text.ends_with("\n  /out/demo-1970-01-01.oci (tag 19700101)\n"), "{text}");
        assert!(!text.contains("nothing"));
    }
}
