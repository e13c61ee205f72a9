//! From a text to NIB's data: what `_parse_configuration_file` of Net::ISP::Balance 1.33 reads, nothing passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use balance_common::MAX_ISPS;

use super::lsm::{self, Lsm};
use crate::config::error::Problem;
use crate::config::{Mode, WEIGHTS, check};

/// What a config of NIB says. Everything is checked: our config takes what is made of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Nib<'a> {
    /// How the ISPs share the flows, if it is said.
    pub(super) mode: Option<Mode>,
    /// The rows with the role `isp`, in their order.
    pub(super) isps: Vec<Isp<'a>>,
    /// The rows with the role `lan`, in their order: name and device.
    pub(super) lans: Vec<(&'a str, &'a str)>,
    /// Who may open connections to whom: names of ISPs and LANs, `:isp` and `:lan`.
    pub(super) groups: Vec<Vec<&'a str>>,
    /// The options for the link monitor.
    pub(super) lsm: Lsm<'a>,
    /// How long an ISP must answer to be used again, in milliseconds, if anything was said about that.
    pub(super) up_after_ms: Option<u32>,
}

/// A row with the role `isp`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Isp<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Its device.
    pub(super) device: &'a str,
    /// What is pinged.
    pub(super) ping: Ping<'a>,
    /// Its share; 0: nothing, as long as another ISP works.
    pub(super) weight: u32,
    /// The gateway, if it is not to be found.
    pub(super) gateway: Option<IpAddr>,
}

/// What is pinged to see whether an ISP works.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ping<'a> {
    /// Nothing was said: `www.google.ca`.
    Default,
    /// An address.
    Address(IpAddr),
    /// A host by its name.
    Host(&'a str),
}

/// A word or more of the file, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word<'a> {
    /// The text itself.
    pub(super) text: &'a str,
    /// Where it begins, in bytes from the beginning of the file.
    at: usize,
}

/// Whether a text has the form of NIB's config and not that of ours, which cannot do without `[[isp]]` or `isp =`.
#[must_use]
pub fn is_nib(text: &str) -> bool {
    let mut is_nib = false;
    for Word { text: line, at } in lines(text) {
        let option = option(&Word { text: line, at });
        let is_toml =
            line.trim_start().starts_with('[') || option.as_ref().is_some_and(|o| o.0.text == "isp");
        if is_toml {
            return false;
        }
        is_nib |= match option {
            Some((name, value)) => is_option(name.text) && !value.text.starts_with(['"', '\'']),
            None => {
                matches!(words(line, at).as_slice(), [_, _, role, ..] if ["isp", "lan"].contains(&role.text))
            }
        };
    }
    is_nib
}

/// The data that a text describes.
pub(super) fn nib(text: &str) -> Result<Nib<'_>, Problem> {
    let mut reader = Reader::default();
    for line in lines(text) {
        reader.line(&line)?;
    }
    reader.finish()
}

/// What has been read so far.
#[derive(Default)]
struct Reader<'a> {
    nib: Nib<'a>,
    /// Names, in lower case, as case does not set them apart for our config.
    names: BTreeSet<String>,
    /// Devices, with the names of what has them.
    devices: BTreeMap<&'a str, &'a str>,
    /// Forwarding groups, which may come before the rows that they name.
    groups: Vec<Vec<Word<'a>>>,
}

impl<'a> Reader<'a> {
    fn line(&mut self, line: &Word<'a>) -> Result<(), Problem> {
        if let Some((at, c)) = line.text.char_indices().find(|&(_, c)| c.is_control() && c != '\t') {
            let place = line.at + at..line.at + at + c.len_utf8();
            return Err(Problem::new(place, "a control character: remove it"));
        }
        if line.text.starts_with([' ', '\t']) {
            return Err(line.problem(
                "Net::ISP::Balance passes over a line that begins with a space: remove the space, or make it a \
                 comment with #",
            ));
        }
        match option(line) {
            Some((name, value)) if name.text == "mode" => self.nib.mode = Some(mode(&value, line)?),
            Some((name, value)) if name.text == "forwarding_group" => {
                let group = words(value.text, value.at);
                if group.is_empty() {
                    return Err(line.problem("forwarding_group names nobody: give it names, :lan or :isp"));
                }
                self.groups.push(group);
            }
            Some((name, value)) => self.nib.lsm.set(&name, value)?,
            None => self.row(line)?,
        }
        Ok(())
    }

    fn row(&mut self, line: &Word<'a>) -> Result<(), Problem> {
        let words = words(line.text, line.at);
        let [name, device, role, rest @ ..] = words.as_slice() else {
            return Err(line.problem(
                "unknown line: it must be a row (service device role ping-ip weight gateway) or an option \
                 (name=value)",
            ));
        };
        if let [_, _, _, extra, ..] = rest {
            return Err(extra.problem("a row has no seventh column: remove it, or make it a comment with #"));
        }
        self.take(name, device)?;
        match role.text {
            "isp" => self.isp(name, device, rest),
            // The other columns mean nothing for a LAN, in NIB neither.
            "lan" => {
                self.nib.lans.push((name.text, device.text));
                Ok(())
            }
            _ => Err(role.problem("role must be isp or lan, in lower case")),
        }
    }

    fn isp(&mut self, name: &Word<'a>, device: &Word<'a>, rest: &[Word<'a>]) -> Result<(), Problem> {
        let [ping, weight, gateway] =
            [0, 1, 2].map(|column| rest.get(column).filter(|word| word.text != "default"));
        if self.nib.isps.len() == usize::from(MAX_ISPS) {
            return Err(name.problem(format!("there can be at most {MAX_ISPS} ISPs: remove this one")));
        }
        self.nib.isps.push(Isp {
            name: name.text,
            device: device.text,
            ping: ping.map_or(Ok(Ping::Default), ping_of)?,
            weight: weight.map_or(Ok(1), |word| word.number("weight", (0, u32::from(WEIGHTS.1))))?,
            gateway: gateway.map(|word| word.check(|text| check::host("gateway", text))).transpose()?,
        });
        Ok(())
    }

    /// A name and a device, which nothing else may have.
    fn take(&mut self, name: &Word<'a>, device: &Word<'a>) -> Result<(), Problem> {
        if ["up", "down"].contains(&name.text) {
            return Err(name.problem("a service cannot be named up or down: Net::ISP::Balance refuses it"));
        }
        name.check(check::name)?;
        if !self.names.insert(name.text.to_ascii_lowercase()) {
            let message = "is taken: give each ISP and LAN its own (case does not count)";
            return Err(name.problem(format!("the name {} {message}", name.text)));
        }
        if let Some((real, _)) = device.text.split_once(':') {
            return Err(device.problem(format!(
                "{} is only another name of {real}: give each ISP and LAN a device of its own, such as a VLAN or \
                 a macvlan",
                device.text
            )));
        }
        device.check(check::device)?;
        if let Some(owner) = self.devices.insert(device.text, name.text) {
            let message = format!("the device {} belongs to {owner}: give each its own", device.text);
            return Err(device.problem(message));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Nib<'a>, Problem> {
        if self.nib.isps.is_empty() {
            let message = "there is no ISP: add a row for each, such as `CABLE eth0 isp 1.1.1.1`";
            return Err(Problem::new(0..0, message));
        }
        self.nib.up_after_ms = self.nib.lsm.up_after_ms()?;
        let (isps, lans) = (&self.nib.isps, &self.nib.lans);
        let known = |name: &str| {
            [":isp", ":lan"].contains(&name)
                || isps.iter().any(|isp| isp.name == name)
                || lans.iter().any(|&(lan, _)| lan == name)
        };
        for word in self.groups.iter().flatten() {
            if !known(word.text) {
                let message =
                    format!("there is no {}: name ISPs and LANs of this file, :isp or :lan", word.text);
                return Err(word.problem(message));
            }
        }
        let names = |group: Vec<Word<'a>>| group.into_iter().map(|word| word.text).collect();
        self.nib.groups = self.groups.into_iter().map(names).collect();
        Ok(self.nib)
    }
}

impl Word<'_> {
    /// Something wrong with it.
    pub(super) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(self.at..self.at + self.text.len(), message)
    }

    /// The whole number within a range that it is.
    pub(super) fn number(&self, what: &str, (min, max): (u32, u32)) -> Result<u32, Problem> {
        let is_number = !self.text.is_empty() && self.text.chars().all(|c| c.is_ascii_digit());
        let number = self.text.parse::<u32>().ok().filter(|number| is_number && (min..=max).contains(number));
        number.ok_or_else(|| self.problem(format!("{what} must be a whole number from {min} to {max}")))
    }

    fn check<T>(&self, check: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Problem> {
        check(self.text).map_err(|message| self.problem(message))
    }
}

/// The lines that say something, without their ends; comments and empty lines do not.
fn lines(text: &str) -> impl Iterator<Item = Word<'_>> {
    let bom = text.len() - text.trim_start_matches('\u{feff}').len();
    let mut next = bom;
    text.get(bom..).unwrap_or_default().split('\n').filter_map(move |line| {
        let at = next;
        next += line.len() + 1;
        let text = line.trim_end_matches('\r');
        let said = text.trim_start_matches(|c: char| c.is_ascii_whitespace());
        (!said.is_empty() && !said.starts_with('#')).then_some(Word { text, at })
    })
}

/// The words of a text that begins at this byte of the file, up to a comment.
fn words(text: &str, mut at: usize) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    for text in text.split(|c: char| c.is_ascii_whitespace()) {
        if text.starts_with('#') {
            break;
        }
        if !text.is_empty() {
            words.push(Word { text, at });
        }
        // What separates them is one byte long.
        at += text.len() + 1;
    }
    words
}

/// Name and value of a line like `name=value`, without what foolsm takes for a comment.
fn option<'a>(line: &Word<'a>) -> Option<(Word<'a>, Word<'a>)> {
    let (left, right) = line.text.split_once('=')?;
    let name = left.trim_end_matches(|c: char| c.is_ascii_whitespace());
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let value = right.split('#').next().unwrap_or_default();
    let text = value.trim_start_matches(|c: char| c.is_ascii_whitespace());
    let at = line.at + left.len() + 1 + (value.len() - text.len());
    let text = text.trim_end_matches(|c: char| c.is_ascii_whitespace());
    Some((Word { text: name, at: line.at }, Word { text, at }))
}

fn is_option(name: &str) -> bool {
    ["mode", "forwarding_group"].contains(&name) || lsm::is_known(name)
}

/// NIB takes every value that has `failover` in it for that, comments included, and everything else for balanced.
fn mode(value: &Word<'_>, line: &Word<'_>) -> Result<Mode, Problem> {
    let for_nib =
        if line.text.to_ascii_lowercase().contains("failover") { Mode::Failover } else { Mode::Balanced };
    let meant = match value.text.to_ascii_lowercase().as_str() {
        "balanced" => Mode::Balanced,
        "failover" => Mode::Failover,
        _ => return Err(value.problem("mode must be balanced or failover")),
    };
    if for_nib == meant {
        return Ok(meant);
    }
    Err(line.problem("Net::ISP::Balance takes this for failover, for the sake of its comment: remove that"))
}

fn ping_of<'a>(word: &Word<'a>) -> Result<Ping<'a>, Problem> {
    let is_name = word.text.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c))
        && word.text.contains(|c: char| c.is_ascii_alphabetic());
    if is_name {
        return Ok(Ping::Host(word.text));
    }
    word.check(|text| check::host("ping-ip", text)).map(Ping::Address)
}
