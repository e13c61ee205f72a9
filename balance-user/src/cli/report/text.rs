//! The report as text.

use std::time::SystemTime;

use anstyle::{AnsiColor, Style};

use super::super::figures::{age, milliseconds, percent};
use super::policies::wrapped;
use super::{Daemon, DeviceAcceleration, Forced, Isp, LocalTraffic, Report, State};

/// Where the state is among the columns.
const STATE: usize = 2;

const BAD: Style = AnsiColor::Red.on_default().bold();
const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
const GOOD: Style = AnsiColor::Green.on_default();

/// The report for people, with colours: a table of the ISPs, one of the policies if there are any, then a line about the daemon.
/// `now` is what ages are counted to. If it would not fit in `width`, the reasons are below the ISPs and not beside them.
#[must_use]
pub fn render(report: &Report, now: SystemTime, width: Option<usize>) -> String {
    let mut lines = isps(&report.isps, now, width);
    lines.push(String::new());
    let policies = super::policies::render(&report.policies);
    if !policies.is_empty() {
        lines.extend(policies);
        lines.push(String::new());
    }
    let metered = super::metered::render(&report.isps);
    if !metered.is_empty() {
        lines.extend(metered);
        lines.push(String::new());
    }
    lines.push(match report.daemon {
        Daemon { running: true, pid: Some(pid) } => format!("daemon: running, pid {pid}"),
        Daemon { running: true, pid: None } => "daemon: running".to_owned(),
        Daemon { running: false, .. } => {
            painted(BAD, "daemon: not running; traffic is still balanced by what it left in the kernel")
        }
    });
    lines.extend(fast_path(&report.acceleration));
    lines.push(local_traffic(&report.local_traffic));
    let failures = report.failed_scripts.iter().map(|failure| format!("script {failure}"));
    let failures = failures.chain(report.failed_announcements.iter().cloned());
    lines.extend(failures.map(|failure| painted(DOUBTFUL, &failure)));
    lines.join("\n") + "\n"
}

/// The table of the ISPs.
fn isps(isps: &[Isp], now: SystemTime, width: Option<usize>) -> Vec<String> {
    let header =
        ["ISP", "DEVICE", "STATE", "SHARE", "RTT/JITTER", "LOSS", "FLOWS", "FAST", "SINCE", "REASON"]
            .map(str::to_owned);
    let rows: Vec<_> = std::iter::once(header).chain(isps.iter().map(|isp| row(isp, now))).collect();
    let widths: [usize; 10] = std::array::from_fn(|column| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    let needed = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
    let narrow = width.filter(|&width| width < needed);
    let styles = std::iter::once(None).chain(isps.iter().map(|isp| Some(style(isp))));
    let lines = rows.iter().zip(styles).flat_map(|(row, style)| {
        let columns = if narrow.is_some() { row.len() - 1 } else { row.len() };
        let mut line = String::new();
        for (place, (cell, width)) in row.iter().zip(widths).take(columns).enumerate() {
            let gap = " ".repeat(width - cell.chars().count() + 2);
            let style = style.filter(|_| place == STATE).unwrap_or_default();
            line.extend([painted(style, cell), gap]);
        }
        let line = line.trim_end();
        let reason = row.last().filter(|reason| style.is_some() && !reason.is_empty());
        let below = narrow.zip(reason).map(|(width, reason)| {
            let words: Vec<_> = reason.split_whitespace().map(str::to_owned).collect();
            wrapped("  ", &words, width)
        });
        std::iter::once(if style.is_some() { line.to_owned() } else { painted(Style::new().bold(), line) })
            .chain(below.unwrap_or_default())
            .collect::<Vec<_>>()
    });
    lines.collect()
}

fn style(isp: &Isp) -> Style {
    match (isp.state, isp.forced) {
        (State::Down | State::LongDown | State::Held, _) => BAD,
        (State::Unknown | State::Suspect | State::Degraded, _) | (_, Some(Forced::Down)) => DOUBTFUL,
        (State::Up, _) => GOOD,
    }
}

fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Which devices forward known flows by themselves; and of the others, why not.
fn fast_path(devices: &[DeviceAcceleration]) -> Vec<String> {
    let of = |kind: &str| -> Vec<&DeviceAcceleration> {
        devices.iter().filter(|device| device.kind == kind).collect()
    };
    let listed = |kind: &str| {
        let names: Vec<_> = of(kind).iter().map(|device| device.device.as_str()).collect();
        (!names.is_empty()).then(|| format!("{kind} on {}", names.join(", ")))
    };
    let kinds: Vec<_> = ["xdp", "tc", "off"].into_iter().filter_map(listed).collect();
    let reasons = ["xdp", "tc", "off"].into_iter().flat_map(of);
    let reasons = reasons.filter_map(|device| device.reason.as_ref().map(|reason| format!("  {reason}")));
    if kinds.is_empty() {
        return Vec::new();
    }
    std::iter::once(format!("fast path: {}", kinds.join("; "))).chain(reasons).collect()
}

/// Who decides about what this machine sends itself; and why nobody better.
fn local_traffic(local: &LocalTraffic) -> String {
    match (local.kind.as_str(), &local.reason) {
        ("sockets", _) => "local traffic: each socket is given its ISP".to_owned(),
        (_, None) => "local traffic: by the weighted default route".to_owned(),
        (_, Some(reason)) => format!("local traffic: by the weighted default route ({reason})"),
    }
}

/// The report for scripts: a line for each ISP, its name and its state.
#[must_use]
pub fn render_short(report: &Report) -> String {
    report.isps.iter().flat_map(|isp| [isp.name.clone(), format!(" {}\n", isp.state)]).collect()
}

fn row(isp: &Isp, now: SystemTime) -> [String; 10] {
    let unknown = || "-".to_owned();
    [
        isp.name.clone(),
        isp.device.clone(),
        state(isp),
        percent(isp.share * 100.0),
        match (isp.rtt_ms, isp.jitter_ms) {
            (None, None) => unknown(),
            (rtt, jitter) => format!("{}/{} ms", milliseconds(rtt), milliseconds(jitter)),
        },
        isp.loss_percent.map_or_else(unknown, percent),
        isp.flows.map_or_else(unknown, |flows| flows.to_string()),
        fast(isp).map_or_else(unknown, percent),
        isp.since.map_or_else(unknown, |since| age(now.duration_since(since).unwrap_or_default())),
        isp.reason.clone().unwrap_or_default(),
    ]
}

/// The state in words: also whether it is forced, and whether a working ISP waits in its tier for lower ones to fail.
fn state(isp: &Isp) -> String {
    let state = match (isp.state, isp.tier) {
        (State::Up, _) if isp.share <= 0.0 && super::metered::has_enough(isp) => "standby".to_owned(),
        (State::Up, Some(tier)) if isp.share <= 0.0 && isp.forced != Some(Forced::Down) => {
            format!("standby({tier})")
        }
        (state, _) => state.to_string(),
    };
    match (isp.forced, isp.state) {
        (None, _) => state,
        // Forced, but so far it is not: the device may be missing.
        (Some(Forced::Up), State::Down | State::LongDown | State::Held) => format!("{state} (forced up)"),
        (Some(Forced::Down), State::Up | State::Suspect | State::Degraded) => {
            format!("{state} (forced down)")
        }
        (Some(_), _) => format!("{state} (forced)"),
    }
}

/// How much of its packets went the fast path, in percent.
fn fast(isp: &Isp) -> Option<f64> {
    let (fast, slow) = (isp.fast_packets?, isp.slow_packets?);
    (fast + slow > 0).then(|| 100.0 * fast as f64 / (fast + slow) as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anstream::adapter::strip_str;

    use super::super::samples::{isp, now, report};
    use super::*;

    fn render(report: &Report, now: SystemTime) -> String {
        strip_str(&super::render(report, now, None)).to_string()
    }

    #[test]
    fn the_table_is_the_one_that_users_like() {
        let expected = "\
ISP    DEVICE  STATE       SHARE  RTT/JITTER  LOSS  FLOWS  FAST  SINCE  REASON
CABLE  eth0    up          75%    12/2 ms     0%    412    98%   3d02h
DSL    ppp0    suspect     25%    180/40 ms   8%    97     0%    4m     1.1.1.1 does not answer
LTE    wwan0   standby(2)  0%     -           -     -      -     -

daemon: running, pid 123
fast path: xdp on lan0, eth0; tc on ppp0; off on wwan0
  ppp0 has no Ethernet header
  another program (id 7, name mirror) is on wwan0's ingress
local traffic: by the weighted default route (cgroup2 is not mounted)
script /etc/balance/routes.d/10-vpn failed: exit status: 3
mail to root@localhost failed: no answer within 30s
";
        assert_eq!(render(&report(), now()), expected);
    }

    #[test]
    fn where_the_reasons_have_no_room_beside_they_are_below() {
        let reason = "no answer from 1.1.1.1, 9.9.9.9 for 5.2 s (192.0.2.1 says host unreachable)";
        let mut report = report();
        report.isps[1].reason = Some(reason.to_owned());
        let text = strip_str(&super::render(&report, now(), Some(75))).to_string();
        let expected = "\
ISP    DEVICE  STATE       SHARE  RTT/JITTER  LOSS  FLOWS  FAST  SINCE
CABLE  eth0    up          75%    12/2 ms     0%    412    98%   3d02h
DSL    ppp0    suspect     25%    180/40 ms   8%    97     0%    4m
  no answer from 1.1.1.1, 9.9.9.9 for 5.2 s (192.0.2.1 says host
  unreachable)
LTE    wwan0   standby(2)  0%     -           -     -      -     -

";
        assert!(text.starts_with(expected), "{text}");
        let wide = strip_str(&super::render(&report, now(), Some(200))).to_string();
        assert!(wide.contains(&format!("4m     {reason}\n")), "{wide}");
    }

    #[test]
    fn colours_say_at_a_glance_who_works() {
        let colour = |state, forced| style(&Isp { state, forced, ..isp("A", "a") });
        for (state, expected) in [
            (State::Up, GOOD),
            (State::Degraded, DOUBTFUL),
            (State::Suspect, DOUBTFUL),
            (State::Unknown, DOUBTFUL),
            (State::Down, BAD),
            (State::LongDown, BAD),
            (State::Held, BAD),
        ] {
            assert_eq!(colour(state, None), expected, "{state}");
            assert_eq!(colour(state, Some(Forced::Up)), expected, "{state}");
        }
        assert_eq!(colour(State::Up, Some(Forced::Down)), DOUBTFUL);
        let text = super::render(&report(), now(), None);
        assert!(text.contains("\u{1b}[32mup\u{1b}[0m          75%"), "{text:?}");
    }

    #[test]
    fn without_the_daemon_it_says_so() {
        let report = Report { daemon: Daemon { pid: None, running: false }, ..report() };
        let text = render(&report, now());
        let said =
            "\n\ndaemon: not running; traffic is still balanced by what it left in the kernel\nfast path: ";
        assert!(text.contains(said), "{text}");
    }

    #[test]
    fn policies_are_between_the_isps_and_the_rest() {
        let mut report = report();
        report.policies[0].sticky = "source".to_owned();
        let text = render(&report, now());
        let table = "

POLICY   STICKY  LAST RESORT  SHARE
default  source  main         CABLE 75%; IPv6: CABLE 67%

daemon: running, pid 123
";
        assert!(text.contains(table), "{text}");
    }

    #[test]
    fn the_short_form_is_names_and_states() {
        assert_eq!(render_short(&report()), "CABLE up\nDSL suspect\nLTE up\n");
    }

    #[test]
    fn states_say_when_they_are_forced_or_waiting() {
        let case = |state: State, forced: Option<Forced>, share: f64| {
            super::state(&Isp { state, forced, share, tier: Some(2), ..isp("A", "a") })
        };
        assert_eq!(case(State::Up, None, 0.5), "up");
        assert_eq!(case(State::Up, None, 0.0), "standby(2)");
        assert_eq!(case(State::Down, None, 0.0), "down");
        assert_eq!(case(State::Unknown, None, 0.0), "unknown");
        assert_eq!(case(State::Up, Some(Forced::Up), 0.5), "up (forced)");
        assert_eq!(case(State::Down, Some(Forced::Down), 0.0), "down (forced)");
        assert_eq!(case(State::Down, Some(Forced::Up), 0.0), "down (forced up)");
        assert_eq!(case(State::Up, Some(Forced::Down), 0.5), "up (forced down)");
        assert_eq!(case(State::Up, Some(Forced::Down), 0.0), "up (forced down)");
    }

    #[test]
    fn a_state_that_begins_in_the_future_is_new() {
        let mut report = report();
        report.isps = vec![Isp { since: Some(now() + Duration::from_secs(9)), ..isp("A", "a") }];
        assert!(render(&report, now()).contains("  0s"));
    }
}
