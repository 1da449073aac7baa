//! A folder to test on, written down as a list.

use flow::Failure;
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A temporary folder with a repository `repo`, and the flow folder `repo/flow` in it.
pub(crate) struct Tree {
    root: TempDir,
}

impl Tree {
    /// * `files`: a path from the flow folder (or from the temporary one, if it begins with `/`),
    ///   and the text; `-> path` makes a link, and a path that ends in `/` a folder.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self {
            root: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(tree.at("/repo/.git")).unwrap();
        fs::create_dir_all(tree.folder()).unwrap();
        for (path, text) in files {
            let at = tree.at(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            match text.strip_prefix("-> ") {
                Some(to) => symlink(to.replace("ROOT", &tree.root()), at).unwrap(),
                None if path.ends_with('/') => fs::create_dir_all(at).unwrap(),
                None => fs::write(at, text).unwrap(),
            }
        }
        tree
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        match path.strip_prefix('/') {
            Some(path) => self.root.path().canonicalize().unwrap().join(path),
            None => self.folder().join(path),
        }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.at("/repo/flow")
    }

    fn root(&self) -> String {
        self.at("/").display().to_string().trim_end_matches('/').to_owned()
    }

    /// A text without the temporary folder's own name.
    pub(crate) fn without_root(&self, text: &str) -> String {
        text.replace(&self.root(), "ROOT")
    }

    /// The first of all that is wrong with the flow folder.
    pub(crate) fn failure(&self) -> Failure {
        let (folder, root) = (self.folder(), flow::include_root(&self.folder()));
        let wrong = || -> Result<(), Failure> {
            flow::canonical(&folder)?;
            flow::kind(&folder)?;
            flow::environment(&folder, &root)?;
            flow::view::list(&folder, &root)?;
            Ok(())
        };
        wrong().expect_err("something should be wrong with it")
    }
}

/// A folder's files and folders, each with its text, one a line.
pub(crate) fn shown(folder: &Path) -> String {
    let mut lines = Vec::new();
    let mut rest = vec![folder.to_owned()];
    while let Some(next) = rest.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            assert!(!path.is_symlink(), "{name} is a link");
            if path.is_dir() {
                lines.push(format!("{name}/\n"));
                rest.push(path);
            } else {
                lines.push(format!("{name}: {}\n", fs::read_to_string(&path).unwrap().trim_end()));
            }
        }
    }
    lines.sort();
    lines.concat()
}
