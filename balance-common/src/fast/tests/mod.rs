//! The fast path on the host: packets made field by field, with checksums computed from scratch.

mod cache;
mod checksum;
mod headers;
mod layout;
mod rewrite;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Headers, Ip, L4, V4, V6};
use crate::Family;

const ETHERNET: usize = 14;
const SHORTEST_FRAME: usize = 60;

/// A family as the tests see it.
trait TestIp: Ip + std::fmt::Debug {
    const HEADER: usize;
    const ETHER_TYPE: [u8; 2];

    fn from_bytes(bytes: [u8; 16]) -> Self;

    /// As in a packet.
    fn to_bytes(self) -> Vec<u8>;
}

impl TestIp for V4 {
    const HEADER: usize = 20;
    const ETHER_TYPE: [u8; 2] = [0x08, 0x00];

    fn from_bytes([a, b, c, d, ..]: [u8; 16]) -> Self {
        Self(u32::from_ne_bytes([a, b, c, d]))
    }

    fn to_bytes(self) -> Vec<u8> {
        self.0.to_ne_bytes().to_vec()
    }
}

impl TestIp for V6 {
    const HEADER: usize = 40;
    const ETHER_TYPE: [u8; 2] = [0x86, 0xdd];

    fn from_bytes(bytes: [u8; 16]) -> Self {
        let half = |from| u64::from_ne_bytes(std::array::from_fn(|index| bytes[from + index]));
        Self([half(0), half(8)])
    }

    fn to_bytes(self) -> Vec<u8> {
        self.0.iter().flat_map(|half| half.to_ne_bytes()).collect()
    }
}

/// Who talks to whom: what NAT and routing change.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ends<A> {
    /// Destination and source.
    macs: [[u8; 6]; 2],
    source: A,
    destination: A,
    /// Of an echo the first one is the identifier, and the second does not count.
    ports: [u16; 2],
}

/// The rest of a packet.
#[derive(Clone, Debug)]
struct Content {
    l4: L4,
    /// An echo is a reply.
    is_reply: bool,
    ttl: u8,
    /// Type of service, or traffic class.
    tos: u8,
    /// The identification, or the flow label.
    id: u16,
    dont_fragment: bool,
    /// Sequence and acknowledgement number of TCP; the number of an echo.
    sequence: [u32; 2],
    tcp_flags: u8,
    window: u16,
    /// A UDP packet without one.
    without_checksum: bool,
    data: Vec<u8>,
    /// What fills up a frame that is too short.
    padding: u8,
}

impl Content {
    const fn protocol(&self, family: Family) -> u8 {
        match (self.l4, family) {
            (L4::Tcp, _) => 6,
            (L4::Udp, _) => 17,
            (L4::Echo, Family::V4) => 1,
            (L4::Echo, Family::V6) => 58,
        }
    }

    /// The transport header with a checksum of zero, and where that is.
    fn transport(&self, family: Family, ports: [u16; 2], length: u16) -> (Vec<u8>, usize) {
        let [first, second] = ports.map(u16::to_be_bytes);
        let [sequence, acknowledged] = self.sequence.map(u32::to_be_bytes);
        match self.l4 {
            L4::Tcp => {
                let window = self.window.to_be_bytes();
                let flags = [0x50, self.tcp_flags];
                let rest: [&[u8]; 4] = [&flags, &window, &[0; 2], &[0; 2]];
                ([&first[..], &second, &sequence, &acknowledged, &rest.concat()].concat(), 16)
            }
            L4::Udp => ([first, second, length.to_be_bytes(), [0; 2]].concat(), 6),
            L4::Echo => {
                let kind = match (family, self.is_reply) {
                    (Family::V4, false) => 8,
                    (Family::V4, true) => 0,
                    (Family::V6, false) => 128,
                    (Family::V6, true) => 129,
                };
                ([[kind, 0], [0; 2], first, [sequence[2], sequence[3]]].concat(), 2)
            }
        }
    }

    /// The frame.
    fn between<A: TestIp>(&self, ends: &Ends<A>) -> Vec<u8> {
        let header = if self.l4 == L4::Tcp { 20 } else { 8 };
        let length = u16::try_from(header + self.data.len()).unwrap();
        let (mut transport, checksum) = self.transport(A::FAMILY, ends.ports, length);
        transport.extend(&self.data);
        let (source, destination) = (ends.source.to_bytes(), ends.destination.to_bytes());
        let protocol = self.protocol(A::FAMILY);
        let pseudo = [&source[..], &destination, &[0, protocol], &length.to_be_bytes()].concat();
        let is_covered = self.l4 != L4::Echo || A::FAMILY == Family::V6;
        let computed = internet_checksum(&[if is_covered { &pseudo } else { &[] }, &transport]);
        let sent = match (self.l4, self.without_checksum, computed) {
            (L4::Udp, true, _) => 0,
            (L4::Udp, false, 0) => 0xffff,
            _ => computed,
        };
        transport[checksum..checksum + 2].copy_from_slice(&sent.to_be_bytes());

        let mut ip = match A::FAMILY {
            Family::V4 => {
                let length = (20 + length).to_be_bytes();
                let fragment = [if self.dont_fragment { 0x40 } else { 0 }, 0];
                [[0x45, self.tos], length, self.id.to_be_bytes(), fragment, [self.ttl, protocol], [0; 2]]
                    .concat()
            }
            Family::V6 => {
                let class = [0x60 | self.tos >> 4, self.tos << 4];
                [class, self.id.to_be_bytes(), length.to_be_bytes(), [protocol, self.ttl]].concat()
            }
        };
        ip.extend([source, destination].concat());
        if A::FAMILY == Family::V4 {
            let checksum = internet_checksum(&[&ip]);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        let [to, from] = ends.macs;
        let mut frame = [&to[..], &from, &A::ETHER_TYPE, &ip, &transport].concat();
        frame.resize(frame.len().max(SHORTEST_FRAME), self.padding);
        frame
    }

    /// With its last two bytes chosen so that the transport checksum comes out as zero.
    fn with_checksum_zero<A: TestIp>(mut self, ends: &Ends<A>) -> Self {
        self.data.truncate(self.data.len() & !1);
        self.without_checksum = false;
        self.data.extend([0; 2]);
        let frame = self.between(ends);
        let offset = headers::<A>(&frame).unwrap();
        let at = offset.transport + offset.checksum_offset();
        let checksum = match [frame[at], frame[at + 1]] {
            // UDP's way to say zero.
            [0xff, 0xff] => [0; 2],
            checksum => checksum,
        };
        let last = self.data.len() - 2;
        self.data[last..].copy_from_slice(&checksum);
        self
    }
}

/// As RFC 1071 has it.
fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

fn headers<A: TestIp>(frame: &[u8]) -> Option<Headers<A>> {
    Headers::parse(frame, ETHERNET, frame.len())
}

fn ends<A: TestIp>() -> impl Strategy<Value = Ends<A>> {
    // Those of IKE are special to steering.
    let port = || prop_oneof![8 => any::<u16>(), 1 => Just(500), 1 => Just(4500), 1 => Just(0)];
    (any::<([[u8; 6]; 2], [u8; 16], [u8; 16])>(), [port(), port()]).prop_map(|(rest, ports)| {
        let (macs, source, destination) = rest;
        Ends { macs, source: A::from_bytes(source), destination: A::from_bytes(destination), ports }
    })
}

fn l4() -> impl Strategy<Value = L4> {
    prop_oneof![Just(L4::Tcp), Just(L4::Udp), Just(L4::Echo)]
}

/// What a packet of a flow may be that goes fast.
fn content(l4: L4, is_reply: bool) -> impl Strategy<Value = Content> {
    let ip = (2_u8.., any::<u8>(), any::<u16>(), any::<bool>());
    let data = prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..2000)];
    let rest = (any::<[u32; 2]>(), any::<u8>(), any::<u16>(), prop::bool::weighted(0.2), data, any::<u8>());
    (ip, rest).prop_map(move |(ip, rest)| {
        let (ttl, tos, id, dont_fragment) = ip;
        let (sequence, flags, window, without_checksum, data, padding) = rest;
        // All but FIN, SYN and RST.
        let tcp_flags = flags & !7;
        Content {
            l4,
            is_reply,
            ttl,
            tos,
            id,
            dont_fragment,
            sequence,
            tcp_flags,
            window,
            without_checksum,
            data,
            padding,
        }
    })
}

fn any_content() -> impl Strategy<Value = Content> {
    (l4(), any::<bool>()).prop_flat_map(|(l4, is_reply)| content(l4, is_reply))
}
