//! What people read about the program, made from what the program itself knows, so that it cannot be out of step: manual
//! pages and completions from the definition of its command line, and the reference of its commands in `docs/`. The
//! manual page of the config is made from `docs/configuration.md`, which is tested against the parser.

mod commands;
mod config;
mod markdown;
mod reference;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Command, CommandFactory};
use clap_complete::Shell;

pub use reference::reference;

/// A file to be written.
#[derive(Debug)]
pub struct File {
    /// Where, below a folder of the caller's choice: as below `/usr/share`.
    pub path: PathBuf,
    /// What is in it.
    pub text: Vec<u8>,
}

/// The manual pages: one of the program, one of each of its commands, and that of its config.
pub fn manual_pages() -> Result<Vec<File>> {
    let command = command();
    let mut pages = vec![config::page()?];
    for command in std::iter::once(&command).chain(visible(&command)) {
        pages.push(commands::page(command)?);
    }
    Ok(pages)
}

/// The completions for shells, each where that shell looks for it.
#[must_use]
pub fn completions() -> Vec<File> {
    let places = [
        (Shell::Bash, "bash-completion/completions/balance-user"),
        (Shell::Zsh, "zsh/vendor-completions/_balance-user"),
        (Shell::Fish, "fish/vendor_completions.d/balance-user.fish"),
    ];
    let completion = |(shell, path): (Shell, &str)| {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command(), PROGRAM, &mut text);
        File { path: path.into(), text }
    };
    places.map(completion).into()
}

/// What the program is called.
const PROGRAM: &str = "balance-user";

/// Where manual pages say that they are from.
const SOURCE: &str = concat!("balance ", env!("CARGO_PKG_VERSION"));

/// The command line, with what commands have of the options that all of them have.
fn command() -> Command {
    let mut command = balance_user::cli::args::Cli::command();
    command.build();
    command
}

/// The commands that are shown.
fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}
