//! `[[forward]]`: what is let in from outside to a host.

use std::net::IpAddr;

use super::check;
use super::error::Problem;
use super::ports::{Ports, Protocol};
use super::reader::{Item, Table};
use super::{IspConfig, named};

/// Ports of the ISPs' addresses that lead to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardConfig {
    /// The ports outside; at least one.
    pub ports: Vec<Ports>,
    /// TCP, UDP or both.
    pub protocols: Vec<Protocol>,
    /// The host, in whose family they are forwarded.
    pub to: IpAddr,
    /// The port of the host; none: the same as outside.
    pub to_port: Option<u16>,
    /// The names of the ISPs; at least one.
    pub isps: Vec<String>,
    /// LAN hosts get there by these ISPs' addresses of this machine, too.
    pub hairpin: bool,
}

const KEYS: &[&str] = &["port", "protocol", "to", "to_port", "isps", "hairpin"];

/// All of them. No two may want the same port.
pub(super) fn forwards(top: &Table<'_>, isps: &[IspConfig]) -> Result<Vec<ForwardConfig>, Problem> {
    let tables = top.get("forward").map_or(Ok(Vec::new()), |item| item.tables(KEYS))?;
    let mut forwards: Vec<ForwardConfig> = Vec::new();
    for table in &tables {
        let port = table.need("port", "port = 443")?;
        let forward = forward(table, port, isps)?;
        if let Some(message) = forwards.iter().find_map(|earlier| conflict(earlier, &forward)) {
            return Err(port.problem(message));
        }
        forwards.push(forward);
    }
    Ok(forwards)
}

fn forward(table: &Table<'_>, port: Item<'_>, isps: &[IspConfig]) -> Result<ForwardConfig, Problem> {
    let mut ports: Vec<Ports> = Vec::new();
    for item in port.one_or_more()? {
        let range = Ports::read("port", item)?;
        if ports.iter().any(|earlier| earlier.overlap(range)) {
            return Err(item.problem("port has this one twice: remove one"));
        }
        ports.push(range);
    }
    if ports.is_empty() {
        return Err(port.problem("port has no port: add one, such as 443"));
    }
    let to = table.need("to", "to = \"192.168.1.10\" or the host's address")?;
    let to = to.text(|text| check::host("to", text))?;
    let to_port = table.get("to_port").map(|item| item.number((1, u16::MAX))).transpose()?;
    let isps = match table.get("isps") {
        None => isps.iter().map(|isp| isp.name.clone()).collect(),
        Some(item) => some_isps(item, isps)?,
    };
    let hairpin = table.flag("hairpin", true)?;
    Ok(ForwardConfig { ports, protocols: protocols(table)?, to, to_port, isps, hairpin })
}

fn protocols(table: &Table<'_>) -> Result<Vec<Protocol>, Problem> {
    let Some(item) = table.get("protocol") else { return Ok(vec![Protocol::Tcp]) };
    let mut protocols = Vec::new();
    for item in item.one_or_more()? {
        let protocol = item.text(|text| Protocol::parse("protocol", text))?;
        if protocols.contains(&protocol) {
            return Err(item.problem("protocol has this one twice: remove one"));
        }
        protocols.push(protocol);
    }
    if protocols.is_empty() {
        return Err(item.problem("protocol has none: add \"tcp\" or \"udp\", or remove the key for \"tcp\""));
    }
    Ok(protocols)
}

fn some_isps(item: Item<'_>, isps: &[IspConfig]) -> Result<Vec<String>, Problem> {
    let mut names = Vec::new();
    for item in item.one_or_more()? {
        let name = item.text(|text| {
            named(text, isps.iter().map(|isp| isp.name.as_str()))
                .ok_or_else(|| format!("there is no ISP {text:?}: name an [[isp]] of this file"))
        })?;
        if names.contains(&name) {
            return Err(item.problem(format!("isps has {name} twice: remove one")));
        }
        names.push(name);
    }
    if names.is_empty() {
        return Err(item.problem("isps has none: add one, or remove the key for all"));
    }
    Ok(names)
}

/// Why the later one could never have a port of its own, if so.
fn conflict(earlier: &ForwardConfig, later: &ForwardConfig) -> Option<String> {
    let isp = later.isps.iter().find(|isp| earlier.isps.contains(isp))?;
    let protocol = later.protocols.iter().find(|protocol| earlier.protocols.contains(protocol))?;
    let ports = later.ports.iter().find(|ports| earlier.ports.iter().any(|other| other.overlap(**ports)))?;
    (earlier.to.is_ipv4() == later.to.is_ipv4()).then(|| {
        format!("{protocol} port {ports} of {isp} is forwarded to {} already: change one of them", earlier.to)
    })
}
