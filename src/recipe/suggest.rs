//! "Did you mean": the nearest of some known words.

/// The known word nearest to what was written, if it is near enough to be what was meant.
pub(super) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Distances are quadratic; nobody means a known word with a line of text.
    if written.chars().count() > 64 {
        return None;
    }
    let folded = fold(written);
    known
        .into_iter()
        .map(|word| (distance(&folded, &fold(word)), word))
        .filter(|(distance, word)| *distance <= (word.chars().count().max(folded.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Case and the kind of separator are never what somebody got wrong on purpose.
fn fold(word: &str) -> Vec<char> {
    word.chars().map(|c| if matches!(c, '_' | '.' | ' ') { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Edit distance with transpositions of neighbours (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (above[j] + usize::from(x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(a: &str, b: &str) -> usize {
        distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>())
    }

    #[test]
    fn distances() {
        assert_eq!(between("", "abc"), 3);
        assert_eq!(between("kitten", "sitting"), 3);
        assert_eq!(between("satge3", "stage3"), 1);
        assert_eq!(between("same", "same"), 0);
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        let known = ["stage3", "mirrors", "include-system"];
        assert_eq!(nearest("stag3", known), Some("stage3"));
        assert_eq!(nearest("include_system", known), Some("include-system"));
        assert_eq!(nearest("Mirror", known), Some("mirrors"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }
}
