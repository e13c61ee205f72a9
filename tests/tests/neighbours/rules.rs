//! Two hundred routing rules of others, with tables of their own: before ours, between ours and behind them.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use balance_lab::addresses::SERVER_PORT;
use balance_lab::checks::SOON;
use balance_lab::{Family, Flow, Host, KINDS, Lab};

/// Of each family.
const RULES: u16 = 100;
/// Of our rules the last one has this priority; it takes all that no rule before it has taken.
const OUR_LAST: u32 = 10_900;

/// All rules lead to networks by DSL.
pub(crate) fn add(lab: &Lab) {
    let dsl = lab.isp("DSL");
    for family in Family::ALL {
        let (option, gateway): (_, IpAddr) = match family {
            Family::V4 => ("-4", dsl.gateway_v4().into()),
            Family::V6 => ("-6", dsl.gateway_v6().into()),
        };
        let rules = (0..RULES).map(|number| {
            let (priority, table, network) = (priority(number), 3000 + number, network(number, family));
            format!(
                "route add default via {gateway} dev dsl0 table {table}
                 rule add to {network} lookup {table} pref {priority}\n"
            )
        });
        lab.router().feed("ip", &[option, "-batch", "-"], &rules.collect::<String>()).unwrap();
    }
    let here = (0..RULES).flat_map(|number| Family::ALL.map(|family| network(number, family)));
    let here: Vec<_> = here.map(|network| format!("route add local {network} dev lo")).collect();
    lab.internet().ip(&here).unwrap();
}

/// Half of them come before ours; some have the very priorities of ours.
fn priority(number: u16) -> u32 {
    match u32::from(number) {
        before @ 0..50 => 9_000 + 20 * before,
        between @ 50..80 => 10_000 + 50 * (between - 50),
        behind => 10_900 + 200 * (behind - 80),
    }
}

fn network(number: u16, family: Family) -> String {
    match family {
        Family::V4 => format!("198.18.{number}.0/24"),
        Family::V6 => format!("2001:db8:18{number:02}::/48"),
    }
}

fn address(number: u16, family: Family) -> SocketAddr {
    let address: IpAddr = match family {
        Family::V4 => format!("198.18.{number}.1").parse().unwrap(),
        Family::V6 => format!("2001:db8:18{number:02}::1").parse().unwrap(),
    };
    SocketAddr::new(address, SERVER_PORT)
}

/// The ways of the networks for what a container sends. While we balance, without those whose rules stand behind our last one.
pub(crate) fn all_hold(lab: &Lab, balancing: bool) {
    let numbers = || (0..RULES).filter(|&number| !balancing || priority(number) <= OUR_LAST);
    let asks = numbers().flat_map(|number| {
        [("172.17.0.2", Family::V4), ("fd17::2", Family::V6)].map(|(from, family)| {
            format!("route get {} from {from} iif docker0\n", address(number, family).ip())
        })
    });
    let asks: Vec<_> = asks.collect();
    let told = lab.router().feed("ip", &["-o", "-batch", "-"], &asks.concat()).unwrap();
    assert_eq!(told.lines().count(), asks.len());
    let of = |number| format!(" table {} ", 3000 + number);
    for (line, number) in told.lines().zip(numbers().flat_map(|number| [number; 2])) {
        assert!(line.contains(" dev dsl0 ") && format!("{line} ").contains(&of(number)), "{line}");
    }
}

/// Connections from a machine to networks of rules with priorities below these.
pub(crate) fn connections(lab: &Lab, from: &Host, below: u32) -> Vec<Flow> {
    let mut flows = Vec::new();
    for number in (0..RULES).step_by(7).filter(|&number| priority(number) < below) {
        for (transport, family) in KINDS {
            let to = address(number, family);
            let what = || format!("{transport:?} from {} to {to}", from.name());
            let mut flow = Flow::open_to(from, transport, to, SOON).with_context(what).unwrap();
            assert_eq!(flow.ask().with_context(what).unwrap(), lab.isp("DSL").address(family), "{}", what());
            flows.push(flow);
        }
    }
    flows
}
