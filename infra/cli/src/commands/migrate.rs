//! `pfsession migrate`: a runtime's environment, taken over into a flow folder.

use super::{check, install::write};
use crate::{
    command::Execute,
    confirm::{self, Unasked},
    global::{Done, Service},
    terminal::note,
    text::{out, out_json},
    trouble::{FAILED, Trouble, USAGE},
};
use clap::Args;
use contract::{Code, http::CheckResult};
use flow::{Migration, Saved};
use schemars::JsonSchema;
use serde::Serialize;
use similar::TextDiff;
use std::path::{Path, PathBuf};

/// Move the environment of a runtime into a flow: its base image and its packages
#[derive(Args, Debug)]
#[command(after_help = "\
Reads Azure's environment.yml, a conda file, a pip file or a Dockerfile. Writes `environment:` of the flow file and the flow's requirements file, \
after it has shown the difference and asked. What the flow folder has already stays. Pins of promptflow are left out, as the base image has it.

With --json and without --yes nothing is written.

Examples:
  pfsession migrate ./my-flow --from environment.yml
  pfsession migrate ./my-flow --from conda.yml --image mine.azurecr.io/flow:7
  pfsession migrate ./my-flow --image mine.azurecr.io/flow:7 --yes")]
pub(crate) struct Migrate {
    /// The flow's folder
    #[arg(value_name = "FLOW")]
    flow: PathBuf,
    /// The environment of the runtime
    #[arg(long, value_name = "FILE", required_unless_present = "image")]
    from: Option<PathBuf>,
    /// The base image, such as the one that was built of the environment; without it, the one that
    /// FILE names
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Write without asking
    #[arg(long)]
    yes: bool,
}

/// A migration.
#[derive(Serialize, JsonSchema)]
pub(crate) struct MigrationView {
    /// The base image that the flow names afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    /// The files that change.
    files: Vec<FileChange>,
    /// Parts that were left out or need the user: a sentence each.
    notes: Vec<String>,
    /// Whether the files are written.
    written: bool,
}

/// A file that changes.
#[derive(Serialize, JsonSchema)]
struct FileChange {
    file: String,
    /// The unified difference.
    difference: String,
}

impl Execute for Migrate {
    type Json = MigrationView;

    fn execute(&self, service: &Service<'_>) -> Done {
        let reach = flow::include_root(&self.flow);
        let migration = flow::migrate(&self.flow, &reach, self.from.as_deref(), self.image.as_deref())
            .map_err(|failure| Trouble::of(USAGE, failure))?;
        let is_here = service.global.endpoint.is_none();
        let state = is_here.then(|| service.local()).transpose()?.map(|local| local.state);
        let image = check::image(migration.image.as_ref(), state.as_deref());
        let Migration {
            requirements,
            flow_file,
            image: name,
            notes,
        } = migration;
        let saved: Vec<Saved> = requirements.into_iter().chain(flow_file).collect();
        let mut view = MigrationView {
            image: name,
            files: saved.iter().map(|saved| change(saved, &self.flow)).collect(),
            notes,
            written: false,
        };
        let json = service.global.json;
        if !json {
            view.files.iter().for_each(|file| out(&file.difference));
            view.notes.iter().for_each(|said| note!("{said}"));
        }
        if image.result == CheckResult::Lacking {
            let error = image.error.unwrap_or(Code::ImageFailed);
            return Err(Trouble::new(FAILED, error, image.what).what("nothing was written"));
        }
        if saved.is_empty() {
            note!("{} says all of this already.", self.flow.display());
        } else if self.yes || !json {
            if !self.yes {
                confirm::ask("These files are written as shown.", false, Unasked::Refuse)?;
            }
            saved.iter().try_for_each(save)?;
            view.written = true;
        }
        match (json, view.written) {
            (true, _) => out_json(&view),
            (false, true) => note!("Written. To start its session: pfsession start {}", self.flow.display()),
            (false, false) => {}
        }
        Ok(0)
    }
}

fn save(saved: &Saved) -> Result<(), Box<Trouble>> {
    write(&saved.file, saved.after.as_bytes()).map_err(|error| {
        let message = format!("{} cannot be written: {error}. Put that right.", saved.file.display());
        Trouble::new(FAILED, Code::CommandNotWritten, message)
    })
}

/// A file's unified difference, with its path as the flow folder was typed.
fn change(saved: &Saved, flow: &Path) -> FileChange {
    let before = saved.before.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let name = saved.file.file_name().unwrap_or_default();
    let file = flow.join(name).display().to_string();
    let from = if saved.before.is_some() {
        file.as_str()
    } else {
        "/dev/null"
    };
    let difference = TextDiff::from_lines(&*before, &saved.after);
    let difference = difference.unified_diff().header(from, &file).to_string();
    FileChange { file, difference }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_file_that_changes_is_shown_as_a_difference() {
        let saved = |before: Option<&str>, after: &str| Saved {
            file: "/repo/flow/requirements.txt".into(),
            before: before.map(|text| text.as_bytes().to_vec()),
            after: after.to_owned(),
        };
        let texts = [saved(None, "numpy\n"), saved(Some("a\nb\nc\n"), "a\nb\nnumpy\nc\n")];
        let texts = texts.map(|saved| change(&saved, Path::new("./flow")).difference);
        expect![[r#"
            --- /dev/null
            +++ ./flow/requirements.txt
            @@ -0,0 +1 @@
            +numpy
            --- ./flow/requirements.txt
            +++ ./flow/requirements.txt
            @@ -1,3 +1,4 @@
             a
             b
            +numpy
             c
        "#]]
        .assert_eq(&texts.concat());
    }
}
