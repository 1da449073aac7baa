//! The base images of this machine, and the accounts at registries that they are pulled with.

use crate::{
    args,
    commands::{Done, Service},
    dockerfile::{self, Of},
    packages, show,
    terminal::{fit, note},
    text::{out, out_json, took},
    trouble::{FAILED, NONE, Trouble, USAGE},
    wish,
};
use comfy_table::Cell;
use contract::Failure;
use images::{Name, Step, Store, accounts, accounts::Accounts};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    collections::HashMap,
    io::{self, IsTerminal},
    path::Path,
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

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

/// The registries that have an account here.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Registries {
    registries: Vec<String>,
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

fn trouble(failure: Failure) -> Box<Trouble> {
    let exit = match failure.error.as_str() {
        "Image.BadName" | "Image.BadAccount" => USAGE,
        "Image.NotHere" => NONE,
        _ => FAILED,
    };
    Trouble::of(exit, failure)
}

pub(crate) fn execute(service: &Service<'_>, typed: &args::Image) -> Done {
    if let args::Image::Dockerfile { flow } = typed {
        return print_dockerfile(service, flow);
    }
    let state = service.local()?.state;
    let store = Store::open(&environments::store_folder(&state)).map_err(|error| {
        trouble(Failure::new(
            "Image.Failed",
            format!("{} cannot be used: {error}", state.display()),
        ))
    })?;
    let json = service.global.json;
    match typed {
        args::Image::Pull { image } => {
            let name: Name = image.parse().map_err(trouble)?;
            let shown = Shown::default();
            let pulled = store.pull(&name, &Accounts::of(&state), &|step| shown.take(&step));
            shown.end();
            let digest = pulled.map_err(trouble)?.record.digest;
            if json {
                let view = store.list().into_iter().find(|listed| listed.digest == digest);
                out_json(&view.map(ImageView::from));
            } else {
                out(&name.pinned(&digest));
            }
        }
        args::Image::List => {
            let images: Vec<ImageView> = store.list().into_iter().map(ImageView::from).collect();
            match (json, images.is_empty()) {
                (true, _) => out_json(&ImageList { images }),
                (false, true) => note!("There are none. To have one: pfsession image pull NAME"),
                (false, false) => out(&table(&images)),
            }
        }
        args::Image::Dockerfile { .. } => {}
        args::Image::Remove { image } => {
            let removed = store.remove(image).map_err(trouble)?;
            match json {
                true => out_json(&removed.digests),
                false => removed.digests.iter().for_each(|digest| note!("Removed {digest}.")),
            }
        }
    }
    Ok(0)
}

fn print_dockerfile(service: &Service<'_>, typed: &Path) -> Done {
    let state = service.local()?.state;
    let client = service.client()?;
    let flow = wish::flow_at(typed, &client.user)?;
    let row = packages::recorded(&client, &flow)?.ok_or_else(|| packages::none(&flow))?;
    let session = client.find(&format!("/v1/sessions/{}", flow.key()))?;
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
    show::rendered(table)
}

/// The progress of a pull: a bar for each layer on a terminal, elsewhere a line.
#[derive(Default)]
struct Shown {
    bars: MultiProgress,
    layers: Mutex<HashMap<String, ProgressBar>>,
}

impl Shown {
    fn take(&self, step: &Step<'_>) {
        let Ok(mut layers) = self.layers.lock() else { return };
        let is_terminal = io::stderr().is_terminal();
        let short = |layer: &str| layer.trim_start_matches("sha256:").chars().take(12).collect::<String>();
        match step {
            Step::Layers { missing, present } => {
                if *present > 0 {
                    note!("{present} layers are here already");
                }
                for (layer, size) in missing {
                    if is_terminal {
                        let bar = self.bars.add(ProgressBar::new(*size));
                        let style = ProgressStyle::with_template(
                            "{prefix}  {wide_bar}  {bytes:>10} of {total_bytes:>10}  {msg:9}",
                        );
                        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                        bar.set_prefix(short(layer));
                        layers.insert((*layer).to_owned(), bar);
                    } else {
                        note!("{}  {} MB", short(layer), size.div_ceil(1_000_000));
                    }
                }
            }
            Step::Downloaded { layer, bytes } => drop(layers.get(*layer).map(|bar| bar.set_position(*bytes))),
            Step::Unpacking { layer } => match layers.get(*layer) {
                Some(bar) => bar.set_message("unpacking"),
                None => note!("{}  unpacking", short(layer)),
            },
            Step::Unpacked { layer } => match layers.get(*layer) {
                Some(bar) => bar.finish_with_message("done"),
                None => note!("{}  done", short(layer)),
            },
            Step::Waiting => note!("waiting for another that pulls the same"),
        }
    }

    fn end(&self) {
        if let Ok(layers) = self.layers.lock() {
            layers
                .values()
                .filter(|bar| !bar.is_finished())
                .for_each(ProgressBar::abandon);
        }
    }
}

pub(crate) fn registry(service: &Service<'_>, typed: &args::Registry) -> Done {
    let state = service.local()?.state;
    let usage = |message: String| Trouble::new(USAGE, "Image.BadAccount", message);
    match typed {
        args::Registry::Login { registry, username } => {
            let secret = match io::stdin().is_terminal() {
                true => rpassword::prompt_password("The password or token: "),
                false => io::read_to_string(io::stdin()),
            };
            let secret = secret.map_err(|error| usage(format!("Standard input cannot be read: {error}")))?;
            accounts::keep(&state, registry, Some((username, secret.trim()))).map_err(trouble)?;
        }
        args::Registry::Logout { registry } => {
            if !accounts::keep(&state, registry, None).map_err(trouble)? {
                return Err(Trouble::new(
                    NONE,
                    "Image.BadAccount",
                    format!("{registry} has no account here"),
                ));
            }
        }
        args::Registry::List => {
            let registries = accounts::registries(&state).map_err(trouble)?;
            match service.global.json {
                true => out_json(&Registries { registries }),
                false => registries.iter().for_each(|registry| out(registry)),
            }
        }
    }
    Ok(0)
}
