//! What Linux can do by itself.

use std::fmt::Write as _;
use std::net::IpAddr;

use balance_lab::{Daemon, Family, Isp, Lab};

use super::Size;

/// Forwarding to one ISP: no NAT, no conntrack, no rule.
pub(super) fn plain(lab: &Lab, _: Size) -> anyhow::Result<Option<Daemon>> {
    forward(lab)?;
    Ok(None)
}

/// One ISP, as in most homes.
pub(super) fn nat(lab: &Lab, size: Size) -> anyhow::Result<Option<Daemon>> {
    plain(lab, size)?;
    masquerade(lab)?;
    Ok(None)
}

/// One route with all ISPs; flows are spread by a hash of addresses and ports.
pub(super) fn multipath(lab: &Lab, _: Size) -> anyhow::Result<Option<Daemon>> {
    forward(lab)?;
    lab.router().sysctls(&[
        ("net.ipv4.fib_multipath_hash_policy", "1"),
        ("net.ipv6.fib_multipath_hash_policy", "1"),
    ])?;
    let hops = |family| {
        lab.isps().iter().fold(String::new(), |mut hops, isp| {
            // Writing to a string cannot fail.
            let _ = write!(hops, " nexthop via {} dev {}", gateway(isp, family), isp.device());
            hops
        })
    };
    lab.router().ip(&[
        format!("route add default{}", hops(Family::V4)),
        format!("route add ::/0{}", hops(Family::V6)),
    ])?;
    masquerade(lab)?;
    Ok(None)
}

/// What one would write with nft: the flow's first packet draws its ISP, conntrack remembers it, and rules for marks
/// lead to the ISPs' tables.
pub(super) fn nft(lab: &Lab, _: Size) -> anyhow::Result<Option<Daemon>> {
    forward(lab)?;
    mark_rules(lab)?;
    let count = lab.isps().len();
    let draw: Vec<String> = (0..count).map(|index| format!("{index} : {:#x}", mark(index))).collect();
    let inbound: String = lab.isps().iter().enumerate().fold(String::new(), |mut lines, (index, isp)| {
        let _ = writeln!(lines, "iifname {} ct state new ct mark set {:#x}", isp.device(), mark(index));
        lines
    });
    let script = format!(
        "table inet balance {{
            chain prerouting {{
                type filter hook prerouting priority mangle;
                ct mark != 0 meta mark set ct mark accept
                {inbound}
                iifname lan0 meta mark set numgen random mod {count} map {{ {} }} ct mark set meta mark
            }}
        }}",
        draw.join(", ")
    );
    lab.router().feed("nft", &["-f", "-"], &script)?;
    masquerade(lab)?;
    Ok(None)
}

/// The mark of the ISP at this position.
pub(super) fn mark(index: usize) -> usize {
    index + 1
}

/// A rule for each ISP's mark, and the table that it leads to.
pub(super) fn mark_rules(lab: &Lab) -> anyhow::Result<()> {
    for family in [Family::V4, Family::V6] {
        let mut lines = Vec::new();
        for (index, isp) in lab.isps().iter().enumerate() {
            let (table, mark) = (100 + index, mark(index));
            // Answers to the LAN carry the mark too.
            lines.push(format!("route add {} dev lan0 table {table}", lan_prefix(family)));
            lines.push(format!(
                "route add default via {} dev {} table {table}",
                gateway(isp, family),
                isp.device()
            ));
            lines.push(format!("rule add fwmark {mark} table {table}"));
            lines.push(format!("rule add from {} table {table}", isp.address(family)));
        }
        let option = if family == Family::V4 { "-4" } else { "-6" };
        lab.router().feed("ip", &[option, "-batch", "-"], &lines.join("\n"))?;
    }
    Ok(())
}

/// An ISP's address, where the router sends what goes by it.
pub(crate) fn gateway(isp: &Isp, family: Family) -> IpAddr {
    match family {
        Family::V4 => isp.gateway_v4().into(),
        Family::V6 => isp.gateway_v6().into(),
    }
}

/// The LAN of a lab.
pub(crate) fn lan_prefix(family: Family) -> &'static str {
    match family {
        Family::V4 => "192.168.1.0/24",
        Family::V6 => "fd00:1::/64",
    }
}

/// Lets the router forward.
pub(super) fn forward(lab: &Lab) -> anyhow::Result<()> {
    lab.router().sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])
}

fn masquerade(lab: &Lab) -> anyhow::Result<()> {
    let devices: Vec<String> = lab.isps().iter().map(Isp::device).collect();
    let script = format!(
        "table inet nat {{
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                oifname {{ {} }} masquerade
            }}
        }}",
        devices.join(", ")
    );
    lab.router().feed("nft", &["-f", "-"], &script)?;
    Ok(())
}
