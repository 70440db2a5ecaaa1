//! Reasons for refusing an archive or an image layout, each with a stable code.
//!
//! The codes are an interface: scripts match on them, and `man/quern-refusals.7` documents every one. The texts may change.

use std::borrow::Cow;
use std::fmt;

/// Declares [`Code`] from one table: groups of a variant, its stable name and a sentence for the man page.
macro_rules! codes {
    ($($group:literal { $($variant:ident $name:literal $sentence:literal)* })*) => {
        /// The stable code of a refusal, or of a note of `oci validate`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $sentence] $variant,)*)*
        }

        impl Code {
            /// Every code, under the headings of the man page.
            pub const GROUPS: &'static [(&'static str, &'static [Self])] = &[$(($group, &[$(Self::$variant),*])),*];

            /// Returns the name of the code, in kebab-case.
            pub const fn as_str(self) -> &'static str {
                match self { $($(Self::$variant => $name,)*)* }
            }

            /// Returns the sentence that explains the code in the man page.
            pub const fn description(self) -> &'static str {
                match self { $($(Self::$variant => $sentence,)*)* }
            }
        }
    };
}

codes! {
    "Files and limits" {
        Truncated "truncated" "The archive ends inside a header, inside the data of an entry or inside a compressed stream."
        Corrupt "corrupt" "The compressed data cannot be decoded, or its checksum is wrong."
        UnsupportedFormat "unsupported-format" "The file has a format, or uses a feature of a format, that cannot be read."
        TrailingData "trailing-data" "More than 64 MiB of data follow the end of the archive."
        TooLarge "too-large" "The archive or document is larger than the limit allows."
        TooManyEntries "too-many-entries" "The archive has more entries than the limit allows."
        TooMuchMemory "too-much-memory" "Paths, attributes or whiteouts of the archive need more memory than is allowed for them."
        DigestMismatch "digest-mismatch" "The content does not have the expected digest."
    }
    "Headers" {
        BadMagic "bad-magic" "The header belongs to none of the supported tar formats."
        BadChecksum "bad-checksum" "The checksum of the header is wrong."
        BadNumber "bad-number" "A field of the header is not a number, or the number is out of range."
        LoneZeroBlock "lone-zero-block" "A single block of zeros is followed by another header."
        Orphan "orphan" "An extended header is not followed by an entry."
        RepeatedExtension "repeated-extension" "An entry has the same kind of extended header twice."
        ExtensionTooLarge "extension-too-large" "An extended header is larger than the limit."
        UnsupportedType "unsupported-type" "The type of the entry is not supported."
        UnsupportedEntry "unsupported-entry" "A squashfs image contains a socket."
        BadPax "bad-pax" "A PAX record is malformed, or its value is invalid."
        BadGlobal "bad-global" "A global PAX header contains records that describe single entries."
        PaxContradiction "pax-contradiction" "PAX records give two different values for the same property."
        UnsupportedRecord "unsupported-record" "A PAX record changes how the archive must be read and is not supported."
    }
    "Entries" {
        EmptyName "empty-name" "The entry has an empty name."
        NulInName "nul-in-name" "The name contains a NUL byte."
        NameTooLong "name-too-long" "The name, one of its components or the target of a symlink is longer than Linux allows."
        ParentInName "parent-in-name" "The name contains a `..` component."
        BadName "bad-name" "A squashfs image contains a name that no file can have."
        AmbiguousName "ambiguous-name" "Programs that read tar archives do not agree on the name of the entry."
        NameContradiction "name-contradiction" "The GNU and the PAX headers give different names."
        AmbiguousType "ambiguous-type" "Programs that read tar archives do not agree on the type of the entry."
        SizeContradiction "size-contradiction" "The header and a PAX record give different sizes."
        UnexpectedData "unexpected-data" "The entry has data and is not a regular file."
        BadLink "bad-link" "The link has no target, an invalid target, or a hard link refers to a directory or to a missing entry."
        BadSparse "bad-sparse" "The map of a sparse file is invalid or ambiguous."
        BadXattr "bad-xattr" "An extended attribute has an invalid name, is too large, or there are too many of them."
        BadAcl "bad-acl" "An ACL is malformed."
        AclByName "acl-by-name" "An ACL refers to a user or group by name instead of by number."
    }
    "Trees" {
        RootReplaced "root-replaced" "The entry for the root of the tree is not a directory."
        DuplicateEntry "duplicate-entry" "Two entries have the same path."
        BadParent "bad-parent" "The parent of the entry is not a directory, or is a dangling symlink."
        DirectoryReplaced "directory-replaced" "A later entry replaced a directory that entries were still being added to."
        DirectoryInTheWay "directory-in-the-way" "A directory that is not empty stands where the entry would go."
    }
    "Image layouts" {
        NoLayout "no-layout" "The file oci-layout is missing."
        BadLayout "bad-layout" "The file oci-layout does not name version 1.0.0."
        NoIndex "no-index" "The file index.json is missing."
        BadFile "bad-file" "A file or directory of the layout has the wrong type."
        BadJson "bad-json" "A document is not valid JSON, or does not have the required form."
        AmbiguousDocument "ambiguous-document" "Programs may take the document for another kind, or read other values from it."
        BadVersion "bad-version" "The schemaVersion of a document is not 2."
        BadMediaType "bad-media-type" "A media type does not fit the place where it stands."
        BadConfig "bad-config" "The rootfs of an image configuration does not consist of layers."
        BadDigest "bad-digest" "A digest is malformed, or its algorithm is not supported."
        MissingBlob "missing-blob" "The layout has no blob with this digest."
        SizeMismatch "size-mismatch" "A blob does not have the size that its descriptor gives."
        DiffIdMismatch "diff-id-mismatch" "The plain archive of a layer does not have the digest that the configuration gives."
        LayerCount "layer-count" "The manifest and the configuration do not have the same number of layers."
        TooDeep "too-deep" "Indexes are nested too deeply."
        BadWhiteout "bad-whiteout" "A whiteout is malformed."
    }
    "Notes of oci validate" {
        UnknownMediaType "unknown-media-type" "A descriptor has a media type that is not checked further."
        NoLayers "no-layers" "An image has no layers."
        ExtraBlob "extra-blob" "No descriptor refers to the blob."
        ExtraFile "extra-file" "A file in blobs/ is not named by a digest."
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason for refusing something: a code for programs and a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The stable code.
    pub code: Code,
    /// The text. Foreign bytes in it are escaped.
    pub text: Cow<'static, str>,
}

impl Reason {
    /// Creates a reason. The caller escapes foreign bytes in `text`.
    pub fn new(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, text: text.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.text, self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_descriptions_are_sentences() {
        let codes: Vec<Code> = Code::GROUPS.iter().flat_map(|(_, codes)| codes.iter().copied()).collect();
        let mut names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), codes.len());
        for code in codes {
            assert!(code.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{code}");
            let sentence = code.description();
            assert!(sentence.ends_with('.') && sentence.starts_with(char::is_uppercase), "{code}: {sentence}");
        }
    }
}
