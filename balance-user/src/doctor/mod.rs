//! What is wrong with this machine, or may come to be: [`Facts`] in, [`Finding`]s out, each with what to do about it. Pure; the
//! command line gathers the facts.

mod kernel;
mod marks;
mod others;
mod routing;
mod settings;
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::config::{Config, RoutingConfig};
use crate::core::network::Network;
use crate::netlink::foreign::{ForeignRoute, ForeignRule};

/// The mark's bits without a config, as in the config.
const DEFAULT_MASK: u32 = 0x3f00;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does not work, or breaks connections.
    Problem,
    /// It may come to be a problem, or something works less well than it could.
    Warning,
    /// Worth knowing.
    Note,
}

/// Something that was found, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: `kernel`, `config`, `daemon`, `isp`, `sysctl`, `conntrack`, `routing`, `mark`, `nft` or `mtu`.
    pub about: &'static str,
    /// What it is.
    pub what: String,
    /// What to do: a command, or the line of a file.
    pub fix: Option<String>,
}

/// What is known of the machine. What could not be found out is empty.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Whether all could be looked at.
    pub is_root: bool,
    /// The config, or what is wrong with it; none if there is no such file.
    pub config: Option<Result<Config, String>>,
    /// The instance balances: its programs and maps are there.
    pub balances: bool,
    /// Its daemon runs.
    pub has_daemon: bool,
    /// The name of its nft table.
    pub nft_table: String,
    /// The gateways that it knows, by the ISPs' names: of IPv4 and of IPv6.
    pub gateways: BTreeMap<String, [bool; 2]>,
    /// Other instances, with the bits of the mark that are theirs.
    pub instances: BTreeMap<String, u32>,
    /// The kernel.
    pub kernel: Kernel,
    /// Settings by their paths below `/proc/sys`.
    pub sysctls: BTreeMap<String, String>,
    /// The names of running programs.
    pub programs: BTreeSet<String>,
    /// What systemd-networkd is told to do with routes and rules of others.
    pub networkd: Networkd,
    /// Rules of others.
    pub rules: Vec<ForeignRule>,
    /// Routes of others in our tables.
    pub routes: Vec<ForeignRoute>,
    /// `nft -j list ruleset`; none if it could not be had.
    pub ruleset: Option<Value>,
    /// Devices, addresses and default routes.
    pub network: Network,
    /// The MTU of devices, by name.
    pub mtus: BTreeMap<String, u32>,
}

/// The kernel.
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// Its release, such as `6.1.0-9-amd64`.
    pub release: String,
    /// The options that it was built with, without `CONFIG_`: `y` or `m`; none if that is not known.
    pub options: Option<BTreeMap<String, char>>,
    /// Its modules are there.
    pub has_modules: bool,
    /// It tells about its types.
    pub has_btf: bool,
    /// cgroup2 is mounted.
    pub has_cgroup2: bool,
    /// The program `nft` is there.
    pub has_nft: bool,
}

/// What systemd-networkd keeps of what it has not made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Networkd {
    /// `ManageForeignRoutes=no`.
    pub spares_routes: bool,
    /// `ManageForeignRoutingPolicyRules=no`.
    pub spares_rules: bool,
}

/// Everything that is worth saying, the worst first.
#[must_use]
pub fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut findings = itself(facts);
    findings.extend(kernel::findings(&facts.kernel));
    findings.extend(routing::findings(facts));
    findings.extend(settings::findings(facts));
    findings.extend(others::findings(facts));
    findings.extend(marks::findings(facts));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// The config, the daemon, and what could not be looked at.
fn itself(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.config {
        Some(Ok(_)) => {}
        Some(Err(error)) => findings.push(problem("config", error.clone(), "balance-user check")),
        None => findings.push(Finding {
            fix: Some("edit /etc/balance/balance.toml; dist/balance.toml is a sample".to_owned()),
            ..note("config", "there is no config, so nothing is known of ISPs and LANs")
        }),
    }
    if facts.balances && !facts.has_daemon {
        let what = "balancing goes on, but no daemon watches the ISPs: a dead one keeps its share";
        findings.push(problem("daemon", what, "systemctl start balance"));
    }
    if !facts.is_root {
        let what = "without root the nft ruleset and what balances now could not be looked at";
        findings.push(Finding { fix: Some("sudo balance-user doctor".to_owned()), ..note("doctor", what) });
    }
    findings
}

impl Facts {
    fn good_config(&self) -> Option<&Config> {
        self.config.as_ref()?.as_ref().ok()
    }

    /// The bits of the mark that are ours.
    fn mask(&self) -> u32 {
        self.good_config().map_or(DEFAULT_MASK, |config| config.mark_mask)
    }

    fn routing(&self) -> RoutingConfig {
        self.good_config().map(|config| config.routing).unwrap_or_default()
    }

    fn sysctl(&self, key: &str) -> Option<i64> {
        self.sysctls.get(key)?.trim().parse().ok()
    }
}

fn finding(
    severity: Severity,
    about: &'static str,
    what: impl Into<String>,
    fix: impl Into<String>,
) -> Finding {
    Finding { severity, about, what: what.into(), fix: Some(fix.into()) }
}

fn problem(about: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Finding {
    finding(Severity::Problem, about, what, fix)
}

fn warning(about: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Finding {
    finding(Severity::Warning, about, what, fix)
}

fn note(about: &'static str, what: impl Into<String>) -> Finding {
    Finding { severity: Severity::Note, about, what: what.into(), fix: None }
}
