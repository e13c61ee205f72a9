//! `cargo xtask bench`: builds balance as it is used, and measures it. The benchmark is a program of its own.

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::Result;
use clap::Args;

use crate::{command, test, tools};

/// What the benchmark shall do.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// What the benchmark is told; `--help` says what there is
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Where cargo puts optimised programs.
const PROGRAMS: &str = "target/release";

/// Runs the benchmark. Its exit code says whether it could, and whether nothing got worse.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if tools::is_root() {
        tools::ensure_system_tools(&test::LAB_TOOLS)?;
    }
    command::run(Command::new("cargo").args([
        "build",
        "--release",
        "--locked",
        "--target-dir",
        "target",
        "--package",
        "balance-user",
        "--package",
        "balance-bench",
        "--bins",
    ]))?;
    let programs = Path::new(PROGRAMS);
    let mut bench = Command::new(programs.join("balance-bench"));
    bench.env("BALANCE_USER", programs.canonicalize()?.join("balance-user")).args(&options.arguments);
    command::show(&bench);
    let status = bench.status().map_err(|error| command::cannot_run(&bench, &error))?;
    // What is wrong it has said itself.
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
