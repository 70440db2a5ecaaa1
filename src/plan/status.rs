//! The states of the steps of a build, known without a build.

use std::fmt;

use serde::Serialize;

use super::nodes::Inputs;
use crate::base::digest::Sha256;
use crate::base::time;
use crate::store::layers::LayerRecord;

/// The reason why a step runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// No build of the recipe had a step of this name.
    New,
    /// These inputs changed.
    Changed(String),
    /// The earlier step of this name, or the base, left the trees in another state.
    Follows(String),
    /// The user wants it.
    Again,
    /// The recipe wants a newer result, or the packages themselves.
    Refused,
    /// The image is there for the binary packages of the step, and the store does not have all of them.
    Packages,
    /// The store does not have the layer: it was removed, or the step failed.
    Gone,
}

impl Why {
    /// Adds the reason to a sentence about the step, unless it is new.
    pub fn after(&self, what: &str) -> String {
        if *self == Self::New { what.to_owned() } else { format!("{what} ({self})") }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("new"),
            Self::Changed(names) => write!(f, "{names} changed"),
            Self::Follows(name) => write!(f, "follows {name}"),
            Self::Again => f.write_str("--again"),
            Self::Refused => f.write_str("the recipe refuses the layer in the store"),
            Self::Packages => f.write_str("its binary packages are not in the store"),
            Self::Gone => f.write_str("no layer in the store"),
        }
    }
}

/// The state of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepState {
    /// The store has its layer, which was made at this time, in seconds since 1970.
    Cached(u64),
    /// The next build runs it.
    Run(Why),
    /// Not known until this has happened.
    Unknown(String),
    /// The recipe leaves it out.
    Skipped,
    /// Every build does it, because it depends on the machine.
    Always,
}

impl fmt::Display for StepState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cached(made) => write!(f, "cached {}", time::ago(time::now().saturating_sub(*made))),
            Self::Run(why) => write!(f, "run: {why}"),
            Self::Unknown(event) => write!(f, "unknown until {event}"),
            Self::Skipped => f.write_str("skipped"),
            Self::Always => f.write_str("always: it writes Portage's configuration"),
        }
    }
}

/// A step, its state and the facts that decide it.
#[derive(Debug, Clone)]
pub struct Status {
    pub name: String,
    pub state: StepState,
    /// The key, if the state of the trees before the step is known.
    pub key: Option<Sha256>,
    /// The known inputs.
    pub inputs: Inputs,
    /// The names of the inputs that differ from those of the last build; `None` if no build had the step.
    pub difference: Option<String>,
    /// The record of its layer.
    pub layer: Option<LayerRecord>,
}

impl Status {
    /// The step as a JSON document.
    pub fn document(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Document {
            version: u32,
            step: String,
            state: String,
            key: Option<String>,
            difference: Option<String>,
            inputs: Inputs,
            layer: Option<LayerRecord>,
        }
        Document {
            version: 1,
            step: self.name.clone(),
            state: self.state.to_string(),
            key: self.key.map(|key| key.hex()),
            difference: self.difference.clone(),
            inputs: self.inputs.clone(),
            layer: self.layer.clone(),
        }
    }

    /// A step of which only the state is known.
    pub fn bare(name: &str, state: StepState) -> Self {
        Self { name: name.to_owned(), state, key: None, inputs: Inputs::new(), difference: None, layer: None }
    }
}

/// Returns a line for each step: its name and its state.
pub fn lines(steps: &[Status]) -> Vec<String> {
    let width = steps.iter().map(|step| step.name.chars().count()).max().unwrap_or(0);
    steps.iter().map(|step| format!("{:width$}  {}", step.name, step.state)).collect()
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  {}", self.name, self.state)?;
        if let Some(key) = &self.key {
            writeln!(f, "  key     {}", short(&key.hex()))?;
        }
        match self.difference.as_deref() {
            None => {}
            Some("") => writeln!(f, "  since the last build: no input changed")?,
            Some(names) => writeln!(f, "  since the last build: {names} changed")?,
        }
        if let Some(layer) = &self.layer {
            let seconds = Seconds(layer.milliseconds);
            writeln!(f, "  layer   made {} by {}", time::readable(layer.started), layer.image)?;
            if !layer.why.is_empty() {
                writeln!(f, "          because: {}", layer.why)?;
            }
            writeln!(
                f,
                "          in {seconds}, {} bytes written, result {}",
                layer.bytes,
                short(&layer.result.hex())
            )?;
        }
        if !self.inputs.is_empty() {
            writeln!(f, "  inputs")?;
        }
        let width = self.inputs.keys().map(|name| name.chars().count()).max().unwrap_or(0);
        self.inputs.iter().try_for_each(|(name, value)| writeln!(f, "    {name:width$}  {}", short(value)))
    }
}

/// A duration in milliseconds, shown in seconds.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} s", self.0 / 1000, self.0 % 1000 / 100)
    }
}

/// Cuts each digest in a text to its first 12 digits.
fn short(text: &str) -> String {
    let digest = |word: &&str| word.len() >= 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.split(' ').map(|word| if digest(&word) { &word[..12] } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_show_states_in_a_column() {
        let steps = [
            Status::bare("a", StepState::Run(Why::Changed("script".to_owned()))),
            Status::bare("long", StepState::Unknown("a has run".to_owned())),
            Status::bare("b", StepState::Cached(time::now() - 3 * 86_400)),
        ];
        assert_eq!(
            lines(&steps),
            ["a     run: script changed", "long  unknown until a has run", "b     cached 3d ago"]
        );
    }

    #[test]
    fn digests_are_cut() {
        assert_eq!(short(&format!("/x None {}", "0a".repeat(32))), "/x None 0a0a0a0a0a0a");
        assert_eq!(short("[\"a\"]"), "[\"a\"]");
    }
}
