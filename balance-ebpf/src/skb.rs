//! A packet in the kernel.

use core::ffi::c_void;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use balance_common::Family;
use balance_common::fast::{Headers, Ip, L4, Mac, Word, Words};
use balance_common::layout::Device;
use balance_common::packet::{LinkLayer, Packet};

use crate::maps::DEVICES;

/// EtherTypes.
pub(crate) const ETH_P_IP: u16 = 0x0800;
pub(crate) const ETH_P_IPV6: u16 = 0x86dd;

/// Where the IP header is on a device whose packets begin with an Ethernet header; tags are not among the bytes.
pub(crate) const ETHERNET: usize = 14;
/// The same where they begin with IP.
pub(crate) const IP: usize = 0;

/// An skb. Reading goes through `bpf_skb_load_bytes`, which also finds what a driver has left in fragments.
pub(crate) struct Skb<'a>(pub(crate) &'a TcContext);

/// The bytes of a packet that can be accessed directly.
pub(crate) struct Direct {
    start: usize,
    end: usize,
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.load(offset).ok()
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.0.len() as usize
    }
}

impl Words for Direct {
    #[inline(always)]
    fn get<T: Word>(&self, offset: usize) -> Option<T> {
        let at = self.start + offset;
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: it is inside the packet.
        Some(unsafe { T::load(at as *const c_void) })
    }

    #[inline(always)]
    fn set<T: Word>(&mut self, offset: usize, word: T) -> Option<()> {
        let at = self.start + offset;
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: it is inside the packet.
        unsafe { word.store(at as *mut c_void) };
        Some(())
    }
}

impl Direct {
    /// The bytes between these addresses of packet data.
    #[inline(always)]
    pub(crate) const fn between(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// To which Ethernet address it came.
    #[inline(always)]
    pub(crate) fn destination_mac(&self) -> Option<Mac> {
        Some(Mac([self.get(0)?, self.get(2)?, self.get(4)?]))
    }

    /// Sets both Ethernet addresses.
    #[inline(always)]
    pub(crate) fn set_macs(&mut self, [first, second, third]: [u32; 3]) -> Option<()> {
        self.set(0, first)?;
        self.set(4, second)?;
        self.set(8, third)
    }
}

impl Skb<'_> {
    /// What is directly accessible; asking anew is needed after every helper that may move the packet.
    #[inline(always)]
    pub(crate) fn direct(&self) -> Direct {
        Direct::between(self.0.data(), self.0.data_end())
    }

    /// The headers of a packet of this family with the IP header at `l3`, if it may go fast.
    #[inline(always)]
    pub(crate) fn headers<A: Ip>(&self, l3: usize, header: usize) -> Option<Headers<A>> {
        const LONGEST_TRANSPORT: usize = 20;
        let wanted = l3 + header + LONGEST_TRANSPORT;
        let length = self.length();
        let wanted = if wanted < length { wanted } else { length };
        if self.0.data() + wanted > self.0.data_end() {
            // Some drivers leave even headers in fragments.
            self.0.pull_data(u32::try_from(wanted).ok()?).ok()?;
        }
        Headers::parse(&self.direct(), l3, length)
    }

    /// Bytes of a packet from its IP header as it will be on the wire: of a segment, where the device or the kernel will
    /// segment it.
    #[inline(always)]
    pub(crate) fn length_on_wire<A: Ip>(&self, headers: &Headers<A>) -> Option<u16> {
        let segment = self.field(|skb| skb.gso_size);
        if segment == 0 {
            return Some(headers.length);
        }
        u16::try_from(self.payload(headers)? - headers.l3 + segment as usize).ok()
    }

    /// Where the payload is, behind all headers.
    #[inline(always)]
    fn payload<A: Ip>(&self, headers: &Headers<A>) -> Option<usize> {
        let transport = match headers.l4 {
            L4::Tcp => {
                let offset: u8 = self.direct().get(headers.transport + 12)?;
                (offset >> 4) as usize * 4
            }
            L4::Udp | L4::Echo => 8,
        };
        Some(headers.transport + transport)
    }

    /// Bytes that came over the wire: of packets that were merged on their way here, each with its headers.
    #[inline(always)]
    pub(crate) fn received_bytes<A: Ip>(&self, headers: &Headers<A>) -> u32 {
        let length = self.0.len();
        let segment = self.field(|skb| skb.gso_size);
        if segment == 0 {
            return length;
        }
        let Some(payload) = self.payload(headers) else { return length };
        #[expect(clippy::cast_possible_truncation, reason = "less than a packet is long")]
        let payload = payload as u32;
        // One of them had its headers in the length already.
        length + length.saturating_sub(payload).saturating_sub(1) / segment * payload
    }

    /// Bytes that will go over the wire: the kernel has worked out what headers will be added to the segments of a packet
    /// before programs on egress run (`qdisc_pkt_len_init`).
    #[inline(always)]
    pub(crate) fn sent_bytes(&self) -> u32 {
        let (length, on_wire) = (self.0.len(), self.field(|skb| skb.wire_len));
        if on_wire > length { on_wire } else { length }
    }

    /// The index of the device it came in or goes out by.
    #[inline(always)]
    pub(crate) fn device(&self) -> u32 {
        self.field(|skb| skb.ifindex)
    }

    /// For whom the packet is: one of the `PACKET_` constants of `linux/if_packet.h`.
    #[inline(always)]
    pub(crate) fn kind(&self) -> u32 {
        self.field(|skb| skb.pkt_type)
    }

    /// The family of the packet with its IP header at `l3`, if it is IP and has no tags among its bytes.
    #[inline(always)]
    pub(crate) fn family(&self, l3: usize) -> Option<Family> {
        /// EtherTypes as the kernel has them.
        const IPV4: u32 = ETH_P_IP.to_be() as u32;
        const IPV6: u32 = ETH_P_IPV6.to_be() as u32;
        if l3 == IP {
            // The verifier does not understand how the compiler tests for a single byte.
            let [version_ihl, _] = self.direct().get::<u16>(0)?.to_ne_bytes();
            return match version_ihl >> 4 {
                4 => Some(Family::V4),
                6 => Some(Family::V6),
                _ => None,
            };
        }
        match self.field(|skb| skb.protocol) {
            IPV4 => Some(Family::V4),
            IPV6 => Some(Family::V6),
            _ => None,
        }
    }

    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        self.field(|skb| skb.mark)
    }

    #[inline(always)]
    pub(crate) fn priority(&self) -> u32 {
        self.field(|skb| skb.priority)
    }

    #[inline(always)]
    pub(crate) fn hash(&self) -> u32 {
        self.field(|skb| skb.hash)
    }

    /// The VLAN tag that is not among the bytes; none if there is none.
    #[inline(always)]
    pub(crate) fn vlan_tag(&self) -> Option<u16> {
        #[expect(clippy::cast_possible_truncation, reason = "a tag has sixteen bits")]
        let tag = self.field(|skb| skb.vlan_tci) as u16;
        (self.field(|skb| skb.vlan_present) != 0).then_some(tag)
    }

    /// Has the fast path sent it?
    #[inline(always)]
    pub(crate) fn is_fast(&self) -> bool {
        self.field(|skb| skb.cb[0]) == FAST
    }

    /// Notes that the fast path sends it. Nobody else gets to see these bytes on its way out.
    #[inline(always)]
    pub(crate) fn set_fast(&self) {
        self.set_field(|skb| &raw mut skb.cb[0], FAST);
    }

    #[inline(always)]
    pub(crate) fn set_mark(&self, mark: u32) {
        self.set_field(|skb| &raw mut skb.mark, mark);
    }

    #[inline(always)]
    pub(crate) fn set_priority(&self, priority: u32) {
        self.set_field(|skb| &raw mut skb.priority, priority);
    }

    #[inline(always)]
    fn field(&self, of: impl Fn(&__sk_buff) -> u32) -> u32 {
        // SAFETY: the kernel hands the program a valid context.
        of(unsafe { &*self.0.skb.skb })
    }

    /// Sets a field. As a volatile write of the whole word, because the compiler would narrow the combination of
    /// reading, masking and writing to a store of one byte, which the verifier refuses.
    #[inline(always)]
    fn set_field(&self, of: impl Fn(&mut __sk_buff) -> *mut u32, value: u32) {
        // SAFETY: as above; these fields may be written by programs of this type.
        unsafe { core::ptr::write_volatile(of(&mut *self.0.skb.skb), value) }
    }
}

/// In an skb's control block: the fast path sends it. Any number that is not there by chance.
const FAST: u32 = 0xba1a_9ce5;

/// What the device of a packet is to us. One that is in no map yet is a daemon's first moment.
#[inline(always)]
pub(crate) fn device_of(skb: &Skb<'_>) -> Option<&'static Device> {
    // SAFETY: the entry is only read, and a torn read of bytes that never change is not possible.
    unsafe { DEVICES.get(skb.device()) }
}

/// How the packets of a program begin.
#[inline(always)]
pub(crate) const fn link_layer(l3: usize) -> LinkLayer {
    if l3 == IP { LinkLayer::Ip } else { LinkLayer::Ethernet }
}
