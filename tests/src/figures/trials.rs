//! What the daemon makes of everything that can go wrong with a line.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use aya::maps::Array;
use balance_common::layout::{IspEntry, IspState};
use balance_common::{Family, IspId};

use super::failover::open_map;
use super::services::{PORTAL_PORT, SITE, Services};
use crate::addresses::INTERNET_V4;
use crate::{Host, Isp, Lab, Stream, Tunnel};

/// The ISP that all of it happens to. It has three quarters of the flows.
const VICTIM: &str = "CABLE";
/// How often its state is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// When a look is so late, the whole machine stood still, as virtual ones do, and the trial says nothing.
const TOO_LATE: Duration = Duration::from_millis(250);
/// How long it may take until it is up again.
const RECOVERY: Duration = Duration::from_secs(30);
/// Questions a second, flows, and bytes more than it takes in each question, of the traffic.
const TRAFFIC: (u32, usize, usize) = (200, 20, 0);
/// The same when it is more than a line can take, and longer than pings, as uploads are.
const MUCH_TRAFFIC: (u32, usize, usize) = (800, 40, 1_200);
/// A line that half of such traffic saturates; what gets through its queue waits for 0.8 s.
const NARROW: &str = "tc qdisc replace dev cable0 root tbf rate 3mbit burst 10kb limit 300kb";

/// What happens to the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is forwarded any more, and nobody answers.
    SilentDeath,
    /// Nothing is forwarded any more, but the gateway answers.
    DeathBehindGateway,
    /// What is sent gets lost; what comes in arrives.
    LossOfSent,
    /// What comes in gets lost; what is sent arrives.
    LossOfReceived,
    /// Three packets of ten get lost, in each direction.
    HeavyLoss,
    /// The round trip takes half a second more.
    LatencyStep,
    /// More is sent than the line can take. Only with traffic.
    SaturatedUplink,
    /// The device has no carrier.
    CarrierLoss,
    /// The device is deleted.
    DeviceDeleted,
    /// One target of three does not answer any more.
    DeadTarget,
    /// Whoever asks for a page gets a portal's; pings are answered. Both are targets, and both must answer.
    CaptivePortal,
    /// Names are not answered any more, and a name is all that is asked for.
    DeadDns,
    /// Names are not answered any more; two pings are, and two answers are enough.
    DeadDnsOfThree,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::SilentDeath,
        Self::DeathBehindGateway,
        Self::LossOfSent,
        Self::LossOfReceived,
        Self::HeavyLoss,
        Self::LatencyStep,
        Self::SaturatedUplink,
        Self::CarrierLoss,
        Self::DeviceDeleted,
        Self::DeadTarget,
        Self::CaptivePortal,
        Self::DeadDns,
        Self::DeadDnsOfThree,
    ];

    /// Whether the ISP cannot be used then, as far as what its targets are asked tells.
    #[must_use]
    pub const fn is_fatal(self) -> bool {
        match self {
            Self::SilentDeath
            | Self::DeathBehindGateway
            | Self::LossOfSent
            | Self::LossOfReceived
            | Self::CarrierLoss
            | Self::DeviceDeleted
            | Self::CaptivePortal
            | Self::DeadDns => true,
            Self::HeavyLoss
            | Self::LatencyStep
            | Self::SaturatedUplink
            | Self::DeadTarget
            | Self::DeadDnsOfThree => false,
        }
    }

    /// The targets of the ISPs, as in the config, and how many must answer.
    fn targets(self) -> (String, u32) {
        let ([second, third], page) = (dead_targets(), format!("\"http://{SITE}/generate_204\""));
        let name = format!("\"dns://{SITE}/www.example\"");
        match self {
            Self::CaptivePortal => (format!("\"{INTERNET_V4}\", {page}"), 2),
            Self::DeadDns => (name, 1),
            Self::DeadDnsOfThree => (format!("\"{INTERNET_V4}\", \"{second}\", {name}"), 2),
            _ => (format!("\"{INTERNET_V4}\", \"{second}\", \"{third}\""), 1),
        }
    }
}

/// What goes on meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Flows that ask and are answered, over both ISPs.
    Flows,
    /// Nothing but probes.
    Idle,
}

/// What the daemon made of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Noticed {
    /// New flows do not go there any more, after so long.
    Unusable(Duration),
    /// It is used, and known to be bad, after so long.
    Degraded(Duration),
    /// Nothing, in all the time that it was watched.
    Nothing,
}

/// Has the fault happen so many times, each time to an ISP that is up, and tells what came of it within `watched`.
///
/// The ISP is back after half a second of good probes, without flap protection; apart from that all is the default.
///
/// # Errors
/// When the lab or the daemon fails, or the ISP does not come back after a fault.
pub fn trials(fault: Fault, traffic: Traffic, runs: u32, watched: Duration) -> anyhow::Result<Vec<Noticed>> {
    let set_up = || -> anyhow::Result<_> {
        let scene = Scene::set_up(fault)?;
        let daemon = scene.start(fault)?;
        Ok((scene, daemon))
    };
    let mut there = set_up()?;
    let once = |run| {
        // What loses packets is remembered for minutes.
        if run > 0 && matches!(fault, Fault::HeavyLoss | Fault::SaturatedUplink) {
            there = set_up()?;
        }
        let (scene, daemon) = &there;
        loop {
            let noticed = scene.try_once(fault, traffic, run, watched).with_context(|| {
                format!("{fault:?}, {traffic:?}, run {run}; the daemon said:\n{}", daemon.stderr())
            })?;
            if let Some(noticed) = noticed {
                return Ok(noticed);
            }
        }
    };
    (0..runs).map(once).collect()
}

/// How many times an ISP that loses so many percent of all packets, and nothing else, is taken for unusable within `watched`.
///
/// # Errors
/// When the lab or the daemon fails.
pub fn false_alarms(percent: u8, traffic: Traffic, watched: Duration) -> anyhow::Result<u32> {
    let scene = Scene::set_up(Fault::HeavyLoss)?;
    let _daemon = scene.start(Fault::HeavyLoss)?;
    let running = scene.run_traffic(traffic, TRAFFIC)?;
    scene.victim().set_loss(percent)?;
    let mut alarms = 0;
    let mut was_usable = true;
    let start = Instant::now();
    scene.watch(|state| {
        alarms += u32::from(was_usable && !state.usable);
        was_usable = state.usable;
        (start.elapsed() >= watched).then_some(())
    })?;
    running.map(Stream::stop).transpose()?;
    Ok(alarms)
}

struct Scene {
    // First, before their machines.
    _services: [Services; 2],
    lab: Lab,
    /// In place of the victim's veth, where its packets have to be delayed.
    line: Option<Tunnel>,
}

/// What the daemon thinks of the victim.
struct State {
    usable: bool,
    is_degraded: bool,
    is_up: bool,
}

impl Scene {
    fn set_up(fault: Fault) -> anyhow::Result<Self> {
        let lab = Lab::new()?;
        let line = (fault == Fault::LatencyStep).then(|| lay_line(&lab)).transpose()?;
        let services = [Services::start(lab.internet())?, Services::portal(lab.isp(VICTIM).host())?];
        Ok(Self { _services: services, lab, line })
    }

    fn start(&self, fault: Fault) -> anyhow::Result<crate::Daemon> {
        let (targets, quorum) = fault.targets();
        let targets = format!("targets = [{targets}]");
        let config = self.lab.config();
        // IPv6 goes by the health of IPv4 then.
        let lines = config.lines().map(|line| if line.starts_with("targets") { &targets } else { line });
        let monitor =
            format!("[monitor]\nquorum = {quorum}\nup_after = \"500ms\"\nup_after_max = \"500ms\"\n");
        self.lab.write_config(&format!("{}\n{monitor}", lines.collect::<Vec<_>>().join("\n")))?;
        let daemon = self.lab.start(&[])?;
        self.lab.wait_all_up()?;
        Ok(daemon)
    }

    fn victim(&self) -> &Isp {
        self.lab.isp(VICTIM)
    }

    fn run_traffic(
        &self,
        traffic: Traffic,
        (rate, flows, more): (u32, usize, usize),
    ) -> anyhow::Result<Option<Stream>> {
        let is_wanted = traffic == Traffic::Flows;
        Ok(is_wanted
            .then(|| Stream::start_long(self.lab.lan(), rate, flows, Family::V4, more))
            .transpose()?)
    }

    /// None if the machine stood still meanwhile.
    fn try_once(
        &self,
        fault: Fault,
        traffic: Traffic,
        run: u32,
        watched: Duration,
    ) -> anyhow::Result<Option<Noticed>> {
        let start = Instant::now();
        self.watch(|state| (state.is_up || start.elapsed() > RECOVERY).then_some(()))?;
        ensure!(start.elapsed() <= RECOVERY, "{VICTIM} is not up again");
        let saturates = fault == Fault::SaturatedUplink;
        let running = self.run_traffic(traffic, if saturates { MUCH_TRAFFIC } else { TRAFFIC })?;
        // Where in the interval of the probes it happens is a matter of luck; here all of it is tried in turn.
        std::thread::sleep(Duration::from_millis(1_200 + u64::from(run) * 379 % 1_000));
        let start = Instant::now();
        self.happen(fault)?;
        let mut looked = Instant::now();
        let noticed = self.watch(|state| {
            if std::mem::replace(&mut looked, Instant::now()).elapsed() > TOO_LATE {
                return Some(None);
            }
            match (state.usable, state.is_degraded) {
                (false, _) => Some(Some(Noticed::Unusable(start.elapsed()))),
                (true, true) if !fault.is_fatal() => Some(Some(Noticed::Degraded(start.elapsed()))),
                (true, _) => (start.elapsed() >= watched).then_some(Some(Noticed::Nothing)),
            }
        })?;
        running.map(Stream::stop).transpose()?;
        self.mend(fault)?;
        Ok(noticed)
    }

    fn happen(&self, fault: Fault) -> anyhow::Result<()> {
        let isp = self.victim();
        match fault {
            Fault::SilentDeath => isp.die_silently(),
            Fault::DeathBehindGateway => isp.die_behind_gateway(),
            Fault::LossOfSent => isp.lose_outbound(),
            Fault::LossOfReceived => isp.lose_inbound(),
            Fault::HeavyLoss => isp.set_loss(30),
            Fault::LatencyStep => self.delay(250),
            Fault::SaturatedUplink => self.lab.router().sh(NARROW).map(drop),
            Fault::CarrierLoss => isp.set_carrier(false),
            Fault::DeviceDeleted => self.lab.unplug(VICTIM),
            Fault::DeadTarget => self.kill_target(),
            Fault::CaptivePortal => {
                let portal = format!("iifname router tcp dport 80 redirect to :{PORTAL_PORT}");
                trouble(isp.host(), "type nat hook prerouting priority -100", &portal)
            }
            Fault::DeadDns | Fault::DeadDnsOfThree => {
                trouble(isp.host(), "type filter hook forward priority -20", "udp dport 53 drop")
            }
        }
    }

    fn mend(&self, fault: Fault) -> anyhow::Result<()> {
        let isp = self.victim();
        match fault {
            Fault::SilentDeath | Fault::DeathBehindGateway | Fault::LossOfSent | Fault::LossOfReceived => {
                isp.revive()
            }
            Fault::HeavyLoss => isp.set_loss(0),
            Fault::LatencyStep => self.delay(0),
            Fault::SaturatedUplink => self.lab.router().sh("tc qdisc del dev cable0 root").map(drop),
            Fault::CarrierLoss => isp.set_carrier(true),
            Fault::DeviceDeleted => self.lab.plug(VICTIM),
            Fault::DeadTarget => end_trouble(self.lab.internet()),
            Fault::CaptivePortal | Fault::DeadDns | Fault::DeadDnsOfThree => end_trouble(isp.host()),
        }
    }

    fn delay(&self, milliseconds: u64) -> anyhow::Result<()> {
        self.line.as_ref().context("the line has no delay")?.set_delay(milliseconds);
        Ok(())
    }

    fn kill_target(&self) -> anyhow::Result<()> {
        let [target, _] = dead_targets();
        trouble(self.lab.internet(), "type filter hook input priority 0", &format!("ip daddr {target} drop"))
    }

    /// Looks at the victim's state until `decide` has decided.
    fn watch<T: Send>(&self, mut decide: impl FnMut(State) -> Option<T> + Send) -> anyhow::Result<T> {
        self.lab.router().run(|| {
            let isps = Array::<_, IspEntry>::try_from(open_map("ISPS")?)?;
            let mut decision = None;
            while decision.is_none() {
                decision = decide(state_of(&isps)?);
                std::thread::sleep(LOOK);
            }
            decision.context("no decision")
        })
    }
}

/// What a machine does with some packets.
fn trouble(host: &Host, hook: &str, rule: &str) -> anyhow::Result<()> {
    let rules = format!("table inet trouble {{\nchain it {{\n{hook}\n{rule}\n}}\n}}");
    host.feed("nft", &["-f", "-"], &rules)?;
    Ok(())
}

fn end_trouble(host: &Host) -> anyhow::Result<()> {
    host.sh("nft delete table inet trouble").map(drop)
}

/// Targets that may die: the internet host has all addresses of its prefix.
fn dead_targets() -> [std::net::Ipv4Addr; 2] {
    [std::net::Ipv4Addr::new(203, 0, 113, 2), std::net::Ipv4Addr::new(203, 0, 113, 3)]
}

fn state_of(isps: &Array<aya::maps::MapData, IspEntry>) -> anyhow::Result<State> {
    let entries = IspId::all().filter_map(|id| isps.get(&u32::from(id.get()), 0).ok());
    let entry =
        entries.into_iter().find(|entry| entry.name() == VICTIM).context("the victim is not known")?;
    let [usable, _] = entry.usable;
    let state = IspState::from(entry.state);
    Ok(State { usable: usable != 0, is_degraded: state == IspState::Degraded, is_up: state == IspState::Up })
}

/// Puts a line in place of the victim's veth by which packets can be delayed.
fn lay_line(lab: &Lab) -> anyhow::Result<Tunnel> {
    let isp = lab.isp(VICTIM);
    let (device, gateway, address) = (isp.device(), isp.gateway_v4(), isp.address(Family::V4));
    lab.unplug(VICTIM)?;
    let line = Tunnel::between((lab.router(), &device), (isp.host(), "router"))?;
    isp.host().sh(&format!("ip addr add {gateway} peer {address} dev router; ip link set router up"))?;
    lab.router()
        .sh(&format!("ip addr add {address} peer {gateway} dev {device}; ip link set {device} up"))?;
    Ok(line)
}
