//! What is found out about devices of a real kernel.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};

use balance_lab::{Host, ready};
use balance_user::config::Attach;
use balance_user::core::plan::{Attachment, Role};
use balance_user::datapath::{Datapath, Pins};
use balance_user::devices::{Facts, look};
use nix::net::if_::if_nametoindex;

const BASIC_AND_REDIRECT: u64 = 3;

/// A machine with a veth pair, `eth0` and `far0`, that is up.
fn machine() -> Option<Host> {
    let host = ready().then(|| Host::new("test").unwrap())?;
    host.sh("ip link add eth0 type veth peer name far0; ip link set eth0 up; ip link set far0 up").unwrap();
    Some(host)
}

fn index(device: &str) -> u32 {
    if_nametoindex(device).unwrap()
}

fn look_at(host: &Host, device: &str, ours: &BTreeSet<u32>) -> Option<Facts> {
    host.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(look(index(device), ours)).unwrap()
    })
}

fn facts(host: &Host, device: &str) -> Facts {
    look_at(host, device, &BTreeSet::new()).unwrap()
}

fn qdiscs(host: &Host, device: &str) -> Vec<String> {
    facts(host, device).qdiscs.into_iter().collect()
}

fn has_netdev_family(host: &Host) -> bool {
    facts(host, "lo").xdp_features.is_some()
}

#[test]
fn a_veth_can_do_xdp_and_is_known_as_virtual() {
    let Some(host) = machine() else { return };
    let facts = facts(&host, "eth0");
    let xdp_features = facts.xdp_features;
    let expected = Facts {
        name: "eth0".to_owned(),
        ethernet: true,
        kind: Some("veth".to_owned()),
        xdp_features,
        qdiscs: ["noqueue".to_owned()].into(),
        foreign: None,
    };
    assert_eq!(facts, expected);
    if has_netdev_family(&host) {
        assert_eq!(xdp_features.map(|features| features & 7), Some(BASIC_AND_REDIRECT));
    }
}

#[test]
fn kinds_of_devices_and_their_headers_are_told_apart() {
    let Some(host) = machine() else { return };
    host.sh("ip tuntap add tun0 mode tun; ip tuntap add tap0 mode tap; ip link add br0 type bridge").unwrap();
    let found: BTreeMap<_, _> = ["lo", "tun0", "tap0", "br0"]
        .into_iter()
        .map(|device| {
            let facts = facts(&host, device);
            (device, (facts.ethernet, facts.kind.unwrap_or_default()))
        })
        .collect();
    let expected = [
        ("lo", (false, String::new())),
        ("tun0", (false, "tun".to_owned())),
        ("tap0", (true, "tun".to_owned())),
        ("br0", (true, "bridge".to_owned())),
    ];
    assert_eq!(found, expected.into());
    if has_netdev_family(&host) {
        let can = |device| facts(&host, device).xdp_features.unwrap() & BASIC_AND_REDIRECT;
        assert_eq!(["lo", "tun0", "br0"].map(can), [0; 3]);
    }
}

#[test]
fn a_device_that_is_gone_is_none() {
    let Some(host) = machine() else { return };
    host.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(look(4_711, &BTreeSet::new())).unwrap(), None);
        assert_eq!(runtime.block_on(balance_user::netlink::xdp_features(4_711)).unwrap(), None);
    });
}

#[test]
fn qdiscs_are_those_that_packets_leave_through() {
    let Some(host) = machine() else { return };
    host.sh("tc qdisc add dev eth0 clsact").unwrap();
    assert_eq!(qdiscs(&host, "eth0"), ["noqueue"]);
    host.sh("tc qdisc add dev far0 root handle 1: tbf rate 1mbit burst 10k latency 10ms").unwrap();
    assert_eq!(qdiscs(&host, "far0"), ["tbf"]);
    host.sh("tc qdisc add dev far0 parent 1:1 pfifo").unwrap();
    assert_eq!(qdiscs(&host, "far0"), ["pfifo", "tbf"]);
}

#[test]
fn filters_of_others_are_seen_on_the_way_in_only() {
    let Some(host) = machine() else { return };
    let filter = "protocol all prio 49 u32 match u32 0 0 flowid 1:1";
    host.sh(&format!("tc qdisc add dev eth0 clsact; tc filter add dev eth0 egress {filter}")).unwrap();
    assert_eq!(facts(&host, "eth0").foreign, None);
    host.sh(&format!("tc filter add dev eth0 ingress {filter}")).unwrap();
    let seen = Some("another filter (priority 49, kind u32)");
    assert_eq!(facts(&host, "eth0").foreign.as_deref(), seen);
    // The older kind of qdisc for this, as for shaping what comes in.
    host.sh(&format!("tc qdisc add dev far0 ingress; tc filter add dev far0 parent ffff: {filter}")).unwrap();
    assert_eq!(facts(&host, "far0").foreign.as_deref(), seen);
    assert_eq!(qdiscs(&host, "far0"), ["noqueue"]);
}

/// Attaches the programs of an instance to eth0.
fn attach(host: &Host, instance: &str, attach: Attach) {
    host.run(|| {
        let mut datapath =
            Datapath::load(Pins::of(instance), attach, format!("/run/{instance}").into(), 1024).unwrap();
        let lan =
            Attachment { index: index("eth0"), device: "eth0".to_owned(), role: Role::Lan, ethernet: true };
        let errors = datapath.attach(&[lan].into());
        assert!(errors.is_empty(), "{errors:?}");
    });
}

#[test]
fn our_programs_are_told_from_those_of_others() {
    let Some(host) = machine() else { return };
    for kind in [Attach::Clsact, Attach::Tcx] {
        attach(&host, "main", kind);
        let ours = host.run(|| Pins::of("main").programs());
        assert_eq!(ours.is_empty(), kind == Attach::Clsact);
        assert_eq!(look_at(&host, "eth0", &ours).unwrap().foreign, None, "{kind:?}");
    }
    attach(&host, "other", Attach::Tcx);
    let [ours, others] = ["main", "other"].map(|instance| host.run(|| Pins::of(instance).programs()));
    for (ours, others) in [(&ours, &others), (&others, &ours)] {
        let id = others.first().unwrap();
        let foreign = format!("another program (id {id}, name lan_ingress)");
        assert_eq!(look_at(&host, "eth0", ours).unwrap().foreign, Some(foreign));
    }
    let both = ours.union(&others).copied().collect();
    assert_eq!(look_at(&host, "eth0", &both).unwrap().foreign, None);
}
