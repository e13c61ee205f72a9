//! Why a flow is on its ISP.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use balance_common::layout::{BYPASS, BucketTable};
use balance_common::{Address, Family, Flow, IspId, PolicyId, Sticky, bucket_of};
use ipnet::IpNet;
use serde::Serialize;

use crate::config::policy::contains;

/// Why a flow is on its ISP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Why {
    /// Its bucket is the ISP's.
    Bucket(Chosen),
    /// Its bucket is another one's, or no rule steers it any more: it was steered when that was different, and stays.
    Inherited(Chosen),
    /// It is an answer to who came in by this ISP.
    CameIn,
    /// It is this machine's own: its socket, or the weighted default route, has chosen.
    Own,
    /// Its source is of the ISP's prefix, which decides.
    Prefix,
    /// It depends on what nobody remembers: the LAN or the DSCP that a rule asks for.
    Unknown,
}

/// What would choose the ISP if the flow began now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// The rule about it, from 1.
    pub rule: Option<usize>,
    /// The policy; none if the rule says that it is not steered.
    pub policy: Option<String>,
    /// The bucket in the policy's table.
    pub bucket: Option<usize>,
    /// Whose the bucket is; none if it is nobody's.
    pub bucket_isp: Option<String>,
}

/// What is asked of the maps for each flow.
pub trait Rules {
    /// Is an address in a prefix that is never balanced?
    fn is_local(&self, address: Address) -> bool;

    /// The first rule about a flow from any of these LANs, from 0, and its policy or [`BYPASS`]; none if that depends on the LAN or
    /// the DSCP.
    fn ruling(&self, flow: &Flow, lans: &[u8]) -> Option<(Option<usize>, u8)>;
}

/// What is the same for all flows.
#[derive(Clone, Debug, Default)]
pub struct Chooser {
    /// The ISPs' names.
    pub names: BTreeMap<IspId, String>,
    /// The policies.
    pub policies: BTreeMap<PolicyId, PolicyFacts>,
    /// The networks of the LANs' devices, with the LANs' numbers.
    pub lans: Vec<(IpNet, u8)>,
    /// The addresses of this machine.
    pub own: BTreeSet<Address>,
    /// The prefixes whose ISP decides.
    pub deciding: Vec<IpNet>,
    /// What flows are hashed with.
    pub seed: u64,
}

/// A policy.
#[derive(Clone, Debug)]
pub struct PolicyFacts {
    /// Its name.
    pub name: String,
    /// What stays together.
    pub sticky: Sticky,
    /// Its tables, by family.
    pub tables: [Box<BucketTable>; 2],
}

impl Chooser {
    /// Why is this flow, as its first packet was, on that ISP?
    #[must_use]
    pub fn why(&self, isp: IspId, flow: &Flow, rules: &impl Rules) -> Why {
        if self.own.contains(&flow.source) {
            return Why::Own;
        }
        // Nothing from a LAN to such a destination is given an ISP.
        if rules.is_local(flow.destination) {
            return Why::CameIn;
        }
        if self.deciding.iter().any(|prefix| contains(*prefix, flow, flow.source)) {
            return Why::Prefix;
        }
        let lans = self.lans_of(flow);
        if lans.is_empty() && !rules.is_local(flow.source) {
            return Why::CameIn;
        }
        let all = || self.lans.iter().map(|&(_, lan)| lan).collect::<BTreeSet<_>>().into_iter().collect();
        let lans: Vec<u8> = if lans.is_empty() { all() } else { lans };
        let Some((rule, policy)) = rules.ruling(flow, &lans) else { return Why::Unknown };
        let rule = rule.map(|rule| rule + 1);
        if policy == BYPASS {
            return Why::Inherited(Chosen { rule, policy: None, bucket: None, bucket_isp: None });
        }
        let Some(policy) = PolicyId::new(policy).and_then(|id| self.policies.get(&id)) else {
            return Why::Unknown;
        };
        let bucket = bucket_of(policy.sticky.key(*flow).hash(self.seed));
        let [v4, v6] = &policy.tables;
        let table = if flow.family == Family::V4 { v4 } else { v6 };
        let owner = table.get(bucket).and_then(|&owner| IspId::new(owner));
        let chosen = Chosen {
            rule,
            policy: Some(policy.name.clone()),
            bucket: Some(bucket),
            bucket_isp: owner.and_then(|owner| self.names.get(&owner).cloned()),
        };
        if owner == Some(isp) { Why::Bucket(chosen) } else { Why::Inherited(chosen) }
    }

    /// The LANs of which the source may be: those with the longest prefix around it.
    fn lans_of(&self, flow: &Flow) -> Vec<u8> {
        let around = || self.lans.iter().filter(|(network, _)| contains(*network, flow, flow.source));
        let longest = around().map(|(network, _)| network.prefix_len()).max();
        around().filter(|(network, _)| Some(network.prefix_len()) == longest).map(|&(_, lan)| lan).collect()
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket(chosen) => {
                // The policy of one ISP, which a rule that names it leads to: its buckets say nothing.
                let is_alone = chosen.rule.is_some() && chosen.policy == chosen.bucket_isp;
                match chosen.bucket.filter(|_| !is_alone) {
                    Some(bucket) => write!(f, "{}bucket {bucket}", Lead(chosen, ", ")),
                    None => write!(f, "{}", Lead(chosen, "")),
                }
            }
            Self::Inherited(chosen) => {
                let whose =
                    chosen.bucket_isp.as_ref().map_or("nobody's".to_owned(), |isp| format!("{isp}'s"));
                match chosen.bucket {
                    Some(bucket) => {
                        write!(f, "stays; now {}bucket {bucket} is {whose}", Lead(chosen, ", "))
                    }
                    None => write!(f, "stays; now {}", Lead(chosen, "")),
                }
            }
            Self::CameIn => f.write_str("came in by it"),
            Self::Own => f.write_str("this machine's own"),
            Self::Prefix => f.write_str("its prefix decides"),
            Self::Unknown => f.write_str("a rule for some LAN or DSCP"),
        }
    }
}

/// The rule and the policy, where there is something to say of them, and what comes then.
struct Lead<'a>(&'a Chosen, &'static str);

impl fmt::Display for Lead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Chosen { rule, policy, .. }, then) = self;
        match (rule, policy) {
            (None, _) => Ok(()),
            (Some(rule), None) => write!(f, "rule {rule}: bypass{then}"),
            (Some(rule), Some(policy)) => write!(f, "rule {rule}: {policy}{then}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CABLE: u8 = 1;
    const DSL: u8 = 2;

    struct Known {
        ruling: Option<(Option<usize>, u8)>,
        local: Vec<IpNet>,
        asked: std::cell::RefCell<Vec<u8>>,
    }

    impl Rules for Known {
        fn is_local(&self, address: Address) -> bool {
            let flow = flow("10.0.0.1", "10.0.0.1");
            self.local.iter().any(|prefix| contains(*prefix, &flow, address))
        }

        fn ruling(&self, _: &Flow, lans: &[u8]) -> Option<(Option<usize>, u8)> {
            *self.asked.borrow_mut() = lans.to_vec();
            self.ruling
        }
    }

    fn known(ruling: Option<(Option<usize>, u8)>) -> Known {
        let local = ["192.168.0.0/16", "203.0.113.7/32"].map(|net| net.parse().unwrap()).to_vec();
        Known { ruling, local, asked: std::cell::RefCell::default() }
    }

    fn ip(text: &str) -> Address {
        text.parse::<std::net::IpAddr>().unwrap().into()
    }

    fn flow(from: &str, to: &str) -> Flow {
        Flow {
            family: if from.contains(':') { Family::V6 } else { Family::V4 },
            source: ip(from),
            destination: ip(to),
            protocol: 6,
            source_port: 1000,
            destination_port: 443,
        }
    }

    fn policy(name: &str, sticky: Sticky, owner: u8) -> PolicyFacts {
        let table = || Box::new([owner; balance_common::BUCKETS]);
        PolicyFacts { name: name.to_owned(), sticky, tables: [table(), table()] }
    }

    fn chooser() -> Chooser {
        let id = |number| IspId::new(number).unwrap();
        let policies = [
            policy("default", Sticky::Flow, CABLE),
            policy("DSL", Sticky::Source, DSL),
            policy("VIDEO", Sticky::Flow, 0),
        ];
        Chooser {
            names: [(id(CABLE), "CABLE".to_owned()), (id(DSL), "DSL".to_owned())].into(),
            policies: (0..).map(|number| PolicyId::new(number).unwrap()).zip(policies).collect(),
            lans: vec![("192.168.1.0/24".parse().unwrap(), 1), ("192.168.2.0/24".parse().unwrap(), 2)],
            own: [ip("192.0.2.2"), ip("192.168.1.1")].into(),
            deciding: vec!["2001:db8:1::/48".parse().unwrap()],
            seed: 7,
        }
    }

    fn told(isp: u8, flow: &Flow, ruling: Option<(Option<usize>, u8)>) -> String {
        let words = chooser().why(IspId::new(isp).unwrap(), flow, &known(ruling)).to_string();
        let bucket = bucket_of(flow.hash(7)).to_string();
        words.replace(&bucket, "N")
    }

    #[test]
    fn a_flow_is_where_its_bucket_says_or_has_begun_when_that_was_another_ones() {
        let flow = flow("192.168.1.10", "1.1.1.1");
        assert_eq!(told(CABLE, &flow, Some((None, 0))), "bucket N");
        assert_eq!(told(DSL, &flow, Some((None, 0))), "stays; now bucket N is CABLE's");
        assert_eq!(told(CABLE, &flow, Some((Some(1), 0))), "rule 2: default, bucket N");
        assert_eq!(told(DSL, &flow, Some((Some(0), 1))), "rule 1: DSL");
        assert!(told(CABLE, &flow, Some((Some(0), 1))).starts_with("stays; now rule 1: DSL, bucket "));
        assert_eq!(told(CABLE, &flow, Some((Some(2), 2))), "stays; now rule 3: VIDEO, bucket N is nobody's");
        assert_eq!(told(CABLE, &flow, Some((Some(2), BYPASS))), "stays; now rule 3: bypass");
        assert_eq!(told(CABLE, &flow, None), "a rule for some LAN or DSCP");
        assert_eq!(told(CABLE, &flow, Some((None, 9))), "a rule for some LAN or DSCP", "no such policy");
    }

    #[test]
    fn what_was_not_steered_from_a_lan_says_who_has_chosen() {
        let ruling = Some((None, 0));
        assert_eq!(told(CABLE, &flow("192.0.2.2", "1.1.1.1"), ruling), "this machine's own");
        assert_eq!(told(CABLE, &flow("1.1.1.1", "203.0.113.7"), ruling), "came in by it");
        assert_eq!(told(CABLE, &flow("1.1.1.1", "9.9.9.9"), ruling), "came in by it", "from no LAN");
        assert_eq!(told(CABLE, &flow("2001:db8:1::5", "2001:db8::1"), ruling), "its prefix decides");
    }

    #[test]
    fn rules_are_asked_for_the_lan_of_the_source_or_for_all_that_it_may_be_of() {
        for (from, expected) in
            [("192.168.1.10", vec![1]), ("192.168.2.10", vec![2]), ("192.168.77.10", vec![1, 2])]
        {
            let known = known(Some((None, 0)));
            let why = chooser().why(IspId::new(CABLE).unwrap(), &flow(from, "1.1.1.1"), &known);
            assert!(matches!(why, Why::Bucket(_)), "{from}: {why:?}");
            assert_eq!(*known.asked.borrow(), expected, "{from}");
        }
    }
}
