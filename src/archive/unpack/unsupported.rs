//! Names of formats that cannot be unpacked, for messages. Pure.

use super::decode::Format;
use super::refusal::Refusal;
use crate::base::refusal::{Code, Reason};

/// The formats that can be unpacked.
const SUPPORTED: &str = "tar archives (ustar, PAX, GNU, v7), plain or compressed with gzip, xz, zstd or bzip2";

/// Formats by the bytes at the beginning of their files.
const MAGICS: &[(&[u8], &str)] = &[
    (b"\x04\x22\x4d\x18", "an lz4 file"),
    (b"\x02\x21\x4c\x18", "an lz4 file"),
    (b"\x03\x21\x4c\x18", "an lz4 file"),
    (b"LZIP", "an lzip file"),
    (b"\x89LZO\0\r\n\x1a\n", "an lzop file"),
    (b"LRZI", "an lrzip file"),
    (b"\xff\x06\0\0sNaPpY", "a snappy file"),
    (b"\x1f\x9d", "a file of compress (.Z)"),
    (b"\x1f\x1e", "a file of pack (.z)"),
    (b"\x1f\xa0", "an SCO LZH file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "a zip archive"),
    (b"PK\x07\x08", "a zip archive"),
    (b"070701", "a cpio archive"),
    (b"070702", "a cpio archive"),
    (b"070707", "a cpio archive"),
    (b"\xc7\x71", "a cpio archive"),
    (b"\x71\xc7", "a cpio archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"!<arch>\ndebian-binary", "a Debian package (.deb)"),
    (b"!<arch>\n", "an ar archive"),
    (b"!<thin>\n", "an ar archive"),
    (b"\xed\xab\xee\xdb", "an RPM package"),
    (b"MSCF", "a cabinet archive"),
    (b"xar!", "a xar archive"),
    (b"hsqs", "a squashfs image"),
    (b"sqsh", "a squashfs image"),
];

/// Formats by the suffix of their files, for those without a magic number and for damaged files.
const SUFFIXES: &[(&str, &str)] = &[
    ("br", "a brotli file"),
    ("lzma", "an lzma file"),
    ("tlz", "an lzma file"),
    ("lz", "an lzip file"),
    ("lz4", "an lz4 file"),
    ("lzo", "an lzop file"),
    ("Z", "a file of compress (.Z)"),
    ("zip", "a zip archive"),
    ("cpio", "a cpio archive"),
    ("7z", "a 7z archive"),
    ("rar", "a rar archive"),
    ("deb", "a Debian package (.deb)"),
    ("rpm", "an RPM package"),
];

/// Returns the refusal of data that begins with `head`, if it has a known format. The caller has found that it is not tar.
pub(super) fn by_content(head: &[u8]) -> Option<Reason> {
    let magic = MAGICS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, format)| *format);
    let format = magic.or_else(|| is_lzma(head).then_some("an lzma file")).or(match Format::of(head) {
        Format::Gzip => Some("a gzip file"),
        Format::Xz => Some("an xz file"),
        Format::Zstd => Some("a zstd file"),
        Format::Bzip2 => Some("a bzip2 file"),
        Format::Plain => None,
    })?;
    if Format::of(head) == Format::Plain {
        return Some(reason(format));
    }
    // The file is compressed twice, or a layer of an image does not have the format of its media type.
    Some(Reason::new(Code::UnsupportedFormat, format!("it contains {format} where a plain tar archive is expected")))
}

/// Returns the refusal that the suffix of the file `name` suggests, if `refusal` says that its content is not tar.
pub(super) fn by_name(name: &str, refusal: &Refusal) -> Option<Reason> {
    if !is_of_beginning(refusal) || refusal.reason.code == Code::UnsupportedFormat {
        return None;
    }
    let suffix = name.rsplit_once('.')?.1;
    SUFFIXES.iter().find(|(known, _)| *known == suffix).map(|(_, format)| reason(format))
}

/// Returns the list of supported formats if `refusal` says that the content is not tar.
pub(super) fn hint(refusal: &Refusal) -> Option<String> {
    let unknown = matches!(refusal.reason.code, Code::BadMagic | Code::BadChecksum);
    (unknown && is_of_beginning(refusal)).then(|| format!("supported are {SUPPORTED}"))
}

fn is_of_beginning(refusal: &Refusal) -> bool {
    let beginning = refusal.offset == 0 && refusal.name.is_empty();
    let codes = [Code::BadMagic, Code::BadChecksum, Code::Truncated, Code::UnsupportedFormat];
    beginning && codes.contains(&refusal.reason.code)
}

fn reason(format: &str) -> Reason {
    Reason::new(Code::UnsupportedFormat, format!("it is {format}, which is not supported; supported are {SUPPORTED}"))
}

/// Recognises an `.lzma` file, which has no magic number: its properties, a usual size of the dictionary, and a plain size that is
/// unknown or below 256 GiB.
fn is_lzma(head: &[u8]) -> bool {
    let Some((&[properties, a, b, c, d, ref size @ ..], _)) = head.split_first_chunk::<13>() else { return false };
    let dictionary = u32::from_le_bytes([a, b, c, d]);
    let usual = dictionary.is_power_of_two() || (dictionary % 3 == 0 && (dictionary / 3).is_power_of_two());
    let plain = u64::from_le_bytes(*size);
    properties < 225 && usual && dictionary >= 1 << 12 && (plain == u64::MAX || plain < 1 << 38)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(head: &[u8]) -> String {
        by_content(head).map(|reason| reason.text.into_owned()).unwrap_or_default()
    }

    #[test]
    fn formats_are_recognised_by_their_first_bytes() {
        let lzma = [&[0x5d, 0, 0, 0x80, 0][..], &[0xff; 8], &[0; 3]].concat();
        let heads: [(&[u8], &str); 7] = [
            (b"PK\x03\x04rest", "a zip archive"),
            (b"!<arch>\ndebian-binary   17", "a Debian package"),
            (b"!<arch>\nfile.o/   17", "an ar archive"),
            (b"\x1f\x9d\x90", "a file of compress"),
            (b"070701000", "a cpio archive"),
            (&lzma, "an lzma file"),
            (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        ];
        for (head, format) in heads {
            let text = named(head);
            assert!(text.starts_with(&format!("it is {format}")) && text.contains("supported are tar"), "{text}");
        }
        assert_eq!(named(b"\x1f\x8b\x08"), "it contains a gzip file where a plain tar archive is expected");
        for head in [&b""[..], b"etc/passwd", &[0; 16], &[0xff; 16], b"]\0\0"] {
            assert_eq!(named(head), "", "{}", head.escape_ascii());
        }
    }

    #[test]
    fn a_suffix_names_the_format_of_data_that_is_not_tar() {
        let at = |code, offset| Refusal { reason: Reason::new(code, "x"), name: Vec::new(), offset };
        let named = |name, refusal: &Refusal| by_name(name, refusal).map(|reason| reason.text.into_owned());
        assert!(named("a.tar.br", &at(Code::BadChecksum, 0)).unwrap().contains("a brotli file"));
        assert!(named("a.tar.br", &at(Code::Truncated, 0)).unwrap().contains("a brotli file"));
        assert_eq!(named("a.tar.br", &at(Code::BadChecksum, 512)), None);
        assert_eq!(named("a.tar.br", &at(Code::BadSparse, 0)), None);
        assert_eq!(named("a.tar", &at(Code::BadChecksum, 0)), None);
        assert!(hint(&at(Code::BadMagic, 0)).unwrap().contains("bzip2"));
        assert_eq!(hint(&at(Code::BadMagic, 512)), None);
    }
}
