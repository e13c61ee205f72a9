//! Packets, and the flows they belong to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use balance_common::packet::{LinkLayer, NoFlow};
use balance_common::{Address, Family, Flow};
use balance_lab::packet::{Extension, Ipv4, Ipv6, Payload, ether_type, ethernet};

/// The LAN host, and whom it talks to.
pub(crate) const LAN_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
pub(crate) const FAR_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
pub(crate) const LAN_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x10);
pub(crate) const FAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9);

/// A packet and what is expected of it.
pub(crate) struct Fixture {
    /// What it shows.
    pub(crate) name: String,
    pub(crate) link_layer: LinkLayer,
    pub(crate) bytes: Vec<u8>,
    /// How many of the bytes, at the end, are no part of the IP packet.
    pub(crate) padding: usize,
    pub(crate) expected: Result<Flow, NoFlow>,
}

/// All of them.
pub(crate) fn fixtures() -> Vec<Fixture> {
    [transports(), link_layers(), headers_v4(), headers_v6(), fragments(), errors(), hostile()].concat()
}

impl Clone for Fixture {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), bytes: self.bytes.clone(), ..*self }
    }
}

pub(crate) fn v4() -> Ipv4 {
    Ipv4::new(LAN_V4, FAR_V4)
}

pub(crate) fn v6() -> Ipv6 {
    Ipv6::new(LAN_V6, FAR_V6)
}

/// The flow from the LAN host in a family.
pub(crate) fn flow(family: Family, protocol: u8, source_port: u16, destination_port: u16) -> Flow {
    let (source, destination) = match family {
        Family::V4 => (IpAddr::from(LAN_V4), IpAddr::from(FAR_V4)),
        Family::V6 => (IpAddr::from(LAN_V6), IpAddr::from(FAR_V6)),
    };
    let (source, destination) = (Address::from(source), Address::from(destination));
    Flow { family, source, destination, protocol, source_port, destination_port }
}

pub(crate) fn frame_v4(packet: &[u8]) -> Vec<u8> {
    ethernet(&[], ether_type::IPV4, packet)
}

pub(crate) fn frame_v6(packet: &[u8]) -> Vec<u8> {
    ethernet(&[], ether_type::IPV6, packet)
}

/// In an Ethernet frame.
pub(crate) fn framed(name: impl Into<String>, bytes: Vec<u8>, expected: Result<Flow, NoFlow>) -> Fixture {
    Fixture { name: name.into(), link_layer: LinkLayer::Ethernet, bytes, padding: 0, expected }
}

/// Every kind of transport, in both families, with and without an Ethernet header.
fn transports() -> Vec<Fixture> {
    let echo = |kind, identifier: u8| (kind, [0, identifier, 0, 1]);
    let (request, reply) = (echo(8, 5), echo(0, 5));
    let (request_v6, reply_v6) = (echo(128, 5), echo(129, 5));
    let both: [(&str, Payload, (u8, u16, u16)); 11] = [
        ("TCP", Payload::tcp(40_000, 443), (6, 40_000, 443)),
        ("UDP", Payload::udp(40_000, 53, b"question"), (17, 40_000, 53)),
        ("UDP without data", Payload::udp(40_000, 53, &[]), (17, 40_000, 53)),
        ("SCTP", Payload::sctp(40_000, 3868), (132, 40_000, 3868)),
        ("GRE", Payload::new(47, &[0x20, 0, 8, 0, 0, 0, 0, 7]), (47, 0, 0)),
        ("ESP", Payload::new(50, &[0, 0, 1, 0, 0, 0, 0, 1]), (50, 0, 0)),
        ("AH", Payload::new(51, &[50, 4, 0, 0, 0, 0, 1, 0]), (50, 0, 0)),
        ("IKE", Payload::udp(500, 500, b"IKE"), (50, 0, 0)),
        ("IKE behind NAT", Payload::udp(31_000, 4500, b"ESP"), (50, 0, 0)),
        ("an unknown protocol", Payload::new(200, b"anything"), (200, 0, 0)),
        ("an unknown protocol without data", Payload::new(200, &[]), (200, 0, 0)),
    ];
    let only_v4 = [
        ("ICMP echo request", Payload::icmp(request.0, request.1, b"ping"), (1, 5, 5)),
        ("ICMP echo reply", Payload::icmp(reply.0, reply.1, b"ping"), (1, 5, 5)),
        ("an ICMP timestamp", Payload::icmp(13, [0, 5, 0, 1], &[0; 12]), (1, 0, 0)),
        ("ICMPv6 where there is none", Payload::icmp_v6(128, [0, 5, 0, 1], &[]), (58, 0, 0)),
    ];
    let only_v6 = [
        ("ICMPv6 echo request", Payload::icmp_v6(request_v6.0, request_v6.1, b"ping"), (58, 5, 5)),
        ("ICMPv6 echo reply", Payload::icmp_v6(reply_v6.0, reply_v6.1, b"ping"), (58, 5, 5)),
        ("ICMPv6 neighbour discovery", Payload::icmp_v6(135, [0; 4], &[0; 16]), (58, 0, 0)),
        ("ICMP where there is none", Payload::icmp(8, [0, 5, 0, 1], &[]), (1, 0, 0)),
        ("nothing at all", Payload::new(59, &[]), (59, 0, 0)),
    ];
    let mut all = Vec::new();
    let mut add = |family, name, packet: &[u8], (protocol, source, destination)| {
        let flow = flow(family, protocol, source, destination);
        let frame = if family == Family::V4 { frame_v4(packet) } else { frame_v6(packet) };
        all.push(framed(format!("{name} over {family:?}"), frame, Ok(flow)));
        let bare = framed(format!("{name} over bare {family:?}"), packet.to_vec(), Ok(flow));
        all.push(Fixture { link_layer: LinkLayer::Ip, ..bare });
    };
    for (name, payload, transport) in both.iter().chain(&only_v4) {
        add(Family::V4, name, &v4().carrying(payload), *transport);
    }
    for (name, payload, transport) in both.iter().chain(&only_v6) {
        add(Family::V6, name, &v6().carrying(payload), *transport);
    }
    all
}

fn link_layers() -> Vec<Fixture> {
    use ether_type::{ARP, IPV4, IPV6, PPPOE, SERVICE_VLAN, VLAN};
    let tcp = Payload::tcp(40_000, 443);
    let (tcp_v4, tcp_v6) = (v4().carrying(&tcp), v6().carrying(&tcp));
    let (flow_v4, flow_v6) = (Ok(flow(Family::V4, 6, 40_000, 443)), Ok(flow(Family::V6, 6, 40_000, 443)));
    let padded = |bytes: &[u8]| [bytes, &[0x45; 6]].concat();
    vec![
        framed("a VLAN tag, IPv4", ethernet(&[VLAN], IPV4, &tcp_v4), flow_v4),
        framed("a VLAN tag, IPv6", ethernet(&[VLAN], IPV6, &tcp_v6), flow_v6),
        framed("QinQ, IPv4", ethernet(&[SERVICE_VLAN, VLAN], IPV4, &tcp_v4), flow_v4),
        framed("QinQ, IPv6", ethernet(&[SERVICE_VLAN, VLAN], IPV6, &tcp_v6), flow_v6),
        framed("QinQ of the old kind", ethernet(&[0x9100, VLAN], IPV4, &tcp_v4), flow_v4),
        framed("three tags", ethernet(&[SERVICE_VLAN, VLAN, VLAN], IPV4, &tcp_v4), Err(NoFlow::Unparsable)),
        Fixture { padding: 6, ..framed("padding after IPv4", frame_v4(&padded(&tcp_v4)), flow_v4) },
        Fixture { padding: 6, ..framed("padding after IPv6", frame_v6(&padded(&tcp_v6)), flow_v6) },
        framed("ARP", ethernet(&[], ARP, &[0; 28]), Err(NoFlow::NotIp)),
        framed("ARP with a VLAN tag", ethernet(&[VLAN], ARP, &[0; 28]), Err(NoFlow::NotIp)),
        framed("PPPoE", ethernet(&[], PPPOE, &[0x11; 40]), Err(NoFlow::NotIp)),
        framed("spanning tree, without an Ethernet type", ethernet(&[], 38, &[0; 38]), Err(NoFlow::NotIp)),
        Fixture { link_layer: LinkLayer::Ip, ..framed("no IP version", vec![0x50; 40], Err(NoFlow::NotIp)) },
    ]
}

fn headers_v4() -> Vec<Fixture> {
    let tcp = Payload::tcp(40_000, 443);
    let with_options = |words| {
        let packet = v4().options(words).carrying(&tcp);
        framed(
            format!("{words} words of IPv4 options"),
            frame_v4(&packet),
            Ok(flow(Family::V4, 6, 40_000, 443)),
        )
    };
    vec![with_options(1), with_options(10)]
}

fn headers_v6() -> Vec<Fixture> {
    let hop_by_hop = || Extension::hop_by_hop(0);
    let options = || Extension::destination_options(2);
    let atomic = || Extension::fragment(0, false);
    let whole = Ok(flow(Family::V6, 6, 40_000, 443));
    let with = |name: &str, extensions: Vec<Extension>, expected| {
        let packet = extensions.into_iter().fold(v6(), Ipv6::extension).carrying(&Payload::tcp(40_000, 443));
        framed(name, frame_v6(&packet), expected)
    };
    let mobility = v6().extension(Extension::mobility()).carrying(&Payload::new(59, &[]));
    vec![
        with("hop-by-hop options", vec![hop_by_hop()], whole),
        with("a long extension header", vec![Extension::hop_by_hop(255)], whole),
        with("a routing header", vec![Extension::routing()], whole),
        with("destination options", vec![options()], whole),
        with("an atomic fragment", vec![atomic()], whole),
        framed("a mobility header", frame_v6(&mobility), Ok(flow(Family::V6, 59, 0, 0))),
        with(
            "each extension header as often as it may be there",
            vec![hop_by_hop(), options(), Extension::routing(), atomic(), options(), Extension::mobility()],
            whole,
        ),
        with("seven extension headers", vec![options(); 7], whole),
        with("eight extension headers", vec![options(); 8], Err(NoFlow::Unparsable)),
    ]
}

/// The first, a middle and the last fragment of a packet: all have one flow.
pub(crate) fn fragments() -> Vec<Fixture> {
    let udp = Payload::udp(40_000, 53, &[0; 72]);
    let parts = [("first", 0, true), ("middle", 4, true), ("last", 8, false)];
    let part = |index: u16| {
        let first = usize::from(index) * 8;
        Payload::new(17, &udp.bytes[first..udp.bytes.len().min(first + 32)])
    };
    let all = parts.iter().flat_map(|&(name, offset, more)| {
        let packet_v4 = v4().fragment(offset, more).carrying(&part(offset));
        let header = Extension::fragment(offset, more);
        let packet_v6 = v6().extension(Extension::hop_by_hop(0)).extension(header).carrying(&part(offset));
        [
            framed(format!("{name} fragment of IPv4"), frame_v4(&packet_v4), Ok(flow(Family::V4, 17, 0, 0))),
            framed(format!("{name} fragment of IPv6"), frame_v6(&packet_v6), Ok(flow(Family::V6, 44, 0, 0))),
        ]
    });
    all.collect()
}

/// A packet of the far host that the LAN host complains about.
pub(crate) struct Quoted {
    pub(crate) name: &'static str,
    pub(crate) packet: Vec<u8>,
    /// Bytes of its IP headers.
    pub(crate) headers: usize,
    /// The flow that the LAN host itself sends.
    pub(crate) flow: Flow,
}

pub(crate) fn quoted() -> Vec<Quoted> {
    let (v4, v6) = (Ipv4::new(FAR_V4, LAN_V4), Ipv6::new(FAR_V6, LAN_V6));
    let in_v4 = |name, payload: &Payload, (protocol, source, destination)| {
        let flow = flow(Family::V4, protocol, source, destination);
        Quoted { name, packet: v4.carrying(payload), headers: 20, flow }
    };
    let in_v6 = |name, payload: &Payload, (protocol, source, destination)| {
        let flow = flow(Family::V6, protocol, source, destination);
        Quoted { name, packet: v6.carrying(payload), headers: 40, flow }
    };
    let (tcp, udp) = (Payload::tcp(443, 40_000), Payload::udp(53, 40_000, b"answer"));
    let options = v4.clone().options(3).carrying(&tcp);
    let extensions = v6.clone().extension(Extension::destination_options(1)).carrying(&tcp);
    let (fragment_v4, fragment_v6) = (v4.clone().fragment(0, true), Extension::fragment(4, true));
    let fragment_v6 = v6.clone().extension(fragment_v6).carrying(&udp);
    vec![
        in_v4("TCP", &tcp, (6, 40_000, 443)),
        in_v6("TCP", &tcp, (6, 40_000, 443)),
        Quoted { packet: options, headers: 32, ..in_v4("options", &tcp, (6, 40_000, 443)) },
        Quoted { packet: extensions, headers: 56, ..in_v6("extension headers", &tcp, (6, 40_000, 443)) },
        in_v4("UDP", &udp, (17, 40_000, 53)),
        in_v6("UDP", &udp, (17, 40_000, 53)),
        in_v4("SCTP", &Payload::sctp(3868, 40_000), (132, 40_000, 3868)),
        in_v4("an echo", &Payload::icmp(8, [0, 5, 0, 1], b"ping"), (1, 5, 5)),
        in_v6("an echo", &Payload::icmp_v6(128, [0, 5, 0, 1], b"ping"), (58, 5, 5)),
        Quoted { packet: fragment_v4.carrying(&udp), ..in_v4("a fragment", &udp, (17, 0, 0)) },
        Quoted { packet: fragment_v6, headers: 48, ..in_v6("a fragment", &udp, (44, 0, 0)) },
        in_v4("ESP", &Payload::new(50, &[0; 16]), (50, 0, 0)),
        in_v6("IKE", &Payload::udp(4500, 31_000, b"ESP"), (50, 0, 0)),
        in_v4("GRE", &Payload::new(47, &[0; 16]), (47, 0, 0)),
    ]
}

/// An error of the LAN host about a packet of the far one.
pub(crate) fn error(family: Family, kind: u8, quoted: &[u8]) -> Vec<u8> {
    match family {
        Family::V4 => frame_v4(&v4().carrying(&Payload::icmp(kind, [0; 4], quoted))),
        Family::V6 => frame_v6(&v6().carrying(&Payload::icmp_v6(kind, [0; 4], quoted))),
    }
}

fn errors() -> Vec<Fixture> {
    let mut all = Vec::new();
    for Quoted { name, packet, flow, .. } in quoted() {
        let kinds: &[u8] = if flow.family == Family::V4 { &[3, 4, 5, 11, 12] } else { &[1, 2, 3, 4] };
        for &kind in kinds {
            let name = format!("ICMP error {kind} about {name} of {:?}", flow.family);
            all.push(framed(name, error(flow.family, kind, &packet), Ok(flow)));
        }
    }
    all
}

/// Packets that no honest sender sends.
fn hostile() -> Vec<Fixture> {
    let tcp = Payload::tcp(40_000, 443);
    let (tcp_v4, tcp_v6) = (frame_v4(&v4().carrying(&tcp)), frame_v6(&v6().carrying(&tcp)));
    let unparsable = Err(NoFlow::Unparsable);
    let with = |name: &str, frame: &[u8], changes: &[(usize, u8)]| {
        let mut frame = frame.to_vec();
        for &(offset, byte) in changes {
            frame[offset] = byte;
        }
        framed(name, frame, unparsable)
    };
    let quoting = |family, packet: Vec<u8>| error(family, 3, &packet);
    let stranger = Ipv4::new(Ipv4Addr::new(198, 51, 100, 1), LAN_V4).carrying(&tcp);
    let stranger_v6 = Ipv6::new(Ipv6Addr::LOCALHOST, LAN_V6).carrying(&tcp);
    let hidden = v6().extension(Extension::fragment(4, true)).carrying(&Payload::new(17, &[]));
    vec![
        with("IPv4's total length is more than there is", &tcp_v4, &[(17, 41)]),
        with("IPv4's total length is less than its header", &tcp_v4, &[(17, 19)]),
        with("IPv4's total length is 0", &tcp_v4, &[(17, 0)]),
        with("IPv4's total length ends in the TCP header", &tcp_v4, &[(17, 39)]),
        with("an IPv4 header of four words", &tcp_v4, &[(14, 0x44)]),
        with("an IPv4 header of no words", &tcp_v4, &[(14, 0x40)]),
        with("an IPv4 header longer than the packet", &tcp_v4, &[(14, 0x4f)]),
        with("version 6 where Ethernet says IPv4", &tcp_v4, &[(14, 0x65)]),
        with("version 4 where Ethernet says IPv6", &tcp_v6, &[(14, 0x45)]),
        with("IPv6's payload length is more than there is", &tcp_v6, &[(19, 21)]),
        with("IPv6's payload length ends in the TCP header", &tcp_v6, &[(19, 19)]),
        with("IPv6's payload length is 0, with TCP", &tcp_v6, &[(19, 0)]),
        with("an IPv6 extension header beyond the packet", &tcp_v6, &[(20, 0), (55, 200)]),
        with("an IPv6 fragment header beyond the payload", &frame_v6(&hidden), &[(19, 4)]),
        framed("an ICMP error about nothing", quoting(Family::V4, Vec::new()), unparsable),
        framed("an ICMPv6 error about nothing", quoting(Family::V6, Vec::new()), unparsable),
        framed("an ICMP error about IPv6", quoting(Family::V4, v6().carrying(&tcp)), unparsable),
        framed("an ICMP error to another than it is about", quoting(Family::V4, stranger), unparsable),
        framed("an ICMPv6 error to another than it is about", quoting(Family::V6, stranger_v6), unparsable),
    ]
}
