//! The project that a flow folder is itself, laid out for one run as its install would leave it.

use contract::Failure;
use flow::Installed;
use serde_json::{Value, json};
use std::{fs, io, os::unix::fs::PermissionsExt, os::unix::fs::symlink, path::Path};

/// Lays out the project of a run's flow folder beside it.
///
/// * `staging`: where the run's files are laid out; `place`: where its processes find them.
///
/// Returns what those are told of it; null if the folder is no project.
///
/// # Errors
///
/// `Flow.BadProject`; inside, errors of the file system.
pub(super) fn install(staging: &Path, place: &Path) -> Result<io::Result<Value>, Failure> {
    let Some(project) = flow::own_project(&staging.join("flow"))? else {
        return Ok(Ok(Value::Null));
    };
    let (to, flow, lib) = (staging.join("project"), place.join("flow"), place.join("project/lib"));
    let files = project.files(&flow, &lib);
    let lay_out = || -> io::Result<Value> {
        for (path, file) in &files {
            let path = to.join(path);
            fs::create_dir_all(path.parent().unwrap_or(&to))?;
            match file {
                Installed::File { text, is_program } => {
                    fs::write(&path, text)?;
                    let mode = if *is_program { 0o755 } else { 0o644 };
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
                }
                Installed::Link(module) => symlink(flow.join(module), &path)?,
            }
        }
        let sources: Vec<_> = project.sources.iter().map(|source| flow.join(source)).collect();
        let has = |name: &str| to.join(name).is_dir().then(|| place.join("project").join(name));
        Ok(json!({ "sources": sources, "lib": has("lib"), "bin": has("bin") }))
    };
    Ok(lay_out())
}
