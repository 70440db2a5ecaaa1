//! Chooses how the tarball of an image is packed.

use std::sync::Arc;

use crate::archive::pack::{Cache, Format, Options};
use crate::base::time::SourceDate;
use crate::recipe::{Compression, Job};

/// Returns the options of packing the image of `job`. `threads` of 0 means one per processor.
pub fn options(job: &Job, date: SourceDate, threads: usize, cache: Cache) -> Options {
    let (format, level) = format(job);
    Options {
        format,
        level,
        epoch: date.epoch(),
        spans: Vec::new(),
        threads,
        cache: Some(Arc::new(cache)),
        layer: job.oci.is_some(),
    }
}

/// Returns the format of the tarball of `job`, and the level of compression, if it is not the usual one.
pub fn format(job: &Job) -> (Format, Option<u32>) {
    match job.build.compression {
        Compression::Gzip => (Format::Gzip, None),
        Compression::GzipFast => (Format::Gzip, Some(1)),
        Compression::Xz => (Format::Xz, None),
        Compression::Zstd => (Format::Zstd, None),
        Compression::None => (Format::Plain, None),
    }
}
