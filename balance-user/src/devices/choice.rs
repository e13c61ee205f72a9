//! How the packets of known flows are forwarded where they come in. Pure.

use super::Facts;
use crate::config::Acceleration;

const BASIC: u64 = 1;
const REDIRECT: u64 = 2;
const NDO_XMIT: u64 = 4;

/// The qdiscs that only queue. What XDP sends does not pass them, so with any other it would escape its limits.
const PLAIN_QDISCS: [&str; 6] = ["noqueue", "mq", "pfifo_fast", "pfifo", "fq_codel", "fq"];

/// What forwards the packets that come in by a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The kernel.
    Off,
    /// A program behind the driver.
    Tc,
    /// A program in the driver.
    Xdp,
}

impl Kind {
    /// Its name, as in the config and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Tc => "tc",
            Self::Xdp => "xdp",
        }
    }
}

/// What a device is used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What forwards the packets that come in by it.
    pub kind: Kind,
    /// Why it is less than what was wanted, if it is.
    pub reason: Option<String>,
    /// XDP may send packets out by it; else TC does, or the kernel.
    pub xdp_target: bool,
    /// Why not, if it was wanted.
    pub target_reason: Option<String>,
}

/// What follows from what the config wants and what a device is.
#[must_use]
pub fn acceleration_of(wanted: Acceleration, facts: &Facts) -> Choice {
    let (kind, reason) = match wanted {
        Acceleration::Off => (Kind::Off, None),
        Acceleration::Tc => (Kind::Tc, None),
        Acceleration::Xdp => or_tc(why_no_xdp(facts)),
        Acceleration::Auto => match &facts.foreign {
            // It would not see what we forward.
            Some(foreign) => (Kind::Off, Some(format!("{foreign} is on {}'s ingress", facts.name))),
            None => or_tc(why_no_xdp(facts).or_else(|| why_not_safe(facts))),
        },
    };
    let wants_xdp = matches!(wanted, Acceleration::Auto | Acceleration::Xdp);
    let target_reason = if wants_xdp { why_no_target(facts) } else { None };
    Choice { kind, reason, xdp_target: wants_xdp && target_reason.is_none(), target_reason }
}

fn or_tc(why_no_xdp: Option<String>) -> (Kind, Option<String>) {
    (if why_no_xdp.is_none() { Kind::Xdp } else { Kind::Tc }, why_no_xdp)
}

/// Why no XDP program can forward what comes in by the device.
fn why_no_xdp(Facts { name, ethernet, xdp_features, .. }: &Facts) -> Option<String> {
    if !ethernet {
        return Some(no_ethernet(name));
    }
    match xdp_features {
        None => Some(cannot_tell(name)),
        Some(features) if features & (BASIC | REDIRECT) != BASIC | REDIRECT => {
            Some(format!("the driver of {name} has no native XDP"))
        }
        Some(_) => None,
    }
}

/// Why that could break packets: what comes from a local sender by a virtual device has checksums that are still to
/// be completed, which XDP is not told of.
fn why_not_safe(Facts { name, kind, .. }: &Facts) -> Option<String> {
    kind.as_ref().map(|kind| format!("{name} is a virtual device ({kind})"))
}

/// Why XDP cannot send packets out by the device, or must not.
fn why_no_target(Facts { name, ethernet, xdp_features, qdiscs, .. }: &Facts) -> Option<String> {
    if !ethernet {
        return Some(no_ethernet(name));
    }
    match xdp_features {
        None => return Some(cannot_tell(name)),
        Some(features) if features & NDO_XMIT == 0 => {
            return Some(format!("the driver of {name} takes no packets from XDP"));
        }
        Some(_) => {}
    }
    let shaper = qdiscs.iter().find(|qdisc| !PLAIN_QDISCS.contains(&qdisc.as_str()))?;
    Some(format!("XDP would bypass the qdisc {shaper} of {name}"))
}

fn no_ethernet(device: &str) -> String {
    format!("{device} has no Ethernet header")
}

fn cannot_tell(device: &str) -> String {
    format!("the kernel cannot tell whether the driver of {device} has native XDP; Linux 6.3 can")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Acceleration; 4] =
        [Acceleration::Auto, Acceleration::Tc, Acceleration::Xdp, Acceleration::Off];

    /// Every combination of everything that counts.
    fn all_facts() -> Vec<Facts> {
        let mut all = Vec::new();
        for ethernet in [false, true] {
            for kind in [None, Some("veth"), Some("bridge")] {
                for xdp_features in [None].into_iter().chain((0..16).map(Some)) {
                    for qdiscs in [&[][..], &["noqueue"], &["mq", "fq_codel"], &["htb", "fq_codel"]] {
                        for foreign in [None, Some("another program (id 7, name mirror)")] {
                            all.push(Facts {
                                name: "eth0".to_owned(),
                                ethernet,
                                kind: kind.map(str::to_owned),
                                xdp_features,
                                qdiscs: qdiscs.iter().map(|&qdisc| qdisc.to_owned()).collect(),
                                foreign: foreign.map(str::to_owned),
                            });
                        }
                    }
                }
            }
        }
        all
    }

    /// A card that can do everything.
    fn card() -> Facts {
        Facts {
            name: "eth0".to_owned(),
            ethernet: true,
            kind: None,
            xdp_features: Some(BASIC | REDIRECT | NDO_XMIT),
            qdiscs: ["mq".to_owned(), "fq_codel".to_owned()].into(),
            foreign: None,
        }
    }

    fn ingress(wanted: Acceleration, facts: &Facts) -> (Kind, String) {
        let choice = acceleration_of(wanted, facts);
        (choice.kind, choice.reason.unwrap_or_default())
    }

    fn target(facts: &Facts) -> (bool, String) {
        let [auto, xdp] =
            [Acceleration::Auto, Acceleration::Xdp].map(|wanted| acceleration_of(wanted, facts));
        assert_eq!((auto.xdp_target, &auto.target_reason), (xdp.xdp_target, &xdp.target_reason));
        (xdp.xdp_target, xdp.target_reason.unwrap_or_default())
    }

    #[test]
    fn a_good_card_gets_what_is_wanted() {
        let card = card();
        for (wanted, kind) in ALL.into_iter().zip([Kind::Xdp, Kind::Tc, Kind::Xdp, Kind::Off]) {
            let xdp_target = kind == Kind::Xdp;
            let expected = Choice { kind, reason: None, xdp_target, target_reason: None };
            assert_eq!(acceleration_of(wanted, &card), expected, "{wanted:?}");
        }
    }

    #[test]
    fn there_is_a_reason_exactly_where_it_is_less_than_wanted() {
        for facts in all_facts() {
            for wanted in ALL {
                let choice = acceleration_of(wanted, &facts);
                let best = match wanted {
                    Acceleration::Off => Kind::Off,
                    Acceleration::Tc => Kind::Tc,
                    Acceleration::Xdp | Acceleration::Auto => Kind::Xdp,
                };
                assert!(choice.kind <= best, "{wanted:?} {facts:?} {choice:?}");
                assert_eq!(choice.reason.is_some(), choice.kind < best, "{wanted:?} {facts:?} {choice:?}");
                let target_reason = best == Kind::Xdp && !choice.xdp_target;
                assert_eq!(choice.target_reason.is_some(), target_reason, "{wanted:?} {facts:?} {choice:?}");
            }
        }
    }

    #[test]
    fn each_choice_is_made_of_just_what_counts_for_it() {
        for facts in all_facts() {
            let kinds = ALL.map(|wanted| acceleration_of(wanted, &facts).kind);
            let has = |bits| facts.xdp_features.is_some_and(|features| features & bits == bits);
            let xdp = if facts.ethernet && has(BASIC | REDIRECT) { Kind::Xdp } else { Kind::Tc };
            let auto = match (&facts.foreign, &facts.kind) {
                (Some(_), _) => Kind::Off,
                (None, Some(_)) => Kind::Tc,
                (None, None) => xdp,
            };
            assert_eq!(kinds, [auto, Kind::Tc, xdp, Kind::Off], "{facts:?}");
            let takes = facts.ethernet && has(NDO_XMIT) && !facts.qdiscs.contains("htb");
            assert_eq!(target(&facts).0, takes, "{facts:?}");
            for wanted in [Acceleration::Tc, Acceleration::Off] {
                assert!(!acceleration_of(wanted, &facts).xdp_target);
            }
        }
    }

    #[test]
    fn a_device_without_native_xdp_or_ethernet_has_tc_and_says_why() {
        for wanted in [Acceleration::Auto, Acceleration::Xdp] {
            for (facts, reason) in [
                (Facts { xdp_features: Some(0), ..card() }, "the driver of eth0 has no native XDP"),
                (
                    Facts { xdp_features: Some(BASIC | NDO_XMIT), ..card() },
                    "the driver of eth0 has no native XDP",
                ),
                (Facts { ethernet: false, xdp_features: None, ..card() }, "eth0 has no Ethernet header"),
                (
                    Facts { xdp_features: None, ..card() },
                    "the kernel cannot tell whether the driver of eth0 has native XDP; Linux 6.3 can",
                ),
            ] {
                assert_eq!(ingress(wanted, &facts), (Kind::Tc, reason.to_owned()));
            }
        }
    }

    #[test]
    fn a_virtual_device_has_xdp_only_when_asked_for() {
        for kind in ["veth", "tun", "bridge"] {
            let facts = Facts { kind: Some(kind.to_owned()), ..card() };
            let reason = format!("eth0 is a virtual device ({kind})");
            assert_eq!(ingress(Acceleration::Auto, &facts), (Kind::Tc, reason));
            assert_eq!(ingress(Acceleration::Xdp, &facts), (Kind::Xdp, String::new()));
        }
    }

    #[test]
    fn a_program_of_somebody_else_goes_on_seeing_all_packets_unless_overridden() {
        let facts = Facts { foreign: Some("another program (id 7, name mirror)".to_owned()), ..card() };
        let reason = "another program (id 7, name mirror) is on eth0's ingress";
        assert_eq!(ingress(Acceleration::Auto, &facts), (Kind::Off, reason.to_owned()));
        assert_eq!(ingress(Acceleration::Tc, &facts).0, Kind::Tc);
        assert_eq!(ingress(Acceleration::Xdp, &facts).0, Kind::Xdp);
    }

    #[test]
    fn no_limit_of_a_qdisc_is_bypassed() {
        for plain in PLAIN_QDISCS {
            let facts = Facts { qdiscs: [plain.to_owned()].into(), ..card() };
            assert_eq!(target(&facts), (true, String::new()), "{plain}");
        }
        for shaper in ["cake", "htb", "tbf", "hfsc", "noop", "netem", "prio", "red", "ets", "new_one"] {
            let facts = Facts { qdiscs: ["mq".to_owned(), shaper.to_owned()].into(), ..card() };
            assert_eq!(target(&facts), (false, format!("XDP would bypass the qdisc {shaper} of eth0")));
            assert_eq!(ingress(Acceleration::Auto, &facts).0, Kind::Xdp, "what comes in is not concerned");
        }
    }

    #[test]
    fn a_driver_that_takes_no_packets_from_xdp_is_no_target() {
        let facts = Facts { xdp_features: Some(BASIC | REDIRECT), ..card() };
        assert_eq!(target(&facts), (false, "the driver of eth0 takes no packets from XDP".to_owned()));
        assert_eq!(ingress(Acceleration::Auto, &facts).0, Kind::Xdp);
    }
}
