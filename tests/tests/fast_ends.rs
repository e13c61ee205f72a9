//! When the fast path ends, the flows that went by it go on.
#![cfg(test)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use balance_lab::addresses::{SERVER_PORT, internet};
use balance_lab::{Daemon, Family, Flow, Host, IspSpec, Lab, Transport, ready, serve_tcp, wait_until};
use nix::sys::signal::Signal;

/// How long an answer may take.
const SOON: Duration = Duration::from_secs(3);
/// So many, with their answers, make more than any window.
const QUESTIONS: u64 = 5_000;
/// Whether conntrack is liberal about windows.
const LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";
/// A router that does without us: it translates, and drops what conntrack takes for invalid. It counts what goes through
/// the kernel.
const ROUTER: &str = "\
table inet theirs {
    counter seen { }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state invalid drop
        counter name seen
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname cable0 masquerade
    }
}
";

/// A lab with one ISP, so that flows do not have to move when we stop, and another LAN.
struct Router {
    lab: Lab,
    other: Host,
}

impl Router {
    fn new() -> Self {
        let lab = Lab::builder().isp(IspSpec::new("CABLE")).build().unwrap();
        let other = Host::new("other").unwrap();
        let router = lab.router();
        router.sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")]).unwrap();
        router.feed("nft", &["-f", "-"], ROUTER).unwrap();
        let link = format!("link add lan1 type veth peer name eth0 netns {}", other.netns());
        router.ip(&[link, "addr add 192.168.2.1/24 dev lan1".into(), "link set lan1 up".into()]).unwrap();
        let there =
            ["addr add 192.168.2.10/24 dev eth0", "link set eth0 up", "route add default via 192.168.2.1"];
        other.ip(&there.map(str::to_owned)).unwrap();
        Self { lab, other }
    }

    fn configure(&self, acceleration: &str) {
        let config = self.lab.config();
        let other = "[[lan]]\nname = \"OTHER\"\ndevice = \"lan1\"\n";
        self.lab.write_config(&format!("acceleration = \"{acceleration}\"\n{config}{other}")).unwrap();
    }

    fn start(&self) -> Daemon {
        self.configure("tc");
        let daemon = self.lab.start_up().unwrap();
        assert_eq!(self.lab.router().sysctl(LIBERAL).unwrap(), "1");
        daemon
    }

    /// How many packets the kernel has forwarded itself.
    fn seen(&self) -> u64 {
        let counter = self.lab.router().sh("nft list counter inet theirs seen").unwrap();
        let packets = counter.split_whitespace().skip_while(|word| *word != "packets").nth(1);
        packets.unwrap_or_else(|| panic!("{counter}")).parse().unwrap()
    }

    /// A TCP flow over which a lot has gone by now, nearly all of it by the fast path.
    fn fast_flow(&self, to: SocketAddr) -> Flow {
        let before = self.seen();
        let mut flow = Flow::open_to(self.lab.lan(), Transport::Tcp, to, SOON).unwrap();
        for _ in 0..QUESTIONS {
            flow.ask().unwrap();
        }
        let seen = self.seen() - before;
        assert!(seen < QUESTIONS / 4, "{to}: {seen}");
        flow
    }

    /// Flows that went fast by both families, and from one LAN to the other, which have no mark, go on after this.
    fn flows_survive(&self, end: impl FnOnce()) {
        let _server = serve_tcp(&self.other, ([0, 0, 0, 0], SERVER_PORT).into()).unwrap();
        let in_other_lan = SocketAddr::new(IpAddr::from([192, 168, 2, 10]), SERVER_PORT);
        let far = [internet(Family::V4, SERVER_PORT), internet(Family::V6, SERVER_PORT), in_other_lan];
        let mut flows = far.map(|to| (to, self.fast_flow(to)));
        end();
        assert_eq!(self.lab.router().sysctl(LIBERAL).unwrap(), "0");
        for _ in 0..10 {
            for (to, flow) in &mut flows {
                flow.ask().unwrap_or_else(|error| panic!("{to}: {error}"));
            }
        }
    }
}

#[test]
fn stop_cuts_no_tcp_flow() {
    if !ready() {
        return;
    }
    let router = Router::new();
    let _daemon = router.start();
    router.flows_survive(|| drop(router.lab.balance_ok(&["stop"]).unwrap()));
}

#[test]
fn a_reload_without_acceleration_cuts_no_tcp_flow() {
    if !ready() {
        return;
    }
    let router = Router::new();
    let daemon = router.start();
    router.flows_survive(|| {
        router.configure("off");
        daemon.signal(Signal::SIGHUP).unwrap();
        let is_strict = || router.lab.router().sysctl(LIBERAL).is_ok_and(|value| value == "0");
        wait_until(SOON, "strict windows", is_strict).unwrap();
    });
}
