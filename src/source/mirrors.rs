//! Questions put to mirrors in turn.

use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Progress;
use crate::base::text::printable;
use crate::net::http::{FailureKind, Http};
use crate::verify::MAX_DOCUMENT;

/// The answer of one mirror, or of all of them.
pub(super) enum Answer<T> {
    Found(T),
    /// Nobody has it; details, a line for each mirror.
    Missing(String),
}

/// Downloads a small document.
pub(super) fn document(http: &Http, url: &str) -> Result<Answer<Vec<u8>>> {
    match http.document(url, MAX_DOCUMENT) {
        Ok(bytes) => Ok(Answer::Found(bytes)),
        Err(failure) if failure.kind == FailureKind::Missing => Ok(Answer::Missing(format!("{failure}\n"))),
        Err(failure) => Err(Error::network(failure.to_string())),
    }
}

/// Asks each mirror until one answers well, and returns its index with the answer. [`Answer::Missing`] when every mirror says that it
/// does not have `what`.
pub(super) fn each<T>(
    mirrors: &[&str],
    what: &str,
    ui: &dyn Progress,
    mut ask: impl FnMut(&str) -> Result<Answer<T>>,
) -> Result<Answer<(usize, T)>> {
    let mut troubles: Vec<Error> = Vec::new();
    let mut missing = String::new();
    for (index, mirror) in mirrors.iter().enumerate() {
        let trouble = match ask(mirror) {
            Ok(Answer::Found(found)) => return Ok(Answer::Found((index, found))),
            Ok(Answer::Missing(why)) => {
                missing.push_str(&why);
                continue;
            }
            Err(error) if matches!(error.kind(), Kind::Refused | Kind::Network) => error,
            Err(error) => return Err(error),
        };
        if index + 1 < mirrors.len() {
            ui.warn(&format!("{}; trying the next mirror", chain(&trouble)));
        }
        troubles.push(trouble);
    }
    if troubles.is_empty() {
        return Ok(Answer::Missing(missing));
    }
    // A refusal matters more than silence: it may be an attack.
    let worst = troubles.iter().position(|error| error.kind() == Kind::Refused).unwrap_or(0);
    if troubles.len() == 1 && missing.is_empty() {
        return Err(troubles.swap_remove(worst));
    }
    let details: String = troubles.iter().map(|trouble| format!("{}\n", chain(trouble))).collect();
    let error =
        Error::new(troubles[worst].kind(), format!("no mirror gives a good {what}")).with_details(details + &missing);
    Err(match troubles[worst].hint() {
        Some(hint) => error.with_hint(hint),
        None => error,
    })
}

/// Returns the mirrors with the one at `index` first.
pub(super) fn preferring<'a>(mirrors: &[&'a str], index: usize) -> Vec<&'a str> {
    let mut mirrors = mirrors.to_vec();
    if let Some(before) = mirrors.get_mut(..=index) {
        before.rotate_right(1);
    }
    mirrors
}

/// Formats an error with its causes in one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&printable(&cause.to_string()));
        source = cause.source();
    }
    text
}
