//! Shell patterns: `*`, `?`, `[a-z]`, `[!a-z]`.

/// Returns true if a name of one component matches a shell pattern.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // If the text after the last `*` does not match, retry one byte further in the name.
    let mut retry: Option<(usize, usize)> = None;
    let (mut at, mut byte) = (0, 0);
    loop {
        if at == pattern.len() && byte == name.len() {
            return true;
        }
        if pattern.get(at) == Some(&b'*') {
            retry = Some((at, byte));
            at += 1;
            continue;
        }
        if let Some(width) = name.get(byte).and_then(|&found| matches_one(&pattern[at..], found)) {
            at += width;
            byte += 1;
            continue;
        }
        match retry {
            Some((star, from)) if from < name.len() => {
                retry = Some((star, from + 1));
                (at, byte) = (star + 1, from + 1);
            }
            _ => return false,
        }
    }
}

/// Returns the length of the pattern's first element if it matches `found`.
fn matches_one(pattern: &[u8], found: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', set @ ..] => {
            let negated = matches!(set.first(), Some(b'!' | b'^'));
            let start = usize::from(negated);
            // A `]` in first place is a member. A set without an end is a literal bracket.
            let Some(end) = set.iter().skip(start + 1).position(|&byte| byte == b']').map(|end| end + start + 1) else {
                return (found == b'[').then_some(1);
            };
            (in_set(&set[start..end], found) != negated).then_some(end + 2)
        }
        [plain, ..] => (*plain == found).then_some(1),
    }
}

fn in_set(mut set: &[u8], found: u8) -> bool {
    loop {
        set = match set {
            [] => return false,
            [low, b'-', high, ..] if (*low..=*high).contains(&found) => return true,
            [_, b'-', _, rest @ ..] => rest,
            [member, ..] if *member == found => return true,
            [_, rest @ ..] => rest,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_names() {
        let cases = [
            ("*", "", true),
            ("*-", "passwd-", true),
            ("*-", "passwd-x", false),
            ("._cfg????_*", "._cfg0000_a", true),
            ("._cfg????_*", "._cfg000_a", false),
            ("a*b*c", "axxbyybzc", true),
            ("a*b*c", "axxbyybz", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[x", "[x", true),
            ("[x", "x", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn patterns_match_like_a_simple_recursion(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            fn plain(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern, name) {
                    ([], []) => true,
                    ([b'*', rest @ ..], _) => plain(rest, name) || (!name.is_empty() && plain(pattern, &name[1..])),
                    ([b'?', rest @ ..], [_, left @ ..]) => plain(rest, left),
                    ([wanted, rest @ ..], [found, left @ ..]) => wanted == found && plain(rest, left),
                    _ => false,
                }
            }
            prop_assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), plain(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
