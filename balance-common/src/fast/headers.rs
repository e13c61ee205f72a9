//! The headers of a packet that may go fast.

use super::checksum::fold;
use super::{Ip, Words};
use crate::packet::protocol;
use crate::{Family, Flow};

/// How many classes there are of hosts that are asked for TCP connections.
pub const SYN_CLASSES: usize = 16;

const ETHERNET_PADDED: usize = 60;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const SYN_ACK: u8 = SYN | ACK;
const RST_ACK: u8 = RST | ACK;

/// The transport protocols that the fast path knows. Others have no ports to tell flows apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum L4 {
    /// TCP.
    Tcp = 0,
    /// UDP.
    Udp = 1,
    /// ICMP or ICMPv6 echo, request or reply.
    Echo = 2,
}

impl L4 {
    /// How many there are.
    pub const COUNT: usize = 3;
}

/// What the fast path needs to know of a packet: of TCP, UDP or ICMP echo, no fragment, without IP options or extension headers, and
/// with a right header checksum. Anything else has none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Headers<A> {
    /// From where.
    pub source: A,
    /// To where.
    pub destination: A,
    /// Both ports as the packet has them, the source's first in memory; the identifier and the type of an echo.
    pub ports: u32,
    /// What comes after the IP header.
    pub l4: L4,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// The flags of TCP, those of its fourteenth byte (RFC 9293, 3.1); 0 for others.
    pub flags: u8,
    /// Where the IP header is.
    pub l3: usize,
    /// Where the transport header is.
    pub transport: usize,
    /// Bytes from the IP header to the packet's end, without padding.
    pub length: u16,
    /// What no router changes but in the course of something special: the rest of the IP header, and what tells
    /// packets of a flow apart (sequence numbers of TCP and echo, the length of UDP).
    pub fixed: [u64; 2],
}

impl<A: Ip> Headers<A> {
    /// The headers of the packet of `available` bytes with the IP header at `l3`, if there are such.
    #[inline(always)]
    pub fn parse<W: Words + ?Sized>(packet: &W, l3: usize, available: usize) -> Option<Self> {
        let (protocol, length, ttl, fixed, header) = match A::FAMILY {
            Family::V4 => Self::parse_v4(packet, l3)?,
            Family::V6 => Self::parse_v6(packet, l3)?,
        };
        let end = l3 + length as usize;
        // Padding to Ethernet's shortest frame may stay, as any device would add it again.
        if end > available || (end < available && available > ETHERNET_PADDED) {
            return None;
        }
        let transport = l3 + header;
        let (source, destination) = A::read(packet, l3)?;
        let room = (length as usize).checked_sub(header)?;
        let (l4, ports, flags, l4_fixed) = parse_l4::<A, W>(packet, protocol, transport, room)?;
        Some(Self {
            source,
            destination,
            ports,
            l4,
            ttl,
            flags,
            l3,
            transport,
            length,
            fixed: [fixed, l4_fixed],
        })
    }

    /// The flow, as [`crate::packet::flow_of`] would tell.
    #[inline(always)]
    pub fn flow(&self) -> Flow {
        let [s0, s1, d0, d1] = self.ports.to_ne_bytes();
        let (first, second) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        let (protocol, source_port, destination_port) = match self.l4 {
            L4::Tcp => (protocol::TCP, first, second),
            L4::Udp if protocol::is_ike(first, second) => (protocol::ESP, 0, 0),
            L4::Udp => (protocol::UDP, first, second),
            L4::Echo if matches!(A::FAMILY, Family::V4) => (protocol::ICMP, first, first),
            L4::Echo => (protocol::ICMPV6, first, first),
        };
        Flow {
            family: A::FAMILY,
            source: self.source.address(),
            destination: self.destination.address(),
            protocol,
            source_port,
            destination_port,
        }
    }

    /// May it go fast, apart from there being an entry? It must survive the hop, and conntrack must see how connections
    /// begin and end.
    #[inline(always)]
    pub const fn may_go_fast(&self) -> bool {
        self.ttl > 1 && !self.ends()
    }

    /// Does it begin or end a connection (SYN, FIN or RST)?
    #[inline(always)]
    pub const fn ends(&self) -> bool {
        self.flags & (FIN | SYN | RST) != 0
    }

    /// Does it answer who asks for a connection: by SYN and ACK, or with the refusal of a host that has no such port, which is of
    /// sequence number 0 (RFC 9293, 3.10.7.1)?
    #[inline(always)]
    pub const fn answers_syn(&self) -> bool {
        let [_, fixed] = self.fixed;
        match self.flags & (SYN | RST | ACK) {
            SYN_ACK => true,
            RST_ACK => fixed >> 32 == 0,
            _ => false,
        }
    }

    /// Is it of a protocol that conntrack has helpers for, which look into every packet and may rewrite what is in there (FTP, TFTP,
    /// RPC, NetBIOS, SNMP, RTSP, H.323, PPTP, SIP, IRC, Amanda)? By the usual ports, as only these tell.
    #[inline(always)]
    pub const fn may_have_helper(&self) -> bool {
        let [s0, s1, d0, d1] = self.ports.to_ne_bytes();
        !matches!(self.l4, L4::Echo)
            && (has_helper(u16::from_be_bytes([s0, s1])) || has_helper(u16::from_be_bytes([d0, d1])))
    }

    /// Where the transport checksum is, from the transport header.
    #[inline(always)]
    pub const fn checksum_offset(&self) -> usize {
        match self.l4 {
            L4::Tcp => 16,
            L4::Udp => 6,
            L4::Echo => 2,
        }
    }

    #[inline(always)]
    fn parse_v4<W: Words + ?Sized>(packet: &W, l3: usize) -> Option<(u8, u16, u8, u64, usize)> {
        let words: [u32; 5] = [
            packet.get(l3)?,
            packet.get(l3 + 4)?,
            packet.get(l3 + 8)?,
            packet.get(l3 + 12)?,
            packet.get(l3 + 16)?,
        ];
        let [first, second, third, fourth, fifth] = words.map(u64::from);
        let [version_ihl, _, l0, l1] = words[0].to_ne_bytes();
        let [_, _, f0, f1] = words[1].to_ne_bytes();
        let [ttl, protocol, _, _] = words[2].to_ne_bytes();
        let is_fragment = u16::from_be_bytes([f0, f1]) & 0x3fff != 0;
        if version_ihl != 0x45 || is_fragment || fold(first + second + third + fourth + fifth) != 0xffff {
            return None;
        }
        Some((protocol, u16::from_be_bytes([l0, l1]), ttl, first << 32 | second, 20))
    }

    #[inline(always)]
    fn parse_v6<W: Words + ?Sized>(packet: &W, l3: usize) -> Option<(u8, u16, u8, u64, usize)> {
        let (first, second): (u32, u32) = (packet.get(l3)?, packet.get(l3 + 4)?);
        let [version, ..] = first.to_ne_bytes();
        let [l0, l1, next, hop_limit] = second.to_ne_bytes();
        if version >> 4 != 6 {
            return None;
        }
        let length = u16::from_be_bytes([l0, l1]).checked_add(40)?;
        let fixed = u32::from_ne_bytes([l0, l1, next, 0]);
        Some((next, length, hop_limit, u64::from(first) << 32 | u64::from(fixed), 40))
    }
}

/// The class of whom a packet of `A`'s family asks for a TCP connection: of its destination, below [`SYN_CLASSES`]. None if it is
/// something else; one with IPv4 options or extension headers is left out.
#[inline(always)]
pub fn syn_class<A: Ip, W: Words + ?Sized>(packet: &W, l3: usize) -> Option<usize> {
    let (protocol, header): (u8, usize) = match A::FAMILY {
        Family::V4 => (packet.get(l3 + 9)?, 20),
        Family::V6 => (packet.get(l3 + 6)?, 40),
    };
    if protocol != protocol::TCP {
        return None;
    }
    // An IPv4 header of another length would have the flags elsewhere.
    let [version, _] = packet.get::<u16>(l3)?.to_ne_bytes();
    let flags: u8 = packet.get(l3 + header + 13)?;
    if (matches!(A::FAMILY, Family::V4) && version != 0x45) || flags & (SYN | ACK | RST | FIN) != SYN {
        return None;
    }
    let destination: u32 = match A::FAMILY {
        Family::V4 => packet.get(l3 + 16)?,
        Family::V6 => {
            let words: [u32; 4] =
                [packet.get(l3 + 24)?, packet.get(l3 + 28)?, packet.get(l3 + 32)?, packet.get(l3 + 36)?];
            words[0] ^ words[1] ^ words[2] ^ words[3]
        }
    };
    // Fibonacci hashing: the upper bits depend on all.
    Some((destination.wrapping_mul(0x9e37_79b1) >> 28) as usize)
}

const fn has_helper(port: u16) -> bool {
    matches!(port, 21 | 69 | 111 | 137 | 161 | 554 | 1719 | 1720 | 1723 | 5060 | 6667 | 10080)
}

/// Protocol, ports, flags, and what is fixed.
#[inline(always)]
fn parse_l4<A: Ip, W: Words + ?Sized>(
    packet: &W,
    protocol: u8,
    transport: usize,
    room: usize,
) -> Option<(L4, u32, u8, u64)> {
    match protocol {
        protocol::TCP if room >= 20 => {
            let ports = packet.get(transport)?;
            let (sequence, acknowledged): (u32, u32) =
                (packet.get(transport + 4)?, packet.get(transport + 8)?);
            let flags: u8 = packet.get(transport + 13)?;
            // The checksum must be there too.
            let _: u16 = packet.get(transport + 16)?;
            let fixed = u64::from(sequence) << 32 | u64::from(acknowledged);
            Some((L4::Tcp, ports, flags, fixed))
        }
        protocol::UDP if room >= 8 => {
            let (ports, length): (u32, u16) = (packet.get(transport)?, packet.get(transport + 4)?);
            let checksum: u16 = packet.get(transport + 6)?;
            Some((L4::Udp, ports, 0, u64::from(length) << 1 | u64::from(checksum == 0)))
        }
        protocol::ICMP | protocol::ICMPV6 if room >= 8 => {
            let (kind, code): (u8, u8) = (packet.get(transport)?, packet.get(transport + 1)?);
            let is_echo = match A::FAMILY {
                Family::V4 => protocol == protocol::ICMP && matches!(kind, 0 | 8),
                Family::V6 => protocol == protocol::ICMPV6 && matches!(kind, 128 | 129),
            };
            let [i0, i1] = packet.get::<u16>(transport + 4)?.to_ne_bytes();
            let sequence: u16 = packet.get(transport + 6)?;
            let ports = u32::from_ne_bytes([i0, i1, kind, code]);
            (is_echo && code == 0).then_some((L4::Echo, ports, 0, u64::from(sequence)))
        }
        _ => None,
    }
}
