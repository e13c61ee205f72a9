//! What the daemon believes of where flows go, against where the program sends them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use balance_common::{Family, Flow, Sticky};
use balance_lab::{LOOPBACK, ready};
use balance_user::config::Config;
use balance_user::config::policy::{MemberConfig, PolicyConfig};
use balance_user::core::Core;
use balance_user::core::network::{Address, DefaultRoute, Link, Network};
use balance_user::daemon::clock;
use balance_user::sysctl::SysctlFacts;

use crate::kernel::SEED;
use crate::mutated::Random;
use crate::rules::{Kernel, POLICIES, rule, sample, some};

const ISPS: u8 = 6;

/// The loopback device, by which the packets come, is the LAN of half of the sources there are.
fn network(random: &mut Random) -> Network {
    let mut network = Network::default();
    let mut plug = |index: u32, name: String, carrier: bool, addresses: [String; 2]| {
        let (up, ethernet, point_to_point) = (true, true, false);
        network.links.insert(index, Link { index, name, up, carrier, ethernet, point_to_point });
        let address = |text: String| Address { index, net: text.parse().unwrap(), peer: None };
        network.addresses.extend(addresses.map(address));
    };
    plug(LOOPBACK, "lan0".to_owned(), true, ["10.0.0.1/15".to_owned(), "2001:db8::1/47".to_owned()]);
    for number in 0..ISPS {
        let carrier = random.below(5) > 0;
        let addresses = [format!("100.64.{number}.2/24"), format!("fd00:{number}::2/64")];
        plug(100 + u32::from(number), format!("isp{number}"), carrier, addresses);
    }
    for number in 0..ISPS {
        for (family, gateway) in
            [(Family::V4, format!("100.64.{number}.1")), (Family::V6, format!("fd00:{number}::1"))]
        {
            let gateway: Option<IpAddr> = Some(gateway.parse().unwrap());
            let index = 100 + u32::from(number);
            network.defaults.insert(DefaultRoute { family, table: 254, metric: 1, index, gateway });
        }
    }
    network
}

fn config(random: &mut Random) -> Config {
    let mut text = "lan = [{ name = \"LAN\", device = \"lan0\" }]\n".to_owned();
    for number in 0..ISPS {
        let weight = 1 + random.below(9);
        write!(
            text,
            "[[isp]]\nname = \"I{number}\"\ndevice = \"isp{number}\"\nweight = {weight}\ntargets = []\n"
        )
        .unwrap();
    }
    let mut config = Config::parse(&text, Path::new("x")).unwrap();
    config.policies = (0..POLICIES).map(|place| policy(random, place)).collect();
    let count = [0, 1, 5, 30, 200][random.below(5)];
    config.rules = (0..count).map(|_| rule(random)).collect();
    // Where they ask for DSCPs nothing is known.
    let asking = random.below(3);
    for rule in &mut config.rules {
        if asking == 0 || random.below(20) > 0 {
            rule.dscps.clear();
        }
    }
    config
}

fn policy(random: &mut Random, place: u8) -> PolicyConfig {
    let first = random.below(usize::from(ISPS));
    let others = some(random, |random| random.below(usize::from(ISPS)));
    let members = std::iter::once(first).chain(others.into_iter().filter(|&other| other != first));
    let mut members: Vec<MemberConfig> = members
        .map(|number| MemberConfig { isp: format!("I{number}"), weight: None, tier: Some(byte(random, 2)) })
        .collect();
    members.dedup_by(|one, other| one.isp == other.isp);
    PolicyConfig {
        name: if place == 0 { PolicyConfig::DEFAULT.to_owned() } else { format!("P{place}") },
        members,
        sticky: Sticky::from(byte(random, 3)),
        ..PolicyConfig::default()
    }
}

fn byte(random: &mut Random, most: usize) -> u8 {
    u8::try_from(random.below(most + 1)).unwrap()
}

/// Does the flow come from the LAN, and leave it?
fn leaves_the_lan(flow: &Flow) -> bool {
    let is_in = |address: balance_common::Address| match (flow.family, address.octets()) {
        (Family::V4, [.., network, _, _]) => network < 2,
        (Family::V6, [_, _, _, _, high, low, ..]) => high == 0 && low < 2,
    };
    is_in(flow.source) && !is_in(flow.destination)
}

#[test]
fn flows_go_where_the_daemon_believes_under_random_configs() {
    const CONFIGS: usize = 60;
    const PACKETS: usize = 500;
    if !ready() {
        return;
    }
    let mut kernel = Kernel::new();
    let mut random = Random(SEED);
    let mut known = 0;
    for number in 0..CONFIGS {
        let (config, network) = (config(&mut random), network(&mut random));
        let asks_dscp = config.rules.iter().any(|rule| !rule.dscps.is_empty());
        let mut core = Core::new(config, &BTreeMap::new(), network, clock()).unwrap();
        let _ = core.advance(Instant::now());
        kernel.plan = core.plan("main", &SysctlFacts::default()).maps;
        kernel.apply();
        let forecast = core.forecast(&kernel.plan, SEED);
        for _ in 0..PACKETS {
            let sample = sample(&mut random);
            let found = kernel.isp_of(&sample.packet);
            match forecast.isp_of(&sample.flow) {
                Some((isp, _)) => {
                    known += 1;
                    assert_eq!(found, isp.get(), "config {number}: {:?}", sample.flow);
                }
                None if asks_dscp || !leaves_the_lan(&sample.flow) => {}
                None => assert_eq!(found, 0, "config {number}: {:?}", sample.flow),
            }
        }
    }
    assert!(known > 3_000, "{known}");
}
