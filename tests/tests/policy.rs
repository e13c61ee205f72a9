//! Rules lead flows to policies, policies to ISPs.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use balance_lab::addresses::SERVER_PORT;
use balance_lab::{Child, Family, Flow, IspSpec, KINDS, Lab, Transport, ready, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;

const SOON: Duration = Duration::from_secs(5);
const NEVER: Duration = Duration::from_millis(300);

/// The internet host by another of its addresses.
fn internet(last: u8, family: Family) -> SocketAddr {
    let address = match family {
        Family::V4 => IpAddr::from(Ipv4Addr::new(203, 0, 113, last)),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, last.into()).into(),
    };
    (address, SERVER_PORT).into()
}

fn three_isps() -> Lab {
    let isps = [IspSpec::new("CABLE"), IspSpec::new("DSL"), IspSpec::new("LTE")];
    isps.into_iter().fold(Lab::builder().lan_hosts(2), balance_lab::Builder::isp).build().unwrap()
}

/// By which ISP new flows from a LAN host to this address go, of all kinds.
fn ways(lab: &Lab, host: usize, last: u8) -> BTreeMap<(bool, bool), String> {
    let way = |(transport, family)| {
        let mut flow =
            Flow::open_to(&lab.lan_hosts()[host], transport, internet(last, family), SOON).unwrap();
        let isp = lab.isp_of(flow.ask().unwrap()).unwrap();
        ((transport == Transport::Tcp, family == Family::V4), isp.name().to_owned())
    };
    KINDS.into_iter().map(way).collect()
}

fn are_all_by(lab: &Lab, host: usize, last: u8, isp: &str) -> bool {
    (0..8).all(|_| ways(lab, host, last).values().all(|way| way == isp))
}

fn all_by(lab: &Lab, host: usize, last: u8, isp: &str) {
    assert!(are_all_by(lab, host, last, isp), "not all by {isp}");
}

#[test]
fn the_first_rule_about_a_flow_decides() {
    if !ready() {
        return;
    }
    let lab = three_isps();
    let rules = r#"
[[rule]]
destination = ["203.0.113.10", "2001:db8:ffff::a"]
to = "DSL"

[[rule]]
destination = ["203.0.113.11", "2001:db8:ffff::b"]
protocol = "tcp"
port = "6000-8000"
to = "CABLE"

[[rule]]
destination = ["203.0.113.11", "2001:db8:ffff::b"]
port = 7000
to = "LTE"

[[rule]]
source = ["192.168.1.11", "fd00:1::11"]
lan = "LAN"
to = "BACKED"

[[rule]]
lan = "local"
to = "CABLE"

[[policy]]
name = "BACKED"
isps = [{ name = "LTE", tier = 2 }, { name = "DSL", weight = 7 }]
"#;
    lab.write_config(&format!("{}\n{rules}", lab.config())).unwrap();
    let _daemon = lab.start_up().unwrap();
    all_by(&lab, 0, 10, "DSL");
    for ((is_tcp, _), isp) in ways(&lab, 0, 11) {
        assert_eq!(isp, if is_tcp { "CABLE" } else { "LTE" });
    }
    all_by(&lab, 1, 20, "DSL");
    let others: BTreeSet<String> = (0..8).flat_map(|_| ways(&lab, 0, 20).into_values()).collect();
    assert!(others.len() > 1, "what no rule is about is balanced: {others:?}");
    // Its second tier takes over, and what is of other policies stays.
    lab.isp("DSL").die_silently().unwrap();
    lab.wait_state("DSL", "down").unwrap();
    all_by(&lab, 1, 20, "LTE");
    for ((is_tcp, _), isp) in ways(&lab, 0, 11) {
        assert_eq!(isp, if is_tcp { "CABLE" } else { "LTE" });
    }
}

#[test]
fn what_is_bypassed_follows_the_routes_of_the_system() {
    if !ready() {
        return;
    }
    let lab = three_isps();
    let config = |to: &str| {
        let only = "destination = [\"203.0.113.30\", \"2001:db8:ffff::1e\"]";
        format!("{}\n[[rule]]\n{only}\nto = \"{to}\"\n", lab.config())
    };
    lab.write_config(&config("bypass")).unwrap();
    let daemon = lab.start_up().unwrap();
    for (prefix, gateway) in [("203.0.113.30/32", "100.64.3.1"), ("2001:db8:ffff::1e/128", "2001:db8:3::1")] {
        lab.router().ip(&[format!("route add {prefix} via {gateway}")]).unwrap();
    }
    all_by(&lab, 0, 30, "LTE");
    // More exact routes are the system's say whatever the rules are; without them the rule is followed.
    for prefix in ["203.0.113.30/32", "2001:db8:ffff::1e/128"] {
        lab.router().ip(&[format!("route del {prefix}")]).unwrap();
    }
    lab.write_config(&config("DSL")).unwrap();
    daemon.signal(Signal::SIGHUP).unwrap();
    wait_until(SOON, "the new rule", || are_all_by(&lab, 0, 30, "DSL")).unwrap();
    all_by(&lab, 0, 30, "DSL");
}

#[test]
fn the_last_resort_of_a_policy_without_an_isp_is_as_configured() {
    if !ready() {
        return;
    }
    let lab = three_isps();
    let policy = |number: u8, last_resort: &str| {
        format!(
            "[[policy]]\nname = \"P{number}\"\nisps = [\"DSL\"]\nlast_resort = \"{last_resort}\"\n\n\
             [[rule]]\ndestination = [\"203.0.113.{number}\", \"2001:db8:ffff::{number:x}\"]\nto = \"P{number}\"\n\n"
        )
    };
    let policies = [policy(40, "main"), policy(41, "unreachable"), policy(42, "drop")].concat();
    lab.write_config(&format!("{}\n{policies}", lab.config())).unwrap();
    let _daemon = lab.start_up().unwrap();
    for last in 40..=42 {
        all_by(&lab, 0, last, "DSL");
    }
    lab.isp("DSL").die_silently().unwrap();
    lab.wait_state("DSL", "down").unwrap();
    assert!(ways(&lab, 0, 40).values().all(|isp| isp != "DSL"));
    for (transport, family) in KINDS {
        let attempt = |last, timeout| {
            let mut flow = Flow::open_to(lab.lan(), transport, internet(last, family), timeout)?;
            flow.ask()
        };
        // Linux tells of such errors only to those who ask, but for TCP.
        let timeout = if transport == Transport::Tcp { SOON } else { NEVER };
        let refused = attempt(41, timeout).unwrap_err();
        let timed_out = refused.kind() == std::io::ErrorKind::TimedOut;
        assert_eq!(timed_out, transport == Transport::Udp, "{family:?}: {refused}");
        let dropped = attempt(42, NEVER).unwrap_err();
        assert_eq!(dropped.kind(), std::io::ErrorKind::TimedOut, "{transport:?} {family:?}: {dropped}");
    }
    lab.isp("DSL").revive().unwrap();
    lab.wait_up("DSL").unwrap();
    for last in 40..=42 {
        all_by(&lab, 0, last, "DSL");
    }
}

#[test]
fn status_tells_who_has_the_flows_of_each_policy_also_without_the_daemon() {
    if !ready() {
        return;
    }
    let lab = three_isps();
    let policies = r#"
[[policy]]
name = "default"
isps = ["CABLE", { name = "DSL", weight = 2 }, "LTE"]
sticky = "source"

[[policy]]
name = "CALLS"
isps = ["DSL", { name = "LTE", tier = 2 }]
sticky = "destination"
last_resort = "drop"

[[rule]]
dscp = "ef"
to = "CALLS"

[[rule]]
destination = "203.0.113.10"
to = "CABLE"
"#;
    lab.write_config(&format!("{}\n{policies}", lab.config())).unwrap();
    let daemon = lab.start_up().unwrap();
    let policy = |name: &str, sticky: &str, last_resort: &str, isps: &[(&str, f64)]| {
        let share = |(name, share): &(&str, f64)| json!({ "name": name, "ipv4": share, "ipv6": share });
        let isps: Vec<_> = isps.iter().map(share).collect();
        json!({ "name": name, "sticky": sticky, "last_resort": last_resort, "isps": isps })
    };
    let cable = policy("CABLE", "flow", "main", &[("CABLE", 1.0)]);
    assert_eq!(
        lab.status().unwrap()["policies"],
        json!([
            policy("default", "source", "main", &[("CABLE", 0.25), ("DSL", 0.5), ("LTE", 0.25)]),
            policy("CALLS", "destination", "drop", &[("DSL", 1.0)]),
            cable,
        ])
    );
    lab.isp("DSL").die_silently().unwrap();
    lab.wait_state("DSL", "down").unwrap();
    let without_dsl = json!([
        policy("default", "source", "main", &[("CABLE", 0.5), ("LTE", 0.5)]),
        policy("CALLS", "destination", "drop", &[("LTE", 1.0)]),
        cable,
    ]);
    assert_eq!(lab.status().unwrap()["policies"], without_dsl);
    daemon.kill9().unwrap();
    assert_eq!(lab.status().unwrap()["policies"], without_dsl);
    let table = "
POLICY   STICKY       LAST RESORT  SHARE
default  source       main         CABLE 50%, LTE 50%
CALLS    destination  drop         LTE 100%
CABLE    flow         main         CABLE 100%

daemon: not running";
    let text = lab.balance_ok(&["status"]).unwrap();
    assert!(text.contains(table), "{text}");
}

/// Addresses of the LAN's host beside its own, 10.77.x.y.
fn source(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}

/// By which ISPs new flows of a source go.
fn isps_of_source(lab: &Lab, source: Ipv4Addr, count: usize) -> BTreeSet<&str> {
    let mut flows: Vec<Flow> = (0..count)
        .map(|_| Flow::open_from(lab.lan(), Transport::Udp, source.into(), SOON).unwrap())
        .collect();
    flows.iter_mut().map(|flow| lab.isp_of(flow.ask().unwrap()).unwrap().name()).collect()
}

#[test]
fn a_thousand_sources_keep_their_isp_and_only_those_of_one_that_dies_move() {
    const SOURCES: u16 = 1000;
    const FLOWS: usize = 100;
    if !ready() {
        return;
    }
    let lab = three_isps();
    let policy = "[[policy]]\nname = \"default\"\nsticky = \"source\"\n";
    lab.write_config(&format!("{}\n{policy}", lab.config())).unwrap();
    lab.router().ip(&["route add 10.77.0.0/16 via 192.168.1.10".to_owned()]).unwrap();
    lab.lan().ip(&["route add local 10.77.0.0/16 dev lo".to_owned()]).unwrap();
    let _daemon = lab.start_up().unwrap();
    let all = |flows| -> Vec<&str> {
        let one = |number| {
            let isps = isps_of_source(&lab, source(number), flows);
            assert_eq!(isps.len(), 1, "{}: {isps:?}", source(number));
            isps.into_iter().next().unwrap()
        };
        (0..SOURCES).map(one).collect()
    };
    let before = all(FLOWS);
    let of = |isps: &[&str], name: &str| isps.iter().filter(|isp| **isp == name).count();
    for isp in ["CABLE", "DSL", "LTE"] {
        // A third each; one deviation is about 15.
        assert!((260..410).contains(&of(&before, isp)), "{isp}: {}", of(&before, isp));
    }
    lab.isp("DSL").die_silently().unwrap();
    lab.wait_state("DSL", "down").unwrap();
    let after = all(5);
    assert_eq!(of(&after, "DSL"), 0);
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after || *before == "DSL", "from {before} to {after}");
    }
}

/// A command that tells of changes in the router's kernel.
struct Monitor {
    child: Child,
    told: Arc<Mutex<String>>,
}

impl Monitor {
    /// Something that all such commands tell of.
    const CANARY: [&str; 2] = [
        "nft add table inet canary; ip route add 198.18.0.1 dev lo",
        "nft delete table inet canary; ip route del 198.18.0.1 dev lo",
    ];

    /// Starts it; returns when it tells of changes.
    fn start(lab: &Lab, command: &str) -> Self {
        let mut words = command.split(' ');
        let mut spawned = lab.router().command(words.next().unwrap());
        spawned.args(words).stdout(Stdio::piped());
        let mut child = lab.router().spawn(spawned).unwrap();
        let mut output = child.stdout.take().unwrap();
        let told = Arc::new(Mutex::new(String::new()));
        let tell = Arc::clone(&told);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                tell.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        let monitor = Self { child, told };
        monitor.sing(lab);
        monitor
    }

    /// What it has told of since it was started.
    fn end(mut self, lab: &Lab) -> Vec<String> {
        // Changes are told in their order.
        self.sing(lab);
        self.child.kill9().unwrap();
        let told = self.told.lock().unwrap();
        let ours = ["canary", "198.18.0.1", "new generation"];
        let lines = told.lines().filter(|line| !ours.iter().any(|ours| line.contains(ours)));
        lines.map(str::to_owned).collect()
    }

    /// Has the canary come and go until that is told of.
    fn sing(&self, lab: &Lab) {
        let before = self.told.lock().unwrap().len();
        wait_until(SOON, "the monitor", || {
            for script in Self::CANARY {
                lab.router().sh(script).unwrap();
            }
            self.told.lock().unwrap().len() > before
        })
        .unwrap();
    }
}

#[test]
fn a_reload_that_changes_a_rule_changes_nothing_else() {
    if !ready() {
        return;
    }
    let lab = three_isps();
    let config = |to: &str| {
        let only = "destination = [\"203.0.113.50\", \"2001:db8:ffff::32\"]";
        format!("{}\n[[rule]]\n{only}\nto = \"{to}\"\n", lab.config())
    };
    lab.write_config(&config("CABLE")).unwrap();
    let daemon = lab.start_up().unwrap();
    let mut live: Vec<Flow> = KINDS
        .into_iter()
        .map(|(transport, family)| Flow::open_to(lab.lan(), transport, internet(50, family), SOON).unwrap())
        .collect();
    let ask =
        |live: &mut Vec<Flow>| -> Vec<IpAddr> { live.iter_mut().map(|flow| flow.ask().unwrap()).collect() };
    let before = ask(&mut live);
    let watched =
        [Monitor::start(&lab, "ip monitor route rule address link"), Monitor::start(&lab, "nft monitor")];
    lab.write_config(&config("LTE")).unwrap();
    daemon.signal(Signal::SIGHUP).unwrap();
    wait_until(SOON, "the new rule", || are_all_by(&lab, 0, 50, "LTE")).unwrap();
    for monitor in watched {
        assert_eq!(monitor.end(&lab), [""; 0]);
    }
    assert_eq!(ask(&mut live), before, "flows stay where they are");
}
