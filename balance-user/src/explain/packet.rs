//! The first packet of a flow, to be shown to the steering program.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use balance_common::packet::protocol;

const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TTL: u8 = 64;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
/// The identifier of the ping, which any other would do for.
const IDENTIFIER: u16 = 1;

/// A flow's first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstPacket {
    /// Who sends it.
    pub from: IpAddr,
    /// Whom it is for; of the same family.
    pub to: IpAddr,
    /// The protocol's number (IANA).
    pub protocol: u8,
    /// The source port of TCP, UDP and SCTP.
    pub source_port: u16,
    /// The destination port.
    pub port: u16,
    /// The DSCP (RFC 2474).
    pub dscp: u8,
}

impl FirstPacket {
    /// Its bytes, with an Ethernet header or beginning with IP; none if the addresses are of two families. Checksums of transports
    /// are left out, as no steering looks at them.
    #[must_use]
    pub fn bytes(&self, ethernet: bool) -> Option<Vec<u8>> {
        let transport = self.transport();
        let length = u16::try_from(transport.len()).ok()?;
        let (ether_type, header) = match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (IPV4, self.v4(from, to, length)),
            (IpAddr::V6(from), IpAddr::V6(to)) => (IPV6, self.v6(from, to, length)),
            _ => return None,
        };
        let mut bytes = Vec::new();
        if ethernet {
            bytes.resize(ETHERNET - 2, 0);
            bytes.extend(ether_type.to_be_bytes());
        }
        bytes.extend(header);
        bytes.extend(transport);
        Some(bytes)
    }

    /// RFC 791.
    fn v4(&self, from: Ipv4Addr, to: Ipv4Addr, length: u16) -> Vec<u8> {
        let [high, low] = (20 + length).to_be_bytes();
        let mut header = vec![0x45, self.dscp << 2, high, low, 0, 0, 0x40, 0, TTL, self.protocol, 0, 0];
        header.extend(from.octets());
        header.extend(to.octets());
        let sum: u32 = header.as_chunks().0.iter().map(|&word| u32::from(u16::from_be_bytes(word))).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let [.., high, low] = (!(sum + (sum >> 16))).to_be_bytes();
        for (byte, value) in header.iter_mut().skip(10).zip([high, low]) {
            *byte = value;
        }
        header
    }

    /// RFC 8200.
    fn v6(&self, from: Ipv6Addr, to: Ipv6Addr, length: u16) -> Vec<u8> {
        let class = u32::from(self.dscp) << 2;
        let mut header = (6 << 28 | class << 20).to_be_bytes().to_vec();
        header.extend(length.to_be_bytes());
        header.extend([self.protocol, TTL]);
        header.extend(from.octets());
        header.extend(to.octets());
        header
    }

    fn transport(&self) -> Vec<u8> {
        const SYN: u8 = 0x02;
        let ports = [self.source_port.to_be_bytes(), self.port.to_be_bytes()].concat();
        let echo = |kind| [[kind, 0, 0, 0].as_slice(), &IDENTIFIER.to_be_bytes(), &[0, 1]].concat();
        match self.protocol {
            protocol::TCP => [ports.as_slice(), &[0; 8], &[5 << 4, SYN, 0xff, 0xff, 0, 0, 0, 0]].concat(),
            protocol::UDP => [ports.as_slice(), &[0, 8, 0, 0]].concat(),
            protocol::SCTP => [ports.as_slice(), &[0; 8]].concat(),
            protocol::ICMP => echo(ECHO_REQUEST),
            protocol::ICMPV6 => echo(ECHO_REQUEST_V6),
            _ => vec![0; 8],
        }
    }
}

#[cfg(test)]
mod tests {
    use balance_common::packet::{LinkLayer, dscp_of, flow_of};
    use balance_common::{Address, Family, Flow};

    use super::*;

    #[test]
    fn packets_are_read_as_what_they_were_written_for() {
        let families = [("192.168.1.10", "203.0.113.9", Family::V4), ("fd00::10", "2001:db8::9", Family::V6)];
        for (from, to, family) in families {
            let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let icmp = if family == Family::V4 { 1 } else { 58 };
            for (protocol, ports) in
                [(6, (40_000, 443)), (17, (1, 65_535)), (132, (5, 6)), (47, (0, 0)), (icmp, (1, 1))]
            {
                let (source_port, port) = ports;
                let packet = FirstPacket { from, to, protocol, source_port, port, dscp: 46 };
                for (ethernet, link_layer) in [(true, LinkLayer::Ethernet), (false, LinkLayer::Ip)] {
                    let bytes = packet.bytes(ethernet).unwrap();
                    let (source, destination) = (Address::from(from), Address::from(to));
                    let flow =
                        Flow { family, source, destination, protocol, source_port, destination_port: port };
                    assert_eq!(flow_of(&bytes[..], link_layer), Ok(flow));
                    assert_eq!(dscp_of(&bytes[..], link_layer), 46);
                }
            }
        }
    }

    #[test]
    fn two_families_make_no_packet() {
        let packet = FirstPacket {
            from: Ipv4Addr::LOCALHOST.into(),
            to: Ipv6Addr::LOCALHOST.into(),
            protocol: 6,
            source_port: 1,
            port: 1,
            dscp: 0,
        };
        assert_eq!(packet.bytes(true), None);
    }
}
