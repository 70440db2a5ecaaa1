//! The name of a program's loader in the head of an ELF file. Pure.

/// The type of the segment with the name of the loader.
const PT_INTERP: u64 = 3;
/// The longest name of a loader, in bytes.
const MAX_NAME: usize = 256;

/// Returns the absolute path of the loader that a program needs. `None` for a static program, for other files, and if the name is not in
/// the head.
pub fn loader(head: &[u8]) -> Option<String> {
    let (wide, little) = match head.get(..6)? {
        [0x7f, b'E', b'L', b'F', class @ 1..=2, order @ 1..=2] => (*class == 2, *order == 1),
        _ => return None,
    };
    let number = |at: usize, size: usize| -> Option<u64> {
        let bytes = head.get(at..at.checked_add(size)?)?.iter();
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if little { bytes.rev().fold(0, add) } else { bytes.fold(0, add) })
    };
    let place = |number: u64| usize::try_from(number).ok();
    let (table, size, count) = match wide {
        true => (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?),
        false => (number(0x1c, 4)?, number(0x2a, 2)?, number(0x2c, 2)?),
    };
    for index in 0..count {
        let segment = place(table.checked_add(index.checked_mul(size)?)?)?;
        if number(segment, 4)? != PT_INTERP {
            continue;
        }
        let (offset, length) = match wide {
            true => (number(segment.checked_add(8)?, 8)?, number(segment.checked_add(32)?, 8)?),
            false => (number(segment.checked_add(4)?, 4)?, number(segment.checked_add(16)?, 4)?),
        };
        let (offset, length) = (place(offset)?, place(length)?.min(MAX_NAME));
        let name = head.get(offset..offset.checked_add(length)?)?;
        let name = std::str::from_utf8(name.split(|byte| *byte == 0).next()?).ok()?;
        return (name.starts_with('/') && !name.contains(char::is_control)).then(|| name.to_owned());
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Makes the head of a 64-bit program with a loader.
    pub(in crate::builder) fn program(loader: &str) -> Vec<u8> {
        let mut head = vec![0; 0x40 + 2 * 0x38];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (head[0x20], head[0x36], head[0x38]) = (0x40, 0x38, 2);
        let (segment, offset) = (0x40 + 0x38, head.len());
        (head[segment], head[segment + 8], head[segment + 32]) = (3, offset as u8, loader.len() as u8 + 1);
        [head, loader.as_bytes().to_vec(), vec![0]].concat()
    }

    #[test]
    fn the_loader_of_a_program_is_found() {
        let head = program("/lib/ld-musl-x86_64.so.1");
        assert_eq!(loader(&head).as_deref(), Some("/lib/ld-musl-x86_64.so.1"));
        // This test is a program too, perhaps a static one.
        let own = fs_err::read(std::env::current_exe().unwrap()).unwrap();
        let known = loader(&own[..4096.min(own.len())]);
        assert!(known.is_none_or(|loader| std::path::Path::new(&loader).exists()));
        assert_eq!(loader(&program("relative")), None);
        for end in 0..head.len() {
            let _ = loader(&head[..end]);
        }
        assert_eq!((loader(b"#!/bin/sh\n"), loader(b"")), (None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_program_or_not(bytes in prop::collection::vec(any::<u8>(), 0..300), wide in 0..4_u8) {
            let head = [&[0x7f, b'E', b'L', b'F', 1 + wide % 2, 1 + wide / 2], &bytes[..]].concat();
            let _ = loader(&head);
        }
    }
}
