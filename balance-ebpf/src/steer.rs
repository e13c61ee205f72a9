//! Choosing the ISP of a packet from a LAN and stamping its mark.

use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::TcContext;
use balance_common::layout::{Verdict, bucket_copy};
use balance_common::packet::{LinkLayer, NoFlow, flow_of};
use balance_common::{Flow, IspId, MarkMask, bucket_of};

use crate::count;
use crate::maps::{ACTIVE, BUCKETS, DEVICES, LOCAL, SEEN, SETTINGS};
use crate::skb::Skb;

/// Stamps the packet with the mark of its flow's ISP, or leaves it alone, and counts which.
#[inline(always)]
pub(crate) fn steer(context: &TcContext) {
    let skb = Skb(context);
    let verdict = match decide(&skb) {
        Ok(verdict) | Err(verdict) => verdict,
    };
    count::verdict(verdict, context.len());
}

#[inline(always)]
fn decide(skb: &Skb<'_>) -> Result<Verdict, Verdict> {
    // A device that is in no map yet is a daemon's first moment: the main table decides.
    // SAFETY: the entry is only read, and a torn read of two bytes that never change is not possible.
    let device = unsafe { DEVICES.get(skb.device()) }.ok_or(Verdict::NoIsp)?;
    let link_layer = if device.ethernet == 0 { LinkLayer::Ip } else { LinkLayer::Ethernet };
    let flow = flow_of(skb, link_layer).map_err(|reason| match reason {
        NoFlow::NotIp => Verdict::NotIp,
        NoFlow::Unparsable => Verdict::Unparsable,
    })?;
    if LOCAL.get(Key::new(128, flow.destination.0)).is_some() {
        return Err(Verdict::Local);
    }
    let settings = SETTINGS.get(0).ok_or(Verdict::NoIsp)?;
    let hash = flow.hash(settings.seed);
    let isp = select(&flow, hash).ok_or(Verdict::NoIsp)?;
    let mask = MarkMask::new(settings.mark_mask).ok_or(Verdict::NoIsp)?;
    skb.set_mark(mask.stamp(skb.mark(), isp));
    count::steered(isp, skb.0.len(), is_new(hash));
    Ok(Verdict::Steered)
}

#[inline(always)]
fn select(flow: &Flow, hash: u64) -> Option<IspId> {
    let copy = *ACTIVE.get(flow.family as u32)?;
    let table = BUCKETS.get(bucket_copy(flow.family, copy))?;
    IspId::new(*table.get(bucket_of(hash))?)
}

/// Was no packet of this flow seen lately? Remembers it.
#[inline(always)]
fn is_new(hash: u64) -> bool {
    // SAFETY: only whether there is an entry matters.
    if unsafe { SEEN.get(hash) }.is_some() {
        return false;
    }
    // Failing costs nothing but an exact count.
    let _ = SEEN.insert(hash, 0, 0);
    true
}
