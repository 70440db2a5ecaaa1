//! Portage's list format.

/// The lines of a file in Portage's list format with their numbers: comments and blank lines dropped, blanks collapsed.
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
    fn list_lines_are_read_as_portage_reads_them() {
        let lines: Vec<_> = list_lines("# comment\n\n a/b  # why\n#x\n*c/d").collect();
        assert_eq!(lines, [(3, "a/b".to_owned()), (5, "*c/d".to_owned())]);
    }
}
