//! Whom a folder belongs to: what is run and read outside every sandbox has to be this user's or
//! root's.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

/// Checks that the path of a state folder or a store can be used at all.
///
/// # Errors
///
/// A sentence that names the path. Final.
pub fn check_path(path: &Path) -> Result<(), String> {
    let place = path.display();
    match path.to_str() {
        None => Err(format!("the path {place} is not UTF-8; name another folder")),
        // It is in variables such as PATH, where nothing can be escaped, and Python makes no
        // environment there.
        Some(text) if text.contains(':') || text.chars().any(char::is_control) => Err(format!(
            "the path {place} has a colon or a control character; name another folder"
        )),
        Some(_) if !path.is_absolute() => Err(format!("the path {place} is not absolute")),
        Some(_) => Ok(()),
    }
}

/// Makes a folder for its user alone, and checks that it is.
///
/// # Errors
///
/// An error of the file system; [`io::ErrorKind::PermissionDenied`] if somebody else could change
/// what is in the folder. Final until that is put right.
pub(crate) fn private_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    check_owner(folder, is_trusted)?;
    if fs::metadata(folder)?.uid() == user() {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    // What is above it may be one that everybody writes to, if they cannot rename there what is not
    // theirs.
    let folder = folder.canonicalize()?;
    for above in folder.ancestors().skip(1) {
        check_owner(above, |found| {
            is_trusted(found) || found.uid() == 0 && found.mode() & 0o1000 != 0
        })?;
    }
    Ok(())
}

fn check_owner(folder: &Path, is_good: impl Fn(&fs::Metadata) -> bool) -> io::Result<()> {
    let found = fs::metadata(folder)?;
    if is_good(&found) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{} may be changed by others: it belongs to user {} and has the mode {:o}; name a folder that is yours alone",
            folder.display(),
            found.uid(),
            found.mode() & 0o7777
        ),
    ))
}

/// Whether it is this user's or root's, and nobody else writes to it. A user's private group, of
/// the same number, is the user.
fn is_trusted(found: &fs::Metadata) -> bool {
    let of_others = if found.gid() == found.uid() { 0o002 } else { 0o022 };
    (found.uid() == 0 || found.uid() == user()) && found.mode() & of_others == 0
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_others_write_to_or_that_lies_in_such_a_one_is_refused() {
        let place = tempfile::tempdir().expect("a folder");
        let above = place.path().join("above");
        let folder = above.join("store");
        private_folder(&folder).expect("it is this user's");
        assert_eq!(fs::metadata(&folder).expect("there").mode() & 0o777, 0o700);
        for (path, mode) in [(&folder, 0o777), (&above, 0o757)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
            let refused = private_folder(&folder).expect_err("others write to it").to_string();
            assert!(refused.contains(&format!("{mode:o}")), "{refused}");
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("changed");
        }
        private_folder(&folder).expect("it is this user's again");
        if user() == 0 {
            std::os::unix::fs::chown(&folder, Some(65_534), None).expect("given away");
            private_folder(&folder).expect_err("it is another user's");
        } else {
            eprintln!("not root: that a folder of another user is refused is tried as root");
        }
    }

    #[test]
    fn a_path_that_no_environment_can_be_at_is_refused() {
        for good in ["/a b/c", "/a,b\\c", "/é/流"] {
            check_path(Path::new(good)).expect(good);
        }
        for bad in ["/a:b", "/a\nb", "a/b"] {
            assert!(check_path(Path::new(bad)).expect_err(bad).contains(bad));
        }
    }
}
