//! What is noticed of everything that can go wrong with a line, how soon, and how many false alarms there are.
//!
//! `cargo build --release -p balance-user && BALANCE_USER=target/release/balance-user cargo run -p balance-lab --example
//! detection_times [RUNS]`, as root and with the path in full. With 20 runs, the default, it takes a quarter of an hour.

#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use balance_lab::figures::{Fault, Noticed, Traffic, false_alarms, trials};
use balance_lab::ready;

/// How long an ISP is watched after a fault.
const WATCHED: Duration = Duration::from_secs(8);
/// How long false alarms are waited for.
const NOISE: Duration = Duration::from_mins(10);
/// So many labs at once leave the machine idle most of the time.
const AT_ONCE: usize = 4;

fn main() -> anyhow::Result<()> {
    let runs: u32 = std::env::args().nth(1).map_or(Ok(20), |runs| runs.parse()).context("how many runs?")?;
    if !ready() {
        return Ok(());
    }
    let traffics = [Traffic::Flows, Traffic::Idle];
    let mut jobs: Vec<Job> = traffics.map(|traffic| Job::Noise { percent: 10, traffic }).into();
    jobs.extend(Fault::ALL.iter().flat_map(|&fault| traffics.map(|traffic| Job::Trials { fault, traffic })));
    jobs.retain(|job| *job != Job::Trials { fault: Fault::SaturatedUplink, traffic: Traffic::Idle });
    let waiting = Mutex::new(jobs.into_iter());
    let next = || waiting.lock().ok().and_then(|mut jobs| jobs.next());
    let work = || -> anyhow::Result<()> {
        while let Some(job) = next() {
            println!("{}", job.run(runs)?);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Job {
    Trials { fault: Fault, traffic: Traffic },
    Noise { percent: u8, traffic: Traffic },
}

impl Job {
    fn run(self, runs: u32) -> anyhow::Result<String> {
        match self {
            Self::Noise { percent, traffic } => {
                let alarms = false_alarms(percent, traffic, NOISE)?;
                let what = format!("loss of {percent} %, {} minutes", NOISE.as_secs() / 60);
                Ok(row(&what, traffic, &format!("{alarms} false alarms")))
            }
            Self::Trials { fault, traffic } => {
                let noticed = trials(fault, traffic, runs, WATCHED)?;
                Ok(row(&format!("{fault:?}"), traffic, &summary(&noticed)))
            }
        }
    }
}

fn row(what: &str, traffic: Traffic, came_of_it: &str) -> String {
    format!("| {what} | {} | {came_of_it} |", format!("{traffic:?}").to_lowercase())
}

/// Of each kind how many, with median and 99th percentile.
fn summary(noticed: &[Noticed]) -> String {
    let times = |pick: fn(&Noticed) -> Option<Duration>| {
        let mut times: Vec<Duration> = noticed.iter().filter_map(pick).collect();
        times.sort();
        times
    };
    let unusable = times(|one| if let Noticed::Unusable(time) = one { Some(*time) } else { None });
    let degraded = times(|one| if let Noticed::Degraded(time) = one { Some(*time) } else { None });
    let nothing = noticed.iter().filter(|one| **one == Noticed::Nothing).count();
    let text = |what: &str, times: &[Duration]| {
        let at = |percent: usize| times.get((times.len().saturating_sub(1) * percent + 50) / 100);
        let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
        (!times.is_empty()).then(|| {
            format!(
                "{what} {} of {}: median {:.0} ms, p99 {:.0} ms",
                times.len(),
                noticed.len(),
                ms(at(50)),
                ms(at(99))
            )
        })
    };
    let ignored = (nothing > 0).then(|| format!("ignored {nothing} of {}", noticed.len()));
    [text("unusable", &unusable), text("degraded", &degraded), ignored]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("; ")
}
