//! Floods and scans find no way into the flow cache.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use balance_lab::addresses::lan_host;
use balance_lab::{Family, Flows, KINDS, Lab, Transport, flood, open_flows};

use crate::support::{FAMILIES, SOON, caches, fast_packets, maps, start, with_tc_alone};

/// How many flows of each kind there are, and how many of both families' the cache is made for.
const ESTABLISHED: usize = 100;
const ROOM: usize = 1_024;
/// How many flows of each family, from each side, a flood has.
const FLOOD: u32 = 250_000;
/// Ports that nobody listens on.
const PORTS: std::ops::Range<u32> = 10_000..60_000;

/// What the flow caches have entries for.
#[derive(Debug, PartialEq, Eq)]
struct Cached(HashSet<String>);

impl Cached {
    fn of(lab: &Lab) -> Self {
        let (v4, v6) = caches(lab);
        let v4 = v4.iter().map(|(key, _)| format!("{key:?}"));
        Self(v4.chain(v6.iter().map(|(key, _)| format!("{key:?}"))).collect())
    }
}

/// Every flow asks so often, and is answered.
fn ask(flows: &mut [Flows], times: usize) {
    for flows in flows {
        for _ in 0..times {
            for answer in flows.ask(SOON) {
                answer.unwrap();
            }
        }
    }
}

/// So many flows: addresses of the internet host and their ports, in the family of the sender.
fn into_the_internet(from: IpAddr) -> impl Iterator<Item = SocketAddr> {
    let addresses = FLOOD / (PORTS.end - PORTS.start);
    let address = move |number: u32| -> IpAddr {
        let last = 10 + u8::try_from(number).unwrap();
        match from {
            IpAddr::V4(_) => [203, 0, 113, last].into(),
            IpAddr::V6(_) => [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, u16::from(last)].into(),
        }
    };
    (0..addresses).flat_map(move |number| on_all_ports(address(number)))
}

fn on_all_ports(address: IpAddr) -> impl Iterator<Item = SocketAddr> {
    PORTS.map(move |port| (address, u16::try_from(port).unwrap()).into())
}

/// Forwards whatever comes in by the ISPs to the LAN host, without a firewall.
fn open_the_lan(lab: &Lab) {
    let [v4, v6] = FAMILIES.map(|family| lan_host(0, family));
    let forward = format!(
        "table inet forward {{
            chain in {{
                type nat hook prerouting priority dstnat;
                iifname {{ cable0, dsl0 }} meta nfproto ipv4 meta l4proto {{ tcp, udp }} dnat ip to {v4}
                iifname {{ cable0, dsl0 }} meta nfproto ipv6 meta l4proto {{ tcp, udp }} dnat ip6 to {v6}
            }}
        }}"
    );
    lab.router().feed("nft", &["-f", "-"], &forward).unwrap();
}

/// Sends it from both sides at once, in both families: a million flows.
fn flood_all(lab: &Lab, transport: Transport) -> u64 {
    std::thread::scope(|scope| {
        let out = scope.spawn(|| flood_out(lab, transport));
        let back_in = scope.spawn(|| flood_in(lab, transport));
        out.join().unwrap() + back_in.join().unwrap()
    })
}

/// From the LAN, half a million.
fn flood_out(lab: &Lab, transport: Transport) -> u64 {
    let flood_out = |family| {
        let own = lan_host(0, family);
        flood(lab.lan(), transport, own, into_the_internet(own)).unwrap()
    };
    FAMILIES.into_iter().map(flood_out).sum()
}

/// From the internet, as many, by way of both ISPs.
fn flood_in(lab: &Lab, transport: Transport) -> u64 {
    let mut sent = 0;
    // As many flows as addresses of the LAN's flood.
    let senders = FLOOD / (PORTS.end - PORTS.start);
    for family in FAMILIES {
        for (number, isp) in lab.isps().iter().enumerate() {
            let to = isp.address(family);
            for sender in (0..senders).filter(|sender| *sender as usize % lab.isps().len() == number) {
                let last = 100 + u16::try_from(sender).unwrap();
                let from: IpAddr = match family {
                    Family::V4 => [203, 0, 113, last.to_be_bytes()[1]].into(),
                    Family::V6 => [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, last].into(),
                };
                sent += flood(lab.internet(), transport, from, on_all_ports(to)).unwrap();
            }
        }
    }
    sent
}

/// Flows from the LAN that the programs have seen.
fn new_flows(lab: &Lab) -> u64 {
    maps(lab, |maps| {
        let isps = maps.isps().unwrap();
        isps.keys().map(|isp| maps.counters(*isp).unwrap().new_flows).sum()
    })
}

fn to_router(lab: &Lab) -> u64 {
    lab.isps().iter().map(|isp| isp.forwarded().unwrap().to_router).sum()
}

fn established_flows_stay_in_the_cache(acceleration: &str, transport: Transport) {
    let lab = Lab::new().unwrap();
    let _daemon = start(&lab, acceleration, &format!("flows = {ROOM}"));
    open_the_lan(&lab);
    let mut flows: Vec<Flows> = KINDS
        .into_iter()
        .map(|(transport, family)| open_flows(lab.lan(), ESTABLISHED, transport, family).unwrap())
        .collect();
    ask(&mut flows, 5);
    let before = Cached::of(&lab);
    let expected = KINDS.len() * ESTABLISHED * 2;
    assert!((expected..expected + 8).contains(&before.0.len()), "{} entries", before.0.len());

    let seen_before = (new_flows(&lab), to_router(&lab));
    let sent = flood_all(&lab, transport);
    assert_eq!(sent, 4 * u64::from(FLOOD));
    // It was a flood, from both sides.
    let seen = (new_flows(&lab) - seen_before.0, to_router(&lab) - seen_before.1);
    assert!(seen.0 > 2 * u64::from(FLOOD) * 9 / 10, "{seen:?}");
    assert!(seen.1 > 2 * u64::from(FLOOD) * 9 / 10, "{seen:?}");

    let now = Cached::of(&lab);
    let evicted: Vec<_> = before.0.difference(&now.0).collect();
    assert!(evicted.is_empty(), "{} of {}: {evicted:?}", evicted.len(), before.0.len());
    assert!(now.0.len() < before.0.len() + 8, "{} entries were {}", now.0.len(), before.0.len());

    let fast = fast_packets(&lab);
    ask(&mut flows, 10);
    let fast = fast_packets(&lab) - fast;
    let all = (KINDS.len() * ESTABLISHED * 2 * 10) as u64;
    assert!(fast > all * 8 / 10, "{fast} of {all} packets went fast");
}

#[test]
fn a_flood_of_a_million_syns_evicts_no_established_flow() {
    with_tc_alone(|acceleration| established_flows_stay_in_the_cache(acceleration, Transport::Tcp));
}

#[test]
fn a_scan_of_a_million_udp_ports_evicts_no_established_flow() {
    with_tc_alone(|acceleration| established_flows_stay_in_the_cache(acceleration, Transport::Udp));
}
