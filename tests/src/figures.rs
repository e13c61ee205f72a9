//! What things cost.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use balance_common::packet::LinkLayer;
use balance_common::{Family, IspId, Member, build_table};

use crate::packet::{Extension, Ipv4, Ipv6, Payload, ether_type, ethernet};
use crate::steering::{Program, Steering};

/// Measurements of each figure, of which the median counts.
const MEASUREMENTS: usize = 15;
/// Runs of the program in a measurement of a known flow.
const KNOWN_RUNS: u32 = 1_000_000;
/// Flows in a measurement of new ones. All measurements together stay below what the map of seen flows holds.
const NEW_FLOWS: u32 = 2_000;
/// How often each packet of those runs: an even number.
const NEW_RUNS: u32 = 2;

/// The cost of steering one packet, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteeringCost {
    /// Of what kind of packet.
    pub packet: &'static str,
    /// Of a flow that was seen lately.
    pub known: u64,
    /// Of a flow that was not; `None` where there is but one.
    pub new: Option<u64>,
}

/// Measures what steering a packet costs in the kernel: IPv4 and IPv6, TCP and fragments, with four ISPs and twenty
/// local prefixes.
///
/// A known flow is one packet a million times, in one call of the kernel. For new flows that does not do, since the
/// second time it is known, so each runs by itself, where what the kernel rounds
///
/// # Errors
/// Without root, or on a kernel without BPF.
pub fn steering_cost() -> anyhow::Result<Vec<SteeringCost>> {
    let steering = set_up()?;
    let program = steering.program("lan_ingress")?;
    let kinds: [(&str, fn(u16) -> Vec<u8>); 4] =
        [("IPv4 TCP", tcp_v4), ("IPv6 TCP", tcp_v6), ("IPv4 fragment", fragment_v4), ("IPv6 fragment", fragment_v6)];
    kinds
        .into_iter()
        .map(|(packet, make)| {
            let known = median(|_| known(program, &make(443)))?;
            Ok(SteeringCost { packet, known, new: None })
        })
        .collect()
}

fn known(program: Program<'_>, packet: &[u8]) -> anyhow::Result<u64> {
    Ok(program.time(packet, KNOWN_RUNS)?.as_nanos().try_into()?)
}

fn median(mut measure: impl FnMut(usize) -> anyhow::Result<u64>) -> anyhow::Result<u64> {
    let mut figures: Vec<u64> = (0..MEASUREMENTS).map(&mut measure).collect::<anyhow::Result<_>>()?;
    figures.sort_unstable();
    Ok(figures.get(MEASUREMENTS / 2).copied().unwrap_or_default())
}

pub fn set_up() -> anyhow::Result<Steering> {
    let mut steering = Steering::load()?;
    steering.set_settings(7, 0x3f00)?;
    steering.set_device(LinkLayer::Ethernet, 0)?;
    let members: Vec<Member> = IspId::all().take(4).map(|isp| Member { isp, weight: 1 }).collect();
    for family in Family::ALL {
        steering.set_table(family, build_table(&members, &[]).bytes())?;
    }
    let v4 = |a, b, c, d, length| (IpAddr::from(Ipv4Addr::new(a, b, c, d)), length);
    let v6 = |a, b, c, length| (IpAddr::from(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), length);
    steering.add_local(&[
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
    ])?;
    Ok(steering)
}

fn v4() -> Ipv4 {
    Ipv4::new(Ipv4Addr::new(192, 168, 1, 10), Ipv4Addr::new(203, 0, 113, 9))
}

fn v6() -> Ipv6 {
    Ipv6::new(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x10), Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9))
}

pub fn tcp_v4(port: u16) -> Vec<u8> {
    ethernet(&[], ether_type::IPV4, &v4().carrying(&Payload::tcp(40_000, port)))
}

fn tcp_v6(port: u16) -> Vec<u8> {
    ethernet(&[], ether_type::IPV6, &v6().carrying(&Payload::tcp(40_000, port)))
}

fn fragment_v4(port: u16) -> Vec<u8> {
    let payload = Payload::udp(40_000, port, &[0; 64]);
    ethernet(&[], ether_type::IPV4, &v4().fragment(0, true).carrying(&payload))
}

fn fragment_v6(port: u16) -> Vec<u8> {
    let payload = Payload::udp(40_000, port, &[0; 64]);
    ethernet(&[], ether_type::IPV6, &v6().extension(Extension::fragment(0, true)).carrying(&payload))
}
