//! Binary packages for tests.

use crate::base::digest::{Blake2b, Sha512};

/// Makes an archive of files: name, mode, time and content.
pub fn tar(files: &[(&str, u32, u64, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, mode, mtime, text) in files {
        append(&mut builder, name, *mode, *mtime, text.as_bytes());
    }
    builder.into_inner().unwrap()
}

fn append(builder: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32, mtime: u64, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_mode(mode);
    header.set_mtime(mtime);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(bytes.len() as u64);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    builder.append(&header, bytes).unwrap();
}

/// A package to be made.
pub struct Make {
    pf: String,
    keys: Vec<(String, Vec<u8>)>,
    metadata: Option<Vec<u8>>,
    image: Vec<u8>,
    more: Vec<(String, Vec<u8>, bool)>,
    suffix: &'static str,
}

impl Make {
    pub fn new(category: &str, pf: &str) -> Self {
        let keys =
            [("CATEGORY", category), ("PF", pf), ("SLOT", "0"), ("BUILD_ID", "1"), ("CHOST", "x86_64-pc-linux-gnu")];
        Self {
            pf: pf.to_owned(),
            keys: keys.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())).into(),
            metadata: None,
            image: tar(&[("image/file", 0o644, 1, "content of a file")]),
            more: Vec::new(),
            suffix: "",
        }
    }

    pub fn key(self, key: &str, value: &str) -> Self {
        self.file(key, value.as_bytes().to_vec())
    }

    /// Sets a file of the metadata.
    pub fn file(mut self, key: &str, bytes: Vec<u8>) -> Self {
        self.keys.retain(|(own, _)| own != key);
        self.keys.push((key.to_owned(), bytes));
        self
    }

    pub fn metadata(mut self, archive: Vec<u8>) -> Self {
        self.metadata = Some(archive);
        self
    }

    pub fn image(mut self, archive: Vec<u8>) -> Self {
        self.image = archive;
        self
    }

    pub fn compressed(mut self) -> Self {
        self.suffix = ".zst";
        self
    }

    pub fn suffix(mut self, suffix: &'static str) -> Self {
        self.suffix = suffix;
        self
    }

    /// Adds a member, with a line in the Manifest or without one.
    pub fn member(mut self, name: &str, bytes: &[u8], listed: bool) -> Self {
        self.more.push((name.to_owned(), bytes.to_vec(), listed));
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        let metadata = self.metadata.unwrap_or_else(|| {
            let mut builder = tar::Builder::new(Vec::new());
            for (key, bytes) in &self.keys {
                append(&mut builder, &format!("metadata/{key}"), 0o644, 0, bytes);
            }
            builder.into_inner().unwrap()
        });
        let pack = |bytes: Vec<u8>| match self.suffix {
            ".zst" => zstd::encode_all(&bytes[..], 1).unwrap(),
            _ => bytes,
        };
        let mut members = vec![
            ("gpkg-1".to_owned(), Vec::new(), true),
            (format!("metadata.tar{}", self.suffix), pack(metadata), true),
            (format!("image.tar{}", self.suffix), pack(self.image), true),
        ];
        members.extend(self.more);
        let listed = members.iter().filter(|(_, _, listed)| *listed);
        let manifest: String = listed
            .map(|(name, bytes, _)| {
                format!("DATA {name} {} BLAKE2B {} SHA512 {}\n", bytes.len(), Blake2b::of(bytes), Sha512::of(bytes))
            })
            .collect();
        members.push(("Manifest".to_owned(), manifest.into_bytes(), true));
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes, _) in members {
            append(&mut builder, &format!("{}-1/{name}", self.pf), 0o644, 1, &bytes);
        }
        builder.into_inner().unwrap()
    }
}
