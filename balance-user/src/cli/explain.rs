//! `explain`: gathers what there is to know of a flow.

mod question;
mod steering;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use balance_common::layout::{Forced, IspEntry, IspState};
use balance_common::packet::protocol;
use balance_common::{IspId, MarkMask};
use netlink_packet_route::route::RouteType;
use nix::net::if_::if_indextoname;

use super::args::Explain;
use super::status::open_maps;
use super::{output, runtime};
use crate::conntrack::{self, Tracked};
use crate::control::in_force::InForce;
use crate::control::{Request, Response, ask};
use crate::core::Quality;
use crate::core::health::State;
use crate::core::network::family_of;
use crate::daemon::Instance;
use crate::datapath::{Maps, Pins};
use crate::explain::steering::{Decision, Steering};
use crate::explain::{Facts, IspFacts, Lan, Question, Way, explain as conclude, render, render_json};
use crate::netlink::NetlinkError;
use crate::netlink::lookup::{Packet, way};
use question::{Asked, Origin, find_lan};

/// The program and the maps may be seen before and after a change. So often is looked again then.
const ATTEMPTS: usize = 3;

pub(super) fn explain(instance: &str, arguments: &Explain) -> anyhow::Result<()> {
    let asked = Asked::of(arguments)?;
    let maps = open_maps(instance)?;
    let facts = runtime().context("cannot start")?.block_on(gather(instance, &maps, &asked))?;
    let told = conclude(&facts);
    let text = if arguments.json { render_json(&told)? } else { render(&told) };
    output::print(&text).context("cannot print")
}

async fn gather(name: &str, maps: &Maps, asked: &Asked) -> anyhow::Result<Facts> {
    let (pins, instance) = (Pins::of(name), Instance::new(name));
    let settings = maps.settings()?;
    let mask = MarkMask::new(settings.mark_mask).context("the instance has not begun to balance yet")?;
    let in_force = match ask(&instance, &Request::InForce) {
        Ok(Response::InForce(in_force)) => Some(in_force),
        _ => None,
    };
    let lan = match &asked.origin {
        Origin::ThisMachine => None,
        Origin::Lan(named) => Some(find_lan(maps, in_force.as_ref(), named.as_deref(), asked.from).await?),
    };
    let mut steering = Steering::unreadable();
    for _ in 0..ATTEMPTS {
        steering = match &lan {
            Some(lan) => steering::of_lan(&pins, maps, (settings.seed, mask), asked, lan)?,
            None => steering::of_this_machine(&pins, maps, (settings.seed, mask), asked)?,
        };
        if steering.disagreement.is_none() {
            break;
        }
    }
    let index = lan.as_ref().map(|lan| lan.index);
    let mut facts = Facts {
        question: asked.question(lan.map(|lan| Lan { name: lan.name, device: lan.device })),
        mask,
        table: settings.table,
        isps: isps(maps, &instance, asked)?,
        policies: maps.policies()?,
        in_force,
        steering,
        live: live(asked),
        way: None,
    };
    facts.way = find_way(&facts, index).await;
    Ok(facts)
}

fn isps(maps: &Maps, instance: &Instance, asked: &Asked) -> anyhow::Result<BTreeMap<IspId, IspFacts>> {
    let family = family_of(asked.to) as usize;
    let quality: BTreeMap<String, Quality> = match ask(instance, &Request::Quality) {
        Ok(Response::Quality { isps, .. }) => isps,
        _ => BTreeMap::new(),
    };
    let isp = |entry: &IspEntry| IspFacts {
        name: entry.name(),
        device: entry.device(),
        state: State::from(IspState::from(entry.states.get(family).copied().unwrap_or_default())),
        usable: entry.usable.get(family).is_some_and(|&usable| usable != 0),
        forced: Forced::from(entry.forced),
        reason: quality.get(&entry.name()).and_then(|quality| quality.reason.clone()),
    };
    Ok(maps.isps()?.iter().map(|(&id, entry)| (id, isp(entry))).collect())
}

/// The flow, if there is one already. Without all of its ports nobody can tell.
fn live(asked: &Asked) -> Result<Option<Tracked>, String> {
    let (Some(from), Some(source_port)) = (asked.from, asked.source_port) else { return Ok(None) };
    let (from, to) = (SocketAddr::new(from, source_port), SocketAddr::new(asked.to, asked.port));
    conntrack::find(asked.protocol, from, to).map_err(|error| error.to_string())
}

/// Where the packets go; none if that is not one way, or they are refused before.
async fn find_way(facts: &Facts, input: Option<u32>) -> Option<Result<Way, String>> {
    let question = &facts.question;
    let mark = facts.routed_mark();
    let has_isp = facts.mask.isp(mark).is_some_and(|isp| facts.isps.contains_key(&isp));
    let is_refused = facts.steering.decision == Decision::NoIsp && mark != 0 && !has_isp;
    let is_open = facts.steering.decision == Decision::Drawn && mark == 0;
    if is_refused || is_open {
        return None;
    }
    let ports = matches!(question.protocol, protocol::TCP | protocol::UDP).then_some((
        question.protocol,
        question.source_port,
        question.port,
    ));
    let packet = Packet { from: question.from, to: question.to, mark, input, ports };
    Some(follow(packet).await)
}

async fn follow(packet: Packet) -> Result<Way, String> {
    let found = way(packet).await.map_err(|error| match error {
        NetlinkError::Refused { refusal, .. } => refusal.to_string(),
        error => error.to_string(),
    })?;
    let is_here = match found.kind {
        RouteType::Unicast => false,
        RouteType::Local => true,
        kind => return Err(format!("the route is of kind {kind:?}")),
    };
    let index = found.index.ok_or("the route leads to no device")?;
    let device = if_indextoname(index).map_err(|error| format!("device {index}: {error}"))?;
    let device = device.to_string_lossy().into_owned();
    // From here it would have the address that others are hidden behind.
    let from_here = way(Packet { from: None, input: None, ..packet }).await.ok();
    let source =
        from_here.filter(|from_here| from_here.index == Some(index)).and_then(|from_here| from_here.source);
    let addresses = addresses(&device);
    let of_family = || addresses.iter().find(|address| address.is_ipv4() == packet.to.is_ipv4());
    let hides_behind = source.or_else(|| of_family().copied());
    Ok(Way { is_here, table: found.table, device, gateway: found.gateway, addresses, hides_behind })
}

/// The addresses of a device.
fn addresses(device: &str) -> BTreeSet<IpAddr> {
    let all = super::addresses::addresses().into_iter();
    all.filter(|(name, _)| name == device).map(|(_, net)| net.addr()).collect()
}
