//! `cargo xtask demo`: builds balance and shows it at work. The demo itself is a program of the lab.

use std::{
    env,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{command, test, tools};

/// The demo's program, beside which the daemon's lies.
const PROGRAM: &str = "demo";

/// Runs the demo. Its exit code says whether everything was as it should be.
pub(crate) fn run() -> Result<ExitCode> {
    if !tools::is_root() {
        bail!(
            "the demo makes network namespaces, which takes root: sudo -E env PATH=\"$PATH\" cargo xtask demo"
        );
    }
    tools::ensure_system_tools(&test::LAB_TOOLS)?;
    command::run(Command::new("cargo").args([
        "build",
        "--locked",
        "--package",
        "balance-user",
        "--package",
        "balance-lab",
        "--bins",
    ]))?;
    // Cargo puts the programs of this workspace into one folder, wherever that is.
    let program = env::current_exe().context("cannot tell where this program is")?.with_file_name(PROGRAM);
    let mut demo = Command::new(program);
    command::show(&demo);
    let status = demo.status().map_err(|error| command::cannot_run(&demo, &error))?;
    // What is wrong it has said itself.
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
