//! The report as text.

use std::time::{Duration, SystemTime};

use super::{Daemon, DeviceAcceleration, Forced, Isp, LocalTraffic, Report, State};

/// The report for people: a table of the ISPs, one of the policies if there are any, then a line about the daemon. `now` is what ages are counted to.
#[must_use]
pub fn render(report: &Report, now: SystemTime) -> String {
    let header =
        ["ISP", "DEVICE", "STATE", "SHARE", "RTT/JITTER", "LOSS", "FLOWS", "FAST", "SINCE", "REASON"]
            .map(str::to_owned);
    let rows: Vec<_> = std::iter::once(header).chain(report.isps.iter().map(|isp| row(isp, now))).collect();
    let widths: [usize; 10] = std::array::from_fn(|column| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    let mut lines: Vec<_> = rows
        .iter()
        .map(|row| {
            let cells: Vec<_> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect();
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
            "daemon: not running; traffic is still balanced by what it left in the kernel".to_owned()
        }
    });
    lines.extend(fast_path(&report.acceleration));
    lines.push(local_traffic(&report.local_traffic));
    lines.extend(report.failed_scripts.iter().map(|failure| format!("script {failure}")));
    lines.extend(report.failed_announcements.iter().cloned());
    lines.join("\n") + "\n"
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
        (State::Up, Some(tier)) if isp.share <= 0.0 => format!("standby({tier})"),
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

/// Whole percents; but what is not nothing does not look like nothing.
pub(super) fn percent(percent: f64) -> String {
    if percent > 0.0 && percent < 0.5 { "<1%".to_owned() } else { format!("{percent:.0}%") }
}

/// Whole milliseconds, with a decimal where it says something.
fn milliseconds(ms: Option<f64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if ms < 9.95 => format!("{ms:.1}").trim_end_matches(".0").to_owned(),
        Some(ms) => format!("{ms:.0}"),
    }
}

/// An age in its two biggest units.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m"),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{DAY, isp, now, report};
    use super::*;

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
    }

    #[test]
    fn ages_have_two_units_at_most() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3599, "59m"),
            (3900, "1h05m"),
            (DAY, "1d00h"),
            (400 * DAY, "400d00h"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_state_that_begins_in_the_future_is_new() {
        let mut report = report();
        report.isps = vec![Isp { since: Some(now() + Duration::from_secs(9)), ..isp("A", "a") }];
        assert!(render(&report, now()).contains("  0s"));
    }

    #[test]
    fn numbers_are_as_exact_as_they_need_to_be() {
        for (ms, text) in
            [(0.04, "0"), (0.36, "0.4"), (2.0, "2"), (9.94, "9.9"), (9.96, "10"), (180.4, "180")]
        {
            assert_eq!(milliseconds(Some(ms)), text);
        }
        for (value, text) in [(0.0, "0%"), (0.2, "<1%"), (33.333, "33%"), (100.0, "100%")] {
            assert_eq!(percent(value), text);
        }
    }
}
