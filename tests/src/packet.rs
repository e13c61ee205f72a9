//! Packets, byte by byte, from the inside out: a [`Payload`], in an [`Ipv4`] or [`Ipv6`] packet, in an
//! [`ethernet`] frame. Checksums are zero until [`crate::checksum::complete`] puts them in.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The bit of the fragment offset's field.
const DONT_FRAGMENT: u16 = 0x4000;

/// The types of an Ethernet frame.
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// A VLAN tag (802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// PPP over Ethernet.
    pub const PPPOE: u16 = 0x8864;
    /// The outer VLAN tag of two (802.1ad, QinQ).
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// The address of an Ethernet device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.map(|byte| format!("{byte:02x}")).join(":"))
    }
}

/// A frame to a device whose address is all zeros, as the loopback's is, with VLAN tags of these types.
#[must_use]
pub fn ethernet(tags: &[u16], ether_type: u16, content: &[u8]) -> Vec<u8> {
    let tags: Vec<_> = tags.iter().copied().zip(1..).collect();
    frame(Mac([0; 6]), Mac([2, 0, 0, 0, 0, 1]), &tags, ether_type, content)
}

/// A frame with VLAN tags of these types and ids, the outer one first.
#[must_use]
pub fn frame(to: Mac, from: Mac, tags: &[(u16, u16)], ether_type: u16, content: &[u8]) -> Vec<u8> {
    let mut bytes = [to.0, from.0].concat();
    for (tag, id) in tags {
        bytes.extend(tag.to_be_bytes());
        bytes.extend(id.to_be_bytes());
    }
    bytes.extend(ether_type.to_be_bytes());
    bytes.extend(content);
    bytes
}

/// What an IP packet carries.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The protocol number (IANA).
    pub protocol: u8,
    /// The transport header and what follows.
    pub bytes: Vec<u8>,
}

impl Payload {
    /// Bytes of a protocol.
    #[must_use]
    pub fn new(protocol: u8, bytes: &[u8]) -> Self {
        Self { protocol, bytes: bytes.to_vec() }
    }

    /// An acknowledgement without data.
    #[must_use]
    pub fn tcp(source: u16, destination: u16) -> Self {
        Self::segment(source, destination, &Segment { sequence: 1, acknowledgement: 1, ..Segment::default() })
    }

    /// A segment of a TCP connection.
    #[must_use]
    pub fn segment(source: u16, destination: u16, segment: &Segment<'_>) -> Self {
        let header = 20 + segment.options.len();
        let [_, words] = be16(header / 4);
        let bytes = [
            &ports(source, destination)[..],
            &segment.sequence.to_be_bytes(),
            &segment.acknowledgement.to_be_bytes(),
            &[words << 4, segment.flags, 0xff, 0xff, 0, 0, 0, 0],
            segment.options,
            segment.data,
        ];
        Self::new(6, &bytes.concat())
    }

    /// A datagram.
    #[must_use]
    pub fn udp(source: u16, destination: u16, data: &[u8]) -> Self {
        let length = be16(8 + data.len());
        Self::new(17, &[&ports(source, destination)[..], &length, &[0, 0], data].concat())
    }

    /// A packet with a COOKIE ACK.
    #[must_use]
    pub fn sctp(source: u16, destination: u16) -> Self {
        let rest = [0, 0, 0, 1, 0, 0, 0, 0, 11, 0, 0, 4];
        Self::new(132, &[&ports(source, destination)[..], &rest].concat())
    }

    /// An ICMP message: its type, the second half of its header, and what follows.
    #[must_use]
    pub fn icmp(kind: u8, rest: [u8; 4], data: &[u8]) -> Self {
        Self::new(1, &[&[kind, 0, 0, 0][..], &rest, data].concat())
    }

    /// An ICMPv6 message, likewise.
    #[must_use]
    pub fn icmp_v6(kind: u8, rest: [u8; 4], data: &[u8]) -> Self {
        Self { protocol: 58, ..Self::icmp(kind, rest, data) }
    }
}

/// The flags of TCP.
pub mod tcp_flag {
    /// No more data.
    pub const FIN: u8 = 1;
    /// A connection is opened.
    pub const SYN: u8 = 2;
    /// A connection is broken off.
    pub const RST: u8 = 4;
    /// The data is for the application at once.
    pub const PSH: u8 = 8;
    /// The acknowledgement counts.
    pub const ACK: u8 = 16;
    /// The sender has slowed down for congestion.
    pub const CWR: u8 = 128;
}

/// What differs between the segments of a TCP connection. The window is as large as it gets.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Of its first byte.
    pub sequence: u32,
    /// What the sender expects next.
    pub acknowledgement: u32,
    /// Of [`tcp_flag`].
    pub flags: u8,
    /// A multiple of four bytes, at most 40.
    pub options: &'a [u8],
    /// What it carries.
    pub data: &'a [u8],
}

impl Default for Segment<'_> {
    /// An acknowledgement.
    fn default() -> Self {
        Self { sequence: 0, acknowledgement: 0, flags: tcp_flag::ACK, options: &[], data: &[] }
    }
}

/// An IPv4 header.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    options: Vec<u8>,
    fragment: u16,
    id: u16,
    ttl: u8,
    tos: u8,
}

impl Ipv4 {
    /// One without options.
    #[must_use]
    pub const fn new(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self { source, destination, options: Vec::new(), fragment: DONT_FRAGMENT, id: 7, ttl: 64, tos: 0 }
    }

    /// With this TTL instead of 64.
    #[must_use]
    pub const fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// With this identification instead of 7.
    #[must_use]
    pub const fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    /// With this DSCP (the upper six bits) and ECN instead of none.
    #[must_use]
    pub const fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    /// Whether routers must not fragment it; they must not if not said otherwise.
    #[must_use]
    pub const fn dont_fragment(mut self, dont: bool) -> Self {
        self.fragment = if dont { DONT_FRAGMENT } else { 0 };
        self
    }

    /// With so many words of options, up to ten, of four bytes each.
    #[must_use]
    pub fn options(mut self, words: usize) -> Self {
        self.options = vec![1; words * 4];
        self
    }

    /// As a fragment: the offset in units of eight bytes, and whether more follow.
    #[must_use]
    pub const fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = offset & 0x1fff | (more as u16) << 13;
        self
    }

    /// The whole packet.
    #[must_use]
    pub fn carrying(&self, payload: &Payload) -> Vec<u8> {
        let header = 20 + self.options.len();
        let version_and_length = 0x40 | be16(header / 4)[1];
        [
            &[version_and_length, self.tos][..],
            &be16(header + payload.bytes.len()),
            &self.id.to_be_bytes(),
            &self.fragment.to_be_bytes(),
            &[self.ttl, payload.protocol, 0, 0],
            &self.source.octets(),
            &self.destination.octets(),
            &self.options,
            &payload.bytes,
        ]
        .concat()
    }
}

/// An IPv6 extension header.
#[derive(Clone, Debug)]
pub struct Extension {
    kind: u8,
    /// All of it but its first byte, which says what follows.
    bytes: Vec<u8>,
}

impl Extension {
    /// Hop-by-hop options: padding only, `8 * (1 + more)` bytes of it.
    #[must_use]
    pub fn hop_by_hop(more: u8) -> Self {
        Self::options(0, more)
    }

    /// Destination options, likewise.
    #[must_use]
    pub fn destination_options(more: u8) -> Self {
        Self::options(60, more)
    }

    /// A routing header of an unknown type with no segments left.
    #[must_use]
    pub fn routing() -> Self {
        Self { kind: 43, bytes: vec![0, 253, 0, 0, 0, 0, 0] }
    }

    /// A fragment header: the offset in units of eight bytes, and whether more follow.
    #[must_use]
    pub fn fragment(offset: u16, more: bool) -> Self {
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        Self { kind: 44, bytes: vec![0, high, low, 0, 0, 0, 7] }
    }

    /// A mobility header: a binding refresh request.
    #[must_use]
    pub fn mobility() -> Self {
        Self { kind: 135, bytes: vec![0, 0, 0, 0, 0, 0, 0] }
    }

    fn options(kind: u8, more: u8) -> Self {
        let mut bytes = vec![0; 7 + 8 * usize::from(more)];
        if let Some(length) = bytes.first_mut() {
            *length = more;
        }
        Self { kind, bytes }
    }
}

/// An IPv6 header.
#[derive(Clone, Debug)]
pub struct Ipv6 {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    extensions: Vec<Extension>,
    hop_limit: u8,
    traffic_class: u8,
    flow_label: u32,
}

impl Ipv6 {
    /// One without extension headers.
    #[must_use]
    pub const fn new(source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        Self { source, destination, extensions: Vec::new(), hop_limit: 64, traffic_class: 0, flow_label: 0 }
    }

    /// With this hop limit instead of 64.
    #[must_use]
    pub const fn hop_limit(mut self, hop_limit: u8) -> Self {
        self.hop_limit = hop_limit;
        self
    }

    /// With this DSCP (the upper six bits) and ECN instead of none.
    #[must_use]
    pub const fn traffic_class(mut self, traffic_class: u8) -> Self {
        self.traffic_class = traffic_class;
        self
    }

    /// With this flow label, of 20 bits, instead of 0.
    #[must_use]
    pub const fn flow_label(mut self, flow_label: u32) -> Self {
        self.flow_label = flow_label & 0xf_ffff;
        self
    }

    /// With one more extension header.
    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// The whole packet.
    #[must_use]
    pub fn carrying(&self, payload: &Payload) -> Vec<u8> {
        let kinds = self.extensions.iter().map(|extension| extension.kind);
        let mut kinds = kinds.chain([payload.protocol]);
        let first = kinds.next().unwrap_or(payload.protocol);
        let mut body = Vec::new();
        for (extension, following) in self.extensions.iter().zip(kinds) {
            body.push(following);
            body.extend(&extension.bytes);
        }
        body.extend(&payload.bytes);
        [
            &(6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label).to_be_bytes()[..],
            &be16(body.len()),
            &[first, self.hop_limit],
            &self.source.octets(),
            &self.destination.octets(),
            &body,
        ]
        .concat()
    }
}

fn ports(source: u16, destination: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    [a, b, c, d]
}

/// A length field; the longest for what does not fit.
fn be16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}
