//! The answer to a request for a file (RFC 9110): conditions, ranges, headers. Pure.

use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

/// The parts of a request that an answer depends on, beside its path.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted<'a> {
    pub(super) method: &'a str,
    pub(super) if_none_match: Option<&'a str>,
    pub(super) if_modified_since: Option<&'a str>,
    pub(super) if_range: Option<&'a str>,
    pub(super) range: Option<&'a str>,
}

/// Facts about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Size in bytes.
    pub(super) size: u64,
    /// Modification time in seconds since 1970.
    pub(super) modified: u64,
    /// A strong entity tag, in quotes.
    pub(super) etag: String,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Names in lower case.
    pub(super) headers: Vec<(&'static str, String)>,
    /// The bytes of the file to send.
    pub(super) body: Option<Range<u64>>,
}

/// Answers a request for a file, or for one that does not exist.
pub(super) fn answer(wanted: &Wanted<'_>, file: Option<&Facts>) -> Answer {
    let empty = |status| Answer { status, headers: vec![("content-length", "0".to_owned())], body: None };
    let get = match wanted.method {
        "GET" => true,
        "HEAD" => false,
        _ => {
            let mut answer = empty(405);
            answer.headers.push(("allow", "GET, HEAD".to_owned()));
            return answer;
        }
    };
    let Some(file) = file else { return empty(404) };
    let mut headers = vec![("etag", file.etag.clone()), ("last-modified", date(file.modified))];
    if unchanged(wanted, file) {
        return Answer { status: 304, headers, body: None };
    }
    headers.extend([
        ("accept-ranges", "bytes".to_owned()),
        ("content-type", "application/octet-stream".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
    ]);
    let range =
        wanted.range.filter(|_| get && same(wanted.if_range, file)).map_or(Part::Whole, |text| part(text, file.size));
    let (status, part) = match range {
        Part::Whole => (200, 0..file.size),
        Part::Some(part) => {
            headers.push(("content-range", format!("bytes {}-{}/{}", part.start, part.end - 1, file.size)));
            (206, part)
        }
        Part::Outside => {
            headers.push(("content-range", format!("bytes */{}", file.size)));
            headers.push(("content-length", "0".to_owned()));
            return Answer { status: 416, headers, body: None };
        }
    };
    headers.push(("content-length", (part.end - part.start).to_string()));
    Answer { status, headers, body: get.then_some(part) }
}

/// Returns true if the client has this version of the file. A tag decides, if it names one.
fn unchanged(wanted: &Wanted<'_>, file: &Facts) -> bool {
    if let Some(tags) = wanted.if_none_match {
        let tags = tags.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
        return tags.into_iter().any(|tag| tag == "*" || tag == file.etag);
    }
    let since = wanted.if_modified_since.and_then(seconds);
    since.is_some_and(|since| file.modified <= since)
}

/// Returns true if a range may be cut from this version of the file.
fn same(if_range: Option<&str>, file: &Facts) -> bool {
    if_range.is_none_or(|version| version == file.etag || version == date(file.modified))
}

/// A part of a file that a client wants.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// Everything: there is no range, or one that this server does not give.
    Whole,
    Some(Range<u64>),
    /// A range beyond the end.
    Outside,
}

/// Parses `bytes=5-9`, `bytes=5-` or `bytes=-5`.
fn part(text: &str, size: u64) -> Part {
    let number =
        |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Part::Whole;
    };
    let (start, end) = match (number(first.trim()), number(last.trim())) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Some(first), None) if last.trim().is_empty() => (first, size),
        (None, Some(last)) if first.trim().is_empty() => {
            (if last == 0 { size } else { size.saturating_sub(last) }, size)
        }
        _ => return Part::Whole,
    };
    if start < end { Part::Some(start..end) } else { Part::Outside }
}

fn date(seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799)))
}

fn seconds(date: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(date).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sat, 28 Nov 2026 00:18:01 GMT";

    fn facts() -> Facts {
        Facts { size: 10, modified: 1_795_825_081, etag: "\"one\"".to_owned() }
    }

    fn ask(wanted: Wanted<'_>) -> Answer {
        answer(
            &Wanted { method: if wanted.method.is_empty() { "GET" } else { wanted.method }, ..wanted },
            Some(&facts()),
        )
    }

    fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
        answer.headers.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    #[test]
    fn a_file_has_its_version_and_its_size() {
        let whole = ask(Wanted::default());
        assert_eq!((whole.status, whole.body.clone()), (200, Some(0..10)));
        assert_eq!((header(&whole, "etag"), header(&whole, "last-modified")), ("\"one\"", DATE));
        assert_eq!((header(&whole, "content-length"), header(&whole, "accept-ranges")), ("10", "bytes"));
        let head = ask(Wanted { method: "HEAD", range: Some("bytes=1-"), ..Wanted::default() });
        assert_eq!((head.status, header(&head, "content-length"), &head.body), (200, "10", &None));
        let other = ask(Wanted { method: "PUT", ..Wanted::default() });
        assert_eq!((other.status, header(&other, "allow"), other.body.clone()), (405, "GET, HEAD", None));
        assert_eq!(answer(&Wanted { method: "GET", ..Wanted::default() }, None).status, 404);
    }

    #[test]
    fn a_client_that_has_the_version_gets_304() {
        let status = |tag: Option<&str>, date: Option<&str>| {
            ask(Wanted { if_none_match: tag, if_modified_since: date, ..Wanted::default() }).status
        };
        assert_eq!(status(Some("\"one\""), None), 304);
        assert_eq!(status(Some("\"x\", W/\"one\""), None), 304);
        assert_eq!(status(Some("*"), None), 304);
        assert_eq!(status(None, Some(DATE)), 304);
        // Portage adds some seconds to the time of its copy.
        assert_eq!(status(None, Some("Sat, 28 Nov 2026 00:18:06 GMT")), 304);
        assert_eq!(status(None, Some("Sat, 28 Nov 2026 00:18:00 GMT")), 200);
        assert_eq!(status(None, Some("yesterday")), 200);
        assert_eq!(status(Some("\"two\""), Some(DATE)), 200, "the tag decides");
    }

    #[test]
    fn a_download_continues_where_it_broke_off() {
        let ask = |range, if_range| ask(Wanted { range: Some(range), if_range, ..Wanted::default() });
        let rest = ask("bytes=4-", None);
        assert_eq!(
            (rest.status, rest.body.clone(), header(&rest, "content-range")),
            (206, Some(4..10), "bytes 4-9/10")
        );
        assert_eq!(header(&rest, "content-length"), "6");
        assert_eq!(ask("bytes=4-6", Some("\"one\"")).body, Some(4..7));
        assert_eq!(ask("bytes=4-6", Some(DATE)).body, Some(4..7));
        assert_eq!(ask("bytes=4-99", None).body, Some(4..10));
        assert_eq!(ask("bytes=-3", None).body, Some(7..10));
        assert_eq!(ask("bytes=-30", None).body, Some(0..10));
        assert_eq!(ask("bytes=4-6", Some("\"two\"")).status, 200, "the file has changed");
        for whole in ["bytes=6-4", "bytes=a-", "bytes=1-2,4-5", "lines=1-", "bytes=-", "bytes=+1-"] {
            assert_eq!(ask(whole, None).status, 200, "{whole}");
        }
        for outside in ["bytes=10-", "bytes=99-100", "bytes=-0"] {
            let outside = ask(outside, None);
            assert_eq!(
                (outside.status, header(&outside, "content-range"), outside.body.clone()),
                (416, "bytes */10", None)
            );
        }
    }
}
