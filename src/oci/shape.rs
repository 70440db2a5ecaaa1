//! The required form of documents, including keys that are not used here: other programs fail on malformed ones. Pure.
//!
//! Source: the image specification 1.1 and its JSON schemas. A key whose value is `null` counts as missing, as in Go.

use serde_json::Value;

use self::Shape::{Flag, List, Map, MediaType, Moment, Object, Text, Uri, Variable};

/// The required form of a value.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A string.
    Text,
    /// `true` or `false`.
    Flag,
    /// A media type: type and subtype of at most 127 bytes each (RFC 6838).
    MediaType,
    /// A URI with a scheme (RFC 3986).
    Uri,
    /// A date and a time of day (RFC 3339).
    Moment,
    /// An environment variable: `NAME=VALUE`.
    Variable,
    /// A list of such values.
    List(&'static Self),
    /// An object with any keys and such values.
    Map(&'static Self),
    /// An object in which these keys have such values. Keys with `true` are required.
    Object(&'static [(&'static str, bool, Self)]),
}

const PLATFORM: Shape = Object(&[
    ("architecture", true, Text),
    ("os", true, Text),
    ("os.version", false, Text),
    ("os.features", false, List(&Text)),
    ("variant", false, Text),
]);

const DESCRIPTOR: Shape = Object(&[
    ("mediaType", true, MediaType),
    ("artifactType", false, MediaType),
    ("urls", false, List(&Uri)),
    ("platform", false, PLATFORM),
    ("data", false, Text),
    ("annotations", false, Map(&Text)),
]);

/// An index. Its type demands the list of manifests, which may be `null`.
pub const INDEX: Shape = Object(&[
    ("artifactType", false, MediaType),
    ("manifests", false, List(&DESCRIPTOR)),
    ("subject", false, DESCRIPTOR),
    ("annotations", false, Map(&Text)),
]);

/// A manifest.
pub const MANIFEST: Shape = Object(&[
    ("artifactType", false, MediaType),
    ("config", true, DESCRIPTOR),
    ("layers", false, List(&DESCRIPTOR)),
    ("subject", false, DESCRIPTOR),
    ("annotations", false, Map(&Text)),
]);

/// A configuration.
pub const CONFIG: Shape = Object(&[
    ("created", false, Moment),
    ("author", false, Text),
    ("architecture", true, Text),
    ("os", true, Text),
    ("os.version", false, Text),
    ("os.features", false, List(&Text)),
    ("variant", false, Text),
    ("config", false, RUNNING),
    ("history", false, List(&STEP)),
]);

/// Parameters of a container that runs the image.
const RUNNING: Shape = Object(&[
    ("User", false, Text),
    ("ExposedPorts", false, Map(&Object(&[]))),
    ("Env", false, List(&Variable)),
    ("Entrypoint", false, List(&Text)),
    ("Cmd", false, List(&Text)),
    ("Volumes", false, Map(&Object(&[]))),
    ("WorkingDir", false, Text),
    ("Labels", false, Map(&Text)),
    ("StopSignal", false, Text),
    ("ArgsEscaped", false, Flag),
]);

const STEP: Shape = Object(&[
    ("created", false, Moment),
    ("author", false, Text),
    ("created_by", false, Text),
    ("comment", false, Text),
    ("empty_layer", false, Flag),
]);

impl Shape {
    /// Checks `value`. The error gives the path of the wrong value and the form that it should have.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let fits = match (self, value) {
            (Text, Value::String(_)) | (Flag, Value::Bool(_)) => true,
            (MediaType, Value::String(text)) => is_media_type(text),
            (Uri, Value::String(text)) => is_uri(text),
            (Moment, Value::String(text)) => is_moment(text),
            (Variable, Value::String(text)) => text.find('=').is_some_and(|at| at > 0),
            (List(of), Value::Array(values)) => {
                let each = |(at, value)| of.check(value).map_err(|what| format!("[{at}]{what}"));
                return values.iter().enumerate().try_for_each(each);
            }
            (Map(of), Value::Object(object)) => {
                return object.values().try_for_each(|value| of.check(value).map_err(|what| format!(".*{what}")));
            }
            (Object(keys), Value::Object(object)) => {
                return keys.iter().try_for_each(|(key, needed, of)| match object.get(*key) {
                    None | Some(Value::Null) if *needed => Err(format!(".{key} is missing")),
                    None | Some(Value::Null) => Ok(()),
                    Some(value) => of.check(value).map_err(|what| format!(".{key}{what}")),
                });
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!(" is not {}", self.name())) }
    }

    fn name(&self) -> &'static str {
        match self {
            Text => "a string",
            Flag => "true or false",
            MediaType => "a media type",
            Uri => "a URI",
            Moment => "a date with a time",
            Variable => "NAME=VALUE",
            List(_) => "a list",
            Map(_) | Object(_) => "an object",
        }
    }
}

fn is_media_type(text: &str) -> bool {
    let part = |part: &str| {
        part.len() <= 127
            && part.starts_with(|first: char| first.is_ascii_alphanumeric())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| part(kind) && part(subtype))
}

fn is_uri(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte))
            && !rest.is_empty()
            && rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
    })
}

fn is_moment(text: &str) -> bool {
    // A date and a time of day, an optional fraction of a second, and the offset from UTC.
    let parts = || {
        let (head, rest) = text.split_at_checked("2006-01-02T15:04:05".len())?;
        let digits = rest.strip_prefix('.').map_or(0, |rest| 1 + rest.bytes().take_while(u8::is_ascii_digit).count());
        let (fraction, zone) = rest.split_at(digits);
        Some((head, fraction, zone))
    };
    // Each digit of the pattern is the highest allowed digit.
    let like = |text: &str, pattern: &str| {
        let fits =
            |(byte, most): (u8, u8)| if most.is_ascii_digit() { (b'0'..=most).contains(&byte) } else { byte == most };
        text.len() == pattern.len() && text.bytes().zip(pattern.bytes()).all(fits)
    };
    parts().is_some_and(|(head, fraction, zone)| {
        like(head, "9999-19-39T29:59:69")
            && ("01"..="12").contains(&&head[5..7])
            && ("01"..="31").contains(&&head[8..10])
            && ("00"..="23").contains(&&head[11..13])
            && ("00"..="60").contains(&&head[17..])
            && fraction != "."
            && (zone == "Z" || like(zone, "+29:59") || like(zone, "-29:59"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_path_of_a_wrong_value_is_named() {
        let plain = json!({ "os": "linux", "architecture": "amd64" });
        assert_eq!(CONFIG.check(&plain), Ok(()));
        let wrong = [
            (".variant is not a string", "variant", json!(8)),
            (".os.features is not a list", "os.features", json!("one")),
            (".config is not an object", "config", json!([])),
            (".config.User is not a string", "config", json!({ "User": 1000 })),
            (".config.Env[1] is not NAME=VALUE", "config", json!({ "Env": ["A=", "B"] })),
            (".config.Env[0] is not NAME=VALUE", "config", json!({ "Env": ["=A"] })),
            (".config.Cmd is not a list", "config", json!({ "Cmd": "sh" })),
            (".config.Volumes is not an object", "config", json!({ "Volumes": ["/var"] })),
            (".config.Volumes.* is not an object", "config", json!({ "Volumes": { "/var": 1 } })),
            (".config.Labels.* is not a string", "config", json!({ "Labels": { "a": null } })),
            (".history[0].empty_layer is not true or false", "history", json!([{ "empty_layer": 1 }])),
            (".architecture is missing", "architecture", json!(null)),
        ];
        for (text, key, value) in wrong {
            let mut config = plain.clone();
            config[key] = value;
            assert_eq!(CONFIG.check(&config), Err(text.to_owned()));
        }
        // Docker writes `null` for missing values.
        let mut docker = plain;
        docker["config"] =
            json!({ "User": "", "Env": null, "Cmd": null, "Volumes": null, "Labels": {}, "OnBuild": null });
        assert_eq!(CONFIG.check(&docker), Ok(()));
    }

    #[test]
    fn times_have_the_form_of_rfc_3339() {
        let check =
            |time: &str| CONFIG.check(&json!({ "os": "", "architecture": "", "history": [{ "created": time }] }));
        for good in ["2015-10-31T22:22:54.690851953Z", "0001-01-01T00:00:00Z", "2024-02-29T23:59:60+01:30"] {
            assert_eq!(check(good), Ok(()));
        }
        let day = "2015-10-31T22:22:54";
        let bad = ["", "2015-10-31", day, "2015-13-31T22:22:54Z", "2015-00-31T22:22:54Z", "2015-10-32T22:22:54Z"];
        let bad = bad
            .into_iter()
            .map(str::to_owned)
            .chain([".Z", "z", "+01", "+0100", ".5", "Z ", ",5Z", "\u{e9}Z"].map(|end| day.to_owned() + end));
        for bad in
            bad.chain(["2015-10-31 22:22:54Z", "2015-10-31T24:00:00Z", "2015-10-31T22:22:61Z"].map(str::to_owned))
        {
            assert_eq!(check(&bad), Err(".history[0].created is not a date with a time".to_owned()), "{bad}");
        }
    }

    #[test]
    fn descriptors_have_a_media_type_and_a_complete_platform() {
        let check = |key: &str, value: Value| {
            let mut descriptor = json!({ "mediaType": "a/b" });
            descriptor[key] = value;
            INDEX.check(&json!({ "manifests": [descriptor] }))
        };
        let long = |length: usize| json!(format!("{}/{}", "t".repeat(length), "s".repeat(length)));
        for good in [json!("application/vnd.oci.image.layer.v1.tar+gzip"), json!("x-1/a!#$&^_"), long(127)] {
            assert_eq!(check("mediaType", good), Ok(()));
        }
        for bad in [
            json!("text"),
            json!("/plain"),
            json!("a/!b"),
            json!(".a/b"),
            json!("a/b c"),
            json!("a/b/c"),
            json!("a/b;c=d"),
            long(128),
        ] {
            assert_eq!(check("mediaType", bad), Err(".manifests[0].mediaType is not a media type".to_owned()));
        }
        assert_eq!(check("urls", json!(["https://a.example/b?c", "urn:x"])), Ok(()));
        for bad in ["value", "https:", "1a:b", "https://a b", "a:\u{e9}", ":b"] {
            assert_eq!(check("urls", json!([bad])), Err(".manifests[0].urls[0] is not a URI".to_owned()));
        }
        assert_eq!(check("platform", json!({ "os": "linux", "architecture": "arm", "variant": "v7" })), Ok(()));
        assert_eq!(
            check("platform", json!({ "os": "linux" })).unwrap_err(),
            ".manifests[0].platform.architecture is missing"
        );
        assert_eq!(MANIFEST.check(&json!({ "config": { "mediaType": "a/b" }, "layers": [] })), Ok(()));
    }
}
