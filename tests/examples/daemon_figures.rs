//! What the daemon costs when idle, and how soon it works.
//!
//! `cargo build --release -p balance-user && BALANCE_USER=target/release/balance-user cargo run -p balance-lab --example
//! daemon_figures`, as root and with the path in full.

#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::time::Duration;

use balance_lab::figures::daemon::{idle, start};
use balance_lab::ready;

fn main() -> anyhow::Result<()> {
    if !ready() {
        return Ok(());
    }
    let mut starts = (0..10).map(|_| start()).collect::<anyhow::Result<Vec<_>>>()?;
    starts.sort_by_key(|start| start.first_flow);
    println!("start to first steered flow, and to ready, of ten:");
    for start in &starts {
        println!("  {:.0} ms, {:.0} ms", ms(start.first_flow), ms(start.ready));
    }
    let idle = idle(Duration::from_mins(1), Duration::from_secs(20))?;
    println!("memory: {:.1} MiB, at most {:.1} MiB", mib(idle.memory), mib(idle.most_memory));
    println!("CPU when idle: {:.2} %", idle.cpu);
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
