//! What rules cost.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use balance_common::layout::{Device, PolicyEntry, Settings};
use balance_common::{Family, IspId, Member, PolicyId, build_table};
use balance_lab::figures::{local_prefixes, median, tcp_packet};
use balance_lab::{LOOPBACK, Steering};
use balance_user::config::policy::{RuleConfig, RuleTarget};
use balance_user::core::plan::MapPlan;
use balance_user::datapath::{Maps, Pins};
use balance_user::rules::{Rules, compile};
use ipnet::IpNet;

/// So often everything is measured.
pub(crate) const ROUNDS: u32 = 31;
/// Runs of the program in a measurement of a known flow.
const KNOWN_RUNS: u32 = 100_000;
/// Flows in a measurement of new ones.
const NEW_FLOWS: u32 = 1_000;
/// The families, each with flows that are known and with new ones.
pub(crate) const COLUMNS: [(Family, bool); 4] =
    [(Family::V4, false), (Family::V4, true), (Family::V6, false), (Family::V6, true)];

/// Which rules are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Variant {
    /// How many.
    pub(crate) count: usize,
    /// Whether the last one is about the packets; otherwise none is.
    pub(crate) matching: bool,
}

/// Nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figure {
    pub(crate) least: u32,
    pub(crate) median: u32,
}

impl fmt::Display for Variant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { count: 0, .. } => formatter.write_str("0"),
            Self { count, matching: true } => write!(formatter, "{count}, the last matches"),
            Self { count, matching: false } => write!(formatter, "{count}, none matches"),
        }
    }
}

/// Measures all variants with one program and one set of maps, in turns, so that what else the machine does, and where in
/// memory things happen to be, is the same for all.
pub(crate) fn measure() -> anyhow::Result<BTreeMap<Variant, [Figure; 4]>> {
    let steering = Steering::load()?;
    let mut maps = steering.host().run(|| Maps::open(&Pins::of(Steering::INSTANCE)))?;
    let program = steering.program("lan_ingress")?;
    let variants = [(0, false), (10, true), (1000, true), (10, false), (1000, false)];
    let variants = variants.map(|(count, matching)| Variant { count, matching });
    let mut plan = plan()?;
    let mut times: BTreeMap<Variant, [Vec<Duration>; 4]> = BTreeMap::new();
    let mut flow = 1;
    for round in 0..ROUNDS {
        for variant in variants {
            plan.rules = rules(variant)?;
            maps.apply(&plan)?;
            let times = times.entry(variant).or_default();
            for ((family, is_new), times) in COLUMNS.into_iter().zip(times) {
                let packet = tcp_packet(family, 0);
                let expected = if variant.matching { 5 } else { 0 };
                let mark = program.run(&packet, 0)?.mark >> 8;
                anyhow::ensure!(
                    (mark == 5) == (expected == 5),
                    "{variant}: the mark is {mark} in round {round}"
                );
                times.push(if is_new {
                    let first = flow;
                    flow += NEW_FLOWS;
                    median(first..flow, |flow| program.time(&tcp_packet(family, flow), 1))?
                } else {
                    program.time(&packet, KNOWN_RUNS)?
                });
            }
        }
    }
    Ok(times.into_iter().map(|(variant, times)| (variant, times.map(figure))).collect())
}

fn figure(mut times: Vec<Duration>) -> Figure {
    times.sort_unstable();
    let nanoseconds = |time: Option<&Duration>| time.copied().unwrap_or_default().subsec_nanos();
    Figure { least: nanoseconds(times.first()), median: nanoseconds(times.get(times.len() / 2)) }
}

/// The maps with two policies: four ISPs share the flows of the first one, the fifth has the second's.
fn plan() -> anyhow::Result<MapPlan> {
    let policy = |number| PolicyId::new(number).context("there are two policies");
    let entry = PolicyEntry { name: [b'x'; 32], ..PolicyEntry::default() };
    let members: Vec<Member> = IspId::all().take(5).map(|isp| Member { isp, weight: 1 }).collect();
    let (last, others) = members.split_last().context("there are five ISPs")?;
    let tables = [(policy(0)?, others), (policy(1)?, std::slice::from_ref(last))];
    let tables = tables.into_iter().flat_map(|(id, members)| {
        Family::ALL.map(|family| ((id, family), build_table(members, &[]).bytes()))
    });
    let local = local_prefixes().map(|(address, length)| IpNet::new(address, length));
    Ok(MapPlan {
        settings: Settings { seed: 7, mark_mask: 0x3f00, ..Settings::default() },
        isps: BTreeMap::new(),
        policies: [(policy(0)?, entry), (policy(1)?, entry)].into(),
        tables: tables.collect(),
        rules: Arc::new(Rules::none()),
        local: local.into_iter().collect::<Result<_, _>>()?,
        devices: [(LOOPBACK, Device { ethernet: 1, lan: 1, ..Device::default() })].into(),
        learn: [].into(),
    })
}

fn rules(variant: Variant) -> anyhow::Result<Arc<Rules>> {
    let mut random = Random(7);
    let others = variant.count.saturating_sub(1);
    let mut rules: Vec<_> =
        (0..others).map(|number| other_rule(&mut random, number)).collect::<Result<_, _>>()?;
    if variant.count > 0 {
        let last = if variant.matching { matching_rule()? } else { other_rule(&mut random, others)? };
        rules.push(last);
    }
    Ok(Arc::new(compile(&rules, |place| u8::try_from(place).unwrap_or_default())?))
}

/// The rule about the packets.
fn matching_rule() -> anyhow::Result<RuleConfig> {
    Ok(RuleConfig {
        source: vec!["192.168.1.0/24".parse()?, "fd00:1::/64".parse()?],
        destination: vec!["203.0.0.0/8".parse()?, "2001:db9::/32".parse()?],
        protocols: vec![6],
        destination_ports: vec![443..=443],
        to: RuleTarget::Policy(1),
        ..RuleConfig::default()
    })
}

/// A rule that is about hosts and networks near those of the packets, and about their protocol, source and port; but not about
/// all three.
fn other_rule(random: &mut Random, number: usize) -> anyhow::Result<RuleConfig> {
    let mut rule = RuleConfig { to: RuleTarget::Policy(1), ..RuleConfig::default() };
    // Some are about ports or hosts alone.
    if random.below(8) != 0 {
        for _ in 0..=random.below(2) {
            rule.destination.push(far_v4(random)?);
            rule.destination.push(far_v6(random)?);
        }
    }
    let excluded = number % 3;
    rule.protocols = if excluded == 0 { vec![17] } else { vec![6, 17] };
    rule.source = match excluded {
        1 => near(random, 128)?,
        _ if random.below(2) == 0 => Vec::new(),
        _ => near(random, 0)?,
    };
    if random.below(4) == 0 {
        rule.source_ports = vec![range(random, 30_000)];
        rule.source_ports.push(40_000..=40_000);
    }
    rule.destination_ports = vec![range(random, 1_000)];
    if excluded != 2 {
        rule.destination_ports.push(443..=443);
    }
    if random.below(10) == 0 {
        rule.dscps = vec![0, 46];
    }
    Ok(rule)
}

/// Prefixes in the half of the LAN that begins there; the packets come from the first half.
fn near(random: &mut Random, first: u8) -> anyhow::Result<Vec<IpNet>> {
    if first == 0 && random.below(2) == 0 {
        return Ok(vec!["192.168.1.0/25".parse()?, "fd00:1::/121".parse()?]);
    }
    let host = first + u8::try_from(random.below(128))?;
    let length = u8::try_from(random.below(8))?;
    let v6 = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, host.into());
    Ok(vec![prefix(Ipv4Addr::new(192, 168, 1, host).into(), 25 + length)?, prefix(v6.into(), 121 + length)?])
}

fn far_v4(random: &mut Random) -> anyhow::Result<IpNet> {
    let [_, b, c, d] = u32::try_from(random.below(1 << 18))?.to_be_bytes();
    prefix(Ipv4Addr::new(203, b, c, d).into(), u8::try_from(10 + random.below(23))?)
}

fn far_v6(random: &mut Random) -> anyhow::Result<IpNet> {
    let [a, b, c, d] = u32::try_from(random.below(1 << 18))?.to_be_bytes();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let address = Ipv6Addr::new(0x2001, 0xdb9, high, low, 0, 0, 0, 9);
    // As they are handed out, in nibbles; and hosts.
    let length = 24 + 4 * u8::try_from(random.below(12))?;
    prefix(address.into(), if length > 64 { 128 } else { length })
}

fn prefix(address: IpAddr, length: u8) -> anyhow::Result<IpNet> {
    Ok(IpNet::new(address, length)?.trunc())
}

/// A range of ports from `first` on, of up to a hundred.
fn range(random: &mut Random, first: u16) -> RangeInclusive<u16> {
    let step = |below| u16::try_from(random.below(below)).unwrap_or_default();
    let [start, length] = [20_000, 100].map(step);
    first + start..=first + start + length
}

/// The same numbers each time: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % end
    }
}
