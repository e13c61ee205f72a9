//! What an explanation tells: one structure, from which both the JSON and the text are made.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::Nat;
use crate::core::health::State;

/// The answer. This is the JSON of `explain --json`; null is what is not so, or not known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// What was asked.
    pub flow: FlowTold,
    /// How it is steered: `steered`, `drawn`, `local`, `bypassed`, `no ISP`, `unreadable` or `left alone`.
    pub verdict: &'static str,
    /// The rule about it.
    pub rule: Option<RuleTold>,
    /// Its policy.
    pub policy: Option<PolicyTold>,
    /// Its bucket.
    pub bucket: Option<BucketTold>,
    /// The ISPs.
    pub isps: Vec<IspTold>,
    /// The mark by which its packets are routed.
    pub mark: u32,
    /// The bits of that which are ours.
    pub mark_mask: u32,
    /// The flow, if it exists.
    pub live: Option<LiveTold>,
    /// Its route.
    pub route: Option<RouteTold>,
    /// What becomes of its addresses.
    pub nat: Nat,
    /// The ISP by which it leaves, if it does so by one.
    pub isp: Option<String>,
    /// What else there is to know.
    pub notes: Vec<String>,
    /// All of it in one sentence.
    pub conclusion: String,
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowTold {
    /// The protocol.
    pub protocol: String,
    /// Its source.
    pub from: Option<IpAddr>,
    /// Its source port, if it has ports.
    pub source_port: Option<u16>,
    /// Its destination.
    pub to: IpAddr,
    /// Its destination port, if it has ports.
    pub port: Option<u16>,
    /// Its DSCP.
    pub dscp: u8,
    /// The LAN that it comes from, by its name or else its device, or `local`.
    pub lan: String,
    /// The LAN's device.
    pub device: Option<String>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleTold {
    /// Which, from 1.
    pub number: usize,
    /// The line of the config on which it begins.
    pub line: Option<usize>,
    /// What it says.
    pub text: Option<String>,
}

/// A policy, as it is now in the family of the flow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyTold {
    /// Its name.
    pub name: String,
    /// `balanced` or `failover`.
    pub mode: Option<String>,
    /// Which flows stay together.
    pub sticky: &'static str,
    /// The parts of its buckets, 0 to 1, by ISP.
    pub shares: BTreeMap<String, f64>,
    /// Those of its ISPs that have none, with why.
    pub idle: BTreeMap<String, String>,
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BucketTold {
    /// Which, from 0.
    pub number: usize,
    /// The ISP that has it now.
    pub isp: Option<String>,
    /// The ISP that has it when all work, if that is another one.
    pub home: Option<String>,
}

/// An ISP in the family of the flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IspTold {
    /// Its name.
    pub name: String,
    /// `up`, `suspect`, `down` or `unknown`.
    pub state: State,
    /// Whether it takes new flows.
    pub usable: bool,
    /// Why.
    pub reason: Option<String>,
}

/// A flow that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LiveTold {
    /// Its ISP.
    pub isp: Option<String>,
    /// It was begun by the other end.
    pub is_answer: bool,
    /// From where the other end sees it come.
    pub seen_from: SocketAddr,
    /// Whom it reaches.
    pub sent_to: SocketAddr,
}

/// A route, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteTold {
    /// The table.
    pub table: Option<u32>,
    /// What the table is for.
    pub table_name: Option<String>,
    /// The device.
    pub device: Option<String>,
    /// The gateway.
    pub gateway: Option<IpAddr>,
    /// Why there is none.
    pub error: Option<String>,
}
