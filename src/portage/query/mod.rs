//! Python programs that run in the builder tree and print facts of Portage as JSON, and the readers of their answers.
//!
//! Ebuilds run in the same sandbox, so an answer is untrusted: its size is bounded by the reader of the output, its text is cleaned.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::text::plain;

pub mod audit;
pub mod content;
pub mod missing;
pub mod plan;
pub mod why;

/// The limit on the characters of one text in an answer.
const MAX_TEXT: usize = 300;

/// A text in an answer, safe to show.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(from = "String", into = "String")]
pub struct Text(String);

impl Text {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(plain(&text, MAX_TEXT))
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
