//! Limits for commands that unpack untrusted archives.

use crate::recipe;

/// Limits on an archive.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct LimitArgs {
    /// Refuse an archive with more bytes after decompression, holes and headers included: a number, or 20GiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(super) max_bytes: Option<u64>,
    /// Refuse an archive with more entries
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_entries: Option<u64>,
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    recipe::size(text)
        .ok_or_else(|| "not a size: write a number of bytes, or a number with K, M, G or T (or KiB, …)".to_owned())
}
