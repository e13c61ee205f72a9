//! What an ISP has carried in the present period, from counters that may begin anew and a clock that may be wrong.
//!
//! * Counters live in maps that outlive the daemon, but neither `stop` nor a reboot. A [`Reading`] says of which maps it is, so
//!   the difference of two readings counts if they are of the same ones, and nothing else does.
//! * A clock that is wrong for a while, before NTP has set it or because its battery is empty, must not begin a period. What was
//!   used is therefore kept for several periods: while the clock is wrong it counts for another one, and when it is right again
//!   the true one is there as before. When the clock is set, what was counted by its old reading goes along.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::period;
use crate::config::{Direction, QuotaRule};

/// So many periods are kept: the present one, and those that a wrong clock may have begun.
const KEPT: usize = 4;

/// Before this day the clock has certainly not been set.
const CREDIBLE: Date = Date::constant(2025, 1, 1);

/// How far the counters of an ISP have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Which maps these are: a number drawn when they are new, 0 until then.
    pub maps: u64,
    /// The ISP's number in them.
    pub isp: u8,
    /// Bytes received so far.
    pub download: u64,
    /// Bytes sent so far.
    pub upload: u64,
}

/// What the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Today {
    /// The day on the calendar on the wall.
    pub date: Date,
    /// The clock was set since it was asked last.
    pub set: bool,
}

/// What an ISP has used of its quota, as it is kept over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What was counted in the latest periods, the present one last.
    periods: Vec<Used>,
    /// The counters when they were read last.
    reading: Option<Reading>,
    /// The day on which they were.
    read_on: Option<Date>,
    /// What has counted so far.
    rule: QuotaRule,
    /// What was counted in the present period since it began or the clock was set, by this daemon: if the clock was wrong, it
    /// belongs to another one.
    #[serde(skip)]
    loose: u64,
}

/// What was used in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Used {
    /// Its first day.
    start: Date,
    /// Bytes.
    bytes: u64,
    /// What the operator was told.
    told: Level,
}

/// How much of a quota is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Not much.
    #[default]
    Fine,
    /// So much that the operator wants to know.
    Much,
    /// All of it.
    All,
}

impl Account {
    /// Takes in how far the counters have come.
    pub fn count(&mut self, reading: Reading, today: Today, rule: QuotaRule) {
        let bytes = self.reading.map_or(0, |before| difference(before, reading, rule.direction));
        self.reading = Some(reading);
        if today.date < CREDIBLE {
            self.present(today.date).bytes += bytes;
            self.loose += bytes;
            return;
        }
        self.follow(rule, today.date);
        let start = period::start(rule.period, today.date);
        let before = self.present(start).start;
        if start == before {
            self.loose += bytes;
            self.present(start).bytes += bytes;
        } else {
            // Either the clock was wrong before it was set, and so were the last bytes' days; or the period is over.
            let old = if today.set { 0 } else { self.part_before(start, today.date, bytes) };
            let moved = if today.set { self.loose } else { 0 };
            let present = self.present(start);
            present.bytes = present.bytes.saturating_sub(moved).saturating_add(old);
            self.go_to(start);
            self.loose = moved.saturating_add(bytes - old);
            let added = self.loose;
            let present = self.present(start);
            present.bytes = present.bytes.saturating_add(added);
        }
        self.read_on = Some(today.date);
    }

    /// Takes in the counters for the last time, by the rule so far: their maps are about to go.
    pub fn close(&mut self, reading: Reading, today: Today) {
        self.count(reading, today, self.rule);
    }

    /// The operator knows better what was used.
    pub fn set(&mut self, bytes: u64, today: Date) {
        let start = period::start(self.rule.period, today);
        *self.present(start) = Used { bytes, ..*self.present(start) };
        self.loose = bytes;
    }

    /// Bytes used in the present period.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.periods.last().map_or(0, |used| used.bytes)
    }

    /// The first day of the next period; none while the clock has never been right.
    #[must_use]
    pub fn next(&self) -> Option<Date> {
        let present = self.periods.last().filter(|used| used.start >= CREDIBLE)?;
        Some(period::next(self.rule.period, present.start))
    }

    /// What was told of the period before and is to be told now, if that is something else.
    pub fn tell(&mut self, level: Level) -> Option<(Level, Level)> {
        let told = self.periods.last().map(|used| used.told).unwrap_or_default();
        let before = if told == Level::Fine { self.told_before() } else { told };
        if let Some(used) = self.periods.last_mut() {
            used.told = level;
        }
        (before != level).then_some((before, level))
    }

    /// What of it must be known at once after a crash; amounts can wait a little.
    #[must_use]
    pub fn essence(&self) -> impl PartialEq + use<> {
        let periods: Vec<_> = self.periods.iter().map(|used| (used.start, used.told)).collect();
        (periods, self.rule, self.reading.map(|reading| (reading.maps, reading.isp)))
    }

    /// Which maps and which ISP it has counted by.
    #[must_use]
    pub fn reading(&self) -> Option<Reading> {
        self.reading
    }

    /// What was told of the period that is over; once.
    fn told_before(&mut self) -> Level {
        let before = self.periods.len().checked_sub(2).and_then(|place| self.periods.get_mut(place));
        before.map(|used| std::mem::take(&mut used.told)).unwrap_or_default()
    }

    /// The rule may be another one than before. What was used stays if the day of the month is another one: since when it
    /// counts nobody knows, and too much is better than too little. A day is no month, though.
    fn follow(&mut self, rule: QuotaRule, today: Date) {
        use crate::config::Period::{Day, Month};
        if rule.period != self.rule.period {
            match (self.rule.period, rule.period) {
                (Month { .. }, Month { .. }) => {
                    let present = self.periods.pop();
                    let start = period::start(rule.period, today);
                    self.periods = present.map(|used| Used { start, ..used }).into_iter().collect();
                }
                (Day, _) | (_, Day) => self.periods.clear(),
            }
        }
        self.rule = rule;
    }

    /// The present period; if there is none, that which begins on this day.
    fn present(&mut self, start: Date) -> &mut Used {
        if self.periods.is_empty() {
            self.periods.push(Used { start, bytes: 0, told: Level::Fine });
        }
        let last = self.periods.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "there is one now")]
        &mut self.periods[last]
    }

    /// Makes that the present period which begins on this day.
    fn go_to(&mut self, start: Date) {
        let known = self.periods.iter().position(|used| used.start == start);
        let used = match known {
            Some(place) => self.periods.remove(place),
            None => Used { start, bytes: 0, told: Level::Fine },
        };
        self.periods.push(used);
        let surplus = self.periods.len().saturating_sub(KEPT);
        drop(self.periods.drain(..surplus));
    }

    /// What of some bytes was carried before a period began, as far as one can know: nobody has looked since some day.
    fn part_before(&self, start: Date, today: Date, bytes: u64) -> u64 {
        let days = |from: Date, to: Date| u64::try_from((to - from).get_days()).unwrap_or(0);
        let Some(read_on) = self.read_on.filter(|&read_on| read_on < start) else { return 0 };
        let all = days(read_on, today).max(1);
        let after = u128::from(bytes) * u128::from(days(start, today)) / u128::from(all);
        bytes - u64::try_from(after).unwrap_or(bytes).min(bytes)
    }
}

impl Level {
    /// How much that is, where one wants to know from so many percent on.
    #[must_use]
    pub fn of(used: u64, limit: u64, warn: Option<u8>) -> Self {
        let is_much = |percent| u128::from(used) * 100 >= u128::from(limit) * u128::from(percent);
        match warn {
            _ if used >= limit => Self::All,
            Some(percent) if is_much(percent) => Self::Much,
            _ => Self::Fine,
        }
    }
}

/// What was carried between two readings. Of other maps, or as another ISP's, it is not known. Counters that went back have
/// begun anew.
fn difference(before: Reading, now: Reading, direction: Direction) -> u64 {
    let is_same = before.isp == now.isp && (before.maps == now.maps || before.maps == 0);
    if !is_same {
        return 0;
    }
    let anew = now.download < before.download || now.upload < before.upload;
    let before = if anew { Reading::default() } else { before };
    let (download, upload) = (now.download - before.download, now.upload - before.upload);
    match direction {
        Direction::Both => download.saturating_add(upload),
        Direction::Download => download,
        Direction::Upload => upload,
    }
}
