//! `pfsession completions`.

use crate::{
    command::{Execute, NoJson},
    global::{Done, Service},
    text::out_text,
};
use clap::Args;

/// Print the completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pfsession completions bash > ~/.local/share/bash-completion/completions/pfsession
  pfsession completions zsh > ~/.zfunc/_pfsession
  pfsession completions fish > ~/.config/fish/completions/pfsession.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Execute for Completions {
    type Json = NoJson;

    fn execute(&self, service: &Service<'_>) -> Done {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut (service.command_line)(), "pfsession", &mut text);
        out_text(&text);
        Ok(0)
    }
}
