//! The benchmark's frames: what the program in the kernel starts from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use balance_bench_ebpf::{HEADER_V4, HEADER_V6, Injection, PORT};
use balance_lab::Family;

/// The link addresses of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) source: [u8; 6],
    pub(crate) destination: [u8; 6],
}

/// UDP packets from the LAN's first host to the internet.
#[derive(Clone, Debug)]
pub(crate) struct Frames {
    pub(crate) injection: Injection,
    /// Length of a frame in bytes.
    pub(crate) length: usize,
}

/// Where flow 0 goes; later ones go to the addresses that follow.
const DESTINATION_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 128);
const DESTINATION_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x8000);
const UDP: u8 = 17;
const ETHERNET: usize = 14;

impl Frames {
    /// Frames of this length in bytes, of so many flows that take turns, that the program ends with this XDP verdict.
    pub(crate) fn new(link: Link, family: Family, length: usize, flows: u32, verdict: u32) -> Self {
        let source = balance_lab::addresses::lan_host(0, family);
        let (header_length, version) = match family {
            Family::V4 => (HEADER_V4, 4),
            Family::V6 => (HEADER_V6, 6),
        };
        let length = length.max(header_length);
        let udp_length = be16(length - header_length + 8);
        // The source port stands out.
        let udp = [[0, 0], PORT.to_be_bytes(), udp_length, [0, 0]].concat();
        let (ether_type, ip, pseudo_addresses) = match source {
            IpAddr::V4(source) => {
                let ip = header_v4(length - ETHERNET, source);
                let addresses = ip.iter().skip(12).copied().collect::<Vec<_>>();
                ([0x08, 0x00], ip, addresses)
            }
            IpAddr::V6(source) => {
                let ip = header_v6(length - header_length + 8, source);
                let addresses = ip.iter().skip(8).copied().collect();
                ([0x86, 0xdd], ip, addresses)
            }
        };
        let pseudo = [&pseudo_addresses[..], &udp_length, &[0, UDP]].concat();
        let header = [&link.destination[..], &link.source, &ether_type, &ip, &udp].concat();
        Self {
            injection: Injection {
                header: words(&header),
                ip_sum: sum(&ip),
                udp_sum: sum(&pseudo) + sum(&udp),
                destination: match family {
                    Family::V4 => u32::from(DESTINATION_V4) & 0xffff,
                    Family::V6 => u32::from(DESTINATION_V6.segments()[7]),
                },
                flows,
                version,
                verdict,
            },
            length,
        }
    }
}

/// Without checksum and without the last two bytes of the destination.
fn header_v4(length: usize, source: Ipv4Addr) -> Vec<u8> {
    let [a, b, _, _] = DESTINATION_V4.octets();
    let start = [&[0x45, 0][..], &be16(length), &[0, 0, 0x40, 0, 64, UDP, 0, 0]].concat();
    [&start[..], &source.octets(), &[a, b, 0, 0]].concat()
}

/// Without the last two bytes of the destination.
fn header_v6(payload: usize, source: Ipv6Addr) -> Vec<u8> {
    let destination = DESTINATION_V6.octets();
    let (kept, _) = destination.split_at(14);
    [&[0x60, 0, 0, 0][..], &be16(payload), &[UDP, 64], &source.octets(), kept, &[0, 0]].concat()
}

/// The header as the program copies it.
fn words(header: &[u8]) -> [u32; 16] {
    let mut words = [0; 16];
    for (word, bytes) in words.iter_mut().zip(header.chunks(4)) {
        let mut whole = [0; 4];
        whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        *word = u32::from_ne_bytes(whole);
    }
    words
}

/// The sum of the 16-bit words.
fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        _ => 0,
    };
    bytes.chunks(2).map(word).sum()
}

fn be16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use balance_bench_ebpf::{checksum, fields};

    use super::*;

    const LINK: Link = Link { source: [2, 0, 0, 0, 0, 1], destination: [2, 0, 0, 0, 0, 2] };

    /// The frame that the program makes of a flow.
    fn frame(frames: &Frames, flow: u32) -> Vec<u8> {
        let injection = frames.injection;
        let header: Vec<u8> = injection.header.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut frame = vec![0; frames.length];
        let (length, destination) = if injection.version == 4 { (HEADER_V4, 32) } else { (HEADER_V6, 52) };
        frame[..length].copy_from_slice(&header[..length]);
        let fields = fields(injection.destination, flow);
        let mut put =
            |offset: usize, word: u16| frame[offset..offset + 2].copy_from_slice(&word.to_be_bytes());
        put(destination, fields.destination);
        put(destination + 2, fields.port);
        if injection.version == 4 {
            put(24, checksum(injection.ip_sum + u32::from(fields.destination)));
        }
        let udp = injection.udp_sum + u32::from(fields.destination) + u32::from(fields.port);
        put(length - 2, checksum(udp));
        frame
    }

    /// The sum over a datagram with its pseudo header, which is ffff where the checksum is right.
    fn datagram_sum(addresses: &[u8], datagram: &[u8]) -> u16 {
        let pseudo = [addresses, &be16(datagram.len()), &[0, UDP]].concat();
        !checksum(sum(&pseudo) + sum(datagram))
    }

    #[test]
    fn every_v4_flow_has_right_checksums_and_lengths() {
        for (length, flow) in [(60, 0), (60, 70_000), (1514, 1_048_575)] {
            let frame = frame(&Frames::new(LINK, Family::V4, length, 1, 2), flow);
            assert_eq!(frame.len(), length);
            assert_eq!(frame[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
            assert_eq!(frame[16..18], be16(length - 14));
            assert_eq!(!checksum(sum(&frame[14..34])), 0xffff, "IP");
            assert_eq!(datagram_sum(&frame[26..34], &frame[34..]), 0xffff, "UDP");
        }
    }

    #[test]
    fn every_v6_flow_has_right_checksums_and_lengths() {
        for (length, flow) in [(60, 0), (1514, 70_000)] {
            let frame = frame(&Frames::new(LINK, Family::V6, length, 1, 2), flow);
            assert_eq!(frame.len(), length.max(62));
            assert_eq!(frame[18..20], be16(frame.len() - 54));
            assert_eq!(datagram_sum(&frame[22..54], &frame[54..]), 0xffff, "UDP");
        }
    }

    #[test]
    fn flows_differ_in_port_and_then_in_destination() {
        let frames = Frames::new(LINK, Family::V4, 60, 1, 2);
        assert_eq!(frame(&frames, 1)[30..36], [203, 0, 113, 128, 0x80, 1]);
        assert_eq!(frame(&frames, 1 << 15)[30..36], [203, 0, 113, 129, 0x80, 0]);
    }
}
