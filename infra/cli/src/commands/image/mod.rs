//! `pfsession image`: the base images of this machine.

mod build;
mod dockerfile;
mod progress;

use super::packages;
use crate::{
    command::{Execute, family},
    global::{Done, Service},
    show,
    terminal::{fit, note},
    text::{out, out_json, took},
    trouble::{FAILED, NONE, Trouble, USAGE},
    wish,
};
use build::Build;
use clap::Args;
use comfy_table::Cell;
use contract::route::Route;
use contract::{Code, Failure};
use dockerfile::{DockerfileView, Of};
use images::{Name, Store, accounts::Accounts};
use progress::Shown;
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

family! {
    /// Manage the base images of this machine
    Image {
        Pull(Pull),
        List(List),
        Build(Build),
        Dockerfile(Dockerfile),
        Remove(Remove),
    }
}

/// Pull an image ahead, so that no session waits for it
#[derive(Args, Debug)]
#[command(after_help = "\
A name is registry/name:tag, registry/name@sha256:…, docker-archive:/file or oci-archive:/file.
Accounts are those of `pfsession registry login`, then Docker's own.

Examples:
  pfsession image pull ghcr.io/ann/flow:1
  pfsession image pull docker-archive:/tmp/flow.tar --json")]
pub(crate) struct Pull {
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
}

impl Execute for Pull {
    type Json = ImageView;

    fn execute(&self, service: &Service<'_>) -> Done {
        let (store, state) = store(service)?;
        let name: Name = self.image.parse().map_err(trouble)?;
        let shown = Shown::default();
        let pulled = store.pull(&name, &Accounts::of(&state), &|step| shown.take(&step));
        shown.end();
        let digest = pulled.map_err(trouble)?.record.digest;
        if service.global.json {
            let view = store.list().into_iter().find(|listed| listed.digest == digest);
            out_json(&view.map(ImageView::from));
        } else {
            out(&name.pinned(&digest));
        }
        Ok(0)
    }
}

/// List the images of this machine, the last used first
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession image list
  pfsession image list --json | jq -r '.images[].digest'")]
pub(crate) struct List {}

impl Execute for List {
    type Json = ImageList;

    fn execute(&self, service: &Service<'_>) -> Done {
        let (store, _) = store(service)?;
        let images: Vec<ImageView> = store.list().into_iter().map(ImageView::from).collect();
        match (service.global.json, images.is_empty()) {
            (true, _) => out_json(&ImageList { images }),
            (false, true) => note!("There are none. To have one: pfsession image pull NAME"),
            (false, false) => out(&table(&images)),
        }
        Ok(0)
    }
}

/// Print a Dockerfile that builds an image with the environment of a flow's session
#[derive(Args, Debug)]
#[command(after_help = "\
It has every package with its version and its hashes, over the session's base image by its digest.
For what is deployed, build such an image: a session is for trying things out.

Examples:
  pfsession image dockerfile ./my-flow > Dockerfile
  pfsession image dockerfile ./my-flow | docker build -t ghcr.io/ann/flow:2 -")]
pub(crate) struct Dockerfile {
    /// The flow's folder
    #[arg(value_name = "FLOW")]
    flow: PathBuf,
}

impl Execute for Dockerfile {
    type Json = DockerfileView;

    fn execute(&self, service: &Service<'_>) -> Done {
        let state = service.local()?.state;
        let client = service.client()?;
        let flow = wish::flow_at(&self.flow, &client.user)?;
        let row = packages::recorded_packages(&client, &flow)?.ok_or_else(|| packages::none(&flow))?;
        let session = client.find(Route::Session(&flow.key()))?;
        let of = Of {
            typed: &flow.typed,
            row: &row,
            session: session.as_ref(),
        };
        let view = dockerfile::make(&state, &of)?;
        match service.global.json {
            true => out_json(&view),
            false => out(view.dockerfile.trim_end()),
        }
        Ok(0)
    }
}

/// Remove an image; images that were not used for 30 days are removed automatically
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession image remove ghcr.io/ann/flow:1
  pfsession image remove 6500ad6260af")]
pub(crate) struct Remove {
    /// The image: a name, a digest, or how that begins
    #[arg(value_name = "IMAGE")]
    image: String,
}

impl Execute for Remove {
    /// The digests of the images that were removed.
    type Json = Vec<String>;

    fn execute(&self, service: &Service<'_>) -> Done {
        let (store, _) = store(service)?;
        let removed = store.remove(&self.image).map_err(trouble)?;
        match service.global.json {
            true => out_json(&removed.digests),
            false => removed.digests.iter().for_each(|digest| note!("Removed {digest}.")),
        }
        Ok(0)
    }
}

/// The images of this machine, and its state folder.
fn store(service: &Service<'_>) -> Result<(Store, PathBuf), Box<Trouble>> {
    let state = service.local()?.state;
    let store = Store::open(&environments::store_folder(&state)).map_err(|error| {
        trouble(Failure::new(
            Code::ImageFailed,
            format!("{} cannot be used: {error}", state.display()),
        ))
    })?;
    Ok((store, state))
}

/// The images that are here.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ImageList {
    images: Vec<ImageView>,
}

/// One image. It never has a credential.
///
/// * `names`: what stood for it when it was last asked for.
/// * `pulled`, `used`: in milliseconds since 1970.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ImageView {
    digest: String,
    names: Vec<String>,
    bytes: u64,
    layers: usize,
    pulled: u64,
    used: u64,
    in_use: bool,
}

impl From<images::Listed> for ImageView {
    fn from(listed: images::Listed) -> Self {
        Self {
            digest: listed.digest,
            names: listed.names,
            bytes: listed.bytes,
            layers: listed.layers,
            pulled: listed.pulled,
            used: listed.used,
            in_use: listed.is_in_use,
        }
    }
}

pub(crate) fn trouble(failure: Failure) -> Box<Trouble> {
    let exit = match failure.error {
        Code::ImageBadName | Code::ImageBadAccount => USAGE,
        Code::ImageNotHere => NONE,
        _ => FAILED,
    };
    Trouble::of(exit, failure)
}

fn table(images: &[ImageView]) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    let mut table = show::table(&["IMAGE", "DIGEST", "SIZE", "LAYERS", "LAST USED"]);
    for image in images {
        let digest: String = image.digest.chars().take(19).collect();
        let used = match image.in_use {
            true => "in use".to_owned(),
            false => format!("{} ago", took(now.saturating_sub(image.used))),
        };
        let names = if image.names.is_empty() {
            "—".to_owned()
        } else {
            image.names.join("\n")
        };
        table.add_row([
            Cell::new(fit(&names)),
            Cell::new(digest),
            Cell::new(format!("{} MB", image.bytes.div_ceil(1_000_000))),
            Cell::new(image.layers),
            Cell::new(used),
        ]);
    }
    show::render(table)
}
