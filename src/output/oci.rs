//! Composes the documents of an OCI image layout, as bytes. Pure: [`super::publish`] writes them.
//!
//! The types of `oci-spec` keep maps in random order. Every document is therefore sorted as a `serde_json::Value` before it is
//! serialized and hashed.

use std::collections::{BTreeMap, HashMap};

use oci_spec::image::{
    ANNOTATION_AUTHORS, ANNOTATION_CREATED, ANNOTATION_REF_NAME, ANNOTATION_TITLE, ANNOTATION_VERSION, Arch,
    ConfigBuilder, Descriptor, Digest, HistoryBuilder, ImageConfigurationBuilder, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, OciLayoutBuilder, Os, Platform as OciPlatform, PlatformBuilder, RootFsBuilder,
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::archive::pack::{Format, Packed};
use crate::base::arch::Platform;
use crate::base::digest::Sha256;
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::time::SourceDate;
use crate::recipe::Oci;

/// The PATH of an image whose recipe sets none; the default of container runtimes.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A layer of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer<'a> {
    /// The sizes and digests of the layer.
    pub packed: &'a Packed,
    /// The step that the layer ends with; `None` for the last layer.
    pub step: Option<&'a str>,
}

/// The documents of a layout, without its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The documents under `blobs/sha256`, by digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// The names of the layers under `blobs/sha256`, lowest first.
    pub layers: Vec<String>,
    /// The content of `index.json`.
    pub index: Vec<u8>,
    /// The content of `oci-layout`.
    pub marker: Vec<u8>,
}

/// Returns the tag of an image on a date: `{date}` and `$$DATE$$` become `YYYYMMDD`.
///
/// # Errors
/// [`Kind::Usage`] if the tag is not valid.
pub fn tag(oci: &Oci, date: SourceDate) -> Result<String> {
    let tag = oci.tag_on(&date.compact());
    let first = tag.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let rest = tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest && tag.len() <= 128 {
        Ok(tag)
    } else {
        Err(Error::usage(format!("`{tag}` is not a tag for an OCI image")).with_hint(
            "a tag has at most 128 characters: letters, digits, `_`, `.` and `-`; it does not begin with `.` or `-`",
        ))
    }
}

/// Composes the documents of the image `title` with `layers`, lowest first.
///
/// # Errors
/// [`Kind::Usage`] if the tag is not valid or OCI does not define the format of a layer.
pub fn layout(oci: &Oci, title: &str, platform: Platform, date: SourceDate, layers: &[Layer<'_>]) -> Result<Layout> {
    let tag = tag(oci, date)?;
    let mut blobs = BTreeMap::new();

    let config = configuration(oci, platform, date, layers)?;
    let config = descriptor(MediaType::ImageConfig, &config, &mut blobs)?;
    let described = layers.iter().map(|Layer { packed, .. }| {
        Ok(Descriptor::new(layer_type(packed.format)?, packed.size, digest(&packed.sha256.hex())?))
    });
    let described: Vec<Descriptor> = described.collect::<Result<_>>()?;

    let mut annotations = HashMap::from([
        (ANNOTATION_CREATED.to_owned(), date.rfc3339()),
        (ANNOTATION_TITLE.to_owned(), title.to_owned()),
        (ANNOTATION_VERSION.to_owned(), tag.clone()),
    ]);
    if let Some(maintainer) = &oci.maintainer {
        annotations.insert(ANNOTATION_AUTHORS.to_owned(), maintainer.clone());
    }
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(described)
        .annotations(annotations)
        .build()
        .context(Kind::Build, || "composing the image manifest")?;
    let mut manifest = descriptor(MediaType::ImageManifest, &bytes(&manifest)?, &mut blobs)?;
    manifest.set_platform(Some(oci_platform(platform)?));
    manifest.set_annotations(Some(HashMap::from([(ANNOTATION_REF_NAME.to_owned(), tag.clone())])));

    let index = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests([manifest])
        .build()
        .context(Kind::Build, || "composing the image index")?;
    let marker = OciLayoutBuilder::default()
        .image_layout_version("1.0.0")
        .build()
        .context(Kind::Build, || "composing the image layout")?;
    let layers = layers.iter().map(|layer| layer.packed.sha256.hex()).collect();
    Ok(Layout { blobs, layers, index: bytes(&index)?, marker: bytes(&marker)? })
}

fn layer_type(format: Format) -> Result<MediaType> {
    match format {
        Format::Plain => Ok(MediaType::ImageLayer),
        Format::Gzip => Ok(MediaType::ImageLayerGzip),
        Format::Zstd => Ok(MediaType::ImageLayerZstd),
        Format::Xz => Err(Error::usage("composing the image manifest: OCI does not define layers compressed with xz")
            .with_hint("set build.compression to \"gzip\" or \"zstd\", or remove [oci] from the recipe")),
    }
}

fn configuration(oci: &Oci, platform: Platform, date: SourceDate, layers: &[Layer<'_>]) -> Result<Vec<u8>> {
    let mut env = oci.env.clone();
    env.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
    let mut config = ConfigBuilder::default()
        .env(env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>())
        .working_dir(oci.workdir.clone().unwrap_or_else(|| "/".to_owned()));
    if !oci.entrypoint.is_empty() {
        config = config.entrypoint(oci.entrypoint.clone());
    }
    if !oci.cmd.is_empty() {
        config = config.cmd(oci.cmd.clone());
    }
    if let Some(user) = &oci.user {
        config = config.user(user.clone());
    }
    if !oci.ports.is_empty() {
        config = config.exposed_ports(oci.ports.clone());
    }
    if !oci.volumes.is_empty() {
        config = config.volumes(oci.volumes.clone());
    }
    if !oci.labels.is_empty() {
        config = config.labels(oci.labels.clone().into_iter().collect::<HashMap<_, _>>());
    }
    let composing = || "composing the image configuration";
    let config = config.build().context(Kind::Build, composing)?;

    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", layer.packed.diff_id)).collect();
    let rootfs = RootFsBuilder::default().diff_ids(diff_ids);
    let mut image = ImageConfigurationBuilder::default()
        .created(date.rfc3339())
        .architecture(Arch::from(platform.architecture))
        .os(Os::Linux)
        .config(config)
        .rootfs(rootfs.build().context(Kind::Build, composing)?);
    if let Some(variant) = platform.variant {
        image = image.variant(variant);
    }
    if let Some(maintainer) = &oci.maintainer {
        image = image.author(maintainer.clone());
    }
    let history = layers.iter().map(|layer| {
        let mut history = HistoryBuilder::default()
            .created(date.rfc3339())
            .created_by(concat!("quern-builder ", env!("CARGO_PKG_VERSION")))
            .empty_layer(false);
        if let Some(step) = layer.step {
            history = history.comment(step);
        }
        if let Some(maintainer) = &oci.maintainer {
            history = history.author(maintainer.clone());
        }
        history.build().context(Kind::Build, composing)
    });
    let image = image.history(history.collect::<Result<Vec<_>>>()?);
    bytes(&image.build().context(Kind::Build, composing)?)
}

fn oci_platform(platform: Platform) -> Result<OciPlatform> {
    let mut builder = PlatformBuilder::default().architecture(Arch::from(platform.architecture)).os(Os::Linux);
    if let Some(variant) = platform.variant {
        builder = builder.variant(variant);
    }
    builder.build().context(Kind::Build, || "composing the image's platform")
}

/// Adds a document to the blobs and returns its descriptor.
fn descriptor(kind: MediaType, document: &[u8], blobs: &mut BTreeMap<String, Vec<u8>>) -> Result<Descriptor> {
    let name = Sha256::of(document).hex();
    let descriptor = Descriptor::new(kind, document.len() as u64, digest(&name)?);
    blobs.insert(name, document.to_vec());
    Ok(descriptor)
}

fn digest(sha256: &str) -> Result<Digest> {
    Digest::try_from(format!("sha256:{sha256}")).context(Kind::Build, || format!("reading the digest `{sha256}`"))
}

fn bytes(document: &impl Serialize) -> Result<Vec<u8>> {
    let value = serde_json::to_value(document).context(Kind::Build, || "writing an image document")?;
    serde_json::to_vec(&sorted(value)).context(Kind::Build, || "writing an image document")
}

/// Sorts the keys of every object, even if a crate enables `serde_json/preserve_order`.
pub(super) fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<_, _> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(ordered.into_iter().collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oci() -> Oci {
        Oci {
            tag: "v{date}".to_owned(),
            entrypoint: vec!["/usr/bin/python3".to_owned()],
            cmd: Vec::new(),
            env: BTreeMap::from([("Z".to_owned(), "1".to_owned()), ("A".to_owned(), "2=3".to_owned())]),
            user: Some("nobody".to_owned()),
            workdir: None,
            ports: vec!["80".to_owned(), "53/udp".to_owned(), "443/tcp".to_owned()],
            volumes: vec!["/data".to_owned(), "/cache".to_owned()],
            labels: (0..20).map(|number| (format!("label{number}"), number.to_string())).collect(),
            maintainer: Some("A <a@b>".to_owned()),
            cuts: Vec::new(),
            on_parent: false,
        }
    }

    fn packed() -> Packed {
        Packed {
            size: 7,
            sha256: Sha256::from([0xaa; 32]),
            diff_id: Sha256::from([0xcc; 32]),
            tar_size: 9,
            entries: 1,
            format: Format::Gzip,
        }
    }

    fn made() -> Layout {
        let platform = Platform { architecture: "arm64", variant: Some("v8") };
        let layers = [Layer { packed: &packed(), step: None }];
        layout(&oci(), "python", platform, SourceDate::new(1_700_000_000), &layers).unwrap()
    }

    fn json(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn documents_refer_to_each_other_by_digest() {
        let layout = made();
        let index = json(&layout.index);
        let manifest = &index["manifests"][0];
        assert_eq!(manifest["annotations"][ANNOTATION_REF_NAME], "v20231114");
        assert_eq!(manifest["platform"]["variant"], "v8");
        let blob = |descriptor: &Value| {
            let name = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let bytes = &layout.blobs[name];
            assert_eq!(Sha256::of(bytes).hex(), name);
            assert_eq!(descriptor["size"], bytes.len() as u64);
            json(bytes)
        };
        let manifest = blob(manifest);
        assert_eq!(manifest["layers"][0]["digest"], format!("sha256:{}", "a".repeat(64)));
        assert_eq!(manifest["layers"][0]["size"], 7);
        assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        assert_eq!(manifest["annotations"][ANNOTATION_CREATED], "2023-11-14T22:13:20Z");
        let config = blob(&manifest["config"]);
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", "c".repeat(64)));
        assert_eq!(config["architecture"], "arm64");
        assert_eq!(config["config"]["Env"], serde_json::json!(["A=2=3", format!("PATH={DEFAULT_PATH}"), "Z=1"]));
        assert_eq!(config["config"]["ExposedPorts"], serde_json::json!({"443/tcp": {}, "53/udp": {}, "80": {}}));
        assert_eq!(config["config"]["User"], "nobody");
        assert!(config["config"].get("Cmd").is_none());
        assert_eq!(json(&layout.marker), serde_json::json!({"imageLayoutVersion": "1.0.0"}));
    }

    #[test]
    fn every_layer_has_a_diff_id_and_a_line_of_history() {
        let lower = Packed { sha256: Sha256::from([0xbb; 32]), diff_id: Sha256::from([0xdd; 32]), ..packed() };
        let layers = [Layer { packed: &lower, step: Some("install") }, Layer { packed: &packed(), step: None }];
        let platform = Platform { architecture: "amd64", variant: None };
        let layout = layout(&oci(), "python", platform, SourceDate::new(0), &layers).unwrap();
        assert_eq!(layout.layers, ["b".repeat(64), "a".repeat(64)]);
        let documents: Vec<Value> = layout.blobs.values().map(|bytes| json(bytes)).collect();
        let manifest = documents.iter().find(|document| document["layers"].is_array()).unwrap();
        assert_eq!(manifest["layers"][0]["digest"], format!("sha256:{}", "b".repeat(64)));
        let config = documents.iter().find(|document| document["history"].is_array()).unwrap();
        let ids = ["d", "c"].map(|digit| format!("sha256:{}", digit.repeat(64)));
        assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(ids));
        assert_eq!(config["history"][0]["comment"], "install");
        assert!(config["history"][1].get("comment").is_none() && config["history"].as_array().unwrap().len() == 2);
    }

    #[test]
    fn documents_are_the_same_every_time() {
        let first = made();
        for _ in 0..20 {
            assert_eq!(made(), first);
        }
        let config = first.blobs.values().map(|bytes| String::from_utf8(bytes.clone()).unwrap());
        let config = config.into_iter().find(|text| text.contains("diff_ids")).unwrap();
        assert!(config.find("label1\"") < config.find("label10\""), "labels are sorted: {config}");
    }

    #[test]
    fn the_media_type_matches_the_format_of_the_layer() {
        let platform = Platform { architecture: "amd64", variant: None };
        let of = |format| {
            let layers = [Layer { packed: &Packed { format, ..packed() }, step: None }];
            layout(&oci(), "python", platform, SourceDate::new(0), &layers)
        };
        for (format, media_type) in
            [(Format::Plain, "v1.tar"), (Format::Gzip, "v1.tar+gzip"), (Format::Zstd, "v1.tar+zstd")]
        {
            let layout = of(format).unwrap();
            let manifest =
                layout.blobs.values().map(|bytes| json(bytes)).find(|json| json["layers"].is_array()).unwrap();
            let media_type = format!("application/vnd.oci.image.layer.{media_type}");
            assert_eq!(manifest["layers"][0]["mediaType"], media_type);
            assert!(crate::oci::layout::layer_format(&media_type).is_some());
        }
        assert_eq!(of(Format::Xz).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn tags_contain_the_date_and_are_checked() {
        let at = SourceDate::new(1_700_000_000);
        let of = |text: &str| tag(&Oci { tag: text.to_owned(), ..oci() }, at);
        assert_eq!(of("$$DATE$$-x").unwrap(), "20231114-x");
        for wrong in ["", "-x", "a b", "a/b", "a:b", &"x".repeat(129)] {
            assert_eq!(of(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
