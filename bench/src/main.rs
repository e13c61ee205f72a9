//! Measures what a forwarded packet costs. See `--help`, and docs/bench.md for what is measured and how.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use balance_bench::compare::Comparison;
use balance_bench::core::Core;
use balance_bench::report::Report;
use balance_bench::run::Plan;
use balance_bench::{cases, chart, table, traffic};
use clap::Parser;

/// Measures what a forwarded packet costs, with balance and with what else there is.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    /// Only this case; may be given several times. The harness's own cost is always measured along
    #[arg(long, value_name = "NAME", value_parser = known_case)]
    case: Vec<String>,
    /// Only this kind of traffic; may be given several times
    #[arg(long, value_name = "NAME", value_parser = known_traffic)]
    traffic: Vec<String>,
    /// How often each case is measured; growth with flows a third as often
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Three rounds with few packets: to see that it works
    #[arg(long, conflicts_with = "rounds")]
    quick: bool,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the costs of packets into this file, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Compare with the figures in this file, which --json wrote; fails when anything got worse
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Names the cases and the kinds of traffic, and does nothing
    #[arg(long)]
    list: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.list {
        print(&list())?;
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(nix::unistd::geteuid().is_root(), "this makes network namespaces, which takes root");
    // Before anything takes time: it may not be readable.
    let old = arguments.compare.as_deref().map(read).transpose()?;
    let (traffics, cases) = Plan::choose(&arguments.traffic, &arguments.case);
    let (rounds, samples, packets) =
        if arguments.quick { (3, 1, 50_000) } else { (arguments.rounds, 3, 100_000) };
    let plan = Plan { traffics, cases, rounds, samples, packets };
    let report = plan.run(&Core::choose()?, &mut |line| {
        // Whether anybody sees it does not matter.
        let _ = writeln!(io::stderr(), "{line}");
    });
    print(&table::render(&report))?;
    if let Some(file) = &arguments.json {
        write(file, &(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    if let Some(file) = &arguments.svg {
        write(file, &chart::render(&report).context("nothing was measured that can be drawn")?)?;
    }
    let comparison = old.map(|old| Comparison::of(&old, &report));
    print(&comparison.as_ref().map_or_else(String::new, Comparison::render))?;
    let is_worse = comparison.is_some_and(|comparison| comparison.is_worse());
    Ok(if is_worse { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read(file: &Path) -> anyhow::Result<Report> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not of this benchmark", file.display()))
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn list() -> String {
    let case = |case: &cases::Case| format!("  {:<12} {}\n", case.name, case.title);
    let kind = |traffic: &traffic::Traffic| format!("  {:<12} {}\n", traffic.name, traffic.title);
    let cases: String = cases::ALL.iter().map(case).collect();
    let traffics: String = traffic::ALL.iter().map(kind).collect();
    format!("--case\n{cases}--traffic\n{traffics}")
}

fn known_case(name: &str) -> Result<String, String> {
    known(name, cases::ALL.iter().map(|case| case.name))
}

fn known_traffic(name: &str) -> Result<String, String> {
    known(name, traffic::ALL.iter().map(|traffic| traffic.name))
}

fn known(name: &str, mut all: impl Iterator<Item = &'static str>) -> Result<String, String> {
    if all.any(|it| it == name) { Ok(name.to_owned()) } else { Err("unknown; see --list".to_owned()) }
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}
