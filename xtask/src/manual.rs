//! `cargo xtask manual`: what people read about the program, made from the program.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};

use crate::command;

/// The reference of the commands, which is committed.
const REFERENCE: &str = "docs/commands.md";

/// Makes all of it, and says where it is.
pub(crate) fn run() -> Result<()> {
    let folder = Path::new("target/manual");
    make(folder, Path::new(REFERENCE))?;
    println!("Wrote {REFERENCE}: commit it. Manual pages and completions are in {}.", folder.display());
    Ok(())
}

/// Makes manual pages and completions in a folder, laid out as below `/usr/share`, and the reference of the commands.
pub(crate) fn make(folder: &Path, reference: &Path) -> Result<()> {
    // Of the whole workspace, or what this shares with the tests would be built again with other features.
    command::run(Command::new("cargo").args([
        "build",
        "--workspace",
        "--locked",
        "--bin",
        "balance-manual",
    ]))?;
    let this = std::env::current_exe().context("cannot tell where this program is")?;
    // Cargo puts the programs of this workspace into one folder, wherever that is.
    command::run(Command::new(this.with_file_name("balance-manual")).args([folder, reference]))
}
