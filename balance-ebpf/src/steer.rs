//! Choosing the ISP of a packet from a LAN and stamping its mark.

use aya_ebpf::maps::lpm_trie::Key;
use balance_common::layout::{Device, Seen, Settings, Verdict, bucket_copy};
use balance_common::packet::NoFlow;
use balance_common::{Flow, IspId, MarkMask, bucket_of};

use crate::count;
use crate::maps::{ACTIVE, BUCKETS, LOCAL, SEEN, SETTINGS};
use crate::skb::Skb;

/// Stamps the packet of this flow with the mark of the flow's ISP, or leaves it alone, and counts which. The flow's hash,
/// if there is a flow.
#[inline(always)]
pub(crate) fn steer(skb: &Skb<'_>, device: Option<&Device>, flow: Result<Flow, NoFlow>) -> Option<u64> {
    let (verdict, hash) = match (device, flow, SETTINGS.get(0)) {
        (Some(_), Ok(flow), Some(settings)) => {
            let hash = flow.hash(settings.seed);
            (decide(skb, settings, &flow, hash).unwrap_or(Verdict::NoIsp), Some(hash))
        }
        (Some(_), Err(NoFlow::NotIp), _) => (Verdict::NotIp, None),
        (Some(_), Err(NoFlow::Unparsable), _) => (Verdict::Unparsable, None),
        (None, ..) | (.., None) => (Verdict::NoIsp, None),
    };
    count::verdict(verdict, skb.0.len());
    hash
}

/// None if no ISP can take it.
#[inline(always)]
fn decide(skb: &Skb<'_>, settings: &Settings, flow: &Flow, hash: u64) -> Option<Verdict> {
    let seen = SEEN.get_ptr_mut(hash);
    // SAFETY: the fields of an entry are words that do not depend on each other.
    let generation = seen.map(|seen| unsafe { (*seen).generation });
    let is_known = generation == Some(settings.generation);
    // To look up a prefix costs as much as all the rest. What the flow's last packet has found holds until a prefix
    // changes.
    if !is_known && is_local(flow) {
        return Some(Verdict::Local);
    }
    let isp = select(flow, hash)?;
    let mask = MarkMask::new(settings.mark_mask)?;
    skb.set_mark(mask.stamp(skb.mark(), isp));
    match seen {
        // SAFETY: as above.
        Some(seen) if !is_known => unsafe { (*seen).generation = settings.generation },
        Some(_) => {}
        None => {
            let seen = Seen { generation: settings.generation, ..Seen::default() };
            // Failing costs nothing but time, and an exact count of new flows.
            let _ = SEEN.insert(hash, seen, 0);
        }
    }
    count::steered(isp, skb.0.len(), generation.is_none());
    Some(Verdict::Steered)
}

/// Whether it is for a local prefix.
#[inline(always)]
pub(crate) fn is_local(flow: &Flow) -> bool {
    LOCAL.get(Key::new(128, flow.destination.octets())).is_some()
}

/// The ISP of the bucket of this hash; none if no ISP can take it.
#[inline(always)]
pub(crate) fn select(flow: &Flow, hash: u64) -> Option<IspId> {
    let copy = *ACTIVE.get(flow.family as u32)?;
    let table = BUCKETS.get(bucket_copy(flow.family, copy))?;
    IspId::new(*table.get(bucket_of(hash))?)
}
