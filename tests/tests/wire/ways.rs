//! The ways through the router: whatever is done to addresses, what comes out is right.

use balance_lab::packet::tcp_flag::{ACK, PSH};
use balance_lab::{Family, ready};

use crate::case::{Case, Way, compare};
use crate::conversation::{Nat, Protocol};
use crate::scene::Shape;
use crate::shot::{Shot, back, both, forth};

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
pub(crate) const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
const NATS: [Nat; 5] = [Nat::None, Nat::Masquerade, Nat::TakenPort, Nat::Forward, Nat::Hairpin];
/// The option that nearly every segment has: two times, after two bytes of padding.
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7];

/// Every way of the router with every protocol that takes it.
pub(crate) fn ways() -> Vec<(Nat, Protocol, Family)> {
    let all = NATS.into_iter().flat_map(|nat| PROTOCOLS.map(|protocol| (nat, protocol)));
    // Echoes have no ports to forward.
    let all = all
        .filter(|(nat, protocol)| *protocol != Protocol::Icmp || ![Nat::Forward, Nat::Hairpin].contains(nat));
    all.flat_map(|(nat, protocol)| FAMILIES.map(|family| (nat, protocol, family))).collect()
}

#[test]
fn whatever_nat_does_the_packets_are_those_of_the_kernel() {
    if !ready() {
        return;
    }
    let mut cases = Vec::new();
    for way in ways() {
        let shots = [forth(0), forth(1), back(1000), Shot { flags: ACK | PSH, ..forth(333) }, back(0)];
        cases.push(Case::fast("data", way, shots));
        let (_, protocol, family) = way;
        if protocol == Protocol::Tcp {
            let with_options = Shot { tcp_options: &TIMESTAMPS, flags: ACK | PSH, ..forth(100) };
            cases.push(Case::fast("timestamps", way, both(with_options)));
        }
        if protocol == Protocol::Udp && family == Family::V4 {
            let without_checksum = Shot { udp_checksum: false, ..forth(100) };
            cases.push(Case::fast("without checksum", way, both(without_checksum)));
        }
    }
    compare(Shape::default(), &cases);
}

#[test]
fn what_the_router_does_not_change_arrives_as_it_was_sent() {
    if !ready() {
        return;
    }
    let mut cases = Vec::new();
    for way in ways().into_iter().filter(|(nat, ..)| [Nat::None, Nat::Masquerade].contains(nat)) {
        let one = forth(50);
        // Expedited and congested, the least of efforts, and every bit.
        let tos = [0xb8 | 0b11, 0b01, 0xff].map(|tos| both(Shot { tos, ..one }));
        cases.push(Case::fast("DSCP and ECN", way, tos.concat()));
        cases.push(Case::fast("the lowest TTL that is forwarded", way, both(Shot { ttl: 2, ..one })));
        cases.push(Case::fast("the highest TTL", way, both(Shot { ttl: 255, ..one })));
        if way.2 == Family::V4 {
            let may_fragment = Shot { dont_fragment: false, ..one };
            cases.push(Case::fast("may be fragmented", way, both(may_fragment)));
            // As Ethernet wants it, of 60 bytes in all.
            let padding = if way.1 == Protocol::Tcp { 6 } else { 18 };
            cases.push(Case::fast("padding", way, both(Shot { padding, ..forth(0) })));
        } else {
            let labelled = Shot { flow_label: 0xf_1234, ..one };
            cases.push(Case::fast("flow label", way, both(labelled)));
        }
        cases
            .push(Case { way: Way::Either, ..Case::fast("trailer", way, both(Shot { padding: 30, ..one })) });
    }
    compare(Shape::default(), &cases);
}

/// Shots in both directions that make IP packets of these sizes.
fn sized(protocol: Protocol, family: Family, sizes: &[usize]) -> Vec<Shot> {
    let ip = if family == Family::V4 { 20 } else { 40 };
    let headers = ip + if protocol == Protocol::Tcp { 20 } else { 8 };
    sizes.iter().flat_map(|size| [forth(size - headers), back(size - headers)]).collect()
}

#[test]
fn packets_of_60_to_1500_bytes_are_those_of_the_kernel() {
    if !ready() {
        return;
    }
    let mut cases = Vec::new();
    for way in ways() {
        let (_, protocol, family) = way;
        // 60 bytes with the Ethernet header, where that is possible.
        let smallest = if family == Family::V4 { 46 } else { 60 };
        let sizes = [smallest, 61, 64, 127, 128, 575, 576, 1279, 1280, 1499, 1500];
        cases.push(Case::fast("sizes", way, sized(protocol, family, &sizes)));
    }
    compare(Shape::default(), &cases);
}

#[test]
fn jumbo_packets_of_up_to_9000_bytes_are_those_of_the_kernel() {
    if !ready() {
        return;
    }
    let mut cases = Vec::new();
    for way in ways() {
        let (_, protocol, family) = way;
        let sizes = [1501, 2048, 3500, 4096, 4097, 8999, 9000];
        cases.push(Case::fast("jumbo sizes", way, sized(protocol, family, &sizes)));
    }
    compare(Shape { lan_mtu: 9000, isp_mtu: 9000, ..Shape::default() }, &cases);
}
