//! Types that every room uses: errors, digests, text, time, architectures, progress events. No I/O.

pub mod arch;
pub mod digest;
pub mod error;
pub mod progress;
pub mod refusal;
pub mod text;
pub mod time;
