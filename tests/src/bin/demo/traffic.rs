//! The flows of the demo: many new ones, and some that live through everything.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use balance_lab::{Family, Flow, Flows, KINDS, Lab, Transport, open_flows};

/// How long an answer may take where all is well; on a busy machine it does take time.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a live flow waits for an answer while an ISP is dead.
const LIVE_PATIENCE: Duration = Duration::from_millis(300);
/// How often a new flow is opened while an ISP is dead: as exactly is the outage known.
const NEW_INTERVAL: Duration = Duration::from_millis(10);
/// How long it waits for its answer.
const NEW_PATIENCE: Duration = Duration::from_millis(250);
/// So many new flows in a row must be answered for the outage to be over: by chance it does not happen.
const ALL_WELL: usize = 50;
/// An outage that takes longer has no end.
const OUTAGE_LIMIT: Duration = Duration::from_secs(10);

/// Where new flows went.
#[derive(Default)]
pub(crate) struct Split {
    /// Flows by ISP.
    pub(crate) flows: BTreeMap<String, usize>,
    /// Flows that were not answered, or not twice from the same address.
    pub(crate) astray: usize,
}

impl Split {
    /// How many went by this ISP.
    pub(crate) fn of(&self, isp: &str) -> usize {
        self.flows.get(isp).copied().unwrap_or(0)
    }
}

/// Opens so many flows of each kind from the LAN, has each ask twice which address the internet host sees, and
/// closes them.
pub(crate) fn split(lab: &Lab, flows_of_a_kind: usize) -> anyhow::Result<Split> {
    let mut split = Split::default();
    for (transport, family) in KINDS {
        let mut flows = open_flows(lab.lan(), flows_of_a_kind, transport, family)?;
        let (first, second) = (flows.ask(PATIENCE), flows.ask(PATIENCE));
        for (first, second) in first.iter().zip(&second) {
            match (first, second) {
                (Ok(first), Ok(second)) if first == second && lab.isp_of(*first).is_some() => {
                    *split.flows.entry(name_of(lab, *first)).or_default() += 1;
                }
                _ => split.astray += 1,
            }
        }
        flows.close()?;
    }
    Ok(split)
}

/// Flows that stay open, some of each kind.
pub(crate) struct LiveFlows(Vec<LiveKind>);

struct LiveKind {
    transport: Transport,
    flows: Flows,
    /// The ISP of each.
    isps: Vec<String>,
}

/// What became of live flows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    /// Answered every time, by the same ISP as before.
    pub(crate) unharmed: usize,
    /// Answered in the end, by another ISP.
    pub(crate) moved: usize,
    /// A TCP connection that was reset, so that its owner knows at once.
    pub(crate) reset: usize,
    /// Missed an answer.
    pub(crate) disturbed: usize,
}

impl LiveFlows {
    /// Opens so many of each kind.
    pub(crate) fn open(lab: &Lab, flows_of_a_kind: usize) -> anyhow::Result<Self> {
        let open = |(transport, family)| {
            let mut flows = open_flows(lab.lan(), flows_of_a_kind, transport, family)?;
            let answers = flows.ask(PATIENCE).into_iter().collect::<io::Result<Vec<_>>>();
            let answers = answers.with_context(|| format!("a {transport:?} flow over IP{family:?}"))?;
            let isps = answers.into_iter().map(|source| name_of(lab, source)).collect();
            Ok(LiveKind { transport, flows, isps })
        };
        Ok(Self(KINDS.into_iter().map(open).collect::<anyhow::Result<_>>()?))
    }

    /// How many go by this ISP.
    pub(crate) fn of(&self, isp: &str) -> usize {
        self.0.iter().flat_map(|kind| &kind.isps).filter(|own| *own == isp).count()
    }

    /// Asks with all of them once and tells what became of those of each ISP. From now on a flow belongs to the ISP
    /// that it goes by now.
    pub(crate) fn check(&mut self, lab: &Lab) -> BTreeMap<String, Fate> {
        let mut fates = BTreeMap::<String, Fate>::new();
        for kind in &mut self.0 {
            for (isp, answer) in kind.isps.iter_mut().zip(kind.flows.ask(PATIENCE)) {
                let fate = fates.entry(isp.clone()).or_default();
                match answer.map(|source| name_of(lab, source)) {
                    Ok(now) if now == *isp => fate.unharmed += 1,
                    Ok(now) => {
                        fate.moved += 1;
                        *isp = now;
                    }
                    Err(error)
                        if kind.transport == Transport::Tcp && error.kind() != io::ErrorKind::TimedOut =>
                    {
                        fate.reset += 1;
                    }
                    Err(_) => fate.disturbed += 1,
                }
            }
        }
        fates
    }

    /// Closes them.
    pub(crate) fn close(self) -> io::Result<()> {
        self.0.into_iter().try_for_each(|kind| kind.flows.close())
    }
}

/// An outage, as the LAN saw it.
pub(crate) struct Outage {
    /// From the fault until new flows were answered again, all of them.
    pub(crate) duration: Duration,
    /// New flows that were tried.
    pub(crate) tried: usize,
    /// New flows among them that were not answered.
    pub(crate) failed: usize,
    /// How often the live flows of the other ISPs asked meanwhile.
    pub(crate) asked: usize,
    /// How many of these questions were not answered, or from another address.
    pub(crate) missed: usize,
}

/// Breaks something, and opens flow after flow until all are answered again; meanwhile the live flows keep asking.
pub(crate) fn outage(
    lab: &Lab,
    live: &mut LiveFlows,
    dead: &str,
    fault: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Outage> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watchers: Vec<_> =
            live.0.iter_mut().map(|kind| scope.spawn(|| keep_asking(lab, kind, dead, &over))).collect();
        let outage = try_new_flows(lab, fault);
        over.store(true, Ordering::Relaxed);
        let mut outage = outage?;
        for watcher in watchers {
            let (asked, missed) = watcher.join().map_err(|_| anyhow::anyhow!("a thread of the demo died"))?;
            outage.asked += asked;
            outage.missed += missed;
        }
        Ok(outage)
    })
}

fn try_new_flows(lab: &Lab, fault: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Outage> {
    let start = Instant::now();
    fault()?;
    let mut outage = Outage { duration: Duration::ZERO, tried: 0, failed: 0, asked: 0, missed: 0 };
    thread::scope(|scope| {
        let mut in_a_row = 0;
        let mut waiting = VecDeque::new();
        let mut families = [Family::V4, Family::V6].into_iter().cycle();
        while in_a_row < ALL_WELL {
            let asked_at = start.elapsed();
            ensure!(asked_at < OUTAGE_LIMIT, "after {OUTAGE_LIMIT:?} new flows still fail");
            let family = families.next().unwrap_or(Family::V4);
            waiting.push_back((asked_at, scope.spawn(move || is_answered(lab, family))));
            thread::sleep(NEW_INTERVAL);
            while let Some((asked_at, flow)) = waiting.pop_front_if(|(_, flow)| flow.is_finished()) {
                outage.tried += 1;
                if flow.join().unwrap_or(false) {
                    in_a_row += 1;
                } else {
                    outage.failed += 1;
                    outage.duration = asked_at + NEW_INTERVAL;
                    in_a_row = 0;
                }
            }
        }
        Ok(outage)
    })
}

/// Opens a flow and asks once. By UDP, because the kernel repeats the first packet of a TCP connection only after
/// a second.
fn is_answered(lab: &Lab, family: Family) -> bool {
    Flow::open(lab.lan(), Transport::Udp, family, NEW_PATIENCE).and_then(|mut flow| flow.ask()).is_ok()
}

/// Asks with live flows again and again. Returns how many questions those of living ISPs asked, and how many of
/// these went wrong.
fn keep_asking(lab: &Lab, kind: &mut LiveKind, dead: &str, over: &AtomicBool) -> (usize, usize) {
    let (mut asked, mut missed) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        for (isp, answer) in kind.isps.iter().zip(kind.flows.ask(LIVE_PATIENCE)) {
            if isp != dead {
                asked += 1;
                missed += usize::from(!answer.is_ok_and(|source| name_of(lab, source) == *isp));
            }
        }
    }
    (asked, missed)
}

fn name_of(lab: &Lab, source: IpAddr) -> String {
    lab.isp_of(source).map_or_else(|| source.to_string(), |isp| isp.name().to_owned())
}
