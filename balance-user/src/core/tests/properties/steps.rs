//! What may happen.

use proptest::prelude::*;

use super::super::super::Traffic;
use super::*;

/// Something that happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Wait(u64),
    Carrier(usize, bool),
    Addresses(usize, Family, bool),
    Routes(usize, bool),
    /// The device goes, and comes back with another index.
    Replug(usize, Option<u32>),
    Dead(usize, Option<Family>),
    Healed(usize),
    Force(usize, Forced),
    Weight(usize, u16),
    Traffic(u64, u64),
    Reload(Change),
    Restart,
}

/// What the operator does to the config.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Toggle(usize),
    Weight(usize, u16),
    Tier(usize, u8),
    Targets(usize, Vec<Family>),
    Device(usize, usize),
    Mode(Mode),
    Reverse,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let place = || 0..NAMES.len();
    let family = || proptest::sample::select(Family::ALL.to_vec());
    let forced = proptest::sample::select(vec![Forced::No, Forced::Up, Forced::Down]);
    prop_oneof![
        6 => prop_oneof![0..1500_u64, 0..9000_u64].prop_map(Step::Wait),
        5 => (place(), any::<bool>()).prop_map(|(place, carrier)| Step::Carrier(place, carrier)),
        2 => (place(), family(), any::<bool>()).prop_map(|(place, family, there)| Step::Addresses(place, family, there)),
        1 => (place(), any::<bool>()).prop_map(|(place, there)| Step::Routes(place, there)),
        1 => (place(), proptest::option::of(20..30_u32)).prop_map(|(place, index)| Step::Replug(place, index)),
        4 => (place(), proptest::option::of(family())).prop_map(|(place, family)| Step::Dead(place, family)),
        4 => place().prop_map(Step::Healed),
        2 => (place(), forced).prop_map(|(place, forced)| Step::Force(place, forced)),
        1 => (place(), any::<u16>()).prop_map(|(place, weight)| Step::Weight(place, weight)),
        2 => (any::<u64>(), any::<u64>()).prop_map(|(tx, rx)| Step::Traffic(tx % 50, rx % 2)),
        1 => (any::<u64>(), any::<u64>()).prop_map(|(tx, rx)| Step::Traffic(tx, rx)),
        3 => change().prop_map(Step::Reload),
        2 => Just(Step::Restart),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let place = || 0..NAMES.len();
    let families = proptest::sample::subsequence(Family::ALL.to_vec(), 0..=2);
    prop_oneof![
        3 => place().prop_map(Change::Toggle),
        1 => (place(), 1..=1000_u16).prop_map(|(place, weight)| Change::Weight(place, weight)),
        1 => (place(), 0..3_u8).prop_map(|(place, tier)| Change::Tier(place, tier)),
        1 => (place(), families).prop_map(|(place, families)| Change::Targets(place, families)),
        1 => (place(), place()).prop_map(|(one, other)| Change::Device(one, other)),
        1 => prop_oneof![Just(Mode::Balanced), Just(Mode::Failover)].prop_map(Change::Mode),
        1 => Just(Change::Reverse),
    ]
}

/// ISPs with all kinds of weights, tiers and targets.
pub(super) fn configs() -> impl Strategy<Value = Config> {
    let families = proptest::sample::subsequence(Family::ALL.to_vec(), 0..=2);
    let one = (prop_oneof![1..4_u16, 1..=1000_u16], prop_oneof![3 => Just(1_u8), 1 => 0..3_u8], families);
    proptest::collection::vec(one, 2..=NAMES.len()).prop_map(|all| {
        let isps = all.into_iter().enumerate().map(|(place, (weight, tier, families))| {
            let isp = IspConfig { weight, tier, ..isp(place) };
            probed(isp, &families)
        });
        config(isps.collect())
    })
}

impl Change {
    fn apply(&self, config: &mut Config) {
        let at = |config: &Config, place: usize| config.isps.iter().position(|isp| isp.name == NAMES[place]);
        let edit = |config: &mut Config, place: usize, change: &dyn Fn(&mut IspConfig)| {
            config.isps.iter_mut().filter(|isp| isp.name == NAMES[place]).for_each(change);
        };
        match self {
            Self::Toggle(place) => match at(config, *place) {
                Some(found) if config.isps.len() > 1 => drop(config.isps.remove(found)),
                Some(_) => {}
                None => {
                    let mut added = probed(isp(*place), &[Family::V4]);
                    if config.isps.iter().any(|isp| isp.device == added.device) {
                        added.device = format!("gone{place}");
                    }
                    config.isps.push(added);
                }
            },
            Self::Weight(place, weight) => edit(config, *place, &|isp| isp.weight = *weight),
            Self::Tier(place, tier) => edit(config, *place, &|isp| isp.tier = *tier),
            Self::Targets(place, families) => {
                edit(config, *place, &|isp| *isp = probed(isp.clone(), families));
            }
            Self::Device(one, other) => {
                if let (Some(one), Some(other)) = (at(config, *one), at(config, *other))
                    && one != other
                {
                    let device = config.isps[one].device.clone();
                    config.isps[one].device = std::mem::replace(&mut config.isps[other].device, device);
                }
            }
            Self::Mode(mode) => config.mode = *mode,
            Self::Reverse => config.isps.reverse(),
        }
    }
}

impl World {
    /// The event that a step is for the core, if it is one.
    pub(super) fn event_of(&mut self, step: &Step) -> Option<Event> {
        let known = |world: &Self, place: usize| world.core.isp_named(NAMES[place]);
        match step {
            Step::Wait(_) | Step::Restart => None,
            Step::Dead(place, family) => {
                self.kill(*place, &family.map_or(Family::ALL.to_vec(), |family| vec![family]));
                None
            }
            Step::Healed(place) => {
                self.heal(*place);
                None
            }
            Step::Carrier(..) | Step::Addresses(..) | Step::Routes(..) | Step::Replug(..) => {
                change_network(&mut self.network, step);
                Some(Event::Network(self.network.clone()))
            }
            Step::Force(place, forced) => Some(Event::Force { isp: known(self, *place)?, forced: *forced }),
            Step::Weight(place, weight) => {
                Some(Event::SetWeight { isp: known(self, *place)?, weight: *weight })
            }
            Step::Traffic(tx, rx) => {
                let traffic = Traffic { tx: *tx, rx: *rx };
                Some(Event::Traffic(IspId::all().take(9).map(|isp| (isp, traffic)).collect()))
            }
            Step::Reload(change) => {
                let mut config = self.core.config().clone();
                change.apply(&mut config);
                Some(Event::Reload(Box::new(config)))
            }
        }
    }

    /// `kill -9`, and a new daemon takes over at once.
    pub(super) fn restart(&mut self) {
        self.core = self.restarted();
        self.clock = Clock { instant: self.now, epoch_ms: self.clock.epoch_ms(self.now) };
    }
}

fn change_network(network: &mut Network, step: &Step) {
    let index_of =
        |network: &Network, place: usize| network.link_named(&format!("isp{place}")).map(|link| link.index);
    match step {
        Step::Carrier(place, carrier) if index_of(network, *place).is_some() => {
            network.link(*place).carrier = *carrier;
        }
        Step::Addresses(place, family, there) => {
            if let Some(index) = index_of(network, *place) {
                match (there, family) {
                    (false, family) => network.without_addresses(*place, *family),
                    (true, Family::V4) => drop(network.address(index, &format!("10.{place}.0.2/24"))),
                    (true, Family::V6) => drop(network.address(index, &format!("2001:db8:{place}::2/64"))),
                }
            }
        }
        Step::Routes(place, there) => {
            if let Some(index) = index_of(network, *place) {
                network.without_routes(*place);
                if *there {
                    network.route(index, MAIN, 5, &format!("10.{place}.0.7"));
                }
            }
        }
        Step::Replug(place, new) => {
            if let Some(old) = index_of(network, *place) {
                network.unplug(old);
            }
            if let Some(new) = new.filter(|new| !network.links.contains_key(new)) {
                network.plug_isp(*place, new);
            }
        }
        _ => {}
    }
}
