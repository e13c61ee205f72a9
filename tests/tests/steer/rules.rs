//! Rules and policies: what the program does with them, against what the config says.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use balance_common::layout::{BucketTable, Device, PolicyEntry, Settings, Verdict};
use balance_common::{BUCKETS, Family, Flow, PolicyId, Sticky, bucket_of};
use balance_lab::packet::{Ipv4, Ipv6, Payload, ether_type, ethernet};
use balance_lab::{LOOPBACK, Steering, ready};
use balance_user::config::policy::{RuleConfig, RuleTarget};
use balance_user::core::plan::MapPlan;
use balance_user::datapath::{Maps, Pins};
use balance_user::rules::compile;
use ipnet::IpNet;

use crate::kernel::{MASK, SEED, TCX_NEXT};
use crate::mutated::Random;

/// Policies 0 to 5; policy N has all of its flows at ISP N + 1.
pub(crate) const POLICIES: u8 = 6;
const DROP: u8 = 62;

/// The program, and the maps as the daemon sets them.
pub(crate) struct Kernel {
    steering: Steering,
    maps: Maps,
    pub(crate) plan: MapPlan,
}

impl Kernel {
    pub(crate) fn new() -> Self {
        let mut steering = Steering::load().unwrap();
        steering.set_settings(SEED, MASK).unwrap();
        let maps = steering.host().run(|| Maps::open(&Pins::of(Steering::INSTANCE)).unwrap());
        let policies = || (0..POLICIES).map(|number| PolicyId::new(number).unwrap());
        let entry = PolicyEntry { name: [b'x'; 32], ..PolicyEntry::default() };
        let table = |id: PolicyId| [id.get() + 1; BUCKETS];
        let each = policies().flat_map(|id| Family::ALL.map(|family| ((id, family), table(id))));
        let plan = MapPlan {
            settings: Settings { seed: SEED, mark_mask: MASK, ..Settings::default() },
            isps: BTreeMap::new(),
            policies: policies().map(|id| (id, entry)).collect(),
            tables: each.collect(),
            rules: Arc::new(compile(&[], |_| 0).unwrap()),
            local: BTreeSet::new(),
            devices: BTreeMap::new(),
            learn: BTreeSet::new(),
        };
        let mut kernel = Self { steering, maps, plan };
        kernel.come_from(1);
        kernel
    }

    /// Puts rules in force.
    fn follow(&mut self, rules: &[RuleConfig]) {
        self.plan.rules = Arc::new(compile(rules, |place| u8::try_from(place).unwrap()).unwrap());
        self.apply();
    }

    /// Has packets come from this LAN.
    fn come_from(&mut self, lan: u8) {
        self.plan.devices = BTreeMap::from([(LOOPBACK, Device { ethernet: 1, lan, ..Device::default() })]);
        self.apply();
    }

    pub(crate) fn apply(&mut self) {
        self.maps.apply(&self.plan).unwrap();
    }

    /// Whose mark a packet gets.
    pub(crate) fn isp_of(&self, packet: &[u8]) -> u8 {
        let outcome = self.steering.program("lan_ingress").unwrap().run(packet, 0).unwrap();
        assert_eq!(outcome.returned, TCX_NEXT);
        u8::try_from(outcome.mark >> 8).unwrap()
    }
}

/// A packet and what rules may ask of it.
pub(crate) struct Sample {
    pub(crate) packet: Vec<u8>,
    pub(crate) flow: Flow,
    dscp: u8,
}

pub(crate) fn sample(random: &mut Random) -> Sample {
    let (source, destination) =
        if random.below(2) == 0 { (v4(random), v4(random)) } else { (v6(random), v6(random)) };
    let dscp = [0, 10, 46, 63][random.below(4)];
    let (source_port, destination_port) = (port(random), port(random));
    let (protocol, payload) = match random.below(4) {
        0 => (6, Payload::tcp(source_port, destination_port)),
        1 => (17, Payload::udp(source_port, destination_port, &[])),
        2 => (132, Payload::sctp(source_port, destination_port)),
        _ => (99, Payload::new(99, &[0; 8])),
    };
    let (source_port, destination_port) =
        if protocol == 99 { (0, 0) } else { (source_port, destination_port) };
    let (family, packet) = match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let packet = Ipv4::new(from, to).tos(dscp << 2 | 1).carrying(&payload);
            (Family::V4, ethernet(&[], ether_type::IPV4, &packet))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let packet = Ipv6::new(from, to).traffic_class(dscp << 2 | 1).carrying(&payload);
            (Family::V6, ethernet(&[], ether_type::IPV6, &packet))
        }
        _ => panic!("both are of one family"),
    };
    let (source, destination) = (source.into(), destination.into());
    Sample {
        packet,
        dscp,
        flow: Flow { family, source, destination, protocol, source_port, destination_port },
    }
}

fn byte(random: &mut Random, below: usize) -> u8 {
    u8::try_from(random.below(below)).unwrap()
}

/// Few enough for rules to be about them.
fn v4(random: &mut Random) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, byte(random, 4), byte(random, 256), byte(random, 256)))
}

fn v6(random: &mut Random) -> IpAddr {
    let part = |random: &mut Random, below| u16::try_from(random.below(below)).unwrap();
    let [a, b, c] = [part(random, 4), part(random, 0x1_0000), part(random, 0x1_0000)];
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, a, b, 0, 0, 0, c))
}

fn port(random: &mut Random) -> u16 {
    u16::try_from(1 + random.below(200)).unwrap()
}

pub(crate) fn some<T>(random: &mut Random, one: impl Fn(&mut Random) -> T) -> Vec<T> {
    (0..random.below(3)).map(|_| one(random)).collect()
}

fn prefix(random: &mut Random) -> IpNet {
    let address = if random.below(2) == 0 { v4(random) } else { v6(random) };
    let lengths: &[u8] =
        if address.is_ipv4() { &[0, 8, 14, 16, 20, 24, 32] } else { &[0, 3, 32, 48, 56, 64, 128] };
    IpNet::new(address, lengths[random.below(lengths.len())]).unwrap().trunc()
}

fn range(random: &mut Random) -> RangeInclusive<u16> {
    let first = port(random);
    first..=first + u16::try_from(random.below(50)).unwrap()
}

pub(crate) fn rule(random: &mut Random) -> RuleConfig {
    RuleConfig {
        source: some(random, prefix),
        destination: some(random, prefix),
        protocols: some(random, |random| [6, 17, 132, 99][random.below(4)]),
        source_ports: some(random, range),
        destination_ports: some(random, range),
        lans: some(random, |random| byte(random, 4)),
        dscps: some(random, |random| [0, 10, 46][random.below(3)]),
        to: match random.below(usize::from(POLICIES) + 1) {
            0 => RuleTarget::Bypass,
            place => RuleTarget::Policy(place - 1),
        },
        line: 0,
    }
}

/// What the config says of a flow: the ISP, or 0 for none.
fn expected(rules: &[RuleConfig], sample: &Sample, lan: u8) -> u8 {
    match rules.iter().find(|rule| rule.is_about(&sample.flow, lan, sample.dscp)).map(|rule| rule.to) {
        None => 1,
        Some(RuleTarget::Policy(place)) => u8::try_from(place).unwrap() + 1,
        Some(RuleTarget::Bypass) => 0,
    }
}

#[test]
fn a_hundred_thousand_packets_go_where_the_config_says_under_random_rules() {
    const SETS: usize = 50;
    const PACKETS: usize = 2_000;
    if !ready() {
        return;
    }
    let mut kernel = Kernel::new();
    let mut random = Random(SEED);
    let mut by_rule = 0;
    for set in 0..SETS {
        let count = [1, 5, 30, 200, 1024][random.below(5)];
        let rules: Vec<RuleConfig> = (0..count).map(|_| rule(&mut random)).collect();
        kernel.follow(&rules);
        // A flow that is known is not asked about again.
        let mut asked = HashSet::new();
        for packets in [PACKETS / 2; 2] {
            let lan = byte(&mut random, 4);
            kernel.come_from(lan);
            let samples =
                std::iter::repeat_with(|| sample(&mut random)).filter(|sample| asked.insert(sample.flow));
            for sample in samples.take(packets).collect::<Vec<_>>() {
                let expected = expected(&rules, &sample, lan);
                by_rule += u32::from(expected != 1);
                assert_eq!(
                    kernel.isp_of(&sample.packet),
                    expected,
                    "set {set}: {:?} {lan} {rules:?}",
                    sample.flow
                );
            }
        }
    }
    // Rules that are about nothing would prove nothing.
    assert!((20_000..90_000).contains(&by_rule), "{by_rule}");
}

#[test]
fn known_flows_follow_new_rules_at_once() {
    if !ready() {
        return;
    }
    let mut kernel = Kernel::new();
    let sample = sample(&mut Random(SEED));
    assert_eq!(kernel.isp_of(&sample.packet), 1);
    for place in [4, 2] {
        kernel.follow(&[RuleConfig { to: RuleTarget::Policy(place), ..RuleConfig::default() }]);
        for _ in 0..3 {
            assert_eq!(usize::from(kernel.isp_of(&sample.packet)), place + 1);
        }
    }
    kernel.follow(&[RuleConfig::default()]);
    let bypassed = || kernel.maps.verdict(Verdict::Bypassed).unwrap().packets;
    let before = bypassed();
    assert_eq!((kernel.isp_of(&sample.packet), kernel.isp_of(&sample.packet)), (0, 0));
    assert_eq!(bypassed(), before + 2);
    kernel.follow(&[]);
    assert_eq!(kernel.isp_of(&sample.packet), 1);
}

#[test]
fn flows_that_stick_together_have_one_bucket() {
    if !ready() {
        return;
    }
    let mut kernel = Kernel::new();
    let mut table: BucketTable = [0; BUCKETS];
    for (isp, bucket) in (0_u8..50).cycle().zip(&mut table) {
        *bucket = isp + 1;
    }
    for family in Family::ALL {
        kernel.plan.tables.insert((PolicyId::DEFAULT, family), table);
    }
    let mut random = Random(SEED);
    for sticky in [Sticky::Flow, Sticky::Source, Sticky::SourceDestination, Sticky::Destination] {
        let entry = PolicyEntry { name: [b'x'; 32], sticky: sticky as u8, ..PolicyEntry::default() };
        kernel.plan.policies.insert(PolicyId::DEFAULT, entry);
        kernel.apply();
        for _ in 0..500 {
            let sample = sample(&mut random);
            let expected = table[bucket_of(sticky.key(sample.flow).hash(SEED))];
            assert_eq!(kernel.isp_of(&sample.packet), expected, "{sticky:?}");
        }
    }
}

#[test]
fn without_an_isp_the_last_resort_decides() {
    if !ready() {
        return;
    }
    let mut kernel = Kernel::new();
    let sample = sample(&mut Random(SEED));
    for family in Family::ALL {
        kernel.plan.tables.insert((PolicyId::DEFAULT, family), [0; BUCKETS]);
    }
    kernel.apply();
    assert_eq!(kernel.isp_of(&sample.packet), 0);
    let entry = PolicyEntry { name: [b'x'; 32], last_resort: DROP, ..PolicyEntry::default() };
    kernel.plan.policies.insert(PolicyId::DEFAULT, entry);
    kernel.apply();
    assert_eq!(kernel.isp_of(&sample.packet), DROP);
    assert_eq!(kernel.maps.verdict(Verdict::NoIsp).unwrap().packets, 2);
}
