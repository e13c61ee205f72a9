//! What `status` tells: one structure, from which both the JSON and the text are made.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// The state of an instance. This is the JSON of `status --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Which instance this is.
    pub instance: String,
    /// Whether its daemon is there.
    pub daemon: Daemon,
    /// The ISPs, in the order of the config.
    pub isps: Vec<Isp>,
}

/// Whether the daemon is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// Its process id; none if it is not running.
    pub pid: Option<u32>,
    /// Whether it answers.
    pub running: bool,
}

/// One ISP. `None`, null in JSON, is what is not known, be it that only the daemon knows and is not running.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Isp {
    /// Its name.
    pub name: String,
    /// Its device.
    pub device: String,
    /// Whether it works.
    pub state: State,
    /// What `up` or `down` have forced it to be.
    pub forced: Option<Forced>,
    /// Its weight against those of the others.
    pub weight: Option<u16>,
    /// Its tier.
    pub tier: Option<u8>,
    /// Its part of the new flows as of now, 0 to 1.
    #[serde(serialize_with = "rounded")]
    pub share: f64,
    /// Its IPv4 gateway, or else its IPv6 gateway; none on a point-to-point device.
    pub gateway: Option<String>,
    /// The round trip of its probes, in milliseconds.
    #[serde(serialize_with = "rounded_option")]
    pub rtt_ms: Option<f64>,
    /// How much that varies, in milliseconds.
    #[serde(serialize_with = "rounded_option")]
    pub jitter_ms: Option<f64>,
    /// How many of its recent probes were lost, 0 to 100.
    #[serde(serialize_with = "rounded_option")]
    pub loss_percent: Option<f64>,
    /// How many flows were steered to it.
    pub flows: Option<u64>,
    /// Packets sent by it.
    pub tx_packets: Option<u64>,
    /// Bytes sent by it.
    pub tx_bytes: Option<u64>,
    /// Packets received by it.
    pub rx_packets: Option<u64>,
    /// Bytes received by it.
    pub rx_bytes: Option<u64>,
    /// Since when it has been in this state; RFC 3339 in UTC, to the second.
    #[serde(with = "rfc3339")]
    pub since: Option<SystemTime>,
    /// Why it is in this state, if there is anything to say.
    pub reason: Option<String>,
}

/// Whether an ISP works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not known yet.
    Unknown,
    /// It works.
    Up,
    /// It worked, and there is doubt.
    Suspect,
    /// It does not work.
    Down,
}

/// What an ISP is forced to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forced {
    /// Used, whatever its probes say.
    Up,
    /// Not used, whatever its probes say.
    Down,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        })
    }
}

/// The report for people: a table of the ISPs, then a line about the daemon. `now` is what ages are counted to.
#[must_use]
pub fn render(report: &Report, now: SystemTime) -> String {
    let header = ["ISP", "DEVICE", "STATE", "SHARE", "RTT/JITTER", "LOSS", "FLOWS", "SINCE", "REASON"]
        .map(str::to_owned);
    let rows: Vec<_> = std::iter::once(header).chain(report.isps.iter().map(|isp| row(isp, now))).collect();
    let widths: [usize; 9] = std::array::from_fn(|column| {
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
    lines.push(match report.daemon {
        Daemon { running: true, pid: Some(pid) } => format!("daemon: running, pid {pid}"),
        Daemon { running: true, pid: None } => "daemon: running".to_owned(),
        Daemon { running: false, .. } => {
            "daemon: not running; traffic is still balanced by what it left in the kernel".to_owned()
        }
    });
    lines.join("\n") + "\n"
}

/// The report for scripts: a line for each ISP, its name and its state.
#[must_use]
pub fn render_short(report: &Report) -> String {
    report.isps.iter().flat_map(|isp| [isp.name.clone(), format!(" {}\n", isp.state)]).collect()
}

/// The report for programs.
pub fn render_json(report: &Report) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(report).map(|json| json + "\n")
}

fn row(isp: &Isp, now: SystemTime) -> [String; 9] {
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
        isp.since.map_or_else(unknown, |since| age(now.duration_since(since).unwrap_or_default())),
        isp.reason.clone().unwrap_or_default(),
    ]
}

/// The state in words: also whether it is forced, and whether a working ISP waits in its tier for lower ones to fail.
fn state(isp: &Isp) -> String {
    let state = match (isp.state, isp.tier) {
        (State::Up, Some(tier)) if isp.share <= 0.0 => format!("standby({tier})"),
        (state, _) => state.to_string(),
    };
    match (isp.forced, isp.state) {
        (None, _) => state,
        // Forced, but so far it is not: the device may be missing.
        (Some(Forced::Up), State::Down) => format!("{state} (forced up)"),
        (Some(Forced::Down), State::Up | State::Suspect) => format!("{state} (forced down)"),
        (Some(_), _) => format!("{state} (forced)"),
    }
}

/// Whole percents; but what is not nothing does not look like nothing.
fn percent(percent: f64) -> String {
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn rounded<S: serde::Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((number * 1e4).round() / 1e4)
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn rounded_option<S: serde::Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => rounded(number, serializer),
        None => serializer.serialize_none(),
    }
}

/// Times as RFC 3339 in UTC, to the second.
mod rfc3339 {
    use std::time::{SystemTime, UNIX_EPOCH};

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// The first second of the year 10000, which the format has no digits for.
    const END: u64 = 253_402_300_800;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let expressible =
            |time: &SystemTime| time.duration_since(UNIX_EPOCH).is_ok_and(|since| since.as_secs() < END);
        match time.filter(expressible) {
            Some(time) => serializer.collect_str(&humantime::format_rfc3339_seconds(time)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| humantime::parse_rfc3339(&text).map_err(Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * DAY)
    }

    fn isp(name: &str, device: &str) -> Isp {
        Isp {
            name: name.to_owned(),
            device: device.to_owned(),
            state: State::Up,
            forced: None,
            weight: Some(1),
            tier: Some(1),
            share: 0.5,
            gateway: None,
            rtt_ms: None,
            jitter_ms: None,
            loss_percent: None,
            flows: None,
            tx_packets: None,
            tx_bytes: None,
            rx_packets: None,
            rx_bytes: None,
            since: None,
            reason: None,
        }
    }

    fn report() -> Report {
        Report {
            instance: "main".to_owned(),
            daemon: Daemon { pid: Some(123), running: true },
            isps: vec![
                Isp {
                    weight: Some(3),
                    share: 0.75,
                    gateway: Some("192.0.2.1".to_owned()),
                    rtt_ms: Some(12.4),
                    jitter_ms: Some(2.04),
                    loss_percent: Some(0.0),
                    flows: Some(412),
                    since: Some(now() - Duration::from_secs(3 * DAY + 2 * 3600)),
                    ..isp("CABLE", "eth0")
                },
                Isp {
                    state: State::Suspect,
                    share: 0.25,
                    rtt_ms: Some(180.0),
                    jitter_ms: Some(40.0),
                    loss_percent: Some(8.3),
                    flows: Some(97),
                    since: Some(now() - Duration::from_mins(4)),
                    reason: Some("1.1.1.1 does not answer".to_owned()),
                    ..isp("DSL", "ppp0")
                },
                Isp { tier: Some(2), share: 0.0, ..isp("LTE", "wwan0") },
            ],
        }
    }

    #[test]
    fn the_table_is_the_one_that_users_like() {
        let expected = "\
ISP    DEVICE  STATE       SHARE  RTT/JITTER  LOSS  FLOWS  SINCE  REASON
CABLE  eth0    up          75%    12/2 ms     0%    412    3d02h
DSL    ppp0    suspect     25%    180/40 ms   8%    97     4m     1.1.1.1 does not answer
LTE    wwan0   standby(2)  0%     -           -     -      -

daemon: running, pid 123
";
        assert_eq!(render(&report(), now()), expected);
    }

    #[test]
    fn without_the_daemon_it_says_so() {
        let report = Report { daemon: Daemon { pid: None, running: false }, ..report() };
        let text = render(&report, now());
        assert!(
            text.ends_with(
                "\n\ndaemon: not running; traffic is still balanced by what it left in the kernel\n"
            )
        );
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

    #[test]
    fn the_json_has_every_field_in_order_and_null_for_what_is_not_known() {
        let mut report = report();
        report.isps.truncate(1);
        report.isps[0].share = 1.0 / 3.0;
        report.isps[0].tx_bytes = Some(u64::MAX);
        let expected = r#"{"instance":"main","daemon":{"pid":123,"running":true},"isps":[{"name":"CABLE","device":"eth0","state":"up","forced":null,"weight":3,"tier":1,"share":0.3333,"gateway":"192.0.2.1","rtt_ms":12.4,"jitter_ms":2.04,"loss_percent":0.0,"flows":412,"tx_packets":null,"tx_bytes":18446744073709551615,"rx_packets":null,"rx_bytes":null,"since":"2024-10-00","reason":null}]}"#;
        let since = humantime::format_rfc3339_seconds(report.isps[0].since.unwrap()).to_string();
        assert!(since.ends_with("T22:00:00Z"), "{since}");
        assert_eq!(serde_json::to_string(&report).unwrap(), expected.replace("2024-10-00", &since));
    }

    #[test]
    fn a_report_survives_the_way_through_json() {
        let json = render_json(&report()).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report());
    }

    #[test]
    fn times_that_rfc_3339_cannot_say_are_null() {
        for time in
            [SystemTime::UNIX_EPOCH - Duration::from_secs(1), now() + Duration::from_hours(100_000_000)]
        {
            let mut report = report();
            report.isps[0].since = Some(time);
            assert!(render_json(&report).unwrap().contains(r#""since": null"#));
        }
    }
}
