//! From TOML to policies and rules.

use std::ops::RangeInclusive;
use std::time::Duration;

use balance_common::PolicyId;
use balance_common::layout::{LAN_SELF, MAX_RULES};
use balance_common::packet::protocol;
use ipnet::IpNet;

use super::error::Problem;
use super::policy::{
    Degraded, Failback, LAST_RESORTS, MemberConfig, PolicyConfig, RuleConfig, RuleTarget, STICKY, Weights,
    lan_number,
};
use super::reader::{Item, Table};
use super::{IspConfig, LanConfig, Mode, Ports, WEIGHTS, check};

pub(super) const POLICY_KEYS: &[&str] =
    &["name", "isps", "mode", "sticky", "last_resort", "failback", "failback_idle", "degraded", "weights"];
pub(super) const RULE_KEYS: &[&str] =
    &["source", "destination", "protocol", "source_port", "port", "lan", "dscp", "to"];

/// Where a rule leads that is an exception.
const BYPASS: &str = "bypass";
/// The LAN of a rule that is about this machine itself.
const SELF: &str = "local";

/// What the file calls DSCPs (RFC 2474, 2597, 3246, 8622).
const DSCPS: [(&str, u8); 23] = [
    ("cs0", 0),
    ("le", 1),
    ("cs1", 8),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("cs2", 16),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("cs3", 24),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("cs4", 32),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("cs5", 40),
    ("va", 44),
    ("ef", 46),
    ("cs6", 48),
    ("cs7", 56),
];

/// The policies, that of what no rule is about first, and the rules. `text` is that of the whole file.
pub(super) fn policies_and_rules(
    top: &Table<'_>,
    text: &str,
    isps: &[IspConfig],
    lans: &[LanConfig],
) -> Result<(Vec<PolicyConfig>, Vec<RuleConfig>), Problem> {
    let mut policies = vec![PolicyConfig::default()];
    let mut named = Vec::new();
    for table in top.get("policy").map_or(Ok(Vec::new()), |item| item.tables(POLICY_KEYS))? {
        let policy = policy(&table, isps, lans, &named)?;
        named.push(policy.name.to_ascii_lowercase());
        match policies.first_mut() {
            Some(default) if policy.name == PolicyConfig::DEFAULT => *default = policy,
            _ => policies.push(policy),
        }
        fits(&table, &policies)?;
    }
    let tables = top.get("rule").map_or(Ok(Vec::new()), |item| item.tables(RULE_KEYS))?;
    if let Some(table) = tables.get(MAX_RULES) {
        return Err(
            table.problem(format!("there can be at most {MAX_RULES} rules: merge some, lists save rules"))
        );
    }
    let mut rules = Vec::new();
    for table in &tables {
        let rule = rule(table, isps, lans, &mut policies)?;
        rules.push(RuleConfig { line: table.line_in(text), ..rule });
        fits(table, &policies)?;
    }
    crate::rules::compile(&rules, |_| PolicyId::DEFAULT.get()).map_err(|error| {
        // The last rule is one too many, whichever it is.
        tables.last().map_or_else(|| top.problem(error.to_string()), |table| table.problem(error.to_string()))
    })?;
    Ok((policies, rules))
}

fn fits(table: &Table<'_>, policies: &[PolicyConfig]) -> Result<(), Problem> {
    let most = usize::from(PolicyId::COUNT);
    if policies.len() <= most {
        return Ok(());
    }
    Err(table.problem(format!(
        "there can be at most {most} policies, the default one and ISPs that rules lead to included: remove one"
    )))
}

/// One `[[policy]]`; `named` are the names of those before it, in lower case.
fn policy(
    table: &Table<'_>,
    isps: &[IspConfig],
    lans: &[LanConfig],
    named: &[String],
) -> Result<PolicyConfig, Problem> {
    let name_item = table.need("name", "name = \"VIDEO\" or what you call it")?;
    let name = name_item.text(check::name)?;
    let is = |other: &str| other.eq_ignore_ascii_case(&name);
    if is(BYPASS) || is(SELF) || (is(PolicyConfig::DEFAULT) && name != PolicyConfig::DEFAULT) {
        return Err(name_item.problem(format!("{name} means something else here: take another name")));
    }
    if named.iter().any(|other| is(other))
        || isps.iter().any(|isp| is(&isp.name))
        || lans.iter().any(|lan| is(&lan.name))
    {
        return Err(name_item.problem(format!(
            "the name {name} is taken: give each ISP, LAN and policy its own (case does not count)"
        )));
    }
    let members = match table.get("isps") {
        None => Vec::new(),
        Some(item) => members(item, isps)?,
    };
    let modes = [("balanced", Mode::Balanced), ("failover", Mode::Failover)];
    let degraded = [("use", Degraded::Use), ("reduce", Degraded::Reduce), ("avoid", Degraded::Avoid)];
    Ok(PolicyConfig {
        name,
        mode: table.get("mode").map(|_| table.choice("mode", &modes)).transpose()?,
        members,
        sticky: table.choice("sticky", &STICKY)?,
        last_resort: table.choice("last_resort", &LAST_RESORTS)?,
        failback: failback(table)?,
        degraded: table.choice("degraded", &degraded)?,
        weights: table.get("weights").map(|_| weights(table)).transpose()?,
    })
}

/// What becomes of flows when an ISP is back, if the table says it.
pub(super) fn failback(table: &Table<'_>) -> Result<Option<Failback>, Problem> {
    const DEFAULT_IDLE: Duration = Duration::from_secs(30);
    const IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));
    let idle = Failback::Idle(table.duration("failback_idle", IDLE, DEFAULT_IDLE)?);
    let words = [("keep", Some(Failback::Keep)), ("idle", Some(idle)), ("now", Some(Failback::Now))];
    let failback = table.choice("failback", &words)?;
    match table.get("failback_idle") {
        Some(item) if failback != Some(idle) => Err(item
            .problem("failback_idle says nothing here: write failback = \"idle\" beside it, or remove it")),
        _ => Ok(failback),
    }
}

/// What the weights are, at the top level or of a policy.
pub(super) fn weights(table: &Table<'_>) -> Result<Weights, Problem> {
    table.choice("weights", &[("fixed", Weights::Fixed), ("quality", Weights::Quality)])
}

/// The ISPs of a policy: names, or tables with a name.
fn members(item: Item<'_>, isps: &[IspConfig]) -> Result<Vec<MemberConfig>, Problem> {
    let mut members: Vec<MemberConfig> = Vec::new();
    for item in item.one_or_more()? {
        let (place, weight, tier) = if item.is_table() {
            let table = item.table(&["name", "weight", "tier"])?;
            let weight = table.get("weight").map(|item| item.number(WEIGHTS)).transpose()?;
            let tier = table.get("tier").map(|item| item.number((1, 255))).transpose()?;
            (table.need("name", "the name of an ISP")?, weight, tier)
        } else {
            (item, None, None)
        };
        let member = MemberConfig { isp: isp(place, isps)?, weight, tier };
        if members.iter().any(|other| other.isp == member.isp) {
            return Err(place.problem("isps has this ISP twice: remove one"));
        }
        members.push(member);
    }
    if members.is_empty() {
        return Err(item.problem("isps is empty: name at least one ISP, or remove the key for all of them"));
    }
    Ok(members)
}

/// The ISP of this name, whatever its case.
fn isp(item: Item<'_>, isps: &[IspConfig]) -> Result<String, Problem> {
    item.text(|name| {
        isps.iter()
            .find(|isp| isp.name.eq_ignore_ascii_case(name))
            .map(|isp| isp.name.clone())
            .ok_or_else(|| format!("there is no ISP {name}: there {}", are(isps.iter().map(|isp| &isp.name))))
    })
}

fn are<'a>(names: impl Iterator<Item = &'a String>) -> String {
    match names.map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => "is none".to_owned(),
        [only] => format!("is {only}"),
        all => format!("are {}", all.join(", ")),
    }
}

/// One `[[rule]]`. An ISP that it leads to becomes a policy of its own.
fn rule(
    table: &Table<'_>,
    isps: &[IspConfig],
    lans: &[LanConfig],
    policies: &mut Vec<PolicyConfig>,
) -> Result<RuleConfig, Problem> {
    let source = list(table, "source", |item| item.text(|text| check::network("source", text)))?;
    let destination =
        list(table, "destination", |item| item.text(|text| check::network("destination", text)))?;
    let has = |prefixes: &[IpNet], v4: bool| {
        prefixes.is_empty() || prefixes.iter().any(|prefix| matches!(prefix, IpNet::V4(_)) == v4)
    };
    if ![true, false].into_iter().any(|v4| has(&source, v4) && has(&destination, v4)) {
        return Err(
            table.problem("this rule is about nothing: its source and destination are of different families")
        );
    }
    let source_ports = list(table, "source_port", ports)?;
    let destination_ports = list(table, "port", ports)?;
    let mut protocols: Vec<u8> = list(table, "protocol", protocol_numbers)?.into_iter().flatten().collect();
    if let Some(item) = table.get("port").or_else(|| table.get("source_port")) {
        const WITH_PORTS: [u8; 3] = [protocol::TCP, protocol::UDP, protocol::SCTP];
        if protocols.is_empty() {
            protocols.extend(WITH_PORTS);
        } else if protocols.iter().any(|protocol| !WITH_PORTS.contains(protocol)) {
            return Err(item
                .problem("only tcp, udp and sctp have ports: name no other protocol, or remove the ports"));
        }
    }
    let lans = list(table, "lan", |item| {
        item.text(|name| match lans.iter().position(|lan| lan.name.eq_ignore_ascii_case(name)) {
            Some(place) => Ok(lan_number(place)),
            None if name == SELF => Ok(LAN_SELF),
            None => Err(format!(
                "there is no LAN {name}: there {}; \"{SELF}\" is this machine itself",
                are(lans.iter().map(|lan| &lan.name))
            )),
        })
    })?;
    let dscps = list(table, "dscp", dscp)?;
    let to = table.need("to", "to = \"VIDEO\": a policy, an ISP, or \"bypass\"")?;
    let to = to.text(|name| target(name, isps, policies))?;
    Ok(RuleConfig {
        source,
        destination,
        protocols,
        source_ports,
        destination_ports,
        lans,
        dscps,
        to,
        line: 0,
    })
}

fn target(name: &str, isps: &[IspConfig], policies: &mut Vec<PolicyConfig>) -> Result<RuleTarget, String> {
    if name == BYPASS {
        return Ok(RuleTarget::Bypass);
    }
    if let Some(place) = policies.iter().position(|policy| policy.name.eq_ignore_ascii_case(name)) {
        return Ok(RuleTarget::Policy(place));
    }
    let Some(isp) = isps.iter().find(|isp| isp.name.eq_ignore_ascii_case(name)) else {
        return Err(format!(
            "there is no policy and no ISP {name}: there {}, and \"{BYPASS}\"",
            are(policies.iter().map(|policy| &policy.name).chain(isps.iter().map(|isp| &isp.name)))
        ));
    };
    policies.push(PolicyConfig::of_isp(&isp.name));
    Ok(RuleTarget::Policy(policies.len() - 1))
}

fn list<'a, T>(
    table: &Table<'a>,
    key: &'a str,
    read: impl Fn(Item<'a>) -> Result<T, Problem>,
) -> Result<Vec<T>, Problem> {
    let Some(item) = table.get(key) else { return Ok(Vec::new()) };
    let items = item.one_or_more()?;
    if items.is_empty() {
        return Err(item.problem(format!("{key} is an empty list: remove the key if it does not matter")));
    }
    items.into_iter().map(read).collect()
}

fn ports(item: Item<'_>) -> Result<RangeInclusive<u16>, Problem> {
    Ports::read("port", item).map(|ports| ports.first..=ports.last)
}

/// A protocol by name or number. ICMP is that of both families.
fn protocol_numbers(item: Item<'_>) -> Result<Vec<u8>, Problem> {
    if !item.is_text() {
        return Ok(vec![item.number((0, u8::MAX))?]);
    }
    item.text(|text| {
        protocols_named(text)
            .ok_or_else(|| "protocol must be tcp, udp, sctp, icmp, gre, ipsec, or a number".to_owned())
    })
}

/// The protocols of a name.
pub(crate) fn protocols_named(name: &str) -> Option<Vec<u8>> {
    Some(match name {
        "tcp" => vec![protocol::TCP],
        "udp" => vec![protocol::UDP],
        "sctp" => vec![protocol::SCTP],
        "icmp" => vec![protocol::ICMP, protocol::ICMPV6],
        "gre" => vec![protocol::GRE],
        "ipsec" => vec![protocol::ESP],
        _ => return None,
    })
}

fn dscp(item: Item<'_>) -> Result<u8, Problem> {
    if !item.is_text() {
        return item.number((0, 63));
    }
    item.text(|text| {
        dscp_named(text).ok_or_else(|| {
            "dscp must be a number from 0 to 63, or a name such as \"ef\", \"af41\" or \"cs1\"".to_owned()
        })
    })
}

/// The DSCP of a name.
pub(crate) fn dscp_named(text: &str) -> Option<u8> {
    DSCPS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|&(_, number)| number)
}
