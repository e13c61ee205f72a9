//! That the benchmark measures what it says.
#![cfg(test)]

use balance_bench::cases::{self, Case, Size};
use balance_bench::core::Core;
use balance_bench::site::Site;
use balance_bench::traffic::{self, Group, Traffic};
use balance_lab::ready;

const SIZE: Size = Size { flows: 1024 };

fn case(name: &str) -> &'static Case {
    static ALL: [Case; cases::ALL.len()] = cases::ALL;
    ALL.iter().find(|case| case.name == name).unwrap()
}

fn traffic(name: &str) -> Traffic {
    traffic::ALL.into_iter().find(|traffic| traffic.name == name).unwrap()
}

/// How many packets the router's kernel has forwarded, of both families.
fn forwarded(site: &Site) -> u64 {
    let snmp = site.lab().router().sh("nstat -asz IpForwDatagrams Ip6OutForwDatagrams").unwrap();
    let counts = snmp.lines().filter(|line| line.contains("Forw"));
    counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

#[test]
fn every_packet_of_the_harness_goes_through_the_router_once() {
    if !ready() {
        return;
    }
    let core = Core::choose().unwrap();
    let mut site = Site::build(case("plain"), &core, Group::Packets, 2, SIZE).unwrap();
    for name in ["v4-60", "v4-1500", "v6-60", "v6-1500"] {
        let before = forwarded(&site);
        let samples = site.measure(&traffic(name), 2, 10_000).unwrap();
        for sample in &samples {
            assert_eq!((sample.sent, sample.arrived), (10_000, 10_000), "{name}");
            assert!(sample.nanoseconds > 1.0, "{name}: {sample:?}");
        }
        // What it was warmed up with comes on top.
        assert!(forwarded(&site) - before >= 20_000, "{name}");
    }
}

#[test]
fn packets_redirected_by_wire_are_counted_too() {
    if !ready() {
        return;
    }
    let core = Core::choose().unwrap();
    let mut site = Site::build(case("floor-xdp"), &core, Group::Packets, 2, SIZE).unwrap();
    let samples = site.measure(&traffic("v4-60"), 1, 10_000).unwrap();
    assert_eq!((samples[0].sent, samples[0].arrived), (10_000, 10_000));
}

/// Of every peer and of balance as it is here: an acceleration that it does not have is not measured.
#[test]
fn a_connection_carries_bytes_through_every_router_that_can_be_set_up() {
    if !ready() {
        return;
    }
    let core = Core::choose().unwrap();
    for name in ["plain", "nat", "multipath", "nft", "off"] {
        let mut site = Site::build(case(name), &core, Group::Bulk, 2, SIZE).unwrap();
        for traffic in ["tcp-v4", "tcp-v6"].map(traffic) {
            let samples = site.measure(&traffic, 1, 0).unwrap();
            assert!(samples[0].arrived > 1_000_000, "{name}, {}: {samples:?}", traffic.name);
        }
    }
}
