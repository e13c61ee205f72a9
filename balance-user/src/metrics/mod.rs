//! Metrics for Prometheus: read from the maps when they are asked for. [`render`] is pure.

mod text;

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use balance_common::layout::{Count, IspCounters, Verdict};

use self::text::{Kind, Text};
use crate::cli::report::{Forced, Isp, Report, State};
use crate::control::tallies::{IspTallies, Tallies};
use crate::datapath::{DatapathError, Maps};

/// The type of what [`render`] makes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const STATES: [State; 7] =
    [State::Unknown, State::Up, State::Suspect, State::Degraded, State::Down, State::LongDown, State::Held];

const VERDICTS: [(&str, Verdict); Verdict::COUNT as usize] = [
    ("steered", Verdict::Steered),
    ("local", Verdict::Local),
    ("unparsable", Verdict::Unparsable),
    ("not_ip", Verdict::NotIp),
    ("no_isp", Verdict::NoIsp),
    ("bypassed", Verdict::Bypassed),
];

/// What eBPF has counted.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// By the ISPs' names.
    pub isps: BTreeMap<String, IspCounters>,
    /// What became of packets from LANs, by the names of the verdicts.
    pub verdicts: Vec<(&'static str, Count)>,
}

impl Counters {
    /// Reads them.
    pub fn read(maps: &Maps) -> Result<Self, DatapathError> {
        let isps = maps.isps()?.into_iter().map(|(id, entry)| Ok((entry.name(), maps.counters(id)?)));
        let verdicts = VERDICTS.into_iter().map(|(name, verdict)| Ok((name, maps.verdict(verdict)?)));
        Ok(Self {
            isps: isps.collect::<Result<_, DatapathError>>()?,
            verdicts: verdicts.collect::<Result<_, DatapathError>>()?,
        })
    }
}

/// The metrics, in the text format of Prometheus. What is not known is left out.
#[must_use]
pub fn render(report: &Report, counters: &Counters, tallies: &Tallies) -> String {
    let mut text = Text::default();
    text.metric("balance_build_info", Kind::Gauge, "What runs; always 1.")
        .sample(&[("version", env!("CARGO_PKG_VERSION")), ("balance_instance", &report.instance)], 1);
    of_isps(&mut text, &report.isps);
    of_traffic(&mut text, counters);
    of_changes(&mut text, &report.isps, tallies);
    of_policies(&mut text, report);
    of_machine(&mut text, report, tallies);
    text.finish()
}

fn of_isps(text: &mut Text, isps: &[Isp]) {
    let mut info = text.metric("balance_isp_info", Kind::Gauge, "The device of the ISP; always 1.");
    for isp in isps {
        info.sample(&[("isp", &isp.name), ("device", &isp.device)], 1);
    }
    let mut up =
        text.metric("balance_isp_up", Kind::Gauge, "Whether the ISP works, as far as is known: 1 or 0.");
    for isp in isps {
        let works = matches!(isp.state, State::Up | State::Suspect | State::Degraded);
        up.sample(&[("isp", &isp.name)], u8::from(works));
    }
    let mut state =
        text.metric("balance_isp_state", Kind::Gauge, "The state of the ISP: 1 for the one it is in.");
    for isp in isps {
        for one in STATES {
            state.sample(&[("isp", &isp.name), ("state", &one.to_string())], u8::from(isp.state == one));
        }
    }
    let mut forced = text.metric(
        "balance_isp_forced",
        Kind::Gauge,
        "Whether a command has forced the ISP to be so: 1 or 0.",
    );
    for isp in isps {
        for (name, to) in [("up", Forced::Up), ("down", Forced::Down)] {
            forced.sample(&[("isp", &isp.name), ("to", name)], u8::from(isp.forced == Some(to)));
        }
    }
    let seconds = |milliseconds: f64| milliseconds / 1e3;
    let since = |isp: &Isp| Some(isp.since?.duration_since(UNIX_EPOCH).ok()?.as_secs_f64());
    let gauges: [Gauge<'_>; 10] = [
        (
            "balance_isp_state_start_time_seconds",
            "Since when it has been in its state, in seconds since 1970.",
            &since,
        ),
        ("balance_isp_weight", "The weight of the ISP.", &|isp| isp.weight.map(f64::from)),
        ("balance_isp_tier", "The tier of the ISP.", &|isp| isp.tier.map(f64::from)),
        ("balance_isp_rtt_seconds", "The round-trip time of its probes.", &|isp| isp.rtt_ms.map(seconds)),
        ("balance_isp_jitter_seconds", "How much that varies.", &|isp| isp.jitter_ms.map(seconds)),
        ("balance_isp_loss_ratio", "The part of its recent probes that was lost, 0 to 1.", &|isp| {
            isp.loss_percent.map(|percent| percent / 1e2)
        }),
        ("balance_isp_flows", "Flows of the ISP in conntrack.", &|isp| isp.flows.map(|flows| flows as f64)),
        ("balance_isp_fast_flows", "Flows of the ISP that go the fast path.", &|isp| {
            isp.fast_flows.map(|flows| flows as f64)
        }),
        ("balance_isp_quota_bytes", "The quota of the ISP.", &|isp| {
            isp.quota.as_ref().map(|quota| quota.limit as f64)
        }),
        ("balance_isp_quota_used_bytes", "So much of it is used.", &|isp| {
            isp.quota.as_ref().map(|quota| quota.used as f64)
        }),
    ];
    for (name, help, value) in gauges {
        let mut metric = text.metric(name, Kind::Gauge, help);
        for isp in isps {
            if let Some(value) = value(isp) {
                metric.sample(&[("isp", &isp.name)], value);
            }
        }
    }
}

/// A name, its help, and how to find the value of an ISP.
type Gauge<'a> = (&'static str, &'a str, &'a dyn Fn(&Isp) -> Option<f64>);

fn of_traffic(text: &mut Text, counters: &Counters) {
    let mut metric = |name, help, number: fn(&Count) -> u64| {
        let mut metric = text.metric(name, Kind::Counter, help);
        for (isp, counted) in &counters.isps {
            for (direction, path, count) in [
                ("transmit", "slow", &counted.tx),
                ("transmit", "fast", &counted.fast_tx),
                ("receive", "slow", &counted.rx),
                ("receive", "fast", &counted.fast_rx),
            ] {
                let labels = [("isp", isp.as_str()), ("direction", direction), ("path", path)];
                metric.sample(&labels, number(count));
            }
        }
    };
    metric("balance_isp_packets_total", "Packets sent and received by the ISP's device.", |count| {
        count.packets
    });
    metric("balance_isp_bytes_total", "Bytes sent and received by the ISP's device.", |count| count.bytes);
    let mut metric = |name, help, number: fn(&IspCounters) -> u64| {
        let mut metric = text.metric(name, Kind::Counter, help);
        for (isp, counted) in &counters.isps {
            metric.sample(&[("isp", isp)], number(counted));
        }
    };
    metric("balance_isp_steered_packets_total", "Packets from LANs that got the ISP's mark.", |isp| {
        isp.steered.packets
    });
    metric("balance_isp_new_flows_total", "Flows among what was steered to the ISP.", |isp| isp.new_flows);
    let mut metric = |name, help, number: fn(&Count) -> u64| {
        let mut metric = text.metric(name, Kind::Counter, help);
        for (verdict, count) in &counters.verdicts {
            metric.sample(&[("verdict", verdict)], number(count));
        }
    };
    metric("balance_verdict_packets_total", "Packets from LANs, by what became of them.", |count| {
        count.packets
    });
    metric("balance_verdict_bytes_total", "Bytes from LANs, by what became of them.", |count| count.bytes);
}

fn of_changes(text: &mut Text, isps: &[Isp], tallies: &Tallies) {
    let none = IspTallies::default();
    let of = |isp: &Isp| tallies.isps.get(&isp.name).unwrap_or(&none);
    let help = "How often the ISP stopped working and its flows went elsewhere.";
    let mut metric = text.metric("balance_isp_failovers_total", Kind::Counter, help);
    for isp in isps {
        metric.sample(&[("isp", &isp.name)], of(isp).failovers);
    }
    let help = "Events: how often the ISP got into each state.";
    let mut metric = text.metric("balance_isp_state_changes_total", Kind::Counter, help);
    for isp in isps {
        for state in STATES.map(|state| state.to_string()) {
            let count = of(isp).changes.get(&state).copied().unwrap_or(0);
            metric.sample(&[("isp", &isp.name), ("state", &state)], count);
        }
    }
}

fn of_policies(text: &mut Text, report: &Report) {
    let help = "The part of the buckets of the policy that the ISP has, 0 to 1; left out where it has none, but for \
                the policy default.";
    let mut metric = text.metric("balance_policy_share_ratio", Kind::Gauge, help);
    for (place, policy) in report.policies.iter().enumerate() {
        for isp in &report.isps {
            let share = policy.isps.iter().find(|share| share.name == isp.name);
            let parts = share.map_or([0.0, 0.0], |share| [share.ipv4, share.ipv6]);
            for (family, part) in ["ipv4", "ipv6"].into_iter().zip(parts) {
                if place == 0 || part > 0.0 {
                    let labels = [("policy", policy.name.as_str()), ("family", family), ("isp", &isp.name)];
                    metric.sample(&labels, part);
                }
            }
        }
    }
}

fn of_machine(text: &mut Text, report: &Report, tallies: &Tallies) {
    let help = "How packets of known flows are forwarded that come in by the device; always 1.";
    let mut metric = text.metric("balance_device_info", Kind::Gauge, help);
    for device in &report.acceleration {
        metric.sample(&[("device", &device.device), ("acceleration", &device.kind)], 1);
    }
    let help = "How often everything was compared with the plan.";
    text.metric("balance_reconciliations_total", Kind::Counter, help).sample(&[], tallies.reconciliations);
    let help = "Steps of carrying out the plan that have failed; they are tried again.";
    text.metric("balance_reconciliation_failures_total", Kind::Counter, help).sample(&[], tallies.failures);
    let help = "Scripts and hooks of which the latest run has failed.";
    text.metric("balance_failing_scripts", Kind::Gauge, help).sample(&[], report.failed_scripts.len());
    let help = "Receivers that do not take what is announced to them.";
    text.metric("balance_failing_receivers", Kind::Gauge, help)
        .sample(&[], report.failed_announcements.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::report::samples;

    fn sample() -> (Counters, Tallies) {
        let count = |packets| Count { packets, bytes: 100 * packets };
        let cable = IspCounters {
            syns: [0; 16],
            syn_answers: 0,
            steered: count(1),
            tx: count(2),
            rx: count(3),
            fast_tx: count(4),
            fast_rx: count(5),
            new_flows: 6,
        };
        let isps = [("CABLE".to_owned(), cable)].into();
        let tallies = Tallies {
            reconciliations: 7,
            failures: 8,
            isps: [(
                "CABLE".to_owned(),
                IspTallies { failovers: 9, changes: [("down".to_owned(), 10)].into() },
            )]
            .into(),
        };
        (Counters { isps, verdicts: VERDICTS.map(|(name, _)| (name, count(11))).to_vec() }, tallies)
    }

    #[test]
    fn each_thing_that_is_known_has_its_sample() {
        let (counters, tallies) = sample();
        let text = render(&samples::report(), &counters, &tallies);
        for line in [
            "balance_isp_info{isp=\"CABLE\",device=\"eth0\"} 1",
            "balance_isp_up{isp=\"DSL\"} 1",
            "balance_isp_state{isp=\"DSL\",state=\"suspect\"} 1",
            "balance_isp_state{isp=\"DSL\",state=\"up\"} 0",
            "balance_isp_rtt_seconds{isp=\"CABLE\"} 0.0124",
            "balance_isp_loss_ratio{isp=\"DSL\"} 0.083",
            "balance_isp_flows{isp=\"CABLE\"} 412",
            "balance_isp_bytes_total{isp=\"CABLE\",direction=\"transmit\",path=\"slow\"} 200",
            "balance_isp_bytes_total{isp=\"CABLE\",direction=\"receive\",path=\"fast\"} 500",
            "balance_isp_new_flows_total{isp=\"CABLE\"} 6",
            "balance_isp_failovers_total{isp=\"CABLE\"} 9",
            "balance_isp_failovers_total{isp=\"LTE\"} 0",
            "balance_isp_state_changes_total{isp=\"CABLE\",state=\"down\"} 10",
            "balance_verdict_packets_total{verdict=\"no_isp\"} 11",
            "balance_device_info{device=\"ppp0\",acceleration=\"tc\"} 1",
            "balance_reconciliations_total 7",
            "balance_reconciliation_failures_total 8",
            "balance_failing_scripts 1",
        ] {
            assert!(text.lines().any(|one| one == line), "no {line} in\n{text}");
        }
        assert!(!text.contains("balance_isp_rtt_seconds{isp=\"LTE\"}"), "{text}");
    }

    #[test]
    fn no_sample_is_there_twice_and_each_metric_is_in_one_piece() {
        let (counters, tallies) = sample();
        let text = render(&samples::report(), &counters, &tallies);
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let names = |line: &&str| line.split(['{', ' ']).next().unwrap().to_owned();
        let mut series: Vec<_> = samples.iter().map(|line| line.rsplit_once(' ').unwrap().0).collect();
        series.sort_unstable();
        assert!(series.windows(2).all(|pair| pair[0] != pair[1]));
        let mut pieces: Vec<_> = samples.iter().map(names).collect();
        pieces.dedup();
        let count = pieces.len();
        pieces.sort();
        pieces.dedup();
        assert_eq!(pieces.len(), count);
    }

    #[test]
    fn rules_and_dashboard_ask_for_metrics_that_there_are() {
        let (counters, tallies) = sample();
        let text = render(&samples::report(), &counters, &tallies);
        let files = [
            include_str!("../../../dist/balance.rules.yml"),
            include_str!("../../../dist/balance.rules.test.yml"),
            include_str!("../../../dist/grafana-dashboard.json"),
        ];
        let words =
            files.iter().flat_map(|file| file.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
        let asked: std::collections::BTreeSet<_> =
            words.filter(|word| word.starts_with("balance_")).collect();
        assert!(asked.len() > 10, "{asked:?}");
        for metric in asked {
            assert!(text.contains(&format!("# TYPE {metric} ")), "{metric}");
        }
    }
}
