//! From TOML to a checked [`Config`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use balance_common::{Family, MAX_ISPS};
use ipnet::IpNet;
use toml::de::DeTable;

use super::error::Problem;
use super::parse_policy::{failback, policies_and_rules, weights};
use super::policy::{LastResort, PolicyConfig};
use super::reader::{Item, Table, syntax};
use super::{
    Acceleration, Attach, Config, FastPathConfig, IspConfig, LanConfig, Mode, MonitorConfig, RoutingConfig,
    ScriptsConfig, Target, WEIGHTS, announce, check, firewall, forward, ipv6, metered, monitor, route,
    services,
};

const TOP_KEYS: &[&str] = &[
    "mode",
    "attach",
    "acceleration",
    "reset",
    "failback",
    "failback_idle",
    "local",
    "local_traffic",
    "weights",
    "isp",
    "lan",
    "policy",
    "rule",
    "forward",
    "firewall",
    "route",
    "monitor",
    "fast_path",
    "mark",
    "routing",
    "scripts",
    "mail",
    "webhook",
    "control",
    "metrics",
    "web",
];
const ISP_KEYS: &[&str] = &[
    "name",
    "device",
    "weight",
    "tier",
    "gateway",
    "targets",
    "ipv6",
    "prefix",
    "monitor",
    "quota",
    "quota_period",
    "quota_reset_day",
    "quota_direction",
    "quota_warn",
    "quota_action",
    "spill_over",
    "spill_back",
];
const LAN_KEYS: &[&str] = &["name", "device"];
/// What is pinged unless the config says otherwise: two operators, both families.
const DEFAULT_TARGETS: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111)),
    IpAddr::V6(Ipv6Addr::new(0x2620, 0xfe, 0, 0, 0, 0, 0, 9)),
];

/// Six bits, for 63 ISPs, away from the lowest ones, which others like to use.
const DEFAULT_MARK_MASK: u32 = 0x3f00;

const SHORTEST_LEASE: Duration = Duration::from_millis(100);
const SHORTEST_SCRIPT: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// The configuration that a text describes.
pub(super) fn config(text: &str) -> Result<Config, Problem> {
    let document = DeTable::parse(text).map_err(|error| syntax(&error))?;
    let top = Table::new("the top level", TOP_KEYS, document.get_ref(), 0..0)?;
    let mode = top.choice("mode", &[("balanced", Mode::Balanced), ("failover", Mode::Failover)])?;
    let failback = failback(&top)?.unwrap_or_default();
    let weights = weights(&top)?;
    let attach =
        top.choice("attach", &[("auto", Attach::Auto), ("tcx", Attach::Tcx), ("clsact", Attach::Clsact)])?;
    let accelerations = [
        ("auto", Acceleration::Auto),
        ("tc", Acceleration::Tc),
        ("xdp", Acceleration::Xdp),
        ("off", Acceleration::Off),
    ];
    let acceleration = top.choice("acceleration", &accelerations)?;
    let local = top.get("local").map_or(Ok(Vec::new()), local)?;
    let local_traffic = top.flag("local_traffic", true)?;
    let monitor_table = top.get("monitor").map(|item| item.table(monitor::KEYS)).transpose()?;
    let monitor = MonitorConfig::default().merged(monitor_table.as_ref())?;
    let mut taken = Taken::default();

    let isp_tables = top.get("isp").map_or(Ok(Vec::new()), |item| item.tables(ISP_KEYS))?;
    if isp_tables.is_empty() {
        return Err(top.problem("there is no ISP: add an [[isp]] with a name and a device"));
    }
    if let Some(table) = isp_tables.get(usize::from(MAX_ISPS)) {
        return Err(table.problem(format!("there can be at most {MAX_ISPS} ISPs: remove this one")));
    }
    let general_quorum = monitor_table.as_ref().and_then(|table| table.get("quorum"));
    let isps = isp_tables
        .iter()
        .map(|table| isp(table, &monitor, general_quorum, &mut taken))
        .collect::<Result<Vec<_>, _>>()?;
    ipv6::check_overlaps(&isp_tables, &isps)?;

    let lan_tables = top.get("lan").map_or(Ok(Vec::new()), |item| item.tables(LAN_KEYS))?;
    let lans = lan_tables.iter().map(|table| lan(table, &mut taken)).collect::<Result<Vec<_>, _>>()?;

    let (policies, rules) = policies_and_rules(&top, text, &isps, &lans)?;
    let mark_mask = mark_mask(&top, isps.len())?;
    refusals(&top, &policies, mark_mask, isps.len())?;
    let reset = reset(&top, mark_mask, isps.len())?;
    let (fast_path, routing, routes) = (fast_path(&top)?, routing(&top)?, route::routes(&top)?);
    let forwards = forward::forwards(&top, &isps)?;
    let firewall = firewall::firewall(&top, &isps, &lans)?;
    let scripts = scripts(&top)?;
    let (mail, webhook) = (announce::mail(&top)?, announce::webhook(&top)?);
    let (control, metrics) = (services::control(&top)?, services::metrics(&top)?);
    let web = services::web(&top, &metrics)?;
    Ok(Config {
        mode,
        failback,
        weights,
        attach,
        acceleration,
        fast_path,
        isps,
        lans,
        policies,
        rules,
        mark_mask,
        routing,
        local,
        forwards,
        firewall,
        local_traffic,
        reset,
        routes,
        scripts,
        mail,
        webhook,
        control,
        metrics,
        web,
    })
}

/// The names and devices that are taken.
#[derive(Default)]
struct Taken {
    /// In lower case, as case does not set names apart.
    names: BTreeSet<String>,
    /// With what has them.
    devices: BTreeMap<String, String>,
}

impl Taken {
    /// The name and the device of an ISP or a LAN (`kind`), which nothing else may have.
    fn take(&mut self, kind: &str, table: &Table<'_>) -> Result<(String, String), Problem> {
        let name_item = table.need("name", "name = \"CABLE\" or what you call it")?;
        let name = name_item.text(check::name)?;
        if !self.names.insert(name.to_ascii_lowercase()) {
            let message =
                format!("the name {name} is taken: give each ISP and LAN its own (case does not count)");
            return Err(name_item.problem(message));
        }
        let device_item = table.need("device", "device = \"eth0\" or what `ip link` calls it")?;
        let device = device_item.text(check::device)?;
        if let Some(owner) = self.devices.insert(device.clone(), format!("{kind} {name}")) {
            let message = format!("the device {device} belongs to {owner}: give each ISP and LAN its own");
            return Err(device_item.problem(message));
        }
        Ok((name, device))
    }
}

/// One `[[isp]]`; `general_quorum` is what `[monitor]` says.
fn isp(
    table: &Table<'_>,
    monitor: &MonitorConfig,
    general_quorum: Option<Item<'_>>,
    taken: &mut Taken,
) -> Result<IspConfig, Problem> {
    let (name, device) = taken.take("ISP", table)?;
    let weight = table.number("weight", WEIGHTS, 1)?;
    let tier = table.number("tier", (1, 255), 1)?;
    let (gateway_v4, gateway_v6) = table.get("gateway").map_or(Ok((None, None)), gateways)?;
    let targets_item = table.get("targets");
    let targets = targets_item.map_or(Ok(DEFAULT_TARGETS.map(Target::from).to_vec()), targets)?;
    let (ipv6, prefix) = ipv6::read(table, targets_item.map(|item| (item, targets.as_slice())))?;
    let own = table.get("monitor").map(|item| item.table(monitor::KEYS)).transpose()?;
    let monitor = monitor.clone().merged(own.as_ref())?;
    let metered = metered::read(table)?;

    // A quorum beyond one needs somebody to have asked for it; the one closest to this ISP is to blame.
    let own_quorum = own.as_ref().and_then(|own| own.get("quorum"));
    if let Some(message) = unreachable_quorum(&name, monitor.quorum, &targets)
        && let Some(culprit) = own_quorum.or(targets_item).or(general_quorum)
    {
        return Err(culprit.problem(message));
    }
    Ok(IspConfig {
        name,
        device,
        weight,
        tier,
        gateway_v4,
        gateway_v6,
        targets,
        ipv6,
        prefix,
        monitor,
        metered,
    })
}

/// One `[[lan]]`.
fn lan(table: &Table<'_>, taken: &mut Taken) -> Result<LanConfig, Problem> {
    let (name, device) = taken.take("LAN", table)?;
    Ok(LanConfig { name, device })
}

/// The gateways: at most one of each family.
fn gateways(item: Item<'_>) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), Problem> {
    let (mut v4, mut v6) = (None, None);
    for item in item.one_or_more()? {
        let twice = match item.text(|text| check::host("gateway", text))? {
            IpAddr::V4(address) => v4.replace(address).is_some(),
            IpAddr::V6(address) => v6.replace(address).is_some(),
        };
        if twice {
            return Err(item.problem("gateway can be one IPv4 and one IPv6 address: remove this one"));
        }
    }
    if v4.is_none() && v6.is_none() {
        return Err(item.problem("gateway has no address: add one, or remove the key to have it found"));
    }
    Ok((v4, v6))
}

/// What to ask.
fn targets(item: Item<'_>) -> Result<Vec<Target>, Problem> {
    let mut targets: Vec<Target> = Vec::new();
    for item in item.list()? {
        let target = Target::read(&item)?;
        if targets.iter().any(|other| other.ask() == target.ask()) {
            return Err(item.problem("targets has this twice: remove one"));
        }
        targets.push(target);
    }
    Ok(targets)
}

/// The prefixes that are not balanced.
fn local(item: Item<'_>) -> Result<Vec<IpNet>, Problem> {
    item.list()?.map(|item| item.text(|text| check::prefix("local", text))).collect()
}

/// Why so many targets can never answer, if so: each family is probed and counted by itself.
fn unreachable_quorum(isp: &str, quorum: usize, targets: &[Target]) -> Option<String> {
    let weight = |family| targets.iter().filter(|target| target.is_for(family)).map(Target::weight).sum();
    let weights = [("IPv4", weight(Family::V4)), ("IPv6", weight(Family::V6))];
    weights.into_iter().find(|&(_, n): &(_, usize)| n > 0 && n < quorum).map(|(family, n)| {
        format!(
            "the quorum of {isp} is {quorum} but its {family} targets are only {n}: lower it or add targets"
        )
    })
}

/// The bits of the mark that are ours.
fn mark_mask(top: &Table<'_>, isps: usize) -> Result<u32, Problem> {
    let Some(mark) = top.get("mark") else { return Ok(DEFAULT_MARK_MASK) };
    let Some(item) = mark.table(&["mask"])?.get("mask") else { return Ok(DEFAULT_MARK_MASK) };
    check::mark_mask(item.number((0, u32::MAX))?, isps).map_err(|message| item.problem(message))
}

/// Whether connections that have lost their ISP are reset. They need a value of the mark that no ISP has; where there is
/// none they are not, unless the file says that they must.
fn reset(top: &Table<'_>, mask: u32, isps: usize) -> Result<bool, Problem> {
    let has_room = check::has_room(mask, isps + 1);
    let Some(item) = top.get("reset") else { return Ok(has_room) };
    let wanted = item.flag()?;
    if wanted && !has_room {
        let message =
            "reset needs a value of the mark that no ISP has: give [mark] mask one more bit, or write false";
        return Err(item.problem(message));
    }
    Ok(wanted)
}

/// What no ISP can take and is refused has marks that no ISP has.
fn refusals(top: &Table<'_>, policies: &[PolicyConfig], mask: u32, isps: usize) -> Result<(), Problem> {
    let are_refusing = policies.iter().any(|policy| policy.last_resort != LastResort::Main);
    let has_room = check::has_room(mask, isps + 3) && isps + 3 <= usize::from(MAX_ISPS);
    match top.get("policy").filter(|_| are_refusing && !has_room) {
        None => Ok(()),
        Some(item) => Err(item.problem(
            "last_resort needs three values of the mark that no ISP has: give [mark] mask more bits, or write \"main\"",
        )),
    }
}

/// The cache of the fast path.
fn fast_path(top: &Table<'_>) -> Result<FastPathConfig, Problem> {
    let default = FastPathConfig::default();
    let Some(fast_path) = top.get("fast_path") else { return Ok(default) };
    let fast_path = fast_path.table(&["lease", "flows"])?;
    Ok(FastPathConfig {
        lease: fast_path.duration("lease", (SHORTEST_LEASE, MINUTE), default.lease)?,
        flows: fast_path.number("flows", (1024, 8_388_608), default.flows)?,
    })
}

/// Scripts of the administrator.
fn scripts(top: &Table<'_>) -> Result<ScriptsConfig, Problem> {
    let default = ScriptsConfig::default();
    let Some(scripts) = top.get("scripts") else { return Ok(default) };
    let scripts = scripts.table(&["folder", "timeout"])?;
    Ok(ScriptsConfig {
        folder: scripts.get("folder").map_or(Ok(default.folder), |item| item.text(check::folder))?,
        timeout: scripts.duration("timeout", (SHORTEST_SCRIPT, HOUR), default.timeout)?,
    })
}

/// Where our routing tables and rules go.
fn routing(top: &Table<'_>) -> Result<RoutingConfig, Problem> {
    let default = RoutingConfig::default();
    let Some(routing) = top.get("routing") else { return Ok(default) };
    let routing = routing.table(&["table", "priority"])?;
    let table = match routing.get("table") {
        None => default.table,
        Some(item) => check::table(item.number((0, u32::MAX))?, RoutingConfig::TABLES)
            .map_err(|message| item.problem(message))?,
    };
    Ok(RoutingConfig { table, priority: routing.number("priority", (1, 31_000), default.priority)? })
}
