//! How long failover takes.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use aya::maps::{Array, Map, MapData};
use balance_common::layout::{ABI, BucketTable, bucket_copy, table_index};
use balance_common::{Family, PolicyId};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::addresses::{self, SERVER_PORT};
use crate::background::Background;
use crate::wire::{Asker, Transport, milliseconds};
use crate::{Host, Lab, Stream, open_flows, wait_until};

/// How far apart new flows are opened.
const INTERVAL: Duration = Duration::from_millis(2);
/// How long a new flow may take to be answered.
const LATE: Duration = Duration::from_millis(500);
/// For so long nothing may be lost any more, for the outage to count as over.
const QUIET: Duration = Duration::from_millis(300);
/// The kernel reports changes of carrier once a second at most.
const CARRIER_INTERVAL: Duration = Duration::from_millis(1_200);

/// How the ISP with three quarters of the flows fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It forwards nothing any more, with flows running.
    SilentWithFlows,
    /// The same, with no traffic at all.
    SilentIdle,
    /// Its device loses carrier, with flows running.
    Carrier,
}

/// Has an ISP fail so many times, and measures for each how long new flows from the LAN had no way: from just before
/// the failure until the first moment from which none is lost any more.
///
/// With flows running, a new UDP flow is opened every 2 ms. That would not be idle: there, the time is over when the
/// selection table in force holds only the other ISP, and 64 new flows, opened then, are all answered.
///
/// The ISP is back after half a second of good probes, without flap protection; apart from that all is the default.
///
/// # Errors
/// When a flow has no way again after seconds, or the lab or the daemon fails.
pub fn failover(failure: Failure, runs: usize) -> anyhow::Result<Vec<Duration>> {
    let lab = Lab::new()?;
    lab.write_config(&format!(
        "{}[monitor]\nup_after = \"500ms\"\nup_after_max = \"500ms\"\n",
        lab.config()
    ))?;
    let daemon = lab.start(&[])?;
    let outages = (0..runs).map(|run| {
        fail_once(&lab, failure, run)
            .with_context(|| format!("in run {run}; the daemon said:\n{}", daemon.stderr()))
    });
    outages.collect()
}

/// One run, from all being up on.
fn fail_once(lab: &Lab, failure: Failure, run: usize) -> anyhow::Result<Duration> {
    lab.wait_all_up()?;
    // Where in the interval of the probes the failure hits is a matter of luck; here all of it is tried in turn.
    let offset = Duration::from_millis(run as u64 * 379 % 1_000);
    match failure {
        Failure::SilentIdle => {
            std::thread::sleep(offset);
            let start = Instant::now();
            lab.isp("CABLE").die_silently()?;
            let outage = wait_for_other_table(lab, start)?;
            let answers = open_flows(lab.lan(), 64, Transport::Udp, Family::V4)?.ask(LATE);
            let lost = answers.iter().filter(|answer| answer.is_err()).count();
            ensure!(lost == 0, "{lost} of 64 new flows had no way after {outage:?}");
            lab.isp("CABLE").revive()?;
            Ok(outage)
        }
        Failure::SilentWithFlows => with_flows(
            lab,
            offset,
            Duration::from_secs(2),
            || lab.isp("CABLE").die_silently(),
            || lab.isp("CABLE").revive(),
        ),
        Failure::Carrier => with_flows(
            lab,
            CARRIER_INTERVAL,
            Duration::from_millis(1_500),
            || lab.isp("CABLE").set_carrier(false),
            || lab.isp("CABLE").set_carrier(true),
        ),
    }
}

/// Runs flows, fails after a while, and watches new flows for a while more.
fn with_flows(
    lab: &Lab,
    before: Duration,
    after: Duration,
    fail: impl FnOnce() -> anyhow::Result<()>,
    mend: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    let running = Stream::start(lab.lan(), 200, 20, Family::V4)?;
    let new = NewFlows::start(lab.lan())?;
    std::thread::sleep(before + QUIET);
    let start = Instant::now();
    fail()?;
    std::thread::sleep(after);
    let attempts = new.stop()?;
    running.stop()?;
    mend()?;
    outage(start, &attempts)
}

/// From the failure to the first new flow after which none was lost; nothing, if none was lost at all.
fn outage(start: Instant, attempts: &[Attempt]) -> anyhow::Result<Duration> {
    if let Some(early) = attempts.iter().find(|attempt| attempt.sent < start && !attempt.answered)
        && start - early.sent > LATE
    {
        bail!("a flow was lost {:?} before the failure", start - early.sent);
    }
    let Some(last) = attempts.iter().rposition(|attempt| !attempt.answered) else {
        return Ok(Duration::ZERO);
    };
    let good = attempts.get(last + 1..).unwrap_or_default();
    match (good.first(), good.last()) {
        (Some(first), Some(end)) if end.sent - first.sent >= QUIET => {
            Ok(first.sent.saturating_duration_since(start))
        }
        _ => bail!("new flows are lost for longer than {:?}", start.elapsed()),
    }
}

/// Waits until only one ISP is left in the table in force, and returns how long that took.
fn wait_for_other_table(lab: &Lab, start: Instant) -> anyhow::Result<Duration> {
    lab.router().run(|| {
        let (active, buckets) = (open_map("ACTIVE")?, open_map("BUCKETS")?);
        let (active, buckets) =
            (Array::<_, u32>::try_from(active)?, Array::<_, BucketTable>::try_from(buckets)?);
        let mut result = Ok(false);
        wait_until(Duration::from_secs(10), "the other ISP having all buckets", || {
            result = active
                .get(&table_index(PolicyId::DEFAULT, Family::V4), 0)
                .and_then(|copy| buckets.get(&bucket_copy(PolicyId::DEFAULT, Family::V4, copy), 0))
                .map(|table| table.iter().all(|owner| Some(owner) == table.first()));
            !matches!(result, Ok(false))
        })?;
        result?;
        Ok(start.elapsed())
    })
}

pub(super) fn open_map(name: &str) -> anyhow::Result<Map> {
    let pin = Path::new("/sys/fs/bpf/balance/main").join(format!("v{ABI}")).join(name);
    Ok(Map::Array(MapData::from_pin(&pin).with_context(|| format!("cannot open {}", pin.display()))?))
}

/// A new flow every [`INTERVAL`], each with one question.
pub(super) struct NewFlows(Background<Vec<Attempt>>);

/// A new flow.
#[derive(Clone, Copy)]
pub(super) struct Attempt {
    pub(super) sent: Instant,
    pub(super) answered: bool,
}

impl NewFlows {
    pub(super) fn start(host: &Host) -> io::Result<Self> {
        let open = || Ok((Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?, ()));
        let (background, ()) = Background::start(host, open, |epoll, stop| open_until(&epoll, stop))?;
        Ok(Self(background))
    }

    /// Stops opening, gives the last ones time for an answer, and tells what became of all.
    pub(super) fn stop(self) -> io::Result<Vec<Attempt>> {
        self.0.stop()
    }
}

fn open_until(epoll: &Epoll, stop: &AtomicBool) -> io::Result<Vec<Attempt>> {
    let to = addresses::internet(Family::V4, SERVER_PORT);
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut askers: Vec<Option<Asker>> = Vec::new();
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        while next <= Instant::now() {
            let asker = Asker::connect(Transport::Udp, to)?;
            epoll.add(&asker.socket, EpollEvent::new(EpollFlags::EPOLLIN, askers.len() as u64))?;
            attempts.push(Attempt { sent: Instant::now(), answered: false });
            // One that cannot be sent is lost.
            let _ = asker.send(0);
            askers.push(Some(asker));
            next += INTERVAL;
        }
        take_answers(epoll, &mut attempts, &mut askers, next)?;
    }
    let deadline = Instant::now() + LATE;
    while askers.iter().any(Option::is_some) && Instant::now() < deadline {
        take_answers(epoll, &mut attempts, &mut askers, deadline)?;
    }
    Ok(attempts)
}

/// Waits for answers once, until then at most, and takes those that are there.
fn take_answers(
    epoll: &Epoll,
    attempts: &mut [Attempt],
    askers: &mut [Option<Asker>],
    until: Instant,
) -> io::Result<()> {
    let mut events = [EpollEvent::empty(); 64];
    let ready = match epoll.wait(&mut events, milliseconds(until.saturating_duration_since(Instant::now()))) {
        Err(Errno::EINTR) => 0,
        ready => ready?,
    };
    for event in events.iter().take(ready) {
        let Ok(index) = usize::try_from(event.data()) else { continue };
        let (Some(attempt), Some(slot)) = (attempts.get_mut(index), askers.get_mut(index)) else { continue };
        attempt.answered = matches!(slot.as_mut().map(Asker::receive), Some(Ok(Some(_))));
        // Closing it also ends its events; the next one gets another port.
        *slot = None;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage_of(pattern: &str, failed_at: u32) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let attempts: Vec<_> = (0..)
            .zip(pattern.chars())
            .map(|(index, fate)| Attempt { sent: start + index * QUIET, answered: fate == '+' })
            .collect();
        outage(start + failed_at * QUIET, &attempts)
    }

    #[test]
    fn an_outage_ends_with_the_first_flow_after_which_none_is_lost() {
        assert_eq!(outage_of("++-++-++", 2).unwrap(), 4 * QUIET);
        assert_eq!(outage_of("++++", 2).unwrap(), Duration::ZERO);
    }

    #[test]
    fn without_an_end_or_a_good_start_there_is_no_figure() {
        assert!(outage_of("++---+", 2).is_err());
        assert!(outage_of("-++++-++", 5).is_err());
    }
}
