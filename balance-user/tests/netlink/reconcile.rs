//! What the reconcilers do to the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};

use balance_common::Family;
use balance_user::core::plan::{KernelPlan, NextHop, Route, Rule, Selector};
use balance_user::netlink::{NetlinkError, commands::commands, remove_all, routes, rules};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::namespace::{everything, in_namespace, ip, veth};

const TABLES: RangeInclusive<u32> = 1000..=1063;
const PRIORITIES: Range<u32> = 10_000..11_000;

/// Hears of every change to routes and rules of this namespace.
struct Monitor(Socket);

impl Monitor {
    fn start() -> Self {
        let groups = libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_ROUTE
            | 1 << (libc::RTNLGRP_IPV4_RULE - 1)
            | 1 << (libc::RTNLGRP_IPV6_RULE - 1);
        let mut socket = Socket::new(NETLINK_ROUTE).expect("a socket");
        socket.bind(&SocketAddr::new(0, groups.cast_unsigned())).expect("groups to join");
        Self(socket)
    }

    /// The kinds of the messages since it was last asked.
    fn heard(&self) -> Vec<u16> {
        let mut kinds = Vec::new();
        let mut buffer = Vec::with_capacity(65_536);
        while self.0.recv(&mut buffer, libc::MSG_DONTWAIT).is_ok() {
            kinds.push(u16::from_ne_bytes([buffer[4], buffer[5]]));
            buffer.clear();
        }
        kinds
    }
}

fn hop(index: u32, gateway: &str, weight: u16) -> NextHop {
    let gateway = (!gateway.is_empty()).then(|| gateway.parse().expect("an address"));
    NextHop { index, gateway, onlink: false, weight }
}

fn route(next_hops: &[NextHop]) -> Route {
    Route { next_hops: next_hops.to_vec() }
}

/// Every form of route and rule.
fn plan(cable: u32, dsl: u32) -> KernelPlan {
    let both_ways = |family, one, other| {
        [
            ((1000, family), route(&[hop(cable, one, 3), hop(dsl, other, 1)])),
            ((1001, family), route(&[hop(cable, one, 1)])),
            ((1002, family), route(&[hop(dsl, "", 1)])),
        ]
    };
    let mut routes = BTreeMap::from(both_ways(Family::V4, "10.1.0.1", "10.2.0.1"));
    routes.extend(both_ways(Family::V6, "fe80::1", "2001:db8:2::1"));
    let onlink = |index, gateway, weight| NextHop { onlink: true, ..hop(index, gateway, weight) };
    routes.insert((1003, Family::V4), route(&[onlink(cable, "192.0.2.1", 1)]));
    routes.insert((1003, Family::V6), route(&[onlink(cable, "2001:db8:ffff::1", 1)]));
    routes.insert((1004, Family::V4), route(&[onlink(cable, "192.0.2.1", 256), hop(dsl, "", 5)]));
    routes.insert((1005, Family::V4), route(&[hop(cable, "fe80::1", 1)]));
    routes.insert((1006, Family::V4), route(&[hop(cable, "", 7), hop(dsl, "", 5)]));
    routes.insert((1006, Family::V6), route(&[hop(cable, "", 5), hop(dsl, "", 7)]));
    let mut rules = BTreeSet::new();
    for (family, prefix) in [(Family::V4, "10.1.0.2/32"), (Family::V6, "2001:db8:1::/64")] {
        let selectors = [
            (Selector::AllButDefault, 254),
            (Selector::Mark { value: 0x100, mask: 0x3f00 }, 1001),
            (Selector::Mark { value: 0x200, mask: 0x3f00 }, 1002),
            (Selector::Mark { value: 0, mask: 0x3f00 }, 200),
            (Selector::From(prefix.parse().expect("a prefix")), 1001),
            (Selector::OutputDevice("cable".to_owned()), 1001),
            (Selector::OutputDevice("not-there".to_owned()), 1002),
            (Selector::All, 1000),
        ];
        rules.extend((10_000..).step_by(10).zip(selectors).map(|(priority, (selector, table))| Rule {
            priority,
            family,
            selector,
            table,
        }));
    }
    KernelPlan { routes, rules, ..KernelPlan::default() }
}

async fn reconcile(plan: &KernelPlan) -> Vec<NetlinkError> {
    let mut errors = routes::reconcile(&plan.routes, TABLES).await;
    errors.extend(rules::reconcile(&plan.rules, PRIORITIES).await);
    errors
}

async fn assert_in_place(plan: &KernelPlan) {
    let observed = routes::observe(TABLES).await.expect("routes");
    assert_eq!(routes::diff(&observed, &plan.routes), []);
    let observed = rules::observe(PRIORITIES).await.expect("rules");
    assert_eq!(rules::diff(&observed, &plan.rules), []);
}

#[test]
fn a_plan_is_put_in_place_once_and_taken_away_without_a_trace() {
    in_namespace(|| async {
        let (cable, dsl) = (veth("cable", 1), veth("dsl", 2));
        let plan = plan(cable, dsl);
        let before = everything();

        assert!(reconcile(&plan).await.is_empty());
        assert_in_place(&plan).await;
        let monitor = Monitor::start();
        assert!(reconcile(&plan).await.is_empty());
        assert_eq!(monitor.heard(), [0_u16; 0], "it was in place already");

        assert!(remove_all(TABLES, PRIORITIES).await.is_empty());
        assert_eq!(everything(), before);
    });
}

#[test]
fn the_commands_of_a_dry_run_put_the_plan_in_place() {
    in_namespace(|| async {
        let (cable, dsl) = (veth("cable", 1), veth("dsl", 2));
        let plan = plan(cable, dsl);
        let name = |index| if index == cable { "cable".to_owned() } else { "dsl".to_owned() };
        for command in commands(&plan, name) {
            ip(command.strip_prefix("ip ").expect("a command of ip"));
        }
        assert_in_place(&plan).await;
        let monitor = Monitor::start();
        assert!(reconcile(&plan).await.is_empty());
        assert_eq!(monitor.heard(), [0_u16; 0]);
    });
}

#[test]
fn a_route_is_replaced_in_one_step() {
    in_namespace(|| async {
        let (cable, dsl) = (veth("cable", 1), veth("dsl", 2));
        for (family, one, other) in [(Family::V4, "10.1.0.1", "10.2.0.1"), (Family::V6, "fe80::1", "fe80::2")]
        {
            let steps = [
                route(&[hop(cable, one, 1), hop(dsl, other, 1)]),
                route(&[hop(cable, one, 1)]),
                route(&[hop(cable, one, 9), hop(dsl, other, 2)]),
                route(&[hop(dsl, other, 1)]),
                route(&[hop(cable, "", 1)]),
                route(&[hop(dsl, other, 1)]),
            ];
            let planned = |route: &Route| BTreeMap::from([((1000, family), route.clone())]);
            assert!(routes::reconcile(&planned(&route(&[hop(dsl, "", 1)])), TABLES).await.is_empty());
            for step in steps {
                let monitor = Monitor::start();
                assert!(routes::reconcile(&planned(&step), TABLES).await.is_empty());
                assert_eq!(monitor.heard(), [libc::RTM_NEWROUTE], "{step:?}");
                let observed = routes::observe(TABLES).await.expect("routes");
                assert_eq!(observed, [routes::installed(1000, family, &step).expect("it leads somewhere")]);
            }
            assert!(routes::reconcile(&BTreeMap::new(), TABLES).await.is_empty());
        }
    });
}

#[test]
fn what_is_not_ours_stays_as_it_is() {
    in_namespace(|| async {
        let (cable, dsl) = (veth("cable", 1), veth("dsl", 2));
        // The administrator's, another instance's, and things that differ from ours in just one respect.
        ip("route add default via 10.1.0.1 dev cable");
        ip("route add 192.0.2.0/24 dev cable proto 201");
        ip("route add default via 10.1.0.1 dev cable table 1064 proto 201");
        ip("-6 route add default via fe80::1 dev cable table 999 proto 201");
        ip("route add 198.51.100.0/24 via 10.1.0.1 dev cable table 1001");
        ip("route add default via 10.1.0.9 dev cable table 1001 metric 7");
        ip("-6 route add default via fe80::9 dev cable table 1001 metric 7");
        ip("rule add priority 9999 from all lookup 1000 protocol 201");
        ip("rule add priority 11000 from all lookup 1000 protocol 201");
        ip("rule add priority 10500 from all lookup 1000");
        ip("-6 rule add priority 10020 from all fwmark 0x200/0x3f00 lookup 1002 protocol 5");
        let before = everything();
        let mut plan = plan(cable, dsl);
        assert!(reconcile(&plan).await.is_empty());
        // A stale rule that the kernel could take for its neighbour.
        plan.rules.insert(Rule {
            priority: 10_500,
            family: Family::V4,
            selector: Selector::AllButDefault,
            table: 1000,
        });
        assert!(reconcile(&plan).await.is_empty());
        assert!(remove_all(TABLES, PRIORITIES).await.is_empty());
        assert_eq!(everything(), before);
    });
}

#[test]
fn somebody_elses_route_is_not_replaced() {
    in_namespace(|| async {
        let cable = veth("cable", 1);
        ip("route add default via 10.1.0.9 dev cable table 1001");
        let before = everything();
        let planned = BTreeMap::from([((1001, Family::V4), route(&[hop(cable, "10.1.0.1", 1)]))]);
        let errors = routes::reconcile(&planned, TABLES).await;
        assert_eq!(errors.len(), 1);
        assert!(matches!(&errors[0], NetlinkError::Refused { refusal, .. } if refusal.errno == libc::EEXIST));
        assert_eq!(everything(), before);
    });
}

#[test]
fn one_failure_does_not_stop_the_rest_and_says_what_failed() {
    in_namespace(|| async {
        let (cable, dsl) = (veth("cable", 1), veth("dsl", 2));
        let whole = plan(cable, dsl);
        let mut broken = whole.clone();
        ip("route add default via 10.1.0.1 dev cable table 1009 proto 201");
        broken.routes.insert((1000, Family::V4), route(&[hop(9999, "10.1.0.1", 1)]));
        broken.routes.insert((1001, Family::V6), route(&[hop(9999, "fe80::1", 1)]));
        let errors = reconcile(&broken).await;
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].starts_with("cannot add the route to 0.0.0.0/0 in table 1000: "), "{texts:?}");
        assert!(texts[1].starts_with("cannot add the route to ::/0 in table 1001: "), "{texts:?}");
        let observed = routes::observe(TABLES).await.expect("routes");
        assert_eq!(observed.len(), whole.routes.len() - 2);
        assert!(!observed.iter().any(|route| route.table == 1009), "what is stale is gone all the same");
    });
}

#[test]
fn routes_that_went_with_their_device_are_made_again() {
    in_namespace(|| async {
        let (cable, dsl) = (veth("cable", 1), veth("dsl", 2));
        let plan = plan(cable, dsl);
        assert!(reconcile(&plan).await.is_empty());
        ip("link set cable down");
        ip("link set cable up");
        ip("addr replace 2001:db8:1::2/64 dev cable nodad");
        assert!(reconcile(&plan).await.is_empty());
        assert_in_place(&plan).await;
    });
}

#[test]
fn rules_that_the_kernel_confuses_are_sorted_out() {
    in_namespace(|| async {
        let rule = |selector| Rule { priority: 10_000, family: Family::V4, selector, table: 1000 };
        let forms = [
            Selector::All,
            Selector::AllButDefault,
            Selector::Mark { value: 1, mask: 1 },
            Selector::OutputDevice("lo".to_owned()),
        ];
        for one in &forms {
            for other in &forms {
                let first = BTreeSet::from([rule(one.clone()), rule(other.clone())]);
                let then = BTreeSet::from([rule(other.clone())]);
                for planned in [first, then] {
                    assert!(rules::reconcile(&planned, PRIORITIES).await.is_empty(), "{one:?} {other:?}");
                    let observed = rules::observe(PRIORITIES).await.expect("rules");
                    assert_eq!(rules::diff(&observed, &planned), []);
                }
            }
        }
    });
}
