//! Why a flow goes where it goes: facts in, an [`Explanation`] out. Pure; the command line gathers the facts.

mod nat;
pub mod packet;
mod reason;
pub mod steering;
#[cfg(test)]
mod tests;
mod text;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use balance_common::layout::{Forced, PolicyEntry};
use balance_common::{Family, IspId, MarkMask, Member, PolicyId, Sticky, build_table};

use crate::conntrack::Tracked;
use crate::control::in_force::InForce;
use crate::core::health::State;
use crate::core::network::family_of;
use crate::core::protocol_name;
use crate::nat::Ipv6Nat;

pub use nat::Nat;
use steering::{Decision, Steering};
pub use text::{render, render_json};
pub use told::{BucketTold, Explanation, FlowTold, IspTold, LiveTold, PolicyTold, RouteTold, RuleTold};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who begins the flow; none: a socket of this machine that is bound to no address.
    pub from: Option<IpAddr>,
    /// To whom.
    pub to: IpAddr,
    /// The protocol's number (IANA).
    pub protocol: u8,
    /// The source port, or one that stands for any.
    pub source_port: u16,
    /// It stands for any.
    pub any_source_port: bool,
    /// The destination port.
    pub port: u16,
    /// The DSCP.
    pub dscp: u8,
    /// Where it comes from; none: this machine itself.
    pub lan: Option<Lan>,
}

/// Where a flow comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lan {
    /// Its name; none if nobody is there to tell.
    pub name: Option<String>,
    /// Its device.
    pub device: String,
}

/// Everything that there is to know.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What is asked.
    pub question: Question,
    /// The bits of the mark that are ours.
    pub mask: MarkMask,
    /// The table of the balanced default; that of an ISP is its id more.
    pub table: u32,
    /// The ISPs, in the family of the flow.
    pub isps: BTreeMap<IspId, IspFacts>,
    /// The policies.
    pub policies: BTreeMap<PolicyId, PolicyEntry>,
    /// What only the daemon knows.
    pub in_force: Option<InForce>,
    /// How the flow is steered.
    pub steering: Steering,
    /// The flow, if it exists; or why that is not known.
    pub live: Result<Option<Tracked>, String>,
    /// Where its packets go, or why nowhere; none if that was not asked, as it can be several ways or is refused.
    pub way: Option<Result<Way, String>>,
}

/// An ISP in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IspFacts {
    /// Its name.
    pub name: String,
    /// Its device.
    pub device: String,
    /// Whether it works.
    pub state: State,
    /// Whether it takes new flows.
    pub usable: bool,
    /// What the operator wants of it.
    pub forced: Forced,
    /// Why it is in its state; only the daemon knows.
    pub reason: Option<String>,
}

/// Where packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// To this machine itself.
    pub is_here: bool,
    /// The table that the route is in.
    pub table: u32,
    /// The device they leave by.
    pub device: String,
    /// The gateway.
    pub gateway: Option<IpAddr>,
    /// The addresses of the device.
    pub addresses: BTreeSet<IpAddr>,
    /// The one of them behind which others are hidden.
    pub hides_behind: Option<IpAddr>,
}

/// Draws the conclusions.
#[must_use]
pub fn explain(facts: &Facts) -> Explanation {
    let steering = &facts.steering;
    let name = |isp: &IspId| facts.isps.get(isp).map(|isp| isp.name.clone());
    let rule = |rule: usize| {
        let said = facts.in_force.as_ref().and_then(|in_force| in_force.rules.get(rule));
        RuleTold {
            number: rule + 1,
            line: said.map(|said| said.line).filter(|&line| line > 0),
            text: said.map(|said| said.text.clone()),
        }
    };
    let live = facts.tracked().map(|live| LiveTold {
        isp: facts.mask.isp(live.mark).as_ref().and_then(name),
        is_answer: live.is_answer,
        seen_from: live.seen_from,
        sent_to: live.sent_to,
    });
    Explanation {
        flow: flow(&facts.question),
        verdict: verdict(&steering.decision),
        rule: steering.rule.map(rule),
        policy: facts.policy(),
        bucket: steering.bucket.map(|number| BucketTold {
            number,
            isp: facts.steered_to().map(|isp| isp.name.clone()),
            home: facts.home(number).as_ref().and_then(name),
        }),
        isps: facts.isps.values().map(isp).collect(),
        mark: facts.routed_mark(),
        mark_mask: facts.mask.bits(),
        live,
        route: facts.way.as_ref().map(|way| route(facts, way)),
        nat: nat::nat(facts),
        isp: facts.way_out().map(|(_, isp)| isp.name.clone()),
        notes: reason::notes(facts),
        conclusion: reason::conclusion(facts),
    }
}

impl Facts {
    /// The ISP whose prefix the source is of, where that decides.
    pub(super) fn deciding(&self) -> Option<IspId> {
        let IpAddr::V6(from) = self.question.from? else { return None };
        let decides =
            |nat: &Ipv6Nat| matches!(nat, Ipv6Nat::Source { own, decides: true } if own.contains(&from));
        let (name, _) = self.in_force.as_ref()?.ipv6.iter().find(|(_, nat)| decides(nat))?;
        self.isps.iter().find(|(_, isp)| isp.name == *name).map(|(&id, _)| id)
    }

    /// The flow, if it exists.
    pub(super) fn tracked(&self) -> Option<Tracked> {
        self.live.as_ref().ok().copied().flatten()
    }

    /// The ISP of the flow, if it exists and has one.
    pub(super) fn live_isp(&self) -> Option<IspId> {
        self.mask.isp(self.tracked()?.mark).filter(|isp| self.isps.contains_key(isp))
    }

    /// The mark by which the flow's packets are routed: that of the flow beats that of a prefix that decides, which beats
    /// the bucket's; as in `nat/table.rs`.
    #[must_use]
    pub fn routed_mark(&self) -> u32 {
        let mark = self.steering.mark;
        self.live_isp().or_else(|| self.deciding()).map_or(mark, |isp| self.mask.stamp(mark, isp))
    }

    /// The ISP that the flow was steered to.
    pub(super) fn steered_to(&self) -> Option<&IspFacts> {
        match self.steering.decision {
            Decision::Steered(isp) => self.isps.get(&isp),
            _ => None,
        }
    }

    /// How it leaves, and by which ISP; none if it does not leave by one.
    pub(super) fn way_out(&self) -> Option<(&Way, &IspFacts)> {
        let way = self.way.as_ref()?.as_ref().ok().filter(|way| !way.is_here)?;
        self.isps.values().find(|isp| isp.device == way.device).map(|isp| (way, isp))
    }

    pub(super) fn family(&self) -> Family {
        family_of(self.question.to)
    }

    pub(super) fn policy_name(&self) -> Option<String> {
        Some(self.policies.get(&self.steering.policy?)?.name())
    }

    pub(super) fn sticky(&self) -> Option<Sticky> {
        Some(Sticky::from(self.policies.get(&self.steering.policy?)?.sticky))
    }

    fn policy(&self) -> Option<PolicyTold> {
        let name = self.policy_name()?;
        let said = self.in_force.as_ref().and_then(|in_force| in_force.policies.get(&name));
        let shares = &self.steering.shares;
        let named = shares.iter().filter_map(|(isp, &share)| Some((self.isps.get(isp)?.name.clone(), share)));
        let shares: BTreeMap<String, f64> = named.collect();
        let members = said.map(|said| said.members.as_slice()).unwrap_or_default();
        let idle = members.iter().filter(|member| !shares.contains_key(&member.isp)).map(|member| {
            let is_usable = self.isps.values().any(|isp| isp.name == member.isp && isp.usable);
            let why = match &member.carries_enough {
                _ if !is_usable => "not usable".to_owned(),
                Some(why) => format!("waits ({why})"),
                None => format!("waits in tier {}", member.tier),
            };
            (member.isp.clone(), why)
        });
        let sticky = match self.sticky()? {
            Sticky::Flow => "flow",
            Sticky::Source => "source",
            Sticky::SourceDestination => "source-destination",
            Sticky::Destination => "destination",
        };
        let idle = idle.collect();
        Some(PolicyTold { name, mode: said.map(|said| said.mode.clone()), sticky, shares, idle })
    }

    /// The ISP that has the bucket when all that take flows of the policy work, if that is another one.
    pub(super) fn home(&self, bucket: usize) -> Option<IspId> {
        let policy = self.in_force.as_ref()?.policies.get(&self.policy_name()?)?;
        let takers = policy.takers.get(self.family() as usize)?.iter();
        let members: Vec<Member> =
            takers.filter_map(|&(isp, weight)| Some(Member { isp: IspId::new(isp)?, weight })).collect();
        let home = build_table(&members, &[]).iter().nth(bucket)??;
        (Decision::Steered(home) != self.steering.decision).then_some(home)
    }
}

fn flow(question: &Question) -> FlowTold {
    let has_ports = question.port != 0;
    let lan = |lan: &Lan| lan.name.clone().unwrap_or_else(|| lan.device.clone());
    FlowTold {
        protocol: protocol_name(question.protocol),
        from: question.from,
        source_port: (has_ports && (question.lan.is_some() || !question.any_source_port))
            .then_some(question.source_port),
        to: question.to,
        port: has_ports.then_some(question.port),
        dscp: question.dscp,
        lan: question.lan.as_ref().map_or_else(|| "local".to_owned(), lan),
        device: question.lan.as_ref().map(|lan| lan.device.clone()),
    }
}

const fn verdict(decision: &Decision) -> &'static str {
    match decision {
        Decision::Steered(_) => "steered",
        Decision::Drawn => "drawn",
        Decision::Local(_) => "local",
        Decision::Bypassed => "bypassed",
        Decision::NoIsp => "no ISP",
        Decision::Unreadable => "unreadable",
        Decision::LeftAlone(_) => "left alone",
    }
}

fn isp(facts: &IspFacts) -> IspTold {
    let reason = match facts.forced {
        Forced::No => facts.reason.clone(),
        Forced::Up => Some("forced up".to_owned()),
        Forced::Down => Some("forced down".to_owned()),
    };
    IspTold {
        name: facts.name.clone(),
        state: facts.state,
        usable: facts.usable,
        reason: reason.filter(|why| !why.is_empty()),
    }
}

fn route(facts: &Facts, way: &Result<Way, String>) -> RouteTold {
    match way {
        Ok(way) => RouteTold {
            table: Some(way.table),
            table_name: table_name(facts, way.table),
            device: Some(way.device.clone()),
            gateway: way.gateway,
            error: None,
        },
        Err(error) => RouteTold {
            table: None,
            table_name: None,
            device: None,
            gateway: None,
            error: Some(error.clone()),
        },
    }
}

fn table_name(facts: &Facts, table: u32) -> Option<String> {
    const MAIN: u32 = 254;
    const LOCAL: u32 = 255;
    let of_isp = |(id, isp): (&IspId, &IspFacts)| {
        (facts.table + u32::from(id.get()) == table).then(|| isp.name.clone())
    };
    match table {
        MAIN => Some("main".to_owned()),
        LOCAL => Some("local".to_owned()),
        _ if table == facts.table => Some("weighted default".to_owned()),
        _ => facts.isps.iter().find_map(of_isp),
    }
}
