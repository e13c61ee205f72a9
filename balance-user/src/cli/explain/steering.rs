//! How a flow is steered, from the program and the maps.

use balance_common::layout::BYPASS;
use balance_common::packet::{LinkLayer, flow_of, protocol};
use balance_common::{Flow, MarkMask, PolicyId};

use super::question::{Asked, Found};
use super::{Maps, Pins, Steering};
use crate::core::network::family_of;
use crate::datapath::{DatapathError, marks_local_sockets, rehearse};
use crate::explain::packet::FirstPacket;
use crate::explain::steering::{Looked, Selection, expected, flow_of_socket, judged, of_socket};

/// A flow from a LAN.
pub(super) fn of_lan(
    pins: &Pins,
    maps: &Maps,
    (seed, mask): (u64, MarkMask),
    asked: &Asked,
    lan: &Found,
) -> Result<Steering, DatapathError> {
    let Asked { to, protocol, port, dscp, .. } = *asked;
    let Some(from) = asked.from else { return Ok(Steering::unreadable()) };
    let packet = FirstPacket { from, to, protocol, source_port: asked.source_port(), port, dscp };
    let ethernet = lan.entry.ethernet != 0;
    let Some(packet) = packet.bytes(ethernet) else { return Ok(Steering::unreadable()) };
    let link_layer = if ethernet { LinkLayer::Ethernet } else { LinkLayer::Ip };
    let flow = flow_of(&packet[..], link_layer).ok();
    let by_maps = match &flow {
        Some(flow) => {
            let looked = look(maps, flow, asked, (lan.entry.lan, dscp))?;
            expected(&looked, flow, (seed, mask))
        }
        None => Steering::unreadable(),
    };
    let hash = flow.map_or(0, |flow| flow.hash(seed));
    let rehearsed = rehearse(pins, &packet, (lan.index, ethernet), hash)?;
    Ok(judged(&rehearsed, by_maps, mask))
}

/// A flow of a socket of this machine.
pub(super) fn of_this_machine(
    pins: &Pins,
    maps: &Maps,
    (seed, mask): (u64, MarkMask),
    asked: &Asked,
) -> Result<Steering, DatapathError> {
    let why = if asked.from.is_some() {
        Some("a socket that is bound to an address is left alone, so the routes for its address decide")
    } else if !marks_local_sockets(pins) {
        Some(
            "sockets of this machine are not given ISPs (`status` says why), so the routes of the system decide",
        )
    } else if !matches!(asked.protocol, protocol::TCP | protocol::UDP) {
        Some("only TCP and UDP sockets are given ISPs, so the routes of the system decide")
    } else {
        None
    };
    if let Some(why) = why {
        return Ok(Steering::left_alone(why));
    }
    let flow = flow_of_socket(family_of(asked.to), Some(asked.to.into()), asked.protocol, asked.port);
    let looked = look(maps, &flow, asked, (balance_common::layout::LAN_SELF, 0))?;
    Ok(of_socket(&looked, &flow, (seed, mask)))
}

fn look(maps: &Maps, flow: &Flow, asked: &Asked, (lan, dscp): (u8, u8)) -> Result<Looked, DatapathError> {
    let (rule, policy) = maps.ruling(flow, lan, dscp)?;
    Ok(Looked { local: maps.local_prefix(asked.to), rule, selection: selection(maps, policy, flow)? })
}

fn selection(maps: &Maps, policy: u8, flow: &Flow) -> Result<Selection, DatapathError> {
    let Some(id) = PolicyId::new(policy).filter(|_| policy != BYPASS) else { return Ok(Selection::Bypass) };
    let entry = maps.policies()?.get(&id).copied().unwrap_or_default();
    Ok(Selection::Policy { id, entry, table: Box::new(maps.table(id, flow.family)?) })
}
