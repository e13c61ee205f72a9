//! What the benchmark's programs in the kernel and the benchmark itself agree on.
#![no_std]

/// The UDP port that all packets of the benchmark go to. The programs leave everything else alone.
pub const PORT: u16 = 9;
/// Length in bytes of the Ethernet, IPv4 and UDP headers.
pub const HEADER_V4: usize = 42;
/// Length in bytes of the Ethernet, IPv6 and UDP headers.
pub const HEADER_V6: usize = 62;
/// The most devices that packets are handed to in turn: a power of two, and as many devices, or some more than once.
pub const TARGETS: u32 = 64;
/// Flows that differ in nothing but the source port: 2^15, and as many ports.
const PORT_BITS: u32 = 15;
const FIRST_PORT: u32 = 1 << PORT_BITS;

/// Which packets `inject` makes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injection {
    /// The header of flow 0 as bytes, in words because it is copied in words; of IPv4 the first [`HEADER_V4`] bytes, of
    /// IPv6 the first [`HEADER_V6`]. What differs between flows, and the checksums, are 0.
    pub header: [u32; 16],
    /// The sum of the IPv4 header's 16-bit words.
    pub ip_sum: u32,
    /// The sum of the 16-bit words of the UDP datagram and of its pseudo header.
    pub udp_sum: u32,
    /// The last 16 bits of the destination address of flow 0.
    pub destination: u32,
    /// How many flows take turns.
    pub flows: u32,
    /// 4 or 6.
    pub version: u32,
    /// What becomes of a frame: an XDP verdict.
    pub verdict: u32,
}

/// The 16-bit words of a packet that tell its flow, in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The last 16 bits of the destination address.
    pub destination: u16,
    /// The source port.
    pub port: u16,
}

/// What tells the flow of this number, where flow 0 has this destination.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the low 16 bits are wanted")]
pub const fn fields(destination: u32, flow: u32) -> Fields {
    Fields {
        destination: destination.wrapping_add(flow >> PORT_BITS) as u16,
        port: (FIRST_PORT | (flow & (FIRST_PORT - 1))) as u16,
    }
}

/// The internet checksum of words with this sum.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "nothing is left above 16 bits")]
pub const fn checksum(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_flows_differ() {
        let all = 1 << 20;
        let key = |flow| {
            let Fields { destination, port } = fields(0x7180, flow);
            u32::from(destination) << 16 | u32::from(port)
        };
        let mut last = key(0);
        for flow in 1..all {
            let this = key(flow);
            assert!(this != last && (this > last), "flow {flow}");
            last = this;
        }
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        // The example of the RFC: its sum is ddf2 with a carry of 2.
        assert_eq!(checksum(0x0001 + 0xf203 + 0xf4f5 + 0xf6f7), !0xddf2);
        assert_eq!(checksum(0), 0xffff);
    }
}
