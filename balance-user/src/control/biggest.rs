//! The flows that have carried most, for whoever wants to see who fills the lines.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use balance_common::layout::IspEntry;
use balance_common::{IspId, MarkMask};
use serde::Serialize;

use crate::conntrack::{ConntrackError, Live, each};
use crate::core::protocol_name;

/// The most that are told.
pub(super) const MOST: usize = 100;

/// What `GET /v1/flows` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Biggest {
    /// How many flows the ISPs have in all.
    pub(super) total: u64,
    /// Whether conntrack counts their bytes: without that they are in no order.
    pub(super) counted: bool,
    /// Those that have carried most, in both directions; what went the fast path is not counted.
    pub(super) flows: Vec<BigFlow>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct BigFlow {
    isp: String,
    protocol: String,
    from: String,
    to: String,
    bytes: Option<u64>,
}

impl Biggest {
    /// The same with so many flows at most.
    pub(super) fn first(&self, number: usize) -> Self {
        Self { flows: self.flows.iter().take(number).cloned().collect(), ..*self }
    }
}

/// Looks for them among all. Memory does not grow with their number.
pub(super) fn biggest(mask: u32, isps: &BTreeMap<IspId, IspEntry>) -> Result<Biggest, ConntrackError> {
    let mut found = Biggest::default();
    let Some(mask) = MarkMask::new(mask) else { return Ok(found) };
    let mut best: Vec<(Option<u64>, Live, &IspEntry)> = Vec::new();
    each::<ConntrackError>(None, |live| {
        let Some(isp) = mask.isp(live.mark).and_then(|isp| isps.get(&isp)) else { return Ok(()) };
        let bytes =
            live.counted.map(|ways| ways.iter().fold(0, |sum: u64, way| sum.saturating_add(way.bytes)));
        found.total += 1;
        found.counted |= bytes.is_some();
        best.push((bytes, live.clone(), isp));
        if best.len() >= 16 * MOST {
            cut(&mut best);
        }
        Ok(())
    })?;
    cut(&mut best);
    found.flows = best.iter().map(|(bytes, live, isp)| told(*bytes, live, isp)).collect();
    Ok(found)
}

fn cut(best: &mut Vec<(Option<u64>, Live, &IspEntry)>) {
    best.sort_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
    best.truncate(MOST);
}

fn told(bytes: Option<u64>, live: &Live, isp: &IspEntry) -> BigFlow {
    let (from, to) = live.original.ports.unzip();
    BigFlow {
        isp: isp.name(),
        protocol: protocol_name(live.protocol),
        from: end(live.original.source, from),
        to: end(live.original.destination, to),
        bytes,
    }
}

fn end(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_have_ports_where_there_are_any() {
        let told = |address: &str, port| end(address.parse().unwrap(), port);
        assert_eq!(told("192.0.2.1", Some(443)), "192.0.2.1:443");
        assert_eq!(told("2001:db8::1", Some(443)), "[2001:db8::1]:443");
        assert_eq!(told("2001:db8::1", None), "2001:db8::1");
    }
}
