//! One ISP: what is configured, what is observed, and what follows.

mod told;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use balance_common::layout::{Forced, IspEntry, IspState};
use balance_common::{Family, IspId};

use super::absence::Absence;
use super::health::{Connecting, Evidence, Health, Passive, State};
use super::ipv6::Delegated;
use super::meter::{Meter, Standing};
use super::network::Network;
use super::path::{NoPath, find_next_hop};
use super::plan::NextHop;
use super::weigh::Worth;
use super::{Attempts, Clock, Traffic};
use crate::config::{Ipv6Mode, IspConfig, Target, WEIGHTS};

pub(super) use told::Conclusion;

/// One ISP.
#[derive(Debug)]
pub(super) struct Isp {
    pub(super) id: IspId,
    pub(super) config: IspConfig,
    /// The weight in force, which the operator may have changed.
    pub(super) weight: u16,
    pub(super) forced: Forced,
    /// When its state last changed, in milliseconds of the Unix epoch.
    pub(super) since_ms: u64,
    /// What the operator was last told.
    pub(super) announced: Option<Conclusion>,
    /// The IPv6 prefix that it has delegated.
    pub(super) delegated: Delegated,
    /// How much it carries.
    pub(super) meter: Meter,
    paths: [Path; 2],
    /// What its device sends and receives.
    passive: Passive,
    connecting: Connecting,
}

/// What of an ISP the plan depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    id: IspId,
    weight: u16,
    forced: Forced,
    since_ms: u64,
    states: [State; 2],
    degraded: [bool; 2],
    worth: [u8; 2],
    usable: [bool; 2],
    next_hops: [Option<NextHop>; 2],
    down_order: [Option<u64>; 2],
    standing: Standing,
}

/// An ISP in one family.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) health: Health,
    /// The way out, or why there is none. The last one known is kept beside it.
    pub(super) next_hop: Result<NextHop, NoPath>,
    known: Option<NextHop>,
    /// Who has become unusable before whom: higher is later; none while usable.
    pub(super) down_order: Option<u64>,
    /// It has stopped working, and its flows have not been cut loose yet.
    pub(super) stranded: bool,
    pub(super) absence: Absence,
    worked: bool,
    /// What a weight is multiplied by, where weights follow what is measured.
    pub(super) worth: Worth,
}

impl Isp {
    pub(super) fn new(id: IspId, config: IspConfig, now: Instant) -> Self {
        let path = |family| {
            let health = Health::new(config.monitor.clone(), targets(&config, family), now);
            Path::new(health, u64::from(id.get()))
        };
        Self {
            id,
            weight: config.weight,
            forced: Forced::No,
            since_ms: 0,
            announced: None,
            delegated: Delegated::default(),
            meter: Meter::default(),
            paths: Family::ALL.map(path),
            passive: Passive::default(),
            connecting: Connecting::default(),
            config,
        }
    }

    /// Goes on from the entry that an earlier daemon has left.
    pub(super) fn adopt(id: IspId, config: IspConfig, entry: &IspEntry, clock: Clock) -> Self {
        let mut isp = Self::new(id, config, clock.instant);
        if entry.configured_weight == isp.config.weight {
            isp.set_weight(entry.weight);
        }
        isp.forced = entry.forced.into();
        isp.since_ms = entry.since;
        // What the operator was told by the daemon before; a change since then is news.
        isp.announced = (entry.since != 0).then(|| Conclusion::left(entry));
        for ((path, family), (&state, &order)) in
            isp.paths.iter_mut().zip(Family::ALL).zip(entry.states.iter().zip(&entry.down_order))
        {
            if entry.device() == isp.config.device {
                path.known = known_gateway(entry, family).map(|gateway| NextHop {
                    index: entry.index,
                    gateway: Some(gateway),
                    // Maybe it was not in any prefix even then.
                    onlink: true,
                    weight: 1,
                });
            }
            path.down_order = (order != 0).then_some(DOWN_ORDERS + u64::from(order));
            let state = State::from(IspState::from(state));
            if state == State::Unknown {
                continue;
            }
            let since = clock.instant(entry.since);
            let targets = targets(&isp.config, family);
            path.health = Health::adopt(state, since, isp.config.monitor.clone(), targets, clock.instant);
            if entry.degraded & (1 << family as u8) != 0 {
                path.health.adopt_degraded();
            }
        }
        for (path, worth) in isp.paths.iter_mut().zip(entry.worth) {
            path.worth = Worth::adopt(worth, clock.instant);
        }
        for family in Family::ALL {
            let states = [family, isp.judge(family)].map(|family| isp.path(family).health.state());
            let path = isp.path_mut(family);
            path.worked = states.iter().all(|state| state.is_usable());
            // Whether the daemon before came to cut them loose nobody knows.
            path.stranded = states.contains(&State::Down);
        }
        for (family, usable) in Family::ALL.into_iter().zip(entry.usable) {
            let is_lost = isp.is_lost(family);
            isp.path_mut(family).absence.observe(usable != 0, is_lost);
        }
        isp
    }

    /// Goes on by another config.
    pub(super) fn reconfigure(mut self, config: IspConfig, now: Instant) -> Self {
        if config.weight != self.config.weight {
            self.weight = config.weight;
        }
        for (path, family) in self.paths.iter_mut().zip(Family::ALL) {
            path.health.reconfigure(config.monitor.clone(), targets(&config, family), now);
            if wiring(&config) != wiring(&self.config) {
                path.known = None;
            }
        }
        self.meter.reconfigure(&config.metered);
        self.config = config;
        self
    }

    pub(super) fn set_weight(&mut self, weight: u16) {
        let (lowest, highest) = WEIGHTS;
        self.weight = weight.clamp(lowest, highest);
    }

    pub(super) const fn path(&self, family: Family) -> &Path {
        let [v4, v6] = &self.paths;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    pub(super) const fn path_mut(&mut self, family: Family) -> &mut Path {
        let [v4, v6] = &mut self.paths;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter()
    }

    /// Finds the way out again after the network has changed.
    pub(super) fn update_path(&mut self, family: Family, network: &Network, now: Instant) {
        let next_hop = find_next_hop(&self.config, family, network, self.path(family).known);
        let path = self.path_mut(family);
        let why_not = next_hop.as_ref().err().map(|NoPath(why)| why.clone());
        path.known = next_hop.as_ref().ok().copied().or(path.known);
        path.next_hop = next_hop;
        path.health.set_path(why_not, now);
    }

    /// Can flows of this family be steered to it?
    pub(super) fn is_usable(&self, family: Family) -> bool {
        match self.forced {
            Forced::Down => false,
            Forced::Up => self.path(family).next_hop.is_ok(),
            Forced::No => self.works(family),
        }
    }

    /// Does it work, whatever the operator wants? A family without targets of its own goes by the other's.
    pub(super) fn works(&self, family: Family) -> bool {
        self.path(family).next_hop.is_ok() && self.path(self.judge(family)).health.state().is_usable()
    }

    /// It works badly, as far as is known.
    pub(super) fn is_degraded(&self, family: Family) -> bool {
        self.path(self.judge(family)).health.is_degraded()
    }

    /// What speaks against giving it new flows, though it works.
    pub(super) fn standing(&self) -> Standing {
        self.meter.standing(&self.config.metered)
    }

    /// What its weight is multiplied by, where weights follow what is measured.
    pub(super) fn worth(&self, family: Family) -> u8 {
        self.path(self.judge(family)).worth.get()
    }

    /// Follows what is measured of a path that works.
    pub(super) fn follow_quality(&mut self, family: Family, now: Instant) {
        let path = self.path_mut(family);
        if path.health.state().is_usable() {
            path.worth.follow(&path.health.measured(), now);
        }
    }

    /// The config says that it has no such family.
    pub(super) fn is_off(&self, family: Family) -> bool {
        family == Family::V6 && self.config.ipv6 == Ipv6Mode::Off
    }

    /// Is it known not to be usable? One that the config says it has not cannot come back.
    fn is_lost(&self, family: Family) -> bool {
        let is_down = |family| self.path(family).health.state() == State::Down;
        let down = is_down(family) || is_down(self.judge(family)) || self.forced == Forced::Down;
        down && !self.is_off(family)
    }

    /// The family by whose health a family is judged.
    fn judge(&self, family: Family) -> Family {
        let counts = |family| self.path(family).health.counts();
        let follows = !counts(family) && counts(other(family));
        if follows { other(family) } else { family }
    }

    /// Brings up to date what depends on being usable and on working.
    pub(super) fn settle(&mut self, family: Family, downs: &mut u64) {
        let (usable, works) = (self.is_usable(family), self.works(family));
        let is_lost = self.is_lost(family);
        let path = self.path_mut(family);
        path.absence.observe(usable, is_lost || path.down_order.is_none());
        if usable {
            path.down_order = None;
        } else if path.down_order.is_none() {
            *downs += 1;
            path.down_order = Some(*downs);
        }
        if works {
            path.stranded = false;
        } else if path.worked || usable {
            // Used by force, it may have got flows though it never worked.
            path.stranded = true;
        }
        path.worked = works;
    }

    /// Takes in what its device has sent and received so far.
    pub(super) fn observe(&mut self, traffic: Traffic, now: Instant) {
        match self.passive.observe(traffic, now) {
            Evidence::None => {}
            Evidence::Silence { sent, lasts } => {
                for path in self.paths.iter_mut().filter(|path| lasts >= path.health.silence()) {
                    path.health.silent(sent, now);
                }
            }
            Evidence::Life => {
                for path in &mut self.paths {
                    path.health.heard(now);
                }
            }
        }
    }

    /// Takes in what TCP connections were asked for by its device so far, and how many were answered.
    pub(super) fn connects(&mut self, attempts: Attempts, now: Instant) {
        let unanswered = self.connecting.observe(attempts, now);
        let connected = self.connecting.last_answer();
        for path in &mut self.paths {
            path.health.connects(unanswered, connected, now);
        }
    }

    /// Nobody could look at anything for so long.
    pub(super) fn held_up(&mut self, gap: Duration, now: Instant) {
        self.passive.forget();
        self.connecting.forget();
        for path in &mut self.paths {
            path.health.held_up(gap, now);
        }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let [v4, v6] = &self.paths;
        Fingerprint {
            id: self.id,
            weight: self.weight,
            forced: self.forced,
            since_ms: self.since_ms,
            states: [v4, v6].map(|path| path.health.state()),
            degraded: [v4, v6].map(|path| path.health.is_degraded()),
            worth: [v4, v6].map(|path| path.worth.stored()),
            usable: Family::ALL.map(|family| self.is_usable(family)),
            next_hops: [v4, v6].map(|path| path.next_hop.as_ref().ok().copied()),
            down_order: [v4, v6].map(|path| path.down_order),
            standing: self.standing(),
        }
    }
}

impl Path {
    fn new(health: Health, down_order: u64) -> Self {
        Self {
            health,
            next_hop: Err(NoPath(String::new())),
            known: None,
            down_order: Some(down_order),
            stranded: false,
            absence: Absence::default(),
            worked: false,
            worth: Worth::default(),
        }
    }
}

/// ISPs that have never worked come before all others in the order in which they fell out, by their ids. Next are those of an
/// earlier daemon, in its order.
pub(super) const DOWN_ORDERS: u64 = 64;

/// The targets of an ISP in a family.
pub(super) fn targets(isp: &IspConfig, family: Family) -> Vec<Target> {
    isp.targets.iter().filter(|target| target.is_for(family)).cloned().collect()
}

/// The gateway that an earlier daemon has used.
fn known_gateway(entry: &IspEntry, family: Family) -> Option<IpAddr> {
    let gateway = match family {
        Family::V4 => IpAddr::from(entry.gateway_v4),
        Family::V6 => IpAddr::from(entry.gateway_v6),
    };
    (!gateway.is_unspecified()).then_some(gateway)
}

/// What makes a gateway known before worthless when it changes.
fn wiring(isp: &IspConfig) -> (&str, Option<Ipv4Addr>, Option<Ipv6Addr>) {
    (&isp.device, isp.gateway_v4, isp.gateway_v6)
}

const fn other(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}
