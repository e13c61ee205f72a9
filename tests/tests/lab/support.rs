//! A router set up by hand, as a plain NAT router without the daemon.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use balance_lab::addresses::{INTERNET_V4, SERVER_PORT};
use balance_lab::{Family, Lab, ask_tcp};

pub(crate) const SOON: Duration = Duration::from_secs(2);
pub(crate) const NEVER: Duration = Duration::from_millis(300);

/// A lab whose router forwards and translates: all by CABLE, but 203.0.113.2 by DSL.
pub(crate) fn plain_lab() -> anyhow::Result<Lab> {
    let lab = Lab::new()?;
    route_by_hand(&lab)?;
    Ok(lab)
}

pub(crate) fn route_by_hand(lab: &Lab) -> anyhow::Result<()> {
    let router = lab.router();
    router.sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])?;
    router.ip(&["route add 203.0.113.2 via 100.64.2.1".to_owned()])?;
    let nat = "table inet nat { chain out { type nat hook postrouting priority 100; oifname != lan0 masquerade; }; }";
    router.feed("nft", &["-f", "-"], nat)?;
    Ok(())
}

pub(crate) fn by_cable() -> SocketAddr {
    (INTERNET_V4, SERVER_PORT).into()
}

pub(crate) fn by_dsl() -> SocketAddr {
    ([203, 0, 113, 2], SERVER_PORT).into()
}

pub(crate) fn asks(lab: &Lab, to: SocketAddr, timeout: Duration) -> bool {
    ask_tcp(lab.lan(), to, timeout).is_ok()
}

/// Whether CABLE's own machine answers: it refuses a connection.
pub(crate) fn gateway_lives(lab: &Lab, family: Family) -> bool {
    let cable = lab.isp("CABLE");
    let gateway: IpAddr = match family {
        Family::V4 => cable.gateway_v4().into(),
        Family::V6 => cable.gateway_v6().into(),
    };
    let answer = ask_tcp(lab.router(), SocketAddr::new(gateway, 9), NEVER);
    answer.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}
