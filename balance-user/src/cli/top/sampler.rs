//! Takes samples in a thread of its own, as a look at a million flows takes its time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use balance_common::IspId;

use super::super::flows::view::View;
use super::super::status::{gather, open_maps};
use crate::announce::event::Event;
use crate::announce::history;
use crate::conntrack::{self, Live};
use crate::top::{Host, Sample};

/// The pause between samples; after one that has taken long, a longer one, so that at most a quarter of the time is spent.
const PAUSE: Duration = Duration::from_secs(1);
/// As much as a program's first thread has: the rules in the maps are values of hundreds of kilobytes.
const STACK: usize = 8 << 20;
/// So many flows, hosts and events are shown at most.
const MOST: usize = 100;

/// Takes samples until it is dropped.
pub(super) struct Sampler(Receiver<Result<Sample, String>>);

impl Sampler {
    /// Starts; there must be something to look at.
    pub(super) fn start(instance: &str) -> anyhow::Result<Self> {
        open_maps(instance)?;
        let (samples, receiver) = sync_channel(1);
        let instance = instance.to_owned();
        let thread = thread::Builder::new().name("sampler".to_owned()).stack_size(STACK);
        thread.spawn(move || run(&instance, &samples))?;
        Ok(Self(receiver))
    }

    /// The latest sample, if there is a new one; or why there is none. Fails if there will not be any more.
    pub(super) fn latest(&self) -> anyhow::Result<Option<Result<Sample, String>>> {
        let mut latest = None;
        loop {
            match self.0.try_recv() {
                Ok(sample) => latest = Some(sample),
                Err(TryRecvError::Empty) => return Ok(latest),
                Err(TryRecvError::Disconnected) => anyhow::bail!("the thread that looks has ended"),
            }
        }
    }
}

fn run(instance: &str, samples: &SyncSender<Result<Sample, String>>) {
    loop {
        let start = Instant::now();
        let sample = sample(instance).map_err(|error| format!("{error:#}"));
        let took = start.elapsed();
        if samples.send(sample).is_err() {
            return;
        }
        thread::sleep(PAUSE.saturating_sub(took).max(3 * took));
    }
}

fn sample(instance: &str) -> anyhow::Result<Sample> {
    let report = gather(instance)?;
    let time = SystemTime::now();
    let maps = open_maps(instance)?;
    let mut view = View::open(instance, &maps)?;
    let mut hosts: HashMap<IpAddr, OfHost> = HashMap::new();
    let mut top: BinaryHeap<Reverse<Ranked>> = BinaryHeap::with_capacity(MOST + 1);
    conntrack::each(None, |live| {
        let Some(isp) = view.isp_of(live) else { return Ok::<_, anyhow::Error>(()) };
        let bytes = live.counted.map(|ways| ways.iter().fold(0_u64, |sum, way| sum.wrapping_add(way.bytes)));
        let host = hosts.entry(live.original.source).or_default();
        host.flows += 1;
        host.bytes = bytes.map(|bytes| host.bytes.unwrap_or(0).wrapping_add(bytes));
        *host.isps.entry(isp).or_default() += 1;
        if top.len() < MOST || top.peek().is_some_and(|least| least.0.bytes < bytes) {
            top.push(Reverse(Ranked { bytes, live: live.clone(), isp }));
            if top.len() > MOST {
                top.pop();
            }
        }
        Ok(())
    })?;
    let flows =
        top.into_iter().map(|Reverse(Ranked { live, isp, .. })| view.tell(&live, isp, time)).collect();
    let mut hosts: Vec<Host> = hosts
        .into_iter()
        .map(|(address, OfHost { flows, bytes, isps })| {
            let isps = isps.into_iter().map(|(isp, flows)| (view.name(isp), flows)).collect();
            Host { address, flows, bytes, isps }
        })
        .collect();
    hosts.sort_by_key(|host| (Reverse(host.flows), host.address));
    hosts.truncate(MOST);
    let events = history::read(&history::folders(instance));
    let events = events.iter().skip(events.len().saturating_sub(MOST)).map(Event::line).collect();
    Ok(Sample { time, report, flows, hosts, events })
}

/// The flows of a host.
#[derive(Default)]
struct OfHost {
    flows: u64,
    bytes: Option<u64>,
    isps: BTreeMap<IspId, u64>,
}

/// A flow by its bytes.
struct Ranked {
    bytes: Option<u64>,
    live: Live,
    isp: IspId,
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.bytes.cmp(&other.bytes)
    }
}
