//! What several tests ask of a lab whose daemon runs.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Daemon, Dump, Family, Lab, Transport, open_flows, status, wait_until};
use anyhow::Context;
use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::Value;

/// How long what happens at once may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(3);
/// The device and direction of every hook that has one of our programs.
pub const HOOKS: [(&str, &str); 5] = [
    ("lan0", "ingress"),
    ("cable0", "ingress"),
    ("cable0", "egress"),
    ("dsl0", "ingress"),
    ("dsl0", "egress"),
];

/// A lab whose daemon balances, with these lines at the top of its config.
///
/// # Errors
/// When the lab or the daemon fails, or an ISP is not up in time.
pub fn balancing(top: &str) -> anyhow::Result<(Lab, Daemon)> {
    let lab = Lab::new()?;
    lab.write_config(&format!("{top}\n{}", lab.config()))?;
    let daemon = lab.start_up()?;
    Ok((lab, daemon))
}

/// What `status` says of a field of each ISP.
#[must_use]
pub fn field(status: &Value, field: &str) -> BTreeMap<String, Value> {
    ["CABLE", "DSL"]
        .map(|name| (name.to_owned(), status::isp(status, name).get(field).cloned().unwrap_or_default()))
        .into()
}

/// By which ISP so many new UDP flows go; all must be answered.
///
/// # Errors
/// When one is not, or by an address that is of no ISP.
pub fn split(lab: &Lab, count: usize, family: Family) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut flows = open_flows(lab.lan(), count, Transport::Udp, family)?;
    let mut split = BTreeMap::new();
    for answer in flows.ask(SOON) {
        let source = answer.context("a flow was not answered")?;
        let isp = lab.isp_of(source).with_context(|| format!("{source} is not of an ISP"))?;
        *split.entry(isp.name().to_owned()).or_default() += 1;
    }
    Ok(split)
}

/// How many tcx programs and how many of our clsact filters there are on a device's side.
///
/// # Errors
/// When a tool fails.
pub fn programs(lab: &Lab, device: &str, side: &str) -> anyhow::Result<(usize, usize)> {
    let attach = if side == "ingress" { TcAttachType::Ingress } else { TcAttachType::Egress };
    let tcx = lab.router().run(|| SchedClassifier::query_tcx(device, attach).map_or(0, |(_, all)| all.len()));
    let filters = lab.router().sh(&format!("tc filter show dev {device} {side} 2>/dev/null || true"))?;
    Ok((tcx, filters.lines().filter(|line| line.contains("handle 0xba1")).count()))
}

/// What differs between a dump and the router now, once that does not change any more.
#[must_use]
pub fn changes(lab: &Lab, before: &Dump) -> Vec<String> {
    let mut diff = Vec::new();
    // That it stays different is what this is to find out.
    let _ = wait_until(SOON, "the router being as before", || {
        diff =
            Dump::take(lab.router()).map_or_else(|error| vec![format!("{error:#}")], |now| before.diff(&now));
        diff.is_empty()
    });
    diff
}
