//! Trees of recipes: directories in which each image starts from the image of the directory above.

use std::path::{Path, PathBuf};

use super::words;
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::text::escaped;

/// The file in the root directory of a tree. It holds what all images of the tree share.
pub const TREE: &str = "quern-tree.toml";

/// The recipe in a directory of a tree.
pub const IMAGE: &str = "quern.toml";

/// The limit on the depth of a tree, in directories.
const MAX_DEPTH: usize = 32;

/// The place of an image in a tree of recipes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreePlace {
    /// The root directory of the tree.
    pub root: PathBuf,
    /// The names of the directories from the root to the image. Empty for an image of the root.
    pub names: Vec<String>,
    /// True for a tuple of the tree, which has a name but no directory.
    pub is_tuple: bool,
}

impl TreePlace {
    /// Finds the place of a recipe. `None` if the file is not the recipe of a directory in a tree. A name in the root of a tree that no
    /// file has is that of a tuple.
    pub fn of(file: &Path) -> Option<Self> {
        if file.file_name()? != IMAGE {
            return Self::of_tuple(file);
        }
        let file = file.canonicalize().ok()?;
        let directory = file.parent()?;
        let root = directory.ancestors().find(|above| above.join(TREE).is_file())?;
        let names = directory.strip_prefix(root).ok()?.iter().map(|name| name.to_str().map(str::to_owned));
        Some(Self { root: root.to_owned(), names: names.collect::<Option<_>>()?, is_tuple: false })
    }

    fn of_tuple(path: &Path) -> Option<Self> {
        if fs_err::symlink_metadata(path).is_ok() {
            return None;
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let root = parent.canonicalize().ok().filter(|root| root.join(TREE).is_file())?;
        Some(Self { root, names: vec![path.file_name()?.to_str()?.to_owned()], is_tuple: true })
    }

    /// The path below the root, in the form `p/c`. Empty for an image of the root.
    pub fn path(&self) -> String {
        self.names.join("/")
    }

    /// The name of the tree: `given`, or that of its root directory.
    pub fn tree_name(&self, given: Option<&str>) -> String {
        let directory = || self.root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        given.map_or_else(directory, str::to_owned)
    }

    /// The name of the image: that of its directory. An image of the root has the name of the tree.
    pub fn name(&self, of_tree: Option<&str>) -> String {
        self.names.last().cloned().unwrap_or_else(|| self.tree_name(of_tree))
    }

    /// The recipe of the nearest directory above that has one. A tuple starts from no image.
    pub fn above(&self) -> Option<PathBuf> {
        if self.is_tuple {
            return None;
        }
        let directory = self.names.iter().fold(self.root.clone(), |path, name| path.join(name));
        let above = directory.ancestors().skip(1).take(self.names.len());
        above.map(|directory| directory.join(IMAGE)).find(|file| file.is_file())
    }
}

/// Returns the recipe that a path names: the file itself, or the recipe in the directory.
pub fn recipe_at(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(IMAGE) } else { path.to_owned() }
}

/// Returns the path that identifies a recipe, absolute and without symbolic links. A tuple has the path of a file in the root of its tree.
///
/// # Errors
/// Those of [`Path::canonicalize`].
pub fn identity(file: &Path) -> std::io::Result<PathBuf> {
    match TreePlace::of(file).filter(|place| place.is_tuple) {
        Some(place) => Ok(place.root.join(place.path())),
        None => fs_err::canonicalize(file),
    }
}

/// Lists the recipes of the directories of the tree in `directory` and below it, parents before children and in the order of their names. Hidden
/// directories and symbolic links are left out.
///
/// # Errors
/// [`Kind::Usage`] if a directory cannot be read or has a name that an image cannot have.
pub fn images(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(directory, 0, &mut found)?;
    Ok(found)
}

fn collect(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let shown = || escaped(&directory.to_string_lossy());
    if depth > MAX_DEPTH {
        return Err(Error::usage(format!(
            "reading the tree at {}: it is deeper than {MAX_DEPTH} directories",
            shown()
        )));
    }
    let image = directory.join(IMAGE);
    if image.is_file() {
        found.push(image);
    }
    let reading = || format!("reading the directory {}", shown());
    let mut names = Vec::new();
    for entry in fs_err::read_dir(directory).context(Kind::Usage, reading)? {
        let entry = entry.context(Kind::Usage, reading)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && entry.file_type().context(Kind::Usage, reading)?.is_dir() {
            names.push(entry.file_name());
        }
    }
    names.sort_unstable();
    for name in names {
        let (below, before) = (directory.join(&name), found.len());
        collect(&below, depth + 1, found)?;
        let named = name.to_str().is_some_and(|name| words::name(name).is_ok());
        if found.len() > before && !named {
            let name = escaped(&name.to_string_lossy());
            return Err(Error::usage(format!("the directory {name} in {} cannot name an image", shown()))
                .with_hint("the name of an image has letters, digits and . _ + - and begins with a letter or digit"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(place: &Path, files: &[&str]) {
        for file in files {
            fs_err::create_dir_all(place.join(file).parent().unwrap()).unwrap();
            fs_err::write(place.join(file), "").unwrap();
        }
    }

    #[test]
    fn a_recipe_in_a_tree_knows_its_place_and_the_recipe_above() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        write(&root, &["t/quern-tree.toml", "t/p/quern.toml", "t/p/only-a-name/c/quern.toml", "t/p/other.toml"]);
        let child = TreePlace::of(&root.join("t/p/only-a-name/c/quern.toml")).unwrap();
        assert_eq!((child.path().as_str(), child.root.as_path()), ("p/only-a-name/c", root.join("t").as_path()));
        assert_eq!(child.above(), Some(root.join("t/p/quern.toml")));
        let parent = TreePlace::of(&root.join("t/p/quern.toml")).unwrap();
        assert_eq!((parent.path().as_str(), parent.above()), ("p", None));
        assert_eq!(TreePlace::of(&root.join("t/p/other.toml")), None);
        write(&root, &["quern.toml", "t/quern.toml"]);
        assert_eq!(TreePlace::of(&root.join("quern.toml")), None);
        assert_eq!(TreePlace::of(&root.join("t/quern.toml")).unwrap().above(), None);
        assert_eq!(parent.above(), Some(root.join("t/quern.toml")));
    }

    #[test]
    fn images_are_listed_parents_first() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), &["b/quern.toml", "a/z/quern.toml", "a/quern.toml", ".git/quern.toml", "c/README"]);
        std::os::unix::fs::symlink("a", place.path().join("link")).unwrap();
        let found = images(place.path()).unwrap();
        let found: Vec<_> = found.iter().map(|file| file.strip_prefix(place.path()).unwrap()).collect();
        assert_eq!(found, ["a/quern.toml", "a/z/quern.toml", "b/quern.toml"].map(Path::new));
        write(place.path(), &["a b/quern.toml"]);
        assert!(images(place.path()).unwrap_err().to_string().contains("cannot name an image"));
    }
}
