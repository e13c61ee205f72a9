//! The conclusion, in one sentence, and what else there is to know.

use balance_common::packet::protocol;
use balance_common::{IspId, Sticky};

use super::nat::{self, Nat};
use super::steering::Decision;
use super::{Facts, Way};
use crate::config::policy::LastResort;
use crate::core::refusal;

/// What happens, and why.
pub(super) fn conclusion(facts: &Facts) -> String {
    if let Some(refused) = refused(facts) {
        return refused;
    }
    let because = because(facts);
    match &facts.way {
        None => format!("goes by {}, whichever its socket draws, because {because}", shares(facts)),
        Some(Err(error)) => format!("goes nowhere ({error}), though {because}"),
        Some(Ok(way)) => match nat::nat(facts) {
            Nat::Forward { sent_to } => {
                format!("goes to {sent_to}, because a [[forward]] leads there from {}", facts.question.to)
            }
            _ if way.is_here => format!("is for this machine itself, because {because}"),
            nat => format!("{}{}, because {because}", goes_by(facts, way), seen_as(&nat)),
        },
    }
}

/// What is neither wrong nor the answer.
pub(super) fn notes(facts: &Facts) -> Vec<String> {
    let (steering, question) = (&facts.steering, &facts.question);
    let mut notes = Vec::new();
    if let Some(disagreement) = &steering.disagreement {
        notes.push(format!("the maps do not say what the program did, so why is not known: {disagreement}"));
    }
    let depends_on_port =
        facts.sticky() == Some(Sticky::Flow) && steering.shares.len() > 1 && facts.tracked().is_none();
    let is_ping = matches!(question.protocol, protocol::ICMP | protocol::ICMPV6);
    if question.lan.is_some() && depends_on_port && question.any_source_port && question.port != 0 {
        let taken = question.source_port;
        notes.push(format!(
            "no --sport, so {taken} was taken; flows from other ports go by {}",
            shares(facts)
        ));
    } else if question.lan.is_some() && depends_on_port && is_ping {
        notes.push(format!("this is for identifier 1; pings with others go by {}", shares(facts)));
    }
    let is_socket = question.lan.is_none() && question.protocol == protocol::UDP;
    if is_socket && matches!(steering.decision, Decision::Steered(_) | Decision::Drawn | Decision::Bypassed) {
        notes.push(
            "UDP sockets draw a bucket of the default policy when they are made; rules count only for those that connect"
                .to_owned(),
        );
    }
    if let Err(error) = &facts.live {
        notes.push(format!("whether there is such a flow already is not known: {error}"));
    }
    match &facts.in_force {
        None => notes.push("the daemon does not answer; what rules say in words, only it knows".to_owned()),
        Some(in_force) if in_force.firewall && facts.way_out().is_some() => {
            notes.push("whether the firewall ([firewall]) lets it through was not looked at".to_owned());
        }
        Some(_) => {}
    }
    notes
}

/// What no ISP can take may be refused; not flows of this machine, nor those that have an ISP.
fn refused(facts: &Facts) -> Option<String> {
    if facts.steering.decision != Decision::NoIsp || facts.live_isp().or_else(|| facts.deciding()).is_some() {
        return None;
    }
    let marked = facts.mask.isp(facts.steering.mark)?;
    let is = |last_resort| refusal(facts.mask, last_resort) == Some(marked);
    let why = || format!("none of the ISPs of policy {} can take it", policy(facts));
    if is(LastResort::Unreachable) {
        return Some(format!("is refused (ICMP unreachable), because {}", why()));
    }
    is(LastResort::Drop).then(|| format!("is dropped, because {}", why()))
}

fn goes_by(facts: &Facts, way: &Way) -> String {
    let by = match facts.way_out() {
        Some((_, isp)) => format!("goes by {} ({})", isp.name, way.device),
        None => format!("goes by {}", way.device),
    };
    way.gateway.map_or_else(|| by.clone(), |gateway| format!("{by} to {gateway}"))
}

fn seen_as(nat: &Nat) -> String {
    nat.seen_as().map_or_else(String::new, |address| format!(", seen as {address}"))
}

fn because(facts: &Facts) -> String {
    let name = |isp: IspId| facts.isps.get(&isp).map_or_else(String::new, |isp| isp.name.clone());
    if let Some(live) = facts.live_isp() {
        let new = facts.steered_to().map(|isp| &isp.name).filter(|new| **new != name(live));
        let new = new.map_or_else(String::new, |new| format!("; a new one would be steered to {new}"));
        return format!("it is a live flow of {}, and flows stay where they are{new}", name(live));
    }
    if let Some(deciding) = facts.deciding() {
        return format!("its source is of {}'s prefix, which decides", name(deciding));
    }
    let mut because = steered_because(facts);
    // Routes of the main table, but for its default, come before those of ISPs.
    if let (Some(isp), Some(Ok(way))) = (facts.steered_to(), &facts.way)
        && isp.device != way.device
    {
        because = format!("a route of the system comes before all balancing ({because})");
    }
    because
}

fn steered_because(facts: &Facts) -> String {
    const SYSTEM: &str = "so the routes of the system decide";
    let led = || match facts.steering.rule {
        Some(rule) => format!("rule {} leads to", rule + 1),
        None if facts.steering.disagreement.is_some() => "the program has chosen".to_owned(),
        None => "no rule is about it, so it has".to_owned(),
    };
    match &facts.steering.decision {
        Decision::Steered(_) => match facts.steered_to() {
            Some(isp) if policy(facts) == isp.name => format!("{} {}", led(), isp.name),
            isp => {
                let isp = isp.map_or("nobody", |isp| isp.name.as_str());
                format!("{} policy {}, {}", led(), policy(facts), bucket(facts, isp))
            }
        },
        Decision::Drawn => format!("{} policy {}", led(), policy(facts)),
        Decision::Local(Some(prefix)) => format!("{prefix} is never balanced"),
        Decision::Local(None) => "its destination is never balanced".to_owned(),
        Decision::Bypassed => match facts.steering.rule {
            Some(rule) => format!("rule {} is a bypass, {SYSTEM}", rule + 1),
            None => format!("a rule is a bypass, {SYSTEM}"),
        },
        Decision::NoIsp => format!("none of the ISPs of policy {} can take it, {SYSTEM}", policy(facts)),
        Decision::Unreadable => format!("its packets cannot be read, {SYSTEM}"),
        Decision::LeftAlone(why) => (*why).to_owned(),
    }
}

fn bucket(facts: &Facts, isp: &str) -> String {
    let Some(number) = facts.steering.bucket else { return format!("which has {isp} alone now") };
    let home = facts.home(number).and_then(|home| facts.isps.get(&home));
    let home = home.map_or_else(String::new, |home| {
        let why = if home.usable { "gets no new flows" } else { "is not usable" };
        format!(" while {} {why}", home.name)
    });
    format!("whose bucket {number} is {isp}'s{home}")
}

fn policy(facts: &Facts) -> String {
    facts.policy_name().unwrap_or_else(|| "of another version".to_owned())
}

fn shares(facts: &Facts) -> String {
    let shares = facts.steering.shares.iter();
    let shares = shares
        .filter_map(|(isp, share)| Some(format!("{} ({:.0}%)", facts.isps.get(isp)?.name, share * 100.0)));
    shares.collect::<Vec<_>>().join(" or ")
}
