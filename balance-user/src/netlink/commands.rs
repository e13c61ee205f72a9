//! The plan in the words of `ip`, for `--dry-run`.

use std::fmt::Write as _;
use std::net::IpAddr;

use balance_common::Family;

use super::routes::{self, Installed};
use super::rules;
use crate::core::network::family_of;
use crate::core::plan::{KernelPlan, NextHop, ROUTE_PROTOCOL, Rule, Selector};

/// The commands that would make the routes and rules of a plan, one a line, in the order in which they would be
/// made. `link_name` gives the name of the device with an index.
#[must_use]
pub fn commands(plan: &KernelPlan, link_name: impl Fn(u32) -> String) -> Vec<String> {
    let routes = plan
        .routes
        .iter()
        .filter_map(|(&(table, family), route)| routes::installed(table, family, route))
        .map(|route| route_command("default", &route, &link_name));
    let networks = plan.networks.iter().map(|(&to, &hop)| {
        let route = routes::network(to, hop, plan.networks_metric);
        route_command(&to.to_string(), &route, &link_name) + &format!(" metric {}", route.metric)
    });
    routes.chain(networks).chain(plan.rules.iter().map(|rule| rule_command(&rules::normal(rule)))).collect()
}

fn route_command(to: &str, route: &Installed, link_name: &impl Fn(u32) -> String) -> String {
    let mut command =
        format!("{} route add {to} table {} proto {ROUTE_PROTOCOL}", ip(route.family), route.table);
    let single = route.next_hops.len() == 1;
    for hop in &route.next_hops {
        if !single {
            command.push_str(" nexthop");
        }
        command.push_str(&next_hop(route.family, hop, &link_name(hop.index)));
        if !single {
            append(&mut command, format_args!(" weight {}", hop.weight));
        }
        if hop.onlink {
            command.push_str(" onlink");
        }
    }
    command
}

fn next_hop(family: Family, hop: &NextHop, device: &str) -> String {
    match hop.gateway {
        None => format!(" dev {device}"),
        Some(gateway @ IpAddr::V6(_)) if family != family_of(gateway) => {
            format!(" via inet6 {gateway} dev {device}")
        }
        Some(gateway) => format!(" via {gateway} dev {device}"),
    }
}

fn rule_command(rule: &Rule) -> String {
    let mut command = format!("{} rule add priority {}", ip(rule.family), rule.priority);
    match &rule.selector {
        Selector::All | Selector::AllButDefault => command.push_str(" from all"),
        Selector::Mark { value, mask } => {
            append(&mut command, format_args!(" from all fwmark {value:#x}/{mask:#x}"));
        }
        Selector::From(net) => append(&mut command, format_args!(" from {net}")),
        Selector::OutputDevice(name) => append(&mut command, format_args!(" from all oif {name}")),
    }
    append(&mut command, format_args!(" lookup {}", rule.table));
    if rule.selector == Selector::AllButDefault {
        command.push_str(" suppress_prefixlength 0");
    }
    append(&mut command, format_args!(" protocol {ROUTE_PROTOCOL}"));
    command
}

/// Always with the family, as `ip` would take it from the gateway, which may be of the other.
fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip -4",
        Family::V6 => "ip -6",
    }
}

fn append(command: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = command.write_fmt(text);
}
