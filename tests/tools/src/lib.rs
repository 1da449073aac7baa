//! The Python tools of the tests: emulators of AWS, its clients, and SAM.
//!
//! They are those of `tests/on-aws/python/tools.txt`, and are fetched from PyPI into
//! `target/ci-tools` when a test first asks for one, which takes a minute.

pub mod roots;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The folder of the tools' programs.
///
/// # Panics
///
/// If they are not there and cannot be fetched.
pub fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = root().join("target/ci-tools");
        fetch(&folder);
        folder.join("bin")
    })
}

/// A Python with `boto3`, `ministack` and `moto`.
///
/// # Panics
///
/// As [`programs`].
pub fn python() -> PathBuf {
    programs().join("python")
}

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the workspace is there")
}

/// Fetches the tools if they are not those of the list. One process does it, and others wait.
fn fetch(folder: &Path) {
    let list = root().join("tests/on-aws/python/tools.txt");
    let wanted = fs::read_to_string(&list).expect("the list of tools is there");
    let fetched = folder.join("tools.txt");
    let is_there = || fs::read_to_string(&fetched).is_ok_and(|text| text == wanted);
    if is_there() {
        return;
    }
    fs::create_dir_all(folder).expect("the folder of the tools can be made");
    let lock = File::create(folder.with_extension("lock")).expect("the folder can be written");
    lock.lock().expect("the folder can be locked");
    if is_there() {
        return;
    }
    eprintln!(
        "fetching the tools of {} from PyPI into {}, once",
        list.display(),
        folder.display()
    );
    let bin = folder.join("bin");
    let python = bin.join("python");
    run(Command::new("python3").args(["-m", "venv"]).arg(folder));
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "uv"]));
    // By uv: pip takes minutes to find versions of these that go together.
    let install = ["pip", "install", "--quiet", "--python"];
    run(Command::new(bin.join("uv"))
        .args(install)
        .arg(&python)
        .arg("-r")
        .arg(&list));
    fs::copy(&list, &fetched).expect("the folder can be written");
}

fn run(command: &mut Command) {
    let ended = command.output();
    let said = match &ended {
        Ok(output) if output.status.success() => return,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    panic!("the tools of these tests are not there, and {command:?} does not fetch them: {said}");
}
