//! `pfsession man`.

use crate::{
    command::{Execute, NoJson},
    global::{Done, Service},
    text::out_text,
    trouble::{FAILED, Trouble},
};
use clap::Args;
use contract::Code;
use std::path::{Path, PathBuf};

/// Print the manual page, or write it and those of all commands into a folder
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession man | man -l -
  pfsession man --out ~/.local/share/man/man1 && man pfsession-run")]
pub(crate) struct Man {
    /// The folder that the pages are written to
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl Execute for Man {
    type Json = NoJson;

    fn execute(&self, service: &Service<'_>) -> Done {
        let folder = self.out.as_deref();
        manual((service.command_line)(), folder).map_err(|cause| {
            let place = folder.map_or_else(|| "standard output".into(), |folder| folder.display().to_string());
            Trouble::new(
                FAILED,
                Code::CommandNotWritten,
                format!("The manual cannot be written to {place}: {cause}"),
            )
            .next("name a folder that can be written to: pfsession man --out FOLDER")
        })?;
        Ok(0)
    }
}

/// Prints the manual page; with a folder, writes it and those of all commands into it.
pub(crate) fn manual(command_line: clap::Command, folder: Option<&Path>) -> std::io::Result<()> {
    match folder {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            clap_mangen::generate_to(command_line, folder)
        }
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(command_line).render(&mut text)?;
            out_text(&text);
            Ok(())
        }
    }
}
