//! Making TCP's segments fit the ISPs' devices.

use super::table::quoted;
use crate::config::{ClampMss, Config};
use crate::core::network::Network;

/// The chain, if any device wants it. Hosts behind a line of 1492 bytes, as PPPoE's, believe in 1500; what tells them
/// better (ICMP) is dropped by too many on the way. `rt mtu` is the MTU of the route less the headers, and never makes a
/// segment longer.
///
/// Towards an ISP it is exact. What comes from there, the answer to a SYN, says how much the LAN's host may send; the route
/// that is looked at then is the one back to the sender, by whichever ISP. Where that is too much, this machine
/// tells the host, by ICMP that nobody drops.
pub(super) fn chain(config: &Config, network: &Network) -> String {
    let devices: Vec<String> = config
        .isps
        .iter()
        .map(|isp| isp.device.as_str())
        .filter(|device| match config.firewall.clamp_mss {
            ClampMss::On => true,
            ClampMss::Auto => network.link_named(device).is_some_and(|link| link.point_to_point),
            ClampMss::Off => false,
        })
        .filter_map(quoted)
        .collect();
    if devices.is_empty() {
        return String::new();
    }
    let devices = devices.join(", ");
    format!(
        r#"	chain mss {{
		comment "The largest TCP segments that fit the ISP's device."
		type filter hook forward priority mangle; policy accept;
		oifname {{ {devices} }} tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
		iifname {{ {devices} }} tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
	}}
"#
    )
}
