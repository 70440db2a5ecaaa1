//! Portage's list format: one entry per line, with comments.

/// Returns the lines of a file in Portage's list format with their numbers, without comments, blank lines and repeated blanks.
pub fn list_lines(text: &str) -> impl Iterator<Item = (usize, String)> + '_ {
    text.lines().enumerate().filter_map(|(index, line)| {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        (!words.is_empty()).then(|| (index + 1, words.join(" ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_not_lines_of_a_list() {
        let lines: Vec<_> = list_lines("# comment\n\n a/b  # why\n#x\n*c/d").collect();
        assert_eq!(lines, [(3, "a/b".to_owned()), (5, "*c/d".to_owned())]);
    }
}
