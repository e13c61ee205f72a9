//! What `status` tells: one structure, from which both the JSON and the text are made.

mod check;
mod metered;
mod policies;
mod text;

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::control::{DeviceAcceleration, LocalTraffic};
use crate::core::{QuotaStatus, SpillStatus};

pub use self::check::check;
pub(super) use self::policies::wrapped;
pub use self::policies::{Policy, Share};
pub use self::text::{render, render_short};
pub use crate::core::health::State;

/// The state of an instance. This is the JSON of `status --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Which instance this is.
    pub instance: String,
    /// Whether its daemon is there.
    pub daemon: Daemon,
    /// The ISPs, in the order of the config.
    pub isps: Vec<Isp>,
    /// The policies, the default one first.
    pub policies: Vec<Policy>,
    /// How the packets of known flows are forwarded that come in by each device.
    pub acceleration: Vec<DeviceAcceleration>,
    /// How the traffic of the machine itself is shared.
    pub local_traffic: LocalTraffic,
    /// What has gone wrong with scripts, a line each; only the daemon knows.
    pub failed_scripts: Vec<String>,
    /// Who does not take what is announced to them, a line each; only the daemon knows.
    pub failed_announcements: Vec<String>,
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
    /// How many flows go the fast path now.
    pub fast_flows: Option<u64>,
    /// Packets sent by it.
    pub tx_packets: Option<u64>,
    /// Bytes sent by it.
    pub tx_bytes: Option<u64>,
    /// Packets received by it.
    pub rx_packets: Option<u64>,
    /// Bytes received by it.
    pub rx_bytes: Option<u64>,
    /// Packets of these that went the fast path, past the kernel's.
    pub fast_packets: Option<u64>,
    /// Packets that went through the kernel.
    pub slow_packets: Option<u64>,
    /// SYN sent by it: TCP connections that were asked for, a repeated one again.
    pub syn_sent: Option<u64>,
    /// Answers to SYN received by it, be they refusals.
    pub syn_answered: Option<u64>,
    /// Milliseconds since something came in by it.
    pub received_ms_ago: Option<u64>,
    /// Since when it has been in this state; RFC 3339 in UTC, to the second.
    #[serde(with = "rfc3339")]
    pub since: Option<SystemTime>,
    /// Why it is in this state, if there is anything to say.
    pub reason: Option<String>,
    /// How it is with its quota, if it has one; only the daemon knows.
    pub quota: Option<QuotaStatus>,
    /// How full it is, where `spill_over` is set; only the daemon knows.
    pub spill_over: Option<SpillStatus>,
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

/// The report for programs.
pub fn render_json(report: &Report) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(report).map(|json| json + "\n")
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
pub(crate) mod samples {
    use std::time::Duration;

    use super::*;

    const DAY: u64 = 86_400;

    pub(crate) fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * DAY)
    }

    pub(crate) fn isp(name: &str, device: &str) -> Isp {
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
            fast_flows: None,
            tx_packets: None,
            tx_bytes: None,
            rx_packets: None,
            rx_bytes: None,
            fast_packets: None,
            slow_packets: None,
            syn_sent: None,
            syn_answered: None,
            received_ms_ago: None,
            since: None,
            reason: None,
            quota: None,
            spill_over: None,
        }
    }

    pub(crate) fn accelerated(device: &str, kind: &str, reason: Option<&str>) -> DeviceAcceleration {
        DeviceAcceleration {
            device: device.to_owned(),
            kind: kind.to_owned(),
            reason: reason.map(str::to_owned),
        }
    }

    pub(crate) fn report() -> Report {
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
                    fast_flows: Some(90),
                    fast_packets: Some(98_000),
                    slow_packets: Some(2_000),
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
                    fast_packets: Some(0),
                    slow_packets: Some(700),
                    since: Some(now() - Duration::from_mins(4)),
                    reason: Some("1.1.1.1 does not answer".to_owned()),
                    ..isp("DSL", "ppp0")
                },
                Isp { tier: Some(2), share: 0.0, ..isp("LTE", "wwan0") },
            ],
            policies: vec![Policy {
                name: "default".to_owned(),
                sticky: "flow".to_owned(),
                last_resort: "main".to_owned(),
                isps: vec![Share { name: "CABLE".to_owned(), ipv4: 0.75, ipv6: 2.0 / 3.0 }],
            }],
            acceleration: vec![
                accelerated("lan0", "xdp", None),
                accelerated("eth0", "xdp", None),
                accelerated("ppp0", "tc", Some("ppp0 has no Ethernet header")),
                accelerated(
                    "wwan0",
                    "off",
                    Some("another program (id 7, name mirror) is on wwan0's ingress"),
                ),
            ],
            local_traffic: LocalTraffic::by_route(Some("cgroup2 is not mounted".to_owned())),
            failed_scripts: vec!["/etc/balance/routes.d/10-vpn failed: exit status: 3".to_owned()],
            failed_announcements: vec!["mail to root@localhost failed: no answer within 30s".to_owned()],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::samples::{accelerated, now, report};
    use super::*;

    #[test]
    fn the_json_has_every_field_in_order_and_null_for_what_is_not_known() {
        let mut report = report();
        report.isps.truncate(1);
        report.acceleration = vec![accelerated("ppp0", "tc", Some("ppp0 has no Ethernet header"))];
        report.isps[0].share = 1.0 / 3.0;
        report.isps[0].tx_bytes = Some(u64::MAX);
        let expected = r#"{"instance":"main","daemon":{"pid":123,"running":true},"isps":[{"name":"CABLE","device":"eth0","state":"up","forced":null,"weight":3,"tier":1,"share":0.3333,"gateway":"192.0.2.1","rtt_ms":12.4,"jitter_ms":2.04,"loss_percent":0.0,"flows":412,"fast_flows":90,"tx_packets":null,"tx_bytes":18446744073709551615,"rx_packets":null,"rx_bytes":null,"fast_packets":98000,"slow_packets":2000,"syn_sent":null,"syn_answered":null,"received_ms_ago":null,"since":"2024-10-00","reason":null,"quota":null,"spill_over":null}],"policies":[{"name":"default","sticky":"flow","last_resort":"main","isps":[{"name":"CABLE","ipv4":0.75,"ipv6":0.6667}]}],"acceleration":[{"device":"ppp0","kind":"tc","reason":"ppp0 has no Ethernet header"}],"local_traffic":{"kind":"route","reason":"cgroup2 is not mounted"},"failed_scripts":["/etc/balance/routes.d/10-vpn failed: exit status: 3"],"failed_announcements":["mail to root@localhost failed: no answer within 30s"]}"#;
        let since = humantime::format_rfc3339_seconds(report.isps[0].since.unwrap()).to_string();
        assert!(since.ends_with("T22:00:00Z"), "{since}");
        assert_eq!(serde_json::to_string(&report).unwrap(), expected.replace("2024-10-00", &since));
    }

    #[test]
    fn a_report_survives_the_way_through_json() {
        let mut report = report();
        report.policies[0].isps[0].ipv6 = 0.5;
        let json = render_json(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
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
