//! What an ISP's keys say of how much it is to carry: a quota, and the rate from which on new flows go elsewhere.

use serde::{Deserialize, Serialize};

use super::error::Problem;
use super::monitor::Band;
use super::reader::{Item, Table};
use crate::amount::{Rate, Size, parse_rate, parse_size};

/// The least and the greatest quota: a megabyte, and a petabyte.
const QUOTAS: (u64, u64) = (1_000_000, 1_000_000_000_000_000);
/// The least and the greatest rate.
const RATES: (u64, u64) = (10_000, 1_000_000_000_000);

/// How much an ISP is to carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeteredConfig {
    /// How much in a period.
    pub quota: Option<QuotaConfig>,
    /// At what rate, in bits a second: new flows go elsewhere once it is over the upper limit, until it is under the lower one.
    pub spill_over: Option<Band<u64>>,
}

/// A quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaConfig {
    /// So many bytes.
    pub limit: u64,
    /// Of what, and in what time.
    pub rule: QuotaRule,
    /// What happens when it is used up.
    pub action: QuotaAction,
    /// From how many percent of it on the operator is warned; never, if none: 1 to 99.
    pub warn: Option<u8>,
}

/// What counts for a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaRule {
    /// When it begins anew.
    pub period: Period,
    /// What is counted.
    pub direction: Direction,
}

/// When a quota begins anew: at midnight, by the clock on the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// Once a month.
    Month {
        /// On this day, 1 to 31; in shorter months on their last one.
        reset_day: u8,
    },
    /// Every day.
    Day,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// What is sent and what is received.
    #[default]
    Both,
    /// What is received.
    Download,
    /// What is sent.
    Upload,
}

/// What happens when a quota is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuotaAction {
    /// The operator is told.
    #[default]
    Warn,
    /// New flows go by any other ISP of their policy, if one works.
    Demote,
}

impl Default for Period {
    fn default() -> Self {
        Self::Month { reset_day: 1 }
    }
}

/// The keys of a quota that make no sense without one.
const DETAILS: [&str; 5] =
    ["quota_period", "quota_reset_day", "quota_direction", "quota_warn", "quota_action"];

/// Reads an ISP's keys.
pub(super) fn read(table: &Table<'_>) -> Result<MeteredConfig, Problem> {
    Ok(MeteredConfig { quota: quota(table)?, spill_over: spill_over(table)? })
}

fn quota(table: &Table<'_>) -> Result<Option<QuotaConfig>, Problem> {
    let Some(item) = table.get("quota") else {
        return match DETAILS.iter().find_map(|key| table.get(key)) {
            Some(item) => {
                let name = item.name();
                Err(item.problem(format!("{name} says nothing without quota: add that, or remove this")))
            }
            None => Ok(None),
        };
    };
    let limit = amount(item, parse_size, QUOTAS, Size)?;
    let directions =
        [("both", Direction::Both), ("download", Direction::Download), ("upload", Direction::Upload)];
    let actions = [("warn", QuotaAction::Warn), ("demote", QuotaAction::Demote)];
    let rule = QuotaRule { period: period(table)?, direction: table.choice("quota_direction", &directions)? };
    let warn = table.get("quota_warn").map_or(Ok(Some(80)), warn)?;
    Ok(Some(QuotaConfig { limit, rule, action: table.choice("quota_action", &actions)?, warn }))
}

fn period(table: &Table<'_>) -> Result<Period, Problem> {
    let reset_day = table.number("quota_reset_day", (1, 31), 1)?;
    let periods = [("month", Period::Month { reset_day }), ("day", Period::Day)];
    let period = table.choice("quota_period", &periods)?;
    match (table.get("quota_period"), table.get("quota_reset_day")) {
        (_, Some(item)) if period == Period::Day => {
            Err(item.problem("quota_reset_day is for quota_period = \"month\": remove one of them"))
        }
        (None, _) => Ok(Period::Month { reset_day }),
        _ => Ok(period),
    }
}

fn warn(item: Item<'_>) -> Result<Option<u8>, Problem> {
    item.text(|text| {
        let percent = text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
        match percent {
            _ if text == "off" => Ok(None),
            Some(percent @ 1..=99) => Ok(Some(percent)),
            _ => Err("quota_warn must be \"1%\" to \"99%\", or \"off\"".to_owned()),
        }
    })
}

fn spill_over(table: &Table<'_>) -> Result<Option<Band<u64>>, Problem> {
    let rate = |item| amount(item, parse_rate, RATES, Rate);
    match (table.get("spill_over"), table.get("spill_back")) {
        (None, None) => Ok(None),
        (None, Some(item)) => {
            Err(item.problem("spill_back says nothing without spill_over: add that, or remove this"))
        }
        (Some(over), None) => rate(over).map(|enter| Some(Band { enter, leave: enter / 4 * 3 })),
        (Some(over), Some(back)) => {
            let band = Band { enter: rate(over)?, leave: rate(back)? };
            if band.leave < band.enter {
                return Ok(Some(band));
            }
            let [leave, enter] = [band.leave, band.enter].map(Rate);
            let message =
                format!("spill_back ({leave}) must be less than spill_over ({enter}): change one of them");
            Err(back.problem(message))
        }
    }
}

/// An amount within a range.
fn amount<T: std::fmt::Display>(
    item: Item<'_>,
    parse: fn(&str) -> Result<u64, String>,
    (min, max): (u64, u64),
    show: fn(u64) -> T,
) -> Result<u64, Problem> {
    item.text(|text| {
        let amount = parse(text).map_err(|wrong| format!("{} {wrong}", item.name()))?;
        if (min..=max).contains(&amount) {
            return Ok(amount);
        }
        Err(format!("{} must be between {} and {}", item.name(), show(min), show(max)))
    })
}
