//! The summary of a finished build: packages, time, sizes, and the command that runs the image. Pure.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use indicatif::BinaryBytes;

use super::packages::duration;
use crate::base::progress::{Merged, Target};
use crate::base::text::{self, counted};

/// The number of packages that a build merged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    image: Count,
    builder: Count,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    built: usize,
    reused: usize,
}

impl Tally {
    /// Counts a merged package.
    pub(super) fn add(&mut self, merged: &Merged) {
        let count = match merged.target {
            Target::Builder => &mut self.builder,
            Target::Image => &mut self.image,
        };
        *if merged.binary { &mut count.reused } else { &mut count.built } += 1;
    }
}

impl Count {
    fn total(self) -> usize {
        self.built + self.reused
    }

    fn describe(self) -> String {
        let parts = match self {
            Self { built: 0, reused: 0 } => String::new(),
            Self { built, reused: 0 } => format!(" ({built} built)"),
            Self { built: 0, reused } => format!(" ({reused} reused)"),
            Self { built, reused } => format!(" ({built} built, {reused} reused)"),
        };
        counted(self.total(), "package") + &parts
    }
}

/// A finished build.
#[derive(Debug)]
pub struct Summary<'a> {
    /// Name of the recipe.
    pub name: &'a str,
    /// Duration of the whole build.
    pub took: Duration,
    /// File names of the results and their sizes in bytes.
    pub results: &'a [(String, u64)],
    /// The command that runs the image.
    pub run: &'a str,
}

impl Summary<'_> {
    /// Returns the lines of the summary.
    pub(super) fn render(&self, tally: Tally) -> String {
        let mut out = format!("built {} in {}: {}", text::line(self.name), duration(self.took), tally.image.describe());
        if tally.builder.total() > 0 {
            let _ = write!(out, ", and {} for the builder", tally.builder.describe());
        }
        for (name, bytes) in self.results {
            let _ = write!(out, "\n{:>10}  {}", BinaryBytes(*bytes).to_string(), text::line(name));
        }
        let _ = write!(out, "\nrun it: {}", text::line(self.run));
        out
    }
}

/// Returns the shell command that runs the image with `tag` in the OCI layout at `layout`, an absolute path.
///
/// Podman names the image after the path, so the path must follow the rules for image names. Where it does not, the command changes
/// to the directory first, or copies the image under a name that does.
pub fn run_layout(layout: &Path, tag: &str) -> String {
    let path = layout.to_string_lossy();
    if path.trim_start_matches('/').split('/').all(is_image_name) {
        return format!("podman run --rm -it oci:{path}:{tag}");
    }
    let directory = quoted(&layout.parent().unwrap_or(Path::new(".")).to_string_lossy());
    let name = layout.file_name().unwrap_or_default().to_string_lossy();
    if is_image_name(&name) {
        return format!("cd {directory} && podman run --rm -it oci:{name}:{tag}");
    }
    let plain: String = name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let image = format!(
        "localhost/quern/{}:{tag}",
        plain.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
    );
    let source = quoted(&format!("oci:{name}:{tag}"));
    format!("cd {directory} && skopeo copy {source} containers-storage:{image} && podman run --rm -it {image}")
}

/// Returns true for a component of an image's name: lower-case letters and digits, joined by `.`, `_`, `__` or dashes.
fn is_image_name(part: &str) -> bool {
    let separators = |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(part.chars().next())
        && edge(part.chars().next_back())
        && part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(separators)
}

/// Quotes a word for a shell where that is needed.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(binary: bool, target: Target) -> Merged {
        Merged { cpv: "a/b-1".to_owned(), binary, seconds: 0, target }
    }

    #[test]
    fn a_summary_has_packages_time_sizes_and_the_command() {
        let mut tally = Tally::default();
        let results = [("x.tar.gz".to_owned(), 3 << 20), ("x.oci".to_owned(), 5)];
        let summary = Summary { name: "demo", took: Duration::from_secs(62), results: &results, run: "podman" };
        let text = "built demo in 1m02s: 0 packages\n  3.00 MiB  x.tar.gz\n       5 B  x.oci\nrun it: podman";
        assert_eq!(summary.render(tally), text);
        tally.add(&merged(false, Target::Image));
        assert!(summary.render(tally).starts_with("built demo in 1m02s: 1 package (1 built)\n"));
        tally.add(&merged(true, Target::Image));
        tally.add(&merged(true, Target::Builder));
        let first = "built demo in 1m02s: 2 packages (1 built, 1 reused), and 1 package (1 reused) for the builder\n";
        assert!(summary.render(tally).starts_with(first), "{}", summary.render(tally));
    }

    #[test]
    fn the_run_command_suits_the_path() {
        let run = |path: &str| run_layout(Path::new(path), "1");
        assert_eq!(run("/srv/a_b/x-1.oci"), "podman run --rm -it oci:/srv/a_b/x-1.oci:1");
        for path in [
            "/srv/Images/x.oci",
            "/srv/a b/x.oci",
            "/srv/a:b/x.oci",
            "/srv/ä/x.oci",
            "/srv/.x/x.oci",
            "/srv/a...b/x.oci",
        ] {
            let run = run(path);
            assert!(run.starts_with("cd ") && run.ends_with(" && podman run --rm -it oci:x.oci:1"), "{run}");
        }
        assert_eq!(run("/srv/it's/x.oci"), "cd '/srv/it'\\''s' && podman run --rm -it oci:x.oci:1");
        let copied = run("/srv/X.oci");
        assert!(copied.contains("skopeo copy oci:X.oci:1 containers-storage:localhost/quern/x-oci:1"), "{copied}");
    }
}
