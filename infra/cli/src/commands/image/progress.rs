//! The progress of a pull or a build.

use crate::terminal::note;
use images::{How, Step};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lifecycle::count_with;
use std::{
    collections::HashMap,
    io::{self, IsTerminal},
    sync::Mutex,
};

/// The progress of a pull: a bar for each layer on a terminal, elsewhere a line.
#[derive(Default)]
pub(super) struct Shown {
    bars: MultiProgress,
    layers: Mutex<HashMap<String, ProgressBar>>,
}

impl Shown {
    pub(super) fn take(&self, step: &Step<'_>) {
        let Ok(mut layers) = self.layers.lock() else { return };
        let is_terminal = io::stderr().is_terminal();
        let short = |layer: &str| layer.trim_start_matches("sha256:").chars().take(12).collect::<String>();
        match step {
            Step::Layers { missing, present } => {
                if *present > 0 {
                    note!("{} here already", count_with(*present, "layer", ["is", "are"]));
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
            Step::Sent { layer, bytes } => {
                if let Some(bar) = layers.get(*layer) {
                    bar.set_message("sending");
                    bar.set_position(*bytes);
                }
            }
            Step::Kept { layer, how } => {
                let words = match how {
                    How::Present | How::Mounted => "there",
                    How::Sent => "sent",
                    How::Written => "written",
                };
                match layers.get(*layer) {
                    Some(bar) => bar.finish_with_message(words),
                    None => note!("{}  {words}", short(layer)),
                }
            }
            Step::Waiting => note!("waiting for another that pulls the same"),
        }
    }

    pub(super) fn end(&self) {
        if let Ok(layers) = self.layers.lock() {
            layers
                .values()
                .filter(|bar| !bar.is_finished())
                .for_each(ProgressBar::abandon);
        }
    }
}
