//! `environment.yml` of conda.

use super::Source;
use crate::{CONDA_BUILT_IN, Code, Failure, folder::Folder, requirements::Line, yaml};
use serde_json::Value;

/// `None` if it lists no packages: then it is another kind of file.
///
/// # Source
///
/// <https://docs.conda.io/projects/conda/en/stable/user-guide/tasks/manage-environments.html#create-env-file-manually>.
pub(super) fn lines(_: &Folder, source: &Source) -> Result<Option<Vec<Line>>, Failure> {
    let such_as = "`dependencies` with a `pip` part";
    let file = yaml::mapping(&source.name, &source.text, Code::FlowBadProject, such_as)?;
    let Some(entries) = file.get("dependencies").and_then(Value::as_array) else {
        return Ok(None);
    };
    let mut lines = Vec::new();
    for entry in entries {
        if let Some(pip) = entry.get("pip").and_then(Value::as_array) {
            for text in pip.iter().filter_map(Value::as_str) {
                if text.starts_with('-') {
                    let why = "is an option, and those are read in a requirements.txt alone. Move the packages there.";
                    return Err(source.refuse(text, why));
                }
                lines.push(source.line(text, text.trim().to_owned()));
            }
            continue;
        }
        let text = entry.as_str().unwrap_or("an entry");
        let name = text.rsplit("::").next().unwrap_or(text);
        let name = name.split(['=', '<', '>', ' ', '!', '~']).next().unwrap_or(name);
        if !CONDA_BUILT_IN.contains(&name) {
            let why = "comes by conda, which is not here. Move it below `pip:`, by the name that PyPI has for it.";
            return Err(source.refuse(text, why));
        }
    }
    Ok(Some(lines))
}
