//! How long new flows have no way after an ISP has failed: the distribution of some runs, 20 if not said otherwise.
//!
//! `cargo build && cargo run -p balance-lab --example failover_times [RUNS]`, as root.

#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::time::Duration;

use anyhow::Context;
use balance_lab::figures::{Failure, failover};
use balance_lab::ready;

fn main() -> anyhow::Result<()> {
    let runs: usize =
        std::env::args().nth(1).map_or(Ok(20), |runs| runs.parse()).context("how many runs?")?;
    if !ready() {
        return Ok(());
    }
    for (failure, what) in [
        (Failure::SilentWithFlows, "silent death, flows running"),
        (Failure::SilentIdle, "silent death, idle"),
        (Failure::Carrier, "loss of carrier"),
    ] {
        let mut outages = failover(failure, runs)?;
        outages.sort();
        let at = |percent: usize| {
            let index = (runs.saturating_sub(1) * percent + 50) / 100;
            outages.get(index).copied().unwrap_or_default()
        };
        let ms = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1000.0);
        println!(
            "{what:28} {runs} runs: min {}, median {}, p90 {}, max {}",
            ms(at(0)),
            ms(at(50)),
            ms(at(90)),
            ms(at(100))
        );
        println!("{:28} {}", "", outages.iter().map(|&time| ms(time)).collect::<Vec<_>>().join(", "));
    }
    Ok(())
}
