//! TCP connections that lose their ISP are reset at once, at the end that we can reach; nobody else notices.
#![cfg(test)]

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use balance_lab::addresses::{SERVER_PORT, lan_host};
use balance_lab::{Daemon, Family, Flow, Host, Isp, Lab, Transport, open_flows, ready, wait_until};
use nix::sys::signal::Signal;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const SOON: Duration = Duration::from_secs(5);
/// How long after the detection a reset may take: a second, and how much later it may be seen on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1 + 2);
/// What the router forwards to the LAN host: none of those that its own flows take.
const PORT: u16 = 601;

struct Scene {
    lab: Lab,
    daemon: Daemon,
}

impl Scene {
    /// With these lines at the top of the config, and a port forward that somebody else has set up.
    fn new(top: &str) -> Self {
        let lab = Lab::new().unwrap();
        let forwards = FAMILIES.map(|family| {
            let (name, ip) = if family == Family::V4 { ("ipv4", "ip") } else { ("ipv6", "ip6") };
            let to = SocketAddr::new(lan_host(0, family), PORT);
            format!("iifname {{ cable0, dsl0 }} meta nfproto {name} tcp dport {PORT} dnat {ip} to {to}\n")
        });
        let forwards = forwards.concat();
        let table = format!(
            "table inet forward {{ chain in {{ type nat hook prerouting priority dstnat; policy accept;\n{forwards} }}\n}}\n"
        );
        lab.router().feed("nft", &["-f", "-"], &table).unwrap();
        lab.write_config(&format!("{top}\n{}\n[monitor]\nup_after = \"300ms\"\n", lab.config())).unwrap();
        let daemon = lab.start_up().unwrap();
        Self { lab, daemon }
    }

    /// A flow that goes by this ISP, and has been answered.
    fn flow_by(&self, isp: &str, host: &Host, transport: Transport, family: Family) -> Flow {
        let address = self.lab.isp(isp).address(family);
        // To all addresses of the internet host: the router's own flows to one of them all go by one ISP.
        let mut flows = (1..=250_u8).map(|last| {
            let to: IpAddr = match family {
                Family::V4 => [203, 0, 113, last].into(),
                Family::V6 => [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, last.into()].into(),
            };
            let mut flow = Flow::open_to(host, transport, SocketAddr::new(to, SERVER_PORT), SOON).unwrap();
            (flow.ask().unwrap(), flow)
        });
        let found = flows.find(|(seen, _)| *seen == address);
        found.unwrap_or_else(|| panic!("no flow goes by {isp}")).1
    }

    /// A connection from outside by an ISP to a server in the LAN: its outer and its inner end.
    fn inbound_by(&self, isp: &str, family: Family) -> (TcpStream, TcpStream) {
        let any = if family == Family::V4 { "0.0.0.0" } else { "::" };
        let bind = || TcpListener::bind(SocketAddr::new(any.parse().unwrap(), PORT)).ok();
        // A process that is being spawned meanwhile has the last listener for a moment.
        let mut listener = None;
        wait_until(SOON, "the port", || {
            listener = self.lab.lan().run(bind);
            listener.is_some()
        })
        .unwrap();
        let listener = listener.unwrap();
        let to = SocketAddr::new(self.lab.isp(isp).address(family), PORT);
        let outer = self.lab.internet().run(|| TcpStream::connect_timeout(&to, SOON)).unwrap();
        let (inner, _) = listener.accept().unwrap();
        (outer, inner)
    }

    /// The conntrack entries of TCP with this mark.
    fn tracked(&self, mark: &str) -> String {
        let list = ["ipv4", "ipv6"].map(|family| {
            self.lab.router().sh(&format!("conntrack -L -f {family} -p tcp --mark {mark}/0x3f00")).unwrap()
        });
        list.concat()
    }

    /// Has an ISP fail and waits until that is known; returns when it is.
    fn fail(&self, isp: &str, fail: impl FnOnce(&Isp)) -> Instant {
        fail(self.lab.isp(isp));
        self.lab.wait_state(isp, "down").unwrap();
        Instant::now()
    }
}

fn die(isp: &Isp) {
    isp.die_silently().unwrap();
}

fn lose_carrier(isp: &Isp) {
    isp.set_carrier(false).unwrap();
}

/// Whether the connection is reset until then.
fn is_reset(flow: &mut Flow, until: Instant) -> bool {
    flow.set_timeout(until.saturating_duration_since(Instant::now()));
    flow.end().is_ok_and(|end| end == ErrorKind::ConnectionReset)
}

fn is_reset_std(stream: &mut TcpStream, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left)).unwrap();
    stream.read(&mut [0; 64]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

fn connections_are_reset_and_reconnect(acceleration: &str, fail: impl FnOnce(&Isp)) {
    let scene = Scene::new(&format!("acceleration = \"{acceleration}\""));
    let lab = &scene.lab;
    let tcp = |isp, host| FAMILIES.map(|family| scene.flow_by(isp, host, Transport::Tcp, family));
    let [mut idle, mut busy] = [tcp("CABLE", lab.lan()), tcp("CABLE", lab.lan())];
    let [mut own_idle, mut own_busy] = [tcp("CABLE", lab.router()), tcp("CABLE", lab.router())];
    let mut inbound = FAMILIES.map(|family| scene.inbound_by("CABLE", family));
    let mut other = tcp("DSL", lab.lan());
    let mut own_other = tcp("DSL", lab.router());
    let mut other_inbound = FAMILIES.map(|family| scene.inbound_by("DSL", family));
    let mut udp = FAMILIES.map(|family| scene.flow_by("CABLE", lab.lan(), Transport::Udp, family));

    let detected = scene.fail("CABLE", |isp| {
        fail(isp);
        for flow in busy.iter_mut().chain(&mut own_busy) {
            flow.send().unwrap();
        }
    });
    let until = detected + AT_ONCE;
    for (index, family) in FAMILIES.into_iter().enumerate() {
        assert!(is_reset(&mut idle[index], until), "idle, {family:?}");
        assert!(is_reset(&mut busy[index], until), "with data on the way, {family:?}");
        assert!(is_reset_std(&mut inbound[index].1, until), "a server in the LAN, {family:?}");
        assert!(is_reset(&mut own_idle[index], until), "of the router, idle, {family:?}");
        assert!(is_reset(&mut own_busy[index], until), "of the router, with data on the way, {family:?}");
        println!("{family:?}: {:?} after the detection", detected.elapsed());

        for host in [lab.lan(), lab.router()] {
            let mut again = Flow::open(host, Transport::Tcp, family, SOON)
                .unwrap_or_else(|error| panic!("{} again, {family:?}: {error}", host.name()));
            assert_eq!(again.ask().unwrap(), lab.isp("DSL").address(family), "{}, {family:?}", host.name());
        }
        udp[index].ask().unwrap();
        for flow in [&mut other[index], &mut own_other[index]] {
            assert_eq!(flow.ask().unwrap(), lab.isp("DSL").address(family));
        }
        let (outer, inner) = &mut other_inbound[index];
        std::io::Write::write_all(outer, b"x").unwrap();
        inner.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(inner.read(&mut [0; 2]).unwrap(), 1);
    }
    // Nobody outside was sent anything from addresses that are not the ISP's.
    for isp in lab.isps() {
        assert_eq!(isp.forwarded().unwrap().foreign, 0, "{}", isp.name());
    }
    wait_until(Duration::from_secs(20), "the end of the entries", || scene.tracked("0x3f00").is_empty())
        .unwrap();
}

#[test]
fn connections_that_lose_their_isp_are_reset_and_reconnect() {
    if ready() {
        connections_are_reset_and_reconnect("off", die);
    }
}

#[test]
fn connections_that_go_fast_and_lose_their_isp_are_reset_and_reconnect() {
    if ready() {
        connections_are_reset_and_reconnect("tc", die);
    }
}

#[test]
fn connections_whose_isp_loses_carrier_are_reset_and_reconnect() {
    if ready() {
        connections_are_reset_and_reconnect("tc", lose_carrier);
    }
}

/// Idle connections by an ISP: from the LAN, from the router, and into the LAN.
struct Idle {
    flows: Vec<Flow>,
    inbound: Vec<(TcpStream, TcpStream)>,
}

impl Idle {
    fn by(scene: &Scene, isp: &str) -> Self {
        let hosts = [scene.lab.lan(), scene.lab.router()];
        let kinds = hosts.into_iter().flat_map(|host| FAMILIES.map(|family| (host, family)));
        let flows = kinds.map(|(host, family)| scene.flow_by(isp, host, Transport::Tcp, family)).collect();
        let inbound = FAMILIES.map(|family| scene.inbound_by(isp, family)).into();
        Self { flows, inbound }
    }

    /// None of them is ended by anybody, for as long as a reset may take.
    fn stays(&mut self) {
        let until = Instant::now() + AT_ONCE;
        for flow in &mut self.flows {
            flow.set_timeout(until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
            assert_eq!(flow.end().unwrap_err().kind(), ErrorKind::TimedOut);
        }
        for (_, inner) in &mut self.inbound {
            inner.set_nonblocking(true).unwrap();
            assert_eq!(inner.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
    }
}

#[test]
fn without_resets_connections_that_lose_their_isp_are_forgotten_in_silence() {
    if !ready() {
        return;
    }
    let scene = Scene::new("reset = false");
    let mut idle = Idle::by(&scene, "CABLE");
    scene.fail("CABLE", die);
    idle.stays();
    assert_eq!(scene.tracked("0x3f00") + &scene.tracked("0x100"), "");
    let table = scene.lab.router().sh("nft list table inet balance").unwrap();
    assert!(!table.contains("reset"), "{table}");
}

#[test]
fn connections_with_nowhere_to_go_are_reset_when_there_is_another_isp_and_not_before() {
    if !ready() {
        return;
    }
    let scene = Scene::new("");
    scene.fail("DSL", die);
    let mut idle = Idle::by(&scene, "CABLE");
    scene.fail("CABLE", die);
    idle.stays();
    scene.lab.isp("DSL").revive().unwrap();
    scene.lab.wait_up("DSL").unwrap();
    let until = Instant::now() + AT_ONCE;
    assert!(idle.flows.iter_mut().all(|flow| is_reset(flow, until)));
}

#[test]
fn connections_by_an_isp_that_is_drained_go_on() {
    if !ready() {
        return;
    }
    let scene = Scene::new("");
    let mut idle = Idle::by(&scene, "CABLE");
    scene.lab.balance_ok(&["down", "CABLE"]).unwrap();
    idle.stays();
    for flow in &mut idle.flows {
        flow.set_timeout(SOON);
        flow.ask().unwrap();
    }
}

#[test]
fn connections_of_the_family_that_still_works_are_not_reset() {
    if !ready() {
        return;
    }
    let scene = Scene::new("");
    let [mut v4, mut v6] =
        FAMILIES.map(|family| scene.flow_by("CABLE", scene.lab.lan(), Transport::Tcp, family));
    let rule =
        "table ip dead { chain everything { type filter hook prerouting priority 0; policy drop; }\n}\n";
    scene.lab.isp("CABLE").host().feed("nft", &["-f", "-"], rule).unwrap();
    v4.set_timeout(SOON);
    assert_eq!(v4.end().unwrap(), ErrorKind::ConnectionReset);
    v6.ask().unwrap();
}

#[test]
fn thousands_of_connections_are_reset_together() {
    if !ready() {
        return;
    }
    let scene = Scene::new("");
    let _flows = open_flows(scene.lab.lan(), 2000, Transport::Tcp, Family::V4).unwrap();
    let open = |mark: &str| scene.tracked(mark).lines().filter(|line| line.contains("ESTABLISHED")).count();
    assert!(open("0x100") > 1000);
    scene.fail("CABLE", die);
    wait_until(SOON, "all being reset", || open("0x100") + open("0x3f00") == 0).unwrap();
}

#[test]
fn connections_of_an_isp_that_a_reload_removes_are_reset() {
    if !ready() {
        return;
    }
    let scene = Scene::new("");
    let mut idle = Idle::by(&scene, "DSL");
    let config = scene.lab.read_config().unwrap();
    let (before, dsl) = config.split_once("[[isp]]\nname = \"DSL\"").unwrap();
    let (_, after) = dsl.split_once("[[lan]]").unwrap();
    scene.lab.write_config(&format!("{before}[[lan]]{after}")).unwrap();
    scene.daemon.signal(Signal::SIGHUP).unwrap();
    let until = Instant::now() + SOON;
    assert!(idle.flows.iter_mut().all(|flow| is_reset(flow, until)));
}

#[test]
fn what_a_killed_daemon_left_of_lost_connections_goes_with_the_next_one_and_with_stop() {
    if !ready() {
        return;
    }
    for stop in [false, true] {
        let scene = Scene::new("");
        let _idle = Idle::by(&scene, "CABLE");
        scene.fail("CABLE", die);
        let Scene { lab, daemon } = scene;
        let left = || lab.router().sh("conntrack -L -p tcp --mark 0x3f00/0x3f00").unwrap();
        // In both families: one that the daemon has not come to is the next one's to cut loose.
        let by_cable = || lab.router().sh("conntrack -L -p tcp --mark 0x100/0x3f00").unwrap();
        wait_until(SOON, "connections being lost", || by_cable().is_empty() && !left().is_empty()).unwrap();
        daemon.kill9().unwrap();
        assert_ne!(left(), "");
        let _daemon = if stop {
            lab.balance_ok(&["stop"]).unwrap();
            None
        } else {
            Some(lab.start(&[]).unwrap())
        };
        assert_eq!(left(), "", "stop: {stop}");
    }
}
