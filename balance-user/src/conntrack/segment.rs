//! The segment that makes an end of a TCP connection speak.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

const TCP: u8 = 6;
const ACK: u8 = 0x10;
const TTL: u8 = 64;
const TCP_LEN: u16 = 20;
/// Of the TCP header, in words of four bytes, in the upper half of its byte.
const DATA_OFFSET: u8 = 5 << 4;

/// An IP packet from the one end of a connection to the other, with an empty TCP segment that acknowledges number 0 at
/// number 0: out of the window of whoever gets it, but once in thousands of times, and so answered with what that one
/// sends next (RFC 9293, 3.10.7.4). None if the ends are not of one family.
///
/// The checksum and the identification of IPv4 are left to the kernel, which fills them in for raw sockets.
pub(super) fn segment(from: SocketAddr, to: SocketAddr) -> Option<Vec<u8>> {
    match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => Some(v4(from, to)),
        (SocketAddr::V6(from), SocketAddr::V6(to)) => Some(v6(from, to)),
        _ => None,
    }
}

fn v4(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    const VERSION_AND_LEN: u8 = 0x45;
    const DO_NOT_FRAGMENT: u8 = 0x40;
    let (source, destination): (&Ipv4Addr, &Ipv4Addr) = (from.ip(), to.ip());
    let [high, low] = (20 + TCP_LEN).to_be_bytes();
    let mut packet = vec![VERSION_AND_LEN, 0, high, low, 0, 0, DO_NOT_FRAGMENT, 0, TTL, TCP, 0, 0];
    let addresses = [source.octets(), destination.octets()].concat();
    packet.extend(&addresses);
    packet.extend(tcp(from.port(), to.port(), &addresses));
    packet
}

fn v6(from: SocketAddrV6, to: SocketAddrV6) -> Vec<u8> {
    const VERSION: u8 = 6 << 4;
    let (source, destination): (&Ipv6Addr, &Ipv6Addr) = (from.ip(), to.ip());
    let [high, low] = TCP_LEN.to_be_bytes();
    let mut packet = vec![VERSION, 0, 0, 0, high, low, TCP, TTL];
    let addresses = [source.octets(), destination.octets()].concat();
    packet.extend(&addresses);
    packet.extend(tcp(from.port(), to.port(), &addresses));
    packet
}

/// The TCP header. `addresses` are those of the IP header, which its checksum covers.
fn tcp(source: u16, destination: u16, addresses: &[u8]) -> Vec<u8> {
    let flags = u16::from_be_bytes([DATA_OFFSET, ACK]);
    let words = addresses.as_chunks().0.iter().map(|&word| u16::from_be_bytes(word));
    let sum: u32 = words.chain([source, destination, flags, u16::from(TCP), TCP_LEN]).map(u32::from).sum();
    // Of less than 64 Ki words: one carry, and one more that it may make.
    let sum = (sum & 0xffff) + (sum >> 16);
    let [.., high, low] = (!(sum + (sum >> 16))).to_be_bytes();
    let [ports, numbers, flags] =
        [[source, destination].map(u16::to_be_bytes).concat(), vec![0; 8], flags.to_be_bytes().to_vec()];
    [ports, numbers, flags, vec![0, 0, high, low, 0, 0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_an_empty_acknowledgement_with_a_right_checksum() {
        for (from, to) in [
            ("203.0.113.1:443", "192.168.1.10:65535"),
            ("[2001:db8::ffff]:80", "[fd00::1]:1"),
            ("255.255.255.254:65535", "255.255.255.253:65535"),
        ] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let packet = segment(from, to).unwrap();
            let (header, addresses) = if from.is_ipv4() { (20, 12..20) } else { (40, 8..40) };
            let (ip, tcp) = packet.split_at(header);
            let words = |bytes: &[u8]| -> u32 {
                bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum()
            };
            let mut sum = words(&ip[addresses]) + words(tcp) + 6 + 20;
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            assert_eq!(sum, 0xffff, "{from} {to}");
            assert_eq!(tcp[..4], [from.port().to_be_bytes(), to.port().to_be_bytes()].concat());
            assert_eq!(tcp[4..14], [0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10]);
            assert_eq!(packet.len(), header + 20);
        }
    }

    #[test]
    fn ends_of_two_families_make_no_segment() {
        assert_eq!(segment("192.0.2.1:1".parse().unwrap(), "[fd00::1]:1".parse().unwrap()), None);
    }
}
