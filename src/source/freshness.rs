//! Limits on the age of signatures: bounds freeze attacks, in which a mirror withholds updates.

use super::Site;
use super::rollback::{self, SeenVersion};
use crate::base::error::{Error, Result};
use crate::base::text::printable;
use crate::base::time::{now, readable};
use crate::verify::Keyring;

pub(super) const DAY: u64 = 86_400;

/// Rules for the date of a detached signature, the same as for that of a signed list.
#[derive(Debug, Clone)]
pub(super) struct SignatureAge {
    /// Name under which the newest date is remembered.
    pub(super) of: String,
    /// Seconds.
    pub(super) max_age: u64,
}

impl SignatureAge {
    /// Refuses a signature made at `created` (seconds since 1970) that is too old, or older than one seen before.
    pub(super) fn check(&self, keyring: &Keyring, what: &str, created: u64, at: &Site<'_>) -> Result<()> {
        fresh(what, created, now(), self.max_age)?;
        let version =
            SeenVersion { of: self.of.clone(), list: "signature".to_owned(), published: created, build: String::new() };
        rollback::check(keyring, &printable(what), &version, at)
    }
}

/// Refuses a list older than `max_age` seconds, or from the future.
pub(super) fn fresh(url: &str, published: u64, now: u64, max_age: u64) -> Result<()> {
    let clock = format!("this machine's clock says {}; if that is wrong, set the clock", readable(now));
    if published > now + DAY {
        return Err(Error::refused(format!(
            "{}: the signed list is from the future: {}",
            printable(url),
            readable(published)
        ))
        .with_hint(clock));
    }
    let age = now.saturating_sub(published);
    if age > max_age {
        let error = Error::refused(format!(
            "{}: the signed list is {} old ({}), and at most {} are accepted",
            printable(url),
            span(age),
            readable(published),
            span(max_age)
        ));
        return Err(error.with_hint(format!(
            "the mirror does not get updates any more: name another in source.mirrors, pin source.version or raise \
             source.max-age; {clock}"
        )));
    }
    Ok(())
}

/// Formats seconds as days, or as hours for a short span.
fn span(seconds: u64) -> String {
    if seconds < 3 * DAY && !seconds.is_multiple_of(DAY) {
        format!("{} hours", seconds / 3600)
    } else {
        format!("{} days", seconds / DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_future_lists_are_refused() {
        let now = 1_786_404_601;
        assert!(fresh("u", now, now, 30 * DAY).is_ok());
        assert!(fresh("u", now - 29 * DAY, now, 30 * DAY).is_ok());
        assert!(fresh("u", now + 3600, now, 30 * DAY).is_ok());
        let old = fresh("u", now - 31 * DAY, now, 30 * DAY).unwrap_err();
        assert!(old.to_string().contains("31 days old"), "{old}");
        let old = fresh("u", now - 3 * 3600, now, 2 * 3600).unwrap_err();
        assert!(old.to_string().contains("3 hours old") && old.to_string().contains("at most 2 hours"), "{old}");
        let future = fresh("u", now + 2 * DAY, now, 30 * DAY).unwrap_err();
        assert!(future.hint().unwrap().contains("2026-08-10 23:30 UTC"), "{future:?}");
    }
}
