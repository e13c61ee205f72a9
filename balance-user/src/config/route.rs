//! Reading `[[route]]`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::error::Problem;
use super::reader::Table;
use super::{RouteConfig, check};

const KEYS: &[&str] = &["to", "device", "gateway", "masquerade"];

/// All networks behind devices.
pub(super) fn routes(top: &Table<'_>) -> Result<Vec<RouteConfig>, Problem> {
    let tables = top.get("route").map_or(Ok(Vec::new()), |item| item.tables(KEYS))?;
    let mut taken = BTreeSet::new();
    let mut routes = Vec::new();
    for table in &tables {
        let route = route(table)?;
        if !taken.insert(route.to) {
            return Err(table.problem(format!("there is a route to {} already: remove one", route.to)));
        }
        routes.push(route);
    }
    Ok(routes)
}

fn route(table: &Table<'_>) -> Result<RouteConfig, Problem> {
    let to = table.need("to", "to = \"192.168.100.0/24\" or where it leads")?;
    let to = to.text(|text| check::prefix("to", text))?;
    let device = table.need("device", "device = \"eth0\" or what `ip link` calls it")?;
    let device = device.text(check::device)?;
    let gateway_item = table.get("gateway");
    let gateway = gateway_item.map(|item| item.text(|text| check::host("gateway", text))).transpose()?;
    if let (Some(item), Some(IpAddr::V4(_)), true) = (gateway_item, gateway, to.addr().is_ipv6()) {
        return Err(item.problem("gateway must be an IPv6 address, as the route is for IPv6"));
    }
    let masquerade = table.flag("masquerade", false)?;
    Ok(RouteConfig { to, device, gateway, masquerade })
}
