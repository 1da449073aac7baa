//! pip and uv for a session, in its own environment.
//!
//! uv is in every environment. pip comes at its first use, into the session's own layer: it would
//! be in every lock, and few sessions ask for it.

use crate::store::Store;
use sandbox::beneath::Folder;
use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

/// Stands for pip until that is there.
const MODULE: &str = r#""""Fetches pip at its first use."""
import fcntl, os, subprocess, sys

def main():
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(sys.prefix, "pyvenv.cfg")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(os.path.join(here, "_internal")):
            fetch()
    os.execv(sys.executable, [sys.executable, "-m", "pip", *sys.argv[1:]])

def fetch():
    # Python's own needs no network; Debian's has none.
    own = subprocess.run([sys.executable, "-m", "ensurepip", "--default-pip"], stdin=subprocess.DEVNULL, capture_output=True)
    if own.returncode == 0:
        return
    command = [os.path.join(sys.prefix, "bin", "uv"), "pip", "install", "--quiet", "--link-mode", "copy", "--python", sys.executable]
    if index := os.environ.get("PIP_INDEX_URL"):
        command += ["--default-index", index]
    if links := os.environ.get("PIP_FIND_LINKS"):
        command += [word for link in links.split() for word in ("--find-links", link)]
    if subprocess.run([*command, "pip"], stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode != 0:
        sys.exit("pip could not be fetched. Use uv pip, or add pip to the requirements.")

if __name__ == "__main__":
    main()
"#;

/// The program `pip`: that of its own environment, whatever Python its first line would name.
const PROGRAM: &str = "#!/bin/sh\nexec \"${0%/*}/python\" -m pip \"$@\"\n";

impl Store {
    /// Lays what stands for pip into an environment that is to be built. What has a pip of its own
    /// gets the program alone.
    pub(crate) fn add_pip(&self, place: &Path) -> io::Result<()> {
        let bin = place.join("bin");
        fs::create_dir_all(&bin)?;
        for name in ["pip", "pip3"] {
            fs::write(bin.join(name), PROGRAM)?;
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755))?;
        }
        if self.root.as_ref().is_some_and(|root| root.has("pip")) {
            return Ok(());
        }
        let module = place.join(self.python.site_packages()).join("pip");
        fs::create_dir_all(&module)?;
        fs::write(module.join("__init__.py"), "")?;
        fs::write(module.join("__main__.py"), MODULE)
    }
}

/// Puts uv into an environment that was built and made read-only: code that ran in its build could
/// have written to the file. That code decides what the names in the folder stand for, so no link
/// of it is followed.
pub(crate) fn add_uv(place: &Path, uv: &Path) -> io::Result<()> {
    Folder::open(place)?.folder(Path::new("bin"))?.put(uv, "uv")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uv_is_put_into_no_folder_that_a_build_script_links_to() {
        let place = tempfile::tempdir().unwrap();
        let (uv, own) = (place.path().join("uv"), place.path().join("environment"));
        fs::write(&uv, "uv").unwrap();
        fs::create_dir_all(own.join("bin")).unwrap();
        add_uv(&own, &uv).unwrap();
        add_uv(&own, &uv).unwrap();
        assert_eq!(fs::read(own.join("bin/uv")).unwrap(), b"uv");
        let other = place.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::rename(own.join("bin"), own.join("moved")).unwrap();
        std::os::unix::fs::symlink(&other, own.join("bin")).unwrap();
        assert!(add_uv(&own, &uv).is_err());
        assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
    }
}
