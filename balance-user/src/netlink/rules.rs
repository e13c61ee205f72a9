//! Makes the policy routing rules as planned.
//!
//! A rule of ours is known by its protocol number and by its priority, which must be one of this instance's.
//! Missing rules are added first, then those that are not planned are deleted.

use std::collections::BTreeSet;
use std::ops::Range;

use balance_common::Family;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::message::family;
use super::socket::{Frame, Socket};
use super::{NetlinkError, ROUNDS};
use crate::core::plan::{ROUTE_PROTOCOL, Rule, Selector};

/// What the kernel says where no prefix length is suppressed.
const NO_SUPPRESSION: u32 = u32::MAX;

/// A change to the kernel's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Add a rule.
    Add(Rule),
    /// Delete a rule of ours, as the kernel described it.
    Delete(RuleMessage),
}

/// Makes the rules of ours with these priorities as planned; does not write when they are. All errors are
/// collected, none stops the rest.
pub async fn reconcile(planned: &BTreeSet<Rule>, priorities: Range<u32>) -> Vec<NetlinkError> {
    match settle(planned, priorities).await {
        Ok(errors) => errors,
        Err(error) => vec![error],
    }
}

/// The rules of ours with these priorities, in the kernel's order, as the kernel describes them.
pub async fn observe(priorities: Range<u32>) -> Result<Vec<RuleMessage>, NetlinkError> {
    read(&mut Socket::open()?, priorities).await
}

/// What it takes to get from the rules of ours that are there to the planned ones: first what adds, then what
/// deletes.
#[must_use]
pub fn diff(observed: &[RuleMessage], planned: &BTreeSet<Rule>) -> Vec<Operation> {
    let mut missing: BTreeSet<Rule> = planned.iter().map(normal).collect();
    // What is left in `missing` is not there; a second copy of one is one too many.
    let stale: Vec<_> =
        observed.iter().filter(|message| !parse(message).is_some_and(|rule| missing.remove(&rule))).collect();
    let deletions = stale.into_iter().cloned().map(Operation::Delete);
    missing.into_iter().map(Operation::Add).chain(deletions).collect()
}

/// A rule in the form in which the kernel gives it back.
#[must_use]
pub fn normal(rule: &Rule) -> Rule {
    let selector = match &rule.selector {
        Selector::Mark { mask: 0, .. } => Selector::All,
        Selector::Mark { value, mask } => Selector::Mark { value: value & mask, mask: *mask },
        Selector::From(net) if net.prefix_len() == 0 => Selector::All,
        Selector::From(net) => Selector::From(net.trunc()),
        other => other.clone(),
    };
    Rule { selector, ..rule.clone() }
}

/// The message that adds a rule.
#[must_use]
pub fn build(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = match rule.family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL)),
    ];
    match &rule.selector {
        Selector::All => {}
        Selector::AllButDefault => message.attributes.push(RuleAttribute::SuppressPrefixLen(0)),
        Selector::Mark { value, mask } => {
            message.attributes.extend([RuleAttribute::FwMark(*value), RuleAttribute::FwMask(*mask)]);
        }
        Selector::From(net) => {
            message.header.src_len = net.prefix_len();
            message.attributes.push(RuleAttribute::Source(net.addr()));
        }
        Selector::OutputDevice(name) => message.attributes.push(RuleAttribute::Oifname(name.clone())),
    }
    message
}

/// Reads a rule as the kernel describes it; none if it is not one that [`build`] could have made.
#[must_use]
pub fn parse(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    if header.action != RuleAction::ToTable
        || header.flags.contains(RuleFlags::Invert)
        || header.dst_len != 0
        || header.tos != 0
    {
        return None;
    }
    let mut priority = 0;
    let mut table = u32::from(header.table);
    let mut marked = 0;
    let mut mask = None;
    let mut selector = Selector::All;
    // More than one condition is none of ours.
    let select = |selector: &mut Selector, condition| {
        (std::mem::replace(selector, condition) == Selector::All).then_some(())
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(value) => priority = *value,
            RuleAttribute::Table(value) => table = *value,
            RuleAttribute::FwMark(value) => marked = *value,
            RuleAttribute::FwMask(value) => mask = Some(*value),
            RuleAttribute::Source(address) => {
                select(&mut selector, Selector::From(IpNet::new(*address, header.src_len).ok()?))?;
            }
            RuleAttribute::Oifname(name) => select(&mut selector, Selector::OutputDevice(name.clone()))?,
            RuleAttribute::SuppressPrefixLen(0) => select(&mut selector, Selector::AllButDefault)?,
            // The kernel adds these to every rule; what it may come to add in future says nothing to us.
            RuleAttribute::SuppressPrefixLen(NO_SUPPRESSION)
            | RuleAttribute::Protocol(_)
            | RuleAttribute::Other(_) => {}
            _ => return None,
        }
    }
    if let Some(mask) = mask {
        select(&mut selector, Selector::Mark { value: marked, mask })?;
    }
    Some(Rule { priority, family: family(header.family)?, selector, table })
}

async fn settle(planned: &BTreeSet<Rule>, priorities: Range<u32>) -> Result<Vec<NetlinkError>, NetlinkError> {
    let mut socket = Socket::open()?;
    for _ in 0..ROUNDS {
        let operations = diff(&read(&mut socket, priorities.clone()).await?, planned);
        if operations.is_empty() {
            return Ok(Vec::new());
        }
        let mut errors = Vec::new();
        for operation in operations {
            errors.extend(carry_out(&mut socket, operation).await.err());
        }
        if !errors.is_empty() {
            return Ok(errors);
        }
    }
    Err(NetlinkError::Unsettled("rules"))
}

async fn carry_out(socket: &mut Socket, operation: Operation) -> Result<(), NetlinkError> {
    match operation {
        Operation::Add(rule) => {
            let request = RouteNetlinkMessage::NewRule(build(&rule));
            let action = || format!("add the rule of priority {} to table {}", rule.priority, rule.table);
            socket.request(request, NLM_F_CREATE | NLM_F_EXCL, action).await
        }
        Operation::Delete(message) => {
            let action = || format!("delete the rule of priority {}", priority_of(&message));
            let request = RouteNetlinkMessage::DelRule(message.clone());
            match socket.request(request, 0, action).await {
                // Somebody was quicker.
                Err(NetlinkError::Refused { refusal, .. }) if refusal.errno == libc::ENOENT => Ok(()),
                result => result,
            }
        }
    }
}

async fn read(socket: &mut Socket, priorities: Range<u32>) -> Result<Vec<RuleMessage>, NetlinkError> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RuleMessage::default();
        message.header.family = family;
        let request = RouteNetlinkMessage::GetRule(message);
        let each = |frame: &Frame<'_>| {
            if let Some(RouteNetlinkMessage::NewRule(message)) = frame.parse() {
                let ours = RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL));
                if message.attributes.contains(&ours) && priorities.contains(&priority_of(&message)) {
                    found.push(message);
                }
            }
        };
        socket.dump(request, "list the rules", each).await?;
    }
    Ok(found)
}

fn priority_of(message: &RuleMessage) -> u32 {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Priority(priority) => Some(*priority),
            _ => None,
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
