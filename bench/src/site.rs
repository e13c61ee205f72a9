//! A lab with a router that is set up as a case says.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use balance_lab::{Daemon, Family, Host, IspSpec, Lab};

use crate::cases::{Case, Size, gateway};
use crate::core::Core;
use crate::harness::{Harness, Load, Sample, link_address};
use crate::tcp::Bulk;
use crate::traffic::{self, Group, Traffic};

/// What a router that learns flows may want to see of one before it knows it, in packets.
const PACKETS_TO_KNOW: u32 = 26;
/// What any other router sees of a flow before it is measured.
const PACKETS_TO_TRACK: u32 = 2;
/// How long it may take to renew what it knows: a lease and a little.
const TIME_TO_KNOW: Duration = Duration::from_millis(1200);
/// With many flows leases are longer, and all of these begin at about the same time: it takes this long until they end at all
/// times alike.
const TIME_TO_SETTLE: Duration = Duration::from_secs(30);
/// How often each of many flows sends in a sample: for longer than such a lease.
const PASSES: u32 = 10;
/// Most packets of a sample of new flows. Conntrack holds more, by default, also on small machines.
const NEW_FLOWS: u32 = 40_000;
/// So many flows need what `docs/operating.md` says of very many flows: time between the packets that conntrack has to see of each.
const VERY_MANY_FLOWS: u32 = 300_000;
const UDP_TIMEOUT: (&str, &str) = ("net.netfilter.nf_conntrack_udp_timeout", "120");
/// More flows than this are forgotten after they were measured: conntrack's table is shared by all labs.
const FLOWS_TO_KEEP: u32 = 2_000;

/// A lab with a router that is set up.
pub struct Site {
    case: Case,
    // Dropped in this order: the daemon before the lab that it runs in.
    _daemon: Option<Daemon>,
    way: Way,
    lab: Lab,
}

/// How traffic comes and goes.
enum Way {
    Frames(Box<Harness>),
    Sockets(Bulk),
}

impl Site {
    /// Builds a lab for traffic of this group, and sets up its router for so many ISPs and flows.
    ///
    /// # Errors
    /// When the lab cannot be built, or the case cannot be set up: a tool is missing, or the kernel lacks something.
    pub fn build(case: &Case, core: &Core, group: Group, isps: u8, size: Size) -> anyhow::Result<Self> {
        let isps = (1..=case.isps(isps)).map(|number| IspSpec::new(&format!("ISP{number}")));
        let builder = Lab::builder().default_routes(case.default_routes);
        let lab = isps.fold(builder, balance_lab::Builder::isp).build()?;
        know_neighbours(&lab)?;
        if size.flows >= VERY_MANY_FLOWS {
            lab.router().sysctls(&[UDP_TIMEOUT])?;
        }
        let way = if group == Group::Bulk {
            Way::Sockets(Bulk::open(&lab, core.clone())?)
        } else {
            Way::Frames(Box::new(Harness::attach(&lab, core.clone(), case.entrance, case.exit)?))
        };
        let daemon = (case.set_up)(&lab, size).with_context(|| format!("cannot set up {}", case.name))?;
        Ok(Self { case: *case, _daemon: daemon, way, lab })
    }

    /// Its case.
    #[must_use]
    pub fn case(&self) -> &Case {
        &self.case
    }

    /// Its lab.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Sends traffic until the router knows it, and then measures it so many times, with so many packets each.
    ///
    /// # Errors
    /// When that fails.
    pub fn measure(&mut self, traffic: &Traffic, samples: u32, packets: u32) -> anyhow::Result<Vec<Sample>> {
        let harness = match &mut self.way {
            Way::Sockets(bulk) => {
                // It takes as long as many samples of packets, and is as long.
                return Ok(vec![bulk.send(&self.lab, traffic.family)?]);
            }
            Way::Frames(harness) => harness,
        };
        let (length, flows) = traffic.load.frames().context("this is not for frames")?;
        let load = harness.prepare(traffic.family, length, flows)?;
        let is_new = traffic.load == traffic::Load::NewFlows;
        if self.case.tracks && !is_new {
            ensure_room(&self.lab, flows)?;
        }
        let is_many = !is_new && flows > packets;
        if !is_new {
            warm_up(harness, &self.lab, load, flows, self.case.learns)?;
        }
        if is_many && self.case.learns {
            send_for(TIME_TO_SETTLE, harness, &self.lab, load, flows)?;
        }
        let (samples, packets) = match (is_new, is_many) {
            (true, _) => (samples, packets.min(NEW_FLOWS)),
            (_, true) => (1, flows.saturating_mul(PASSES)),
            (_, false) => (samples, packets),
        };
        let mut all = Vec::new();
        for _ in 0..samples {
            if is_new {
                forget_flows(&self.lab)?;
            }
            all.push(harness.send(&self.lab, load, packets)?);
        }
        if is_new || flows > FLOWS_TO_KEEP {
            forget_flows(&self.lab)?;
        }
        Ok(all)
    }
}

/// Sends every flow often enough and, to a router that learns, for long enough.
fn warm_up(harness: &mut Harness, lab: &Lab, load: Load, flows: u32, learns: bool) -> anyhow::Result<()> {
    let start = Instant::now();
    for _ in 0..if learns { PACKETS_TO_KNOW } else { PACKETS_TO_TRACK } {
        harness.send(lab, load, flows)?;
    }
    if learns {
        send_for(TIME_TO_KNOW.saturating_sub(start.elapsed()), harness, lab, load, flows)?;
    }
    Ok(())
}

fn send_for(time: Duration, harness: &mut Harness, lab: &Lab, load: Load, flows: u32) -> anyhow::Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        harness.send(lab, load, flows)?;
    }
    Ok(())
}

/// Fails when conntrack does not hold so many flows: it would drop packets.
fn ensure_room(lab: &Lab, flows: u32) -> anyhow::Result<()> {
    const LIMIT: &str = "net.netfilter.nf_conntrack_max";
    let limit: u32 = lab.router().sysctl(LIMIT)?.parse()?;
    ensure!(flows < limit, "{flows} flows are more than conntrack holds here: {LIMIT} is {limit}");
    Ok(())
}

fn forget_flows(lab: &Lab) -> anyhow::Result<()> {
    lab.router().sh("conntrack -F 2>&1")?;
    Ok(())
}

/// Tells the router who its neighbours are, so that no packet waits for one to answer.
fn know_neighbours(lab: &Lab) -> anyhow::Result<()> {
    let know = |address: String, device: &str, host: &Host, its_device: &str| {
        let link = link_address(host, its_device)?.map(|byte| format!("{byte:02x}")).join(":");
        lab.router().ip(&[format!("neigh replace {address} lladdr {link} dev {device} nud permanent")])
    };
    for family in [Family::V4, Family::V6] {
        know(balance_lab::addresses::lan_host(0, family).to_string(), "lan0", lab.lan(), "eth0")?;
        for isp in lab.isps() {
            know(gateway(isp, family).to_string(), &isp.device(), isp.host(), "router")?;
        }
    }
    ensure!(!lab.isps().is_empty(), "a lab without ISPs");
    Ok(())
}
