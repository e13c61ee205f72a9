//! Forwarding by the flow cache, in XDP: the same entries and the same rewriting as in TC.

use aya_ebpf::programs::XdpContext;
use balance_common::fast::{Flags, Headers, Key, Origin, V4, V6, Words, rewrite};

use crate::count;
use crate::fast::valid_entry;
use crate::maps::{Cached, XDP_TARGETS};
use crate::skb::{Direct, ETH_P_IP, ETH_P_IPV6, ETHERNET};

/// Forwards a packet if the flow cache has a valid entry for it and its device takes packets from XDP. False if not; the packet
/// is as it was then.
#[inline(always)]
pub(crate) fn forward(context: &XdpContext) -> bool {
    let packet = Direct::between(context.data(), context.data_end());
    match packet.get::<u16>(ETHERNET - 2).map(u16::from_be) {
        Some(ETH_P_IP) => forward_family::<V4>(context, packet) == Some(true),
        Some(ETH_P_IPV6) => forward_family::<V6>(context, packet) == Some(true),
        _ => false,
    }
}

#[inline(always)]
fn forward_family<A: Cached>(context: &XdpContext, mut packet: Direct) -> Option<bool> {
    let bytes = context.data_end() - context.data();
    let headers = Headers::<A>::parse(&packet, ETHERNET, bytes)?;
    if !headers.may_go_fast() {
        return None;
    }
    let counted = u32::try_from(bytes).ok()?;
    // SAFETY: the kernel hands the program a valid context.
    let device = unsafe { (*context.ctx).ingress_ifindex };
    let key = Key::new(&headers, Origin::new(device, 0, headers.l4)?);
    let entry = valid_entry::<A, ETHERNET>(&packet, &key, headers.l4, headers.length)?;
    // What else there is to do is TC's.
    if !entry.flags.has(Flags::ETHERNET) || entry.vlan != 0 {
        return None;
    }
    XDP_TARGETS.redirect(entry.device, 0).ok()?;
    // From here on None does not happen: all bytes that get written have been read.
    let rest = rewrite(&mut packet, &headers, &entry)?;
    packet.set_macs(entry.ethernet)?;
    rest.update_checksum(&mut packet)?;
    count::forwarded(entry.path >> 1, entry.flags.has(Flags::FROM_ISP), counted);
    Some(true)
}
