//! Counting, for each CPU by itself.

use aya_ebpf::programs::TcContext;
use balance_common::IspId;
use balance_common::layout::{Count, IspCounters, Verdict};
use balance_common::packet::is_traffic;

use crate::maps::{COUNTERS, VERDICTS};
use crate::skb::{Skb, device_of, link_layer};

/// `PACKET_HOST` of `linux/if_packet.h`: addressed to this machine, as everything is that it receives or forwards.
const PACKET_HOST: u32 = 0;

/// Counts a packet from a LAN by what became of it.
#[inline(always)]
pub(crate) fn verdict(verdict: Verdict, bytes: u32) {
    if let Some(count) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: the entry belongs to this CPU, and the program is not preempted by itself.
        add(unsafe { &mut *count }, bytes);
    }
}

/// Counts a packet steered to an ISP.
#[inline(always)]
pub(crate) fn steered(isp: IspId, bytes: u32, is_new: bool) {
    if let Some(counters) = counters(u32::from(isp.get())) {
        add(&mut counters.steered, bytes);
        counters.new_flows += u64::from(is_new);
    }
}

/// Counts a packet that an ISP's device received. What goes on without an internet behind the gateway does not count:
/// ARP, neighbour discovery, broadcasts of the segment.
#[inline(always)]
pub(crate) fn received(context: &TcContext) {
    let skb = Skb(context);
    if skb.kind() == PACKET_HOST
        && let Some(device) = device_of(&skb)
        && is_traffic(&skb, link_layer(device))
        && let Some(counters) = counters(u32::from(device.isp))
    {
        add(&mut counters.rx, context.len());
    }
}

/// Counts a packet that an ISP's device is about to send.
#[inline(always)]
pub(crate) fn sent(context: &TcContext) {
    if let Some(device) = device_of(&Skb(context))
        && let Some(counters) = counters(u32::from(device.isp))
    {
        add(&mut counters.tx, context.len());
    }
}

#[inline(always)]
fn counters(isp: u32) -> Option<&'static mut IspCounters> {
    // SAFETY: as in `verdict`.
    COUNTERS.get_ptr_mut(isp).map(|counters| unsafe { &mut *counters })
}

#[inline(always)]
fn add(count: &mut Count, bytes: u32) {
    count.packets += 1;
    count.bytes += u64::from(bytes);
}
