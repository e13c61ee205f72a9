//! Forwarding by the flow cache, in TC. What XDP shares is here too.

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::{
    bpf_ktime_get_coarse_ns, bpf_l4_csum_replace, bpf_redirect, bpf_skb_change_head, bpf_skb_vlan_pop,
    bpf_skb_vlan_push,
};
use balance_common::Family;
use balance_common::fast::{Entry, Flags, Headers, Key, L4, Rewrite, Words, cache, rewrite};

use crate::count;
use crate::maps::{CONFIRMATIONS, Cached, Flows, PATHS, SETTINGS, dimensions};
use crate::skb::{Direct, ETH_P_IP, ETH_P_IPV6, ETHERNET, IP, Skb};

const ETH_P_8021Q: u16 = 0x8100;

/// In [`Entry::vlan`]: there is a tag.
pub(crate) const TAGGED: u16 = 0x1000;

/// Forwards a packet if the flow cache has a valid entry for it. False if not; the packet is as it was then.
#[inline(always)]
pub(crate) fn forward<A: Cached, const L3: usize>(skb: &Skb<'_>, headers: &Headers<A>, key: &Key<A>) -> bool {
    let Some(length) = skb.length_on_wire(headers) else { return false };
    let Some(entry) = valid_entry::<A, L3>(&skb.direct(), key, headers.l4, length) else { return false };
    // Some(false) and None do not happen here: all bytes that get written have been read.
    send::<A, L3>(skb, headers, &entry) == Some(true)
}

/// The entry by which this packet may be forwarded.
#[inline(always)]
pub(crate) fn valid_entry<A: Cached, const L3: usize>(
    packet: &Direct,
    key: &Key<A>,
    l4: L4,
    length: u16,
) -> Option<Entry<A>> {
    let found = cache::find(&Flows, &dimensions()?, key)?;
    let entry = found.read(key)?;
    let path = PATHS.get(u32::from(entry.path))?;
    // On a shared segment another router's packets may pass by.
    let is_ours = L3 == IP || packet.destination_mac()? == entry.arrives_at;
    if path.generation(entry.flags.has(Flags::FROM_ISP)) != entry.generation
        || length > entry.longest
        || !is_ours
    {
        return None;
    }
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    if now < entry.expires {
        return Some(entry);
    }
    if entry.expires != 0 {
        if !is_due(now, entry.expires, l4) {
            return Some(entry);
        }
        // All that follow go to the kernel too, until one is back, or they would overtake this one.
        found.set_expires(0);
    }
    None
}

/// Must an entry whose lease has ended be confirmed by the kernel now?
#[inline(always)]
fn is_due(now: u64, expired: u64, l4: L4) -> bool {
    let Some(confirmations) = CONFIRMATIONS.get_ptr_mut(0) else { return true };
    let Some(longest) = SETTINGS.get(0).and_then(|settings| settings.stretch.get(l4 as usize)) else {
        return true;
    };
    // SAFETY: the entry belongs to this CPU.
    unsafe { (*confirmations).is_due(now, expired, *longest) }
}

#[inline(always)]
fn send<A: Cached, const L3: usize>(skb: &Skb<'_>, headers: &Headers<A>, entry: &Entry<A>) -> Option<bool> {
    let bytes = skb.received_bytes(headers);
    let wants_ethernet = entry.flags.has(Flags::ETHERNET);
    let mut packet = skb.direct();
    let rest = rewrite(&mut packet, headers, entry)?;
    if L3 == ETHERNET && wants_ethernet {
        packet.set_macs(entry.ethernet)?;
    }
    skb.set_mark(entry.mark);
    skb.set_priority(entry.priority);
    skb.set_fast();
    replace_checksum(skb, &rest, A::FAMILY);
    let raw = skb.0.skb.skb;
    if skb.vlan_tag().is_some() {
        // SAFETY: the context is valid.
        unsafe { bpf_skb_vlan_pop(raw) };
    }
    if L3 == IP && wants_ethernet {
        add_ethernet(skb, entry)?;
    }
    if entry.vlan & TAGGED != 0 {
        // SAFETY: as above.
        unsafe { bpf_skb_vlan_push(raw, ETH_P_8021Q.to_be(), entry.vlan & !TAGGED) };
    }
    count::forwarded(entry.path >> 1, entry.flags.has(Flags::FROM_ISP), bytes);
    // SAFETY: the helper takes numbers only.
    unsafe { bpf_redirect(entry.device, 0) };
    Some(true)
}

/// Has the kernel change the transport checksum: only it knows whether that is complete, or still to be computed by the
/// device that sends the packet.
#[inline(always)]
fn replace_checksum(skb: &Skb<'_>, rest: &Rewrite, family: Family) {
    /// `BPF_F_IPV6` of Linux 6.16: an IPv6 header's addresses are compensated by no other checksum.
    const BPF_F_IPV6: u64 = 1 << 7;
    let raw: *mut __sk_buff = skb.0.skb.skb;
    #[expect(clippy::cast_possible_truncation, reason = "an offset of less than a hundred")]
    let offset = rest.checksum as u32;
    let zero_is_none = if rest.is_udp { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
    let pseudo = zero_is_none | u64::from(BPF_F_PSEUDO_HDR);
    if Rewrite::is_needed(rest.change.pseudo_header) {
        let change = u64::from(rest.change.pseudo_header);
        let flags = if matches!(family, Family::V6) { pseudo | BPF_F_IPV6 } else { pseudo };
        // SAFETY: the context is valid.
        unsafe {
            if bpf_l4_csum_replace(raw, offset, 0, change, flags) != 0 && flags != pseudo {
                bpf_l4_csum_replace(raw, offset, 0, change, pseudo);
            }
        }
    }
    if Rewrite::is_needed(rest.change.header) {
        // SAFETY: the context is valid.
        unsafe { bpf_l4_csum_replace(raw, offset, 0, u64::from(rest.change.header), zero_is_none) };
    }
}

/// Puts an Ethernet header before a packet that begins with IP.
#[inline(always)]
fn add_ethernet<A: Cached>(skb: &Skb<'_>, entry: &Entry<A>) -> Option<()> {
    const LENGTH: u32 = 14;
    // SAFETY: the context is valid.
    unsafe { bpf_skb_change_head(skb.0.skb.skb, LENGTH, 0) };
    let mut packet = skb.direct();
    packet.set_macs(entry.ethernet)?;
    let ether_type = if matches!(A::FAMILY, Family::V4) { ETH_P_IP } else { ETH_P_IPV6 };
    packet.set(12, ether_type.to_be())
}
