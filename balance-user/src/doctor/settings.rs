//! Kernel settings, conntrack's table, and MTUs.

use super::{Facts, Finding, note, problem, warning};
use crate::config::{Acceleration, ClampMss, Config};

/// The least MTU of IPv6 (RFC 8200, 5).
const LEAST_MTU: u32 = 1280;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = conntrack(facts);
    if facts.sysctl("net/core/bpf_jit_enable") == Some(0) {
        let what = "eBPF programs are interpreted, which is ten times slower";
        findings.push(warning("sysctl", what, set("net.core.bpf_jit_enable", "1")));
    }
    if let Some(config) = facts.good_config() {
        if facts.balances {
            findings.extend(routing(facts, config));
            findings.extend(fast_path(facts, config));
        }
        findings.extend(mtus(facts, config));
    }
    findings
}

/// What the daemon has set, and somebody may have set back.
fn routing(facts: &Facts, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let all = facts.sysctl("net/ipv4/conf/all/rp_filter").unwrap_or(0);
    let isps = || config.isps.iter().map(|isp| isp.device.as_str());
    for device in isps() {
        // The kernel takes the greater of the two.
        let own = facts.sysctl(&format!("net/ipv4/conf/{device}/rp_filter"));
        if own.is_some_and(|own| own.max(all) == 1) {
            let what = format!(
                "{device} drops answers that come in by an ISP which the main table would not choose"
            );
            findings.push(problem("sysctl", what, set(&format!("net/ipv4/conf/{device}/rp_filter"), "2")));
        }
        let heard = facts.sysctl(&format!("net/ipv6/conf/{device}/accept_ra"));
        if heard == Some(1) && facts.sysctl("net/ipv6/conf/all/forwarding") == Some(1) {
            let what =
                format!("router advertisements on {device} are ignored, as this machine forwards IPv6");
            findings.push(warning("sysctl", what, set(&format!("net/ipv6/conf/{device}/accept_ra"), "2")));
        }
    }
    if !config.lans.is_empty() {
        for device in isps().chain(config.lans.iter().map(|lan| lan.device.as_str())) {
            let key = format!("net/ipv4/conf/{device}/forwarding");
            if facts.sysctl(&key) == Some(0) {
                let what = format!("IPv4 packets from {device} are not forwarded");
                findings.push(problem("sysctl", what, set(&key, "1")));
            }
        }
        if facts.sysctl("net/ipv6/conf/all/forwarding") == Some(0) {
            let what = "IPv6 packets are not forwarded";
            findings.push(problem("sysctl", what, set("net.ipv6.conf.all.forwarding", "1")));
        }
    }
    findings
}

/// What conntrack must put up with where packets go past it.
fn fast_path(facts: &Facts, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.acceleration == Acceleration::Off {
        return findings;
    }
    if facts.sysctl("net/netfilter/nf_conntrack_tcp_be_liberal") == Some(0) {
        let what = "conntrack takes packets of TCP connections for invalid that have been on the fast path";
        findings.push(problem("conntrack", what, set("net.netfilter.nf_conntrack_tcp_be_liberal", "1")));
    }
    let timeout = |name: &str| facts.sysctl(&format!("net/netfilter/nf_conntrack_tcp_timeout_{name}"));
    if let Some(established) = timeout("established") {
        for name in ["unacknowledged", "max_retrans"] {
            if timeout(name).is_some_and(|seconds| seconds < established) {
                let key = format!("net.netfilter.nf_conntrack_tcp_timeout_{name}");
                let what = format!("idle connections of the fast path are forgotten early ({key})");
                findings.push(warning("conntrack", what, set(&key, &established.to_string())));
            }
        }
    }
    findings
}

fn conntrack(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let count = facts.sysctl("net/netfilter/nf_conntrack_count");
    let max = facts.sysctl("net/netfilter/nf_conntrack_max").filter(|max| *max > 0);
    if let (Some(count), Some(max)) = (count, max) {
        let percent = count.saturating_mul(100) / max;
        let what = format!("conntrack's table is full to {percent} % ({count} of {max})");
        let fix = set("net.netfilter.nf_conntrack_max", &max.saturating_mul(2).to_string());
        match percent {
            90.. => {
                findings.push(problem("conntrack", what + ": new flows are dropped when it is full", fix));
            }
            70.. => findings.push(warning("conntrack", what, fix)),
            _ => {}
        }
    }
    for (key, what) in [("nf_conntrack_acct", "bytes"), ("nf_conntrack_timestamp", "ages")] {
        if facts.sysctl(&format!("net/netfilter/{key}")) == Some(0) {
            let fix = Some(set(&format!("net.netfilter.{key}"), "1"));
            findings.push(Finding {
                fix,
                ..note("conntrack", format!("`flows` cannot tell the {what} of flows"))
            });
        }
    }
    findings
}

fn mtus(facts: &Facts, config: &Config) -> Vec<Finding> {
    let mtu = |device: &str| facts.mtus.get(device).copied();
    let lans = || config.lans.iter().filter_map(|lan| Some((lan.device.as_str(), mtu(&lan.device)?)));
    let largest = lans().map(|(_, mtu)| mtu).max();
    let mut findings = Vec::new();
    for isp in &config.isps {
        let Some(own) = mtu(&isp.device) else { continue };
        let device = &isp.device;
        if own < LEAST_MTU {
            let what = format!("{device} has an MTU of {own}, and IPv6 needs {LEAST_MTU}");
            findings.push(warning("mtu", what, format!("ip link set {device} mtu {LEAST_MTU}")));
        } else if config.firewall.clamp_mss == ClampMss::Off && largest.is_some_and(|largest| own < largest) {
            let what = format!(
                "{device} has an MTU of {own}, less than the LANs, and clamp_mss is off: large pages may hang"
            );
            findings.push(warning("mtu", what, "clamp_mss = \"auto\" in [firewall]"));
        }
    }
    findings
}

fn set(key: &str, value: &str) -> String {
    format!("sysctl -w {key}={value}")
}
