//! The network of a lab.

use std::net::IpAddr;

use anyhow::{Context, ensure};

use crate::addresses::{self, INTERNET_V4, INTERNET_V6, ROUTER_V4, ROUTER_V6, SERVER_PORT, SINK_PORT};
use crate::server::{serve_tcp, serve_udp};
use crate::wire::any;
use crate::{Family, Host, Isp, IspSpec, Server, Sink};

/// LAN hosts, a router, ISPs and an internet host with its servers.
///
/// | where | addresses |
/// |---|---|
/// | LAN, router's `lan0` | 192.168.1.1/24, fd00:1::1/64; hosts from .10 and ::10 |
/// | ISP number k, from 1 | 100.64.k.2/24, 2001:db8:k::2/64 on the router, gateways .1 and ::1 |
/// | internet host | 203.0.113.0/24, 2001:db8:ffff::/64; see [`addresses`] |
pub struct Lab {
    // Fields are dropped in this order: servers first, then the machines.
    _servers: Vec<Server>,
    sink: Sink,
    router: Host,
    lan: Vec<Host>,
    _switch: Option<Host>,
    isps: Vec<Isp>,
    internet: Host,
    default_routes: bool,
}

/// How a lab shall be.
#[derive(Clone, Debug)]
pub struct Builder {
    lan_hosts: u8,
    isps: Vec<IspSpec>,
    default_routes: bool,
    like_wires: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self { lan_hosts: 1, isps: Vec::new(), default_routes: true, like_wires: false }
    }
}

impl Builder {
    /// So many hosts in the LAN; one if not said otherwise.
    #[must_use]
    pub fn lan_hosts(mut self, count: u8) -> Self {
        self.lan_hosts = count;
        self
    }

    /// Adds an ISP. Without any there are CABLE with weight 3 and DSL with weight 1.
    #[must_use]
    pub fn isp(mut self, isp: IspSpec) -> Self {
        self.isps.push(isp);
        self
    }

    /// Whether the router has a default route by each ISP in its main table, as DHCP and router advertisements make
    /// them; it has if not said otherwise.
    #[must_use]
    pub fn default_routes(mut self, wanted: bool) -> Self {
        self.default_routes = wanted;
        self
    }

    /// Makes all lines like real ones: every packet on them is of its final size and carries its checksum. Without it
    /// the ends of a line, being memory to the kernel, save themselves that. The far ends of the router's devices also
    /// take what XDP redirects, as any machine at a real wire does.
    #[must_use]
    pub fn like_wires(mut self) -> Self {
        self.like_wires = true;
        self
    }

    /// Makes it.
    ///
    /// # Errors
    /// Without root, `ip` or `nft`, or with more than 200 LAN hosts or ISPs.
    pub fn build(mut self) -> anyhow::Result<Lab> {
        ensure!(self.lan_hosts <= 200 && self.isps.len() <= 200, "a lab has at most 200 LAN hosts and ISPs");
        if self.isps.is_empty() {
            self.isps = vec![IspSpec::new("CABLE").weight(3), IspSpec::new("DSL")];
        }
        let router = Host::new("router")?;
        let internet = Host::new("internet")?;
        let lan = (0..self.lan_hosts).map(|index| Host::new(&format!("lan-{index}")));
        let lan = lan.collect::<anyhow::Result<Vec<_>>>()?;
        let isps = self.isps.into_iter().zip(1..).map(|(spec, number)| Isp::new(spec, number));
        let isps = isps.collect::<anyhow::Result<Vec<_>>>()?;

        let switch = add_links(&router, &internet, &lan, &isps)?;
        set_up_internet(&internet, &isps)?;
        for isp in &isps {
            isp.set_up()?;
        }
        for (host, index) in lan.iter().zip(0..) {
            set_up_lan_host(host, index)?;
        }
        let mut lines = vec![
            format!("addr add {ROUTER_V4}/24 dev lan0"),
            format!("addr add {ROUTER_V6}/64 dev lan0 nodad"),
            "link set lan0 up".to_owned(),
        ];
        lines.extend(isps.iter().flat_map(|isp| router_lines(isp, self.default_routes)));
        router.ip(&lines)?;
        if self.like_wires {
            make_wires(&router, &internet, &lan, switch.as_ref(), &isps)?;
        }

        let servers = vec![
            serve_tcp(&internet, any(Family::V4, SERVER_PORT))?,
            serve_tcp(&internet, any(Family::V6, SERVER_PORT))?,
            serve_udp(&internet, SERVER_PORT)?,
        ];
        let sink = Sink::open(&internet, SINK_PORT)?;
        Ok(Lab {
            _servers: servers,
            sink,
            router,
            lan,
            _switch: switch,
            isps,
            internet,
            default_routes: self.default_routes,
        })
    }
}

impl Lab {
    /// A lab with one LAN host and the ISPs CABLE, of weight 3, and DSL, of weight 1.
    ///
    /// # Errors
    /// Without root, `ip` or `nft`.
    pub fn new() -> anyhow::Result<Self> {
        Self::builder().build()
    }

    /// Starts to describe a lab.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The router: `lan0`, and a device for each ISP. Nothing forwards or translates there yet.
    #[must_use]
    pub fn router(&self) -> &Host {
        &self.router
    }

    /// The hosts in the LAN.
    #[must_use]
    pub fn lan_hosts(&self) -> &[Host] {
        &self.lan
    }

    /// The first host in the LAN.
    ///
    /// # Panics
    /// When the lab was built without any.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test that asks for a host it did not build is wrong")]
    pub fn lan(&self) -> &Host {
        self.lan.first().expect("this lab has no LAN hosts")
    }

    /// The internet host.
    #[must_use]
    pub fn internet(&self) -> &Host {
        &self.internet
    }

    /// What counts one-way packets on the internet host.
    #[must_use]
    pub fn sink(&self) -> &Sink {
        &self.sink
    }

    /// The ISPs, in order.
    #[must_use]
    pub fn isps(&self) -> &[Isp] {
        &self.isps
    }

    /// The ISP of this name.
    ///
    /// # Panics
    /// When the lab has none.
    #[must_use]
    #[expect(clippy::panic, reason = "a test that asks for an ISP it did not build is wrong")]
    pub fn isp(&self, name: &str) -> &Isp {
        let isp = self.isps.iter().find(|isp| isp.name() == name);
        isp.unwrap_or_else(|| panic!("this lab has no ISP {name}"))
    }

    /// The ISP that a source address, as the internet host saw it, belongs to.
    #[must_use]
    pub fn isp_of(&self, source: IpAddr) -> Option<&Isp> {
        self.isps.iter().find(|isp| isp.net.contains(source))
    }

    /// Takes the router's device of an ISP away: a card pulled, or a PPP line hung up.
    ///
    /// # Errors
    /// When it is not there.
    pub fn unplug(&self, name: &str) -> anyhow::Result<()> {
        self.router.ip(&[format!("link delete {}", self.isp(name).device())])
    }

    /// Puts it back, as a new device with the same name, addresses and routes.
    ///
    /// # Errors
    /// When it is there.
    pub fn plug(&self, name: &str) -> anyhow::Result<()> {
        let isp = self.isp(name);
        self.router.ip(&[link_line(isp)])?;
        isp.host().ip(&isp.near_lines())?;
        self.router.ip(&router_lines(isp, self.default_routes))
    }

    /// A configuration of the daemon for this lab: the ISPs with their weights, the internet host as their target, and
    /// the LAN.
    #[must_use]
    pub fn config(&self) -> String {
        let isps = self.isps.iter().map(|isp| {
            let v6 = if isp.spec.has_v6 { format!(", \"{INTERNET_V6}\"") } else { String::new() };
            format!(
                "[[isp]]\nname = \"{}\"\ndevice = \"{}\"\nweight = {}\ntargets = [\"{INTERNET_V4}\"{v6}]\n\n",
                isp.name(),
                isp.device(),
                isp.spec.weight
            )
        });
        isps.collect::<String>() + "[[lan]]\nname = \"LAN\"\ndevice = \"lan0\"\n"
    }
}

/// Connects the machines. Several LAN hosts meet in a switch, which is a machine of its own.
fn add_links(router: &Host, internet: &Host, lan: &[Host], isps: &[Isp]) -> anyhow::Result<Option<Host>> {
    let mut lines: Vec<_> = isps.iter().map(link_line).collect();
    let switch = if let [host] = lan {
        lines.push(veth("lan0", "eth0", host));
        None
    } else {
        let switch = Host::new("switch")?;
        lines.push(veth("lan0", "router", &switch));
        Some(switch)
    };
    router.ip(&lines)?;
    if let Some(switch) = &switch {
        let mut lines =
            vec!["link add lan type bridge".to_owned(), "link set router master lan up".to_owned()];
        for (host, index) in lan.iter().zip(0..) {
            lines.push(veth(&format!("host{index}"), "eth0", host));
            lines.push(format!("link set host{index} master lan up"));
        }
        lines.push("link set lan up".to_owned());
        switch.ip(&lines)?;
    }
    let far = isps.iter().map(|isp| veth(&far_device(isp), "internet", isp.host()));
    internet.ip(&far.collect::<Vec<_>>())?;
    Ok(switch)
}

fn make_wires(
    router: &Host,
    internet: &Host,
    lan: &[Host],
    switch: Option<&Host>,
    isps: &[Isp],
) -> anyhow::Result<()> {
    let ends = lan.iter().map(|host| (host, "eth0".to_owned()));
    let ends = ends.chain(isps.iter().map(|isp| (isp.host(), "router".to_owned())));
    let ends = ends.chain(switch.map(|switch| (switch, "router".to_owned())));
    for (host, device) in ends {
        host.offloads_off(&device)?;
        host.gro_on(&device)?;
    }
    router.offloads_off("lan0")?;
    for isp in isps {
        router.offloads_off(&isp.device())?;
        isp.host().offloads_off("internet")?;
        internet.offloads_off(&far_device(isp))?;
    }
    let switch_ports = switch.into_iter().flat_map(|switch| (0..lan.len()).map(move |index| (switch, index)));
    for (switch, index) in switch_ports {
        switch.offloads_off(&format!("host{index}"))?;
    }
    Ok(())
}

fn set_up_internet(internet: &Host, isps: &[Isp]) -> anyhow::Result<()> {
    internet.sysctls(&[
        // It answers from any address of its prefixes.
        ("net.ipv6.ip_nonlocal_bind", "1"),
        // Ten thousand connections may come at once.
        ("net.core.somaxconn", "65535"),
        ("net.ipv4.tcp_max_syn_backlog", "65535"),
    ])?;
    let mut lines = vec![
        format!("addr add {INTERNET_V4}/32 dev lo"),
        format!("addr add {INTERNET_V6}/128 dev lo nodad"),
        "route add local 203.0.113.0/24 dev lo".to_owned(),
        "route add local 2001:db8:ffff::/64 dev lo".to_owned(),
    ];
    for isp in isps {
        let (device, net) = (far_device(isp), isp.net);
        lines.extend([
            format!("addr add {}/24 dev {device}", net.internet_v4()),
            format!("addr add {}/64 dev {device} nodad", net.internet_v6()),
            format!("link set {device} up"),
            format!("route add {} via {} src {INTERNET_V4}", net.prefix_v4(), net.far_v4()),
            format!("route add {} via {} src {INTERNET_V6}", net.prefix_v6(), net.far_v6()),
        ]);
    }
    internet.ip(&lines)
}

fn set_up_lan_host(host: &Host, index: u8) -> anyhow::Result<()> {
    // Room for tens of thousands of flows to one server.
    host.sysctls(&[
        ("net.ipv4.ip_local_port_range", "1024 65535"),
        // Those of conntrack's helpers, which never go fast.
        ("net.ipv4.ip_local_reserved_ports", "1719,1720,1723,5060,6667,10080"),
    ])?;
    host.ip(&[
        format!("addr add {}/24 dev eth0", addresses::lan_host(index, Family::V4)),
        format!("addr add {}/64 dev eth0 nodad", addresses::lan_host(index, Family::V6)),
        "link set eth0 up".to_owned(),
        format!("route add default via {ROUTER_V4}"),
        format!("route add ::/0 via {ROUTER_V6}"),
    ])
    .with_context(|| format!("cannot set up {}", host.name()))
}

/// The lines of `ip` that set up the router's end of an ISP's line.
fn router_lines(isp: &Isp, default_route: bool) -> Vec<String> {
    // The protocols are those of DHCP and of router advertisements.
    let (device, net, metric) = (isp.device(), isp.net, 100 * u32::from(isp.net.0));
    let mut lines =
        vec![format!("link set {device} up"), format!("addr add {}/24 dev {device}", net.router_v4())];
    if default_route {
        let gateway = net.gateway_v4();
        lines.push(format!("route add default via {gateway} dev {device} proto 16 metric {metric}"));
    }
    if isp.spec.has_v6 {
        lines.push(format!("addr add {}/64 dev {device} nodad", net.router_v6()));
        if default_route {
            let gateway = net.gateway_v6();
            lines.push(format!("route add ::/0 via {gateway} dev {device} proto 9 metric {metric}"));
        }
    }
    lines
}

fn link_line(isp: &Isp) -> String {
    veth(&isp.device(), "router", isp.host())
}

fn veth(device: &str, peer: &str, other: &Host) -> String {
    format!("link add {device} type veth peer name {peer} netns {}", other.netns())
}

/// The internet host's device towards an ISP.
fn far_device(isp: &Isp) -> String {
    format!("isp{}", isp.net.0)
}
