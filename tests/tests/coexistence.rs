//! What others have set up on the router keeps working, and what others take from us comes back.
#![cfg(test)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use aya::maps::{HashMap, MapData, PerCpuArray};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};
use balance_common::layout::{Device, IspCounters};
use balance_lab::addresses::{SERVER_PORT, lan_host};
use balance_lab::{
    Family, Flow, Host, KINDS, Lab, Server, Transport, ask_tcp, open_new_flows, ready, send_one_way,
    serve_tcp, serve_udp, wait_until,
};
use balance_user::datapath::OBJECT;

const SOON: Duration = Duration::from_secs(3);

/// One flow of each kind by each of the ISPs.
fn live_flows(lab: &Lab) -> Vec<(Flow, String)> {
    let mut flows = Vec::new();
    for isp in lab.isps() {
        for (transport, family) in KINDS {
            let by_isp = std::iter::repeat_with(|| {
                let mut flow = Flow::open(lab.lan(), transport, family, SOON).unwrap();
                let source = flow.ask().unwrap();
                (flow, lab.isp_of(source).unwrap().name().to_owned())
            });
            flows.push(by_isp.take(200).find(|(_, used)| used == isp.name()).unwrap());
        }
    }
    flows
}

fn all_stay(lab: &Lab, flows: &mut [(Flow, String)]) {
    for (flow, isp) in flows {
        let source = flow.ask().with_context(|| format!("{:?} by {isp}", flow.local_address())).unwrap();
        assert_eq!(lab.isp_of(source).unwrap().name(), isp);
    }
}

/// Whether new flows of each kind get out, by both ISPs.
fn new_flows_are_balanced(lab: &Lab) {
    for (transport, family) in KINDS {
        let answers = open_new_flows(lab.lan(), 40, transport, family).unwrap().ask(SOON);
        for isp in lab.isps() {
            let used = lab.isps_of(&answers);
            assert!(used.contains(&Some(isp.name())), "{transport:?} {family:?}: {used:?}");
            assert!(used.iter().all(Option::is_some), "{transport:?} {family:?}: {answers:?}");
        }
    }
}

/// A machine at the other end of a tunnel, with 10.99.0.1 and fd99::1, and a server.
struct Vpn {
    _server: [Server; 3],
    _host: Host,
}

impl Vpn {
    /// Brings the tunnel up on the router, with routes in its main table.
    fn start(lab: &Lab) -> Self {
        let host = Host::new("vpn").unwrap();
        let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
        let router = format!(
            "link add vpn0 type veth peer name router netns {}
             addr add 10.98.0.1/30 dev vpn0
             addr add fd98::1/64 dev vpn0 nodad
             link set vpn0 up",
            host.netns()
        );
        lab.router().ip(&lines(&router)).unwrap();
        host.ip(&lines(
            "addr add 10.98.0.2/30 dev router
             addr add fd98::2/64 dev router nodad
             addr add 10.99.0.1/32 dev lo
             addr add fd99::1/128 dev lo nodad
             link set router up
             route add 192.168.1.0/24 via 10.98.0.1
             route add fd00:1::/64 via fd98::1",
        ))
        .unwrap();
        lab.router()
            .ip(&lines(
                "route add 10.99.0.0/16 via 10.98.0.2 dev vpn0
                 route add fd99::/64 via fd98::2 dev vpn0",
            ))
            .unwrap();
        // What comes out of the tunnel is forwarded, which is its administrator's business.
        lab.router().sysctls(&[("net.ipv4.conf.vpn0.forwarding", "1")]).unwrap();
        let tcp = |any: &str| serve_tcp(&host, any.parse().unwrap()).unwrap();
        let servers = [
            tcp(&format!("0.0.0.0:{SERVER_PORT}")),
            tcp(&format!("[::]:{SERVER_PORT}")),
            serve_udp(&host, SERVER_PORT).unwrap(),
        ];
        Self { _server: servers, _host: host }
    }

    fn address(family: Family) -> SocketAddr {
        let ip = if family == Family::V4 { "10.99.0.1" } else { "fd99::1" };
        SocketAddr::new(ip.parse().unwrap(), SERVER_PORT)
    }

    /// The LAN's traffic comes through untranslated.
    fn works(lab: &Lab) {
        for (transport, family) in KINDS {
            for _ in 0..8 {
                let mut flow = Flow::open_to(lab.lan(), transport, Self::address(family), SOON).unwrap();
                assert_eq!(flow.ask().unwrap(), lan_host(0, family), "{transport:?} {family:?}");
            }
        }
    }
}

#[test]
fn a_vpn_route_in_main_wins_over_all_isps_and_is_not_translated() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let daemon = lab.start_up().unwrap();
    // It comes up while we run, as tunnels do.
    let vpn = Vpn::start(&lab);
    Vpn::works(&lab);
    lab.isp("CABLE").die_silently().unwrap();
    lab.wait_state("CABLE", "down").unwrap();
    Vpn::works(&lab);
    for isp in lab.isps() {
        assert_eq!(isp.forwarded().unwrap().foreign, 0);
    }
    drop((vpn, daemon));
}

#[test]
fn a_foreign_nft_table_with_nat_of_its_own_is_neither_changed_nor_disturbed() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _vpn = Vpn::start(&lab);
    let foreign = "table ip foreign {
        map ports { type inet_service : ipv4_addr; elements = { 8080 : 192.168.1.10 }; }
        chain post {
            type nat hook postrouting priority srcnat; policy accept;
            oifname \"vpn0\" masquerade
        }
        chain forward {
            type filter hook forward priority filter; policy accept;
            counter
        }
    }";
    lab.router().feed("nft", &["-f", "-"], foreign).unwrap();
    let listing = || lab.router().sh("nft -s list table ip foreign").unwrap();
    let before = listing();
    let daemon = lab.start_up().unwrap();
    new_flows_are_balanced(&lab);
    let source = ask_tcp(lab.lan(), Vpn::address(Family::V4), SOON).unwrap();
    assert_eq!(source.to_string(), "10.98.0.1", "the foreign table translates");
    assert_eq!(listing(), before);
    daemon.terminate().unwrap();
    lab.balance_ok(&["stop"]).unwrap();
    assert_eq!(listing(), before);
}

#[test]
fn our_nft_table_comes_back_after_a_flush_and_live_flows_do_not_notice() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = lab.start_up().unwrap();
    let listing = || lab.router().sh("nft -s list table inet balance").ok();
    let before = listing().unwrap();
    let mut live = live_flows(&lab);
    for command in ["nft flush ruleset", "nft delete table inet balance", "nft flush table inet balance"] {
        lab.router().sh(command).unwrap();
        let is_back = || listing().as_ref() == Some(&before);
        wait_until(Duration::from_secs(2), "the table", is_back).context(command).unwrap();
        all_stay(&lab, &mut live);
        new_flows_are_balanced(&lab);
    }
}

#[test]
fn a_foreign_rule_and_its_table_keep_their_traffic() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let gateway = lab.isp("DSL").gateway_v4();
    lab.router()
        .ip(&[
            format!("route add default via {gateway} dev dsl0 table 99"),
            "rule add to 203.0.113.77 lookup 99 pref 5000".to_owned(),
            "rule add from 192.168.1.99 lookup 99 pref 20000".to_owned(),
            "rule add fwmark 0x10000/0x10000 lookup 99 pref 10500".to_owned(),
        ])
        .unwrap();
    let foreign = || lab.router().sh("ip rule show; ip route show table 99; ip route show default").unwrap();
    let before = foreign();
    let daemon = lab.start_up().unwrap();
    let to = SocketAddr::new("203.0.113.77".parse().unwrap(), SERVER_PORT);
    for transport in [Transport::Tcp, Transport::Udp] {
        for _ in 0..20 {
            let mut flow = Flow::open_to(lab.lan(), transport, to, SOON).unwrap();
            for _ in 0..2 {
                assert_eq!(flow.ask().unwrap(), lab.isp("DSL").address(Family::V4));
            }
        }
    }
    new_flows_are_balanced(&lab);
    for line in before.lines() {
        assert!(foreign().contains(line), "{line} is gone from {}", foreign());
    }
    daemon.terminate().unwrap();
    lab.balance_ok(&["stop"]).unwrap();
    assert_eq!(foreign(), before);
}

#[test]
fn foreign_bits_of_both_marks_survive_from_end_to_end() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    // One table marks before ours has its say, one after; both look at what is left when packets leave.
    let foreign = "table inet foreign {
        counter kept { }
        counter lost { }
        counter kept_back { }
        counter lost_back { }
        chain before {
            type filter hook prerouting priority -200; policy accept;
            iifname lan0 meta mark set meta mark | 0x10000
            iifname lan0 ct mark set ct mark | 0x40
        }
        chain after {
            type filter hook prerouting priority -100; policy accept;
            iifname lan0 meta mark set meta mark | 0x80000000
            iifname lan0 ct mark set ct mark | 0x2
        }
        chain post {
            type filter hook postrouting priority 300; policy accept;
            oifname cable0 iifname lan0 meta mark & 0x80013f00 == 0x80010100 ct mark & 0x3f42 == 0x142 counter name kept accept
            oifname dsl0 iifname lan0 meta mark & 0x80013f00 == 0x80010200 ct mark & 0x3f42 == 0x242 counter name kept accept
            oifname { cable0, dsl0 } iifname lan0 counter name lost accept
            oifname lan0 iifname { cable0, dsl0 } ct mark & 0x42 == 0x42 counter name kept_back accept
            oifname lan0 iifname { cable0, dsl0 } counter name lost_back
        }
    }";
    lab.router().feed("nft", &["-f", "-"], foreign).unwrap();
    // What goes fast is seen by nobody.
    lab.write_config(&format!("acceleration = \"off\"\n{}", lab.config())).unwrap();
    let _daemon = lab.start_up().unwrap();
    let mut live = live_flows(&lab);
    for _ in 0..3 {
        all_stay(&lab, &mut live);
    }
    let count = |name: &str| -> u64 {
        let text = lab.router().sh(&format!("nft list counter inet foreign {name}")).unwrap();
        let (_, rest) = text.split_once("packets ").unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(count("kept") >= 32 && count("kept_back") >= 32);
    assert_eq!((count("lost"), count("lost_back")), (0, 0));
}

/// A program of somebody else's on `lan0`: our object's counting program with maps of its own.
struct Foreign {
    // Holds the programs and their attachment.
    _programs: Ebpf,
    counters: PerCpuArray<MapData, IspCounters>,
}

impl Foreign {
    fn attach(lab: &Lab, name: &str, order: LinkOrder) -> Self {
        let pins = format!("/sys/fs/bpf/{name}");
        lab.router().run(|| {
            std::fs::create_dir(&pins).unwrap();
            let mut programs =
                EbpfLoader::new().default_map_pin_directory(Path::new(&pins)).load(OBJECT).unwrap();
            let index = nix::net::if_::if_nametoindex("lan0").unwrap();
            let mut devices: HashMap<_, u32, Device> =
                programs.take_map("DEVICES").unwrap().try_into().unwrap();
            devices.insert(index, Device { isp: 9, ethernet: 1, ..Device::default() }, 0).unwrap();
            let counters = programs.take_map("COUNTERS").unwrap().try_into().unwrap();
            let program: &mut SchedClassifier =
                programs.program_mut("isp_ingress").unwrap().try_into().unwrap();
            program.load().unwrap();
            program
                .attach_with_options("lan0", TcAttachType::Ingress, TcAttachOptions::TcxOrder(order))
                .unwrap();
            Self { _programs: programs, counters }
        })
    }

    fn packets(&self) -> u64 {
        self.counters.get(&9, 0).unwrap().iter().map(|counters| counters.rx.packets).sum()
    }
}

#[test]
fn foreign_tcx_programs_before_and_after_ours_see_every_packet() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let older = Foreign::attach(&lab, "older", LinkOrder::last());
    let daemon = lab.start_up().unwrap();
    let newer = Foreign::attach(&lab, "newer", LinkOrder::first());
    let chain = || {
        let (_, programs) =
            lab.router().run(|| SchedClassifier::query_tcx("lan0", TcAttachType::Ingress)).unwrap();
        programs.iter().map(|program| program.name_as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(chain(), ["isp_ingress", "lan_ingress", "isp_ingress"]);

    let before = [&newer, &older].map(Foreign::packets);
    send_one_way(lab.lan(), 1_000, Family::V4).unwrap();
    send_one_way(lab.lan(), 1_000, Family::V6).unwrap();
    let arrived = || lab.sink().counts().values().sum::<u64>();
    wait_until(SOON, "the packets", || arrived() == 2_000).unwrap();
    for (foreign, before) in [&newer, &older].into_iter().zip(before) {
        // Not many more: the neighbours' talk.
        let seen = foreign.packets() - before;
        assert!((2_000..2_050).contains(&seen), "{seen} packets");
    }
    new_flows_are_balanced(&lab);

    daemon.terminate().unwrap();
    lab.balance_ok(&["stop"]).unwrap();
    assert_eq!(chain(), ["isp_ingress", "isp_ingress"]);
}

#[test]
fn rules_and_routes_of_ours_that_somebody_deletes_come_back() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = lab.start_up().unwrap();
    let ours = || {
        let show = |what: &str| lab.router().sh(what).unwrap();
        let mut routes: Vec<String> =
            ["ip route show table all proto 201", "ip -6 route show table all proto 201"]
                .iter()
                .flat_map(|command| show(command).lines().map(str::to_owned).collect::<Vec<_>>())
                .collect();
        routes.sort();
        (show("ip rule; ip -6 rule"), routes)
    };
    let before = ours();
    let mut live = live_flows(&lab);
    for command in [
        "ip rule del pref 10101",
        "ip -6 rule del pref 10102",
        "ip rule del pref 10000",
        "ip route flush table 1001",
        "ip -6 route flush table 1002",
        "ip route flush table 1000",
        "ip route flush proto 201; ip -6 route flush proto 201; ip rule flush; ip rule add pref 32766 lookup main; ip rule add pref 32767 lookup default",
    ] {
        lab.router().sh(command).unwrap();
        wait_until(Duration::from_secs(2), "repair", || ours() == before)
            .with_context(|| format!("{command}: {:#?} instead of {before:#?}", ours()))
            .unwrap();
        all_stay(&lab, &mut live);
    }
    new_flows_are_balanced(&lab);
}

#[test]
fn default_routes_of_dhcp_stay_in_main_through_failure_and_stop() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let defaults =
        || lab.router().sh("ip route show table main default; ip -6 route show table main default").unwrap();
    let before = defaults();
    assert!(before.contains("proto dhcp") && before.contains("proto ra"), "{before}");
    let daemon = lab.start_up().unwrap();
    assert_eq!(defaults(), before);
    lab.isp("CABLE").die_silently().unwrap();
    lab.wait_state("CABLE", "down").unwrap();
    assert_eq!(defaults(), before);
    // The router's own traffic does not go where main says, but where it works.
    let mut own = Flow::open(lab.router(), Transport::Tcp, Family::V4, SOON).unwrap();
    assert_eq!(own.ask().unwrap(), lab.isp("DSL").address(Family::V4));
    daemon.terminate().unwrap();
    lab.balance_ok(&["stop"]).unwrap();
    assert_eq!(defaults(), before);
}
