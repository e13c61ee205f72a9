//! The parser, on the host.

use balance_common::packet::{LinkLayer, NoFlow, flow_of, is_traffic};
use balance_common::{Family, Flow};
use balance_lab::packet::{Ipv4, Ipv6, Payload, ether_type, ethernet};

use crate::fixtures::{FAR_V4, FAR_V6, Fixture, LAN_V4, LAN_V6, Quoted, error, fixtures, fragments, quoted};

fn parse(bytes: &[u8], link_layer: LinkLayer) -> Result<Flow, NoFlow> {
    flow_of(bytes, link_layer)
}

#[test]
fn every_packet_has_the_flow_it_should_have() {
    for Fixture { name, link_layer, bytes, expected, .. } in fixtures() {
        assert_eq!(parse(&bytes, link_layer), expected, "{name}: {bytes:02x?}");
    }
}

#[test]
fn a_truncated_packet_has_no_flow_and_padding_does_not_matter() {
    for Fixture { name, link_layer, bytes, expected, padding } in fixtures() {
        let Ok(flow) = expected else { continue };
        let whole = bytes.len() - padding;
        for length in 0..bytes.len() {
            let parsed = parse(&bytes[..length], link_layer);
            if length < whole {
                assert!(parsed.is_err(), "{name}, {length} bytes of it: {parsed:?}");
            } else {
                assert_eq!(parsed, Ok(flow), "{name}, {length} bytes of it");
            }
        }
    }
}

#[test]
fn an_icmp_error_needs_no_more_of_a_packet_than_eight_bytes_after_its_headers() {
    for Quoted { name, packet, headers, flow } in quoted() {
        let kind = if flow.family == Family::V4 { 3 } else { 1 };
        let parsed: Vec<_> = (0..=packet.len())
            .map(|length| parse(&error(flow.family, kind, &packet[..length]), LinkLayer::Ethernet))
            .collect();
        let enough = parsed.iter().position(Result::is_ok).unwrap();
        assert!((headers..=headers + 8).contains(&enough), "{name} of {:?}: needs {enough}", flow.family);
        assert!(parsed[..enough].iter().all(|parsed| *parsed == Err(NoFlow::Unparsable)), "{name}");
        assert!(parsed[enough..].iter().all(|parsed| *parsed == Ok(flow)), "{name}: {parsed:?}");
    }
}

#[test]
fn all_fragments_of_a_packet_have_one_flow() {
    let flows = |family: &str| {
        let of_family = fragments().into_iter().filter(|fixture| fixture.name.ends_with(family));
        of_family.map(|fixture| parse(&fixture.bytes, fixture.link_layer).unwrap()).collect::<Vec<_>>()
    };
    for family in ["IPv4", "IPv6"] {
        let flows = flows(family);
        assert_eq!(flows.len(), 3);
        assert!(flows.iter().all(|flow| *flow == flows[0]), "{flows:?}");
    }
}

#[test]
fn a_length_field_of_0_means_a_packet_too_long_for_it() {
    for (name, field) in [("TCP over V4", 14 + 2), ("TCP over V6", 14 + 4)] {
        let fixture = fixtures().into_iter().find(|fixture| fixture.name == name).unwrap();
        let mut bytes = fixture.bytes;
        bytes[field..field + 2].fill(0);
        assert_eq!(parse(&bytes, LinkLayer::Ethernet), Err(NoFlow::Unparsable), "{name}");
        bytes.resize(14 + 0x1_0000, 0);
        assert_eq!(parse(&bytes, LinkLayer::Ethernet), fixture.expected, "{name}");
    }
}

#[test]
fn no_bytes_are_no_packet() {
    for link_layer in [LinkLayer::Ethernet, LinkLayer::Ip] {
        assert_eq!(parse(&[], link_layer), Err(NoFlow::Unparsable));
    }
}

#[test]
fn what_goes_on_without_an_internet_is_no_traffic() {
    let v6 =
        |payload: Payload| ethernet(&[], ether_type::IPV6, &Ipv6::new(FAR_V6, LAN_V6).carrying(&payload));
    let neighbours = (133..=137).map(|kind| v6(Payload::icmp_v6(kind, [0; 4], &[0; 16])));
    for bytes in neighbours.chain([
        ethernet(&[], ether_type::ARP, &[0; 28]),
        ethernet(&[ether_type::VLAN], ether_type::ARP, &[0; 28]),
        vec![0; 13],
    ]) {
        assert!(!is_traffic(&bytes[..], LinkLayer::Ethernet), "{bytes:02x?}");
    }
    for payload in
        [Payload::icmp_v6(129, [0; 4], &[]), Payload::icmp_v6(1, [0; 4], &[0; 48]), Payload::tcp(443, 5000)]
    {
        assert!(is_traffic(&v6(payload)[..], LinkLayer::Ethernet));
    }
    let v4 = Ipv4::new(FAR_V4, LAN_V4).carrying(&Payload::tcp(443, 5000));
    assert!(is_traffic(&ethernet(&[], ether_type::IPV4, &v4)[..], LinkLayer::Ethernet));
    assert!(is_traffic(&v4[..], LinkLayer::Ip));
}
