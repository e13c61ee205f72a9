//! Labs of several shapes, and their machines.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use balance_lab::{Dump, Flow, Host, IspSpec, KINDS, Lab, ready};

use crate::support::{NEVER, SOON, asks, by_cable, plain_lab, route_by_hand};

#[test]
fn two_labs_do_not_disturb_each_other() {
    if !ready() {
        return;
    }
    let (one, two) = (plain_lab().unwrap(), plain_lab().unwrap());
    one.isp("CABLE").die_silently().unwrap();
    one.router().sh("mkdir /run/balance /sys/fs/bpf/balance; nft add table inet mine").unwrap();
    assert!(!asks(&one, by_cable(), NEVER));
    assert!(asks(&two, by_cable(), SOON));
    two.router().sh("! ls /run/balance; ! ls /sys/fs/bpf/balance; ! nft list table inet mine").unwrap();
    assert!(!Path::new("/run/balance").exists() && !Path::new("/sys/fs/bpf/balance").exists());
}

#[test]
fn several_lan_hosts_and_isps_share_a_router() {
    if !ready() {
        return;
    }
    let lab = Lab::builder()
        .lan_hosts(2)
        .isp(IspSpec::new("CABLE"))
        .isp(IspSpec::new("DSL").v4_only())
        .isp(IspSpec::new("LTE").weight(5))
        .build()
        .unwrap();
    route_by_hand(&lab).unwrap();
    for host in lab.lan_hosts() {
        for (transport, family) in KINDS {
            let mut flow = Flow::open(host, transport, family, SOON).unwrap();
            assert_eq!(flow.ask().unwrap(), lab.isp("CABLE").address(family));
        }
    }
    assert!(!lab.router().sh("ip -6 addr show dsl0").unwrap().contains("2001:"));
    let config = lab.config();
    assert!(config.contains("name = \"LTE\"\ndevice = \"lte0\"\nweight = 5\n"), "{config}");
    assert!(config.contains("device = \"dsl0\"\nweight = 1\ntargets = [\"203.0.113.1\"]\n"), "{config}");
}

#[test]
fn without_default_routes_the_router_has_none() {
    if !ready() {
        return;
    }
    let lab = Lab::builder().default_routes(false).build().unwrap();
    assert_eq!(lab.router().sh("ip route show default; ip -6 route show default").unwrap(), "");
}

#[test]
fn a_dump_is_the_same_after_traffic_and_tells_every_change() {
    if !ready() {
        return;
    }
    let lab = plain_lab().unwrap();
    let before = Dump::take(lab.router()).unwrap();
    for (transport, family) in KINDS {
        Flow::open(lab.lan(), transport, family, SOON).unwrap().ask().unwrap();
    }
    assert_eq!(before.diff(&Dump::take(lab.router()).unwrap()), Vec::<String>::new());

    let changes = [
        ("ip rule add fwmark 0x100 table 1001 priority 10001", "+ rules v4: 10001:"),
        ("ip -6 rule add fwmark 0x100 table 1001 priority 10001", "+ rules v6: 10001:"),
        ("ip route add 198.51.100.0/24 via 100.64.1.1 table 1001", "+ routes v4: 198.51.100.0/24"),
        ("ip -6 route add 2001:db8:5::/64 via 2001:db8:1::1 table 1001", "+ routes v6: 2001:db8:5::/64"),
        ("nft add table inet balance", "+ nft: table inet balance"),
        (
            "echo 2 > /proc/sys/net/ipv4/conf/cable0/rp_filter",
            "- sysctls: /proc/sys/net/ipv4/conf/cable0/rp_filter = 0",
        ),
        ("tc qdisc add dev lan0 clsact", "+ qdiscs: qdisc clsact"),
        (
            "mkdir -p /run/balance/main; echo > /run/balance/main/lock",
            "+ /run/balance: /run/balance/main/lock",
        ),
        ("ip link set dsl0 mtu 1400", "+ links: "),
        ("echo 1001 CABLE > /etc/iproute2/new.conf", "+ /etc/iproute2/new.conf: 1001 CABLE"),
    ];
    for (change, expected) in changes {
        let before = Dump::take(lab.router()).unwrap();
        lab.router().sh(change).unwrap();
        let diff = before.diff(&Dump::take(lab.router()).unwrap());
        assert!(diff.iter().any(|line| line.starts_with(expected)), "{change}: {diff:#?}");
    }
}

#[test]
fn a_command_that_fails_tells_what_it_said() {
    if !ready() {
        return;
    }
    let host = Host::new("alone").unwrap();
    let error = format!("{:#}", host.sh("ip link show nothing; true").unwrap_err());
    assert!(error.contains("nothing") && error.contains("does not exist"), "{error}");
    assert!(host.sysctls(&[("net.ipv4.no_such_thing", "1")]).is_err());
    let must = "must".to_owned();
    let panic = catch_unwind(AssertUnwindSafe(|| host.run(|| panic!("as it {must}"))));
    assert!(panic.unwrap_err().downcast_ref::<String>().unwrap().contains("as it must"));
}
