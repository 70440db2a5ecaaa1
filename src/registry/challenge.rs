//! The header `WWW-Authenticate` of a registry: the ways in which it wants to be shown credentials. Pure.

/// A way to show credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A name and a password with each request.
    Basic,
    /// A token of another server.
    Bearer {
        /// The URL of the server.
        realm: String,
        /// The name by which it knows the registry.
        service: Option<String>,
        /// The rights that the request needs.
        scope: Option<String>,
    },
}

/// Longest header that is read.
const LONGEST: usize = 8 << 10;

/// Parses the values of the header. A scheme that is not known is left out.
pub(crate) fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    values.into_iter().filter(|value| value.len() <= LONGEST).flat_map(of_value).collect()
}

/// Parses one value, a list of challenges (RFC 9110, 11.6.1).
fn of_value(value: &str) -> Vec<Challenge> {
    let mut found: Vec<(&str, Vec<(&str, String)>)> = Vec::new();
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let length =
            rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)).count();
        if length == 0 {
            // The end, or something that is not a list of challenges.
            break;
        }
        let word;
        (word, rest) = rest.split_at(length);
        let after = rest.trim_start_matches([' ', '\t']);
        match (after.strip_prefix('='), found.last_mut()) {
            (Some(after), Some((_, parameters))) => {
                let (value, after) = parameter(after.trim_start_matches([' ', '\t']));
                parameters.push((word, value));
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => found.push((word, Vec::new())),
        }
    }
    found.into_iter().filter_map(|(scheme, parameters)| challenge(scheme, &parameters)).collect()
}

/// Reads the value of a parameter, a word or a string in quotes. Returns it and the rest.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()));
        return (word.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

fn challenge(scheme: &str, parameters: &[(&str, String)]) -> Option<Challenge> {
    let get = |name: &str| {
        let found = parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    };
    if scheme.eq_ignore_ascii_case("basic") {
        Some(Challenge::Basic)
    } else if scheme.eq_ignore_ascii_case("bearer") {
        Some(Challenge::Bearer { realm: get("realm")?, service: get("service"), scope: get("scope") })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn challenges_are_read_in_every_form_of_the_grammar() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let token =
            bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull,push"));
        for (value, expected) in [
            (hub, vec![token.clone()]),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Negotiate, Basic realm="x", BEARER REALM = "r" , service=s"#,
                vec![Challenge::Basic, bearer("r", Some("s"), None)],
            ),
            (r#"Bearer realm="a\"b\\",scope="#, vec![bearer(r#"a"b\"#, None, None)]),
            (r#"Bearer realm="open"#, vec![bearer("open", None, None)]),
            ("Bearer service=s", vec![]),
            (r#"realm="x""#, vec![]),
            ("", vec![]),
            (" , ,,", vec![]),
            ("Digest qop=\"auth\"", vec![]),
        ] {
            assert_eq!(parse([value]), expected, "{value}");
        }
        assert_eq!(parse([hub, "Basic"]), [token, Challenge::Basic]);
        assert_eq!(parse([format!("Basic {}", "x".repeat(LONGEST)).as_str()]), []);
    }
}
