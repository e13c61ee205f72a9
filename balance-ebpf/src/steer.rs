//! Choosing the ISP of a packet from a LAN and stamping its mark.

use aya_ebpf::maps::lpm_trie::Key;
use balance_common::layout::{
    BYPASS, Device, PolicyEntry, Seen, Settings, Verdict, bucket_copy, table_index,
};
use balance_common::packet::{NoFlow, dscp_of};
use balance_common::{Flow, IspId, MarkMask, PolicyId, Sticky, bucket_of};

use crate::classify::Rules;
use crate::count;
use crate::maps::{ACTIVE, BUCKETS, LOCAL, POLICIES, SEEN, SETTINGS};
use crate::skb::{Skb, device_of, link_layer};

/// Stamps the packet of this flow with the mark of the flow's ISP, or leaves it alone, and counts which.
#[inline(never)]
pub(crate) fn steer<const L3: usize>(skb: &Skb<'_>, flow: &Result<Flow, NoFlow>) {
    let verdict = match (device_of(skb), flow, SETTINGS.get(0)) {
        (Some(device), Ok(flow), Some(settings)) => {
            decide::<L3>(skb, settings, device, flow, flow.hash(settings.seed)).unwrap_or(Verdict::NoIsp)
        }
        (Some(_), Err(NoFlow::NotIp), _) => Verdict::NotIp,
        (Some(_), Err(NoFlow::Unparsable), _) => Verdict::Unparsable,
        (None, ..) | (.., None) => Verdict::NoIsp,
    };
    count::verdict(verdict, skb.0.len());
}

/// None if no ISP can take it.
#[inline(always)]
fn decide<const L3: usize>(
    skb: &Skb<'_>,
    settings: &Settings,
    device: &Device,
    flow: &Flow,
    hash: u64,
) -> Option<Verdict> {
    let seen = SEEN.get_ptr_mut(hash);
    // SAFETY: the fields of an entry are words that do not depend on each other.
    let known = seen.map(|seen| unsafe { ((*seen).generation, (*seen).policy) });
    // To look up a prefix costs as much as all the rest, and the rules more. What the flow's last packet has found holds until
    // a prefix or a rule changes.
    let policy = match known {
        Some((generation, policy)) if generation == settings.generation => policy,
        _ if is_local(flow) => return Some(Verdict::Local),
        _ => {
            let policy = policy_of::<L3>(skb, device, flow);
            if let Some(seen) = seen {
                // SAFETY: as above.
                unsafe {
                    (*seen).policy = policy;
                    (*seen).generation = settings.generation;
                }
            } else {
                let seen = Seen { generation: settings.generation, policy, ..Seen::default() };
                // Failing costs nothing but time, and an exact count of new flows.
                let _ = SEEN.insert(hash, seen, 0);
            }
            policy
        }
    };
    if policy == BYPASS {
        return Some(Verdict::Bypassed);
    }
    let id = PolicyId::new(policy)?;
    let policy = POLICIES.get(u32::from(policy))?;
    let mask = MarkMask::new(settings.mark_mask)?;
    let hash = match Sticky::from(policy.sticky) {
        Sticky::Flow => hash,
        sticky => sticky.key(*flow).hash(settings.seed),
    };
    let Some(isp) = select(flow, id, hash) else { return last_resort(skb, mask, policy) };
    skb.set_mark(mask.stamp(skb.mark(), isp));
    count::steered(isp, skb.0.len(), known.is_none());
    Some(Verdict::Steered)
}

/// Whether it is for a local prefix.
#[inline(always)]
pub(crate) fn is_local(flow: &Flow) -> bool {
    LOCAL.get(Key::new(128, flow.destination.octets())).is_some()
}

#[inline(always)]
fn policy_of<const L3: usize>(skb: &Skb<'_>, device: &Device, flow: &Flow) -> u8 {
    let Some(rules) = Rules::in_force() else { return PolicyId::DEFAULT.get() };
    let dscp = if rules.ask_dscp() { dscp_of(skb, link_layer(L3)) } else { 0 };
    rules.policy(flow, device.lan, dscp)
}

/// The ISP of the bucket of this hash; none if no ISP can take it.
#[inline(always)]
pub(crate) fn select(flow: &Flow, policy: PolicyId, hash: u64) -> Option<IspId> {
    let copy = *ACTIVE.get(table_index(policy, flow.family))?;
    let table = BUCKETS.get(bucket_copy(policy, flow.family, copy))?;
    IspId::new(*table.get(bucket_of(hash))?)
}

/// What no ISP can take is left alone, or gets the mark by which the kernel refuses it.
#[inline(always)]
fn last_resort(skb: &Skb<'_>, mask: MarkMask, policy: &PolicyEntry) -> Option<Verdict> {
    skb.set_mark(mask.stamp(skb.mark(), IspId::new(policy.last_resort)?));
    None
}
