//! A lab with two ISPs that delegate prefixes, and what the internet sees of it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use balance_lab::addresses::INTERNET_V6;
use balance_lab::{
    Builder, Daemon, Flow, IspSpec, Lab, Server, Transport, ready, serve_tcp, serve_udp, wait_until,
};
use serde_json::Value;

pub(crate) const SOON: Duration = Duration::from_secs(3);
/// How long an answer is waited for where it may not come.
pub(crate) const HASTE: Duration = Duration::from_millis(100);
pub(crate) const TIMEOUT: Duration = Duration::from_secs(15);
pub(crate) const PORT: u16 = 6000;
pub(crate) const KINDS: [Transport; 2] = [Transport::Tcp, Transport::Udp];
pub(crate) const ACCELERATIONS: [&str; 2] = ["off", "tc"];

/// What CABLE delegates, and DSL.
pub(crate) const CABLE: &str = "2001:db8:a::/48";
pub(crate) const DSL: &str = "2001:db8:b::/48";
/// The LAN host in the LAN's own prefix, fd00:1::/64, and where that is translated to.
pub(crate) const LOCAL: &str = "fd00:1::10";
pub(crate) const CABLE_LOCAL: &str = "2001:db8:a::10";
pub(crate) const DSL_LOCAL: &str = "2001:db8:b::10";
/// The LAN host in a subnet of each ISP's prefix.
pub(crate) const CABLE_HOST: &str = "2001:db8:a:1::10";
pub(crate) const DSL_HOST: &str = "2001:db8:b:1::10";
/// The router's addresses at the ISPs.
pub(crate) const CABLE_ROUTER: &str = "2001:db8:1::2";
pub(crate) const DSL_ROUTER: &str = "2001:db8:2::2";

pub(crate) const NPT_CABLE: &str = "ipv6 = \"npt\"\nprefix = \"2001:db8:a::/48\"\n";
pub(crate) const NPT_DSL: &str = "ipv6 = \"npt\"\nprefix = \"2001:db8:b::/48\"\n";
pub(crate) const SOURCE_CABLE: &str = "ipv6 = \"source\"\nprefix = \"2001:db8:a::/48\"\n";
pub(crate) const SOURCE_DSL: &str = "ipv6 = \"source\"\nprefix = \"2001:db8:b::/48\"\n";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

/// A lab of CABLE and DSL, both of which delegate their prefixes, with the daemon.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    acceleration: &'static str,
    pub(crate) daemon: Option<Daemon>,
}

impl Scene {
    /// With these lines about CABLE and DSL in the config.
    pub(crate) fn new(acceleration: &'static str, cable: &str, dsl: &str) -> Self {
        // Of the same weight, so that a few flows are enough to see both.
        let isps = [IspSpec::new("CABLE"), IspSpec::new("DSL")];
        let lab = isps.into_iter().fold(Lab::builder(), Builder::isp).build().unwrap();
        lab.delegate("CABLE", CABLE).unwrap();
        lab.delegate("DSL", DSL).unwrap();
        let mut scene = Self { lab, acceleration, daemon: None };
        scene.lab.write_config(&scene.config(cable, dsl)).unwrap();
        scene.daemon = Some(scene.lab.start(&[]).unwrap());
        for isp in ["CABLE", "DSL"] {
            // It is up when one family is.
            let waits = |status: &Value| status["reason"].as_str().is_some_and(|why| why.contains("waiting"));
            scene.lab.wait_isp(isp, |status| status["state"] == "up" && !waits(status)).unwrap();
        }
        scene
    }

    /// The same with a LAN host that has an address of each ISP's prefix.
    pub(crate) fn multihomed(acceleration: &'static str, cable: &str, dsl: &str) -> Self {
        let scene = Self::new(acceleration, cable, dsl);
        for (subnet, host) in [("2001:db8:a:1::", CABLE_HOST), ("2001:db8:b:1::", DSL_HOST)] {
            scene.lab.router().ip(&[format!("addr add {subnet}1/64 dev lan0 nodad")]).unwrap();
            scene.lab.lan().ip(&[format!("addr add {host}/64 dev eth0 nodad")]).unwrap();
        }
        scene
    }

    pub(crate) fn config(&self, cable: &str, dsl: &str) -> String {
        let config = self.lab.config();
        let config = config.replace("device = \"cable0\"\n", &format!("device = \"cable0\"\n{cable}"));
        let config = config.replace("device = \"dsl0\"\n", &format!("device = \"dsl0\"\n{dsl}"));
        format!("acceleration = \"{}\"\n{config}[monitor]\nup_after = \"300ms\"\n", self.acceleration)
    }

    pub(crate) fn open(&self, transport: Transport, from: &str) -> std::io::Result<Flow> {
        Flow::open_from(self.lab.lan(), transport, ip(from), SOON)
    }

    /// The sources that the internet sees of new flows from this address, each of which keeps its own: for longer than
    /// the fast path needs to learn it.
    pub(crate) fn seen(&self, from: &str) -> BTreeSet<IpAddr> {
        let mut seen = BTreeSet::new();
        for transport in KINDS {
            for _ in 0..16 {
                let mut flow = self.open(transport, from).unwrap();
                let source = flow.ask().unwrap();
                for _ in 0..4 {
                    assert_eq!(flow.ask().unwrap(), source);
                }
                seen.insert(source);
            }
        }
        seen
    }

    /// Waits until new flows from this address have these sources.
    pub(crate) fn wait_seen(&self, from: &str, sources: &[&str]) {
        let mut seen = BTreeSet::new();
        let look = || {
            seen = self.seen(from);
            seen == ips(sources)
        };
        let waited = wait_until(TIMEOUT, "new flows with other sources", look);
        assert!(waited.is_ok(), "{from} is seen as {seen:?}");
    }

    /// Flows of both kinds from this address that are seen with that one.
    pub(crate) fn flows(&self, from: &str, source: &str) -> Vec<Flow> {
        KINDS.map(|transport| self.flow(transport, from, source)).into()
    }

    pub(crate) fn flow(&self, transport: Transport, from: &str, source: &str) -> Flow {
        for _ in 0..100 {
            let mut flow = self.open(transport, from).unwrap();
            if flow.ask().unwrap() == ip(source) {
                return flow;
            }
        }
        panic!("no flow from {from} is seen as {source}");
    }

    /// Nothing went out by an ISP with an address that is not of it.
    pub(crate) fn nothing_foreign(&self) {
        for isp in self.lab.isps() {
            assert_eq!(isp.forwarded().unwrap().foreign, 0, "{}", isp.name());
        }
    }

    /// The packets of a flow that last do go fast, if they should.
    pub(crate) fn goes_fast(&self, flow: &mut Flow) {
        let fast = || {
            let isps = ["CABLE", "DSL"].map(|isp| self.lab.isp_status(isp).unwrap());
            isps.iter().map(|isp| isp["fast_packets"].as_u64().unwrap_or(0)).sum::<u64>()
        };
        let before = fast();
        if self.acceleration == "off" {
            assert_eq!(before, 0);
            return;
        }
        let source = flow.ask().unwrap();
        let asked = wait_until(TIMEOUT, "packets on the fast path", || {
            for _ in 0..20 {
                assert_eq!(flow.ask().unwrap(), source);
            }
            fast() > before
        });
        asked.unwrap();
    }
}

/// Runs a test with each acceleration, if it can run here.
pub(crate) fn with_each(test: impl Fn(&'static str)) {
    if ready() {
        for acceleration in ACCELERATIONS {
            println!("acceleration = {acceleration}");
            test(acceleration);
        }
    }
}

/// Servers on the LAN host, and on the router.
pub(crate) fn servers(lab: &Lab) -> Vec<Server> {
    [lab.lan(), lab.router()]
        .into_iter()
        .flat_map(|host| {
            let any = SocketAddr::new(ip("::"), PORT);
            [serve_tcp(host, any).unwrap(), serve_udp(host, PORT).unwrap()]
        })
        .collect()
}

/// Connections from the internet to this address are answered, and the server sees who asks.
pub(crate) fn is_reached(lab: &Lab, address: &str) -> Vec<Flow> {
    let open = |transport| {
        let to = SocketAddr::new(ip(address), PORT);
        let mut flow = Flow::open_to(lab.internet(), transport, to, SOON)
            .unwrap_or_else(|error| panic!("{transport:?} to {address}: {error}"));
        for _ in 0..30 {
            assert_eq!(flow.ask().unwrap(), IpAddr::from(INTERNET_V6), "{transport:?} to {address}");
        }
        flow
    };
    KINDS.map(open).into()
}
