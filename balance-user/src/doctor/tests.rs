#![cfg(test)]

use std::path::Path;

use balance_common::Family;
use serde_json::json;

use super::*;
use crate::core::network::{Address, DefaultRoute, Link};

const CONFIG: &str = "
[[isp]]
name = \"CABLE\"
device = \"eth0\"

[[isp]]
name = \"DSL\"
device = \"ppp0\"

[[lan]]
name = \"HOME\"
device = \"eth1\"
";

fn link(index: u32, name: &str) -> (u32, Link) {
    let point_to_point = name.starts_with("ppp");
    let name = name.to_owned();
    (index, Link { index, name, up: true, carrier: true, ethernet: !point_to_point, point_to_point })
}

/// A machine that nothing is wrong with.
fn sound() -> Facts {
    let address = |index, net: &str| Address { index, net: net.parse().unwrap(), peer: None };
    let options = ["BPF_SYSCALL", "IP_MULTIPLE_TABLES", "NF_CONNTRACK", "NF_CONNTRACK_MARK", "NF_CT_NETLINK"]
        .into_iter()
        .chain(["NF_TABLES", "NFT_CT", "NFT_MASQ", "NFT_NAT", "BPF_JIT", "IP_ROUTE_MULTIPATH"])
        .chain(["IPV6_MULTIPLE_TABLES", "CGROUP_BPF", "NFT_REJECT_INET", "NFT_FIB_INET"]);
    Facts {
        is_root: true,
        config: Some(Config::parse(CONFIG, Path::new("c")).map_err(|error| error.to_string())),
        balances: true,
        has_daemon: true,
        nft_table: "balance".to_owned(),
        kernel: Kernel {
            release: "6.12.0-1-amd64".to_owned(),
            options: Some(options.map(|option| (option.to_owned(), 'm')).collect()),
            has_modules: true,
            has_btf: true,
            has_cgroup2: true,
            has_nft: true,
        },
        ruleset: Some(json!({ "nftables": [] })),
        network: Network {
            links: [link(1, "eth0"), link(2, "ppp0"), link(3, "eth1")].into(),
            addresses: [
                address(1, "192.0.2.2/24"),
                address(2, "198.51.100.7/32"),
                address(3, "192.168.1.1/24"),
            ]
            .into(),
            defaults: [DefaultRoute {
                family: Family::V4,
                table: 254,
                metric: 0,
                index: 1,
                gateway: Some("192.0.2.1".parse().unwrap()),
            }]
            .into(),
            ..Network::default()
        },
        ..Facts::default()
    }
}

fn with(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = sound();
    change(&mut facts);
    diagnose(&facts)
}

/// What this change alone makes of it: severity, what it is about, and parts of what is said and of what to do.
#[track_caller]
fn finds(change: impl FnOnce(&mut Facts), severity: Severity, about: &str, what: &str, fix: &str) {
    let findings = with(change);
    let [found] = &findings[..] else { panic!("{what}: {findings:#?}") };
    assert_eq!((found.severity, found.about), (severity, about), "{found:#?}");
    assert!(found.what.contains(what), "{found:#?} lacks {what}");
    assert!(found.fix.as_deref().unwrap_or_default().contains(fix), "{found:#?} lacks {fix}");
}

fn set(key: &'static str, value: &'static str) -> impl FnOnce(&mut Facts) {
    move |facts| drop(facts.sysctls.insert(key.to_owned(), value.to_owned()))
}

use Severity::{Note, Problem, Warning};

#[test]
fn a_sound_machine_has_no_findings() {
    assert_eq!(with(|_| {}), []);
}

#[test]
fn a_config_that_is_missing_or_wrong_a_dead_daemon_and_missing_rights_are_told() {
    finds(|facts| facts.config = None, Note, "config", "no config", "/etc/balance/balance.toml");
    let wrong = |facts: &mut Facts| facts.config = Some(Err("f:1:2: no".to_owned()));
    finds(wrong, Problem, "config", "f:1:2: no", "balance-user check");
    finds(|facts| facts.has_daemon = false, Problem, "daemon", "no daemon", "systemctl start balance");
    finds(|facts| facts.is_root = false, Note, "doctor", "without root", "sudo");
}

#[test]
fn kernels_that_lack_something_say_what_then_does_not_work() {
    let release = |release: &'static str| move |facts: &mut Facts| facts.kernel.release = release.to_owned();
    finds(release("5.10.0-9-amd64"), Problem, "kernel", "too old", "5.11");
    finds(release("5.11.0"), Note, "kernel", "clsact", "");
    finds(release("6.5.13"), Note, "kernel", "clsact", "");
    assert_eq!(with(release("6.6.0")), []);
    let without = |option: &'static str| {
        move |facts: &mut Facts| {
            facts.kernel.options.as_mut().unwrap().remove(option);
        }
    };
    finds(without("NF_CONNTRACK_MARK"), Problem, "kernel", "marks of flows", "CONFIG_NF_CONNTRACK_MARK");
    finds(without("CGROUP_BPF"), Warning, "kernel", "sockets", "CONFIG_CGROUP_BPF");
    finds(|facts| facts.kernel.has_modules = false, Problem, "kernel", "modules", "reboot");
    finds(|facts| facts.kernel.options = None, Note, "kernel", "not checked", "");
    finds(|facts| facts.kernel.has_btf = false, Warning, "kernel", "types", "BTF");
    finds(|facts| facts.kernel.has_cgroup2 = false, Warning, "kernel", "cgroup2", "mount");
    finds(|facts| facts.kernel.has_nft = false, Problem, "nft", "no command nft", "apt install");
}

#[test]
fn settings_that_break_connections_are_problems_while_it_balances() {
    const LIBERAL: &str = "net/netfilter/nf_conntrack_tcp_be_liberal";
    for (key, value, severity, fix) in [
        ("net/ipv4/conf/eth0/rp_filter", "1", Problem, "eth0/rp_filter=2"),
        ("net/ipv4/conf/ppp0/forwarding", "0", Problem, "ppp0/forwarding=1"),
        ("net/ipv4/conf/eth1/forwarding", "0\n", Problem, "eth1/forwarding=1"),
        ("net/ipv6/conf/all/forwarding", "0", Problem, "forwarding=1"),
        (LIBERAL, "0", Problem, "be_liberal=1"),
        ("net/core/bpf_jit_enable", "0", Warning, "bpf_jit_enable=1"),
        ("net/netfilter/nf_conntrack_acct", "0", Note, "acct=1"),
        ("net/netfilter/nf_conntrack_timestamp", "0", Note, "timestamp=1"),
    ] {
        let findings = with(set(key, value));
        let [found] = &findings[..] else { panic!("{key}: {findings:#?}") };
        assert_eq!(found.severity, severity, "{key}");
        assert!(found.fix.as_deref().unwrap().contains(fix), "{found:#?}");
    }
    for (key, value) in [
        ("net/ipv4/conf/eth0/rp_filter", "2"),
        ("net/ipv4/conf/eth0/rp_filter", "0"),
        ("net/ipv4/conf/eth1/rp_filter", "1"),
        ("net/ipv6/conf/eth0/accept_ra", "1"),
        (LIBERAL, "1"),
        ("net/netfilter/nf_conntrack_acct", "1"),
    ] {
        assert_eq!(with(set(key, value)), [], "{key}={value}");
    }
    // The greater of the two counts.
    let strict = |facts: &mut Facts| {
        set("net/ipv4/conf/all/rp_filter", "1")(facts);
        set("net/ipv4/conf/eth0/rp_filter", "0")(facts);
    };
    finds(strict, Problem, "sysctl", "eth0 drops answers", "rp_filter=2");
    let deaf = |facts: &mut Facts| {
        set("net/ipv6/conf/all/forwarding", "1")(facts);
        set("net/ipv6/conf/eth0/accept_ra", "1")(facts);
    };
    finds(deaf, Warning, "sysctl", "router advertisements", "accept_ra=2");
    let forgetful = |facts: &mut Facts| {
        set("net/netfilter/nf_conntrack_tcp_timeout_established", "432000")(facts);
        set("net/netfilter/nf_conntrack_tcp_timeout_max_retrans", "300")(facts);
        set("net/netfilter/nf_conntrack_tcp_timeout_unacknowledged", "432000")(facts);
    };
    finds(forgetful, Warning, "conntrack", "max_retrans", "max_retrans=432000");
    // The daemon will set them.
    let before = |facts: &mut Facts| {
        facts.balances = false;
        facts.has_daemon = false;
        set("net/ipv4/conf/eth0/rp_filter", "1")(facts);
        set(LIBERAL, "0")(facts);
    };
    assert_eq!(with(before), []);
    let slow = |facts: &mut Facts| {
        let text = format!("acceleration = \"off\"\n{CONFIG}");
        facts.config = Some(Ok(Config::parse(&text, Path::new("c")).unwrap()));
        set(LIBERAL, "0")(facts);
    };
    assert_eq!(with(slow), [], "nothing goes past conntrack");
}

#[test]
fn a_table_of_conntrack_that_fills_up_is_told_before_it_is_full() {
    let filled = |count: &'static str, max: &'static str| {
        move |facts: &mut Facts| {
            set("net/netfilter/nf_conntrack_count", count)(facts);
            set("net/netfilter/nf_conntrack_max", max)(facts);
        }
    };
    assert_eq!(with(filled("69", "100")), []);
    finds(filled("70", "100"), Warning, "conntrack", "70 %", "nf_conntrack_max=200");
    finds(
        filled("262144", "262144"),
        Problem,
        "conntrack",
        "new flows are dropped",
        "nf_conntrack_max=524288",
    );
    assert_eq!(with(filled("5", "0")), [], "without a limit");
}

#[test]
fn programs_that_would_fight_us_are_told_how_to_stop() {
    let runs = |name: &'static str| {
        move |facts: &mut Facts| {
            facts.programs.insert(name.to_owned());
        }
    };
    finds(runs("mwan3track"), Problem, "daemon", "mwan3", "stop it");
    finds(runs("load_balance.pl"), Problem, "daemon", "Net::ISP::Balance", "stop it");
    finds(runs("NetworkManager"), Note, "daemon", "route-table", "");
    finds(
        runs("systemd-network"),
        Problem,
        "daemon",
        "systemd-networkd",
        "ManageForeignRoutes=no\\nManageForeignRoutingPolicyRules=no",
    );
    let told = |routes, rules| {
        move |facts: &mut Facts| {
            runs("systemd-networkd")(facts);
            facts.networkd = Networkd { spares_routes: routes, spares_rules: rules };
        }
    };
    assert_eq!(with(told(true, true)), []);
    finds(
        told(true, false),
        Problem,
        "daemon",
        "systemd-networkd",
        "[Network]\\nManageForeignRoutingPolicyRules=no\\n",
    );
    let instance = |mask| {
        move |facts: &mut Facts| {
            facts.instances.insert("guests".to_owned(), mask);
        }
    };
    finds(instance(0x3c00), Problem, "mark", "guests", "mask = 0x3f0000");
    assert_eq!(with(instance(0x3f_0000)), []);
    assert_eq!(others::free(u32::MAX), DEFAULT_MASK);
}

fn rule(priority: u32, mark: Option<(u32, u32)>, table: u32) -> ForeignRule {
    ForeignRule { family: Family::V4, priority, table: Some(table), mark, is_about_all: mark.is_none() }
}

#[test]
fn rules_and_routes_of_others_that_are_in_our_way_are_told() {
    let found = |rule: ForeignRule| with(|facts| facts.rules.push(rule));
    for harmless in [
        rule(0, None, 255),
        rule(32766, None, 254),
        rule(32767, None, 253),
        // wg-quick: nine ISPs or less have other marks.
        rule(32764, Some((0xca6c, u32::MAX)), 51820),
        rule(100, Some((0xca6c, u32::MAX)), 51820),
        rule(100, Some((0x300, 0x3f00)), 7),
        rule(20_000, Some((0x100, 0x3f00)), 7),
        ForeignRule { is_about_all: false, ..rule(5210, None, 52) },
    ] {
        assert_eq!(found(harmless.clone()), [], "{harmless:?}");
    }
    for clash in [(0x100, 0xff00), (0x200, 0x3f00), (0, 0x100), (0x100, u32::MAX)] {
        let findings = found(rule(100, Some(clash), 7));
        assert!(
            matches!(&findings[..], [Finding { severity: Problem, about: "mark", .. }]),
            "{clash:x?}: {findings:#?}"
        );
    }
    let add = |rule: ForeignRule| move |facts: &mut Facts| facts.rules.push(rule);
    finds(add(rule(10_150, None, 254)), Warning, "routing", "among ours", "ip rule del priority 10150");
    let v6 = ForeignRule { family: Family::V6, ..rule(9_000, None, 52) };
    finds(add(v6), Warning, "routing", "all traffic to table 52 before us", "above 11000");
    let into_ours = ForeignRule { is_about_all: false, ..rule(20_000, None, 1001) };
    finds(add(into_ours), Warning, "routing", "leads to a table of ours", "ip rule del priority 20000");
    let route =
        ForeignRoute { family: Family::V6, table: 1001, destination: "default".to_owned(), protocol: 16 };
    let add = |facts: &mut Facts| facts.routes.push(route);
    finds(add, Problem, "routing", "protocol 16", "ip -6 route del default table 1001");
}

#[test]
fn isps_without_a_way_out_are_told_with_what_is_missing() {
    finds(|facts| facts.network.defaults.clear(), Problem, "isp", "no IPv4 gateway on eth0", "gateway = ");
    let known = |facts: &mut Facts| {
        facts.network.defaults.clear();
        facts.gateways.insert("CABLE".to_owned(), [true, false]);
    };
    assert_eq!(with(known), [], "the daemon has seen it before");
    finds(|facts| drop(facts.network.links.remove(&2)), Problem, "isp", "no device ppp0", "ip link");
    let off = |facts: &mut Facts| facts.network.links.get_mut(&1).unwrap().up = false;
    finds(off, Problem, "isp", "switched off", "ip link set eth0 up");
    let dead = |facts: &mut Facts| facts.network.links.get_mut(&1).unwrap().carrier = false;
    finds(dead, Problem, "isp", "no carrier", "cable");
    let bare = |facts: &mut Facts| facts.network.addresses.retain(|address| address.index != 2);
    finds(bare, Problem, "isp", "no IPv4 address on ppp0", "PPP");
    let half = |facts: &mut Facts| {
        let net = "2001:db8::2/64".parse().unwrap();
        facts.network.addresses.insert(Address { index: 1, net, peer: None });
    };
    finds(half, Warning, "isp", "no IPv6 gateway on eth0", "gateway");
}

#[test]
fn mtus_that_make_pages_hang_are_told() {
    let mtu = |device: &'static str, mtu| {
        move |facts: &mut Facts| {
            facts.mtus.insert(device.to_owned(), mtu);
        }
    };
    finds(mtu("ppp0", 1200), Warning, "mtu", "IPv6 needs 1280", "mtu 1280");
    let small = |clamp: &'static str| {
        move |facts: &mut Facts| {
            let text = format!("{CONFIG}\n[firewall]\nclamp_mss = \"{clamp}\"\n");
            facts.config = Some(Ok(Config::parse(&text, Path::new("c")).unwrap()));
            mtu("ppp0", 1492)(facts);
            mtu("eth1", 1500)(facts);
        }
    };
    assert_eq!(with(small("auto")), []);
    finds(small("off"), Warning, "mtu", "large pages may hang", "clamp_mss");
}

/// A ruleset with one rule of somebody else, of these statements.
fn ruleset(table: &str, statements: &Value) -> impl FnOnce(&mut Facts) + use<> {
    let rule =
        json!({ "rule": { "family": "ip", "table": table, "chain": "c", "handle": 5, "expr": statements } });
    move |facts| facts.ruleset = Some(json!({ "nftables": [{ "metainfo": {} }, rule] }))
}

#[test]
fn rules_of_nft_that_change_our_bits_of_the_mark_are_told() {
    let mark = json!({ "meta": { "key": "mark" } });
    let of_flow = json!({ "ct": { "key": "mark" } });
    let keep = |mask: u32| json!({ "&": [mark, mask] });
    for (value, bits) in [
        (json!(7), "all bits"),
        (json!({ "|": [mark, 0x100] }), "bits 0x100"),
        (json!({ "|": [keep(!0xff00), 0x4000] }), "bits 0x3f00"),
        (json!({ "^": [keep(0xffff_0000), 1] }), "bits 0x3f00"),
        (json!({ "&": [mark, 0xff] }), "bits 0x3f00"),
        (of_flow.clone(), "all bits"),
        (json!({ "map": {} }), "all bits"),
    ] {
        let change = ruleset("mangle", &json!([{ "mangle": { "key": mark, "value": value } }]));
        finds(change, Warning, "mark", &format!("c (handle 5) changes {bits}"), "mask = 0x3f");
    }
    for (value, why) in [
        (json!({ "|": [mark, 0x40_0000] }), "another bit"),
        (json!({ "^": [keep(!0xff_0000), 0x1_0000] }), "other bits"),
        (mark.clone(), "nothing"),
    ] {
        let change = ruleset("mangle", &json!([{ "mangle": { "key": mark, "value": value } }]));
        assert_eq!(with(change), [], "{why}");
    }
    let other_key = json!([{ "mangle": { "key": { "meta": { "key": "priority" } }, "value": 7 } }]);
    assert_eq!(with(ruleset("mangle", &other_key)), []);
    let flow = json!([{ "mangle": { "key": of_flow, "value": 7 } }]);
    finds(ruleset("mangle", &flow), Warning, "mark", "all bits", "mask");
    assert_eq!(with(ruleset("balance", &flow)), [], "that is ours");
}

#[test]
fn source_nat_before_ours_flowtables_and_iptables_are_told() {
    let with_chain = |priority: i64, statement: &'static str| {
        move |facts: &mut Facts| {
            let (family, table) = ("ip", "nat");
            let chain = json!({ "family": family, "table": table, "name": "post", "type": "nat", "hook": "postrouting", "prio": priority });
            let rule = json!({ "family": family, "table": table, "chain": "post", "handle": 9, "expr": [{ statement: null }] });
            facts.ruleset = Some(json!({ "nftables": [{ "chain": chain }, { "rule": rule }] }));
        }
    };
    finds(with_chain(98, "masquerade"), Warning, "nft", "ip nat post (handle 9)", "above 99");
    finds(with_chain(-5, "snat"), Warning, "nft", "translates sources before us", "99");
    assert_eq!(with(with_chain(100, "masquerade")), []);
    assert_eq!(with(with_chain(0, "accept")), []);
    let flowtable = |facts: &mut Facts| {
        facts.ruleset =
            Some(json!({ "nftables": [{ "flowtable": { "family": "inet", "table": "x", "name": "f" } }] }));
    };
    finds(flowtable, Note, "nft", "flowtable", "");
    finds(
        ruleset("mangle", &json!([{ "xt": { "type": "target", "name": "MARK" } }])),
        Note,
        "nft",
        "iptables",
        "",
    );
}

#[test]
fn the_worst_comes_first() {
    let findings = with(|facts| {
        set("net/netfilter/nf_conntrack_acct", "0")(facts);
        facts.kernel.has_btf = false;
        facts.has_daemon = false;
    });
    let severities: Vec<_> = findings.iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Problem, Warning, Note]);
}
