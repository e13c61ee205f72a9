//! Packets, byte by byte, from the inside out: a [`Payload`], in an [`Ipv4`] or [`Ipv6`] packet, in an
//! [`ethernet`] frame. Checksums are zero, since nothing of ours reads them.

use std::net::{Ipv4Addr, Ipv6Addr};

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

/// A frame to a device whose address is all zeros, as the loopback's is, with VLAN tags of these types.
#[must_use]
pub fn ethernet(tags: &[u16], ether_type: u16, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1];
    for (id, tag) in (1_u16..).zip(tags) {
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
        let rest = [0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0];
        Self::new(6, &[&ports(source, destination)[..], &rest].concat())
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

/// An IPv4 header.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    options: Vec<u8>,
    fragment: u16,
}

impl Ipv4 {
    /// One without options.
    #[must_use]
    pub const fn new(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self { source, destination, options: Vec::new(), fragment: 0x4000 }
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
            &[version_and_length, 0][..],
            &be16(header + payload.bytes.len()),
            &[0, 7],
            &self.fragment.to_be_bytes(),
            &[64, payload.protocol, 0, 0],
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
}

impl Ipv6 {
    /// One without extension headers.
    #[must_use]
    pub const fn new(source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        Self { source, destination, extensions: Vec::new() }
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
            &[0x60, 0, 0, 0][..],
            &be16(body.len()),
            &[first, 64],
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
