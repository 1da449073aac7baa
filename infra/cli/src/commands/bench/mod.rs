//! `pfsession bench`: how fast sessions are on this machine, beside the physical floor and what
//! people have without this.
//!
//! All of it goes the whole way: a command in by HTTP, every queue, real function processes, the
//! observed result out. It has a host of its own over a state folder of its own; the environments
//! are those that the user's sessions have.

mod figures;
mod image;
mod measure;
mod plain;

use crate::{
    client::Client,
    command::Execute,
    global::{Done, Service},
    request::address_of,
    service::Local,
    text::{out, out_json},
};
use clap::Args;
use figures::{Figure, Report, Times, ms};
use measure::{Bench as Measuring, not_written};
use std::{fs, path::PathBuf};

/// Measure the speed of sessions on this machine, beside the physical floor and the plain
/// alternative
///
/// It runs on a service of its own, apart from your sessions. It uses your package environments,
/// and builds those that are missing first. Figures need a machine without other load.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession bench
  pfsession bench --rounds 41 --at-once 20 --json > figures.json")]
pub(crate) struct Bench {
    /// The number of rounds of each measurement
    #[arg(long, value_name = "N", default_value_t = 15)]
    pub(crate) rounds: usize,
    /// The number of sessions to start, run and stop at once at the end; 0 for none
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=50))]
    pub(crate) at_once: u8,
    /// Also start sessions from this image, of a registry or an archive
    #[arg(long, value_name = "REF")]
    pub(crate) image: Option<String>,
    /// A state folder whose tables are in it as they are, beside which is measured; it is kept
    #[arg(long = "in", value_name = "FOLDER", hide = true)]
    pub(crate) within: Option<PathBuf>,
}

impl Execute for Bench {
    type Json = Report;

    fn execute(&self, service: &Service<'_>) -> Done {
        let local = &service.local()?;
        let beside = local.state.parent().unwrap_or(&local.state);
        let cannot = |why| not_written(beside, &why);
        fs::create_dir_all(beside).map_err(cannot)?;
        let place = tempfile::Builder::new()
            .prefix("pfsession-bench-")
            .tempdir_in(beside)
            .map_err(cannot)?;
        let own = Local {
            state: self.within.clone().unwrap_or_else(|| place.path().join("state")),
            store: Some(environments::store_folder(&local.state)),
        };
        let host = own.find_or_start()?;
        let report = Client::new(address_of(&host), Some(own.clone()), None).and_then(|client| {
            let bench = Measuring {
                client,
                place: place.path(),
                store: own.store.clone().unwrap_or_default(),
                rounds: self.rounds.max(1),
            };
            bench.measure(usize::from(self.at_once), self.image.as_deref())
        });
        // Whatever it has found, nothing of it stays.
        own.end(&host)?;
        let report = report?;
        if service.global.json {
            out_json(&report);
        } else {
            table(&report);
        }
        Ok(0)
    }
}

fn table(report: &Report) {
    out("| what | ours (median) | 90 % within | rounds | floor | the plain way |");
    out("| --- | --- | --- | --- | --- | --- |");
    let beside = |times: &Option<Times>| {
        times.as_ref().map_or_else(
            || "-".to_owned(),
            |times| format!("{} ({})", ms(times.median_ms), times.what),
        )
    };
    for Figure { ours, floor, plain } in &report.figures {
        out(&format!(
            "| {} | {} | {} | {} | {} | {} |",
            ours.what,
            ms(ours.median_ms),
            ms(ours.p90_ms),
            ours.rounds,
            beside(floor),
            beside(plain)
        ));
    }
    out("");
    out(&format!("Isolation: {}", report.isolation));
}
