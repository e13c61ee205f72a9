//! The chain that masquerades what goes to networks behind devices.

use std::fmt::Write as _;

use crate::config::RouteConfig;

use super::table::quoted;

/// What is to be added to the nft table so that hosts behind these devices, which know nothing of our LANs, see the
/// device's address. Nothing if none of the routes wants it.
///
/// It comes before the chain of the ISPs, so that what goes to a modem does not belong to the ISP behind the modem.
#[must_use]
pub fn chain(routes: &[RouteConfig]) -> String {
    let mut rules = String::new();
    for route in routes.iter().filter(|route| route.masquerade) {
        let Some(device) = quoted(&route.device) else { continue };
        let family = if route.to.addr().is_ipv4() { "ip" } else { "ip6" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            rules,
            "\t\toifname {device} {family} daddr {} fib saddr . oif type != local masquerade",
            route.to
        );
    }
    if rules.is_empty() {
        return rules;
    }
    format!(
        r#"	chain networks {{
		comment "To networks behind devices: the device's own addresses stay, all else is masqueraded."
		type nat hook postrouting priority 98; policy accept;
{rules}	}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_asks_for_it_is_masqueraded() {
        let route = |to: &str, masquerade| RouteConfig {
            to: to.parse().unwrap(),
            device: "eth0".to_owned(),
            gateway: None,
            masquerade,
        };
        assert_eq!(chain(&[]), "");
        assert_eq!(chain(&[route("10.0.0.0/8", false)]), "");
        let text =
            chain(&[route("10.0.0.0/8", false), route("192.168.100.0/24", true), route("fd09::/64", true)]);
        assert!(!text.contains("10.0.0.0"), "{text}");
        assert!(text.contains("oifname \"eth0\" ip daddr 192.168.100.0/24 fib"), "{text}");
        assert!(text.contains("oifname \"eth0\" ip6 daddr fd09::/64 fib"), "{text}");
    }
}
