use std::net::IpAddr;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

const TABLES: RangeInclusive<u32> = 1000..=1003;

fn next_hop(family: Family) -> impl Strategy<Value = NextHop> {
    let gateway = (1_u8..4).prop_map(move |last| match family {
        Family::V4 => IpAddr::from([10, 0, 0, last]),
        Family::V6 => IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, u16::from(last)]),
    });
    (1_u32..4, proptest::option::of(gateway), any::<bool>(), 1_u16..300)
        .prop_map(|(index, gateway, onlink, weight)| NextHop { index, gateway, onlink, weight })
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn planned() -> impl Strategy<Value = Planned> {
    let entry = (TABLES, family()).prop_flat_map(|(table, family)| {
        vec(next_hop(family), 1..4).prop_map(move |next_hops| ((table, family), Route { next_hops }))
    });
    vec(entry, 0..6).prop_map(|entries| entries.into_iter().collect())
}

/// Routes of ours, as planned once or as nobody would have planned them.
fn observed() -> impl Strategy<Value = Vec<Installed>> {
    let odd =
        (TABLES, family(), 0_u32..3, any::<bool>()).prop_flat_map(|(table, family, metric, default)| {
            vec(next_hop(family), 0..3).prop_map(move |next_hops| Installed {
                table,
                family,
                destination: if default { everywhere(family) } else { "192.0.2.0/24".parse().unwrap() },
                metric: metric * 512,
                kind: if next_hops.is_empty() { RouteType::BlackHole } else { RouteType::Unicast },
                next_hops,
            })
        });
    (planned(), vec(odd, 0..4)).prop_map(|(planned, odd)| {
        let regular = planned.iter().filter_map(|(&(table, family), route)| installed(table, family, route));
        regular.chain(odd).collect()
    })
}

/// What the kernel does: an addition needs an empty slot, a replacement takes the first of its slot.
fn carry_out(kernel: &mut Vec<Installed>, operation: Operation) {
    let find = |kernel: &[Installed], route| kernel.iter().position(|known| is_same_slot(known, route));
    match operation {
        Operation::Add(route) => {
            assert_eq!(find(kernel, &route), None, "would fail with EEXIST");
            kernel.push(route);
        }
        Operation::Replace(route) => {
            let position = find(kernel, &route).expect("there is one to replace");
            kernel[position] = route;
        }
        Operation::Delete(route) => {
            let position = kernel.iter().position(|known| *known == route).expect("it is there");
            kernel.remove(position);
        }
    }
}

proptest! {
    #[test]
    fn the_operations_lead_from_what_is_there_to_what_is_planned(observed in observed(), planned in planned()) {
        let mut kernel = observed.clone();
        for operation in diff(&observed, &planned) {
            carry_out(&mut kernel, operation);
        }
        let mut wanted: Vec<_> = planned
            .iter()
            .filter_map(|(&(table, family), route)| installed(table, family, route))
            .collect();
        prop_assert!(diff(&kernel, &planned).is_empty());
        let order = |route: &Installed| (route.table, route.family);
        kernel.sort_by_key(order);
        wanted.sort_by_key(order);
        prop_assert_eq!(kernel, wanted);
    }

    #[test]
    fn nothing_is_deleted_before_everything_is_in_place(observed in observed(), planned in planned()) {
        let operations = diff(&observed, &planned);
        let is_delete = |operation: &Operation| matches!(operation, Operation::Delete(_));
        prop_assert!(operations.is_sorted_by_key(is_delete));
        for operation in &operations {
            if let Operation::Delete(route) = operation {
                prop_assert!(observed.contains(route));
            }
        }
    }

    #[test]
    fn a_route_survives_the_way_through_a_message(planned in planned()) {
        for (&(table, family), route) in &planned {
            let installed = installed(table, family, route).unwrap();
            prop_assert_eq!(parse(&build(&installed)), Some(installed));
        }
    }

    #[test]
    fn a_slot_with_a_route_is_never_empty_in_between(
        routes in btree_map(Just((1000, Family::V4)), vec(next_hop(Family::V4), 1..4), 1),
        later in vec(next_hop(Family::V4), 1..4),
    ) {
        let route = |next_hops| Route { next_hops };
        let before: Vec<_> = routes.into_values().filter_map(|hops| installed(1000, Family::V4, &route(hops))).collect();
        let planned = Planned::from([((1000, Family::V4), route(later))]);
        let mut kernel = before.clone();
        for operation in diff(&before, &planned) {
            carry_out(&mut kernel, operation);
            prop_assert!(!kernel.is_empty());
        }
    }
}

#[test]
fn ipv6_next_hops_without_a_gateway_do_not_share() {
    let hop = |index, gateway: Option<&str>, weight| NextHop {
        index,
        gateway: gateway.map(|address| address.parse().unwrap()),
        onlink: false,
        weight,
    };
    let indexes = |next_hops| {
        let route = installed(1000, Family::V6, &Route { next_hops }).unwrap();
        route.next_hops.iter().map(|hop| hop.index).collect::<Vec<_>>()
    };
    assert_eq!(indexes(vec![hop(1, None, 1), hop(2, None, 3)]), [2]);
    assert_eq!(indexes(vec![hop(1, None, 9), hop(2, Some("fe80::1"), 1)]), [2]);
    assert_eq!(indexes(vec![hop(2, Some("fe80::1"), 1), hop(1, Some("fe80::1"), 1)]), [1, 2]);
}

#[test]
fn routes_of_others_are_not_taken_for_ours() {
    let route = Route { next_hops: vec![NextHop { index: 1, gateway: None, onlink: false, weight: 1 }] };
    let mut message = build(&installed(1000, Family::V4, &route).unwrap());
    assert!(parse(&message).is_some());
    message.header.protocol = RouteProtocol::Static;
    assert_eq!(parse(&message), None);
}
