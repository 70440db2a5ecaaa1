//! Round trips through decoders of others.

#![allow(clippy::disallowed_methods, reason = "gzip judges what is made")]

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::base::digest::hex;

/// The member of a piece, which two decoders take for it.
fn packed(encoder: &mut Encoder, plain: &[u8]) -> Vec<u8> {
    let packed = encoder.gzip(plain);
    let mut back = vec![0; plain.len() + 1];
    let size = libdeflater::Decompressor::new().gzip_decompress(&packed, &mut back).expect("libdeflate takes it");
    assert!(back[..size] == *plain, "libdeflate gives something else");
    back.clear();
    flate2::bufread::GzDecoder::new(&packed[..]).read_to_end(&mut back).expect("zlib-rs takes it");
    assert!(back == plain, "zlib-rs gives something else");
    packed
}

/// Bytes that do not compress.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

/// Words of few, with noise and runs between them.
fn text(size: usize) -> Vec<u8> {
    let noise = noise(7, size);
    let mut text = Vec::with_capacity(size + 600);
    for (at, dice) in noise.iter().enumerate() {
        match dice {
            0 => text.extend(&noise[at / 2..noise.len().min(at / 2 + 500)]),
            1 => text.extend([at as u8; 300]),
            2..40 => text.push(*dice),
            _ => text.extend(format!("{:x} ", 1_u64 << (dice & 31)).bytes()),
        }
        if text.len() >= size {
            break;
        }
    }
    text.truncate(size);
    text
}

#[test]
fn any_size() {
    let text = text(3000);
    let noise = noise(1, 3000);
    let mut encoder = Encoder::new();
    for size in (0..64).chain([255, 256, 257, 258, 259, 260, 516, 517, 1000, 3000]) {
        packed(&mut encoder, &text[..size]);
        packed(&mut encoder, &noise[..size]);
        packed(&mut encoder, &vec![b'x'; size]);
    }
    assert!(encoder.gzip(&[]).len() <= 23);
}

#[test]
fn matches_end_where_ways_do() {
    let mut encoder = Encoder::new();
    let noise = noise(5, 2 * CHUNK);
    for length in [4, 5, 6, 7, 8, 9, 12, 40, 300] {
        for before in 0..10 {
            for border in [matches::WAY, CHUNK] {
                let mut plain = noise.clone();
                plain.copy_within(100..100 + length, border - before);
                packed(&mut encoder, &plain);
            }
        }
    }
}

#[test]
fn chunks_and_blocks_end_anywhere() {
    let mut encoder = Encoder::new();
    for plain in [text(140_000), noise(3, 140_000), vec![0; 140_000]] {
        for end in [matches::WAY, CHUNK, CHUNK + matches::WAY, 2 * CHUNK, tokens::BLOCK] {
            for size in (end - 10..end + 12).chain([end + 300]) {
                packed(&mut encoder, &plain[..size]);
            }
        }
    }
}

#[test]
fn a_short_match_ends_in_a_long_one_of_the_next_chunk() {
    let mut encoder = Encoder::new();
    for run in 20..24 {
        let words = b"<abcdefg0bcdefgXY1>";
        let mut plain = vec![b'z'; run];
        plain.extend(noise(13, CHUNK - 1 - run - words.len()));
        plain.extend([&words[..], b"abcdefgXY2 and more"].concat());
        packed(&mut encoder, &plain);
    }
}

#[test]
fn matches_reach_to_the_edge_of_the_window_and_no_farther() {
    let mut encoder = Encoder::new();
    let again = noise(5, 400);
    for far in [32_766, 32_767, 32_768, 32_769, 65_535, 65_536, 65_537, 98_304] {
        for length in [4, 7, 8, 9, 23, 24, 25, 256, 257, 258, 259, 300] {
            // Whatever the position: the first is not looked at.
            let plain = [&[1, 2, 3], &again[..length], &noise(9, far - length), &again[..length], &[0; 9]].concat();
            packed(&mut encoder, &plain);
        }
    }
    let plain = [&again[..], &vec![0; 32_768 - 400], &again, &[0; 9]].concat();
    let beyond = [&again[..], &vec![0; 32_769 - 400], &again, &[0; 9]].concat();
    let (within, beyond) = (packed(&mut encoder, &plain).len(), packed(&mut encoder, &beyond).len());
    assert!(within + 350 < beyond, "{within} and {beyond}: a match at the edge");
}

#[test]
fn what_does_not_compress_is_stored() {
    let noise = noise(11, 3 << 20);
    let packed = packed(&mut Encoder::new(), &noise);
    assert!(packed.len() < noise.len() + noise.len() / 2000, "{}", packed.len());
}

#[test]
fn codes_of_every_length() {
    // Symbols so unequal that their codes would be longer than they may be.
    let mut plain = Vec::new();
    let (mut one, mut other) = (1, 1);
    for symbol in 0..22_u8 {
        plain.extend(std::iter::repeat_n(symbol, one));
        (one, other) = (other, one + other);
    }
    let mut state = 1;
    for at in (1..plain.len()).rev() {
        state = (state * 16_807) % 0x7fff_ffff_u64;
        plain.swap(at, state as usize % at);
    }
    packed(&mut Encoder::new(), &plain);
}

/// Pieces in a cache have the encoder's name, and anyone can make an archive again: other bytes have another [`NAME`].
#[test]
fn bytes_are_those_of_the_name() {
    use sha2::Digest as _;
    let mut encoder = Encoder::new();
    let mut digest = sha2::Sha256::new();
    for plain in [&text(400_000)[..], &noise(1, 70_000), &[0; 100_000], b"", b"a"] {
        digest.update(encoder.gzip(plain));
    }
    assert_eq!(
        (NAME, &hex(&digest.finalize())[..]),
        ("quern-deflate 2", "768f3a948284724412db2d40324728617bff185ba43306dd96da413152dc7dcb")
    );
}

#[test]
fn gzip_takes_members() {
    let mut encoder = Encoder::new();
    let members = [encoder.gzip(&text(200_000)), encoder.gzip(b""), encoder.gzip(&noise(2, 9))].concat();
    let mut gzip = Command::new("gzip").arg("-t").stdin(Stdio::piped()).spawn().unwrap();
    gzip.stdin.take().unwrap().write_all(&members).unwrap();
    assert!(gzip.wait().unwrap().success());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes(plain in prop::collection::vec(any::<u8>(), 0..5000)) {
        packed(&mut Encoder::new(), &plain);
    }

    #[test]
    fn patterns_with_changes(
        pattern in prop::collection::vec(any::<u8>(), 1..400),
        times in 1_usize..200,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..50),
    ) {
        let mut plain = pattern.repeat(times);
        for (at, byte) in changes {
            let at = at.index(plain.len());
            plain[at] = byte;
        }
        let mut encoder = Encoder::new();
        let once = packed(&mut encoder, &plain);
        prop_assert_eq!(&once, &encoder.gzip(&plain), "the piece before is forgotten");
        prop_assert_eq!(&once, &Encoder::new().gzip(&plain));
    }
}
