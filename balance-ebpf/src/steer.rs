//! Choosing the ISP of a packet from a LAN and stamping its mark.

use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::TcContext;
use balance_common::layout::{Verdict, bucket_copy};
use balance_common::packet::{NoFlow, flow_of};
use balance_common::{Flow, IspId, MarkMask, bucket_of};

use crate::count;
use crate::maps::{ACTIVE, BUCKETS, LOCAL, SEEN, SETTINGS};
use crate::skb::{Skb, device_of, link_layer};

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
    let device = device_of(skb).ok_or(Verdict::NoIsp)?;
    let flow = flow_of(skb, link_layer(device)).map_err(|reason| match reason {
        NoFlow::NotIp => Verdict::NotIp,
        NoFlow::Unparsable => Verdict::Unparsable,
    })?;
    let settings = SETTINGS.get(0).ok_or(Verdict::NoIsp)?;
    let hash = flow.hash(settings.seed);
    let seen = seen(hash);
    // To look up a prefix costs as much as all the rest. What the flow's last packet has found holds until a prefix
    // changes.
    if seen != Some(settings.generation) && is_local(&flow) {
        return Err(Verdict::Local);
    }
    let isp = select(&flow, hash).ok_or(Verdict::NoIsp)?;
    let mask = MarkMask::new(settings.mark_mask).ok_or(Verdict::NoIsp)?;
    skb.set_mark(mask.stamp(skb.mark(), isp));
    if seen != Some(settings.generation) {
        // Failing costs nothing but time, and an exact count of new flows.
        let _ = SEEN.insert(hash, settings.generation, 0);
    }
    count::steered(isp, skb.0.len(), seen.is_none());
    Ok(Verdict::Steered)
}

#[inline(always)]
fn is_local(flow: &Flow) -> bool {
    LOCAL.get(Key::new(128, flow.destination.octets())).is_some()
}

#[inline(always)]
fn select(flow: &Flow, hash: u64) -> Option<IspId> {
    let copy = *ACTIVE.get(flow.family as u32)?;
    let table = BUCKETS.get(bucket_copy(flow.family, copy))?;
    IspId::new(*table.get(bucket_of(hash))?)
}

/// When a flow was seen last, by the generation of the local prefixes, if it was lately.
#[inline(always)]
fn seen(hash: u64) -> Option<u32> {
    // SAFETY: it is a word, which is written as a whole.
    unsafe { SEEN.get(hash) }.copied()
}
