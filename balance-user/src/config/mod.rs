//! The configuration: what `/etc/balance/balance.toml` says, checked.
//!
//! [`Config::parse`] goes from text to checked types in one step, so nothing else has to check again. Whatever is
//! wrong becomes a [`ConfigError`] that points at it.

pub(crate) mod announce;
pub(crate) mod check;
pub(crate) mod error;
mod firewall;
mod forward;
mod ipv6;
mod metered;
mod monitor;
mod parse;
mod parse_policy;
pub mod policy;
mod ports;
mod reader;
mod route;
pub mod save;
mod services;
mod target;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use self::policy::{Failback, PolicyConfig, RuleConfig, Weights};

use crate::import;

pub use self::announce::{MailConfig, MailSecurity, MailServer, WebhookConfig};
pub use self::error::{ConfigError, Fault};
pub use self::firewall::{ClampMss, FirewallConfig, Group, OwnRules, Rate, RulesFolder, Service};
pub use self::forward::ForwardConfig;
pub use self::ipv6::Ipv6Mode;
pub use self::metered::{Direction, MeteredConfig, Period, QuotaAction, QuotaConfig, QuotaRule};
pub use self::monitor::{Band, Limits, MonitorConfig, Profile};
pub(crate) use self::parse_policy::{dscp_named, protocols_named};
pub use self::ports::{Ports, Protocol};
pub use self::services::{ControlConfig, MetricsConfig, ReadableBy, WebConfig};
pub use self::target::{Ask, Endpoint, HostName, NameQuery, Page, Target};

/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/balance/balance.toml";

/// The weights an ISP can have, lowest and highest.
pub const WEIGHTS: (u16, u16) = (1, 1000);

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How the ISPs share the flows.
    pub mode: Mode,
    /// What becomes of flows when an ISP is back.
    pub failback: Failback,
    /// What the weights are.
    pub weights: Weights,
    /// How the programs are attached to devices.
    pub attach: Attach,
    /// What forwards the packets of known flows.
    pub acceleration: Acceleration,
    /// How much the fast path remembers, and for how long.
    pub fast_path: FastPathConfig,
    /// The ISPs, in the order of the file; at least one.
    pub isps: Vec<IspConfig>,
    /// The LANs, in the order of the file; none on a standalone host.
    pub lans: Vec<LanConfig>,
    /// The policies: first that of flows which no rule is about.
    pub policies: Vec<PolicyConfig>,
    /// The rules, of which the first one counts that is about a flow.
    pub rules: Vec<RuleConfig>,
    /// The bits of the mark that are ours: adjacent, and enough for the ids of all ISPs.
    pub mark_mask: u32,
    /// Where our routing tables and rules go.
    pub routing: RoutingConfig,
    /// Extra prefixes that are never balanced.
    pub local: Vec<IpNet>,
    /// What is let in from outside, to which hosts.
    pub forwards: Vec<ForwardConfig>,
    /// What is dropped.
    pub firewall: FirewallConfig,
    /// Whether the sockets of this machine itself are given their ISPs one by one.
    pub local_traffic: bool,
    /// TCP connections that have lost their ISP are reset. Then no ISP can have the highest id that the mark has room for.
    pub reset: bool,
    /// Networks behind devices, in the order of the file.
    pub routes: Vec<RouteConfig>,
    /// Scripts of the administrator.
    pub scripts: ScriptsConfig,
    /// Who gets mail when an ISP changes its state.
    pub mail: Option<MailConfig>,
    /// What program is told of it.
    pub webhook: Option<WebhookConfig>,
    /// Who may use the control socket.
    pub control: ControlConfig,
    /// Metrics.
    pub metrics: MetricsConfig,
    /// The web page.
    pub web: WebConfig,
}

impl Config {
    /// Reads and checks a file, and reads the firewall's own rules.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::parse(&error::read(path)?, path)?;
        config.firewall.own_rules = firewall::own_rules(&config.firewall)?;
        Ok(config)
    }

    /// Checks a text, which may also be one for Net::ISP::Balance. The path is only named in errors. Own rules are in other
    /// files, so there are none.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        if import::is_nib(text) {
            let toml = import::to_toml(text, path)?;
            return parse::config(&toml).map_err(|problem| problem.locate(&toml, path));
        }
        parse::config(text).map_err(|problem| problem.locate(text, path))
    }
}

/// The one of these names that a text means; case does not set names apart.
fn named<'a>(text: &str, mut names: impl Iterator<Item = &'a str>) -> Option<String> {
    names.find(|name| name.eq_ignore_ascii_case(text)).map(str::to_owned)
}

/// How the ISPs share the flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// By weight, over all ISPs of the best tier.
    #[default]
    Balanced,
    /// All by the best ISP: the lowest tier, then the highest weight, then the first in the file.
    Failover,
}

/// How the eBPF programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// tcx where the kernel has it (6.6), clsact elsewhere.
    #[default]
    Auto,
    /// tcx links.
    Tcx,
    /// Filters of a clsact qdisc.
    Clsact,
}

/// What forwards the packets of flows that the kernel has already decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acceleration {
    /// XDP on devices where it is safe and works natively, TC on the others.
    #[default]
    Auto,
    /// TC on every device.
    Tc,
    /// XDP on every device whose driver has it natively, TC on the others.
    Xdp,
    /// The kernel, as for the first packets of a flow.
    Off,
}

/// The cache of the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastPathConfig {
    /// For so long a flow is forwarded as the kernel decided it before the kernel is asked again: 100 ms to 1 minute.
    pub lease: Duration,
    /// The most flows of a family that are remembered, a connection being one: 1024 to 8388608.
    pub flows: u32,
}

impl Default for FastPathConfig {
    fn default() -> Self {
        Self { lease: Duration::from_secs(1), flows: 32_768 }
    }
}

/// One ISP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IspConfig {
    /// Its name, such as `CABLE`.
    pub name: String,
    /// Its device, which need not exist yet.
    pub device: String,
    /// Its share of the flows, against the weights of the others: 1 to 1000.
    pub weight: u16,
    /// Lower tiers are used first; a higher one only when no ISP of a lower one is up.
    pub tier: u8,
    /// The IPv4 gateway, if it is not to be found.
    pub gateway_v4: Option<Ipv4Addr>,
    /// The IPv6 gateway, if it is not to be found.
    pub gateway_v6: Option<Ipv6Addr>,
    /// What to ask to see whether it works. Empty: carrier alone decides.
    pub targets: Vec<Target>,
    /// What becomes of the source addresses of its IPv6 flows.
    pub ipv6: Ipv6Mode,
    /// The IPv6 prefix that it has delegated, if it is not to be found.
    pub prefix: Option<Ipv6Net>,
    /// When it counts as down and as up.
    pub monitor: MonitorConfig,
    /// How much it is to carry.
    pub metered: MeteredConfig,
}

/// One LAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanConfig {
    /// Its name.
    pub name: String,
    /// Its device, which need not exist yet.
    pub device: String,
}

/// Scripts of the administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptsConfig {
    /// Above the folders that they are in; an absolute path, which need not exist.
    pub folder: PathBuf,
    /// How long each may take: 100 ms to 1 hour.
    pub timeout: Duration,
}

impl Default for ScriptsConfig {
    fn default() -> Self {
        Self { folder: PathBuf::from("/etc/balance"), timeout: Duration::from_secs(10) }
    }
}

/// A network behind a device: the page of a modem, a VPN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// The network; not everything.
    pub to: IpNet,
    /// The device, which need not exist yet.
    pub device: String,
    /// The router that leads there, if it is not right behind the device. For IPv6 an IPv6 address.
    pub gateway: Option<IpAddr>,
    /// Its hosts see the device's address instead of those of our LANs.
    pub masquerade: bool,
}

/// Where our routing tables and rules go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingConfig {
    /// The table of the balanced default; an ISP's table is this plus its id.
    pub table: u32,
    /// The first of our 1000 rule priorities.
    pub priority: u32,
}

const _: () =
    assert!(RoutingConfig::TABLES as usize == 1 + balance_common::MAX_ISPS as usize, "one table for each id");

impl RoutingConfig {
    /// How many tables we may use: the balanced default, and one for each ISP there can be.
    pub const TABLES: u32 = 64;
    /// How many rule priorities we may use.
    pub const PRIORITIES: u32 = 1000;
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self { table: 1000, priority: 10_000 }
    }
}
