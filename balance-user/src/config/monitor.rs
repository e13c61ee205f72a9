//! `[monitor]`: when an ISP counts as down, as up, and as degraded.

use std::net::IpAddr;
use std::time::Duration;

use super::check;
use super::error::Problem;
use super::reader::{Item, Table};

/// When an ISP counts as down, as up, and as degraded. The default is [`Profile::Balanced`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorConfig {
    /// Time between rounds of probes while all is well.
    pub interval: Duration,
    /// Time between rounds while the ISP is suspect.
    pub suspect_interval: Duration,
    /// The longest time an answer may take before its probe counts as lost; less where answers are usually quick.
    pub timeout: Duration,
    /// So many targets must answer for a round to be good.
    pub quorum: usize,
    /// So many bad rounds in a row, sent since the first doubt, take a suspect ISP down.
    pub down_after: u32,
    /// An ISP that was down is used again after answering for so long.
    pub up_after: Duration,
    /// Packets sent for so long with nothing received make an ISP suspect.
    pub silence: Duration,
    /// For so long at most, traffic that keeps coming in vouches for an ISP whose probes are all lost.
    pub vouch: Duration,
    /// An ISP that has been down for so long is so for long.
    pub long_down_after: Duration,
    /// After so long half of a failure is forgotten (RFC 2439, 4.2).
    pub flap_half_life: Duration,
    /// From this penalty on, an ISP that answers again is held. A failure costs [`Self::FAILURE`].
    pub flap_suppress: u32,
    /// Below this penalty it is let go.
    pub flap_reuse: u32,
    /// The longest that it is held.
    pub up_after_max: Duration,
    /// When an ISP that works is degraded.
    pub limits: Limits,
    /// Who is asked for the addresses of targets with names. None: those of the system, then well-known ones.
    pub resolvers: Vec<IpAddr>,
}

/// When an ISP that works is degraded, and when it is not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of lost probes, in thousandths; none: they do not matter.
    pub loss: Option<Band<u16>>,
    /// Of the round-trip time.
    pub latency: Option<Band<Duration>>,
    /// Of its variation.
    pub jitter: Option<Band<Duration>>,
    /// It is degraded once something has been over its limit for so long.
    pub degraded_after: Duration,
    /// And restored once nothing has been over its lower limit for so long.
    pub restored_after: Duration,
}

/// A limit with a dead band: what is between the two changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band<T> {
    /// More than this degrades.
    pub enter: T,
    /// No more than this restores; less than `enter`.
    pub leave: T,
}

/// A set of defaults for the keys of `[monitor]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Failures count within half a second, for several times the probes.
    Fast,
    /// What suits most lines.
    #[default]
    Balanced,
    /// For lines that are slow and lossy by nature: satellite, radio.
    Patient,
    /// As few probes as can be: what the traffic shows comes first.
    Metered,
}

/// The keys of `[monitor]` and `[isp.monitor]`; the last are foolsm's names.
pub(super) const KEYS: &[&str] = &[
    "profile",
    "interval",
    "suspect_interval",
    "timeout",
    "quorum",
    "down_after",
    "up_after",
    "silence",
    "vouch",
    "long_down_after",
    "flap_half_life",
    "flap_window",
    "flap_suppress",
    "flap_reuse",
    "up_after_max",
    "degraded_loss",
    "restored_loss",
    "degraded_latency",
    "restored_latency",
    "degraded_jitter",
    "restored_jitter",
    "degraded_after",
    "restored_after",
    "resolvers",
    "interval_ms",
    "timeout_ms",
    "max_packet_loss",
    "min_packet_loss",
    "max_successive_pkts_lost",
    "min_successive_pkts_rcvd",
    "long_down_time",
];

const PROFILES: [(&str, Profile); 4] = [
    ("fast", Profile::Fast),
    ("balanced", Profile::Balanced),
    ("patient", Profile::Patient),
    ("metered", Profile::Metered),
];

const SHORTEST: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const MOST_PENALTY: u32 = 100_000;

impl MonitorConfig {
    /// The penalty for a failure, the figure of merit of RFC 2439.
    pub const FAILURE: u32 = 1000;

    /// The defaults by that name.
    #[must_use]
    pub fn of(profile: Profile) -> Self {
        let ms = Duration::from_millis;
        let balanced = Self {
            interval: SECOND,
            suspect_interval: ms(100),
            timeout: SECOND,
            quorum: 1,
            down_after: 3,
            up_after: ms(5_000),
            silence: ms(300),
            vouch: ms(5_000),
            long_down_after: ms(120_000),
            flap_half_life: MINUTE,
            flap_suppress: 1500,
            flap_reuse: 750,
            up_after_max: ms(300_000),
            limits: Limits {
                loss: Some(Band { enter: 200, leave: 100 }),
                latency: None,
                jitter: None,
                degraded_after: ms(10_000),
                restored_after: ms(30_000),
            },
            resolvers: Vec::new(),
        };
        match profile {
            Profile::Balanced => balanced,
            Profile::Fast => Self {
                interval: ms(300),
                suspect_interval: ms(50),
                timeout: ms(500),
                up_after: ms(2_000),
                silence: ms(150),
                vouch: ms(2_000),
                limits: Limits { degraded_after: ms(3_000), restored_after: ms(15_000), ..balanced.limits },
                ..balanced
            },
            Profile::Patient => Self {
                interval: ms(2_000),
                suspect_interval: ms(500),
                timeout: ms(3_000),
                down_after: 8,
                up_after: ms(30_000),
                silence: ms(2_000),
                vouch: ms(20_000),
                up_after_max: ms(600_000),
                limits: Limits { degraded_after: ms(30_000), restored_after: ms(60_000), ..balanced.limits },
                ..balanced
            },
            Profile::Metered => Self {
                interval: MINUTE,
                suspect_interval: ms(500),
                timeout: ms(2_000),
                up_after: ms(10_000),
                silence: SECOND,
                vouch: ms(15_000),
                limits: Limits {
                    degraded_after: ms(120_000),
                    restored_after: ms(300_000),
                    ..balanced.limits
                },
                ..balanced
            },
        }
    }

    /// What a table says, `self` being what holds without it. `self` must be consistent; so is what comes out.
    pub(super) fn merged(self, table: Option<&Table<'_>>) -> Result<Self, Problem> {
        let Some(table) = table else { return Ok(self) };
        let base = match table.get("profile") {
            None => self,
            Some(_) => Self::of(table.choice("profile", &PROFILES)?),
        };
        let interval = duration(table, ("interval", "interval_ms", 1), (SHORTEST, HOUR), base.interval)?;
        let merged = Self {
            interval,
            suspect_interval: table.duration("suspect_interval", (SHORTEST, HOUR), base.suspect_interval)?,
            timeout: duration(table, ("timeout", "timeout_ms", 1), (SHORTEST, MINUTE), base.timeout)?,
            quorum: table.number("quorum", (1, 255), base.quorum)?,
            down_after: either(table, "down_after", "max_successive_pkts_lost")?
                .map_or(Ok(base.down_after), |item| item.number((1, 1000)))?,
            up_after: up_after(table, interval, base.up_after)?,
            silence: table.duration("silence", (SHORTEST, HOUR), base.silence)?,
            vouch: table.duration("vouch", (Duration::ZERO, HOUR), base.vouch)?,
            long_down_after: duration(
                table,
                ("long_down_after", "long_down_time", 1000),
                (SECOND, DAY),
                base.long_down_after,
            )?,
            flap_half_life: half_life(table, base.flap_half_life)?,
            flap_suppress: table.number("flap_suppress", (1, MOST_PENALTY), base.flap_suppress)?,
            flap_reuse: table.number("flap_reuse", (1, MOST_PENALTY), base.flap_reuse)?,
            up_after_max: table.duration("up_after_max", (SHORTEST, DAY), base.up_after_max)?,
            limits: base.limits.merged(table)?,
            resolvers: table.get("resolvers").map_or(Ok(base.resolvers), resolvers)?,
        };
        in_order(table, ("suspect_interval", merged.suspect_interval), ("interval", merged.interval))?;
        in_order(table, ("up_after", merged.up_after), ("up_after_max", merged.up_after_max))?;
        if merged.flap_reuse >= merged.flap_suppress {
            let message = format!(
                "flap_reuse ({}) must be less than flap_suppress ({}): change one of them",
                merged.flap_reuse, merged.flap_suppress
            );
            return Err(blame(table, &["flap_reuse", "flap_suppress"], message));
        }
        Ok(merged)
    }
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self::of(Profile::default())
    }
}

impl Limits {
    fn merged(self, table: &Table<'_>) -> Result<Self, Problem> {
        let loss = |item: Option<Item<'_>>| item.map_or(Ok(Limit::Unsaid), loss);
        let time = |key| {
            let read = |item: Item<'_>| {
                if is_off(item) {
                    return Ok(Limit::Off);
                }
                item.duration((Duration::from_millis(1), MINUTE)).map(Limit::At)
            };
            table.get(key).map_or(Ok(Limit::Unsaid), read)
        };
        Ok(Self {
            loss: band(
                table,
                ("degraded_loss", loss(either(table, "degraded_loss", "max_packet_loss")?)?),
                ("restored_loss", loss(either(table, "restored_loss", "min_packet_loss")?)?),
                self.loss,
                |loss| loss / 2,
                |loss| format!("{}%", f64::from(loss) / 10.0),
            )?,
            latency: band(
                table,
                ("degraded_latency", time("degraded_latency")?),
                ("restored_latency", time("restored_latency")?),
                self.latency,
                |time| time / 2,
                |time| humantime::format_duration(time).to_string(),
            )?,
            jitter: band(
                table,
                ("degraded_jitter", time("degraded_jitter")?),
                ("restored_jitter", time("restored_jitter")?),
                self.jitter,
                |time| time / 2,
                |time| humantime::format_duration(time).to_string(),
            )?,
            degraded_after: table.duration("degraded_after", (Duration::ZERO, HOUR), self.degraded_after)?,
            restored_after: table.duration("restored_after", (Duration::ZERO, HOUR), self.restored_after)?,
        })
    }
}

/// What a table says of a limit.
#[derive(Clone, Copy, PartialEq)]
enum Limit<T> {
    Unsaid,
    Off,
    At(T),
}

/// Two limits. The lower one is half the upper one, unless either the table has it, or it has neither.
fn band<T: Copy + PartialOrd>(
    table: &Table<'_>,
    (enter_key, enter): (&'static str, Limit<T>),
    (leave_key, leave): (&'static str, Limit<T>),
    base: Option<Band<T>>,
    half: impl Fn(T) -> T,
    show: impl Fn(T) -> String,
) -> Result<Option<Band<T>>, Problem> {
    let upper = match enter {
        Limit::Unsaid => base.map(|band| band.enter),
        Limit::Off => None,
        Limit::At(upper) => Some(upper),
    };
    let Some(upper) = upper else {
        if leave == Limit::Unsaid {
            return Ok(None);
        }
        let message = format!("{leave_key} says nothing without {enter_key}: add that, or remove this");
        return Err(blame(table, &[leave_key, foolsm_name(leave_key)], message));
    };
    let lower = match (leave, enter, base) {
        (Limit::Off, ..) => {
            let message = format!("{leave_key} cannot be \"off\": {enter_key} can");
            return Err(blame(table, &[leave_key], message));
        }
        (Limit::At(lower), ..) => lower,
        (Limit::Unsaid, Limit::Unsaid, Some(base)) => base.leave,
        (Limit::Unsaid, ..) => half(upper),
    };
    if lower >= upper {
        let message = format!(
            "{leave_key} ({}) must be less than {enter_key} ({}): change one of them",
            show(lower),
            show(upper)
        );
        let names = [leave_key, foolsm_name(leave_key), enter_key, foolsm_name(enter_key)];
        return Err(blame(table, &names, message));
    }
    Ok(Some(Band { enter: upper, leave: lower }))
}

/// What foolsm calls a limit; itself, if it has none.
const fn foolsm_name(key: &'static str) -> &'static str {
    match key.as_bytes() {
        b"degraded_loss" => "max_packet_loss",
        b"restored_loss" => "min_packet_loss",
        _ => key,
    }
}

fn is_off(item: Item<'_>) -> bool {
    item.text(|text| if text == "off" { Ok(()) } else { Err(String::new()) }).is_ok()
}

/// Name servers.
fn resolvers(item: Item<'_>) -> Result<Vec<IpAddr>, Problem> {
    item.one_or_more()?.iter().map(|item| item.text(|text| check::host("resolvers", text))).collect()
}

/// A loss in thousandths. A number is foolsm's, of a hundred packets.
fn loss(item: Item<'_>) -> Result<Limit<u16>, Problem> {
    if is_off(item) {
        return Ok(Limit::Off);
    }
    let percent = if item.is_text() {
        item.text(|text| {
            let percent = text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
            percent
                .filter(|percent| (1..=100).contains(percent))
                .ok_or_else(|| format!("{} must be \"1%\" to \"100%\", or \"off\"", item.name()))
        })?
    } else {
        item.number::<u16>((1, 100))?
    };
    Ok(Limit::At(percent * 10))
}

/// A duration by its key, or by foolsm's name for it: a number of so many milliseconds each.
fn duration<'a>(
    table: &Table<'a>,
    (key, foolsm, unit_ms): (&'a str, &'a str, u64),
    range: (Duration, Duration),
    default: Duration,
) -> Result<Duration, Problem> {
    let Some(item) = either(table, key, foolsm)? else { return Ok(default) };
    if table.get(key).is_some() {
        return item.duration(range);
    }
    let units = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX) / unit_ms;
    item.number((units(range.0), units(range.1))).map(|number: u64| Duration::from_millis(number * unit_ms))
}

/// How long an ISP must answer: also as foolsm counts it, in answers that are `interval` apart.
fn up_after(table: &Table<'_>, interval: Duration, default: Duration) -> Result<Duration, Problem> {
    let Some(item) = either(table, "up_after", "min_successive_pkts_rcvd")? else { return Ok(default) };
    if table.get("up_after").is_some() {
        return item.duration((SHORTEST, DAY));
    }
    let answers: u32 = item.number((1, 1000))?;
    let time = interval.saturating_mul(answers);
    if time > DAY {
        let interval = humantime::format_duration(interval);
        let message = format!("{answers} answers, {interval} apart, must not take longer than a day");
        return Err(item.problem(message));
    }
    Ok(time)
}

/// How fast failures are forgotten; or, as it once was put, within what time of the last one another one counts: after five
/// half-lives 3 % of it are left.
fn half_life(table: &Table<'_>, default: Duration) -> Result<Duration, Problem> {
    let Some(item) = either(table, "flap_half_life", "flap_window")? else { return Ok(default) };
    let time = item.duration((SHORTEST, DAY))?;
    Ok(if table.get("flap_window").is_some() { time / 5 } else { time })
}

/// The value of a key that has two names.
fn either<'a>(table: &Table<'a>, name: &'a str, other: &'a str) -> Result<Option<Item<'a>>, Problem> {
    match (table.get(name), table.get(other)) {
        (Some(_), Some(item)) => {
            Err(item.problem(format!("{other} is another name of {name}: remove one of them")))
        }
        (one, another) => Ok(one.or(another)),
    }
}

/// The first duration must not be longer than the second. If it is, the table has at least one of them.
fn in_order<'a>(
    table: &Table<'a>,
    (shorter, short): (&'a str, Duration),
    (longer, long): (&'a str, Duration),
) -> Result<(), Problem> {
    if short <= long {
        return Ok(());
    }
    let [short, long] = [short, long].map(humantime::format_duration);
    let message =
        format!("{shorter} ({short}) must not be longer than {longer} ({long}): change one of them");
    Err(blame(table, &[shorter, longer, "interval_ms", "min_successive_pkts_rcvd", "profile"], message))
}

/// A problem with the first of these keys that the table has.
fn blame<'a>(table: &Table<'a>, keys: &[&'a str], message: String) -> Problem {
    match keys.iter().find_map(|key| table.get(key)) {
        Some(item) => item.problem(message),
        None => table.problem(message),
    }
}
