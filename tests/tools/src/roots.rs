//! Root folders of images, made of this machine's own Python and shell, and what tests of images
//! share.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Runs a program that must succeed.
///
/// # Panics
///
/// With its output, if it does not.
pub fn execute(program: &str, arguments: &[&str]) -> String {
    let ended = Command::new(program).args(arguments).output().unwrap();
    assert!(ended.status.success(), "{program} {arguments:?}: {ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

/// Copies a file of this machine to the same path, with what links stand before it.
fn take(root: &Path, path: &Path) {
    let target = root.join(path.strip_prefix("/").unwrap());
    if target.symlink_metadata().is_ok() {
        return;
    }
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::copy(path, target).unwrap();
}

/// The libraries that programs and libraries need.
fn libraries(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for file in files {
        let listed = Command::new("ldd").arg(file).output().unwrap();
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        let paths = text
            .split_whitespace()
            .filter(|word| word.starts_with('/') && !word.ends_with(':'));
        all.extend(paths.map(PathBuf::from));
    }
    all
}

/// A root folder with this machine's Python at `/opt/python`, and `/bin/sh`.
pub fn python_root(root: &Path) -> String {
    python_root_at(root, "opt/python")
}

/// The same with Python at another place.
pub fn python_root_at(root: &Path, prefix: &str) -> String {
    python_root_of(root, prefix, "python3")
}

/// The same with another Python of this machine.
pub fn python_root_of(root: &Path, prefix: &str, python: &str) -> String {
    let place = root.join(prefix);
    let about = "import os, sys; print(os.path.realpath(sys._base_executable), sys.base_prefix, '%d.%d' % sys.version_info[:2])";
    let about = execute(python, &["-I", "-S", "-c", about]);
    let [executable, from, minor] = about.split_whitespace().collect::<Vec<_>>().try_into().unwrap();
    let library = place.join(format!("lib/python{minor}"));
    fs::create_dir_all(&library).unwrap();
    let from = format!("{from}/lib/python{minor}");
    execute(
        "sh",
        &[
            "-c",
            r#"tar -C "$1" --exclude=test --exclude=site-packages --exclude=dist-packages --exclude=__pycache__ --exclude='config-*' --exclude=idlelib -chf - . | tar -C "$2" -xf -"#,
            "sh",
            &from,
            &library.display().to_string(),
        ],
    );
    let bin = place.join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::copy(executable, bin.join(format!("python{minor}"))).unwrap();
    std::os::unix::fs::symlink(format!("python{minor}"), bin.join("python3")).unwrap();
    let dynload = fs::read_dir(library.join("lib-dynload"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = dynload.collect();
    // uv needs a library that no Python does, as Rust's programs do.
    let own = std::env::current_exe().unwrap();
    files.extend([PathBuf::from(executable), own]);
    shell_root(root, &files);
    minor.to_owned()
}

/// A root folder with `/bin/sh` and `/bin/cat`, and the libraries of these programs and of more.
pub fn shell_root(root: &Path, more: &[PathBuf]) {
    let mut files = vec!["/bin/sh".into(), "/bin/cat".into()];
    files.extend_from_slice(more);
    for library in libraries(&files) {
        take(root, &library);
        // Parts of glibc that uv names as well.
        for part in
            ["librt.so.1", "libdl.so.2", "libpthread.so.0", "libm.so.6"].map(|part| library.with_file_name(part))
        {
            if part.exists() {
                take(root, &part);
            }
        }
    }
    for program in ["/bin/sh", "/bin/cat"] {
        take(root, Path::new(program));
    }
    for folder in ["etc", "tmp"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\napp:x:4321:4321::/app:/bin/sh\n",
    )
    .unwrap();
}
