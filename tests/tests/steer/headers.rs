//! The parser of the fast path, on the host: what it takes has the flow that steering sees.

use balance_common::Family;
use balance_common::fast::{Headers, Ip, V4, V6};
use balance_common::packet::{LinkLayer, flow_of};

use crate::fixtures::fixtures;
use crate::mutated::{Random, mutated};

const PACKETS: u64 = 50_000;
/// The same packets every time.
const SEED: u64 = 0xfa57;

/// The place of the IP header, if the packet begins as the programs want it: who comes with a VLAN tag in the bytes takes
/// the slow path.
fn network_header(bytes: &[u8], link_layer: LinkLayer) -> Option<(Family, usize)> {
    match (link_layer, bytes) {
        (LinkLayer::Ethernet, [_, _, _, _, _, _, _, _, _, _, _, _, 0x08, 0x00, ..]) => Some((Family::V4, 14)),
        (LinkLayer::Ethernet, [_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, ..]) => Some((Family::V6, 14)),
        (LinkLayer::Ip, [0x40..=0x4f, ..]) => Some((Family::V4, 0)),
        (LinkLayer::Ip, [0x60..=0x6f, ..]) => Some((Family::V6, 0)),
        _ => None,
    }
}

/// Gives an IPv4 header without options the right checksum, without which nothing of it would be looked at.
fn mend(bytes: &mut [u8], l3: usize) {
    let Some(header) = bytes.get_mut(l3..l3 + 20) else { return };
    header[10..12].fill(0);
    let sum: u32 = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Whether it takes the packet; if it does, it must agree.
fn taken<A: Ip>(bytes: &[u8], l3: usize, link_layer: LinkLayer, name: &str) -> bool {
    let Some(headers) = Headers::<A>::parse(bytes, l3, bytes.len()) else { return false };
    assert_eq!(flow_of(bytes, link_layer), Ok(headers.flow()), "{name}: {bytes:02x?}");
    true
}

fn agrees(mut bytes: Vec<u8>, link_layer: LinkLayer, name: &str) -> bool {
    match network_header(&bytes, link_layer) {
        Some((Family::V4, l3)) => {
            mend(&mut bytes, l3);
            taken::<V4>(&bytes, l3, link_layer, name)
        }
        Some((Family::V6, l3)) => taken::<V6>(&bytes, l3, link_layer, name),
        None => false,
    }
}

#[test]
fn of_the_fixtures_only_whole_packets_of_plain_flows_are_taken() {
    let mut takes = Vec::new();
    for fixture in fixtures() {
        if agrees(fixture.bytes, fixture.link_layer, &fixture.name) {
            takes.push(fixture.name);
        }
    }
    assert!(takes.iter().any(|name| name == "TCP over V4") && takes.iter().any(|name| name == "UDP over V6"));
    for special in ["fragment", "option", "SCTP", "GRE", "ESP", "error", "truncated", "VLAN"] {
        assert!(!takes.iter().any(|name| name.contains(special)), "{special}: {takes:?}");
    }
}

#[test]
fn mutated_packets_have_the_flow_that_steering_sees() {
    let originals = fixtures();
    let mut takes = 0;
    for number in 0..PACKETS {
        let mut random = Random(SEED.wrapping_add(number << 32));
        let original = &originals[random.below(originals.len())];
        let bytes = mutated(original, &originals, &mut random);
        takes += u64::from(agrees(bytes, original.link_layer, &format!("{number}, from {}", original.name)));
    }
    // Neither all nor none, or this would prove nothing.
    assert!((PACKETS / 50..PACKETS / 2).contains(&takes), "{takes}");
}
