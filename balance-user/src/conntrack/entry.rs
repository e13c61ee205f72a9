//! Conntrack entries as the kernel sends them: looked at in place, because there may be a million of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use netlink_packet_core::{NLA_HEADER_SIZE, NlaBuffer, NlasIterator};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterProtoFamily};

pub(super) const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_PROTOINFO: u16 = 4;
const CTA_MARK: u16 = 8;
pub(super) const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;

/// States of a connection, `enum tcp_conntrack` of `linux/netfilter/nf_conntrack_tcp.h`: from the first in which the one who
/// is asked has answered (`TCP_CONNTRACK_SYN_RECV`) to the last in which one end still waits (`TCP_CONNTRACK_LAST_ACK`).
const OPEN_STATES: RangeInclusive<u8> = 2..=6;

/// The length of the header before the attributes (`nfgenmsg`): family, version, resource id.
const HEADER_LEN: usize = 4;

/// One entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    /// IPv4 or IPv6.
    pub(super) family: NetfilterProtoFamily,
    /// The conntrack mark, in host byte order.
    pub(super) mark: u32,
    /// The attributes of the original direction's addresses and ports, which name the entry.
    pub(super) original: &'a [u8],
    /// The attributes of the reply direction's addresses and ports.
    pub(super) reply: &'a [u8],
    /// The zone, where there is one: in big endian byte order.
    pub(super) zone: Option<&'a [u8]>,
    /// It is a TCP connection.
    pub(super) is_tcp: bool,
    /// It is a TCP connection that both ends take for open, or one of them does.
    pub(super) is_open_tcp: bool,
}

impl<'a> Entry<'a> {
    /// Reads the payload of a netlink message. What is malformed or unknown is left out.
    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        let (header, attributes) = payload.split_at_checked(HEADER_LEN)?;
        let family = NetfilterHeader::parse(header).ok()?.family;
        let mut entry = Self {
            family,
            mark: 0,
            original: &[],
            reply: &[],
            zone: None,
            is_tcp: false,
            is_open_tcp: false,
        };
        for (kind, value) in attributes_of(attributes) {
            match kind {
                CTA_TUPLE_ORIG => entry.original = value,
                CTA_TUPLE_REPLY => entry.reply = value,
                CTA_PROTOINFO => {
                    if let Some((_, tcp)) = attributes_of(value).find(|(kind, _)| *kind == CTA_PROTOINFO_TCP)
                    {
                        entry.is_tcp = true;
                        entry.is_open_tcp = attributes_of(tcp).any(|(kind, state)| {
                            kind == CTA_PROTOINFO_TCP_STATE
                                && matches!(state, [state] if OPEN_STATES.contains(state))
                        });
                    }
                }
                CTA_MARK => entry.mark = u32::from_be_bytes(value.try_into().ok()?),
                CTA_ZONE => entry.zone = Some(value),
                _ => {}
            }
        }
        Some(entry)
    }

    /// Where packets of the original direction were sent to: ours, if somebody outside opened the flow.
    pub(super) fn original_destination(&self) -> Option<IpAddr> {
        destination(self.original)
    }

    /// Where replies are sent to: the address behind which the flow was hidden, or from which it was opened.
    pub(super) fn reply_destination(&self) -> Option<IpAddr> {
        destination(self.reply)
    }

    /// The ends of the connection, each with the other one as it knows it: who opened it and whom that one asked, then who
    /// answers and who asked that one. With NAT these are four.
    pub(super) fn ends(&self) -> Option<[(SocketAddr, SocketAddr); 2]> {
        Some([ends(self.original)?, ends(self.reply)?])
    }
}

fn destination(tuple: &[u8]) -> Option<IpAddr> {
    address(tuple, CTA_IP_V4_DST, CTA_IP_V6_DST)
}

/// Source and destination of packets of a direction.
fn ends(tuple: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let source =
        SocketAddr::new(address(tuple, CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, port(tuple, CTA_PROTO_SRC_PORT)?);
    let destination = SocketAddr::new(destination(tuple)?, port(tuple, CTA_PROTO_DST_PORT)?);
    Some((source, destination))
}

fn address(tuple: &[u8], v4: u16, v6: u16) -> Option<IpAddr> {
    let (_, addresses) = attributes_of(tuple).find(|(kind, _)| *kind == CTA_TUPLE_IP)?;
    attributes_of(addresses).find_map(|(kind, value)| {
        if kind == v4 {
            <[u8; 4]>::try_from(value).ok().map(|bytes| Ipv4Addr::from(bytes).into())
        } else if kind == v6 {
            <[u8; 16]>::try_from(value).ok().map(|bytes| Ipv6Addr::from(bytes).into())
        } else {
            None
        }
    })
}

fn port(tuple: &[u8], wanted: u16) -> Option<u16> {
    let (_, protocol) = attributes_of(tuple).find(|(kind, _)| *kind == CTA_TUPLE_PROTO)?;
    let (_, value) = attributes_of(protocol).find(|(kind, _)| *kind == wanted)?;
    Some(u16::from_be_bytes(value.try_into().ok()?))
}

/// The attributes with their values, up to the first malformed one.
fn attributes_of(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).filter_map(|attribute: NlaBuffer<&[u8]>| {
        let kind = attribute.kind();
        let end = usize::from(attribute.length());
        Some((kind, attribute.into_inner().get(NLA_HEADER_SIZE..end)?))
    })
}
