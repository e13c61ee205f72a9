//! Learning what the kernel does with a flow's packets: a snapshot where one comes in, the difference where it leaves.

use aya_ebpf::helpers::{
    bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns, bpf_set_hash, bpf_set_hash_invalid,
};
use aya_ebpf::programs::TcContext;
use balance_common::Family;
use balance_common::fast::cache::Found;
use balance_common::fast::{
    Arrival, Departure, Entry, Flags, Headers, Key, Mac, Snapshot, V4, V6, Words, cache, learn, syn_class,
};
use balance_common::layout::{Device, SNAPSHOTS, Seen};

use crate::count;
use crate::fast::TAGGED;
use crate::maps::{CONFIRMATIONS, Cached, Flows, NEXT_SLOTS, PATHS, SEEN, SETTINGS, dimensions};
use crate::skb::{ETHERNET, Skb, device_of};

/// Remembers a packet that goes to the kernel, if its flow could be learned from it.
#[inline(always)]
pub(crate) fn snapshot<A: Cached, const L3: usize>(
    skb: &Skb<'_>,
    headers: &Headers<A>,
    key: Key<A>,
    flow: u64,
    device: &Device,
) {
    if device.fast == 0 || !headers.may_go_fast() || headers.may_have_helper() {
        return;
    }
    let mac = if L3 == ETHERNET { skb.direct().destination_mac() } else { Some(Mac::default()) };
    let Some(mac) = mac else { return };
    let arrival = Arrival { mac, isp: device.isp, hash: skb.hash() };
    let snapshot = Snapshot::new(headers, key, flow, &arrival);
    if let Some(place) = A::SNAPSHOTS.get_ptr_mut(snapshot.token >> 1 & (SNAPSHOTS - 1)) {
        // SAFETY: the entry belongs to this CPU.
        unsafe { *place = snapshot };
        // SAFETY: the context is valid.
        unsafe { bpf_set_hash(skb.0.skb.skb, snapshot.token) };
    }
}

/// A packet that is about to leave: counted, unless it came by the fast path, and learned from, if it is one that we remember.
#[inline(always)]
pub(crate) fn egress<const L3: usize>(context: &TcContext) {
    let skb = Skb(context);
    if skb.is_fast() {
        return;
    }
    let Some(device) = device_of(&skb) else { return };
    let family = skb.family(L3);
    if device.isp != 0 {
        let syn = match family {
            Some(Family::V4) => syn_class::<V4, _>(&skb.direct(), L3),
            Some(Family::V6) => syn_class::<V6, _>(&skb.direct(), L3),
            None => None,
        };
        count::sent(device.isp, skb.sent_bytes(), syn);
    }
    match family {
        Some(Family::V4) => learn_from::<V4, L3>(&skb, device),
        Some(Family::V6) => learn_from::<V6, L3>(&skb, device),
        None => {}
    }
}

#[inline(always)]
fn learn_from<A: Cached, const L3: usize>(skb: &Skb<'_>, device: &Device) {
    let token = skb.hash();
    let Some(place) = A::SNAPSHOTS.get_ptr_mut(token >> 1 & (SNAPSHOTS - 1)) else { return };
    // SAFETY: the entry belongs to this CPU.
    let snapshot = unsafe { &mut *place };
    if token == 0 || snapshot.token != token {
        return;
    }
    snapshot.token = 0;
    restore_hash(skb, snapshot.hash);
    if device.fast != 0
        && let Some(headers) = skb.headers::<A>(L3, A::HEADER)
    {
        // None if there is nothing to learn.
        let _ = store::<A, L3>(skb, &headers, snapshot, device);
    }
}

/// Gives the packet the hash that it came with: queues are chosen by it, and packets of the fast path have that one too.
#[inline(always)]
fn restore_hash(skb: &Skb<'_>, hash: u32) {
    // SAFETY: the context is valid.
    unsafe {
        if hash == 0 {
            bpf_set_hash_invalid(skb.0.skb.skb);
        } else {
            bpf_set_hash(skb.0.skb.skb, hash);
        }
    }
}

/// Makes an entry of the flow cache, or renews its lease.
#[inline(always)]
fn store<A: Cached, const L3: usize>(
    skb: &Skb<'_>,
    headers: &Headers<A>,
    snapshot: &Snapshot<A>,
    device: &Device,
) -> Option<()> {
    let settings = SETTINGS.get(0)?;
    let length = skb.length_on_wire(headers)?;
    let mut entry = learn(snapshot, headers, &departure::<L3>(skb, device)?)?;
    let path = PATHS.get(u32::from(entry.path))?;
    if path.learn == 0 {
        return None;
    }
    entry.generation = path.generation(entry.flags.has(Flags::FROM_ISP));
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    entry.expires = now + settings.lease;
    entry.longest = length;
    let (key, dimensions) = (&snapshot.key, dimensions()?);
    let Some(found) = cache::find(&Flows, &dimensions, key) else {
        if is_eligible(headers, snapshot.flow, settings.seed) {
            let confirmations = CONFIRMATIONS.get(0)?;
            let next = NEXT_SLOTS.get_ptr_mut(A::FAMILY as u32)?;
            // SAFETY: the entry belongs to this CPU.
            let next = unsafe { &mut *next };
            if *next == 0 {
                // SAFETY: the helper takes nothing.
                *next = cache::first_slot(unsafe { bpf_get_smp_processor_id() }, dimensions.slots);
            }
            let is_in_use = |expires| confirmations.is_in_use(now, expires);
            // Failing, there is no room, and it is learned later.
            cache::insert(&Flows, &dimensions, key, &entry, next, is_in_use)?;
        }
        return Some(());
    };
    match found.read(key) {
        Some(known) if known.does_the_same(&entry) => renew(found, &known, &entry, now),
        _ => found.replace(key, &entry),
    }
    Some(())
}

#[inline(always)]
fn departure<const L3: usize>(skb: &Skb<'_>, device: &Device) -> Option<Departure> {
    let packet = skb.direct();
    let ethernet = if L3 == ETHERNET { Some([packet.get(0)?, packet.get(4)?, packet.get(8)?]) } else { None };
    Some(Departure {
        device: skb.device(),
        isp: device.isp,
        ethernet,
        vlan: skb.vlan_tag().map_or(0, |tag| tag | TAGGED),
        mark: skb.mark(),
        priority: skb.priority(),
    })
}

/// Renews the lease of an entry. A packet that goes to the kernel because it is longer than those before it, while the lease holds,
/// proves only that its length passes too.
#[inline(always)]
fn renew<A: Cached>(found: Found<A>, known: &Entry<A>, confirmed: &Entry<A>, now: u64) {
    if now >= known.expires {
        found.set_longest(confirmed.longest);
        found.set_expires(confirmed.expires);
    } else if known.longest < confirmed.longest {
        found.set_longest(confirmed.longest);
    }
}

/// Is a flow that is not in the cache worth learning? It was answered, or is an answer, or has persisted. So floods and scans
/// never fill the cache.
#[inline(always)]
fn is_eligible<A: Cached>(after: &Headers<A>, flow: u64, seed: u64) -> bool {
    let opposite = after.flow().reversed().hash(seed);
    if let Some(opposite) = SEEN.get_ptr_mut(opposite) {
        // SAFETY: the fields of an entry are words that do not depend on each other.
        unsafe { (*opposite).answered = 1 };
        return true;
    }
    let Some(known) = SEEN.get_ptr_mut(flow) else {
        // Failing, it is learned later.
        let _ = SEEN.insert(flow, Seen { packets: 1, ..Seen::default() }, 0);
        return false;
    };
    // SAFETY: as above.
    unsafe {
        (*known).packets = (*known).packets.saturating_add(1);
        (*known).answered != 0 || (*known).packets >= Seen::PERSISTENT
    }
}
