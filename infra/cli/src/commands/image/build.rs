//! `pfsession image build`: the environment of a flow's session as an image.

use super::{
    dockerfile::{self, Of},
    progress::Shown,
    trouble,
};
use crate::{
    command::Execute,
    commands::packages,
    global::{Done, Service},
    terminal::note,
    text::{out, out_json},
    trouble::{FAILED, Trouble},
    wish::{self, Flow},
};
use clap::Args;
use contract::route::Route;
use contract::{Code, Failure, agent::LineKind, http::SessionView};
use environments::{Exported, locked::Locked, reach::Reach, store::Store as Environments};
use images::{Addition, Built, How, Name, Reference, Store, Target, accounts::Accounts};
use sandbox::python::Python;
use schemars::JsonSchema;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Build an image with the environment of a flow's session, without Docker
#[derive(Args, Debug)]
#[command(after_help = "\
It has the layers of the session's base image, and one layer with the packages that the session has.
The base of `promptflow` and `python` is Docker's own Python of the same version. The same packages
over the same base give the same digest; SOURCE_DATE_EPOCH sets the time that the image names.
A session on it has no package to install. Accounts are those of `pfsession registry login`.

Examples:
  pfsession image build ./my-flow                         writes my-flow.tar
  pfsession image build ./my-flow -t ghcr.io/ann/flow:2 --push
  pfsession run ./my-flow --image oci-archive:$PWD/my-flow.tar")]
pub(crate) struct Build {
    /// The flow's folder
    #[arg(value_name = "FLOW")]
    flow: PathBuf,
    /// The name of the image
    #[arg(short, long, value_name = "NAME:TAG", required_if_eq("push", "true"))]
    tag: Option<String>,
    /// The archive to write; without it, the flow's name with .tar
    #[arg(short, long, value_name = "FILE", conflicts_with = "push")]
    output: Option<PathBuf>,
    /// Send the image to its registry, and write no archive
    #[arg(long)]
    push: bool,
}

/// An image that was built.
#[derive(Serialize, JsonSchema)]
pub(crate) struct BuiltView {
    digest: String,
    /// The name for `--image`.
    image: String,
    /// The image that it is built over, by its digest.
    base: String,
    /// The lock that is installed in it.
    lock: String,
    /// The sum of its layers as they are sent.
    bytes: u64,
    layers: Vec<BuiltLayerView>,
}

/// A layer of an image that was built.
///
/// * `how`: `present` or `mounted` at the registry before, `sent` to it, or `written` to the
///   archive.
#[derive(Serialize, JsonSchema)]
struct BuiltLayerView {
    digest: String,
    bytes: u64,
    how: String,
}

impl Execute for Build {
    type Json = BuiltView;

    fn execute(&self, service: &Service<'_>) -> Done {
        let named = self.tag.as_deref().map(reference).transpose()?;
        let (store, state) = super::store(service)?;
        let client = service.client()?;
        let flow = wish::flow_at(&self.flow, &client.user)?;
        let row = packages::recorded_packages(&client, &flow)?.ok_or_else(|| packages::none(&flow))?;
        let session: Option<SessionView> = client.find(Route::Session(&flow.key()))?;
        let of = Of {
            typed: &flow.typed,
            row: &row,
            session: session.as_ref(),
        };
        let (base, locked) = dockerfile::base_and_lock(&state, &of)?;
        let folder = client.user.folders.folder_of(&flow.reference);
        let (exported, base) = export(&state, &base, &folder, &locked, session.as_ref())?;
        let file = self.file(&flow)?;
        let full = named.as_ref().map(Reference::to_string);
        let target = match &named {
            Some(reference) if self.push => Target::Registry(reference),
            _ => Target::File(&file, full.as_deref()),
        };
        let built = write(&store, &state, &base, &exported, target)?;
        let image = match target {
            Target::Registry(reference) => Name::Registry(reference.clone()).pinned(&built.digest),
            Target::File(file, _) => format!("oci-archive:{}", file.display()),
        };
        let view = view(built, image, base.to_string(), row.lock.clone());
        match service.global.json {
            true => out_json(&view),
            false => {
                note!("{} MB, {}", view.bytes.div_ceil(1_000_000), view.digest);
                out(&view.image);
            }
        }
        Ok(0)
    }
}

impl Build {
    /// The archive, by an absolute path: names of images have no other.
    fn file(&self, flow: &Flow) -> Result<PathBuf, Box<Trouble>> {
        let name = flow.reference.lineage.rsplit('/').next().unwrap_or("flow");
        let file = self.output.clone().unwrap_or_else(|| format!("{name}.tar").into());
        std::path::absolute(&file).map_err(|error| cannot(&format!("{} cannot be written: {error}", file.display())))
    }
}

/// The name of a new image: a registry's, without a digest.
fn reference(text: &str) -> Result<Reference, Box<Trouble>> {
    match text.parse().map_err(trouble)? {
        Name::Registry(reference) if reference.digest.is_none() => Ok(reference),
        _ => Err(trouble(Failure::new(
            Code::ImageBadName,
            format!("{text:?} is no name that a new image can have. Write it as registry/name:tag."),
        ))),
    }
}

fn cannot(why: &str) -> Box<Trouble> {
    Trouble::new(
        FAILED,
        Code::ImageFailed,
        format!("{why}. Put that right, and build the image again."),
    )
}

/// Installs the packages of a lock over a base image. Returns them, and the base by its digest.
fn export(
    state: &Path,
    base: &str,
    folder: &Path,
    locked: &Locked,
    session: Option<&SessionView>,
) -> Result<(Exported, Name), Box<Trouble>> {
    let base: Name = base.parse().map_err(trouble)?;
    let lines = flow::environment(folder, &flow::include_root(folder)).map_err(trouble)?;
    let lines = lines
        .requirements
        .map(|requirements| requirements.lines)
        .unwrap_or_default();
    let python = Python::find().map_err(trouble)?;
    let place = state.display();
    let opened = Environments::open(state, &environments::image::PROMPTFLOW, python);
    let mut store = opened.map_err(|error| cannot(&format!("{place} cannot be used: {error}")))?;
    if let Some(session) = session {
        *store.reach.borrow_mut() = Reach::of(&session.settings);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| cannot(&format!("The build cannot begin: {error}")))?;
    // A network of its own is served by a task of this thread.
    let tasks = tokio::task::LocalSet::new();
    tasks
        .block_on(&runtime, async {
            store.root_in(&base, &|text| note!("{text}")).await?;
            let digest = store.root.as_ref().map(|root| root.digest.clone()).unwrap_or_default();
            let say = |kind: LineKind, text: String| {
                if kind == LineKind::Stage {
                    note!("{text}");
                }
            };
            let exported = store.export(locked, &lines, &say, "the lines above").await?;
            Ok((exported, base.pinned(&digest).parse()?))
        })
        .map_err(trouble)
}

fn write(
    store: &Store,
    state: &Path,
    base: &Name,
    exported: &Exported,
    target: Target<'_>,
) -> Result<Built, Box<Trouble>> {
    let created = match std::env::var("SOURCE_DATE_EPOCH").ok().map(|text| text.parse()) {
        None => None,
        Some(Ok(seconds)) if seconds < 253_402_300_800 => {
            Some(humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string())
        }
        Some(_) => return Err(cannot("SOURCE_DATE_EPOCH is no number of seconds since 1970")),
    };
    let path = exported.at.join("bin").display().to_string();
    let addition = Addition {
        folder: &exported.folder(),
        at: &exported.at,
        path: &path,
        history: "pfsession image build",
        created: created.as_deref(),
    };
    let shown = Shown::default();
    let built = store.build(base, &Accounts::of(state), &addition, target, &|step| shown.take(&step));
    shown.end();
    built.map_err(trouble)
}

fn view(built: Built, image: String, base: String, lock: String) -> BuiltView {
    let how = |how| match how {
        How::Present => "present",
        How::Mounted => "mounted",
        How::Sent => "sent",
        How::Written => "written",
    };
    BuiltView {
        digest: built.digest,
        image,
        base,
        lock,
        bytes: built.layers.iter().map(|layer| layer.bytes).sum(),
        layers: built
            .layers
            .into_iter()
            .map(|layer| BuiltLayerView {
                how: how(layer.how).to_owned(),
                digest: layer.digest,
                bytes: layer.bytes,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_new_image_has_the_name_of_a_registry_without_a_digest() {
        expect![[r#"error: "oci-archive:/a.tar" is no name that a new image can have. Write it as registry/name:tag. [Image.BadName]"#]]
            .assert_eq(&reference("oci-archive:/a.tar").unwrap_err().to_string());
        assert_eq!(reference("ex.org/a:1").unwrap().to_string(), "ex.org/a:1");
        expect!["error: SOURCE_DATE_EPOCH is no number of seconds since 1970. Put that right, and build the image again. [Image.Failed]"]
            .assert_eq(&cannot("SOURCE_DATE_EPOCH is no number of seconds since 1970").to_string());
    }
}
