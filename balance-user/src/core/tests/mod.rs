//! The core as the daemon drives it: events in, plan and effects out, and time by arithmetic.

mod attempts;
mod changes;
mod failback;
mod flows;
mod held_up;
mod ipv6;
mod metered;
mod paths;
mod plan;
mod policies;
mod properties;
mod reload;
mod restart;
mod selection;
mod targets;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use balance_common::layout::{Forced, IspEntry};
use balance_common::{Family, IspId, PolicyId};
use ipnet::IpNet;

use super::network::{Address, DefaultRoute, Link, Network};
use super::plan::Plan;
use super::{Clock, Core, Effect, Event};
use crate::config::policy::{Failback, PolicyConfig, Weights};
use crate::config::{
    Acceleration, Attach, Config, ControlConfig, FastPathConfig, FirewallConfig, Ipv6Mode, IspConfig,
    LanConfig, MeteredConfig, MetricsConfig, Mode, MonitorConfig, RoutingConfig, ScriptsConfig, Target,
    WebConfig,
};
use crate::sysctl::SysctlFacts;

const MAIN: u32 = 254;
const EPOCH_MS: u64 = 1_700_000_000_000;
/// Long enough for whatever must wait for `up_after`, short of what flapping makes of it.
const A_WHILE: Duration = Duration::from_secs(8);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn id(number: u8) -> IspId {
    IspId::new(number).unwrap()
}

/// The names of the first ISPs; the device of the first is `isp0`, and so on.
const NAMES: [&str; 8] = ["CABLE", "DSL", "LTE", "FIBRE", "SAT", "RADIO", "LEASED", "SPARE"];

/// The ISP of that place, of weight 1 in tier 1, without targets: its path alone decides.
fn isp(place: usize) -> IspConfig {
    IspConfig {
        name: NAMES[place].to_owned(),
        device: format!("isp{place}"),
        weight: 1,
        tier: 1,
        gateway_v4: None,
        gateway_v6: None,
        targets: Vec::new(),
        ipv6: Ipv6Mode::default(),
        prefix: None,
        monitor: MonitorConfig::default(),
        metered: MeteredConfig::default(),
    }
}

fn config(isps: Vec<IspConfig>) -> Config {
    Config {
        mode: Mode::Balanced,
        failback: Failback::Keep,
        weights: Weights::default(),
        acceleration: Acceleration::default(),
        fast_path: FastPathConfig::default(),
        attach: Attach::Auto,
        isps,
        policies: vec![PolicyConfig::default()],
        rules: Vec::new(),
        lans: vec![LanConfig { name: "LAN".to_owned(), device: "lan0".to_owned() }],
        mark_mask: 0x3f00,
        routing: RoutingConfig::default(),
        local: Vec::new(),
        forwards: Vec::new(),
        firewall: FirewallConfig::default(),
        local_traffic: true,
        reset: false,
        routes: Vec::new(),
        scripts: ScriptsConfig::default(),
        mail: None,
        webhook: None,
        control: ControlConfig::default(),
        metrics: MetricsConfig::default(),
        web: WebConfig::default(),
    }
}

fn isps(count: usize) -> Vec<IspConfig> {
    (0..count).map(isp).collect()
}

/// With a target in each of these families.
fn probed(mut isp: IspConfig, families: &[Family]) -> IspConfig {
    isp.targets = families.iter().map(|&family| target(family)).collect();
    isp
}

fn target(family: Family) -> Target {
    match family {
        Family::V4 => ip("1.1.1.1").into(),
        Family::V6 => ip("2606:4700::1111").into(),
    }
}

/// What the network is built of.
impl Network {
    /// The router with its LAN and so many ISPs: device `ispN` has the index 10 + N, the addresses `10.N.0.2/24` and
    /// `2001:db8:N::2/64`, and default routes by `10.N.0.1` and `fe80::1`.
    fn with_isps(count: usize) -> Self {
        let mut network = Self::default();
        network.plug("lo", 1);
        network.address(1, "127.0.0.1/8").address(1, "::1/128");
        network.plug("lan0", 2);
        network.address(2, "192.168.1.1/24").address(2, "fd00::1/64").address(2, "fe80::2/64");
        (0..count).for_each(|place| network.plug_isp(place, index(place)));
        network
    }

    fn plug(&mut self, name: &str, index: u32) -> &mut Link {
        let link = Link {
            index,
            name: name.to_owned(),
            up: true,
            carrier: true,
            ethernet: true,
            point_to_point: false,
        };
        self.links.entry(index).insert_entry(link).into_mut()
    }

    fn plug_isp(&mut self, place: usize, index: u32) {
        self.plug(&format!("isp{place}"), index);
        self.address(index, &format!("10.{place}.0.2/24"));
        self.address(index, &format!("2001:db8:{place}::2/64"));
        self.address(index, "fe80::2/64");
        self.route(index, MAIN, 100, &format!("10.{place}.0.1"));
        self.route(index, MAIN, 100, "fe80::1");
    }

    fn unplug(&mut self, index: u32) {
        self.links.remove(&index);
        self.addresses.retain(|address| address.index != index);
        self.defaults.retain(|route| route.index != index);
    }

    fn address(&mut self, index: u32, text: &str) -> &mut Self {
        self.addresses.insert(Address { index, net: net(text), peer: None });
        self
    }

    fn route(&mut self, index: u32, table: u32, metric: u32, gateway: &str) -> &mut Self {
        let gateway = ip(gateway);
        let family = super::network::family_of(gateway);
        self.defaults.insert(DefaultRoute { family, table, metric, index, gateway: Some(gateway) });
        self
    }

    fn link(&mut self, place: usize) -> &mut Link {
        let name = format!("isp{place}");
        self.links.values_mut().find(|link| link.name == name).unwrap()
    }

    fn without_routes(&mut self, place: usize) {
        let index = self.link(place).index;
        self.defaults.retain(|route| route.index != index);
    }

    fn without_addresses(&mut self, place: usize, family: Family) {
        let index = self.link(place).index;
        self.addresses.retain(|address| {
            address.index != index || super::network::family_of(address.net.addr()) != family
        });
    }
}

fn index(place: usize) -> u32 {
    10 + u32::try_from(place).unwrap()
}

/// A core in its world, where probes are answered at once by all but the dead.
struct World {
    core: Core,
    network: Network,
    now: Instant,
    clock: Clock,
    dead: BTreeSet<(String, Family)>,
    /// What was to be done so far, but for probes.
    effects: Vec<Effect>,
}

impl World {
    /// So many ISPs of weight 1, all of them up.
    fn of(count: usize) -> Self {
        Self::new(config(isps(count)), Network::with_isps(count))
    }

    fn new(config: Config, network: Network) -> Self {
        Self::adopting(config, &BTreeMap::new(), network)
    }

    fn adopting(config: Config, left: &BTreeMap<IspId, IspEntry>, network: Network) -> Self {
        let clock = Clock { instant: Instant::now(), epoch_ms: EPOCH_MS };
        let core = Core::new(config, left, network.clone(), clock).unwrap();
        let mut world =
            Self { core, network, now: clock.instant, clock, dead: BTreeSet::new(), effects: Vec::new() };
        world.advance();
        world
    }

    /// `kill -9`, and a new daemon at once; what it does first is still to come.
    fn restarted(&self) -> Core {
        let clock = Clock { instant: self.now, epoch_ms: self.clock.epoch_ms(self.now) };
        Core::new(self.core.config().clone(), &self.plan().maps.isps, self.network.clone(), clock).unwrap()
    }

    fn advance(&mut self) {
        loop {
            let mut answered = false;
            for effect in self.core.advance(self.now) {
                let Effect::Probe { isp, family, probe } = effect else {
                    self.effects.push(effect);
                    continue;
                };
                if !self.dead.contains(&(self.name(isp), family)) {
                    let answer = Event::Answered { isp, family, sequence: probe.sequence, rtt: ms(20) };
                    self.core.handle(answer, self.now);
                    answered = true;
                }
            }
            if !answered {
                return;
            }
        }
    }

    fn event(&mut self, event: Event) {
        self.core.handle(event, self.now);
        self.advance();
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.core.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.advance();
        }
        self.now = end;
        self.advance();
    }

    fn network(&mut self, change: impl FnOnce(&mut Network)) {
        change(&mut self.network);
        self.event(Event::Network(self.network.clone()));
    }

    fn carrier(&mut self, place: usize, carrier: bool) {
        self.network(|network| network.link(place).carrier = carrier);
    }

    fn reload(&mut self, change: impl FnOnce(&mut Config)) {
        let mut config = self.core.config().clone();
        change(&mut config);
        self.event(Event::Reload(Box::new(config)));
    }

    fn force(&mut self, place: usize, forced: Forced) {
        self.event(Event::Force { isp: self.id(place), forced });
    }

    fn set_weight(&mut self, place: usize, weight: u16) {
        self.event(Event::SetWeight { isp: self.id(place), weight });
    }

    /// The ISP does not answer any more, in these families.
    fn kill(&mut self, place: usize, families: &[Family]) {
        self.dead.extend(families.iter().map(|&family| (NAMES[place].to_owned(), family)));
    }

    fn heal(&mut self, place: usize) {
        self.dead.retain(|(name, _)| name != NAMES[place]);
    }

    fn id(&self, place: usize) -> IspId {
        self.core.isp_named(NAMES[place]).unwrap()
    }

    fn name(&self, isp: IspId) -> String {
        self.core.isps.get(&isp).map(|isp| isp.config.name.clone()).unwrap_or_default()
    }

    fn plan(&self) -> Plan {
        self.core.plan("main", &facts())
    }

    fn entry(&self, place: usize) -> IspEntry {
        self.plan().maps.isps[&self.id(place)]
    }

    fn is_usable(&self, place: usize, family: Family) -> bool {
        self.core.isps[&self.id(place)].is_usable(family)
    }

    fn table(&self, family: Family) -> Vec<u8> {
        self.plan().maps.tables[&(PolicyId::DEFAULT, family)].to_vec()
    }

    /// How many buckets each of the ISPs has.
    fn shares(&self, family: Family) -> Vec<usize> {
        let table = self.table(family);
        let places = 0..self.core.config().isps.len();
        places.map(|place| count(&table, self.id(place))).collect()
    }

    /// Whose flows were to be deleted since it was last asked.
    fn deleted(&mut self) -> Vec<(IspId, Family)> {
        let deleted = |effect: &Effect| match effect {
            Effect::DeleteFlows { isp, family, .. } => Some((*isp, *family)),
            _ => None,
        };
        let found = self.effects.iter().filter_map(deleted).collect();
        self.effects.retain(|effect| deleted(effect).is_none());
        found
    }

    /// What the operator was told since it was last asked.
    fn announced(&mut self) -> Vec<String> {
        let announced = |effect: &Effect| match effect {
            Effect::Announce { isp, state, reason, .. } => {
                Some(format!("{isp} {state} {reason}").trim().to_owned())
            }
            _ => None,
        };
        let found = self.effects.iter().filter_map(announced).collect();
        self.effects.retain(|effect| announced(effect).is_none());
        found
    }

    fn reason(&self, place: usize) -> String {
        self.core.quality(self.now)[NAMES[place]].reason.clone().unwrap_or_default()
    }
}

/// How many buckets of a table an ISP has.
fn count(table: &[u8], isp: IspId) -> usize {
    table.iter().copied().map(IspId::new).filter(|&owner| owner == Some(isp)).count()
}

fn facts() -> SysctlFacts {
    SysctlFacts { ipv6: true, ..SysctlFacts::default() }
}
