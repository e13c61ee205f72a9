//! Packets that come in: the fast path where that can be, else what must be done before the kernel sees them.

use aya_ebpf::programs::TcContext;
use balance_common::fast::{Headers, Key, Origin, V4, V6, cache};
use balance_common::packet::{NoFlow, flow_of, is_traffic};
use balance_common::{Family, Flow};

use crate::fast::forward;
use crate::maps::{Cached, Flows, SETTINGS, dimensions};
use crate::skb::{Skb, device_of, link_layer};
use crate::{count, learn, steer};

/// `PACKET_HOST` of `linux/if_packet.h`: addressed to this machine, as everything is that it receives or forwards.
const PACKET_HOST: u32 = 0;

/// A packet from a LAN: forwarded (true), or steered.
#[inline(always)]
pub(crate) fn from_lan<const L3: usize>(context: &TcContext) -> bool {
    let skb = Skb(context);
    let mut flow = Err(NoFlow::NotIp);
    let done = match skb.family(L3) {
        Some(Family::V4) => from_lan_family::<V4, L3>(&skb, &mut flow),
        Some(Family::V6) => from_lan_family::<V6, L3>(&skb, &mut flow),
        None => Done::Nothing,
    };
    if matches!(done, Done::Forwarded) {
        return true;
    }
    if matches!(done, Done::Nothing) {
        parse::<L3>(&skb, &mut flow);
    }
    steer::steer::<L3>(&skb, &flow);
    false
}

/// A packet from an ISP: forwarded (true), or counted.
#[inline(always)]
pub(crate) fn from_isp<const L3: usize>(context: &TcContext) -> bool {
    let skb = Skb(context);
    let done = match skb.family(L3) {
        Some(Family::V4) => from_isp_family::<V4, L3>(&skb),
        Some(Family::V6) => from_isp_family::<V6, L3>(&skb),
        None => Done::Nothing,
    };
    // What goes on without an internet behind the gateway proves nothing: ARP, neighbour discovery, broadcasts of the
    // segment.
    if matches!(done, Done::Nothing)
        && skb.kind() == PACKET_HOST
        && is_traffic(&skb, link_layer(L3))
        && let Some(device) = device_of(&skb)
    {
        count::received(device.isp, context.len(), false);
    }
    matches!(done, Done::Forwarded)
}

/// What has been done with a packet.
#[derive(Clone, Copy)]
enum Done {
    /// It has headers that are nothing for the fast path.
    Nothing,
    /// It goes on to the kernel, and all is done for that but choosing its ISP.
    Prepared,
    /// It is on its way.
    Forwarded,
}

/// Not inlined, like what follows: the stack of all together would be too much for the kernel.
#[inline(never)]
fn from_lan_family<A: Cached, const L3: usize>(skb: &Skb<'_>, flow: &mut Result<Flow, NoFlow>) -> Done {
    let Some(headers) = skb.headers::<A>(L3, A::HEADER) else { return Done::Nothing };
    let key = key_of(skb, &headers);
    if goes_fast::<A, L3>(skb, &headers, key.as_ref()) {
        return Done::Forwarded;
    }
    let its = headers.flow();
    if let (Some(key), Some(device), Some(settings)) = (key, device_of(skb), SETTINGS.get(0)) {
        learn::snapshot::<A, L3>(skb, &headers, key, its.hash(settings.seed), device);
    }
    *flow = Ok(its);
    Done::Prepared
}

#[inline(never)]
fn parse<const L3: usize>(skb: &Skb<'_>, flow: &mut Result<Flow, NoFlow>) {
    *flow = flow_of(skb, link_layer(L3));
}

#[inline(never)]
fn from_isp_family<A: Cached, const L3: usize>(skb: &Skb<'_>) -> Done {
    let Some(headers) = skb.headers::<A>(L3, A::HEADER) else { return Done::Nothing };
    let key = key_of(skb, &headers);
    if goes_fast::<A, L3>(skb, &headers, key.as_ref()) {
        return Done::Forwarded;
    }
    if let Some(device) = device_of(skb) {
        if skb.kind() == PACKET_HOST {
            count::received(device.isp, skb.received_bytes(&headers), headers.answers_syn());
        }
        if let (Some(key), Some(settings)) = (key, SETTINGS.get(0)) {
            learn::snapshot::<A, L3>(skb, &headers, key, headers.flow().hash(settings.seed), device);
        }
    }
    Done::Prepared
}

#[inline(always)]
fn key_of<A: Cached>(skb: &Skb<'_>, headers: &Headers<A>) -> Option<Key<A>> {
    let origin = Origin::new(skb.device(), skb.vlan_tag().unwrap_or(0), headers.l4)?;
    Some(Key::new(headers, origin))
}

/// Forwards the packet if it may go fast, and there is an entry. One that ends a connection, or begins one anew, ends the
/// entry.
#[inline(always)]
fn goes_fast<A: Cached, const L3: usize>(skb: &Skb<'_>, headers: &Headers<A>, key: Option<&Key<A>>) -> bool {
    let Some(key) = key else { return false };
    if headers.may_go_fast() {
        return forward::<A, L3>(skb, headers, key);
    }
    if headers.ends()
        && let Some(found) = dimensions().and_then(|dimensions| cache::find(&Flows, &dimensions, key))
    {
        found.remove();
    }
    false
}
