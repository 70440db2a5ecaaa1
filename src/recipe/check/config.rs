//! `portage.config`, the user's own `/etc/portage`: its package files follow the same rules as the recipe's keys.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Checker, Word};
use crate::base::text::{escaped, nearest, quoted};
use crate::recipe::diagnostic::{Place, Problem, Text, TextKind};
use crate::recipe::merge::{VARIABLES, reason};
use crate::recipe::{keys, package_files};

/// The size limit of a package file, in bytes.
const MAX_SIZE: u64 = 1 << 20;
/// The limit on the files and directories below a name in `portage.config`.
const MAX_FILES: usize = 1_000;
/// Directories that Portage ignores.
const IGNORED: [&str; 3] = ["CVS", "RCS", "SCCS"];

impl Checker<'_> {
    /// Returns the lines of the package files in the directory `portage.config`, by the name of the file.
    pub(super) fn config_files(&mut self, directory: &Path, envs: &BTreeSet<String>) -> BTreeMap<String, Vec<String>> {
        let files = keys::KEYS.iter().filter_map(|key| match key.of {
            keys::Type::Lines("package.provided") => {
                Some(("package.provided", directory.join("profile/package.provided")))
            }
            keys::Type::Lines(file) => Some((file, directory.join(file))),
            _ => None,
        });
        // The old name of package.accept_keywords.
        let files = files.chain([("package.accept_keywords", directory.join("package.keywords"))]);
        let mut lines = BTreeMap::new();
        for (file, path) in files {
            for path in below(&path) {
                let more = self.config_file(file, &path, envs);
                if !more.is_empty() {
                    lines.entry(file.to_owned()).or_insert_with(Vec::new).extend(more);
                }
            }
        }
        lines
    }

    fn config_file(&mut self, file: &'static str, path: &Path, envs: &BTreeSet<String>) -> Vec<String> {
        let shown = escaped(&path.to_string_lossy());
        let text = match text(path) {
            Ok(text) => text,
            Err(error) => {
                let at = self.value("portage", "config").map(|value| value.at.clone());
                let problem = Problem::new(reason(&error));
                at.iter().for_each(|at| self.texts.problem(at, format!("cannot read {shown}"), problem.clone()));
                return Vec::new();
            }
        };
        let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
        let text =
            Text { label: path.to_string_lossy().into_owned(), text, dir, kind: TextKind::File, rank: VARIABLES - 1 };
        let (lines, text) = (text.text.clone(), self.texts.add(text));
        let (mut start, mut checked) = (0, Vec::new());
        for line in lines.split_inclusive('\n') {
            let word = line.trim();
            let begin = start + (line.len() - line.trim_start().len());
            let word = Word { text: word.to_owned(), at: Place { text, span: begin..begin + word.len() } };
            checked.extend(self.package_line(file, &word, envs).filter(|line| !line.is_empty()));
            start += line.len();
        }
        checked
    }

    /// Checks a line of a package file. `envs` are the files that a line of `package.env` may name.
    pub(super) fn package_line(&mut self, file: &'static str, word: &Word, envs: &BTreeSet<String>) -> Option<String> {
        let line = self.follow(word, &format!("line of {file}"), |text| package_files::line(file, text))?;
        let missing = package_files::env_files(&line).find(|name| file == "package.env" && !envs.contains(*name));
        let Some(name) = missing else { return Some(line) };
        let help = match nearest(name, envs.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean {}?", quoted(meant)),
            None => {
                format!(
                    "write the table [portage.env.{name:?}] with its variables, or make the file env/{name} in portage.config"
                )
            }
        };
        let title = format!("package.env names a file that does not exist: {}", quoted(name));
        self.texts.problem(&word.at, title, Problem::new("not a name in portage.env").help(help));
        None
    }
}

/// Returns the names of the files in the directory `env` of `portage.config`.
pub(super) fn envs(directory: &Path) -> impl Iterator<Item = String> {
    let top = directory.join("env");
    let name = move |path: PathBuf| path.strip_prefix(&top).ok().and_then(Path::to_str).map(str::to_owned);
    below(&directory.join("env")).into_iter().filter_map(name)
}

/// Returns the files at and below a path that Portage reads, in order.
fn below(path: &Path) -> Vec<PathBuf> {
    let (mut files, mut stack, mut count) = (Vec::new(), vec![path.to_owned()], 0);
    while let Some(path) = stack.pop() {
        match fs_err::metadata(&path) {
            Ok(found) if found.is_dir() => {
                let entries = fs_err::read_dir(&path).into_iter().flatten().flatten();
                let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
                let read =
                    |name: &String| !name.starts_with('.') && !name.ends_with('~') && !IGNORED.contains(&name.as_str());
                let mut paths: Vec<_> = names.filter(read).map(|name| path.join(name)).collect();
                paths.sort_by(|a, b| b.cmp(a));
                count += paths.len();
                if count > MAX_FILES {
                    return files;
                }
                stack.append(&mut paths);
            }
            Ok(found) if found.is_file() => files.push(path),
            _ => {}
        }
    }
    files
}

fn text(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8"))
}
