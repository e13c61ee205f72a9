//! `[firewall]`: what is dropped, and the clamping of TCP's segments.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Problem};
use super::ports::{Ports, Protocol};
use super::reader::{Item, Table};
use super::{IspConfig, LanConfig, named};

/// Where own rules are unless the config says otherwise.
const DEFAULT_RULES: &str = "/etc/balance/firewall.d";

/// What is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirewallConfig {
    /// Anything is.
    pub enabled: bool,
    /// So many pings from outside are answered; none: none is.
    pub ping: Option<Rate>,
    /// Some of what is dropped goes to the kernel's log.
    pub log: bool,
    /// What is open to the ISPs' side.
    pub allow: Vec<Service>,
    /// Who may open connections to whom.
    pub groups: Vec<Group>,
    /// Whether TCP's segments are made to fit the ISPs' devices; also where nothing is dropped.
    pub clamp_mss: ClampMss,
    /// The folder of own rules. One that is not there is empty, if nobody has asked for it.
    pub rules: RulesFolder,
    /// What is in it, in order; [`super::Config::load`] reads it.
    pub own_rules: Vec<OwnRules>,
}

/// A service of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its ports.
    pub ports: Ports,
}

/// So many in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least one.
    pub count: u32,
    /// The unit of time, as nft calls it.
    pub per: &'static str,
}

/// Hosts of its LANs may open connections to each other and to its ISPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Names of LANs; at least one.
    pub lans: Vec<String>,
    /// Names of ISPs.
    pub isps: Vec<String>,
}

/// Where TCP's segments are made to fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClampMss {
    /// On point-to-point devices, such as those of PPPoE.
    #[default]
    Auto,
    /// On all ISPs' devices.
    On,
    /// Nowhere.
    Off,
}

/// A folder with rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesFolder {
    /// Where it is.
    pub path: PathBuf,
    /// The config names it, so it must be there.
    pub must_exist: bool,
}

/// The rules of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRules {
    /// The file.
    pub path: PathBuf,
    /// What stands in it.
    pub text: String,
}

impl Default for RulesFolder {
    fn default() -> Self {
        Self { path: DEFAULT_RULES.into(), must_exist: false }
    }
}

impl fmt::Display for Rate {
    /// As nft takes it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.count, self.per)
    }
}

const KEYS: &[&str] = &["enabled", "ping", "log", "allow", "rules", "groups", "clamp_mss"];

/// The units of time of a rate.
const UNITS: [&str; 3] = ["second", "minute", "hour"];

/// Ten a second: enough for whoever looks whether we are there.
const DEFAULT_PING: Rate = Rate { count: 10, per: "second" };

/// The table, for these ISPs and LANs.
pub(super) fn firewall(
    top: &Table<'_>,
    isps: &[IspConfig],
    lans: &[LanConfig],
) -> Result<FirewallConfig, Problem> {
    let everybody = Group {
        lans: lans.iter().map(|lan| lan.name.clone()).collect(),
        isps: isps.iter().map(|isp| isp.name.clone()).collect(),
    };
    let default = FirewallConfig {
        ping: Some(DEFAULT_PING),
        log: true,
        groups: vec![everybody.clone()],
        ..FirewallConfig::default()
    };
    let Some(firewall) = top.get("firewall") else { return Ok(default) };
    let table = firewall.table(KEYS)?;
    let clamp_words = [("auto", ClampMss::Auto), ("on", ClampMss::On), ("off", ClampMss::Off)];
    Ok(FirewallConfig {
        enabled: table.flag("enabled", default.enabled)?,
        ping: table.get("ping").map_or(Ok(default.ping), |item| item.text(rate))?,
        log: table.flag("log", default.log)?,
        allow: table.get("allow").map_or(Ok(default.allow), allow)?,
        groups: table.get("groups").map_or(Ok(default.groups), |item| groups(item, &everybody))?,
        clamp_mss: table.choice("clamp_mss", &clamp_words)?,
        rules: table.get("rules").map_or(Ok(default.rules), |item| item.text(folder))?,
        own_rules: Vec::new(),
    })
}

/// The own rules of a firewall that is on: the files `*.nft` of the folder, in the order of their names.
pub(super) fn own_rules(firewall: &FirewallConfig) -> Result<Vec<OwnRules>, ConfigError> {
    let RulesFolder { path: folder, must_exist } = &firewall.rules;
    if !firewall.enabled {
        return Ok(Vec::new());
    }
    let unreadable = |path: &Path, source| ConfigError::Rules { path: path.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => return Ok(Vec::new()),
        entries => entries.map_err(|error| unreadable(folder, error))?,
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(folder, error))?;
    paths.retain(|path| {
        // Editors and shells leave out of sight what begins with a dot; so do we.
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && path.extension().is_some_and(|extension| extension == "nft")
    });
    paths.sort();
    let read = |path: PathBuf| match std::fs::read_to_string(&path) {
        Ok(text) => Ok(OwnRules { path, text }),
        Err(error) => Err(unreadable(&path, error)),
    };
    paths.into_iter().map(read).collect()
}

/// What `"10/second"` and `"off"` say.
fn rate(text: &str) -> Result<Option<Rate>, String> {
    if text == "off" {
        return Ok(None);
    }
    let rate = text.split_once('/').and_then(|(count, unit)| {
        let count = count.parse().ok().filter(|&count: &u32| (1..=1_000_000).contains(&count))?;
        Some(Rate { count, per: UNITS.into_iter().find(|known| *known == unit)? })
    });
    rate.map(Some).ok_or_else(|| {
        format!("ping must be a rate such as \"10/second\" (or {}), or \"off\"", UNITS[1..].join(", "))
    })
}

fn allow(item: Item<'_>) -> Result<Vec<Service>, Problem> {
    let service = |text: &str| {
        let (protocol, ports) = text.split_once('/').ok_or(
            "allow must be protocols and ports such as \"tcp/22\" or \"udp/60000-61000\": this has no `/`",
        )?;
        let protocol = Protocol::parse("what stands before the `/` in allow", protocol)?;
        Ok(Service { protocol, ports: Ports::parse("what stands behind the `/` in allow", ports)? })
    };
    let mut services: Vec<Service> = Vec::new();
    for item in item.list()? {
        let new = item.text(service)?;
        if services.iter().any(|old| old.protocol == new.protocol && old.ports.overlap(new.ports)) {
            return Err(item.problem("allow has this port twice: remove one"));
        }
        services.push(new);
    }
    Ok(services)
}

fn groups(item: Item<'_>, everybody: &Group) -> Result<Vec<Group>, Problem> {
    item.list()?.map(|item| group(item, everybody)).collect()
}

fn group(item: Item<'_>, everybody: &Group) -> Result<Group, Problem> {
    let mut group = Group { lans: Vec::new(), isps: Vec::new() };
    for member in item.list()? {
        let (lans, isps) = member.text(|text| match text {
            ":lan" => Ok((everybody.lans.clone(), Vec::new())),
            ":isp" => Ok((Vec::new(), everybody.isps.clone())),
            name => {
                let find = |names: &[String]| named(name, names.iter().map(String::as_str));
                let (lan, isp) = (find(&everybody.lans), find(&everybody.isps));
                if lan.is_none() && isp.is_none() {
                    return Err(format!(
                        "there is no LAN or ISP {name:?}: name one of this file, or write \":lan\" or \":isp\" for all"
                    ));
                }
                Ok((lan.into_iter().collect(), isp.into_iter().collect()))
            }
        })?;
        group.lans.extend(lans);
        group.isps.extend(isps);
    }
    if group.lans.is_empty() {
        return Err(item.problem("a group needs a LAN: ISPs do not open connections to anybody"));
    }
    Ok(group)
}

fn folder(text: &str) -> Result<RulesFolder, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        return Err(format!("rules must be a folder with its whole path, such as \"{DEFAULT_RULES}\""));
    }
    Ok(RulesFolder { path, must_exist: true })
}
