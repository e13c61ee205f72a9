//! Reading a packet: which flow does it belong to?
//!
//! The same code runs in the kernel on an skb and on the host on a slice. It reads through [`Packet`], which
//! checks every access in one place, and has no way to panic, which the verifier would refuse.

use crate::{Address, Family, Flow};

/// The bytes of a packet.
pub trait Packet {
    /// `N` bytes from `offset`, or `None` where the packet is too short.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The packet's length in bytes, the link-layer header included.
    fn length(&self) -> usize;
}

impl Packet for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn length(&self) -> usize {
        self.len()
    }
}

/// How packets begin on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// With an Ethernet header, perhaps VLAN tags, then IP.
    Ethernet,
    /// With IP: ppp, tun and wg devices.
    Ip,
}

/// What a packet that has no flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFlow {
    /// Not IP at all (ARP, LLDP, PPPoE and the like): none of our business.
    NotIp,
    /// Truncated, malformed, or nested beyond what any honest sender does.
    Unparsable,
}

/// Protocol numbers (IANA).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// The IPv6 fragment header; stands for the protocol of a fragment.
    pub const FRAGMENT: u8 = 44;
    /// GRE.
    pub const GRE: u8 = 47;
    /// IPsec ESP.
    pub const ESP: u8 = 50;
    /// IPsec AH.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;

    /// Are these the UDP ports of IKE (RFC 7296), or of ESP in UDP (RFC 3948)?
    #[must_use]
    #[inline(always)]
    pub const fn is_ike(source: u16, destination: u16) -> bool {
        matches!(destination, 500 | 4500) || matches!(source, 500 | 4500)
    }
}

/// Two tags is QinQ; the kernel takes the outer one off before we look, so this leaves one to spare.
const MAX_VLAN_TAGS: usize = 2;
/// RFC 8200 lets each extension header appear once, destination options twice: six at most.
const MAX_EXTENSION_HEADERS: usize = 7;

const ETHERNET_HEADER: usize = 14;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// The flow of a packet. An ICMP error belongs to the flow of the packet it complains about, seen from the
/// complainer's side, so that it leaves by the ISP of that flow.
pub fn flow_of<P: Packet + ?Sized>(packet: &P, link_layer: LinkLayer) -> Result<Flow, NoFlow> {
    let (family, offset) = network_header(packet, link_layer)?;
    let network = Network::parse(packet, family, offset, packet.length(), Extent::Whole)?;
    if !network.fragment
        && let Some(inner) = icmp_error_payload(packet, &network)?
    {
        let quoted = Network::parse(packet, family, inner, network.end, Extent::Quoted)?;
        // Errors go to the sender. Any other would have us steer by an address that the packet is not for.
        if quoted.source != network.destination {
            return Err(NoFlow::Unparsable);
        }
        return Ok(quoted.flow(packet)?.reversed());
    }
    network.flow(packet)
}

/// Is it IP, and more than neighbour discovery (RFC 4861)? ARP and neighbour discovery go on with a gateway that has
/// no internet behind it.
#[inline(always)]
pub fn is_traffic<P: Packet + ?Sized>(packet: &P, link_layer: LinkLayer) -> bool {
    match network_header(packet, link_layer) {
        Ok((Family::V4, _)) => true,
        Ok((Family::V6, offset)) => {
            let is_icmp = packet.read(offset + 6) == Some([protocol::ICMPV6]);
            !(is_icmp && matches!(packet.read(offset + IPV6_HEADER), Some([133..=137])))
        }
        Err(_) => false,
    }
}

/// The DSCP of a packet (RFC 2474): the upper six bits of IPv4's type of service and of IPv6's traffic class; 0 if it is not IP.
#[inline(always)]
pub fn dscp_of<P: Packet + ?Sized>(packet: &P, link_layer: LinkLayer) -> u8 {
    let Ok((family, offset)) = network_header(packet, link_layer) else { return 0 };
    let Some([first, second]) = packet.read::<2>(offset) else { return 0 };
    match family {
        Family::V4 => second >> 2,
        Family::V6 => (first & 0x0f) << 2 | second >> 6,
    }
}

#[inline(always)]
fn network_header<P: Packet + ?Sized>(packet: &P, link_layer: LinkLayer) -> Result<(Family, usize), NoFlow> {
    match link_layer {
        LinkLayer::Ip => match packet.read::<1>(0).ok_or(NoFlow::Unparsable)?[0] >> 4 {
            4 => Ok((Family::V4, 0)),
            6 => Ok((Family::V6, 0)),
            _ => Err(NoFlow::NotIp),
        },
        LinkLayer::Ethernet => {
            let mut offset = ETHERNET_HEADER;
            let mut ether_type = be16(packet, offset - 2)?;
            for _ in 0..MAX_VLAN_TAGS {
                if !matches!(ether_type, 0x8100 | 0x88a8 | 0x9100) {
                    break;
                }
                offset += 4;
                ether_type = be16(packet, offset - 2)?;
            }
            match ether_type {
                0x0800 => Ok((Family::V4, offset)),
                0x86dd => Ok((Family::V6, offset)),
                0x8100 | 0x88a8 | 0x9100 => Err(NoFlow::Unparsable),
                _ => Err(NoFlow::NotIp),
            }
        }
    }
}

/// How much of the packet must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All of it: its length field is believed only if the bytes are there.
    Whole,
    /// As much as an ICMP error quotes: the headers and eight bytes (RFC 792) at least.
    Quoted,
}

/// The network header, read.
struct Network {
    family: Family,
    source: Address,
    destination: Address,
    protocol: u8,
    /// A fragment, the first one included: its ports, where it has them, must not count, because its siblings
    /// have none and all must get the same ISP.
    fragment: bool,
    /// Where the transport header begins.
    transport: usize,
    /// Where the packet ends; Ethernet may have padded it further.
    end: usize,
    extent: Extent,
}

impl Network {
    #[inline(always)]
    fn parse<P: Packet + ?Sized>(
        packet: &P,
        family: Family,
        offset: usize,
        end: usize,
        extent: Extent,
    ) -> Result<Self, NoFlow> {
        match family {
            Family::V4 => Self::parse_v4(packet, offset, end, extent),
            Family::V6 => Self::parse_v6(packet, offset, end, extent),
        }
    }

    /// RFC 791.
    #[inline(always)]
    fn parse_v4<P: Packet + ?Sized>(
        packet: &P,
        offset: usize,
        end: usize,
        extent: Extent,
    ) -> Result<Self, NoFlow> {
        let header: [u8; IPV4_HEADER] = packet.read(offset).ok_or(NoFlow::Unparsable)?;
        let [version_ihl, _, l0, l1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            header;
        let header_length = ((version_ihl & 0x0f) as usize) * 4;
        if version_ihl >> 4 != 4 || header_length < IPV4_HEADER {
            return Err(NoFlow::Unparsable);
        }
        let length = length_of(u16::from_be_bytes([l0, l1]), 0, end.saturating_sub(offset));
        let end = end_of(offset, length, header_length, end, extent)?;
        Ok(Self {
            family: Family::V4,
            source: Address::v4([s0, s1, s2, s3]),
            destination: Address::v4([d0, d1, d2, d3]),
            protocol,
            fragment: u16::from_be_bytes([f0, f1]) & 0x3fff != 0,
            transport: offset + header_length,
            end,
            extent,
        })
    }

    /// RFC 8200.
    #[inline(always)]
    fn parse_v6<P: Packet + ?Sized>(
        packet: &P,
        offset: usize,
        end: usize,
        extent: Extent,
    ) -> Result<Self, NoFlow> {
        let [version, _, _, _, l0, l1, mut next, _, addresses @ ..] =
            packet.read::<IPV6_HEADER>(offset).ok_or(NoFlow::Unparsable)?;
        if version >> 4 != 6 {
            return Err(NoFlow::Unparsable);
        }
        let source = *addresses.first_chunk().ok_or(NoFlow::Unparsable)?;
        let destination = *addresses.last_chunk().ok_or(NoFlow::Unparsable)?;
        let length = length_of(u16::from_be_bytes([l0, l1]), IPV6_HEADER, end.saturating_sub(offset));
        let end = end_of(offset, length, IPV6_HEADER, end, extent)?;
        let mut fragment = false;
        let mut transport = offset + IPV6_HEADER;
        for _ in 0..MAX_EXTENSION_HEADERS {
            if !is_extension(next) {
                break;
            }
            let [following, length, f0, f1] = packet.read::<4>(transport).ok_or(NoFlow::Unparsable)?;
            if next == protocol::FRAGMENT {
                transport += 8;
                // Offset and "more" both zero: an atomic fragment (RFC 6946), in truth a whole packet.
                if u16::from_be_bytes([f0, f1]) & 0xfff9 != 0 {
                    fragment = true;
                    break;
                }
            } else {
                transport += (length as usize + 1) * 8;
            }
            next = following;
        }
        if transport > end || (is_extension(next) && !fragment) {
            return Err(NoFlow::Unparsable);
        }
        Ok(Self {
            family: Family::V6,
            source: Address::v6(source),
            destination: Address::v6(destination),
            protocol: next,
            fragment,
            transport,
            end,
            extent,
        })
    }

    #[inline(always)]
    const fn is_icmp(&self) -> bool {
        match self.family {
            Family::V4 => self.protocol == protocol::ICMP,
            Family::V6 => self.protocol == protocol::ICMPV6,
        }
    }

    #[inline(always)]
    fn flow<P: Packet + ?Sized>(&self, packet: &P) -> Result<Flow, NoFlow> {
        let (protocol, source_port, destination_port) = self.ports(packet)?;
        Ok(Flow {
            family: self.family,
            source: self.source,
            destination: self.destination,
            protocol,
            source_port,
            destination_port,
        })
    }

    /// Protocol and ports. Everything of one IPsec tunnel (IKE, NAT traversal, ESP, AH) counts as one flow: its
    /// far end expects all of it from one address.
    #[inline(always)]
    fn ports<P: Packet + ?Sized>(&self, packet: &P) -> Result<(u8, u16, u16), NoFlow> {
        let without_ports = (self.protocol, 0, 0);
        if self.fragment {
            return Ok(without_ports);
        }
        match self.protocol {
            protocol::TCP => self.read_ports(packet, 20),
            protocol::SCTP => self.read_ports(packet, 12),
            protocol::UDP => {
                let (protocol, source, destination) = self.read_ports(packet, 8)?;
                Ok(if protocol::is_ike(source, destination) {
                    (protocol::ESP, 0, 0)
                } else {
                    (protocol, source, destination)
                })
            }
            _ if self.is_icmp() => {
                self.require(8)?;
                let [kind, _, _, _, i0, i1] = packet.read(self.transport).ok_or(NoFlow::Unparsable)?;
                let is_echo = match self.family {
                    Family::V4 => matches!(kind, 0 | 8),
                    Family::V6 => matches!(kind, 128 | 129),
                };
                let identifier = u16::from_be_bytes([i0, i1]);
                Ok(if is_echo { (self.protocol, identifier, identifier) } else { without_ports })
            }
            protocol::AH => Ok((protocol::ESP, 0, 0)),
            _ => Ok(without_ports),
        }
    }

    #[inline(always)]
    fn read_ports<P: Packet + ?Sized>(&self, packet: &P, header: usize) -> Result<(u8, u16, u16), NoFlow> {
        self.require(header)?;
        let [s0, s1, d0, d1] = packet.read(self.transport).ok_or(NoFlow::Unparsable)?;
        Ok((self.protocol, u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
    }

    /// Is there room for a transport header of this length?
    #[inline(always)]
    fn require(&self, header: usize) -> Result<(), NoFlow> {
        let needed = if self.extent == Extent::Quoted { 8 } else { header };
        if self.transport + needed <= self.end { Ok(()) } else { Err(NoFlow::Unparsable) }
    }
}

/// A packet's length, given its length field, how much that leaves out, and how many bytes there are. Over 64 KiB
/// the length does not fit the field, which is then 0 (GRO, "BIG TCP").
#[inline(always)]
fn length_of(field: u16, left_out: usize, available: usize) -> usize {
    if field == 0 && available > 0xffff { available } else { field as usize + left_out }
}

/// Where a packet of this length that begins at `offset` ends, if its header and, unless it is only quoted, all of it
/// is before the end of the bytes.
#[inline(always)]
fn end_of(
    offset: usize,
    length: usize,
    header: usize,
    bytes_end: usize,
    extent: Extent,
) -> Result<usize, NoFlow> {
    if length < header || offset + header > bytes_end {
        return Err(NoFlow::Unparsable);
    }
    match extent {
        Extent::Quoted => Ok(bytes_end),
        Extent::Whole if offset + length <= bytes_end => Ok(offset + length),
        Extent::Whole => Err(NoFlow::Unparsable),
    }
}

/// Hop-by-hop options, routing, fragment, destination options, mobility, HIP, shim6. AH and ESP are where a flow
/// ends for us.
#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | 44 | 60 | 135 | 139 | 140)
}

/// Where the quoted packet of an ICMP error begins; `None` if it is no error (RFC 792, RFC 4443).
#[inline(always)]
fn icmp_error_payload<P: Packet + ?Sized>(packet: &P, network: &Network) -> Result<Option<usize>, NoFlow> {
    if !network.is_icmp() {
        return Ok(None);
    }
    network.require(8)?;
    let [kind] = packet.read(network.transport).ok_or(NoFlow::Unparsable)?;
    let is_error = match network.family {
        Family::V4 => matches!(kind, 3 | 4 | 5 | 11 | 12),
        Family::V6 => matches!(kind, 1..=127),
    };
    Ok(is_error.then_some(network.transport + 8))
}

#[inline(always)]
fn be16<P: Packet + ?Sized>(packet: &P, offset: usize) -> Result<u16, NoFlow> {
    packet.read(offset).map(u16::from_be_bytes).ok_or(NoFlow::Unparsable)
}
