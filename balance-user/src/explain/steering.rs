//! How a flow is steered: by the program, or as the maps say. Pure.

use std::collections::BTreeMap;

use balance_common::layout::{BYPASS, BucketTable, PolicyEntry, Verdict};
use balance_common::packet::protocol;
use balance_common::{Address, Family, Flow, IspId, MarkMask, PolicyId, Sticky, bucket_of};
use ipnet::IpNet;

use crate::datapath::Rehearsed;

/// What the maps say of a flow.
#[derive(Clone, Debug)]
pub struct Looked {
    /// The prefix that makes it local.
    pub local: Option<IpNet>,
    /// The first rule about it, from 0.
    pub rule: Option<usize>,
    /// The policy that it has.
    pub selection: Selection,
}

/// The policy of a flow, and its table in the flow's family.
#[derive(Clone, Debug)]
pub enum Selection {
    /// None: it is not steered.
    Bypass,
    /// This one.
    Policy {
        /// Its number.
        id: PolicyId,
        /// What the map says of it.
        entry: PolicyEntry,
        /// Its table.
        table: Box<BucketTable>,
    },
}

/// What becomes of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It has the mark of this ISP.
    Steered(IspId),
    /// It is of a socket of this machine, which has drawn one of the ISPs that take flows.
    Drawn,
    /// It is for a local prefix.
    Local(Option<IpNet>),
    /// A rule says that it is not steered.
    Bypassed,
    /// No ISP of its policy can take it.
    NoIsp,
    /// Its packets cannot be read.
    Unreadable,
    /// It is of a socket of this machine that is left alone, for this reason.
    LeftAlone(&'static str),
}

/// How a flow is steered, and how that came about.
#[derive(Clone, Debug, PartialEq)]
pub struct Steering {
    /// What becomes of it.
    pub decision: Decision,
    /// The mark that it gets.
    pub mark: u32,
    /// The rule about it, from 0.
    pub rule: Option<usize>,
    /// Its policy.
    pub policy: Option<PolicyId>,
    /// Its bucket in the policy's table.
    pub bucket: Option<usize>,
    /// The parts of the policy's buckets, 0 to 1.
    pub shares: BTreeMap<IspId, f64>,
    /// What of this the program and the maps do not agree about.
    pub disagreement: Option<String>,
}

impl Steering {
    const fn new(decision: Decision, rule: Option<usize>) -> Self {
        Self {
            decision,
            mark: 0,
            rule,
            policy: None,
            bucket: None,
            shares: BTreeMap::new(),
            disagreement: None,
        }
    }

    /// Packets that have no flow.
    #[must_use]
    pub const fn unreadable() -> Self {
        Self::new(Decision::Unreadable, None)
    }

    /// A socket of this machine that nobody gives an ISP.
    #[must_use]
    pub const fn left_alone(why: &'static str) -> Self {
        Self::new(Decision::LeftAlone(why), None)
    }
}

/// What the maps say of a flow from a LAN: the same as the program, put together another way. `ours` are the bits of the mark that
/// are ours.
#[must_use]
pub fn expected(looked: &Looked, flow: &Flow, (seed, ours): (u64, MarkMask)) -> Steering {
    if looked.local.is_some() {
        return Steering::new(Decision::Local(looked.local), None);
    }
    let Selection::Policy { id, entry, table } = &looked.selection else {
        return Steering::new(Decision::Bypassed, looked.rule);
    };
    let bucket = bucket_of(Sticky::from(entry.sticky).key(*flow).hash(seed));
    chosen(looked.rule, (*id, entry, table), bucket, ours)
}

fn chosen(
    rule: Option<usize>,
    (id, entry, table): (PolicyId, &PolicyEntry, &BucketTable),
    bucket: usize,
    ours: MarkMask,
) -> Steering {
    let isp = table.get(bucket).and_then(|&owner| IspId::new(owner));
    // Without an ISP it may have the mark of those that are refused.
    let mark = isp.or_else(|| IspId::new(entry.last_resort)).map_or(0, |isp| ours.value(isp));
    Steering {
        mark,
        policy: Some(id),
        bucket: Some(bucket),
        shares: shares(table),
        ..Steering::new(isp.map_or(Decision::NoIsp, Decision::Steered), rule)
    }
}

/// What the program did is what counts. Where the maps say otherwise, what they say of the reasons is worth nothing.
#[must_use]
pub fn judged(rehearsed: &Rehearsed, expected: Steering, ours: MarkMask) -> Steering {
    let decision = match rehearsed.verdict {
        Some(Verdict::Steered) => ours.isp(rehearsed.mark).map_or(Decision::Unreadable, Decision::Steered),
        // Which prefix it is the program does not tell.
        Some(Verdict::Local) => Decision::Local(match expected.decision {
            Decision::Local(prefix) => prefix,
            _ => None,
        }),
        Some(Verdict::Bypassed) => Decision::Bypassed,
        Some(Verdict::NoIsp) => Decision::NoIsp,
        Some(Verdict::Unparsable | Verdict::NotIp) | None => Decision::Unreadable,
    };
    // To it, no packet of a flow that cannot be read has a policy.
    let policy = rehearsed.policy.filter(|&policy| policy != BYPASS).and_then(PolicyId::new);
    let by_program = (&decision, rehearsed.mark, policy);
    let by_maps = (&expected.decision, expected.mark, expected.policy);
    if by_program == by_maps {
        return expected;
    }
    let disagreement = format!("the program says {by_program:?}, the maps say {by_maps:?}");
    Steering {
        mark: rehearsed.mark,
        policy,
        disagreement: Some(disagreement),
        ..Steering::new(decision, None)
    }
}

/// A flow that a socket of this machine is about to begin, as far as it is known when its ISP is chosen.
#[must_use]
pub fn flow_of_socket(family: Family, destination: Option<Address>, protocol: u8, port: u16) -> Flow {
    const NOBODY: Address = Address::v4([0; 4]);
    let destination = destination.unwrap_or(NOBODY);
    Flow { family, source: NOBODY, destination, protocol, source_port: 0, destination_port: port }
}

/// What becomes of a flow of a TCP or UDP socket of this machine that is connected; see `balance-ebpf/src/local.rs`.
#[must_use]
pub fn of_socket(looked: &Looked, flow: &Flow, (seed, ours): (u64, MarkMask)) -> Steering {
    if looked.local.is_some() {
        return Steering::new(Decision::Local(looked.local), None);
    }
    let Selection::Policy { id, entry, table } = &looked.selection else {
        return Steering::new(Decision::Bypassed, looked.rule);
    };
    // UDP sockets have drawn from the default policy when they were made, and keep that.
    let is_drawn = flow.protocol == protocol::UDP && *id == PolicyId::DEFAULT;
    let known = if is_drawn { flow_of_socket(flow.family, None, flow.protocol, 0) } else { *flow };
    let steering = match Sticky::from(entry.sticky) {
        Sticky::Flow => drawn(looked.rule, (*id, table), ours),
        sticky => chosen(looked.rule, (*id, entry, table), bucket_of(sticky.key(known).hash(seed)), ours),
    };
    // Its packets are never refused.
    let mark = if steering.decision == Decision::NoIsp { 0 } else { steering.mark };
    Steering { mark, ..steering }
}

/// Each socket has a bucket of its own.
fn drawn(rule: Option<usize>, (id, table): (PolicyId, &BucketTable), ours: MarkMask) -> Steering {
    let shares = shares(table);
    let isps: Vec<IspId> = shares.keys().copied().collect();
    let (decision, mark) = match isps[..] {
        [] => (Decision::NoIsp, 0),
        [only] => (Decision::Steered(only), ours.value(only)),
        _ => (Decision::Drawn, 0),
    };
    Steering { mark, policy: Some(id), shares, ..Steering::new(decision, rule) }
}

fn shares(table: &BucketTable) -> BTreeMap<IspId, f64> {
    let mut counts: BTreeMap<IspId, usize> = BTreeMap::new();
    for isp in table.iter().filter_map(|&owner| IspId::new(owner)) {
        *counts.entry(isp).or_default() += 1;
    }
    counts.into_iter().map(|(isp, count)| (isp, count as f64 / table.len() as f64)).collect()
}
