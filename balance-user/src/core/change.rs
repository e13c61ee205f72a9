//! What is announced of an ISP that changes its state: from what to what, and the evidence.

use std::collections::BTreeMap;
use std::time::Instant;

use balance_common::layout::{Forced, IspEntry};
use balance_common::{Family, IspId};

use super::health::State;
use super::isp::{Conclusion, Isp, targets};
use super::network::{Network, family_of};
use super::path::is_link_local;
use super::tally::Tally;
use crate::announce::event::{Change, Kind, Probes};

/// What has been said of the ISPs so far, and what became of their probes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    told: BTreeMap<IspId, Told>,
    tallies: BTreeMap<IspId, Tally>,
}

/// What was said of an ISP.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    state: String,
    forced: Forced,
}

impl Changes {
    /// The daemon before has told of this entry.
    pub(super) fn adopt(&mut self, id: IspId, entry: &IspEntry) {
        let (health, forced) = (Conclusion::left(entry).state(), Forced::from(entry.forced));
        let usable = entry.usable.iter().any(|&usable| usable != 0);
        self.told.insert(id, Told { state: in_use(health, forced, usable), forced });
    }

    /// What became of the probes of an ISP.
    pub(super) fn tally(&mut self, id: IspId) -> &mut Tally {
        self.tallies.entry(id).or_default()
    }

    /// Forgets the ISPs that are not any more.
    pub(super) fn keep(&mut self, isps: &BTreeMap<IspId, Isp>) {
        self.told.retain(|id, _| isps.contains_key(id));
        self.tallies.retain(|id, _| isps.contains_key(id));
    }

    /// What has changed of an ISP since this was asked last; none if it is used as before, or was never known and is not now.
    pub(super) fn of(&mut self, isp: &Isp, network: &Network, now: Instant) -> Option<Change> {
        let health = isp.conclusion().state();
        let usable = Family::ALL.iter().any(|&family| isp.is_usable(family));
        let told = Told { state: in_use(health, isp.forced, usable), forced: isp.forced };
        let nothing = Told { state: State::Unknown.to_string(), forced: Forced::No };
        let before = self.told.insert(isp.id, told.clone()).unwrap_or(nothing);
        if before == told {
            return None;
        }
        let probes = self.tally(isp.id).count(isp.config.monitor.timeout, now);
        Some(Change {
            kind: Kind::State,
            isp: isp.config.name.clone(),
            device: isp.config.device.clone(),
            state: told.state,
            health: isp.state().to_string(),
            forced: name_of(isp.forced).map(str::to_owned),
            evidence: evidence(isp, &before, &probes, now),
            previous: before.state,
            probes: Probes { target: target(isp), source: source(isp, network), ..probes },
        })
    }

    /// What is to be told of an ISP's quota.
    pub(super) fn of_quota(
        &mut self,
        isp: &Isp,
        kind: Kind,
        words: String,
        network: &Network,
        now: Instant,
    ) -> Change {
        let usable = Family::ALL.iter().any(|&family| isp.is_usable(family));
        let state = in_use(isp.conclusion().state(), isp.forced, usable);
        let probes = self.tally(isp.id).count(isp.config.monitor.timeout, now);
        Change {
            kind,
            isp: isp.config.name.clone(),
            device: isp.config.device.clone(),
            previous: state.clone(),
            state,
            health: isp.state().to_string(),
            forced: name_of(isp.forced).map(str::to_owned),
            evidence: words,
            probes: Probes { target: target(isp), source: source(isp, network), ..probes },
        }
    }
}

/// The state as it is used.
fn in_use(health: State, forced: Forced, usable: bool) -> String {
    let state = match (forced, health) {
        (Forced::Up, _) if usable => State::Up,
        (Forced::Up | Forced::Down, _) => State::Down,
        (Forced::No, health) => health,
    };
    state.to_string()
}

const fn name_of(forced: Forced) -> Option<&'static str> {
    match forced {
        Forced::No => None,
        Forced::Up => Some("up"),
        Forced::Down => Some("down"),
    }
}

/// Why it is in its state.
fn evidence(isp: &Isp, before: &Told, probes: &Probes, now: Instant) -> String {
    let command = match (before.forced == isp.forced, name_of(isp.forced)) {
        (true, _) => None,
        (false, Some(forced)) => Some(format!("forced {forced} by command")),
        (false, None) => Some("not forced any more".to_owned()),
    };
    let answered = match (isp.config.targets.is_empty(), probes.replied_in_row) {
        // Why a command is given is not for us to tell.
        _ if isp.forced != Forced::No || !isp.state().is_usable() => None,
        (true, _) => Some("there is a way to its gateway, and it has no targets".to_owned()),
        (false, 0) => None,
        (false, 1) => Some("a probe was answered".to_owned()),
        (false, count) => Some(format!("{count} probes in a row were answered")),
    };
    let reason = Some(isp.reason(now)).filter(|reason| !reason.is_empty());
    command.into_iter().chain(answered).chain(reason).collect::<Vec<_>>().join("; ")
}

/// Its first target, of a family that it has if there is one.
fn target(isp: &Isp) -> Option<String> {
    let families = Family::ALL.into_iter().filter(|&family| isp.path(family).next_hop.is_ok());
    let first = families.flat_map(|family| targets(&isp.config, family)).next();
    first.or_else(|| isp.config.targets.first().cloned()).map(|target| target.to_string())
}

/// Its address, of IPv4 if it has one.
fn source(isp: &Isp, network: &Network) -> Option<String> {
    let link = network.link_named(&isp.config.device)?;
    let addresses: Vec<_> = network.addresses_of(link.index).map(|address| address.net.addr()).collect();
    let of = |wanted| {
        let mut addresses = addresses.iter().copied();
        addresses.find(|&address| family_of(address) == wanted && !is_link_local(address))
    };
    of(Family::V4).or_else(|| of(Family::V6)).map(|address| address.to_string())
}
