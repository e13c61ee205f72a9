//! A packet in the kernel.

use aya_ebpf::programs::TcContext;
use balance_common::layout::Device;
use balance_common::packet::{LinkLayer, Packet};

use crate::maps::DEVICES;

/// An skb. Reading goes through `bpf_skb_load_bytes`, which also finds what a driver has left in fragments.
pub(crate) struct Skb<'a>(pub(crate) &'a TcContext);

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

impl Skb<'_> {
    /// The index of the device it came in or goes out by.
    #[inline(always)]
    pub(crate) fn device(&self) -> u32 {
        // SAFETY: the kernel hands the program a valid context.
        unsafe { (*self.0.skb.skb).ifindex }
    }

    /// For whom the packet is: one of the `PACKET_` constants of `linux/if_packet.h`.
    #[inline(always)]
    pub(crate) fn kind(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0.skb.skb).pkt_type }
    }

    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0.skb.skb).mark }
    }

    /// Sets the mark. As a volatile write of the whole word, because the compiler would narrow the combination of
    /// reading, masking and writing to a store of one byte, which the verifier refuses.
    #[inline(always)]
    pub(crate) fn set_mark(&self, mark: u32) {
        // SAFETY: as above; the mark may be written by programs of this type.
        unsafe { core::ptr::write_volatile(&raw mut (*self.0.skb.skb).mark, mark) }
    }
}

/// What the device of a packet is to us. One that is in no map yet is a daemon's first moment.
#[inline(always)]
pub(crate) fn device_of(skb: &Skb<'_>) -> Option<&'static Device> {
    // SAFETY: the entry is only read, and a torn read of two bytes that never change is not possible.
    unsafe { DEVICES.get(skb.device()) }
}

/// How its packets begin.
#[inline(always)]
pub(crate) fn link_layer(device: &Device) -> LinkLayer {
    if device.ethernet == 0 { LinkLayer::Ip } else { LinkLayer::Ethernet }
}
