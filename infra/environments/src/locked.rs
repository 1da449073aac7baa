//! The lock of an environment, for those who build the same elsewhere.

use crate::{index::Environment, lock, store};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The packages of an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Each with its version and hashes, as a requirements file has it.
    pub hashed: String,
    /// Packages without a hash: from a repository, or from an index without hashes.
    pub bare: Vec<String>,
    /// The version of the Python that it was built on.
    pub python: String,
}

/// Reads the lock of an environment from a store.
///
/// * `is_on_image`: whether it lies over an image with packages of its own, which are left out.
///
/// Gives `None` if this machine has not built it, or has it no more.
pub fn read(state: &Path, lock: &str, is_on_image: bool) -> Option<Locked> {
    if lock.is_empty() || !lock.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let folder = store::folder(state).join("environments");
    let text = fs::read_to_string(folder.join(format!("{lock}.txt"))).ok()?;
    let (hashed, bare) = parts(&text, is_on_image);
    Some(Locked {
        hashed,
        bare,
        python: python(&folder, lock)?,
    })
}

fn parts(lock: &str, is_on_image: bool) -> (String, Vec<String>) {
    let (mut hashed, mut bare) = (String::new(), Vec::new());
    let mut lines = lock.lines().peekable();
    while let Some(line) = lines.next() {
        if lock::pin(line).is_none() {
            continue;
        }
        let is_hash = |line: &&str| line.trim_start().starts_with("--hash=");
        if lines.peek().is_some_and(is_hash) {
            hashed.push_str(line);
            hashed.push('\n');
            while let Some(hash) = lines.next_if(is_hash) {
                hashed.push_str(hash);
                hashed.push('\n');
            }
            continue;
        }
        // The image's own packages are there by their versions alone.
        if !is_on_image || line.contains(" @ ") {
            bare.push(line.trim_end_matches(['\\', ' ']).to_owned());
        }
    }
    (hashed, bare)
}

/// The version of the Python of an environment, or of the one that it lies over.
fn python(folder: &Path, key: &str) -> Option<String> {
    let version = |place: PathBuf| {
        let text = fs::read_to_string(place.join("pyvenv.cfg")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("version_info = "))?;
        Some(line.trim().to_owned())
    };
    let base = || {
        let about = fs::read(folder.join(format!("{key}.json"))).ok()?;
        let environment: Environment = serde_json::from_slice(&about).ok()?;
        environment.below.map(|below| folder.join(below))
    };
    version(folder.join(key)).or_else(|| base().and_then(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_parted_into_what_has_hashes_and_what_has_none() {
        let lock = "a==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\nb @ git+https://h/b.git@c0ffee\nc==2.0\n\
            d @ https://h/d-1.whl \\\n    --hash=sha256:dd\n";
        let hashed =
            "a==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\nd @ https://h/d-1.whl \\\n    --hash=sha256:dd\n";
        let git = "b @ git+https://h/b.git@c0ffee".to_owned();
        assert_eq!(
            parts(lock, false),
            (hashed.to_owned(), vec![git.clone(), "c==2.0".into()])
        );
        assert_eq!(parts(lock, true), (hashed.to_owned(), vec![git]));
    }

    #[test]
    fn a_lock_is_found_by_its_digest_and_by_nothing_else() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("environments");
        fs::create_dir_all(folder.join("ba5e")).unwrap();
        fs::write(folder.join("ba5e/pyvenv.cfg"), "uv = 1\nversion_info = 3.11.7\n").unwrap();
        fs::write(folder.join("ab12.txt"), "c==2.0\n").unwrap();
        let about = r#"{ "key": "ab12", "below": "ba5e", "base": "ba5e", "pure": true, "pth": [] }"#;
        fs::write(folder.join("ab12.json"), about).unwrap();
        let found = read(state.path(), "ab12", false).unwrap();
        assert_eq!(
            (found.python.as_str(), found.bare),
            ("3.11.7", vec!["c==2.0".to_owned()])
        );
        assert_eq!(read(state.path(), "../environments/ab12", false), None);
        assert_eq!(read(state.path(), "", false), None);
    }
}
