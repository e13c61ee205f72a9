//! `cargo xtask test`: every test, and one honest line at the end.

mod programs;
mod summary;

use std::{
    env,
    process::{Command, ExitCode},
};

use anyhow::Result;
use clap::Args;

use crate::{
    build_ebpf, command,
    tools::{self, SystemTool},
};

/// Which tests to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Only tests with one of these in their name; all tests when none is given
    filters: Vec<String>,
}

/// What the lab uses.
pub(crate) const LAB_TOOLS: [SystemTool; 3] = [
    SystemTool { program: "nft", package: "nftables" },
    SystemTool { program: "ip", package: "iproute2" },
    SystemTool { program: "conntrack", package: "conntrack" },
];

/// What tests put beside it.
const TEST_TOOLS: [SystemTool; 6] = [
    SystemTool { program: "dnsmasq", package: "dnsmasq-base" },
    SystemTool { program: "udhcpc", package: "udhcpc" },
    SystemTool { program: "promtool", package: "prometheus" },
    SystemTool { program: "chromium", package: "chromium" },
    SystemTool { program: "chromedriver", package: "chromium-driver" },
    SystemTool { program: "tmux", package: "tmux" },
];

/// Runs the tests. Success is that none failed and, in CI, that none was skipped.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    build_ebpf::ensure_current()?;
    if tools::is_root() {
        tools::ensure_system_tools(&LAB_TOOLS)?;
        tools::ensure_system_tools(&TEST_TOOLS)?;
    } else {
        println!("Not root: tests that need the kernel will be skipped.");
    }
    // The binaries too, because the lab runs them. In one command with the tests, so that what both depend on is
    // built once, with one set of features.
    command::run(Command::new("cargo").args(["build", "--workspace", "--locked", "--bins", "--tests"]))?;
    let mut arguments = vec!["--show-output".to_owned()];
    arguments.extend_from_slice(&options.filters);
    let mut summary = programs::run(programs::find()?, &arguments)?;
    let mut examples = Command::new("cargo");
    examples.args(["test", "--workspace", "--locked", "--no-fail-fast", "--doc", "--"]).args(&arguments);
    command::show(&examples);
    let (of_examples, shown) = programs::read(&mut examples)?;
    println!("{shown}");
    summary.add(of_examples);
    let in_ci = env::var("CI").is_ok_and(|value| value == "true");
    for skip in &summary.skips {
        println!("NOT TESTED: {skip}");
    }
    for test in &summary.ignored {
        println!("NOT TESTED: {test}: ignored");
    }
    if in_ci && summary.skipped() > 0 {
        println!("A skipped test is a failure in CI.");
    }
    println!("{}", summary.line());
    Ok(if summary.is_success(in_ci) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
