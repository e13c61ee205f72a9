//! The options that NIB hands on to its link status monitor, foolsm (lsm), of which `lsm/config.c` has the list.

use std::collections::BTreeMap;

use super::parse::Word;
use crate::config::announce::mailbox;
use crate::config::error::Problem;

/// What the options say that were set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lsm<'a> {
    /// Milliseconds between pings.
    pub(super) interval_ms: Option<u32>,
    /// The longest that an answer may take, in milliseconds.
    pub(super) timeout_ms: Option<u32>,
    /// So many lost in a row are a failure.
    pub(super) lost: Option<u32>,
    /// So many answered in a row end it.
    received: Option<(u32, Word<'a>)>,
    /// Who gets mail.
    pub(super) warn_email: Vec<String>,
    /// More than so many of 100 lost are a failure for foolsm, and degrade an ISP here.
    pub(super) max_loss: Option<u32>,
    /// No more than so many of 100 lost end that.
    pub(super) min_loss: Option<u32>,
    /// Down for so many seconds is down for long.
    pub(super) long_down: Option<u32>,
    /// What has no key here: by name, the value and what there is to say about it.
    pub(super) notes: BTreeMap<&'static str, (&'a str, &'static str)>,
}

/// What NIB sets unless told otherwise, in milliseconds.
const DEFAULT_INTERVAL_MS: u32 = 1000;

const HOUR_MS: u32 = 3_600_000;
const DAY_MS: u32 = 24 * HOUR_MS;

const NO_SCRIPTS: &str =
    "hooks in up.d, down.d, long_down.d and event.d below the folder of [scripts] take its place";
const NO_MAIL: &str = "not an address that mail can be sent to: write [mail] yourself";
const ONE_MAIL: &str = "no counterpart: [mail] is about every change";
const NO_LOSS: &str = "means nothing: it is not from 1 to 100";
const NO_LONG_DOWN: &str = "means nothing: it is not from 1 to 86400";
const OWN_PROBES: &str = "not needed: an ISP's probes always leave by its own device, with its own address";
const OVERWRITTEN: &str = "never had an effect: Net::ISP::Balance writes its own over it for each ISP";
const QUICK_START: &str = "not needed: after the start an ISP is used at its first answer";

/// What has no key here: the name, whether it is a number, and what there is to say about it.
const NOTES: &[(&str, bool, &str)] = &[
    ("max_successive_pkts_recvd", true, "never had an effect: foolsm knows only max_successive_pkts_lost"),
    ("long_down_email", false, ONE_MAIL),
    ("eventscript", false, NO_SCRIPTS),
    ("notifyscript", false, NO_SCRIPTS),
    ("long_down_eventscript", false, NO_SCRIPTS),
    ("long_down_notifyscript", false, NO_SCRIPTS),
    ("unknown_up_notify", true, "no counterpart: the first time that an ISP comes up is announced as well"),
    ("queue", false, "no counterpart: hooks are run at the same time"),
    ("check_arp", true, "no counterpart: write the target \"gateway\" yourself"),
    ("ttl", true, "no counterpart: probes have the system's TTL"),
    ("sourceip", false, OWN_PROBES),
    ("device", false, OVERWRITTEN),
    ("checkip", false, OVERWRITTEN),
    ("name", false, OVERWRITTEN),
    ("status", true, "not needed: how each ISP was is in the kernel, and known after a restart"),
    ("debug", true, "not needed: --log-level says how much is logged"),
    ("startup_acceleration", true, QUICK_START),
    ("startup_burst_pkts", true, QUICK_START),
    ("startup_burst_interval", true, QUICK_START),
];

/// The options that become keys, for the message that lists what is known.
const KEYS: &[&str] = &[
    "interval_ms",
    "timeout_ms",
    "max_successive_pkts_lost",
    "min_successive_pkts_rcvd",
    "max_packet_loss",
    "min_packet_loss",
    "long_down_time",
    "warn_email",
];

/// Whether this is the name of an option.
pub(super) fn is_known(name: &str) -> bool {
    KEYS.contains(&name) || NOTES.iter().any(|&(known, ..)| known == name)
}

impl<'a> Lsm<'a> {
    /// Takes in one option. Of several of the same name the last counts, as in NIB.
    pub(super) fn set(&mut self, name: &Word<'_>, value: Word<'a>) -> Result<(), Problem> {
        match name.text {
            "interval_ms" => self.interval_ms = Some(value.number(name.text, (10, HOUR_MS))?),
            "timeout_ms" => self.timeout_ms = Some(value.number(name.text, (10, 60_000))?),
            "max_successive_pkts_lost" => self.lost = Some(value.number(name.text, (1, 1000))?),
            "min_successive_pkts_rcvd" => {
                self.received = Some((value.number(name.text, (1, DAY_MS))?, value));
            }
            "warn_email" => {
                self.warn_email = addresses(value.text);
                let is_plain =
                    |address: &String| address.chars().all(|c| c.is_ascii_graphic() && !"\"\\".contains(c));
                let is_good = |address: &String| is_plain(address) && mailbox("to", address).is_ok();
                let is_good = self.warn_email.iter().all(is_good);
                self.notes.remove("warn_email");
                if !is_good {
                    self.warn_email.clear();
                    self.notes.insert("warn_email", (value.text, NO_MAIL));
                }
            }
            "max_packet_loss" => {
                self.max_loss = self.within("max_packet_loss", &value, 100, NO_LOSS)?;
            }
            "min_packet_loss" => {
                self.min_loss = self.within("min_packet_loss", &value, 100, NO_LOSS)?;
            }
            "long_down_time" => {
                self.long_down = self.within("long_down_time", &value, DAY_MS / 1000, NO_LONG_DOWN)?;
            }
            other => {
                let note = NOTES.iter().find(|(known, ..)| *known == other);
                let Some(&(known, is_number, note)) = note else { return Err(unknown(name)) };
                if is_number {
                    value.number(known, (0, u32::MAX))?;
                }
                self.notes.insert(known, (value.text, note));
            }
        }
        Ok(())
    }

    /// A number from 1 to `most`; any other is noted.
    fn within(
        &mut self,
        name: &'static str,
        value: &Word<'a>,
        most: u32,
        note: &'static str,
    ) -> Result<Option<u32>, Problem> {
        let number = value.number(name, (0, u32::MAX))?;
        self.notes.remove(name);
        if (1..=most).contains(&number) {
            return Ok(Some(number));
        }
        self.notes.insert(name, (value.text, note));
        Ok(None)
    }

    /// How long an ISP must answer to be used again, in milliseconds, if anything was said about that.
    pub(super) fn up_after_ms(&self) -> Result<Option<u32>, Problem> {
        let Some((received, value)) = &self.received else { return Ok(None) };
        let interval = self.interval_ms.unwrap_or(DEFAULT_INTERVAL_MS);
        match received.checked_mul(interval) {
            Some(product) if product <= DAY_MS => Ok(Some(product)),
            _ => Err(value.problem(format!(
                "min_successive_pkts_rcvd times interval_ms ({interval}) must not be longer than a day"
            ))),
        }
    }
}

/// As the command `mail` takes them; a name alone is a user of this machine.
fn addresses(text: &str) -> Vec<String> {
    let words = text.split([' ', '\t', ',']).filter(|word| !word.is_empty());
    words.map(|word| if word.contains('@') { word.to_owned() } else { format!("{word}@localhost") }).collect()
}

fn unknown(name: &Word<'_>) -> Problem {
    let known = ["mode", "forwarding_group"].into_iter().chain(KEYS.iter().copied());
    let known: Vec<_> = known.chain(NOTES.iter().map(|&(known, ..)| known)).collect();
    name.problem(format!(
        "unknown option `{}`: Net::ISP::Balance and foolsm have {}",
        name.text,
        known.join(", ")
    ))
}
