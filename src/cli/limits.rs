//! Options of verbs that unpack what nobody vouches for.

use crate::recipe;

/// What an archive may demand at most.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct LimitArgs {
    /// Refuse what has more bytes unpacked, holes and headers included: a number, or 20GiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(super) max_bytes: Option<u64>,
    /// Refuse what has more entries
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_entries: Option<u64>,
}

fn size(text: &str) -> Result<u64, String> {
    recipe::size(text).ok_or_else(|| "not a size: write bytes, or a number with K, M, G, T (or KiB, …)".to_owned())
}
