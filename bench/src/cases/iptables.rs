//! What Net::ISP::Balance 1.33 sets up: flows drawn by iptables, and the firewall of a home router.

use balance_lab::{Daemon, Family, Isp, Lab};

use super::Size;
use super::kernel::{forward, lan_prefix, mark, mark_rules};

/// Marks, rules, firewall and NAT, for IPv4 only.
pub(super) fn set_up(lab: &Lab, _: Size) -> anyhow::Result<Option<Daemon>> {
    forward(lab)?;
    mark_rules(lab)?;
    let lines = [filter(lab.isps()), mangle(lab.isps()), nat(lab.isps())].concat();
    lab.router().feed("iptables-restore", &[], &(lines.join("\n") + "\n"))?;
    Ok(None)
}

/// Dropped by default; out of the LAN, and what belongs to it, may pass.
fn filter(isps: &[Isp]) -> Vec<String> {
    let lan = lan_prefix(Family::V4);
    let mut lines = words(&["*filter", ":INPUT DROP [0:0]", ":FORWARD DROP [0:0]", ":OUTPUT DROP [0:0]"]);
    for (chain, prefix) in [
        ("DROPGEN", "GENERAL: "),
        ("DROPINVAL", "INVALID: "),
        ("DROPPERM", "ACCESS-DENIED: "),
        ("DROPSPOOF", "DROP-SPOOF: "),
        ("DROPFLOOD", "DROP-FLOOD: "),
    ] {
        lines.push(format!(":{chain} - [0:0]"));
        let limit = "-m limit --limit 1/minute -j LOG --log-level 4";
        lines.push(format!("-A {chain} {limit} --log-prefix \"{prefix}\""));
        lines.push(format!("-A {chain} -j DROP"));
    }
    lines.extend(words(&[
        "-A INPUT -i lo -j ACCEPT",
        "-A OUTPUT -o lo -j ACCEPT",
        "-A INPUT -d 127.0.0.0/8 -j DROPPERM",
        "-A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT",
        "-A FORWARD -m state --state ESTABLISHED,RELATED -j ACCEPT",
        "-A INPUT -p tcp --tcp-flags SYN,ACK ACK -j ACCEPT",
        "-A FORWARD -p tcp --tcp-flags SYN,ACK ACK -j ACCEPT",
        "-A FORWARD -p tcp --tcp-flags SYN,ACK,FIN,RST RST -j ACCEPT",
        "-A INPUT -p icmp --icmp-type echo-request -m limit --limit 1/s -j ACCEPT",
        "-A INPUT -p icmp --icmp-type echo-request -j DROPFLOOD",
    ]));
    lines.push(format!("-A INPUT -i lan0 -s {lan} -j ACCEPT"));
    lines.push(format!("-A OUTPUT -o lan0 -d {lan} -j ACCEPT"));
    lines.push("-A OUTPUT -o lan0 -d 255.255.255.255/32 -j ACCEPT".to_owned());
    lines.push(format!("-A OUTPUT -p udp -s {lan} -j ACCEPT"));
    for isp in isps {
        lines.push(format!("-A FORWARD -i lan0 -o {} -s {lan} -j ACCEPT", isp.device()));
        lines.push(format!("-A OUTPUT -o {} -j ACCEPT", isp.device()));
    }
    lines.extend(words(&[
        "-A OUTPUT -j DROPSPOOF",
        "-A INPUT -j DROPGEN",
        "-A FORWARD -j DROPGEN",
        "COMMIT",
    ]));
    lines
}

/// A new flow draws its ISP and stores it; the packets of one that was answered get it back. One that was not is new
/// with every packet, and draws again.
fn mangle(isps: &[Isp]) -> Vec<String> {
    let mut lines = words(&["*mangle"]);
    for (index, _) in isps.iter().enumerate() {
        lines.push(format!(":MARK-{index} - [0:0]"));
        lines.push(format!("-A MARK-{index} -j MARK --set-mark {}", mark(index)));
        lines.push(format!("-A MARK-{index} -j CONNMARK --save-mark"));
    }
    // Each later ISP takes its share from those before.
    for (index, _) in isps.iter().enumerate() {
        let probability = 1.0 / (index + 1) as f64;
        lines.push(format!(
            "-A PREROUTING -i lan0 -m conntrack --ctstate NEW \
             -m statistic --mode random --probability {probability:.9} -j MARK-{index}"
        ));
    }
    let restore = "-m conntrack --ctstate ESTABLISHED,RELATED -j CONNMARK --restore-mark";
    lines.push(format!("-A PREROUTING -i lan0 {restore}"));
    for (index, isp) in isps.iter().enumerate() {
        let device = isp.device();
        lines.push(format!("-A PREROUTING -i {device} -m conntrack --ctstate NEW -j MARK-{index}"));
        lines.push(format!("-A PREROUTING -i {device} {restore}"));
    }
    lines.push("COMMIT".to_owned());
    lines
}

fn nat(isps: &[Isp]) -> Vec<String> {
    let masquerade = isps.iter().map(|isp| format!("-A POSTROUTING -o {} -j MASQUERADE", isp.device()));
    words(&["*nat"]).into_iter().chain(masquerade).chain(words(&["COMMIT"])).collect()
}

fn words(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|&line| line.to_owned()).collect()
}
