//! The explanation for people and for programs.

use std::fmt::Write as _;

use balance_common::BUCKETS;

use super::nat::Nat;
use super::{Explanation, FlowTold, RouteTold};

/// For people: a line for each step, and the conclusion last.
#[must_use]
pub fn render(told: &Explanation) -> String {
    let mut text = String::new();
    let mut line = |label: &str, said: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{label:<8}{said}");
    };
    line("flow", flow(&told.flow));
    line("rule", rule(told));
    if let Some(policy) = &told.policy {
        let mode = policy.mode.as_ref().map_or_else(String::new, |mode| format!(", {mode}"));
        let shares = policy.shares.iter().map(|(isp, share)| format!("{isp} {:.0}%", share * 100.0));
        let all: Vec<String> =
            shares.chain(policy.idle.iter().map(|(isp, why)| format!("{isp} {why}"))).collect();
        line("policy", format!("{}{mode}, sticky by {}: {}", policy.name, policy.sticky, all.join(", ")));
    }
    if let Some(bucket) = &told.bucket {
        let isp = bucket.isp.as_deref().unwrap_or("nobody");
        let home = bucket.home.as_ref().map_or_else(String::new, |home| format!(", otherwise {home}'s"));
        line("bucket", format!("{} of {BUCKETS}: {isp}'s{home}", bucket.number));
    }
    let isps = told.isps.iter().map(|isp| {
        let reason = isp.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        format!("{} {}{reason}", isp.name, isp.state)
    });
    line("ISPs", isps.collect::<Vec<_>>().join(", "));
    line("mark", format!("{:#x} of {:#x}", told.mark & told.mark_mask, told.mark_mask));
    if let Some(live) = &told.live {
        let isp = live.isp.as_deref().unwrap_or("no ISP");
        let who = if live.is_answer { ", begun by the other end" } else { "" };
        line("live", format!("a flow of {isp}{who}, seen as {}, sent to {}", live.seen_from, live.sent_to));
    }
    if let Some(way) = &told.route {
        line("route", route(way));
    }
    line("NAT", nat(&told.nat));
    for note in &told.notes {
        line("note", note.clone());
    }
    text + "\n" + &told.conclusion + "\n"
}

/// For programs.
pub fn render_json(told: &Explanation) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(told).map(|json| json + "\n")
}

fn flow(flow: &FlowTold) -> String {
    let end = |address: String, port: Option<u16>| match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address,
    };
    let from =
        flow.from.map_or_else(|| "a socket".to_owned(), |from| end(from.to_string(), flow.source_port));
    let dscp = if flow.dscp == 0 { String::new() } else { format!(", DSCP {}", flow.dscp) };
    let to = end(flow.to.to_string(), flow.port);
    let lan = match &flow.device {
        None => "of this machine".to_owned(),
        Some(device) if *device == flow.lan => format!("from {device}"),
        Some(device) => format!("from {} ({device})", flow.lan),
    };
    format!("{} {from} to {to}{dscp}, {lan}", flow.protocol)
}

fn rule(told: &Explanation) -> String {
    match &told.rule {
        Some(rule) => {
            let line = rule.line.map_or_else(String::new, |line| format!(" (line {line})"));
            let text = rule.text.as_ref().map_or_else(String::new, |text| format!(": {text}"));
            format!("{}{line}{text}", rule.number)
        }
        None if matches!(told.verdict, "local" | "unreadable" | "left alone") => "not asked".to_owned(),
        None => "none is about it".to_owned(),
    }
}

fn route(route: &RouteTold) -> String {
    if let Some(error) = &route.error {
        return format!("none: {error}");
    }
    let table = route.table.map_or_else(String::new, |table| format!("table {table}"));
    let name = route.table_name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
    let gateway = route.gateway.map_or_else(String::new, |gateway| format!(" to {gateway}"));
    let device = route.device.as_deref().unwrap_or("no device");
    format!("{table}{name}: by {device}{gateway}")
}

fn nat(nat: &Nat) -> String {
    match nat {
        Nat::None => "none".to_owned(),
        Nat::Masquerade { seen_as: Some(address) } => format!("masqueraded as {address}"),
        Nat::Masquerade { seen_as: None } => "masqueraded".to_owned(),
        Nat::Prefix { seen_as } => format!("prefix translated: {seen_as}"),
        Nat::Live { seen_as, sent_to } => format!("as when it began: seen as {seen_as}, sent to {sent_to}"),
        Nat::Forward { sent_to } => format!("forwarded to {sent_to}"),
        Nat::Unknown => "not known; the daemon would know".to_owned(),
    }
}
