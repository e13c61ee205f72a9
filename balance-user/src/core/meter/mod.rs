//! How much an ISP carries: its quota, and whether it is full. Both say where new flows go; live ones stay.

mod account;
mod period;
mod spill;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Instant;

use balance_common::IspId;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use account::Level;
pub use account::{Account, Reading, Today};
use spill::Spill;

use super::Core;
use crate::amount::{Rate, Size};
use crate::announce::event::Kind;
use crate::config::{Direction, IspConfig, MeteredConfig, Period, QuotaAction, QuotaConfig};

/// What of an ISP's meter is kept over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What it has used of its quota, if it has one.
    pub account: Option<Account>,
    /// It is full.
    pub full: bool,
}

/// The meter of an ISP.
#[derive(Debug, Default)]
pub(super) struct Meter {
    account: Option<Account>,
    spill: Spill,
}

/// What speaks against an ISP; the less the better. One that is full is better than one that costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing {
    /// Its quota is used up, and it is only to be used if there is no other.
    pub(super) used_up: bool,
    /// It carries as much as it should.
    pub(super) full: bool,
}

/// How it is with an ISP's quota, for `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaStatus {
    /// The quota, in bytes.
    pub limit: u64,
    /// So many of them are used.
    pub used: u64,
    /// What counts: `both`, `download`, `upload`.
    pub direction: Direction,
    /// How long it lasts: `month`, `day`.
    pub period: String,
    /// The day on which it begins anew; none while the clock has not been set.
    pub resets: Option<Date>,
    /// New flows go elsewhere, because it is used up.
    pub demoted: bool,
}

/// How full an ISP is, for `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpillStatus {
    /// The smoothed rate of its busier direction, in bits a second.
    pub rate: u64,
    /// From this on new flows go elsewhere ...
    pub over: u64,
    /// ... until it is less than this.
    pub back: u64,
    /// They do.
    pub full: bool,
}

impl Core {
    /// Goes on from what a daemon before, or an earlier config, has left of the meters, by the ISPs' names.
    pub fn restore_meters(&mut self, records: &BTreeMap<String, Record>) {
        for isp in self.isps.values_mut() {
            if let Some(record) = records.get(&isp.config.name) {
                isp.meter.restore(&isp.config.metered, record);
            }
        }
    }

    /// The ISPs that are metered.
    pub fn metered(&self) -> impl Iterator<Item = (IspId, &IspConfig)> {
        let isps = self.isps.values().filter(|isp| isp.config.metered != MeteredConfig::default());
        isps.map(|isp| (isp.id, &isp.config))
    }

    /// What is to be kept of the meters, by the ISPs' names.
    #[must_use]
    pub fn meters(&self) -> BTreeMap<String, Record> {
        self.metered()
            .filter_map(|(id, config)| Some((config.name.clone(), self.isps.get(&id)?.meter.record())))
            .collect()
    }
}

impl Meter {
    /// Goes on from what a daemon before, or an earlier config, has left.
    pub(super) fn restore(&mut self, config: &MeteredConfig, record: &Record) {
        if config.quota.is_some() && self.account.is_none() {
            self.account.clone_from(&record.account);
        }
        if config.spill_over.is_some() {
            self.spill.adopt(record.full);
        }
    }

    /// Goes by another config.
    pub(super) fn reconfigure(&mut self, config: &MeteredConfig) {
        if config.quota.is_none() {
            self.account = None;
        }
        if config.spill_over.is_none() {
            self.spill = Spill::default();
        }
    }

    /// What is to be kept.
    pub(super) fn record(&self) -> Record {
        Record { account: self.account.clone(), full: self.spill.is_full() }
    }

    /// Takes in how far the counters have come.
    pub(super) fn observe(&mut self, config: &MeteredConfig, reading: Reading, today: Today, now: Instant) {
        if let Some(quota) = config.quota {
            self.account.get_or_insert_default().count(reading, today, quota.rule);
        }
        self.spill.observe(reading, config.spill_over, now);
    }

    /// The operator knows better what was used.
    pub(super) fn set_used(&mut self, config: &MeteredConfig, bytes: u64, today: Date) {
        if config.quota.is_some() {
            self.account.get_or_insert_default().set(bytes, today);
        }
    }

    /// What speaks against it.
    pub(super) fn standing(&self, config: &MeteredConfig) -> Standing {
        Standing {
            used_up: config.quota.is_some_and(|quota| self.is_demoted(&quota)),
            full: self.spill.is_full(),
        }
    }

    /// What is to be told of the quota, in words that follow the ISP's name.
    pub(super) fn news(&mut self, config: &MeteredConfig) -> Option<(Kind, String)> {
        let quota = config.quota?;
        let account = self.account.as_mut()?;
        let used = account.used();
        let (before, level) = account.tell(Level::of(used, quota.limit, quota.warn))?;
        let so_much = format!("{} of {}", Size(used), Size(quota.limit));
        let until = account.next().map(|next| format!(", which begins anew on {next}")).unwrap_or_default();
        Some(match (level, quota.action) {
            (Level::All, QuotaAction::Demote) => (
                Kind::QuotaUsedUp,
                format!("has used up its quota ({so_much}){until}: new flows go elsewhere"),
            ),
            (Level::All, QuotaAction::Warn) => {
                (Kind::QuotaUsedUp, format!("has used up its quota ({so_much}){until}"))
            }
            (Level::Much, _) if before < Level::Much => {
                let percent = percent(used, quota.limit);
                (Kind::QuotaWarning, format!("has used {percent}% of its quota ({so_much}){until}"))
            }
            (Level::Much | Level::Fine, _) => {
                (Kind::QuotaRenewed, format!("has quota again ({so_much} used){until}"))
            }
        })
    }

    /// Why new flows go elsewhere, if they do.
    pub(super) fn reason(&self, config: &MeteredConfig) -> Option<String> {
        let quota = config.quota.filter(|quota| self.is_demoted(quota));
        let used_up = quota.map(|quota| format!("quota of {} used up", Size(quota.limit)));
        let limits = config.spill_over.filter(|_| self.spill.is_full());
        let full = limits.map(|limits| format!("full: over {}", Rate(limits.enter)));
        let reasons: Vec<String> = used_up.into_iter().chain(full).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// How it is with its quota, if it has one.
    pub(super) fn quota_status(&self, config: &MeteredConfig) -> Option<QuotaStatus> {
        let quota = config.quota?;
        let account = self.account.as_ref();
        Some(QuotaStatus {
            limit: quota.limit,
            used: account.map_or(0, Account::used),
            direction: quota.rule.direction,
            period: match quota.rule.period {
                Period::Month { .. } => "month",
                Period::Day => "day",
            }
            .to_owned(),
            resets: account.and_then(Account::next),
            demoted: self.is_demoted(&quota),
        })
    }

    /// How full it is, if that matters.
    pub(super) fn spill_status(&self, config: &MeteredConfig) -> Option<SpillStatus> {
        let limits = config.spill_over?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate of 2^64 is none")]
        let rate = self.spill.rate().unwrap_or(0.0) as u64;
        Some(SpillStatus { rate, over: limits.enter, back: limits.leave, full: self.spill.is_full() })
    }

    fn is_demoted(&self, quota: &QuotaConfig) -> bool {
        let used = self.account.as_ref().map_or(0, Account::used);
        quota.action == QuotaAction::Demote && used >= quota.limit
    }
}

/// Whole percents, rounded down.
fn percent(used: u64, limit: u64) -> u128 {
    u128::from(used) * 100 / u128::from(limit.max(1))
}
