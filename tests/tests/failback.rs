//! Flows that had to go elsewhere return to their ISP as their policy says, when it is usable again; nothing else moves.
#![cfg(test)]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use balance_lab::addresses::{SERVER_PORT, lan_host};
use balance_lab::{Daemon, Family, Flow, Host, Lab, Stream, Transport, ready, wait_until};
use nix::sys::signal::Signal;

/// How long an answer may take when all is well.
const HASTE: Duration = Duration::from_millis(500);
const SOON: Duration = Duration::from_secs(5);
/// Longer than it takes until a flow is known to be idle: with the fast path that is half a minute.
const LATE: Duration = Duration::from_mins(1);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const KINDS: [(Transport, Family); 4] = [
    (Transport::Tcp, Family::V4),
    (Transport::Tcp, Family::V6),
    (Transport::Udp, Family::V4),
    (Transport::Udp, Family::V6),
];
/// Which of the internet host's addresses has which policy.
const NOW: u8 = 60;
const IDLE: u8 = 61;
const KEEP: u8 = 62;
/// What the router forwards to the LAN host.
const PORT: u16 = 601;

const POLICIES: &str = r#"
[[policy]]
name = "default"
isps = ["CABLE", { name = "DSL", tier = 2 }]
failback = "now"

[[policy]]
name = "PATIENT"
isps = ["CABLE", { name = "DSL", tier = 2 }]
failback = "idle"
failback_idle = "1s"

[[policy]]
name = "CONTENT"
isps = ["CABLE", { name = "DSL", tier = 2 }]
failback = "keep"

[[rule]]
destination = ["203.0.113.61", "2001:db8:ffff::61"]
to = "PATIENT"

[[rule]]
destination = ["203.0.113.62", "2001:db8:ffff::62"]
to = "CONTENT"

[monitor]
up_after = "300ms"
"#;

fn internet(last: u8, family: Family) -> SocketAddr {
    let address = match family {
        Family::V4 => IpAddr::from(Ipv4Addr::new(203, 0, 113, last)),
        // The same digits.
        Family::V6 => format!("2001:db8:ffff::{last}").parse::<Ipv6Addr>().unwrap().into(),
    };
    (address, SERVER_PORT).into()
}

/// A flow, and what is known of it.
struct Live {
    flow: Flow,
    transport: Transport,
    family: Family,
    to: SocketAddr,
    /// The id of its conntrack entry.
    id: String,
}

impl Live {
    /// A flow that has been answered.
    fn open(lab: &Lab, host: &Host, last: u8, (transport, family): (Transport, Family)) -> Self {
        let to = internet(last, family);
        let mut flow = Flow::open_to(host, transport, to, SOON).unwrap();
        flow.ask().unwrap();
        let mut live = Self { flow, transport, family, to, id: String::new() };
        live.id = live.tracked(lab).unwrap();
        live
    }

    fn all(lab: &Lab, last: u8) -> Vec<Self> {
        KINDS.into_iter().map(|kind| Self::open(lab, lab.lan(), last, kind)).collect()
    }

    /// The id of its conntrack entry, if it has one.
    fn tracked(&self, lab: &Lab) -> Option<String> {
        let protocol = if self.transport == Transport::Tcp { "tcp" } else { "udp" };
        let (from, to) = (self.flow.local_address(), self.to);
        let ends = format!("-s {} -d {} --sport {} --dport {}", from.ip(), to.ip(), from.port(), to.port());
        let entry = lab.router().sh(&format!("conntrack -G -p {protocol} {ends} -o id 2>/dev/null || true"));
        entry.unwrap().split_whitespace().find_map(|word| word.strip_prefix("id=")).map(str::to_owned)
    }

    fn is_by(&mut self, lab: &Lab, isp: &str) -> bool {
        self.flow.ask().is_ok_and(|seen| seen == lab.isp(isp).address(self.family))
    }

    /// Checks that it is where it was.
    fn has_stayed(&mut self, lab: &Lab, isp: &str) {
        assert!(self.is_by(lab, isp), "{:?} {:?}", self.transport, self.family);
        assert_eq!(self.tracked(lab).as_ref(), Some(&self.id), "{:?} {:?}", self.transport, self.family);
    }

    /// Checks that it is moved to CABLE, or ended so that it can begin there, while it says nothing. So its old entry is gone.
    fn moves(mut self, lab: &Lab, timeout: Duration) {
        let kind = (self.transport, self.family);
        if self.transport == Transport::Tcp {
            self.flow.set_timeout(timeout);
            assert_eq!(self.flow.end().unwrap(), ErrorKind::ConnectionReset, "{kind:?}");
            let to = internet(NOW, self.family);
            self.flow = Flow::open_to(lab.lan(), self.transport, to, SOON).unwrap();
        } else {
            let is_gone = || self.tracked(lab).is_none_or(|id| id != self.id);
            wait_until(timeout, &format!("{kind:?} moving"), is_gone).unwrap();
        }
        assert!(self.is_by(lab, "CABLE"), "{kind:?}");
    }
}

/// A lab whose CABLE is dead, so that everything goes by DSL.
fn fallen(acceleration: &str) -> (Lab, Daemon) {
    let (lab, daemon) = tiered(acceleration);
    lab.isp("CABLE").die_silently().unwrap();
    lab.wait_state("CABLE", "down").unwrap();
    (lab, daemon)
}

/// A lab where DSL is used only while CABLE is not.
fn tiered(acceleration: &str) -> (Lab, Daemon) {
    let lab = Lab::new().unwrap();
    let forwards = FAMILIES
        .map(|family| format!("[[forward]]\nport = {PORT}\nto = \"{}\"\n", lan_host(0, family)))
        .concat();
    let config = format!("acceleration = \"{acceleration}\"\n{}{forwards}{POLICIES}", lab.config());
    lab.write_config(&config).unwrap();
    let daemon = lab.start_up().unwrap();
    // What is gone from conntrack has not just timed out.
    let timeouts = ["udp_timeout", "udp_timeout_stream"];
    let keys = timeouts.map(|name| format!("net.netfilter.nf_conntrack_{name}"));
    lab.router().sysctls(&keys.each_ref().map(|key| (key.as_str(), "600"))).unwrap();
    (lab, daemon)
}

fn revive(lab: &Lab) {
    lab.isp("CABLE").revive().unwrap();
    lab.wait_up("CABLE").unwrap();
}

/// A connection of each family from outside by DSL to a server in the LAN: their outer and their inner ends.
fn inbound(lab: &Lab) -> [(TcpStream, TcpStream); 2] {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
    let listener = lab.lan().run(|| TcpListener::bind(any)).unwrap();
    FAMILIES.map(|family| {
        let to = SocketAddr::new(lab.isp("DSL").address(family), PORT);
        let outer = lab.internet().run(|| TcpStream::connect_timeout(&to, SOON)).unwrap();
        let (inner, _) = listener.accept().unwrap();
        (outer, inner)
    })
}

fn talks((outer, inner): &mut (TcpStream, TcpStream)) {
    let send = |from: &mut TcpStream, to: &mut TcpStream| {
        from.write_all(b"x").unwrap();
        to.set_read_timeout(Some(SOON)).unwrap();
        to.read_exact(&mut [0]).unwrap();
    };
    send(outer, inner);
    send(inner, outer);
}

fn flows_return_as_their_policies_say(acceleration: &str) {
    let (lab, _daemon) = fallen(acceleration);
    let [now, idle, mut talking, mut keep] = [NOW, IDLE, IDLE, KEEP].map(|last| Live::all(&lab, last));
    let own = KINDS.into_iter().map(|kind| Live::open(&lab, lab.router(), NOW, kind));
    let mut bystanders: Vec<Live> = own.collect();
    bystanders.append(&mut keep);
    let mut inbound = inbound(&lab);
    for live in bystanders.iter_mut().chain(&mut talking) {
        live.has_stayed(&lab, "DSL");
    }
    revive(&lab);
    for live in now {
        live.moves(&lab, SOON);
    }
    // It talks for as long as the others are silent.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| idle.into_iter().for_each(|live| live.moves(&lab, LATE)));
        let talk = || {
            for live in &mut talking {
                live.has_stayed(&lab, "DSL");
            }
            waiting.is_finished()
        };
        wait_until(LATE, "the silent ones", talk).unwrap();
        waiting.join().unwrap();
    });
    for live in talking {
        live.moves(&lab, LATE);
    }
    for live in &mut bystanders {
        live.has_stayed(&lab, "DSL");
    }
    inbound.iter_mut().for_each(talks);
}

#[test]
fn flows_return_at_once_or_when_they_are_idle_or_never() {
    if ready() {
        flows_return_as_their_policies_say("off");
    }
}

#[test]
fn flows_that_go_fast_return_at_once_or_when_they_are_idle_or_never() {
    if ready() {
        flows_return_as_their_policies_say("tc");
    }
}

#[test]
fn flows_that_go_fast_return_under_traffic_and_lose_next_to_nothing() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = fallen("tc");
    let streams = FAMILIES.map(|family| Stream::start(lab.lan(), 1_000, 20, family).unwrap());
    let forwarded = || lab.isp("CABLE").forwarded().unwrap().to_internet;
    let fast = || lab.isp_status("DSL").unwrap()["fast_packets"].as_u64().unwrap();
    wait_until(SOON, "packets by the fast path", || fast() > 1_000).unwrap();
    revive(&lab);
    let before = forwarded();
    wait_until(SOON, "the flows at CABLE", || forwarded() > before + 4_000).unwrap();
    for stream in streams {
        let report = stream.stop().unwrap();
        assert_eq!(report.moved, 20);
        // What was on the way when they moved: less than a packet of each.
        assert!(report.lost < 20, "{report:?}");
    }
    for isp in lab.isps() {
        assert_eq!(isp.forwarded().unwrap().foreign, 0, "{}", isp.name());
    }
}

/// Two ISPs that share the flows, of which all return at once.
fn shared(weight: u32) -> (Lab, String) {
    let lab = Lab::new().unwrap();
    let isps = lab.config().replacen("weight = 1", &format!("weight = {weight}"), 1);
    let config = format!("failback = \"now\"\n{isps}\n[monitor]\nup_after = \"300ms\"\n");
    lab.write_config(&config).unwrap();
    (lab, config)
}

/// So many flows that hardly any run has none by DSL, and by which ISP they go.
fn spread(lab: &Lab, kinds: &[(Transport, Family)]) -> Vec<(Live, String)> {
    let open = |&kind| {
        let mut live = Live::open(lab, lab.lan(), NOW, kind);
        let seen = live.flow.ask().unwrap();
        (live, lab.isp_of(seen).unwrap().name().to_owned())
    };
    (0..24).flat_map(|_| kinds).map(open).collect()
}

/// Checks that flows go where they went at first, and that those which were at DSL all the time have the entries of then.
fn are_back(lab: &Lab, flows: Vec<(Live, String)>) {
    for (mut live, isp) in flows {
        if isp == "DSL" {
            live.has_stayed(lab, "DSL");
        } else {
            live.moves(lab, SOON);
        }
    }
}

/// Has all flows go by DSL, as CABLE does not take any.
fn go_by_dsl(lab: &Lab, flows: &mut [(Live, String)]) {
    for (live, _) in flows {
        // The one family may be known to be dead before the other, and what is asked of a dead ISP is lost.
        live.flow.set_timeout(HASTE);
        wait_until(SOON, "a flow by DSL", || live.is_by(lab, "DSL")).unwrap();
        live.id = live.tracked(lab).unwrap();
    }
}

#[test]
fn of_flows_that_share_two_isps_those_return_that_were_there_before() {
    const UDP: [(Transport, Family); 2] = [(Transport::Udp, Family::V4), (Transport::Udp, Family::V6)];
    if !ready() {
        return;
    }
    let (lab, _) = shared(1);
    let daemon = lab.start_up().unwrap();
    let mut flows = spread(&lab, &UDP);
    assert!(flows.iter().any(|(_, isp)| isp == "CABLE") && flows.iter().any(|(_, isp)| isp == "DSL"));
    lab.isp("CABLE").die_silently().unwrap();
    lab.wait_state("CABLE", "down").unwrap();
    go_by_dsl(&lab, &mut flows);
    // The daemon that sees it come back is another one.
    daemon.kill9().unwrap();
    let _daemon = lab.start(&[]).unwrap();
    revive(&lab);
    are_back(&lab, flows);
}

#[test]
fn flows_return_when_the_operator_lets_their_isp_be_used_again() {
    if !ready() {
        return;
    }
    let (lab, _daemon) = tiered("tc");
    lab.balance_ok(&["down", "CABLE"]).unwrap();
    let [now, keep] = [NOW, KEEP].map(|last| Live::all(&lab, last));
    lab.balance_ok(&["auto", "CABLE"]).unwrap();
    for live in now {
        live.moves(&lab, SOON);
    }
    for mut live in keep {
        live.has_stayed(&lab, "DSL");
    }
}

#[test]
fn without_resets_connections_are_forgotten_where_they_were() {
    if !ready() {
        return;
    }
    let (lab, config) = shared(1);
    lab.write_config(&format!("reset = false\n{config}")).unwrap();
    let _daemon = lab.start_up().unwrap();
    lab.isp("CABLE").die_silently().unwrap();
    lab.wait_state("CABLE", "down").unwrap();
    let flows = spread(&lab, &[(Transport::Tcp, Family::V4), (Transport::Tcp, Family::V6)]);
    revive(&lab);
    let gone = || flows.iter().filter(|(live, _)| live.tracked(&lab).is_none()).count();
    // Those that are CABLE's.
    wait_until(SOON, "flows that are forgotten", || gone() > 0).unwrap();
    assert!(gone() < flows.len());
    let lost = lab.router().sh("conntrack -L --mark 0x3f00/0x3f00 2>/dev/null").unwrap();
    assert_eq!(lost, "");
}

#[test]
fn weights_and_reloads_move_no_flow() {
    if !ready() {
        return;
    }
    let (lab, config) = shared(1);
    let daemon = lab.start_up().unwrap();
    let mut flows = spread(&lab, &KINDS);
    lab.balance_ok(&["set-weight", "CABLE", "1000"]).unwrap();
    let weight = || lab.isp_status("CABLE").unwrap()["weight"].as_u64();
    wait_until(SOON, "the weight", || weight() == Some(1000)).unwrap();
    let readies = || daemon.notifications().iter().filter(|line| *line == "READY=1").count();
    let before = readies();
    lab.write_config(&config.replacen("weight = 1", "weight = 500", 1)).unwrap();
    daemon.signal(Signal::SIGHUP).unwrap();
    wait_until(SOON, "the reload", || readies() > before).unwrap();
    for (live, isp) in &mut flows {
        live.has_stayed(&lab, isp);
    }
}
