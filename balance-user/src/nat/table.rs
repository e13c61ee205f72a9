//! The text of the nft table.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use balance_common::IspId;

use super::npt::{self, Ipv6Nat, NptIsp};
use crate::config::Config;
use crate::conntrack::IspMark;
use crate::core::plan::NftTable;

/// What the nft table needs to know of an ISP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatIsp {
    /// Its id, which becomes its mark.
    pub id: IspId,
    /// The name of its device, which need not exist.
    pub device: String,
    /// What becomes of the source addresses of its IPv6 flows.
    pub ipv6: Ipv6Nat,
}

/// The nft table: ties every flow to the ISP it uses by the conntrack mark, and masquerades what leaves by an ISP.
///
/// Base chains find the ISP in a verdict map, so a packet costs the same with 2 ISPs as with 63. Only constants
/// are combined with marks: combining two registers needs a kernel newer than the oldest we run on.
/// What this machine sends has the mark of its socket. One with bits of others is kept, the socket means it: a VPN's may have
/// bits in our mask by chance (51820, that of wg-quick, has). One that names only an ISP may be what the socket was given when it
/// was made, so that of the flow beats it, as for any packet; a probe's flow has the same.
/// Nothing checks for invalid or untracked packets, because without a conntrack entry no `ct` expression matches.
///
/// ISPs whose mark does not fit the mask, or whose device has a name that cannot exist or that nft cannot quote,
/// are left out; the configuration refuses both. Without ISPs the table is empty.
#[must_use]
pub fn nft_table(name: &str, mark_mask: u32, isps: &[NatIsp]) -> NftTable {
    let isps: Vec<Isp<'_>> = isps
        .iter()
        .filter_map(|isp| {
            let mark = IspMark::new(isp.id, mark_mask)?;
            Some(Isp {
                number: isp.id.get(),
                value: mark.value(),
                device: quoted(&isp.device)?,
                ipv6: &isp.ipv6,
            })
        })
        .collect();
    let body = if isps.is_empty() { String::new() } else { body(mark_mask, &isps) };
    NftTable { name: name.to_owned(), body }
}

struct Isp<'a> {
    number: u8,
    /// Its id inside the mask.
    value: u32,
    /// The device's name as nft takes it, in quotes.
    device: String,
    ipv6: &'a Ipv6Nat,
}

fn body(mask: u32, isps: &[Isp<'_>]) -> String {
    let devices = |chain: &str| elements(isps, |isp| format!("{} : goto {chain}_{}", isp.device, isp.number));
    let from = devices("from");
    let to = devices("to");
    let marks = elements(isps, |isp| format!("{:#x} : goto restore_{}", isp.value, isp.number));
    let npt: Vec<NptIsp<'_>> =
        isps.iter().map(|isp| NptIsp { number: isp.number, device: &isp.device, ipv6: isp.ipv6 }).collect();
    let steering = npt::steering(&npt, "");
    let steering_own = npt::steering(&npt, &format!("meta mark & {mask:#x} == 0 "));
    let others = !mask;
    let mut text = format!(
        r#"	chain prerouting {{
		comment "From an ISP: tie the flow to it. From elsewhere: mark the packet with the ISP of its flow."
		type filter hook prerouting priority mangle; policy accept;
		iifname vmap {{ {from} }}
		ct mark & {mask:#x} vmap {{ {marks} }}
{steering}	}}
	chain output {{
		comment "Of this machine itself: packets of a flow that has an ISP are routed there, replies above all."
		type route hook output priority mangle; policy accept;
		meta mark & {mask:#x} == 0 ct mark & {mask:#x} vmap {{ {marks} }}
		meta l4proto {{ tcp, udp }} meta mark & {others:#x} == 0 ct mark & {mask:#x} vmap {{ {marks} }}
{steering_own}	}}
	chain postrouting {{
		comment "New flows that leave by an ISP: tie them to it and masquerade them."
		type nat hook postrouting priority 99; policy accept;
		oifname vmap {{ {to} }}
	}}
"#
    );
    for isp in isps {
        chains_of(isp, mask, &mut text);
    }
    text.push_str(&npt::inbound(&npt));
    text
}

/// The three chains of one ISP.
fn chains_of(Isp { number, value, device: _, ipv6 }: &Isp<'_>, mask: u32, text: &mut String) {
    let others = !mask;
    let (first, leaving) = (npt::first(ipv6), npt::leaving(ipv6));
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        r#"	chain from_{number} {{
		comment "From ISP {number}: a flow that has no ISP yet is this one's, so replies go back the way it came."
{first}		ct mark & {mask:#x} == 0 ct mark set ct mark & {others:#x} | {value:#x}
	}}
	chain restore_{number} {{
		comment "Packets of a flow of ISP {number}: the conntrack mark beats whatever mark they carry."
		meta mark set meta mark & {others:#x} | {value:#x}
	}}
	chain to_{number} {{
		comment "New flows to ISP {number}: the device's own addresses stay, all else is masqueraded."
{first}		ct mark set ct mark & {others:#x} | {value:#x}
		fib saddr . oif type local return
{leaving}		masquerade
	}}
"#
    );
}

/// These, as nft takes what stands between braces.
pub(super) fn elements<T>(items: &[T], element: impl FnMut(&T) -> String) -> String {
    items.iter().map(element).collect::<Vec<_>>().join(", ")
}

/// The devices of the ISPs and LANs of these names, in quotes.
pub(super) fn devices_named<'a>(config: &Config, names: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let names: BTreeSet<&String> = names.into_iter().collect();
    let isps = config.isps.iter().map(|isp| (&isp.name, &isp.device));
    let all = isps.chain(config.lans.iter().map(|lan| (&lan.name, &lan.device)));
    all.filter(|(name, _)| names.contains(name)).filter_map(|(_, device)| quoted(device)).collect()
}

/// The device's name in quotes, if it is one that the kernel would accept and nft can quote. A `*` at the end
/// would be a wildcard.
pub(super) fn quoted(device: &str) -> Option<String> {
    const IFNAMSIZ: usize = 16;
    let refused = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '"' | '\\');
    if device.is_empty() || device.len() >= IFNAMSIZ || device.contains(refused) {
        return None;
    }
    Some(match device.strip_suffix('*') {
        Some(start) => format!("\"{start}\\*\""),
        None => format!("\"{device}\""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn isp(number: u8, device: &str) -> NatIsp {
        NatIsp { id: IspId::new(number).unwrap(), device: device.to_owned(), ipv6: Ipv6Nat::default() }
    }

    #[test]
    fn marks_are_ids_shifted_into_the_mask_and_foreign_bits_are_kept() {
        let body = nft_table("balance", 0x3f00, &[isp(1, "eth0"), isp(63, "ppp0")]).body;
        assert!(body.contains(r#"iifname vmap { "eth0" : goto from_1, "ppp0" : goto from_63 }"#), "{body}");
        assert!(body.contains("ct mark & 0x3f00 vmap { 0x100 : goto restore_1, 0x3f00 : goto restore_63 }"));
        assert!(body.contains("meta mark set meta mark & 0xffffc0ff | 0x3f00"), "{body}");
    }

    #[test]
    fn without_isps_the_table_is_empty() {
        assert_eq!(nft_table("balance", 0x3f00, &[]).body, "");
        assert_eq!(nft_table("balance", 0, &[isp(1, "eth0")]).body, "");
    }

    #[test]
    fn no_device_name_can_break_out_of_its_quotes() {
        for name in ["", "a\"b", "a b", "a\nb", "a/b", "a\\b", "sixteen-letters-"] {
            assert_eq!(quoted(name), None, "{name:?}");
        }
        assert_eq!(quoted("eth0.5").as_deref(), Some("\"eth0.5\""));
        assert_eq!(quoted("eth*").as_deref(), Some("\"eth\\*\""));
    }

    #[test]
    fn comments_fit_what_nft_accepts() {
        const LONGEST: usize = 127;
        let body = nft_table("balance", 0x3f00, &[isp(63, "eth0")]).body;
        for comment in body.lines().filter_map(|line| line.trim().strip_prefix("comment ")) {
            assert!(comment.len() - 2 <= LONGEST, "{comment}");
        }
    }
}
