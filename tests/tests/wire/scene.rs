//! The network: a lab whose far ends are ours to the last byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, ensure};
use balance_lab::checksum::{Layout, be16};
use balance_lab::packet::{Ipv4, Mac, Payload, ether_type, frame};
use balance_lab::{Counter, Daemon, Family, Frame, Host, IspSpec, Lab, Port};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::mode::Mode;

/// How long what happens at once may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(3);
/// The router forwards what comes to this port of its address at the ISP, and to the next one from the LAN...
pub(crate) const FORWARDED_PORT: u16 = 6001;
/// ... to this port of [`ALICE`], or of [`BOB`].
pub(crate) const INSIDE_PORT: u16 = 6002;

/// Which device of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Lan,
    /// A second LAN.
    Garden,
    Isp,
}

pub(crate) const PLACES: [Place; 3] = [Place::Lan, Place::Garden, Place::Isp];

/// The router's devices, likewise.
const DEVICES: [&str; 3] = ["lan0", "lan1", "cable0"];

/// A machine that exists only in the packets that it sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Station {
    pub(crate) place: Place,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    last: u8,
}

pub(crate) const ALICE: Station = Station::inside(Place::Lan, 1, 100);
pub(crate) const BOB: Station = Station::inside(Place::Lan, 1, 101);
pub(crate) const CAROL: Station = Station::inside(Place::Garden, 2, 100);
pub(crate) const SERVER: Station = Station::outside(100);
/// Two more, whose packets say that all before them have passed.
const FENCE: [Station; 2] = [Station::inside(Place::Lan, 1, 99), Station::outside(99)];

impl Station {
    const fn inside(place: Place, net: u8, last: u8) -> Self {
        let v6 = Ipv6Addr::new(0xfd00, net as u16, 0, 0, 0, 0, 0, last as u16);
        Self { place, v4: Ipv4Addr::new(192, 168, net, last), v6, last }
    }

    const fn outside(last: u8) -> Self {
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x5100, 0, 0, 0, 0, last as u16);
        Self { place: Place::Isp, v4: Ipv4Addr::new(198, 51, 100, last), v6, last }
    }

    pub(crate) fn address(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// Those outside are behind the ISP's gateway.
    pub(crate) fn mac(self) -> Mac {
        let last = if self.place == Place::Isp { 2 } else { self.last };
        Mac([2, 0, 0, 0, self.place as u8 + 1, last])
    }
}

impl Place {
    pub(crate) fn router_mac(self) -> Mac {
        Mac([2, 0, 0, 0, self as u8 + 1, 1])
    }
}

/// What a scene shall be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) lan_mtu: u16,
    pub(crate) isp_mtu: u16,
    /// Every packet is complete, as on real lines.
    pub(crate) like_wires: bool,
    /// Conntrack looks at checksums, and does not translate what is corrupt.
    pub(crate) checks_checksums: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { lan_mtu: 1500, isp_mtu: 1500, like_wires: true, checks_checksums: true }
    }
}

pub(crate) struct Scene {
    pub(crate) mode: Mode,
    pub(crate) shape: Shape,
    ports: [Port; 3],
    /// The router's devices, if their drivers forward: what they forward does not get here.
    drivers: Vec<Port>,
    slow: Counter,
    fences: u16,
    _daemon: Daemon,
    _garden: Host,
    lab: Lab,
}

impl Scene {
    pub(crate) fn new(mode: Mode, shape: Shape) -> anyhow::Result<Self> {
        let mut lab = Lab::builder().isp(IspSpec::new("CABLE"));
        if shape.like_wires {
            lab = lab.like_wires();
        }
        let lab = lab.build()?;
        let garden = Host::new("garden")?;
        set_up_devices(&lab, &garden, shape)?;
        set_up_router(&lab)?;
        let checks = if shape.checks_checksums { "1" } else { "0" };
        lab.router().sysctls(&[("net.netfilter.nf_conntrack_checksum", checks)])?;
        let config =
            format!("{}\n{}\n[[lan]]\nname = \"GARDEN\"\ndevice = \"lan1\"\n", mode.config, lab.config());
        lab.write_config(&config)?;
        let daemon = lab.start_up()?;
        let kind = check_kind(&lab, mode, shape)?;
        let isp = lab.isp("CABLE").host();
        let ports =
            [Port::open(lab.lan(), "eth0")?, Port::open(&garden, "eth0")?, Port::open(isp, "router")?];
        // Not before: what is started stays there too.
        stay_on_this_cpu()?;
        let slow = Counter::open(lab.router(), "seen", "slow")?;
        let mut drivers = Vec::new();
        if kind == "xdp" {
            // With other kinds somebody who looks would make a difference: each packet would be a copy.
            for device in DEVICES {
                drivers.push(Port::open(lab.router(), device)?);
            }
        }
        Ok(Self { mode, shape, drivers, ports, slow, fences: 0, _daemon: daemon, _garden: garden, lab })
    }

    /// The router's address at the ISP.
    pub(crate) fn public(&self, family: Family) -> IpAddr {
        self.lab.isp("CABLE").address(family)
    }

    pub(crate) fn port(&self, place: Place) -> &Port {
        let [lan, garden, isp] = &self.ports;
        match place {
            Place::Lan => lan,
            Place::Garden => garden,
            Place::Isp => isp,
        }
    }

    /// How many packets of the stations the kernel's network stack has seen on the router so far.
    pub(crate) fn slow_packets(&self) -> anyhow::Result<u64> {
        self.slow.packets()
    }

    /// Whether drivers of the router's devices forward.
    pub(crate) fn has_fast_drivers(&self) -> bool {
        !self.drivers.is_empty()
    }

    /// How many packets of the stations drivers that should have forwarded them did not, since it was last asked.
    pub(crate) fn missed_by_drivers(&self) -> anyhow::Result<usize> {
        let mut missed = 0;
        for driver in &self.drivers {
            while let Some(frame) = driver.receive()? {
                missed += usize::from(is_of_a_station(&frame));
            }
        }
        Ok(missed)
    }

    /// How many packets the daemon says went fast.
    pub(crate) fn fast_packets(&self) -> anyhow::Result<u64> {
        let isp = self.lab.isp_status("CABLE")?;
        isp["fast_packets"].as_u64().with_context(|| format!("no fast_packets in {isp:#}"))
    }

    /// Waits until all frames that were sent before have passed, and returns those of the stations that have arrived at
    /// each place.
    pub(crate) fn collect(&mut self) -> anyhow::Result<[Vec<Frame>; 3]> {
        self.fences += 1;
        let number = self.fences;
        let [inside, outside] = FENCE;
        let mut arrived = [Vec::new(), Vec::new(), Vec::new()];
        self.port(Place::Lan).send(&fence(inside, outside.v4, number))?;
        self.wait_fence(Place::Isp, number, &mut arrived[Place::Isp as usize])?;
        let IpAddr::V4(public) = self.public(Family::V4) else { panic!("IPv4 is IPv4") };
        self.port(Place::Isp).send(&fence(outside, public, number))?;
        self.wait_fence(Place::Lan, number, &mut arrived[Place::Lan as usize])?;
        while let Some(frame) = self.port(Place::Garden).receive()? {
            arrived[Place::Garden as usize].push(frame);
        }
        for frames in &mut arrived {
            frames.retain(is_of_a_station);
        }
        Ok(arrived)
    }

    fn wait_fence(&self, place: Place, number: u16, before: &mut Vec<Frame>) -> anyhow::Result<()> {
        let mark = fence_data(number);
        let found = self.port(place).wait(SOON, |frame| {
            let found = frame.bytes.ends_with(&mark);
            if !found {
                before.push(frame.clone());
            }
            found
        })?;
        ensure!(found.is_some(), "the fence did not get to {place:?}");
        Ok(())
    }
}

/// All packets of a flow pass in order if they all start on one CPU.
fn stay_on_this_cpu() -> anyhow::Result<()> {
    // SAFETY: it takes nothing and reports a number.
    let cpu = unsafe { libc::sched_getcpu() };
    let mut set = CpuSet::new();
    set.set(cpu.try_into()?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Looks whether the daemon forwards as it says, and returns what all packets of the scene can go by: longer ones than a
/// page are in several pieces, which XDP leaves to TC.
fn check_kind(lab: &Lab, mode: Mode, shape: Shape) -> anyhow::Result<&'static str> {
    let expected = mode.name;
    let status = lab.status()?;
    let devices = status["acceleration"].as_array().context("no acceleration")?;
    let is_expected = |device: &&serde_json::Value| device["kind"] == expected;
    let count = devices.iter().filter(is_expected).count();
    ensure!(count == DEVICES.len(), "not all are {expected}: {devices:?}");
    let is_too_long = shape.lan_mtu.max(shape.isp_mtu) > 3000;
    Ok(if expected == "xdp" && is_too_long { "tc" } else { expected })
}

fn set_up_devices(lab: &Lab, garden: &Host, shape: Shape) -> anyhow::Result<()> {
    let Shape { lan_mtu, isp_mtu, like_wires, .. } = shape;
    let router = lab.router();
    let [lan, lan1, cable] = PLACES.map(Place::router_mac);
    let mut lines = vec![
        format!("link add lan1 type veth peer name eth0 netns {}", garden.netns()),
        format!("link set lan0 mtu {lan_mtu} address {lan}"),
        format!("link set lan1 mtu {lan_mtu} address {lan1} up"),
        format!("link set cable0 mtu {isp_mtu} address {cable}"),
        "addr add 192.168.2.1/24 dev lan1".to_owned(),
        "addr add fd00:2::1/64 dev lan1 nodad".to_owned(),
    ];
    for station in [ALICE, BOB, CAROL, FENCE[0]] {
        let device = if station.place == Place::Lan { "lan0" } else { "lan1" };
        for address in [Family::V4, Family::V6].map(|family| station.address(family)) {
            lines
                .push(format!("neigh replace {address} lladdr {} dev {device} nud permanent", station.mac()));
        }
    }
    router.ip(&lines)?;
    lab.lan().ip(&[format!("link set eth0 mtu {lan_mtu}")])?;
    garden.ip(&[format!("link set eth0 mtu {lan_mtu} up")])?;
    // The ISP has nothing to say about packets to those behind it.
    lab.isp("CABLE").host().ip(&[
        format!("link set router mtu {isp_mtu} address {}", SERVER.mac()),
        "route add blackhole 198.51.100.0/24".to_owned(),
        "route add blackhole 2001:db8:5100::/64".to_owned(),
    ])?;
    if like_wires {
        router.offloads_off("lan1")?;
        garden.offloads_off("eth0")?;
        garden.gro_on("eth0")?;
    }
    Ok(())
}

fn set_up_router(lab: &Lab) -> anyhow::Result<()> {
    let router = lab.router();
    router.sysctls(&[
        // Every packet that deserves an ICMP error gets one.
        ("net.ipv4.icmp_ratemask", "0"),
        ("net.ipv6.icmp.ratelimit", "0"),
        // Hosts that talk by way of the router are not told to do otherwise.
        ("net.ipv4.conf.all.send_redirects", "0"),
        ("net.ipv4.conf.lan0.send_redirects", "0"),
    ])?;
    let isp = lab.isp("CABLE");
    let [v4, v6] = [Family::V4, Family::V6].map(|family| isp.address(family));
    let sources = |family| {
        let sources = [ALICE, BOB, CAROL, SERVER].map(|station| station.address(family).to_string());
        sources.join(", ")
    };
    let rules = format!(
        "table inet seen {{
            counter slow {{}}
            chain first {{
                type filter hook prerouting priority -450;
                ip saddr {{ {} }} counter name slow
                ip6 saddr {{ {} }} counter name slow
            }}
        }}
        table inet forward {{
            chain in {{
                type nat hook prerouting priority dstnat;
                iifname cable0 ip daddr {v4} meta l4proto {{ tcp, udp }} th dport {FORWARDED_PORT} dnat ip to {alice}:{INSIDE_PORT}
                iifname cable0 ip6 daddr {v6} meta l4proto {{ tcp, udp }} th dport {FORWARDED_PORT} dnat ip6 to [{alice6}]:{INSIDE_PORT}
                iifname lan0 ip daddr {v4} meta l4proto {{ tcp, udp }} th dport {FORWARDED_PORT} dnat ip to {bob}:{INSIDE_PORT}
                iifname lan0 ip6 daddr {v6} meta l4proto {{ tcp, udp }} th dport {FORWARDED_PORT} dnat ip6 to [{bob6}]:{INSIDE_PORT}
            }}
            chain out {{
                type nat hook postrouting priority srcnat;
                iifname lan0 oifname lan0 masquerade
            }}
        }}",
        sources(Family::V4),
        sources(Family::V6),
        alice = ALICE.v4,
        alice6 = ALICE.v6,
        bob = BOB.v4,
        bob6 = BOB.v6,
    );
    router.feed("nft", &["-f", "-"], &rules)?;
    Ok(())
}

/// Each is a flow of its own, and to the router the answer of the one before.
fn fence(from: Station, to: Ipv4Addr, number: u16) -> Frame {
    let ports = if from.place == Place::Lan { (number, 9) } else { (9, number) };
    let payload = Payload::udp(ports.0, ports.1, &fence_data(number));
    let packet = Ipv4::new(from.v4, to).carrying(&payload);
    let mut bytes = frame(from.place.router_mac(), from.mac(), &[], ether_type::IPV4, &packet);
    balance_lab::checksum::complete(&mut bytes).unwrap();
    bytes.into()
}

fn fence_data(number: u16) -> Vec<u8> {
    format!("all before fence {number:05}").into_bytes()
}

/// Whether a frame is from or to a station, and not about who is where.
fn is_of_a_station(frame: &Frame) -> bool {
    let Ok(layout) = Layout::of(&frame.bytes) else { return false };
    let is_neighbour_discovery =
        layout.protocol == 58 && (133..=137).contains(&(be16(&frame.bytes, layout.transport).unwrap() >> 8));
    let (source, destination) = addresses(&frame.bytes, layout);
    let all = [ALICE, BOB, CAROL, SERVER];
    let is_one = |address: IpAddr| {
        all.iter()
            .any(|station| station.address(Family::V4) == address || station.address(Family::V6) == address)
    };
    !is_neighbour_discovery && (is_one(source) || is_one(destination))
}

/// Source and destination.
pub(crate) fn addresses(bytes: &[u8], layout: Layout) -> (IpAddr, IpAddr) {
    let network = &bytes[layout.network..];
    if layout.version == 4 {
        let at = |at: usize| IpAddr::from(*network[at..].first_chunk::<4>().unwrap());
        (at(12), at(16))
    } else {
        let at = |at: usize| IpAddr::from(*network[at..].first_chunk::<16>().unwrap());
        (at(8), at(24))
    }
}
