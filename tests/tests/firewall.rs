//! `[firewall]`: what comes in and what does not, and that nothing else notices.
#![cfg(test)]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use balance_lab::addresses::{SERVER_PORT, lan_host};
use balance_lab::checks::{SOON, changes, split};
use balance_lab::{
    Daemon, Dump, Echo, Family, Flow, Host, Lab, Office, Server, Transport, open_new_flows, ready, serve_tcp,
    serve_udp, wait_until,
};
use nix::sys::signal::Signal;

/// How long to wait for an answer that must not come.
const NEVER: Duration = Duration::from_millis(300);
/// Where the router and the LAN hosts answer; the first one is allowed.
const PORTS: [u16; 2] = [6000, 6001];
/// Forwarded to the first LAN host.
const FORWARDED: u16 = 6002;

/// The folder of own rules on the router.
const OWN_RULES: &str = "/run/firewall.d";

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const KINDS: [(Transport, Family); 4] = [
    (Transport::Tcp, Family::V4),
    (Transport::Tcp, Family::V6),
    (Transport::Udp, Family::V4),
    (Transport::Udp, Family::V6),
];

/// A lab with servers on the router and in both of its LANs.
struct Scene {
    // First, before its machines.
    _servers: Vec<Server>,
    office: Office,
    lab: Lab,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let office = Office::join(&lab).unwrap();
        let mut servers = Vec::new();
        for host in [lab.router(), lab.lan(), office.host()] {
            for port in PORTS {
                for any in ["0.0.0.0", "::"] {
                    servers.push(serve_tcp(host, SocketAddr::new(any.parse().unwrap(), port)).unwrap());
                }
                servers.push(serve_udp(host, port).unwrap());
            }
        }
        // The ISPs, or their other customers, know the way to our LANs.
        for isp in lab.isps() {
            let lines = FAMILIES.map(|family| {
                let lans = if family == Family::V4 { "192.168.0.0/16" } else { "fd00::/16" };
                format!("route add {lans} via {}", isp.address(family))
            });
            isp.host().ip(&lines).unwrap();
        }
        let isp = lab.isp("CABLE").host();
        let far = isp.sh("ip -o -4 addr show internet; ip -o -6 addr show internet scope global").unwrap();
        let far: Vec<&str> = far.lines().map(|line| line.split_whitespace().nth(3).unwrap()).collect();
        let via = |index: usize| far[index].split('/').next().unwrap();
        lab.internet()
            .ip(&[
                format!("route add 192.168.0.0/16 via {}", via(0)),
                format!("route add fd00::/16 via {}", via(1)),
            ])
            .unwrap();
        Self { _servers: servers, office, lab }
    }

    /// The config of a firewall with these lines.
    fn config(&self, firewall: &str) -> String {
        let forward = |family| {
            let to = lan_host(0, family);
            format!(
                "[[forward]]\nport = {FORWARDED}\nprotocol = [\"tcp\", \"udp\"]\nto = \"{to}\"\nto_port = {}\n",
                PORTS[0]
            )
        };
        format!(
            "{}{}{}{}[firewall]\nenabled = true\n{firewall}\n",
            self.lab.config(),
            Office::CONFIG,
            forward(Family::V4),
            forward(Family::V6)
        )
    }

    fn start(&self, firewall: &str) -> Daemon {
        self.lab.write_config(&self.config(firewall)).unwrap();
        self.lab.start_up().unwrap()
    }

    fn reload(&self, daemon: &Daemon, config: &str) {
        let readies = || daemon.notifications().iter().filter(|line| *line == "READY=1").count();
        let before = readies();
        self.lab.write_config(config).unwrap();
        daemon.signal(Signal::SIGHUP).unwrap();
        wait_until(SOON, "the reload", || readies() > before).unwrap();
    }

    /// How many packets a counter of our table has seen.
    fn count(&self, counter: &str) -> u64 {
        let text = self.lab.router().sh(&format!("nft list counter inet balance {counter}")).unwrap();
        let (_, rest) = text.split_once("packets ").unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn table(&self) -> String {
        self.lab.router().sh("nft -s list table inet balance").unwrap()
    }
}

fn ask(from: &Host, to: IpAddr, port: u16, transport: Transport, timeout: Duration) -> io::Result<IpAddr> {
    Flow::open_to(from, transport, SocketAddr::new(to, port), timeout)?.ask()
}

fn is_open(from: &Host, to: IpAddr, port: u16, transport: Transport) {
    let answer = ask(from, to, port, transport, SOON);
    answer.with_context(|| format!("{transport:?} from {} to {to} port {port}", from.name())).unwrap();
}

/// Nothing comes back at all, not even a refusal.
fn is_dropped(from: &Host, to: IpAddr, port: u16, transport: Transport) {
    let error = ask(from, to, port, transport, NEVER).expect_err("it is open");
    assert_eq!(
        error.kind(),
        io::ErrorKind::TimedOut,
        "{transport:?} from {} to {to} port {port}",
        from.name()
    );
}

fn router_in_lan(family: Family) -> IpAddr {
    if family == Family::V4 { [192, 168, 1, 1].into() } else { "fd00:1::1".parse().unwrap() }
}

#[test]
fn from_outside_only_what_is_allowed_or_forwarded_is_open_and_from_inside_everything() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let lab = &scene.lab;
    let _daemon = scene.start("allow = [\"tcp/6000\", \"udp/5999-6000\"]");
    for (transport, family) in KINDS {
        for isp in lab.isps() {
            let outside = isp.address(family);
            is_open(lab.internet(), outside, PORTS[0], transport);
            is_open(lab.internet(), outside, FORWARDED, transport);
            let before = scene.count("to_us");
            for port in [PORTS[1], 1, 22, 53, 65535] {
                is_dropped(lab.internet(), outside, port, transport);
            }
            assert!(scene.count("to_us") - before >= 5);
        }
        let before = scene.count("to_inside");
        for (host, port) in [(lan_host(0, family), PORTS[0]), (Office::address(family), PORTS[1])] {
            is_dropped(lab.internet(), host, port, transport);
        }
        assert!(scene.count("to_inside") - before >= 2);

        for lan in [lab.lan(), scene.office.host()] {
            let answers = open_new_flows(lan, 20, transport, family).unwrap().ask(SOON);
            assert!(lab.isps_of(&answers).iter().all(Option::is_some), "{answers:?}");
            is_open(lan, lab.isp("DSL").address(family), FORWARDED, transport);
        }
        is_open(lab.lan(), router_in_lan(family), PORTS[1], transport);
        is_open(lab.lan(), Office::address(family), PORTS[1], transport);
    }
    for counter in ["to_others", "spoofed", "flood"] {
        assert_eq!(scene.count(counter), 0, "{counter}");
    }
    for isp in lab.isps() {
        assert_eq!(lab.isp_status(isp.name()).unwrap()["state"], "up");
    }
}

#[test]
fn an_isp_that_dies_and_comes_back_is_noticed_behind_the_firewall() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let _daemon = scene.start("ping = \"off\"\n[monitor]\nup_after = \"300ms\"");
    scene.lab.isp("CABLE").die_silently().unwrap();
    scene.lab.wait_state("CABLE", "down").unwrap();
    split(&scene.lab, 20, Family::V4).unwrap();
    scene.lab.isp("CABLE").revive().unwrap();
    scene.lab.wait_up("CABLE").unwrap();
}

#[test]
fn pings_from_outside_are_answered_up_to_the_rate_and_those_from_inside_always() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let daemon = scene.start("ping = \"5/hour\"");
    for family in FAMILIES {
        // One limit for both.
        scene.reload(&daemon, &scene.config("ping = \"off\""));
        scene.reload(&daemon, &scene.config("ping = \"5/hour\""));
        let outside = scene.lab.isp("DSL").address(family);
        let mut echo = Echo::open(scene.lab.internet(), outside, NEVER).unwrap();
        let answers: Vec<bool> = (0..8).map(|_| echo.ask().is_ok()).collect();
        assert_eq!(answers, [true, true, true, true, true, false, false, false], "{family:?}");
        assert_eq!(scene.count("flood"), 3);
        let mut echo = Echo::open(scene.lab.lan(), router_in_lan(family), SOON).unwrap();
        for _ in 0..8 {
            echo.ask().unwrap();
        }
    }
    scene.reload(&daemon, &scene.config("ping = \"off\""));
    let mut echo =
        Echo::open(scene.lab.internet(), scene.lab.isp("CABLE").address(Family::V4), NEVER).unwrap();
    echo.ask().unwrap_err();
}

#[test]
fn addresses_that_are_inside_do_not_come_from_outside() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let _daemon = scene.start("allow = [\"udp/6000\"]");
    let isp = scene.lab.isp("DSL");
    // A LAN host, the router itself in the LAN, and the router at its other ISP.
    for (family, forged) in [
        (Family::V4, ["192.168.1.77", "192.168.1.1", "100.64.1.2"]),
        (Family::V6, ["fd00:1::77", "fd00:1::1", "2001:db8:1::2"]),
    ] {
        for address in forged {
            let before = scene.count("spoofed");
            let (length, nodad) = if family == Family::V4 { (32, "") } else { (128, "nodad") };
            isp.host().ip(&[format!("addr add {address}/{length} dev lo {nodad}")]).unwrap();
            isp.host().run(|| {
                let socket = std::net::UdpSocket::bind((address, 0)).unwrap();
                socket.send_to(b"forged", (isp.address(family), PORTS[0])).unwrap();
                socket.send_to(b"forged", (lan_host(0, family), PORTS[0])).unwrap();
            });
            wait_until(SOON, "the counter", || scene.count("spoofed") == before + 2)
                .with_context(|| address)
                .unwrap();
        }
        // Its own address is none of ours.
        is_open(isp.host(), isp.address(family), PORTS[0], Transport::Udp);
    }
}

#[test]
fn groups_say_who_may_open_connections_to_whom() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let (lab, office) = (&scene.lab, scene.office.host());
    let daemon = scene.start("groups = [[\"LAN\", \":isp\"], [\"OFFICE\", \"DSL\"]]");
    let lans_are_apart = || {
        for (transport, family) in KINDS {
            let before = scene.count("to_others");
            is_dropped(lab.lan(), Office::address(family), PORTS[0], transport);
            is_dropped(office, lan_host(0, family), PORTS[0], transport);
            assert!(scene.count("to_others") - before >= 2);
        }
    };
    lans_are_apart();
    for (transport, family) in KINDS {
        let answers = open_new_flows(lab.lan(), 40, transport, family).unwrap().ask(SOON);
        assert!(lab.isps_of(&answers).iter().all(Option::is_some), "{answers:?}");
        // The office has only the one ISP; what is steered to the other is dropped.
        let answers = open_new_flows(office, 40, transport, family).unwrap().ask(NEVER);
        let used: Vec<&str> = lab.isps_of(&answers).into_iter().flatten().collect();
        assert!(!used.is_empty() && used.len() < 40 && used.iter().all(|isp| *isp == "DSL"), "{used:?}");
        // A forward is open to everybody.
        is_open(office, lab.isp("CABLE").address(family), FORWARDED, transport);
    }

    let mut flow = None;
    for groups in ["[[\":lan\"], [\":lan\", \":isp\"]]", "[[\"office\", \"lan\"]]"] {
        scene.reload(&daemon, &scene.config(&format!("groups = {groups}")));
        for (transport, family) in KINDS {
            is_open(lab.lan(), Office::address(family), PORTS[0], transport);
            is_open(office, lan_host(0, family), PORTS[0], transport);
        }
        let to = SocketAddr::new(Office::address(Family::V4), PORTS[0]);
        flow = Some(Flow::open_to(lab.lan(), Transport::Tcp, to, SOON).unwrap());
    }
    is_dropped(office, balance_lab::addresses::INTERNET_V4.into(), SERVER_PORT, Transport::Tcp);
    scene.reload(&daemon, &scene.config("groups = [[\"LAN\", \":isp\"], [\"OFFICE\", \":isp\"]]"));
    lans_are_apart();
    flow.unwrap().ask().expect("a connection that exists goes on");
}

#[test]
fn connections_from_before_the_firewall_go_on_when_it_is_switched_on() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let lab = &scene.lab;
    // Nothing has asked for conntrack yet, so it does not know of this one.
    let inside = SocketAddr::new(lab.isp("CABLE").address(Family::V4), PORTS[1]);
    let mut unknown = Flow::open_to(lab.internet(), Transport::Tcp, inside, SOON).unwrap();
    unknown.ask().unwrap();
    let daemon = scene.start("");
    unknown.ask().expect("a login from before all of it goes on");

    scene.reload(&daemon, &scene.config("").replace("enabled = true", "enabled = false"));
    let mut flows = Vec::new();
    for (transport, family) in KINDS {
        for (from, to) in [
            (lab.internet(), SocketAddr::new(lab.isp("DSL").address(family), PORTS[1])),
            (lab.internet(), SocketAddr::new(lab.isp("CABLE").address(family), FORWARDED)),
            (lab.lan(), balance_lab::addresses::internet(family, SERVER_PORT)),
        ] {
            let mut flow = Flow::open_to(from, transport, to, SOON).unwrap();
            flow.ask().unwrap();
            flows.push((flow, to));
        }
    }
    scene.reload(&daemon, &scene.config(""));
    is_dropped(lab.internet(), inside.ip(), inside.port(), Transport::Tcp);
    for (flow, to) in &mut flows {
        flow.ask().with_context(|| format!("{:?} to {to}", flow.local_address())).unwrap();
    }
    unknown.ask().unwrap();
}

/// Puts a file of own rules into the folder of the tests.
fn own_rules(lab: &Lab, file: &str, text: &str) {
    lab.router().run(|| {
        std::fs::create_dir_all(OWN_RULES).unwrap();
        std::fs::write(format!("{OWN_RULES}/{file}"), text).unwrap();
    });
}

#[test]
fn own_rules_come_first_and_hold_for_flows_that_exist_and_go_fast() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let lab = &scene.lab;
    own_rules(
        lab,
        "10-open.nft",
        &format!("chain own_input {{\n\tiifname cable0 tcp dport {} accept\n}}\n", PORTS[1]),
    );
    let config = format!("acceleration = \"tc\"\n{}", scene.config(&format!("rules = \"{OWN_RULES}\"")));
    lab.write_config(&config).unwrap();
    let daemon = lab.start_up().unwrap();
    for family in FAMILIES {
        is_open(lab.internet(), lab.isp("CABLE").address(family), PORTS[1], Transport::Tcp);
        is_dropped(lab.internet(), lab.isp("DSL").address(family), PORTS[1], Transport::Tcp);
    }

    let banned = SocketAddr::new([203, 0, 113, 7].into(), SERVER_PORT);
    let mut flow = Flow::open_to(lab.lan(), Transport::Udp, banned, NEVER).unwrap();
    for _ in 0..50 {
        flow.ask().unwrap();
    }
    own_rules(
        lab,
        "20-banned.nft",
        "set banned {\n\ttype ipv4_addr\n\telements = { 203.0.113.7 }\n}\ncounter banned {\n}\n\
         chain own_forward {\n\tip daddr @banned counter name banned drop\n}\n",
    );
    scene.reload(&daemon, &config);
    wait_until(SOON, "the end of the lease", || flow.ask().is_err()).unwrap();
    is_dropped(lab.lan(), banned.ip(), SERVER_PORT, Transport::Tcp);
    assert!(scene.count("banned") > 0);
    split(lab, 20, Family::V4).unwrap();
}

#[test]
fn broken_own_rules_are_refused_with_their_place_and_change_nothing() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let lab = &scene.lab;
    own_rules(lab, "10-good.nft", "chain own_input {\n\ttcp dport 6001 accept\n}\n");
    let config = scene.config(&format!("rules = \"{OWN_RULES}\""));
    lab.write_config(&config).unwrap();
    let daemon = lab.start_up().unwrap();
    let before = scene.table();
    let works = || {
        is_open(lab.internet(), lab.isp("DSL").address(Family::V4), PORTS[1], Transport::Tcp);
        is_dropped(lab.internet(), lab.isp("DSL").address(Family::V4), PORTS[1], Transport::Udp);
        split(lab, 20, Family::V4).unwrap();
    };
    works();

    own_rules(
        lab,
        "20-broken.nft",
        "chain own_input {\n\tudp dport 6001 accept\n\ttcp dport nonsense accept\n}\n",
    );
    scene.reload(&daemon, &config.replacen("weight = 3", "weight = 7", 1));
    let said = daemon.stderr();
    assert!(said.contains("the config is not reloaded"), "{said}");
    assert!(said.contains("/run/firewall.d/20-broken.nft:3:12-19: Error:"), "{said}");
    assert_eq!(lab.isp_status("CABLE").unwrap()["weight"], 3);
    assert_eq!(scene.table(), before);
    works();

    // The next daemon would have to do without, so there is none; what is in the kernel stays.
    daemon.kill9().unwrap();
    let error = lab.start(&[]).err().unwrap().to_string();
    assert!(error.contains("/run/firewall.d/20-broken.nft:3:12-19: Error:"), "{error}");
    assert_eq!(scene.table(), before);
    works();

    lab.router().sh("rm /run/firewall.d/20-broken.nft; mkdir /run/firewall.d/30-folder.nft").unwrap();
    let output = lab.balance(&["check", "/run/balance.toml"]).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.starts_with("error: /run/firewall.d/30-folder.nft: "), "{}", output.stderr);
    lab.router().sh("rmdir /run/firewall.d/30-folder.nft").unwrap();
    let _daemon = lab.start_up().unwrap();
    works();
}

#[test]
fn the_firewall_outlives_a_killed_daemon_and_stop_takes_it_away() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let lab = &scene.lab;
    let before = Dump::take(lab.router()).unwrap();
    let holds = || {
        for (transport, family) in KINDS {
            for isp in lab.isps() {
                is_dropped(lab.internet(), isp.address(family), PORTS[0], transport);
                is_open(lab.internet(), isp.address(family), FORWARDED, transport);
            }
            let answers = open_new_flows(lab.lan(), 10, transport, family).unwrap().ask(SOON);
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        }
    };
    let daemon = scene.start("");
    holds();
    daemon.kill9().unwrap();
    holds();
    let _daemon = lab.start_up().unwrap();
    holds();
    lab.balance_ok(&["stop"]).unwrap();
    assert_eq!(changes(lab, &before), Vec::<String>::new());
    is_open(lab.internet(), lab.isp("CABLE").address(Family::V4), PORTS[0], Transport::Tcp);
}

#[test]
fn tables_and_devices_of_others_work_as_before() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let lab = &scene.lab;
    // The office's device is none of ours here: as that of containers, or of a VPN.
    let container = scene.office.host();
    lab.router().sysctls(&[("net.ipv4.conf.lan1.forwarding", "1")]).unwrap();
    let foreign = "table ip docker {
        map ports { type inet_service : ipv4_addr; elements = { 8080 : 192.168.2.10 }; }
        chain in {
            type nat hook prerouting priority dstnat; policy accept;
            fib daddr type local tcp dport 8080 dnat to 192.168.2.10:6000
        }
        chain forward {
            type filter hook forward priority filter; policy drop;
            counter
            iifname { lan0, lan1 } accept
            ct status dnat accept
            ct state established,related accept
        }
    }";
    lab.router().feed("nft", &["-f", "-"], foreign).unwrap();
    let listing = || lab.router().sh("nft -s list table ip docker").unwrap();
    let (before, dump) = (listing(), Dump::take(lab.router()).unwrap());
    lab.write_config(&scene.config("groups = [[\"LAN\", \":isp\"]]").replace(Office::CONFIG, "")).unwrap();
    let daemon = lab.start_up().unwrap();
    for isp in lab.isps() {
        is_open(lab.internet(), isp.address(Family::V4), 8080, Transport::Tcp);
    }
    is_open(lab.lan(), Office::address(Family::V4), PORTS[0], Transport::Tcp);
    is_open(container, lan_host(0, Family::V4), PORTS[0], Transport::Tcp);
    is_open(container, balance_lab::addresses::INTERNET_V4.into(), SERVER_PORT, Transport::Tcp);
    is_dropped(lab.internet(), Office::address(Family::V4), PORTS[0], Transport::Tcp);
    scene.reload(&daemon, &scene.config("").replace(Office::CONFIG, ""));
    assert_eq!(listing(), before);
    lab.balance_ok(&["stop"]).unwrap();
    assert_eq!(listing(), before);
    assert_eq!(changes(lab, &dump), Vec::<String>::new());
}
