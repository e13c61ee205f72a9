//! What things cost.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::time::Duration;

use balance_common::packet::LinkLayer;
use balance_common::{Family, IspId, Member, build_table};

use crate::packet::{Extension, Ipv4, Ipv6, Payload, ether_type, ethernet};
use crate::steering::Steering;

/// Measurements of each figure, of which the median counts.
const MEASUREMENTS: u32 = 15;
/// Runs of the program in a measurement of a known flow.
const KNOWN_RUNS: u32 = 1_000_000;
/// Flows in a measurement of new ones.
const NEW_FLOWS: u32 = 2_000;

/// The cost of steering one packet, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteeringCost {
    /// Of what kind of packet.
    pub packet: &'static str,
    /// Of a flow that was seen lately.
    pub known: u64,
    /// Of a flow that was not.
    pub new: u64,
}

/// Makes a packet of the flow of this number.
type Make = fn(u32) -> Vec<u8>;

/// Measures what steering a packet costs in the kernel: IPv4 and IPv6, TCP and fragments, with four ISPs and twenty
/// local prefixes. The medians of 15 measurements.
///
/// Each figure is what the kernel itself measures around the program, without the system call; some 30 ns of it are
/// the kernel's loop. A known flow is one packet a million times in one call, and their mean. For new flows that would
/// not do, since each is new only once: it is the median of two thousand packets, each of a flow and in a call of its
/// own, and so contains reading the clock twice, and caches that the call has used for other things.
///
/// # Errors
/// Without root, or on a kernel without BPF.
pub fn steering_cost() -> anyhow::Result<Vec<SteeringCost>> {
    let steering = set_up()?;
    let program = steering.program("lan_ingress")?;
    let kinds: [(&str, Make); 4] = [
        ("IPv4 TCP", tcp_v4),
        ("IPv6 TCP", tcp_v6),
        ("IPv4 fragment", fragment_v4),
        ("IPv6 fragment", fragment_v6),
    ];
    let cost = |(packet, make): (&'static str, Make)| {
        let known = median(0..MEASUREMENTS, |_| program.time(&make(0), KNOWN_RUNS))?;
        let new = median(0..MEASUREMENTS, |measurement| {
            let first = 1 + measurement * NEW_FLOWS;
            median(first..first + NEW_FLOWS, |flow| program.time(&make(flow), 1))
        })?;
        let nanoseconds = |time: Duration| u64::from(time.subsec_nanos());
        Ok(SteeringCost { packet, known: nanoseconds(known), new: nanoseconds(new) })
    };
    kinds.into_iter().map(cost).collect()
}

/// The median of measurements, one for each number.
///
/// # Errors
/// When one fails.
pub fn median(
    numbers: Range<u32>,
    measure: impl FnMut(u32) -> anyhow::Result<Duration>,
) -> anyhow::Result<Duration> {
    let mut figures: Vec<Duration> = numbers.map(measure).collect::<anyhow::Result<_>>()?;
    figures.sort_unstable();
    Ok(figures.get(figures.len() / 2).copied().unwrap_or_default())
}

/// What is never balanced on a router with two LANs and two ISPs.
#[must_use]
pub fn local_prefixes() -> [(IpAddr, u8); 20] {
    let v4 = |a, b, c, d, length| (IpAddr::from(Ipv4Addr::new(a, b, c, d)), length);
    let v6 = |a, b, c, length| (IpAddr::from(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), length);
    [
        v4(0, 0, 0, 0, 8),
        v4(10, 0, 0, 0, 8),
        v4(100, 64, 1, 2, 32),
        v4(100, 64, 2, 2, 32),
        v4(127, 0, 0, 0, 8),
        v4(169, 254, 0, 0, 16),
        v4(172, 16, 0, 0, 12),
        v4(192, 168, 1, 0, 24),
        v4(192, 168, 1, 1, 32),
        v4(192, 168, 1, 255, 32),
        v4(224, 0, 0, 0, 4),
        v4(255, 255, 255, 255, 32),
        v6(0x2001, 0xdb8, 1, 48),
        v6(0x2001, 0xdb8, 2, 48),
        v6(0xfd00, 1, 0, 64),
        v6(0xfd00, 2, 0, 64),
        v6(0xfc00, 0, 0, 7),
        v6(0xfe80, 0, 0, 10),
        v6(0xff00, 0, 0, 8),
        (Ipv6Addr::LOCALHOST.into(), 128),
    ]
}

/// A TCP packet of the flow of this number: from 192.168.1.10 to 203.0.0.0/8, or from `fd00:1::10` to 2001:db9::/32, to port 443.
/// The last 24 bits of the destination, or the last 32 of its network, are the number.
#[must_use]
pub fn tcp_packet(family: Family, flow: u32) -> Vec<u8> {
    match family {
        Family::V4 => tcp_v4(flow),
        Family::V6 => tcp_v6(flow),
    }
}

fn set_up() -> anyhow::Result<Steering> {
    let mut steering = Steering::load()?;
    steering.set_settings(7, 0x3f00)?;
    steering.set_device(LinkLayer::Ethernet, 0)?;
    let members: Vec<Member> = IspId::all().take(4).map(|isp| Member { isp, weight: 1 }).collect();
    for family in Family::ALL {
        steering.set_table(family, build_table(&members, &[]).bytes())?;
    }
    steering.add_local(&local_prefixes())?;
    Ok(steering)
}

/// A header to the far host of this number.
fn v4(flow: u32) -> Ipv4 {
    let [_, b, c, d] = flow.to_be_bytes();
    Ipv4::new(Ipv4Addr::new(192, 168, 1, 10), Ipv4Addr::new(203, b, c, d))
}

fn v6(flow: u32) -> Ipv6 {
    let [a, b, c, d] = flow.to_be_bytes();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Ipv6::new(
        Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x10),
        Ipv6Addr::new(0x2001, 0xdb9, high, low, 0, 0, 0, 9),
    )
}

fn tcp_v4(flow: u32) -> Vec<u8> {
    ethernet(&[], ether_type::IPV4, &v4(flow).carrying(&Payload::tcp(40_000, 443)))
}

fn tcp_v6(flow: u32) -> Vec<u8> {
    ethernet(&[], ether_type::IPV6, &v6(flow).carrying(&Payload::tcp(40_000, 443)))
}

fn fragment_v4(flow: u32) -> Vec<u8> {
    let payload = Payload::udp(40_000, 443, &[0; 64]);
    ethernet(&[], ether_type::IPV4, &v4(flow).fragment(0, true).carrying(&payload))
}

fn fragment_v6(flow: u32) -> Vec<u8> {
    let payload = Payload::udp(40_000, 443, &[0; 64]);
    ethernet(&[], ether_type::IPV6, &v6(flow).extension(Extension::fragment(0, true)).carrying(&payload))
}
