//! What the operator is told of an ISP.

use std::time::{Duration, Instant};

use balance_common::Family;
use balance_common::layout::{Forced, IspEntry, IspState};

use super::{Isp, targets};
use crate::core::Quality;
use crate::core::health::State;
use crate::core::ipv6;
use crate::core::path::{NoPath, name_of as family_name};

/// Whether an ISP works, as the operator is told it. Moments of doubt are not worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::core) struct Conclusion {
    state: State,
    forced: Forced,
}

impl Isp {
    /// The state of the ISP as a whole: the best of the families that it has, in doubt if one in use is.
    pub(in crate::core) fn state(&self) -> State {
        let states: Vec<State> = self
            .paths
            .iter()
            .zip(Family::ALL)
            .filter(|(path, _)| path.next_hop.is_ok())
            .map(|(path, family)| match (self.works(family), path.health.state()) {
                (true, State::Suspect) => State::Suspect,
                (true, _) if self.is_degraded(family) => State::Degraded,
                (true, _) => State::Up,
                // It goes by the other family.
                (false, state) if state.is_usable() => self.path(self.judge(family)).health.state(),
                (false, state) => state,
            })
            .collect();
        [State::Suspect, State::Degraded, State::Up, State::Unknown, State::Held, State::Down]
            .into_iter()
            .find(|state| states.contains(state))
            .unwrap_or_else(|| {
                let is_long = self.paths.iter().all(|path| path.health.state() == State::LongDown);
                let is_long = is_long || states.contains(&State::LongDown);
                if is_long { State::LongDown } else { State::Down }
            })
    }

    pub(in crate::core) fn conclusion(&self) -> Conclusion {
        let degraded = Family::ALL.iter().any(|&family| self.works(family) && self.is_degraded(family));
        Conclusion::new(self.state(), degraded, self.forced)
    }

    pub(in crate::core) fn state_text(&self) -> String {
        match self.forced {
            Forced::No => self.state().to_string(),
            Forced::Up => format!("{} (forced up)", self.state()),
            Forced::Down => format!("{} (forced down)", self.state()),
        }
    }

    /// Why it is in its state; empty if there is nothing to say.
    pub(in crate::core) fn reason(&self, now: Instant) -> String {
        let has_path = self.paths.iter().any(|path| path.next_hop.is_ok());
        let mut reasons = Vec::new();
        for (path, family) in self.paths.iter().zip(Family::ALL) {
            match &path.next_hop {
                // An ISP without IPv6 is nothing to wonder about, unless the operator has made it so.
                Err(_) if has_path && !self.is_off(family) => {}
                Err(NoPath(why)) => reasons.push(why.clone()),
                Ok(_) => {
                    let reason = path.health.reason(now).to_string();
                    let reason =
                        Some(reason).filter(|reason| !reason.is_empty() && self.judge(family) == family);
                    let idle = path.health.not_counted();
                    let idle = idle.map(|(target, why)| format!("{target} does not count, as {why}"));
                    let both = self.paths.iter().all(|path| path.next_hop.is_ok());
                    let name = |text| if both { format!("{}: {text}", family_name(family)) } else { text };
                    reasons.extend(reason.into_iter().chain(idle).map(name));
                }
            }
        }
        if !has_path {
            reasons.truncate(1);
        }
        reasons.extend(ipv6::note(self));
        reasons.join("; ")
    }

    pub(in crate::core) fn quality(&self, now: Instant) -> Quality {
        let measured = self.paths.iter().find(|path| path.health.rtt().is_some());
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        let probed = self
            .paths
            .iter()
            .zip(Family::ALL)
            .find(|(path, family)| path.next_hop.is_ok() && !targets(&self.config, *family).is_empty());
        let reason = self.reason(now);
        let metered = &self.config.metered;
        let reasons =
            Some(reason).filter(|reason| !reason.is_empty()).into_iter().chain(self.meter.reason(metered));
        let reason = reasons.collect::<Vec<_>>().join("; ");
        Quality {
            rtt_ms: measured.and_then(|path| path.health.rtt()).map(ms),
            jitter_ms: measured.and_then(|path| path.health.jitter()).map(ms),
            loss_percent: probed.map(|(path, _)| path.health.loss_percent()),
            received_ms_ago: self.passive.last_received().map(|at| {
                let ago = now.saturating_duration_since(at).as_millis();
                u64::try_from(ago).unwrap_or(u64::MAX)
            }),
            reason: (!reason.is_empty()).then_some(reason),
            quota: self.meter.quota_status(metered),
            spill_over: self.meter.spill_status(metered),
        }
    }
}

impl Conclusion {
    /// That of an earlier daemon.
    pub(in crate::core) fn left(entry: &IspEntry) -> Self {
        Self::new(State::from(IspState::from(entry.state)), entry.degraded != 0, entry.forced.into())
    }

    /// The state without moments of doubt.
    pub(in crate::core) const fn state(self) -> State {
        self.state
    }

    fn new(state: State, degraded: bool, forced: Forced) -> Self {
        let state = match state {
            State::Suspect if degraded => State::Degraded,
            State::Suspect => State::Up,
            state => state,
        };
        Self { state, forced }
    }

    /// Since when it is so has not changed: what is down for long went down when it went down.
    pub(in crate::core) fn goes_on_as(self, next: Self) -> bool {
        let is_down = |state| matches!(state, State::Down | State::LongDown | State::Held);
        self.forced == next.forced
            && (self.state == next.state || (is_down(self.state) && is_down(next.state)))
    }
}
