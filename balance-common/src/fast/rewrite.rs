//! Doing what an entry says.

use super::checksum::{change, updated};
use super::{Entry, Headers, Ip, L4, Words};
use crate::Family;

/// What one hop less changes the sum of a header by: the word of which the time to live is the first byte.
const HOP: u16 = change(0x0100_u16.to_be() as u64, 0);

/// What the new addresses and ports mean for the transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumChange {
    /// What the addresses change it by: they are part of the pseudo header (RFC 9293, RFC 768, RFC 8200). 0 for none.
    pub pseudo_header: u16,
    /// What the ports, or the identifier of an echo, change it by. 0 for none.
    pub header: u16,
}

/// What is left to do after [`rewrite`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Where the transport checksum is.
    pub checksum: usize,
    /// What it must be changed by, which only XDP does in the packet: the kernel may not have computed it yet.
    pub change: ChecksumChange,
    /// A checksum of zero means that there is none, and stays.
    pub is_udp: bool,
}

/// Rewrites addresses, ports and hops of the packet with these headers. None, with the packet half done, if it is too
/// short, which these headers rule out.
#[inline(always)]
pub fn rewrite<A: Ip, W: Words + ?Sized>(
    packet: &mut W,
    headers: &Headers<A>,
    entry: &Entry<A>,
) -> Option<Rewrite> {
    let (l3, transport) = (headers.l3, headers.transport);
    match A::FAMILY {
        Family::V4 => {
            let checksum: u16 = packet.get(l3 + 10)?;
            packet.set(l3 + 8, headers.ttl.wrapping_sub(1))?;
            packet.set(l3 + 10, updated(checksum, u64::from(entry.address_change) + u64::from(HOP)))?;
        }
        Family::V6 => packet.set(l3 + 7, headers.ttl.wrapping_sub(1))?,
    }
    if headers.source != entry.source || headers.destination != entry.destination {
        A::write(packet, l3, entry.source, entry.destination)?;
    }
    let mut header = 0;
    if headers.ports != entry.ports {
        if headers.l4 == L4::Echo {
            let [i0, i1, ..] = entry.ports.to_ne_bytes();
            packet.set(transport + 4, u16::from_ne_bytes([i0, i1]))?;
        } else {
            packet.set(transport, entry.ports)?;
        }
        header = change(u64::from(headers.ports), u64::from(entry.ports));
    }
    // ICMP for IPv4 has no pseudo header.
    let has_pseudo_header = !(headers.l4 == L4::Echo && matches!(A::FAMILY, Family::V4));
    Some(Rewrite {
        checksum: transport + headers.checksum_offset(),
        change: ChecksumChange {
            pseudo_header: if has_pseudo_header { entry.address_change } else { 0 },
            header,
        },
        is_udp: headers.l4 == L4::Udp,
    })
}

impl Rewrite {
    /// Is there anything to do about the checksum? Both forms of zero are none.
    #[must_use]
    #[inline(always)]
    pub const fn is_needed(change: u16) -> bool {
        change != 0 && change != 0xffff
    }

    /// Changes the checksum in the packet.
    #[inline(always)]
    pub fn update_checksum<W: Words + ?Sized>(&self, packet: &mut W) -> Option<()> {
        let ChecksumChange { pseudo_header, header } = self.change;
        let all = super::checksum::fold(u64::from(pseudo_header) + u64::from(header));
        if !Self::is_needed(all) {
            return Some(());
        }
        let before: u16 = packet.get(self.checksum)?;
        if self.is_udp && before == 0 {
            return Some(());
        }
        let after = updated(before, u64::from(all));
        packet.set(self.checksum, if self.is_udp && after == 0 { 0xffff } else { after })
    }
}
