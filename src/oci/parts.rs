//! The parts of an image: its documents and blobs, or those of all images of an index.

use std::collections::BTreeMap;

use super::document::Document as _;
use super::layout::{Descriptor, INDEX, MANIFEST, MAX_DEPTH, Manifest};
use super::{Checked, Digest, document};
use crate::base::refusal::{Code, Reason};
use crate::base::text::printable;

/// Most indexes and manifests of an image: a registry chooses their number, and each one costs a request.
const MOST_DOCUMENTS: usize = 1000;

/// Most configurations and layers.
const MOST_BLOBS: usize = 20_000;

/// The parts of an image. Each digest is listed once.
#[derive(Debug, Default)]
pub struct Parts {
    /// Indexes and manifests. A document comes after those that it refers to, so that the last one is the image.
    pub documents: Vec<Descriptor>,
    /// Configurations and layers.
    pub blobs: Vec<Descriptor>,
}

impl Parts {
    /// Lists the parts of the image `root`. `read` returns the bytes of a document, which have its digest.
    pub fn of(root: &Descriptor, read: &mut dyn FnMut(&Descriptor) -> Checked<Vec<u8>>) -> Checked<Self> {
        let mut search = Search { read, sizes: BTreeMap::new(), parts: Self::default() };
        search.document(root, 0)?;
        Ok(search.parts)
    }
}

struct Search<'a> {
    read: &'a mut dyn FnMut(&Descriptor) -> Checked<Vec<u8>>,
    /// The sizes of all digests so far.
    sizes: BTreeMap<String, u64>,
    parts: Parts,
}

impl Search<'_> {
    fn document(&mut self, descriptor: &Descriptor, depth: usize) -> Checked<()> {
        if !self.is_new(descriptor)? {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return Err(Reason::new(Code::TooDeep, "its indexes are nested too deeply").into());
        }
        if self.parts.documents.len() >= MOST_DOCUMENTS {
            return Err(Reason::new(Code::TooLarge, format!("it has more than {MOST_DOCUMENTS} manifests")).into());
        }
        match &descriptor.media_type[..] {
            INDEX => {
                let index: document::Index = document::parse(&(self.read)(descriptor)?)?;
                index.check()?;
                index.manifests.iter().try_for_each(|image| self.document(image, depth + 1))?;
            }
            MANIFEST => {
                let manifest: Manifest = document::parse(&(self.read)(descriptor)?)?;
                manifest.check()?;
                for blob in [&manifest.config].into_iter().chain(&manifest.layers) {
                    if self.is_new(blob)? {
                        self.parts.blobs.push(plain(blob)?);
                    }
                }
                if self.parts.blobs.len() > MOST_BLOBS {
                    return Err(Reason::new(Code::TooLarge, format!("it has more than {MOST_BLOBS} blobs")).into());
                }
            }
            other => {
                let text =
                    format!("{} has the media type {}, not that of an image", descriptor.digest, printable(other));
                return Err(Reason::new(Code::BadMediaType, text).into());
            }
        }
        self.parts.documents.push(plain(descriptor)?);
        Ok(())
    }

    /// Notes a digest. Returns false if it was noted before; two sizes of one digest are refused.
    fn is_new(&mut self, descriptor: &Descriptor) -> Checked<bool> {
        let digest = Digest::parse(&descriptor.digest)?.to_string();
        match self.sizes.insert(digest, descriptor.size) {
            Some(size) if size != descriptor.size => {
                let text = format!("{} has two sizes, {size} and {}", descriptor.digest, descriptor.size);
                Err(Reason::new(Code::SizeMismatch, text).into())
            }
            known => Ok(known.is_none()),
        }
    }
}

/// Returns a descriptor without annotations and data, which a registry can make large.
fn plain(descriptor: &Descriptor) -> Checked<Descriptor> {
    Ok(Descriptor::new(&descriptor.media_type, &Digest::parse(&descriptor.digest)?, descriptor.size))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Fault;
    use super::super::layout::CONFIG;
    use super::*;
    use crate::base::digest::Sha256;

    /// Documents by digest.
    #[derive(Default)]
    struct Blobs(BTreeMap<String, Vec<u8>>);

    impl Blobs {
        fn add(&mut self, value: &Value, media_type: &str) -> Value {
            let bytes = value.to_string().into_bytes();
            let digest = Digest::Sha256(Sha256::of(&bytes)).to_string();
            let described = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
            self.0.insert(digest, bytes);
            described
        }

        fn image(&mut self, layers: &[Value]) -> Value {
            let config = blob("c", CONFIG);
            self.add(&json!({ "schemaVersion": 2, "config": config, "layers": layers }), MANIFEST)
        }

        fn index(&mut self, manifests: &[Value]) -> Value {
            self.add(&json!({ "schemaVersion": 2, "manifests": manifests }), INDEX)
        }

        fn parts(&self, root: &Value) -> Result<Parts, Code> {
            let root = serde_json::from_value(root.clone()).unwrap();
            let found = Parts::of(&root, &mut |descriptor| Ok(self.0[&descriptor.digest].clone()));
            found.map_err(|fault| match fault {
                Fault::Wrong(reason) => reason.code,
                Fault::System(error) => panic!("{error}"),
            })
        }
    }

    fn blob(text: &str, media_type: &str) -> Value {
        let digest = Digest::Sha256(Sha256::of(text.as_bytes())).to_string();
        json!({ "mediaType": media_type, "digest": digest, "size": text.len() })
    }

    fn layer(text: &str) -> Value {
        blob(text, "application/vnd.oci.image.layer.v1.tar+gzip")
    }

    #[test]
    fn parts_are_listed_once_and_documents_after_those_they_refer_to() {
        let mut blobs = Blobs::default();
        let one = blobs.image(&[layer("a"), layer("bb"), layer("a")]);
        let two = blobs.image(&[layer("a"), layer("d")]);
        let inner = blobs.index(&[two.clone(), one.clone()]);
        let outer = blobs.index(&[one.clone(), inner.clone(), inner.clone()]);
        let parts = blobs.parts(&outer).unwrap();
        let digests = |of: &[Descriptor]| of.iter().map(|one| one.digest.clone()).collect::<Vec<_>>();
        let expected = [&one, &two, &inner, &outer].map(|one| one["digest"].as_str().unwrap().to_owned());
        assert_eq!(digests(&parts.documents), expected);
        assert_eq!(parts.blobs.iter().map(|blob| blob.size).collect::<Vec<_>>(), [1, 1, 2, 1]);
    }

    #[test]
    fn hostile_documents_are_refused_before_they_cost_anything() {
        let mut blobs = Blobs::default();
        let mut nested = blobs.image(&[]);
        for _ in 0..=MAX_DEPTH {
            nested = blobs.index(&[nested]);
        }
        assert_eq!(blobs.parts(&nested).unwrap_err(), Code::TooDeep);
        let mut long = layer("a");
        long["size"] = json!(2);
        let image = blobs.image(&[layer("a"), long]);
        assert_eq!(blobs.parts(&image).unwrap_err(), Code::SizeMismatch);
        let docker = blob("x", "application/vnd.docker.distribution.manifest.v2+json");
        let index = blobs.index(&[docker]);
        assert_eq!(blobs.parts(&index).unwrap_err(), Code::BadMediaType);
        let mut evil = layer("a");
        evil["digest"] = json!("sha256:../../etc/passwd");
        let image = blobs.image(&[evil]);
        assert_eq!(blobs.parts(&image).unwrap_err(), Code::BadDigest);
        let many: Vec<_> = (0..=MOST_DOCUMENTS).map(|number| blobs.image(&[layer(&number.to_string())])).collect();
        let index = blobs.index(&many);
        assert_eq!(blobs.parts(&index).unwrap_err(), Code::TooLarge);
    }
}
