//! The part of the nft table's text that is about IPv6 with several providers: prefix translation, prefixes whose hosts
//! use one ISP, and ISPs without IPv6.
//!
//! Translation is stateful, by conntrack, so checksums and the addresses in ICMP errors are right, and a flow keeps its
//! addresses when prefixes change. That nft can translate a whole prefix needs nft 0.9.5 and Linux 5.8.

use std::fmt::Write as _;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

/// What becomes of the source addresses of IPv6 flows that leave by an ISP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ipv6Nat {
    /// Masqueraded, as in IPv4.
    #[default]
    Masquerade,
    /// IPv6 packets of this ISP's device are left alone.
    Off,
    /// Those of the ISP's own prefix stay, all others are masqueraded.
    Source {
        /// The ISP's prefix.
        own: Ipv6Net,
        /// New flows from it use this ISP, whatever was chosen for them.
        decides: bool,
    },
    /// Those of the ISP's own prefix stay, prefixes are exchanged, all others are masqueraded.
    Npt {
        /// The ISP's prefix.
        own: Ipv6Net,
        /// Prefixes inside, each with the one outside that takes its place. On either side none overlap.
        mapping: Vec<(Ipv6Net, Ipv6Net)>,
    },
}

/// An ISP, as far as it matters here.
pub(super) struct NptIsp<'a> {
    /// Its id.
    pub(super) number: u8,
    /// Its device's name in quotes.
    pub(super) device: &'a str,
    /// What to do.
    pub(super) ipv6: &'a Ipv6Nat,
}

/// The rule for a chain where packets are marked before they are routed, which leads those of prefixes that decide to
/// the ISP's restore chain. To stand after the one for flows that have an ISP: they stay with it. `condition` stands
/// before it. Empty if there is no such prefix.
pub(super) fn steering(isps: &[NptIsp<'_>], condition: &str) -> String {
    let decides = |isp: &NptIsp<'_>| match isp.ipv6 {
        Ipv6Nat::Source { own, decides: true } => Some(format!("{own} : goto restore_{}", isp.number)),
        _ => None,
    };
    let elements: Vec<String> = isps.iter().filter_map(decides).collect();
    if elements.is_empty() {
        return String::new();
    }
    format!("\t\t{condition}ip6 saddr vmap {{ {} }}\n", elements.join(", "))
}

/// What stands first in an ISP's chains.
pub(super) const fn first(ipv6: &Ipv6Nat) -> &'static str {
    match ipv6 {
        Ipv6Nat::Off => "\t\tmeta nfproto ipv6 return\n",
        Ipv6Nat::Masquerade | Ipv6Nat::Source { .. } | Ipv6Nat::Npt { .. } => "",
    }
}

/// What stands before an ISP's `masquerade`.
pub(super) fn leaving(ipv6: &Ipv6Nat) -> String {
    match ipv6 {
        Ipv6Nat::Masquerade | Ipv6Nat::Off => String::new(),
        Ipv6Nat::Source { own, .. } => stay(*own),
        Ipv6Nat::Npt { own, mapping } if mapping.is_empty() => stay(*own),
        Ipv6Nat::Npt { own, mapping } => {
            let map = elements(mapping.iter().copied());
            format!("{}\t\tsnat ip6 prefix to ip6 saddr map {{ {map} }}\n", stay(*own))
        }
    }
}

/// The chains that lead connections from outside to the hosts whose prefixes are translated; empty if there are none.
/// Port forwards that somebody has made at the usual priority come first, and what is for this machine itself stays.
pub(super) fn inbound(isps: &[NptIsp<'_>]) -> String {
    let translated = |isp: &NptIsp<'_>| match isp.ipv6 {
        Ipv6Nat::Npt { mapping, .. } if !mapping.is_empty() => {
            let back = elements(mapping.iter().map(|&(inside, outside)| (outside, inside)));
            Some((format!("{} : goto prefix_{}", isp.device, isp.number), isp.number, back))
        }
        _ => None,
    };
    let translated: Vec<_> = isps.iter().filter_map(translated).collect();
    if translated.is_empty() {
        return String::new();
    }
    let devices: Vec<&str> = translated.iter().map(|(device, ..)| device.as_str()).collect();
    let devices = devices.join(", ");
    let mut text = format!(
        r#"	chain prefixes {{
		comment "New flows from outside to translated prefixes: to the hosts inside."
		type nat hook prerouting priority -99; policy accept;
		iifname vmap {{ {devices} }}
	}}
"#
    );
    for (_, number, back) in &translated {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            r#"	chain prefix_{number} {{
		comment "From ISP {number}: its prefixes become those inside."
		fib daddr type local return
		dnat ip6 prefix to ip6 daddr map {{ {back} }}
	}}
"#
        );
    }
    text
}

fn stay(own: Ipv6Net) -> String {
    format!("\t\tip6 saddr {own} return\n")
}

fn elements(pairs: impl Iterator<Item = (Ipv6Net, Ipv6Net)>) -> String {
    pairs.map(|(from, to)| format!("{from} : {to}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    fn isp(number: u8, ipv6: &Ipv6Nat) -> NptIsp<'_> {
        NptIsp { number, device: "\"eth0\"", ipv6 }
    }

    #[test]
    fn only_prefixes_that_decide_steer() {
        let decides = |decides| Ipv6Nat::Source { own: net("2001:db8:a::/48"), decides };
        let (yes, no) = (decides(true), decides(false));
        assert_eq!(
            steering(&[isp(1, &no), isp(2, &yes), isp(3, &Ipv6Nat::Masquerade)], ""),
            "\t\tip6 saddr vmap { 2001:db8:a::/48 : goto restore_2 }\n"
        );
        assert_eq!(steering(&[isp(1, &no), isp(3, &Ipv6Nat::Off)], ""), "");
    }

    #[test]
    fn translation_out_and_in_are_each_others_reverse() {
        let mapping = vec![(net("fd00:1::/64"), net("2001:db8:a:1::/64"))];
        let npt = Ipv6Nat::Npt { own: net("2001:db8:a::/48"), mapping };
        assert_eq!(
            leaving(&npt),
            "\t\tip6 saddr 2001:db8:a::/48 return\n\
             \t\tsnat ip6 prefix to ip6 saddr map { fd00:1::/64 : 2001:db8:a:1::/64 }\n"
        );
        let inbound = inbound(&[isp(7, &npt)]);
        assert!(inbound.contains("iifname vmap { \"eth0\" : goto prefix_7 }"), "{inbound}");
        assert!(inbound.contains("ip6 daddr map { 2001:db8:a:1::/64 : fd00:1::/64 }"), "{inbound}");
    }

    #[test]
    fn with_nothing_to_translate_nothing_is_said_that_nft_would_not_take() {
        let npt = Ipv6Nat::Npt { own: net("2001:db8:a::/64"), mapping: Vec::new() };
        assert_eq!(leaving(&npt), "\t\tip6 saddr 2001:db8:a::/64 return\n");
        assert_eq!(inbound(&[isp(1, &npt), isp(2, &Ipv6Nat::Masquerade)]), "");
    }
}
