//! Git checkouts on this machine.

use std::io::Read as _;
use std::path::Path;

/// Reads the name of the branch that is checked out in a directory. `None` if the directory is not a plain checkout of a branch.
pub fn branch(directory: &Path) -> Option<String> {
    let head = read(&directory.join(".git/HEAD"))?;
    head.trim().strip_prefix("ref: refs/heads/").map(str::to_owned)
}

/// Reads the commit that is checked out in a directory, without running git. `None` if the directory is not a plain checkout.
pub fn commit(directory: &Path) -> Option<String> {
    let git = directory.join(".git");
    let head = read(&git.join("HEAD"))?;
    let head = head.trim();
    let Some(name) = head.strip_prefix("ref: ") else { return id(head) };
    let inside = name.starts_with("refs/") && !name.split('/').any(|part| part == ".." || part.is_empty());
    if !inside {
        return None;
    }
    if let Some(loose) = read(&git.join(name)) {
        return id(loose.trim());
    }
    let packed = read(&git.join("packed-refs"))?;
    packed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(_, found)| *found == name)
        .and_then(|(commit, _)| id(commit))
}

/// Returns a commit's id in lower case. `None` if the text is not an id.
pub fn id(text: &str) -> Option<String> {
    let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (hex && matches!(text.len(), 40 | 64)).then(|| text.to_ascii_lowercase())
}

/// Reads the text of a small regular file. `None` if there is none.
pub fn read(path: &Path) -> Option<String> {
    const LIMIT: u64 = 1 << 20;
    if !fs_err::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    fs_err::File::open(path).ok()?.take(LIMIT).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_is_read_from_the_git_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let git = scratch.path().join(".git");
        assert_eq!(commit(scratch.path()), None);
        fs_err::create_dir_all(git.join("refs/heads")).unwrap();
        fs_err::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        assert_eq!(commit(scratch.path()), None);
        fs_err::write(git.join("packed-refs"), format!("# pack-refs\n{} refs/heads/main\n", "a".repeat(40))).unwrap();
        assert_eq!(commit(scratch.path()), Some("a".repeat(40)));
        fs_err::write(git.join("refs/heads/main"), format!("{}\n", "b".repeat(40))).unwrap();
        assert_eq!(commit(scratch.path()), Some("b".repeat(40)));
        fs_err::write(git.join("HEAD"), "ref: refs/../../../../etc/passwd\n").unwrap();
        assert_eq!(commit(scratch.path()), None);
    }
}
