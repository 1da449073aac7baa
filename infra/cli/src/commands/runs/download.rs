//! `pfsession runs download`.

use super::find;
use crate::{
    command::Execute,
    global::{Done, Service},
    runfiles::{self, Remote},
    terminal::note,
    text::{self, home, out, out_json},
    trouble::{FAILED, Trouble, USAGE},
};
use clap::Args;
use contract::Code;
use lifecycle::count;
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

/// Copy a run's folder: outputs, log, records, and the files that it made
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  pfsession runs download my-flow-1c9e54a07b2d --to ./results")]
pub(crate) struct Download {
    /// The run
    run: String,
    /// The folder to create [default: the run's name]
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

/// A copy of a run's folder.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Copied {
    run: String,
    folder: PathBuf,
    files: usize,
    bytes: u64,
}

impl Execute for Download {
    type Json = Copied;

    fn execute(&self, service: &Service<'_>) -> Done {
        let client = &*service.client()?;
        let row = &find(client, &self.run)?;
        let Some(all) = runfiles::list(client, &row.id)? else {
            return Err(runfiles::elsewhere(row));
        };
        let to = self
            .to
            .as_deref()
            .map_or_else(|| Path::new(&row.id).to_owned(), Path::to_owned);
        let failed = |error: std::io::Error| {
            let message = format!("{} cannot be written: {error}", to.display());
            Trouble::new(FAILED, Code::CommandNotWritten, message).next("name another folder: --to FOLDER")
        };
        if to.exists() {
            return Err(would_overwrite(&to));
        }
        let mut bytes = 0;
        for file in &all.files {
            // The service lists what is below the run's folder; what it says is checked all the
            // same.
            let is_below = Path::new(&file.path)
                .components()
                .all(|part| matches!(part, std::path::Component::Normal(_)));
            let Some(mut remote) = Remote::open(client, &row.id, &file.path, false)?.filter(|_| is_below) else {
                continue;
            };
            let place = to.join(&file.path);
            fs::create_dir_all(place.parent().unwrap_or(&to)).map_err(failed)?;
            let mut copy = fs::File::create(&place).map_err(failed)?;
            let mut buffer = vec![0; 1 << 16];
            loop {
                let read = remote.read(&mut buffer).map_err(|error| runfiles::unread(&error))?;
                if read == 0 {
                    break;
                }
                copy.write_all(&buffer[..read]).map_err(failed)?;
                bytes += read as u64;
            }
        }
        if service.global.json {
            out_json(&Copied {
                run: row.id.clone(),
                folder: to,
                files: all.files.len(),
                bytes,
            });
        } else {
            out(&text::folder(&to.display().to_string(), home().as_deref()));
            note!("{}, {}.", count(all.files.len(), "file"), count(bytes, "byte"));
        }
        Ok(0)
    }
}

pub(super) fn would_overwrite(to: &Path) -> Box<Trouble> {
    let message = format!("{} is there already, and nothing is written over", to.display());
    Trouble::new(USAGE, Code::CommandWouldOverwrite, message).next("name another folder: --to FOLDER")
}
