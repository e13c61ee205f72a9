//! What the daemon costs, and how soon it works.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::unistd::{SysconfVar, sysconf};

use super::failover::{Attempt, NewFlows};
use crate::{Daemon, Lab};

/// What a daemon costs that has nothing to do but to watch two ISPs.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Its memory, in bytes (`VmRSS`).
    pub memory: u64,
    /// The most it ever had, in bytes (`VmHWM`).
    pub most_memory: u64,
    /// How much of one CPU it takes, in percent.
    pub cpu: f64,
}

/// Measures a daemon's memory after `settle`, and its CPU time over `over` then.
///
/// # Errors
/// When the lab or the daemon fails.
pub fn idle(settle: Duration, over: Duration) -> anyhow::Result<Idle> {
    let lab = Lab::new()?;
    let daemon = lab.start(&[])?;
    lab.wait_all_up()?;
    std::thread::sleep(settle);
    let (memory, most_memory) = (memory(&daemon, "VmRSS:")?, memory(&daemon, "VmHWM:")?);
    let (before, start) = (cpu_time(&daemon)?, Instant::now());
    std::thread::sleep(over);
    let used = cpu_time(&daemon)? - before;
    Ok(Idle { memory, most_memory, cpu: 100.0 * used / start.elapsed().as_secs_f64() })
}

/// How soon a daemon works.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// From its start until it says that it is ready.
    pub ready: Duration,
    /// From its start until the first new flow from the LAN has a way.
    pub first_flow: Duration,
}

/// Starts a daemon on a router that forwards nothing without it, while new flows try all the time.
///
/// # Errors
/// When the lab or the daemon fails, or no flow finds a way within two seconds.
pub fn start() -> anyhow::Result<Start> {
    let lab = Lab::new()?;
    let new = NewFlows::start(lab.lan())?;
    let start = Instant::now();
    let _daemon = lab.start(&[])?;
    let ready = start.elapsed();
    std::thread::sleep(Duration::from_secs(2));
    let attempts = new.stop()?;
    let early = attempts.iter().find(|attempt| attempt.answered && attempt.sent < start);
    ensure!(early.is_none(), "a flow had a way without the daemon");
    let first: &Attempt = attempts.iter().find(|attempt| attempt.answered).context("no flow had a way")?;
    Ok(Start { ready, first_flow: first.sent - start })
}

/// A line of `/proc/PID/status` in kB, as bytes.
fn memory(daemon: &Daemon, name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number =
        line.and_then(|line| line.split_whitespace().next()).with_context(|| format!("no {name}"))?;
    Ok(number.parse::<u64>()? * 1024)
}

/// The CPU time that a process has used, in seconds.
#[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
fn cpu_time(daemon: &Daemon) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid()))?;
    // The name in parentheses may contain blanks; user and system time are the 14th and 15th of all.
    let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<_, _>>()?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    Ok(ticks as f64 / per_second as f64)
}
