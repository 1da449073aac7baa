//! `pfsession install`.

use super::packages::{change_line, installs_of};
use crate::{
    command::{AwaitedOperation, Execute, Printed, any_of, schema_of},
    global::{Done, Service},
    operate::operate,
    options::Wants,
    snapshot,
    terminal::note,
    text::{out_json, quoted},
    trouble::{FAILED, Trouble, USAGE},
    wish::{self, Flow},
};
use clap::Args;
use contract::{Code, Failure, Kind, command::Wish, packages::InstallRow};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Install the flow's requirements in its session, or add packages to them first
#[derive(Args, Debug)]
#[command(after_help = "\
An install is done whole or not at all: one that fails or is stopped leaves the session as it was. Packages that are named here are saved in the \
requirements file first; if they cannot be installed, the file is put back as well. --rollback changes the session and not the file, and \
`pfsession show` says how the two differ.

The base image's promptflow stays as it is: what cannot be imported beside it is an error. An --extra-index-url goes before the default index, \
and a version that it lacks comes from that; if one of the indexes has a credential, a package that an index has comes from it alone.

Examples:
  pfsession install ./my-flow
  pfsession install ./my-flow humanize 'flask<4'
  pfsession install ./my-flow humanize --save-only
  pfsession install ./my-flow --rollback")]
pub(crate) struct Install {
    /// The flow's folder
    #[arg(value_name = "FLOW")]
    pub(crate) flow: PathBuf,
    /// A requirement to save in the flow's requirements first, in place of the line for the same
    /// package: humanize, 'flask<4'
    #[arg(value_name = "PACKAGE")]
    pub(crate) packages: Vec<String>,
    /// An extra of the folder's own project to install from now on: it is saved in the requirements
    /// as -e .[NAME]
    #[arg(long = "extra", value_name = "NAME", value_parser = extra, conflicts_with = "packages")]
    pub(crate) extras: Vec<String>,
    /// A dependency group of the folder's own project, likewise: it is saved in the requirements as
    /// --group NAME
    #[arg(long = "group", value_name = "NAME", value_parser = extra, conflicts_with_all = ["packages", "extras"])]
    pub(crate) groups: Vec<String>,
    /// Save the requirements, and install nothing
    #[arg(long)]
    pub(crate) save_only: bool,
    /// Go back to the packages before the last install
    #[arg(long, conflicts_with_all = ["packages", "extras", "groups", "save_only"])]
    pub(crate) rollback: bool,
    /// Do not wait for the end; print the operation's id
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) wants: Wants,
}

fn extra(text: &str) -> Result<String, String> {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_of_name) {
        true => Ok(text.to_owned()),
        false => Err("its name has letters, digits, dashes, underscores and dots".to_owned()),
    }
}

/// The requirements file that packages were saved in.
#[derive(Serialize, JsonSchema)]
struct Saved {
    saved: PathBuf,
}

/// The operation; the file with `--save-only`.
pub(crate) enum Installed {}

impl Printed for Installed {
    fn schema() -> Option<Value> {
        let operation = AwaitedOperation::schema()?;
        Some(any_of(&[
            ("an install", operation),
            ("with --save-only", schema_of::<Saved>()),
        ]))
    }
}

impl Execute for Install {
    type Json = Installed;

    fn execute(&self, service: &Service<'_>) -> Done {
        let json = service.global.json;
        let (packages, extras, groups) = (&self.packages, &self.extras, &self.groups);
        let saved = match (packages.is_empty(), extras.is_empty(), groups.is_empty()) {
            (true, true, true) => None,
            (false, ..) => Some(save(&self.flow, |folder, root| flow::save(folder, root, packages))?),
            (_, false, _) => Some(save(&self.flow, |folder, root| {
                flow::save_extras(folder, root, extras)
            })?),
            _ => Some(save(&self.flow, |folder, root| {
                flow::save_groups(folder, root, groups)
            })?),
        };
        if self.save_only && saved.is_none() {
            return Err(nothing_to_save());
        }
        if self.save_only {
            let file = saved.as_ref().map(|saved| saved.file.clone()).unwrap_or_default();
            if json {
                out_json(&Saved { saved: file });
            } else {
                note!(
                    "Saved in {}. To install it: pfsession install {}",
                    file.display(),
                    quoted(&self.flow.display().to_string())
                );
            }
            return Ok(0);
        }
        let done = self.install(service);
        if let (Err(_), Some(saved)) = (&done, &saved) {
            put_back(saved);
        }
        done
    }
}

impl Install {
    /// Installs what the requirements say, or the packages before.
    fn install(&self, service: &Service<'_>) -> Done {
        let json = service.global.json;
        let client = service.client()?;
        let flow = wish::flow_at(&self.flow, &client.user)?;
        let lock = match self.rollback {
            true => Some(lock_before(&installs_of(&client, &flow)?, &flow)?),
            false => None,
        };
        let settings = snapshot::send_folder(&client, &flow, self.wants.change())?;
        let wish = Wish::Install { settings, lock };
        let done = operate(&client, &flow, Kind::Install, wish, self.no_wait, json).map_err(|trouble| match trouble
            .failure
            .error
        {
            Code::SessionNoSession => trouble.next(format!(
                "start it: pfsession start {}; or save only: --save-only",
                flow.typed
            )),
            _ => trouble,
        })?;
        if !self.no_wait
            && !json
            && let Ok(installs) = installs_of(&client, &flow)
            && let Some(last) = installs.last()
        {
            for change in &last.changes {
                note!("  {}", change_line(change));
            }
        }
        Ok(done)
    }
}

fn nothing_to_save() -> Box<Trouble> {
    Trouble::new(USAGE, Code::CommandNothingToSave, "No package, extra or group is named")
        .next("name one: pfsession install FLOW PACKAGE --save-only")
}

/// The lock that the flow's session had before the one that it has.
fn lock_before(installs: &[InstallRow], flow: &Flow) -> Result<String, Box<Trouble>> {
    let now = installs.last().map(|entry| &entry.packages.lock);
    let before = installs.iter().rev().find(|entry| Some(&entry.packages.lock) != now);
    before.map(|entry| entry.packages.lock.clone()).ok_or_else(|| {
        Trouble::new(
            FAILED,
            Code::InstallNothingBefore,
            format!(
                "The session of {} has had no other packages than those it has",
                flow.typed
            ),
        )
        .next(format!("see its installs: pfsession packages {} --history", flow.typed))
    })
}

/// Writes packages into the flow's requirements file.
fn save(
    flow: &Path,
    change: impl FnOnce(&Path, &Path) -> Result<flow::Saved, Failure>,
) -> Result<flow::Saved, Box<Trouble>> {
    let usage = |failure| Trouble::of(USAGE, failure);
    let folder = flow::canonical(wish::folder_of(flow)).map_err(usage)?;
    let saved = change(&folder, &flow::include_root(&folder)).map_err(usage)?;
    write(&saved.file, saved.after.as_bytes()).map_err(|error| {
        let message = format!("{} cannot be written: {error}. Put that right.", saved.file.display());
        Trouble::of(USAGE, Failure::new(Code::FlowUnwritable, message))
    })?;
    Ok(saved)
}

/// As it was, if nobody has changed it since.
fn put_back(saved: &flow::Saved) {
    let file = saved.file.display();
    if fs::read(&saved.file).ok().as_deref() != Some(saved.after.as_bytes()) {
        return note!("{file} was changed meanwhile, and stays as it is.");
    }
    let done = match &saved.before {
        Some(before) => write(&saved.file, before),
        None => fs::remove_file(&saved.file),
    };
    match done {
        Ok(()) => note!("{file} is as it was."),
        Err(error) => note!("{file} could not be put back: {error}."),
    }
}

/// Writes a file: a reader sees all of it, before or after. Its mode stays.
pub(super) fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = file.with_extension(format!("{}.partial", std::process::id()));
    fs::write(&partial, bytes)?;
    if let Ok(about) = fs::metadata(file) {
        fs::set_permissions(&partial, about.permissions())?;
    }
    fs::rename(&partial, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{FlowRef, packages::PackagesRow};
    use expect_test::expect;

    #[test]
    fn what_cannot_be_saved_or_rolled_back_says_what_to_do() {
        let flow = Flow {
            reference: FlowRef {
                workspace: "local".into(),
                owner: "ann".into(),
                lineage: "/flows/cow".into(),
            },
            typed: "./cow".into(),
            named: None,
        };
        expect![[r#"
            error: No package, extra or group is named [Command.NothingToSave]
              next: name one: pfsession install FLOW PACKAGE --save-only"#]]
        .assert_eq(&nothing_to_save().to_string());
        let only = [InstallRow {
            changes: Vec::new(),
            packages: PackagesRow {
                number: 1,
                generation: 1,
                count: 1,
                at: 1_000_000,
                by: "install-1".into(),
                kind: Some(Kind::Install),
                lock: "aaaa1111aaaa1111".into(),
                requirements: Vec::new(),
                packages: Vec::new(),
                isolation: None,
                left_out: None,
                described: None,
            },
        }];
        expect![[r#"
            error: The session of ./cow has had no other packages than those it has [Install.NothingBefore]
              next: see its installs: pfsession packages ./cow --history"#]]
        .assert_eq(&lock_before(&only, &flow).unwrap_err().to_string());
        let folder = tempfile::tempdir().unwrap();
        let partial = format!("requirements.{}.partial", std::process::id());
        fs::create_dir(folder.path().join(partial)).unwrap();
        let cow = |folder: &Path, root: &Path| flow::save(folder, root, &["cowsay".into()]);
        let said = save(folder.path(), cow).unwrap_err().to_string();
        expect!["error: FOLDER/requirements.txt cannot be written: Is a directory (os error 21). Put that right. [Flow.Unwritable]"]
            .assert_eq(&said.replace(&folder.path().canonicalize().unwrap().display().to_string(), "FOLDER"));
    }
}
