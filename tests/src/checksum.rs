//! The checksums of IPv4, TCP, UDP, ICMP and ICMPv6, put in and looked at without any help of the kernel.

use anyhow::{Context, bail, ensure};

use crate::packet::ether_type;

/// Where things stand in a frame, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The IP header.
    pub network: usize,
    /// The transport header: what follows the IP header and its extensions.
    pub transport: usize,
    /// The end of the IP packet; what comes after it is padding.
    pub end: usize,
    /// Which IP, 4 or 6.
    pub version: u8,
    /// The transport protocol (IANA).
    pub protocol: u8,
    /// Whether this is a fragment: its transport checksum is not of these bytes alone.
    pub is_fragment: bool,
}

impl Layout {
    /// Of a frame with any number of VLAN tags.
    ///
    /// # Errors
    /// When it is not whole, or not IP.
    pub fn of(frame: &[u8]) -> anyhow::Result<Self> {
        let mut kind = 12;
        while [ether_type::VLAN, ether_type::SERVICE_VLAN].contains(&be16(frame, kind)?) {
            kind += 4;
        }
        let network = kind + 2;
        let layout = match be16(frame, kind)? {
            ether_type::IPV4 => Self::of_v4(frame, network),
            ether_type::IPV6 => Self::of_v6(frame, network),
            other => bail!("type {other:#06x} is not IP"),
        }?;
        let ordered = layout.transport <= layout.end && layout.end <= frame.len();
        ensure!(ordered, "the lengths are wrong: {layout:?} in {} bytes", frame.len());
        Ok(layout)
    }

    fn of_v4(frame: &[u8], network: usize) -> anyhow::Result<Self> {
        Ok(Self {
            network,
            transport: network + usize::from(byte(frame, network)? & 0xf) * 4,
            end: network + usize::from(be16(frame, network + 2)?),
            version: 4,
            protocol: byte(frame, network + 9)?,
            is_fragment: be16(frame, network + 6)? & 0x3fff != 0,
        })
    }

    fn of_v6(frame: &[u8], network: usize) -> anyhow::Result<Self> {
        let mut layout = Self {
            network,
            transport: network + 40,
            end: network + 40 + usize::from(be16(frame, network + 4)?),
            version: 6,
            protocol: byte(frame, network + 6)?,
            is_fragment: false,
        };
        loop {
            let length = match layout.protocol {
                0 | 43 | 60 => 8 * (1 + usize::from(byte(frame, layout.transport + 1)?)),
                44 => {
                    layout.is_fragment |= be16(frame, layout.transport + 2)? & 0xfff9 != 0;
                    8
                }
                _ => return Ok(layout),
            };
            layout.protocol = byte(frame, layout.transport)?;
            layout.transport += length;
            if layout.is_fragment {
                return Ok(layout);
            }
        }
    }

    /// Where the transport's checksum stands, if it has one that covers these bytes.
    fn checksum(self) -> Option<usize> {
        let offset = match (self.version, self.protocol) {
            _ if self.is_fragment => return None,
            (_, 6) => 16,
            (_, 17) => 6,
            (4, 1) | (6, 58) => 2,
            _ => return None,
        };
        Some(self.transport + offset)
    }

    /// The sum that the transport's checksum starts with: over addresses, length and protocol.
    fn pseudo_header(self, frame: &[u8]) -> anyhow::Result<u16> {
        let (addresses, length) = match self.version {
            4 => (self.network + 12, 8),
            _ => (self.network + 8, 32),
        };
        if self.protocol == 1 {
            return Ok(0);
        }
        let bytes = frame.get(addresses..addresses + length).context("no room for addresses")?;
        let length = u16::try_from(self.end - self.transport).context("longer than IP can be")?;
        Ok([length, u16::from(self.protocol)].into_iter().fold(sum(bytes), add))
    }
}

/// Puts all checksums into a frame, whatever stands there.
///
/// # Errors
/// When it is not whole, or not IP.
pub fn complete(frame: &mut [u8]) -> anyhow::Result<()> {
    let layout = Layout::of(frame)?;
    if layout.version == 4 {
        put(frame, layout.network + 10, 0)?;
        let header = frame.get(layout.network..layout.transport).context("no header")?;
        put(frame, layout.network + 10, !sum(header))?;
    }
    if let Some(at) = layout.checksum() {
        put(frame, at, 0)?;
        let sum = transport_sum(frame, layout)?;
        // In UDP, zero says that there is none; elsewhere the two zeros are as good as each other, and the kernel
        // writes this one.
        put(frame, at, if sum == 0xffff && layout.protocol == 17 { 0xffff } else { !sum })?;
    }
    Ok(())
}

/// Says whether all checksums of a frame are right. UDP over IPv4 may do without.
///
/// # Errors
/// With the first that is not, or when the frame is not whole or not IP.
pub fn verify(frame: &[u8]) -> anyhow::Result<()> {
    let layout = Layout::of(frame)?;
    if layout.version == 4 {
        let header = frame.get(layout.network..layout.transport).context("no header")?;
        ensure!(sum(header) == 0xffff, "the IPv4 header's checksum is wrong");
    }
    let Some(at) = layout.checksum() else { return Ok(()) };
    if layout.protocol == 17 && be16(frame, at)? == 0 {
        ensure!(layout.version == 4, "UDP over IPv6 must have a checksum");
        return Ok(());
    }
    let sum = transport_sum(frame, layout)?;
    ensure!(sum == 0xffff, "the checksum of protocol {} is wrong", layout.protocol);
    Ok(())
}

/// Puts into the transport checksum's field what a sender puts there that leaves the rest to the device: the sum over
/// the pseudo header. Returns where the transport header starts, and the checksum's offset in it.
///
/// # Errors
/// When the frame is not whole, not IP, or has no such checksum.
pub fn start(frame: &mut [u8]) -> anyhow::Result<(usize, usize)> {
    let layout = Layout::of(frame)?;
    let at = layout.checksum().context("no checksum to start")?;
    let sum = layout.pseudo_header(frame)?;
    put(frame, at, sum)?;
    Ok((layout.transport, at - layout.transport))
}

/// Says whether a checksum is one that [`start`] started.
///
/// # Errors
/// When it is not.
pub fn verify_start(frame: &[u8], transport: usize, offset: usize) -> anyhow::Result<()> {
    let layout = Layout::of(frame)?;
    ensure!(
        layout.transport == transport && layout.checksum() == Some(transport + offset),
        "a checksum is to be put at {transport} + {offset}, where none belongs: {layout:?}"
    );
    let found = be16(frame, transport + offset)?;
    let expected = layout.pseudo_header(frame)?;
    ensure!(found == expected, "the started checksum is {found:#06x}, not {expected:#06x}");
    Ok(())
}

/// Two bytes of a packet as a number.
///
/// # Errors
/// When the packet ends before.
pub fn be16(bytes: &[u8], at: usize) -> anyhow::Result<u16> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    Ok(u16::from_be_bytes(*bytes.with_context(|| format!("ends before byte {at}"))?))
}

/// Writes two bytes of a packet.
///
/// # Errors
/// When the packet ends before.
pub fn put(bytes: &mut [u8], at: usize, value: u16) -> anyhow::Result<()> {
    let place = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
    *place.with_context(|| format!("ends before byte {at}"))? = value.to_be_bytes();
    Ok(())
}

fn byte(bytes: &[u8], at: usize) -> anyhow::Result<u8> {
    bytes.get(at).copied().with_context(|| format!("ends before byte {at}"))
}

fn transport_sum(frame: &[u8], layout: Layout) -> anyhow::Result<u16> {
    let bytes = frame.get(layout.transport..layout.end).context("no transport")?;
    Ok(add(layout.pseudo_header(frame)?, sum(bytes)))
}

/// The ones' complement sum (RFC 1071), not yet negated.
fn sum(bytes: &[u8]) -> u16 {
    let (pairs, rest) = bytes.as_chunks();
    let last = rest.first().map(|&last| u16::from_be_bytes([last, 0]));
    pairs.iter().map(|&pair| u16::from_be_bytes(pair)).chain(last).fold(0, add)
}

fn add(one: u16, other: u16) -> u16 {
    let (sum, carry) = one.overflowing_add(other);
    sum + u16::from(carry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Extension, Ipv4, Ipv6, Payload, ethernet};

    fn frames() -> Vec<Vec<u8>> {
        let v4 = Ipv4::new([192, 168, 1, 10].into(), [203, 0, 113, 9].into());
        let v6 = Ipv6::new("fd00:1::10".parse().unwrap(), "2001:db8::9".parse().unwrap());
        let v6_options = v6.clone().extension(Extension::destination_options(1));
        let udp = Payload::udp(1, 2, b"odd");
        [Payload::tcp(1, 2), udp.clone(), Payload::icmp(8, [0, 5, 0, 1], b"ping")]
            .map(|payload| ethernet(&[], ether_type::IPV4, &v4.clone().options(2).carrying(&payload)))
            .into_iter()
            .chain([Payload::tcp(1, 2), udp, Payload::icmp_v6(128, [0, 5, 0, 1], b"ping")].map(|payload| {
                ethernet(&[ether_type::VLAN], ether_type::IPV6, &v6_options.carrying(&payload))
            }))
            .collect()
    }

    #[test]
    fn checksums_from_a_textbook_are_right() {
        // The example of RFC 1071, and the IPv4 header of Wikipedia's.
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        let header =
            [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(sum(&header), 0xffff);
    }

    #[test]
    fn a_completed_frame_is_right_and_every_flipped_bit_is_noticed() {
        for mut frame in frames() {
            complete(&mut frame).unwrap();
            verify(&frame).unwrap();
            let layout = Layout::of(&frame).unwrap();
            for at in layout.transport..frame.len() {
                let mut broken = frame.clone();
                broken[at] ^= 0x10;
                assert!(verify(&broken).is_err(), "byte {at} of {frame:?}");
            }
        }
    }

    #[test]
    fn a_started_checksum_is_known_from_another_one() {
        for mut frame in frames() {
            let (transport, offset) = start(&mut frame).unwrap();
            verify_start(&frame, transport, offset).unwrap();
            frame[transport + offset] ^= 1;
            verify_start(&frame, transport, offset).unwrap_err();
        }
    }

    #[test]
    fn udp_without_checksum_is_right_in_ipv4_only() {
        for mut frame in frames() {
            complete(&mut frame).unwrap();
            let layout = Layout::of(&frame).unwrap();
            if layout.protocol == 17 {
                put(&mut frame, layout.transport + 6, 0).unwrap();
                assert_eq!(verify(&frame).is_ok(), layout.version == 4);
            }
        }
    }
}
