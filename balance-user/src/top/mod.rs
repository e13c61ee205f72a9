//! The screen of `top`: what is known and what is being done with the keyboard ([`State`]), and how that looks ([`draw`]). Pure; the
//! command line takes the samples and carries out the commands.

mod input;
mod tests;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::SystemTime;

use crate::cli::report::{Isp, Report};
use crate::control::Force;
use crate::flows::FlowTold;

pub use view::draw;

/// So many rates are kept: as many as the widest screen shows.
const HISTORY: usize = 256;

/// How it stands at some moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When.
    pub time: SystemTime,
    /// The ISPs and all else that `status` tells.
    pub report: Report,
    /// Flows: those with the most bytes, or whatever was found first where nothing is counted.
    pub flows: Vec<FlowTold>,
    /// Who has begun flows, those with the most first.
    pub hosts: Vec<Host>,
    /// The latest events, a line each.
    pub events: Vec<String>,
}

/// Somebody who has begun flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Who.
    pub address: IpAddr,
    /// How many flows.
    pub flows: u64,
    /// Their bytes, as conntrack counts them.
    pub bytes: Option<u64>,
    /// On which ISPs, by name.
    pub isps: BTreeMap<String, u64>,
}

/// What is asked of whoever takes samples and carries out commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// End.
    Quit,
    /// Change something.
    Do(Command),
}

/// A change, which the operator has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// An ISP is to be used, or not, or its probes are to decide.
    Force(String, Force),
    /// Another weight for an ISP.
    SetWeight(String, u16),
}

/// What the keys mean just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Normal,
    Help,
    /// A filter is being typed.
    Filter,
    /// A weight for this ISP is being typed.
    Weight(String, String),
    /// Shall this be done?
    Confirm(Command),
}

/// What is below the ISPs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Panel {
    #[default]
    Flows,
    Hosts,
    Events,
}

/// What flows and hosts are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sort {
    #[default]
    Bytes,
    /// The youngest flow, the host with the most flows.
    Newest,
    Address,
}

/// Bits a second of an ISP, and how much of its packets went fast.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Rate {
    sent: f64,
    received: f64,
    /// 0 to 1; none without packets.
    fast: Option<f64>,
}

/// What is known, and what is being done with the keyboard.
#[derive(Clone, Debug, Default)]
pub struct State {
    sample: Option<Sample>,
    /// By the ISPs' names, the latest last.
    rates: BTreeMap<String, VecDeque<Rate>>,
    /// Which ISP the keys are about.
    selected: usize,
    mode: Mode,
    panel: Panel,
    sort: Sort,
    filter: String,
    /// What the last command has come to.
    message: Option<String>,
}

impl State {
    /// Takes a sample. Rates are those since the one before.
    pub fn take(&mut self, sample: Sample) {
        if let Some(before) = &self.sample {
            let seconds = sample.time.duration_since(before.time).unwrap_or_default().as_secs_f64();
            for isp in &sample.report.isps {
                let then = before.report.isps.iter().find(|then| then.name == isp.name);
                let Some(rate) = then.and_then(|then| rate(then, isp, seconds)) else { continue };
                let rates = self.rates.entry(isp.name.clone()).or_default();
                rates.push_back(rate);
                if rates.len() > HISTORY {
                    rates.pop_front();
                }
            }
        }
        let isps = &sample.report.isps;
        self.rates.retain(|name, _| isps.iter().any(|isp| isp.name == *name));
        self.selected = self.selected.min(isps.len().saturating_sub(1));
        self.sample = Some(sample);
    }

    /// Says what a command has come to, or that samples cannot be taken.
    pub fn say(&mut self, message: impl Into<String>) {
        self.message = Some(message.into());
    }

    fn isps(&self) -> &[Isp] {
        self.sample.as_ref().map(|sample| sample.report.isps.as_slice()).unwrap_or_default()
    }

    fn isp(&self) -> Option<&Isp> {
        self.isps().get(self.selected)
    }

    /// The flows that the filter leaves, in their order.
    fn flows(&self) -> Vec<&FlowTold> {
        let all = self.sample.iter().flat_map(|sample| &sample.flows);
        let is_wanted = |flow: &&FlowTold| {
            let [from, to] = flow.ends();
            self.passes(&[&from, &to, &flow.isp, &flow.protocol])
        };
        let mut flows: Vec<_> = all.filter(is_wanted).collect();
        match self.sort {
            Sort::Bytes => flows.sort_by_key(|flow| std::cmp::Reverse(flow.bytes)),
            Sort::Newest => flows.sort_by_key(|flow| flow.age.unwrap_or(u64::MAX)),
            Sort::Address => flows.sort_by_key(|flow| (flow.source, flow.source_port)),
        }
        flows
    }

    /// The hosts that the filter leaves, in their order.
    fn hosts(&self) -> Vec<&Host> {
        let all = self.sample.iter().flat_map(|sample| &sample.hosts);
        let mut hosts: Vec<_> = all
            .filter(|host| {
                let isps: Vec<&str> = host.isps.keys().map(String::as_str).collect();
                self.passes(&[&[host.address.to_string().as_str()], isps.as_slice()].concat())
            })
            .collect();
        match self.sort {
            Sort::Bytes => hosts.sort_by_key(|host| std::cmp::Reverse((host.bytes, host.flows))),
            Sort::Newest => hosts.sort_by_key(|host| std::cmp::Reverse(host.flows)),
            Sort::Address => hosts.sort_by_key(|host| host.address),
        }
        hosts
    }

    fn passes(&self, words: &[&str]) -> bool {
        let filter = self.filter.to_ascii_lowercase();
        words.iter().any(|word| word.to_ascii_lowercase().contains(&filter))
    }
}

/// The rate between two moments; none if nothing is known, or counters have begun anew.
fn rate(then: &Isp, now: &Isp, seconds: f64) -> Option<Rate> {
    let since = |of: fn(&Isp) -> Option<u64>| of(now)?.checked_sub(of(then)?);
    let (sent, received) = (since(|isp| isp.tx_bytes)?, since(|isp| isp.rx_bytes)?);
    let (fast, slow) = (since(|isp| isp.fast_packets)?, since(|isp| isp.slow_packets)?);
    let packets = fast + slow;
    (seconds > 0.0).then(|| Rate {
        sent: 8.0 * sent as f64 / seconds,
        received: 8.0 * received as f64 / seconds,
        fast: (packets > 0).then(|| fast as f64 / packets as f64),
    })
}
