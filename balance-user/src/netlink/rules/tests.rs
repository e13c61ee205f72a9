use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

fn selector(family: Family) -> impl Strategy<Value = Selector> {
    let prefix = (any::<u128>(), 0_u8..=32).prop_map(move |(bits, length)| match family {
        Family::V4 => IpNet::new(std::net::Ipv4Addr::from_bits((bits >> 96) as u32).into(), length).unwrap(),
        Family::V6 => IpNet::new(std::net::Ipv6Addr::from_bits(bits).into(), length).unwrap(),
    });
    prop_oneof![
        Just(Selector::All),
        Just(Selector::AllButDefault),
        (any::<u32>(), prop_oneof![Just(0), Just(0x3f00), any::<u32>()])
            .prop_map(|(value, mask)| Selector::Mark { value, mask }),
        prefix.prop_map(Selector::From),
        "[a-z]{1,15}".prop_map(Selector::OutputDevice),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    prop_oneof![Just(Family::V4), Just(Family::V6)].prop_flat_map(|family| {
        (10_000_u32..10_004, selector(family), prop_oneof![Just(254_u32), 1000_u32..1064])
            .prop_map(move |(priority, selector, table)| Rule { priority, family, selector, table })
    })
}

/// A rule as the kernel describes it.
fn described(rule: &Rule) -> RuleMessage {
    let mut message = build(&normal(rule));
    if rule.selector != Selector::AllButDefault {
        message.attributes.push(RuleAttribute::SuppressPrefixLen(NO_SUPPRESSION));
    }
    message
}

proptest! {
    #[test]
    fn a_rule_comes_back_from_the_kernel_as_it_was(rule in rule()) {
        prop_assert_eq!(parse(&described(&rule)), Some(normal(&rule)));
    }

    #[test]
    fn the_operations_lead_from_what_is_there_to_what_is_planned(
        there in vec(rule(), 0..8),
        planned in btree_set(rule(), 0..8),
    ) {
        let observed: Vec<_> = there.iter().map(described).collect();
        let mut kernel = observed.clone();
        for operation in diff(&observed, &planned) {
            match operation {
                Operation::Add(rule) => {
                    prop_assert!(kernel.iter().all(|known| parse(known) != Some(rule.clone())));
                    kernel.push(described(&rule));
                }
                Operation::Delete(message) => {
                    let position = kernel.iter().position(|known| *known == message).expect("it is there");
                    kernel.remove(position);
                }
            }
        }
        let wanted: BTreeSet<_> = planned.iter().map(normal).collect();
        prop_assert_eq!(kernel.len(), wanted.len());
        prop_assert_eq!(kernel.iter().filter_map(parse).collect::<BTreeSet<_>>(), wanted);
        prop_assert!(diff(&kernel, &planned).is_empty());
    }

    #[test]
    fn nothing_is_deleted_before_everything_is_in_place(
        there in vec(rule(), 0..8),
        planned in btree_set(rule(), 0..8),
    ) {
        let observed: Vec<_> = there.iter().map(described).collect();
        let operations = diff(&observed, &planned);
        prop_assert!(operations.is_sorted_by_key(|operation| matches!(operation, Operation::Delete(_))));
    }
}

#[test]
fn a_rule_that_does_more_than_ours_is_not_taken_for_one() {
    let rule = Rule { priority: 10_000, family: Family::V4, selector: Selector::All, table: 1000 };
    let mut inverted = described(&rule);
    inverted.header.flags |= RuleFlags::Invert;
    let mut narrowed = described(&rule);
    narrowed.attributes.push(RuleAttribute::Iifname("eth0".to_owned()));
    let mut unspecific = described(&rule);
    unspecific.header.action = RuleAction::Unspec;
    for message in [inverted, narrowed, unspecific] {
        assert_eq!(parse(&message), None);
        let planned = BTreeSet::from([rule.clone()]);
        let operations = diff(std::slice::from_ref(&message), &planned);
        assert_eq!(operations, [Operation::Add(rule.clone()), Operation::Delete(message)]);
    }
}
