//! The results of a build. Foreign code ran beside it, so all is read beneath its folder, without
//! links, within bounds.

use crate::lock;
use contract::{Code, Failure};
use sandbox::beneath::{Entry, FileType, Folder, Limits};
use std::{io, path::Path};

/// The most that a build may leave behind: an environment of its own size is not too much, what a
/// script makes up to wear the machine out is.
const MOST: Limits = Limits {
    depth: 64,
    entries: 1_000_000,
    bytes: 64 << 30,
};

/// The most bytes of a lock: some 10,000 packages with all their hashes.
const MOST_LOCK: u64 = 32 << 20;

/// Reads what a resolver wrote. Build scripts ran beside it, so this may be anything by now.
pub(crate) fn read_lock(folder: &Path) -> Result<String, Failure> {
    let bytes = Folder::open(folder)
        .and_then(|folder| folder.read_bounded(Path::new("lock.txt"), MOST_LOCK))
        .map_err(bad_build)?;
    let text = String::from_utf8(bytes).map_err(|_| bad_build(io::Error::other("the lock is no text")))?;
    match lock::check(&text) {
        Ok(()) => Ok(text),
        // What the line says is not told: it may be no line of the lock's.
        Err(_) => Err(bad_build(io::Error::other(
            "the lock has a line that no resolver writes",
        ))),
    }
}

/// The failure of a build that left something else than it should.
pub(crate) fn bad_build(error: io::Error) -> Failure {
    Failure::new(
        Code::InstallTampered,
        format!(
            "What the build left behind is not what uv makes: {error}. A package's build script may have done it: see which packages are built from \
             source, and take versions that have a wheel."
        ),
    )
}

/// Whether a file of a layer takes the place of one below it, or makes a package of a folder there
/// that is none.
fn is_shadow(entry: &Entry<'_>, below: &Path) -> bool {
    if entry.kind == FileType::Directory || entry.path.components().any(|part| part.as_os_str() == "__pycache__") {
        return false;
    }
    let lower = below.join(entry.path);
    let is_new_package = || entry.name == "__init__.py" && lower.parent().is_some_and(Path::exists);
    lower.symlink_metadata().is_ok() || is_new_package()
}

/// The `.pth` files of a layer that its base does not have.
pub(crate) fn new_pth_files(upper: &Path, site: &Path, below: &Path) -> io::Result<Vec<String>> {
    let site = match Folder::open(upper)?.folder(site) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        site => site?,
    };
    let names = site.names(MOST.entries)?.into_iter();
    let new = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.ends_with(".pth") && !below.join(name).exists());
    Ok(new.collect())
}

/// Takes the right to write, and to run as somebody else, away from every file; folders keep
/// theirs, as a session's own layer inherits their rights.
///
/// * `below`: what it is a layer over. Whether a file of the layer changes what was there: see
///   [`is_shadow`].
pub(crate) async fn make_read_only(folder: &Path, below: Option<&Path>) -> io::Result<bool> {
    let (folder, below) = (folder.to_owned(), below.map(Path::to_owned));
    // A lease is renewed meanwhile.
    let walk = tokio::task::spawn_blocking(move || {
        let mut shadows = false;
        Folder::open(&folder)?.walk(&MOST, |entry| {
            shadows = shadows || below.as_ref().is_some_and(|below| is_shadow(entry, below));
            match entry.kind {
                FileType::RegularFile => entry.set_mode(entry.stat.st_mode & 0o555),
                _ => Ok(()),
            }
        })?;
        Ok(shadows)
    });
    walk.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    #[test]
    fn a_lock_is_read_only_if_it_is_a_file_of_what_a_resolver_writes() {
        let place = tempfile::tempdir().unwrap();
        let (secret, scratch) = (place.path().join("secret"), place.path().join("scratch"));
        fs::create_dir(&scratch).unwrap();
        fs::write(&secret, "root:hidden==1\n").unwrap();
        let lock = scratch.join("lock.txt");
        let refused = |what: &str| {
            let failure = read_lock(&scratch).unwrap_err();
            let text = failure.to_string();
            let begins = "Install.Tampered: What the build left behind is not what uv makes: ";
            let ends = "take versions that have a wheel.";
            assert!(text.starts_with(begins) && text.ends_with(ends), "{what}: {text}");
            assert!(!text.contains("hidden"), "{what}: {text}");
        };
        symlink(&secret, &lock).unwrap();
        refused("a link");
        fs::remove_file(&lock).unwrap();
        refused("nothing");
        fs::create_dir(&lock).unwrap();
        refused("a folder");
        fs::remove_dir(&lock).unwrap();
        fs::write(&lock, "a==1\n--find-links http://hidden/,/host\n").unwrap();
        refused("a line of another kind");
        fs::write(&lock, b"a==1 # \xff\n").unwrap();
        refused("no text");
        fs::File::create(&lock).unwrap().set_len(MOST_LOCK + 1).unwrap();
        refused("too much");
        fs::write(&lock, "a==1\n").unwrap();
        assert_eq!(read_lock(&scratch).unwrap(), "a==1\n");
    }

    #[tokio::test]
    async fn what_a_build_leaves_is_made_read_only_and_nothing_beside_it() {
        let place = tempfile::tempdir().unwrap();
        let (outside, built) = (place.path().join("outside"), place.path().join("built"));
        fs::create_dir_all(built.join("lib")).unwrap();
        fs::write(&outside, "").unwrap();
        fs::write(built.join("lib/program"), "").unwrap();
        symlink(&outside, built.join("lib/link")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(built.join("lib/program"), fs::Permissions::from_mode(0o6755)).unwrap();
        make_read_only(&built, None).await.unwrap();
        assert_eq!((mode(&outside), mode(&built.join("lib/program"))), (0o644, 0o555));
    }
}
