//! The tasks of balance's developers: `cargo xtask` lists them.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "telling what is done is what these tasks are for"
)]

mod bench;
mod build_ebpf;
mod command;
mod demo;
mod manual;
mod package;
mod sources;
mod test;
mod tools;

use std::{env, path::Path, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// The tasks of balance's developers. Each prints the commands it runs, so any step can be repeated by hand.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                 see it work, in a network of its own; as root
  cargo xtask test                 every test; as root also those that need the kernel
  cargo xtask test failover        only the tests with `failover` in their name
  cargo xtask bench --quick        what does a packet cost? --help has more
  cargo xtask build-ebpf           after a change to what runs in the kernel
  cargo xtask build-ebpf --check   are the committed objects what these sources give?
  cargo xtask manual               after a change to the command line
  cargo xtask package deb          a package for Debian and its kin

Building balance itself needs no task: `cargo build` embeds the eBPF object kept in balance-ebpf/prebuilt/.";

#[derive(Subcommand)]
enum Task {
    /// See balance at work: a router, two ISPs, the real daemon, real flows; takes root and under a minute
    ///
    /// Builds everything, makes a network of namespaces that nothing else sees, and shows how flows are split, how
    /// they survive the death of an ISP, how a weight is changed, and that nothing is left afterwards. Fails when
    /// something is not as it should be. The programs nft and ip are installed if they are missing, by apt-get.
    Demo,
    /// Measure what a forwarded packet costs, with balance and with what else there is; takes root
    ///
    /// Builds everything optimised, makes labs, and measures them in turn: plain forwarding, NAT, kernel multipath,
    /// nft, iptables, and balance. A peer whose tool is not installed is named as missing. docs/bench.md says what is
    /// measured and how; `cargo xtask bench --help` what there is to choose.
    Bench(bench::Options),
    /// Rebuild the eBPF objects in balance-ebpf/prebuilt/ and bench/prebuilt/
    ///
    /// Needed after a change to balance-ebpf, balance-common or bench/ebpf; commit the result with it. The first time this
    /// installs what it needs: the standard library's sources into the toolchain and bpf-linker into
    /// target/tools. After that no network is needed. When nothing has changed, nothing is built. The same
    /// sources give the same bytes on every machine.
    BuildEbpf(build_ebpf::Options),
    /// Write docs/commands.md, the manual pages and the completions, as the program tells them of itself
    ///
    /// Needed after a change to the command line; commit docs/commands.md with it.
    Manual,
    /// Make packages for installing balance: .deb, .rpm, and a tarball with a static program
    ///
    /// They are written into target/package. The first time this installs cargo-deb and cargo-generate-rpm into
    /// target/tools. What has not changed is not made again.
    Package(package::Options),
    /// Run every test of the workspace and count what passed, failed and was skipped
    ///
    /// Tests that need root or a kernel with BPF are skipped without; in CI (CI=true) a skip is a failure. The
    /// last line of the output is `N passed, M failed, K skipped`.
    Test(test::Options),
}

fn main() -> ExitCode {
    run(&Arguments::parse().task).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: &Task) -> Result<ExitCode> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no workspace")?;
    // Every path below is relative to the workspace, and so is every command that is printed.
    env::set_current_dir(workspace).with_context(|| format!("cannot enter {}", workspace.display()))?;
    match task {
        Task::Demo => demo::run(),
        Task::Bench(options) => bench::run(options),
        Task::BuildEbpf(options) => build_ebpf::run(options).map(|()| ExitCode::SUCCESS),
        Task::Manual => manual::run().map(|()| ExitCode::SUCCESS),
        Task::Package(options) => package::run(options).map(|()| ExitCode::SUCCESS),
        Task::Test(options) => test::run(options),
    }
}
