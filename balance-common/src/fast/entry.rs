//! The flow cache: keys, entries, and learning them.

use super::checksum::change;
use super::{Headers, Ip, L4};

/// A device's index, a VLAN and a transport protocol: where and as what a packet comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Origin(u32);

impl Origin {
    /// Device indices from here on have no room: their packets never go fast.
    pub const MAX_DEVICE: u32 = 1 << 18;

    /// The origin of a packet; `vlan` is the number of its VLAN, 0 for none. None if the device's index is too large.
    #[must_use]
    #[inline(always)]
    pub const fn new(device: u32, vlan: u16, l4: L4) -> Option<Self> {
        if device >= Self::MAX_DEVICE {
            return None;
        }
        Some(Self(device << 14 | ((vlan & 0xfff) as u32) << 2 | l4 as u32))
    }

    /// The device's index.
    #[must_use]
    pub const fn device(self) -> u32 {
        self.0 >> 14
    }
}

/// The key of the flow cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Key<A> {
    /// From where.
    pub source: A,
    /// To where.
    pub destination: A,
    /// See [`Headers::ports`].
    pub ports: u32,
    /// By which device.
    pub origin: Origin,
}

impl<A: Ip> Key<A> {
    /// The key of a packet.
    #[inline(always)]
    pub const fn new(headers: &Headers<A>, origin: Origin) -> Self {
        Self { source: headers.source, destination: headers.destination, ports: headers.ports, origin }
    }
}

/// An Ethernet address, as it is in a packet, by words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Mac(pub [u16; 3]);

/// Facts about an [`Entry`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Flags(u8);

impl Flags {
    /// Packets leave by a device that wants an Ethernet header.
    pub const ETHERNET: Self = Self(1);
    /// The flow comes from its ISP; else it goes there.
    pub const FROM_ISP: Self = Self(2);

    /// Those that hold.
    #[must_use]
    #[inline(always)]
    pub const fn when(self, holds: bool) -> Self {
        if holds { self } else { Self(0) }
    }

    /// Both.
    #[must_use]
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Does this one hold?
    #[must_use]
    #[inline(always)]
    pub const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }
}

/// An entry of the flow cache: what to do with the packets of a flow. 64 bytes for IPv4: a cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Entry<A> {
    /// Until when, in nanoseconds of the coarse monotonic clock. 0 once a packet has gone to the kernel to have the entry
    /// confirmed.
    pub expires: u64,
    /// What tells whether the rest, but for the lease and the length, was written together, and for this key; see
    /// [`super::cache`].
    pub seal: u32,
    /// The longest packet that the kernel has let through, in bytes from the IP header: longer ones are its business.
    pub longest: u16,
    /// The lower half of the generation of [`Self::path`] for this way: if that has another one now, this entry is void.
    pub generation: u16,
    /// To which Ethernet address the flow's packets come.
    pub arrives_at: Mac,
    /// The VLAN tag to send it with, and bit 12 set (which no tag has in use) if there is one.
    pub vlan: u16,
    /// Destination and source of the new Ethernet header.
    pub ethernet: [u32; 3],
    /// By the device of this index.
    pub device: u32,
    /// The new source.
    pub source: A,
    /// The new destination.
    pub destination: A,
    /// The new ports.
    pub ports: u32,
    /// What the kernel had made of the packet's mark, for whoever looks at it on the way out.
    pub mark: u32,
    /// Its priority, likewise.
    pub priority: u32,
    /// What the new addresses change checksums by.
    pub address_change: u16,
    /// The index in `PATHS`.
    pub path: u8,
    /// Facts.
    pub flags: Flags,
}

/// A packet as it came in, until it leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Snapshot<A> {
    /// [`crate::Flow::hash`].
    pub flow: u64,
    /// See [`Headers::fixed`].
    pub fixed: [u64; 2],
    /// Its key.
    pub key: Key<A>,
    /// What is in `skb->hash` meanwhile; 0 in a snapshot that is used up.
    pub token: u32,
    /// What was in `skb->hash` before.
    pub hash: u32,
    /// To which Ethernet address it came.
    pub arrived_at: Mac,
    /// From which ISP; 0 if from a LAN.
    pub isp: u8,
    /// Its time to live.
    pub ttl: u8,
}

/// Where a packet came in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// To which Ethernet address; zeros without one.
    pub mac: Mac,
    /// From which ISP; 0 if from a LAN.
    pub isp: u8,
    /// What was in `skb->hash`.
    pub hash: u32,
}

/// Where a packet leaves, and as what.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// By the device of this index.
    pub device: u32,
    /// Its ISP; 0 for a LAN.
    pub isp: u8,
    /// Its Ethernet header's addresses, if it has one.
    pub ethernet: Option<[u32; 3]>,
    /// See [`Entry::vlan`].
    pub vlan: u16,
    /// The packet's mark.
    pub mark: u32,
    /// The packet's priority.
    pub priority: u32,
}

impl<A: Ip> Snapshot<A> {
    /// The snapshot of a packet, whose flow has this hash.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "half of the hash is enough")]
    pub const fn new(headers: &Headers<A>, key: Key<A>, flow: u64, arrival: &Arrival) -> Self {
        Self {
            flow,
            fixed: headers.fixed,
            key,
            // The same for all packets of a flow, since queues are chosen by it.
            token: flow as u32 | 1,
            hash: arrival.hash,
            arrived_at: arrival.mac,
            isp: arrival.isp,
            ttl: headers.ttl,
        }
    }
}

/// What the kernel did with the packet of this snapshot, as an entry without a lease (expiry, longest packet, generation). None
/// if it did more than can be done again: then it is another packet that happens to have the token, or one that was tunnelled,
/// changed or delivered in a way that only the kernel knows.
#[inline(always)]
pub fn learn<A: Ip>(before: &Snapshot<A>, after: &Headers<A>, departure: &Departure) -> Option<Entry<A>> {
    let old = &before.key;
    // One hop, the same packet, and of an echo only the identifier may be new.
    let same_kind = after.l4 as u32 == old.origin.0 & 3
        && (after.l4 != L4::Echo || echo_kind(old.ports) == echo_kind(after.ports));
    let same_packet = before.fixed == after.fixed && before.ttl == after.ttl.wrapping_add(1) && same_kind;
    // From one ISP to another is nobody's way.
    if !same_packet || after.ends() || (before.isp != 0 && departure.isp != 0) {
        return None;
    }
    let address_change =
        change(old.source.sum() + old.destination.sum(), after.source.sum() + after.destination.sum());
    Some(Entry {
        expires: 0,
        seal: 0,
        longest: 0,
        generation: 0,
        arrives_at: before.arrived_at,
        vlan: departure.vlan,
        ethernet: departure.ethernet.unwrap_or_default(),
        device: departure.device,
        source: after.source,
        destination: after.destination,
        ports: after.ports,
        mark: departure.mark,
        priority: departure.priority,
        address_change,
        path: crate::layout::path_index(before.isp | departure.isp, A::FAMILY),
        flags: Flags::ETHERNET.when(departure.ethernet.is_some()).and(Flags::FROM_ISP.when(before.isp != 0)),
    })
}

impl<A: PartialEq> Entry<A> {
    /// Would packets be treated alike, apart from the lease?
    #[inline(always)]
    pub fn does_the_same(&self, other: &Self) -> bool {
        self.device == other.device
            && self.source == other.source
            && self.destination == other.destination
            && self.ports == other.ports
            && self.ethernet == other.ethernet
            && self.arrives_at == other.arrives_at
            && self.mark == other.mark
            && self.priority == other.priority
            && self.path == other.path
            && self.generation == other.generation
            && self.flags == other.flags
            && self.vlan == other.vlan
    }
}

const fn echo_kind(ports: u32) -> [u8; 2] {
    let [_, _, kind, code] = ports.to_ne_bytes();
    [kind, code]
}
