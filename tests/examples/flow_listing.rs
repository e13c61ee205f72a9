//! How soon `flows` shows its first screen, how long all takes, and how much memory, with very many flows.
//!
//! `cargo build --release -p balance-user && BALANCE_USER=target/release/balance-user cargo run -p balance-lab --example
//! flow_listing [NUMBER]`, as root and with the path in full. More than 250,000 flows need a machine whose
//! `net.netfilter.nf_conntrack_max` allows them.

#![expect(clippy::print_stdout, reason = "this is what it is for")]

use anyhow::Context;
use balance_lab::figures::{fill, listing};
use balance_lab::{Lab, ready};

fn main() -> anyhow::Result<()> {
    if !ready() {
        return Ok(());
    }
    let count =
        std::env::args().nth(1).map_or(Ok(250_000), |count| count.parse()).context("how many flows?")?;
    let lab = Lab::new()?;
    let _daemon = lab.start_up()?;
    fill(&lab, count)?;
    let listing = listing(&lab)?;
    println!("{count} flows: {} lines", listing.lines);
    println!("first screen after {} ms", listing.first_screen.as_millis());
    println!("all after {} ms", listing.all.as_millis());
    println!("memory: at most {} MiB", listing.memory >> 20);
    Ok(())
}
