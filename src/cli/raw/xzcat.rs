//! `raw xzcat`: runs the decoder of `.xz` files.

use std::io::{BufRead as _, Write as _};

use super::stream::{self, INPUT};
use crate::archive::unpack::decode::{Decoder, Format};
use crate::archive::unpack::refusal;
use crate::base::error::{Context, Error, Kind, Result};
use crate::cli::standard;

/// Decode .xz from standard input to standard output
///
/// Uses one thread per processor. Concatenated streams are decoded one after the other, with or without padding between them; a file
/// of more than ten thousand very short streams is refused. A damaged or truncated file, or a file of another format, is refused with
/// exit code 3. The output then holds the bytes that were decoded before the error.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(self) -> Result<i32> {
        let mut out = standard::output()?;
        let mut decoder = Decoder::of(Format::Xz, standard::input()?).system(|| "starting the decoder")?;
        loop {
            let bytes = decoder.fill_buf().map_err(|error| {
                let kind = if refusal::is_of_system(&error) { Kind::System } else { Kind::Refused };
                Error::new(kind, format!("decoding {INPUT}")).with_source(error)
            })?;
            if bytes.is_empty() {
                return Ok(0);
            }
            out.write_all(bytes).map_err(stream::unwritten)?;
            let count = bytes.len();
            decoder.consume(count);
        }
    }
}
