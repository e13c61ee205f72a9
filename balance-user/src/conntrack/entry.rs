//! Conntrack entries as the kernel sends them: looked at in place, because there may be a million of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use balance_common::layout::Count;
use balance_common::packet::protocol;
use balance_common::{Family, Flow};
use netlink_packet_core::{NLA_HEADER_SIZE, NlaBuffer, NlasIterator};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterProtoFamily};

use super::Ends;

pub(super) const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const CTA_MARK: u16 = 8;
const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
pub(super) const CTA_ID: u16 = 12;
pub(super) const CTA_ZONE: u16 = 18;
const CTA_TIMESTAMP: u16 = 20;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
const CTA_COUNTERS_PACKETS: u16 = 1;
const CTA_COUNTERS_BYTES: u16 = 2;
const CTA_TIMESTAMP_START: u16 = 1;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;

/// States of a connection, `enum tcp_conntrack` of `linux/netfilter/nf_conntrack_tcp.h`: from the first in which the one who
/// is asked has answered (`TCP_CONNTRACK_SYN_RECV`) to the last in which one end still waits (`TCP_CONNTRACK_LAST_ACK`).
const OPEN_STATES: RangeInclusive<u8> = 2..=6;

/// `IPS_OFFLOAD` of `linux/netfilter/nf_conntrack_common.h`.
const OFFLOADED: u32 = 1 << 14;

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
    /// A number that the kernel makes of the entry, and no two that exist have by more than chance: as the kernel sent it.
    pub(super) id: [u8; 4],
    /// In so many seconds it ends, if no packet comes.
    pub(super) timeout: Option<u32>,
    /// The attributes of what conntrack has counted, in the original and in the reply direction; empty where it does not count.
    counters: [&'a [u8]; 2],
    /// The attributes that say when it began; empty where conntrack does not note it.
    timestamp: &'a [u8],
    /// Its packets take a way (a flowtable) on which conntrack does not see them. Such an entry cannot be deleted.
    pub(super) is_offloaded: bool,
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
            id: [0; 4],
            timeout: None,
            counters: [&[]; 2],
            timestamp: &[],
            is_offloaded: false,
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
                CTA_STATUS => {
                    entry.is_offloaded = u32::from_be_bytes(value.try_into().ok()?) & OFFLOADED != 0;
                }
                CTA_TIMEOUT => entry.timeout = Some(u32::from_be_bytes(value.try_into().ok()?)),
                CTA_COUNTERS_ORIG => entry.counters[0] = value,
                CTA_COUNTERS_REPLY => entry.counters[1] = value,
                CTA_TIMESTAMP => entry.timestamp = value,
                CTA_ID => entry.id = value.try_into().ok()?,
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

    /// What conntrack has counted in the original and in the reply direction.
    pub(super) fn counted(&self) -> Option<[Count; 2]> {
        let of = |counters| {
            Some(Count {
                packets: number(counters, CTA_COUNTERS_PACKETS)?,
                bytes: number(counters, CTA_COUNTERS_BYTES)?,
            })
        };
        let [original, reply] = self.counters.map(of);
        Some([original?, reply?])
    }

    /// When it began, in nanoseconds of the Unix epoch.
    pub(super) fn begun(&self) -> Option<u64> {
        number(self.timestamp, CTA_TIMESTAMP_START)
    }

    /// The protocol's number.
    pub(super) fn protocol(&self) -> Option<u8> {
        let [number] = *transport(self.original, CTA_PROTO_NUM)? else { return None };
        Some(number)
    }

    /// Source and destination of packets of the original and of the reply direction, with their ports where there are any.
    pub(super) fn both_ways(&self) -> Option<[Ends; 2]> {
        let of = |tuple| {
            Some(Ends {
                source: address(tuple, CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
                destination: destination(tuple)?,
                ports: port(tuple, CTA_PROTO_SRC_PORT).zip(port(tuple, CTA_PROTO_DST_PORT)),
            })
        };
        Some([of(self.original)?, of(self.reply)?])
    }

    /// The flow whose first packet made the entry, as [`balance_common::packet::flow_of`] tells it of that packet, unless that was
    /// a fragment.
    pub(super) fn flow(&self) -> Option<Flow> {
        let tuple = self.original;
        let source = address(tuple, CTA_IP_V4_SRC, CTA_IP_V6_SRC)?;
        let [number] = *transport(tuple, CTA_PROTO_NUM)? else { return None };
        let ports = || Some((port(tuple, CTA_PROTO_SRC_PORT)?, port(tuple, CTA_PROTO_DST_PORT)?));
        let echo = |id, kind, request| {
            let id = port(tuple, id).filter(|_| transport(tuple, kind) == Some(&[request]));
            id.map_or((0, 0), |id| (id, id))
        };
        let (protocol, (source_port, destination_port)) = match number {
            protocol::TCP | protocol::SCTP => (number, ports()?),
            protocol::UDP => match ports()? {
                (source, destination) if protocol::is_ike(source, destination) => (protocol::ESP, (0, 0)),
                ports => (number, ports),
            },
            protocol::ICMP => (number, echo(CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, 8)),
            protocol::ICMPV6 => (number, echo(CTA_PROTO_ICMPV6_ID, CTA_PROTO_ICMPV6_TYPE, 128)),
            protocol::AH => (protocol::ESP, (0, 0)),
            _ => (number, (0, 0)),
        };
        Some(Flow {
            family: if source.is_ipv4() { Family::V4 } else { Family::V6 },
            source: source.into(),
            destination: destination(tuple)?.into(),
            protocol,
            source_port,
            destination_port,
        })
    }

    /// The ends of the connection, each with the other one as it knows it: who opened it and whom that one asked, then who
    /// answers and who asked that one. With NAT these are four.
    pub(super) fn ends(&self) -> Option<[(SocketAddr, SocketAddr); 2]> {
        Some([ends(self.original)?, ends(self.reply)?])
    }
}

/// A number of eight bytes among attributes.
fn number(attributes: &[u8], wanted: u16) -> Option<u64> {
    let (_, value) = attributes_of(attributes).find(|(kind, _)| *kind == wanted)?;
    Some(u64::from_be_bytes(value.try_into().ok()?))
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
    Some(u16::from_be_bytes(transport(tuple, wanted)?.try_into().ok()?))
}

/// Of a direction's transport protocol, this one attribute.
fn transport(tuple: &[u8], wanted: u16) -> Option<&[u8]> {
    let (_, protocol) = attributes_of(tuple).find(|(kind, _)| *kind == CTA_TUPLE_PROTO)?;
    attributes_of(protocol).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// The attributes with their values, up to the first malformed one.
fn attributes_of(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).filter_map(|attribute: NlaBuffer<&[u8]>| {
        let kind = attribute.kind();
        let end = usize::from(attribute.length());
        Some((kind, attribute.into_inner().get(NLA_HEADER_SIZE..end)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(NLA_HEADER_SIZE + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// An entry of this protocol, with these attributes of it.
    fn payload(v6: bool, protocol: u8, of_protocol: &[(u16, &[u8])]) -> Vec<u8> {
        let address = |last| if v6 { [&[0xfd; 15][..], &[last]].concat() } else { vec![192, 0, 2, last] };
        let (source, destination) =
            if v6 { (CTA_IP_V6_SRC, CTA_IP_V6_DST) } else { (CTA_IP_V4_SRC, CTA_IP_V4_DST) };
        let addresses = [attribute(source, &address(1)), attribute(destination, &address(2))].concat();
        let mut transport = attribute(CTA_PROTO_NUM, &[protocol]);
        transport.extend(of_protocol.iter().flat_map(|(kind, value)| attribute(*kind, value)));
        let tuple = [attribute(CTA_TUPLE_IP, &addresses), attribute(CTA_TUPLE_PROTO, &transport)].concat();
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let header = vec![u8::try_from(family).unwrap(), 0, 0, 0];
        let rest = [attribute(CTA_STATUS, &OFFLOADED.to_be_bytes()), attribute(CTA_TIMEOUT, &[0, 0, 1, 2])];
        [header, attribute(CTA_TUPLE_ORIG, &tuple), rest.concat(), attribute(CTA_ID, &[1, 2, 3, 4])].concat()
    }

    #[test]
    fn the_flow_of_an_entry_is_that_of_its_first_packet() {
        let ports = |source: u16, destination: u16| (source.to_be_bytes(), destination.to_be_bytes());
        for (v6, protocol, (source, destination), expected) in [
            (false, 6, ports(1000, 443), (6, 1000, 443)),
            (true, 17, ports(1000, 443), (17, 1000, 443)),
            (true, 132, ports(1000, 443), (132, 1000, 443)),
            (false, 17, ports(4500, 4500), (50, 0, 0)),
            (false, 17, ports(1000, 500), (50, 0, 0)),
            (false, 51, ports(0, 0), (50, 0, 0)),
            // Its key.
            (false, 47, ports(0, 7), (47, 0, 0)),
            (false, 136, ports(1000, 443), (136, 0, 0)),
        ] {
            let of_protocol: [(u16, &[u8]); 2] =
                [(CTA_PROTO_SRC_PORT, &source), (CTA_PROTO_DST_PORT, &destination)];
            let payload = payload(v6, protocol, &of_protocol);
            let entry = Entry::parse(&payload).unwrap();
            let flow = entry.flow().unwrap();
            assert_eq!((flow.protocol, flow.source_port, flow.destination_port), expected);
            assert_eq!(flow.family, if v6 { Family::V6 } else { Family::V4 });
            assert_eq!(flow.source.octets()[15], 1);
            assert_eq!((entry.id, entry.timeout, entry.is_offloaded), ([1, 2, 3, 4], Some(258), true));
        }
        let id: &[u8] = &[1, 2];
        for (v6, protocol, id, kind, expected) in [
            (false, 1, (CTA_PROTO_ICMP_ID, id), (CTA_PROTO_ICMP_TYPE, [8]), 258),
            (true, 58, (CTA_PROTO_ICMPV6_ID, id), (CTA_PROTO_ICMPV6_TYPE, [128]), 258),
            // A timestamp.
            (false, 1, (CTA_PROTO_ICMP_ID, id), (CTA_PROTO_ICMP_TYPE, [13]), 0),
        ] {
            let payload = payload(v6, protocol, &[id, (kind.0, &kind.1)]);
            let flow = Entry::parse(&payload).unwrap().flow().unwrap();
            assert_eq!(
                (flow.protocol, flow.source_port, flow.destination_port),
                (protocol, expected, expected)
            );
        }
    }

    #[test]
    fn an_entry_without_addresses_or_ports_has_no_flow() {
        for cut in [4, 20, 40, 48] {
            let payload = payload(false, 6, &[]);
            assert!(Entry::parse(&payload[..cut]).is_none_or(|entry| entry.flow().is_none()), "{cut}");
        }
        assert!(Entry::parse(&payload(false, 6, &[])).unwrap().flow().is_none());
    }
}
