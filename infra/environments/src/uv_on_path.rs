//! The `uv` that the machine's owner has on PATH: a program of a version that builds were tried
//! with, or none.

use sandbox::files::write_atomically;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, UNIX_EPOCH},
};

/// The versions of uv that builds were tried with: from the first on, and before the second.
const TESTED: [(u32, u32); 2] = [(0, 8), (0, 14)];

/// The longest time that a uv may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// A uv that was asked for its version.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    path: PathBuf,
    bytes: u64,
    /// In nanoseconds since 1970.
    changed: u128,
    /// The reason for passing it over.
    fault: Option<String>,
}

/// Finds the first `uv` of these folders that is a program of a tested version. A shim of pyenv or
/// asdf stands for the programs that it chooses from; any other script is passed over.
///
/// * `known`: where the answer of the last uv is kept. It is asked again when it has changed.
/// * `say`: told which uv is passed over, and why.
pub(crate) fn find(folders: &[PathBuf], known: &Path, say: &dyn Fn(String)) -> Option<PathBuf> {
    let candidates = folders.iter().map(|folder| folder.join("uv")).filter(|uv| uv.is_file());
    for candidate in candidates {
        let Ok(program) = fs::canonicalize(&candidate) else {
            continue;
        };
        let behind = match is_script(&program) {
            Ok(false) => vec![program],
            Ok(true) => behind_shim(&program),
            Err(_) => continue,
        };
        if behind.is_empty() {
            say(format!("passing over {}: it is a script", candidate.display()));
        }
        for program in behind {
            match fault(&program, known) {
                None => return Some(program),
                Some(fault) => say(format!("passing over {}: {fault}", program.display())),
            }
        }
    }
    None
}

fn is_script(program: &Path) -> io::Result<bool> {
    let mut first = [0; 2];
    fs::File::open(program)?.read_exact(&mut first)?;
    Ok(&first == b"#!")
}

/// The programs that a shim chooses from, in the folders where pyenv and asdf install: the newest
/// first.
fn behind_shim(shim: &Path) -> Vec<PathBuf> {
    let Some(root) = shim
        .parent()
        .filter(|folder| folder.ends_with("shims"))
        .and_then(Path::parent)
    else {
        return Vec::new();
    };
    let inside = |folder: PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    };
    // pyenv: versions/3.12.1/bin/uv. asdf: installs/python/3.12.1/bin/uv, installs/uv/0.9.1/bin/uv
    // or installs/uv/0.9.1/uv.
    let versions = inside(root.join("versions")).chain(inside(root.join("installs")).flat_map(inside));
    let programs = versions.flat_map(|version| [version.join("bin/uv"), version.join("uv")]);
    let mut programs: Vec<PathBuf> = programs
        .filter(|program| is_script(program).is_ok_and(|is| !is))
        .collect();
    let changed = |program: &PathBuf| fs::metadata(program).and_then(|about| about.modified()).ok();
    programs.sort_by_key(|program| std::cmp::Reverse(changed(program)));
    programs
}

/// The reason against a program as uv.
fn fault(program: &Path, known: &Path) -> Option<String> {
    let about = match fs::metadata(program) {
        Ok(about) if about.permissions().mode() & 0o111 != 0 => about,
        Ok(_) => return Some("it is no program".into()),
        Err(error) => return Some(error.to_string()),
    };
    let changed = about.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let mut asked = Asked {
        path: program.to_owned(),
        bytes: about.len(),
        changed: changed.map_or(0, |since| since.as_nanos()),
        fault: None,
    };
    let last = fs::read(known)
        .ok()
        .and_then(|text| serde_json::from_slice::<Asked>(&text).ok());
    if let Some(last) = last
        && (&last.path, last.bytes, last.changed) == (&asked.path, asked.bytes, asked.changed)
    {
        return last.fault;
    }
    asked.fault = match version(program) {
        Ok(version) => reason_against(&version),
        // It may run the next time.
        Err(why) => return Some(why),
    };
    if let Ok(text) = serde_json::to_vec(&asked)
        && let Err(error) = write_atomically(known, &text)
    {
        tracing::debug!(%error, "what uv said is asked again");
    }
    asked.fault
}

/// The version that a uv says, with no variable of its owner's but where programs are.
fn version(program: &Path) -> Result<String, String> {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    sandbox::descriptors::keep_only(&mut command, &[]);
    let mut child = command.spawn().map_err(|error| format!("it does not run ({error})"))?;
    let Some(stdout) = child.stdout.take() else {
        return Err("it does not run".into());
    };
    let (sender, said) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.take(1000).read_to_string(&mut text);
        let _ = sender.send(text);
    });
    let said = said.recv_timeout(VERSION_TIMEOUT);
    let _ = child.kill();
    let _ = child.wait();
    let text = said.map_err(|_| "it does not say its version".to_owned())?;
    match text.trim().strip_prefix("uv ") {
        Some(version) => Ok(version.split(' ').next().unwrap_or_default().to_owned()),
        None => Err("it does not say its version".into()),
    }
}

/// The reason against a version.
fn reason_against(version: &str) -> Option<String> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    let is_tested = match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) => TESTED[0] <= (major, minor) && (major, minor) < TESTED[1],
        _ => false,
    };
    let [from, before] = TESTED.map(|(major, minor)| format!("{major}.{minor}"));
    (!is_tested).then(|| format!("it is version {version}, and {from} to before {before} are used"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::cell::RefCell;

    /// A program that says this. The compiler of the tests is there; a script would be one.
    fn program(path: &Path, says: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let source = path.with_extension("rs");
        fs::write(&source, format!("fn main() {{ print!({says:?}); }}")).unwrap();
        let compiled = Command::new("rustc")
            .args(["-o".as_ref(), path, source.as_path()])
            .status();
        assert!(compiled.unwrap().success());
    }

    fn script(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn check(root: &Path, folders: &[&str], expected: Expect) {
        let folders: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
        let said = RefCell::new(String::new());
        let say = |text: String| *said.borrow_mut() += &format!("{text}\n");
        let found = find(&folders, &root.join("known.json"), &say);
        let text = format!("{}{found:?}", said.into_inner());
        expected.assert_eq(&text.replace(&format!("{}/", root.display()), ""));
    }

    #[test]
    fn uv_on_path_is_a_program_of_a_tested_version_or_is_passed_over() {
        let place = tempfile::tempdir().unwrap();
        let root = &place.path().canonicalize().unwrap();
        program(&root.join("good/uv"), "uv 0.9.1 (a 2025-01-01)\n");
        program(&root.join("old/uv"), "uv 0.1.45\n");
        program(&root.join("other/uv"), "libuv\n");
        script(&root.join("wrapper/uv"), "exec false");
        fs::create_dir_all(root.join("no-program")).unwrap();
        fs::write(root.join("no-program/uv"), "text").unwrap();
        let folders = ["none", "old", "other", "wrapper", "no-program", "good"];
        check(
            root,
            &folders,
            expect![[r#"
                passing over old/uv: it is version 0.1.45, and 0.8 to before 0.14 are used
                passing over other/uv: it does not say its version
                passing over wrapper/uv: it is a script
                passing over no-program/uv: it is no program
                Some("good/uv")"#]],
        );
        // Its answer is kept until it changes.
        let known = || fs::read_to_string(root.join("known.json")).unwrap();
        let before = known();
        check(root, &["good"], expect![[r#"Some("good/uv")"#]]);
        assert_eq!(known(), before);
        program(&root.join("good/uv"), "uv 1.0.0\n");
        check(
            root,
            &["good"],
            expect![[r#"
                passing over good/uv: it is version 1.0.0, and 0.8 to before 0.14 are used
                None"#]],
        );
    }

    #[test]
    fn a_shim_of_pyenv_or_asdf_stands_for_the_program_behind_it() {
        let place = tempfile::tempdir().unwrap();
        let root = &place.path().canonicalize().unwrap();
        // Without a version chosen, as on a machine whose first Python has no uv.
        script(
            &root.join("pyenv/shims/uv"),
            "echo 'pyenv: uv: command not found' >&2; exit 127",
        );
        check(
            root,
            &["pyenv/shims"],
            expect![[r#"
                passing over pyenv/shims/uv: it is a script
                None"#]],
        );
        program(&root.join("pyenv/versions/3.12.1/bin/uv"), "uv 0.9.1\n");
        check(
            root,
            &["pyenv/shims"],
            expect![[r#"Some("pyenv/versions/3.12.1/bin/uv")"#]],
        );
        script(&root.join("asdf/shims/uv"), "exec asdf exec uv \"$@\"");
        program(&root.join("asdf/installs/uv/0.9.1/bin/uv"), "uv 0.9.1\n");
        check(
            root,
            &["asdf/shims"],
            expect![[r#"Some("asdf/installs/uv/0.9.1/bin/uv")"#]],
        );
    }
}
