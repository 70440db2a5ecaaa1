//! An honest registry, and registries that lie. A lie leads to the right result or to an error of the right kind, and to no layout.

mod access;
mod pulls;
mod pushes;
mod server;

use std::path::{Path, PathBuf};

use serde_json::json;

use self::server::{Registry, digest};
use super::{Connection, PushOptions, Pushed, Reference, pull, push};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Silent;
use crate::oci::layout::{CONFIG, MANIFEST, Platform};

/// Bytes that do not repeat.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// A layout with one image of one layer, tagged `1`.
struct Layout {
    place: tempfile::TempDir,
}

impl Layout {
    fn with(layer: &[u8]) -> Self {
        let layout = Self { place: tempfile::tempdir().unwrap() };
        fs_err::create_dir_all(layout.dir().join("blobs/sha256")).unwrap();
        let add = |bytes: &[u8], media_type: &str| {
            let name = digest(bytes);
            fs_err::write(layout.blob(&name), bytes).unwrap();
            json!({ "mediaType": media_type, "digest": name, "size": bytes.len() })
        };
        let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [digest(layer)] } });
        let config = add(config.to_string().as_bytes(), CONFIG);
        let layer = add(layer, "application/vnd.oci.image.layer.v1.tar");
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
        let mut manifest = add(manifest.to_string().as_bytes(), MANIFEST);
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "1" });
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        fs_err::write(layout.dir().join("index.json"), index.to_string()).unwrap();
        fs_err::write(layout.dir().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        layout
    }

    fn dir(&self) -> PathBuf {
        self.place.path().join("layout")
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.dir().join("blobs").join(digest.replace(':', "/"))
    }

    fn push(&self, registry: &Registry, options: &PushOptions) -> Result<Pushed> {
        let to = Reference::parse(&format!("{}/r", registry.host)).unwrap();
        push(&self.dir(), &to, options, &Connection::default(), &Silent)
    }
}

/// Pulls the tag `1`. After an error, nothing is left.
fn pulled(registry: &Registry) -> Result<(tempfile::TempDir, String)> {
    pulled_as(registry, ":1")
}

fn pulled_as(registry: &Registry, name: &str) -> Result<(tempfile::TempDir, String)> {
    pulled_for(registry, name, None)
}

fn pulled_for(registry: &Registry, name: &str, platform: Option<&str>) -> Result<(tempfile::TempDir, String)> {
    let platform = platform.map(|text| Platform::parse(text).unwrap());
    let place = tempfile::tempdir().unwrap();
    let from = Reference::parse(&format!("{}/r{name}", registry.host)).unwrap();
    let found = pull(&from, &place.path().join("layout"), platform.as_ref(), &Connection::default(), &Silent);
    if found.is_err() {
        assert_eq!(fs_err::read_dir(place.path()).unwrap().count(), 0, "leftovers");
    }
    found.map(|digest| (place, digest.to_string()))
}

/// Returns everything that an error says.
fn told(error: &Error) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}; {}", error.hint().unwrap_or_default())
}

#[track_caller]
fn assert_bad<T>(name: &str, found: Result<T>, kind: Kind, why: &str) {
    match found {
        Ok(_) => panic!("{name}: it is accepted"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{name}: {}", told(&error));
            assert!(told(&error).contains(why), "{name}: {}", told(&error));
            assert!(!told(&error).contains(|c: char| c.is_control() && c != '\n'), "{name}: {error:?}");
        }
    }
}

/// Tests whether nothing but the content of these layers is wrong with a layout: they are not archives.
fn is_valid(dir: &Path, layers: &[&[u8]]) -> bool {
    let report = crate::oci::validate::validate(dir).unwrap();
    let layers: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
    report.images > 0 && report.findings.iter().all(|finding| !finding.wrong || layers.contains(&finding.about))
}
