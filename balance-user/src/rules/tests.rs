use std::net::IpAddr;

use balance_common::{Family, Flow};
use proptest::prelude::*;

use super::*;

/// The first rule, by the longest prefixes.
fn first(rules: &Rules, flow: &Flow, lan: u8, dscp: u8) -> Option<usize> {
    let prefix = |is_destination, address: Address| {
        let octets = address.octets();
        (0..=128_u8).rev().find_map(|length| {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            let network = (u128::from_be_bytes(octets) & mask).to_be_bytes();
            rules.prefixes.get(&(is_destination, network, length)).copied()
        })
    };
    for class in &rules.classes {
        for (number, word) in class.words.iter().enumerate() {
            assert_eq!(class.summary >> number & 1 == 1, *word != 0, "the summary is right");
        }
    }
    super::first(&rules.fields, (flow, lan, dscp), prefix, |class| {
        rules.classes.get(usize::from(class)).copied()
    })
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u8..4, 0_u8..4).prop_map(|(a, b)| IpAddr::from([10, a, b, 1])),
        (0_u16..4, 0_u16..4).prop_map(|(a, b)| IpAddr::from([0x2001, 0xdb8, a, b, 0, 0, 0, 1])),
    ]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (address(), prop::sample::select(vec![0_u8, 8, 16, 24, 30, 32])).prop_map(|(address, length)| {
        let length = if address.is_ipv4() { length } else { length * 4 };
        IpNet::new(address, length).unwrap().trunc()
    })
}

fn range() -> impl Strategy<Value = RangeInclusive<u16>> {
    (1_u16..12, 0_u16..6).prop_map(|(first, more)| first..=first + more)
}

fn few<T: std::fmt::Debug>(one: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(one, 0..3)
}

prop_compose! {
    fn rule()(
        source in few(prefix()),
        destination in few(prefix()),
        protocols in few(prop::sample::select(vec![1_u8, 6, 17])),
        source_ports in few(range()),
        destination_ports in few(range()),
        lans in few(0_u8..3),
        dscps in few(prop::sample::select(vec![0_u8, 46])),
        to in prop_oneof![Just(RuleTarget::Bypass), (0_usize..4).prop_map(RuleTarget::Policy)],
    ) -> RuleConfig {
        RuleConfig { source, destination, protocols, source_ports, destination_ports, lans, dscps, to, line: 0 }
    }
}

prop_compose! {
    fn question()(
        (source, destination) in (address(), address()).prop_filter("one family", |(a, b)| a.is_ipv4() == b.is_ipv4()),
        protocol in prop::sample::select(vec![1_u8, 6, 17, 47]),
        source_port in 0_u16..20,
        destination_port in 0_u16..20,
        lan in 0_u8..3,
        dscp in prop::sample::select(vec![0_u8, 10, 46]),
    ) -> (Flow, u8, u8) {
        let family = if source.is_ipv4() { Family::V4 } else { Family::V6 };
        let (source, destination) = (source.into(), destination.into());
        (Flow { family, source, destination, protocol, source_port, destination_port }, lan, dscp)
    }
}

proptest! {
    #[test]
    fn compiled_rules_say_what_the_config_says(
        rules in prop::collection::vec(rule(), 0..100),
        questions in prop::collection::vec(question(), 50),
    ) {
        let compiled = compile(&rules, |place| u8::try_from(place).unwrap() + 10).unwrap();
        for (flow, lan, dscp) in questions {
            let expected = rules.iter().position(|rule| rule.is_about(&flow, lan, dscp));
            prop_assert_eq!(first(&compiled, &flow, lan, dscp), expected);
            let target = |rule: usize| match rules[rule].to {
                RuleTarget::Policy(place) => u8::try_from(place).unwrap() + 10,
                RuleTarget::Bypass => BYPASS,
            };
            if let Some(rule) = expected {
                prop_assert_eq!(compiled.fields.policies[rule], target(rule));
            }
        }
    }
}

fn numbered(count: usize) -> Vec<RuleConfig> {
    let prefix = |number: usize| {
        let [.., b, c] = number.to_be_bytes();
        IpNet::new(IpAddr::from([10, b, c, 0]), 24).unwrap()
    };
    (0..count)
        .map(|number| RuleConfig { destination: vec![prefix(number)], ..RuleConfig::default() })
        .collect()
}

#[test]
fn as_many_rules_as_there_can_be_fit_and_one_more_does_not() {
    assert_eq!(compile(&numbered(MAX_RULES), |_| 0).unwrap().fields.count, 1024);
    assert_eq!(compile(&numbered(MAX_RULES + 1), |_| 0), Err(TooMany::Rules));
}

#[test]
fn more_prefixes_than_there_is_room_for_are_refused() {
    let prefixes: Vec<IpNet> =
        (0..9000_u32).map(|n| IpNet::from(IpAddr::from((n << 8).to_be_bytes()))).collect();
    let rule = RuleConfig { source: prefixes, ..RuleConfig::default() };
    assert_eq!(compile(&[rule], |_| 0), Err(TooMany::Prefixes));
}

#[test]
fn no_rules_are_no_effort() {
    let rules = compile(&[], |_| 0).unwrap();
    assert_eq!((rules.fields.count, rules.classes.len()), (0, 1));
}
