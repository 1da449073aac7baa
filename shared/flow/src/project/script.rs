//! A script that names its packages in a comment.

use super::{Source, bad};
use crate::{Failure, folder::Folder, requirements::Line};
use serde::Deserialize;
use toml::Spanned;

const BEGINS: &str = "# /// script";

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "requires-python")]
    requires_python: Option<Spanned<String>>,
    #[serde(default)]
    dependencies: Vec<Spanned<String>>,
    tool: Option<Tools>,
}

#[derive(Deserialize)]
struct Tools {
    uv: Option<Uv>,
}

#[derive(Deserialize)]
struct Uv {
    sources: Option<toml::Table>,
    index: Option<toml::Value>,
}

/// The script of the folder that names its packages, with those. `None` if there is none.
///
/// # Errors
///
/// `Flow.BadProject`: two scripts name packages, or one names what is not supported.
///
/// # Source
///
/// <https://packaging.python.org/en/latest/specifications/inline-script-metadata/>.
pub(super) fn find(folder: &Folder) -> Result<Option<(Source, Vec<Line>)>, Failure> {
    let Some(source) = find_source(folder)? else {
        return Ok(None);
    };
    let lines = lines(&source)?;
    Ok(Some((source, lines)))
}

/// The one script of the folder that has such a comment.
pub(super) fn find_source(folder: &Folder) -> Result<Option<Source>, Failure> {
    let entries = std::fs::read_dir(&folder.path).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".py")).collect();
    names.sort();
    let mut found: Option<Source> = None;
    for name in names {
        let Some(source) = Source::find(folder, &name)? else {
            continue;
        };
        if !source.text.lines().any(|line| line.trim_end() == BEGINS) {
            continue;
        }
        if let Some(first) = found {
            return Err(bad(format!(
                "{} and {name} both name packages in a comment, and a folder has one environment. Write a requirements.txt that lists them.",
                first.name
            )));
        }
        found = Some(source);
    }
    Ok(found)
}

/// The `requires-python` of a script's comment, and its line.
pub(super) fn requires_python(source: &Source) -> Result<Option<(usize, String)>, Failure> {
    let (block, read) = read(source)?;
    let asked = read.requires_python;
    Ok(asked.map(|text| (block.line_at(text.span().start), text.into_inner())))
}

/// The comment of a script, with the lines before it, so that its lines count from the script's
/// first; and what it says.
fn read(source: &Source) -> Result<(Source, Block), Failure> {
    let begin = source.text.lines().position(|line| line.trim_end() == BEGINS);
    let first = begin.unwrap_or(0) + 1;
    let mut inside: Vec<&str> = source
        .text
        .lines()
        .skip(first)
        .take_while(|line| line.starts_with('#'))
        .collect();
    let Some(end) = inside.iter().rposition(|line| line.trim_end() == "# ///") else {
        return Err(bad(format!(
            "{}:{first}: the comment with the packages does not end. Write a line `# ///` behind it.",
            source.name
        )));
    };
    inside.truncate(end);
    let without = |line: &&str| line.strip_prefix("# ").unwrap_or(&line[1..]).to_owned();
    let text = "\n".repeat(first) + &inside.iter().map(without).collect::<Vec<_>>().join("\n");
    let block = Source::of(source.path.clone(), &source.name, text);
    let read: Block = block.toml()?;
    Ok((block, read))
}

fn lines(source: &Source) -> Result<Vec<Line>, Failure> {
    let (block, read) = read(source)?;
    let uv = read.tool.and_then(|tools| tools.uv);
    let sources = uv
        .as_ref()
        .and_then(|uv| uv.sources.as_ref().map(|_| "tool.uv.sources"));
    if let Some(key) = sources.or_else(|| uv.as_ref()?.index.as_ref().map(|_| "tool.uv.index")) {
        let why = "in the comment of a script is not supported. Write a requirements.txt that says where the packages come from.";
        return Err(block.refuse(key, why));
    }
    Ok(read
        .dependencies
        .iter()
        .map(|text| block.line_of(block.line_at(text.span().start), text.get_ref().as_str()))
        .collect())
}
