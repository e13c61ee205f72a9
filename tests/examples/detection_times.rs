//! What is noticed of everything that can go wrong with a line, how soon, and how many false alarms there are.
//!
//! `cargo build --release -p balance-user && BALANCE_USER=target/release/balance-user cargo run -p balance-lab --example
//! detection_times [RUNS [FAULT..]]`, as root and with the path in full. With 20 runs, the default, it takes a quarter of an
//! hour. Standard output is the table of docs/health.md; a FAULT is one as standard error tells them, or `Noise`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what it is for")]

use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use balance_lab::figures::{Fault, Noticed, Traffic, false_alarms, trials};
use balance_lab::ready;

/// How long an ISP is watched after a fault.
const WATCHED: Duration = Duration::from_secs(8);
/// How long false alarms are waited for.
const NOISE: Duration = Duration::from_mins(10);
/// So many labs at once leave two CPUs idle most of the time.
const AT_ONCE: usize = 6;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let runs: u32 = arguments.next().map_or(Ok(20), |runs| runs.parse()).context("how many runs?")?;
    let wanted: Vec<String> = arguments.collect();
    if !ready() {
        return Ok(());
    }
    let traffics = [Traffic::Flows, Traffic::Idle];
    let mut jobs: Vec<Job> = traffics.map(|traffic| Job::Noise { percent: 10, traffic }).into();
    jobs.extend(Fault::ALL.iter().flat_map(|&fault| traffics.map(|traffic| Job::Trials { fault, traffic })));
    jobs.retain(|job| *job != Job::Trials { fault: Fault::SaturatedUplink, traffic: Traffic::Idle });
    jobs.retain(|job| wanted.is_empty() || wanted.contains(&job.name()));
    // The kernel tells of carriers at most once a second, be it in all namespaces together.
    let (alone, together): (Vec<_>, Vec<_>) =
        jobs.into_iter().enumerate().partition(|(_, job)| job.name() == "CarrierLoss");
    let mut rows = run_all(together, AT_ONCE, runs)?;
    rows.extend(run_all(alone, 1, runs)?);
    rows.sort();
    println!("| what happens | with | what came of it | median | p99 | false alarms |");
    println!("|---|---|---|---|---|---|");
    for (_, row) in rows {
        println!("{row}");
    }
    Ok(())
}

/// Runs so many jobs at once, and returns their rows, each with its place in the table.
fn run_all(jobs: Vec<(usize, Job)>, at_once: usize, runs: u32) -> anyhow::Result<Vec<(usize, String)>> {
    let (rows, waiting) = (Mutex::new(Vec::new()), Mutex::new(jobs.into_iter()));
    let next = || waiting.lock().ok().and_then(|mut jobs| jobs.next());
    let work = || -> anyhow::Result<()> {
        while let Some((place, job)) = next() {
            let row = job.run(runs)?;
            eprintln!("{}: {row}", job.name());
            if let Ok(mut rows) = rows.lock() {
                rows.push((place, row));
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(rows.into_inner().unwrap_or_default())
}

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Job {
    Trials { fault: Fault, traffic: Traffic },
    Noise { percent: u8, traffic: Traffic },
}

impl Job {
    fn name(self) -> String {
        match self {
            Self::Trials { fault, .. } => format!("{fault:?}"),
            Self::Noise { .. } => "Noise".to_owned(),
        }
    }

    fn run(self, runs: u32) -> anyhow::Result<String> {
        match self {
            Self::Noise { percent, traffic } => {
                let alarms = false_alarms(percent, traffic, NOISE)?;
                let what = format!("{percent} % random loss, {} minutes", NOISE.as_secs() / 60);
                let came_of_it = if alarms == 0 { "rightly still used" } else { "taken down" };
                Ok(format!("| {what} | {} | {came_of_it} | | | {alarms} |", with(traffic)))
            }
            Self::Trials { fault, traffic } => {
                let noticed = trials(fault, traffic, runs, WATCHED)?;
                Ok(format!("| {} | {} | {} |", words(fault), with(traffic), summary(fault, &noticed)))
            }
        }
    }
}

const fn with(traffic: Traffic) -> &'static str {
    match traffic {
        Traffic::Flows => "flows",
        Traffic::Idle => "idle",
    }
}

const fn words(fault: Fault) -> &'static str {
    match fault {
        Fault::SilentDeath => "silent death",
        Fault::DeathBehindGateway => "death behind the gateway, which answers",
        Fault::LossOfSent => "all that is sent gets lost",
        Fault::LossOfReceived => "all that comes in gets lost",
        Fault::HeavyLoss => "30 % random loss",
        Fault::LatencyStep => "latency goes up by 500 ms at once",
        Fault::SaturatedUplink => "saturated uplink",
        Fault::CarrierLoss => "no carrier",
        Fault::DeviceDeleted => "device deleted",
        Fault::DeadTarget => "one dead target of three",
        Fault::CaptivePortal => "captive portal; pings answered, `quorum = 2` of a ping and a page",
        Fault::DeadDns => "dead DNS, the only target",
        Fault::DeadDnsOfThree => "dead DNS, one target of three, `quorum = 2`",
    }
}

/// What came of it, how soon (median and 99th percentile), and how often that was wrong.
fn summary(fault: Fault, noticed: &[Noticed]) -> String {
    let times = |pick: fn(&Noticed) -> Option<Duration>| {
        let mut times: Vec<Duration> = noticed.iter().filter_map(pick).collect();
        times.sort();
        times
    };
    let unusable = times(|one| if let Noticed::Unusable(time) = one { Some(*time) } else { None });
    let degraded = times(|one| if let Noticed::Degraded(time) = one { Some(*time) } else { None });
    let all = noticed.len();
    let (what, times, alarms) = if fault.is_fatal() {
        (format!("detected, {} of {all}", unusable.len()), &unusable, 0)
    } else {
        let used = all - unusable.len();
        let known =
            if degraded.is_empty() { String::new() } else { format!(", degraded {}", degraded.len()) };
        (format!("rightly still used, {used} of {all}{known}"), &degraded, unusable.len())
    };
    let at = |percent: usize| {
        let time = times.get((times.len().saturating_sub(1) * percent + 50) / 100);
        time.map(|time| format!("{:.2} s", time.as_secs_f64())).unwrap_or_default()
    };
    format!("{what} | {} | {} | {alarms}", at(50), at(99))
}
