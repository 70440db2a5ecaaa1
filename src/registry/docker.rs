//! Manifests and lists in Docker's form, changed into those of OCI. Both say the same in other media types. Pure.

use serde_json::Value;

use crate::base::refusal::{Code, Reason};
use crate::base::text::printable;
use crate::oci::layout::{CONFIG, Descriptor, INDEX, MANIFEST};

/// Media type of a list of manifests.
pub(super) const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of a manifest.
pub(super) const IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";

const TYPES: [(&str, &str); 6] = [
    (LIST, INDEX),
    (IMAGE, MANIFEST),
    ("application/vnd.docker.container.image.v1+json", CONFIG),
    ("application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar"),
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
    ("application/vnd.docker.image.rootfs.diff.tar.zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
];

/// Returns the media type of OCI for one of Docker's.
pub(super) fn media_type(docker: &str) -> Option<&'static str> {
    TYPES.iter().find(|(known, _)| *known == docker).map(|(_, oci)| *oci)
}

/// Changes the media types of a manifest, and in a list also the descriptors of the manifests, which are `images` after their change.
pub(super) fn converted(bytes: &[u8], images: &[Descriptor]) -> Result<Vec<u8>, Reason> {
    let bad = || Reason::new(Code::BadJson, "it is not a manifest of Docker");
    let mut document: Value = serde_json::from_slice(bytes).map_err(|_| bad())?;
    change_type(&mut document)?;
    for key in ["config", "layers", "manifests"] {
        let described = match &mut document[key] {
            Value::Null => continue,
            Value::Array(described) => described.iter_mut().collect(),
            one => vec![one],
        };
        described.into_iter().try_for_each(change_type)?;
    }
    // Indexing a value that is not an object adds nothing: the shape of the result is checked as that of any manifest.
    if let Some(listed) = document["manifests"].as_array_mut() {
        if listed.len() != images.len() {
            return Err(bad());
        }
        for (entry, image) in listed.iter_mut().zip(images) {
            entry["digest"] = image.digest.as_str().into();
            entry["size"] = image.size.into();
        }
    }
    if let Some(document) = document.as_object_mut() {
        document.retain(|_, value| !value.is_null());
    }
    serde_json::to_vec(&document).map_err(|_| bad())
}

fn change_type(described: &mut Value) -> Result<(), Reason> {
    let found = described.get("mediaType").and_then(Value::as_str).unwrap_or_default();
    let Some(oci) = media_type(found) else {
        let text = format!("{} has no counterpart in OCI", printable(found));
        return Err(Reason::new(Code::BadMediaType, text));
    };
    described["mediaType"] = oci.into();
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::base::digest::Sha256;
    use crate::oci::Digest;

    #[test]
    fn media_types_change_and_nothing_else() {
        let layer = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        let config = "application/vnd.docker.container.image.v1+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": IMAGE,
            "config": { "mediaType": config, "size": 1, "digest": "c" }, "layers": [{ "mediaType": layer, "size": 2, "digest": "l" }] });
        let found: Value = serde_json::from_slice(&converted(manifest.to_string().as_bytes(), &[]).unwrap()).unwrap();
        let expected = json!({ "schemaVersion": 2, "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "size": 1, "digest": "c" },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": 2, "digest": "l" }] });
        assert_eq!(found, expected);
        let list = json!({ "schemaVersion": 2, "mediaType": LIST,
            "manifests": [{ "mediaType": IMAGE, "size": 1, "digest": "old", "platform": { "os": "linux" } }] });
        let image = Descriptor::new(MANIFEST, &Digest::Sha256(Sha256::of(b"")), 7);
        let found: Value =
            serde_json::from_slice(&converted(list.to_string().as_bytes(), std::slice::from_ref(&image)).unwrap())
                .unwrap();
        let listed =
            json!([{ "mediaType": MANIFEST, "size": 7, "digest": image.digest, "platform": { "os": "linux" } }]);
        assert_eq!((&found["mediaType"], &found["manifests"]), (&json!(INDEX), &listed));
    }

    #[test]
    fn other_documents_are_refused() {
        let foreign = json!({ "mediaType": IMAGE, "layers": [{ "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" }] });
        for (bytes, code) in [
            (b"{".to_vec(), Code::BadJson),
            (b"[]".to_vec(), Code::BadMediaType),
            (b"1".to_vec(), Code::BadMediaType),
            (json!({ "mediaType": "x" }).to_string().into_bytes(), Code::BadMediaType),
            (foreign.to_string().into_bytes(), Code::BadMediaType),
            (json!({ "mediaType": IMAGE, "config": 1 }).to_string().into_bytes(), Code::BadMediaType),
            (
                json!({ "mediaType": LIST, "manifests": [{ "mediaType": IMAGE }] }).to_string().into_bytes(),
                Code::BadJson,
            ),
        ] {
            assert_eq!(converted(&bytes, &[]).unwrap_err().code, code, "{}", String::from_utf8_lossy(&bytes));
        }
    }
}
