//! The part of the nft table that looks after sockets of this machine whose mark has become wrong.

use std::fmt::Write as _;

use balance_common::{Family, IspId};

use super::npt::Ipv6Nat;
use super::table::{NatIsp, elements, quoted};
use crate::conntrack::IspMark;
use crate::monitor::PROBE_PRIORITY;

/// How an ISP stands with new flows of each family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its id.
    pub isp: IspId,
    /// Whether it can take them, by family.
    pub usable: [bool; 2],
    /// Its share of them against those of the others, by family; 0 if it gets none.
    pub weights: [u16; 2],
}

/// Chains to be added to those of `nft_table`, for the same mask and ISPs. They are for new flows of TCP and UDP sockets that are
/// marked for an ISP, and only where they would leave by one:
///
/// * What comes from another address than those of the ISP's device has a sender who chose that (by `IP_PKTINFO`, as servers
///   do): the mark is taken away, so that the rules by address decide.
/// * What is marked for an ISP that can take no new flows gets the mark of one that can. A UDP socket that was connected before
///   its ISP died goes on so, from the old address, which is masqueraded; and so does a TCP connection that has not
///   come about yet. Flows that exist have a conntrack mark, and are none of this.
///
/// Probes are sent by ISPs that take no flows, to see whether they are back, and stay as they are.
///
/// Marks with bits of others are kept: whoever set them means them.
#[must_use]
pub fn local_chains(mark_mask: u32, isps: &[NatIsp], standings: &[Standing]) -> String {
    let devices: Vec<String> = isps.iter().filter_map(|isp| quoted(&isp.device)).collect();
    if devices.is_empty() {
        return String::new();
    }
    let mut text = format!(
        r#"	chain local {{
		comment "Of sockets of this machine that are marked for an ISP: new flows that would leave by one."
		type route hook output priority -149; policy accept;
		meta mark 0 return
		meta mark & {others:#x} != 0 return
		meta l4proto != {{ tcp, udp }} return
		meta priority {probes} return
		ct mark & {mark_mask:#x} != 0 return
		oifname != {{ {devices} }} return
{prefixes}		fib saddr . oif type != local meta mark set 0 return
"#,
        prefixes = deciding_prefixes(isps),
        probes = format_args!("{:x}:{:x}", PROBE_PRIORITY >> 16, PROBE_PRIORITY & 0xffff),
        others = !mark_mask,
        devices = devices.join(", "),
    );
    let mut moves = String::new();
    for (family, name) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
        let of = |pair: [bool; 2]| pair.get(family as usize).copied().unwrap_or(true);
        let mark = |isp| IspMark::new(isp, mark_mask).map(IspMark::value);
        let gone: Vec<u32> = standings
            .iter()
            .filter(|standing| !of(standing.usable))
            .filter_map(|standing| mark(standing.isp))
            .collect();
        let takers: Vec<(u32, u32)> = standings
            .iter()
            .filter_map(|standing| {
                let weight = u32::from(standing.weights.get(family as usize).copied()?);
                (weight > 0).then_some((mark(standing.isp)?, weight))
            })
            .collect();
        if gone.is_empty() || takers.is_empty() {
            continue;
        }
        let gone = elements(&gone, |mark| format!("{mark:#x}"));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\t\tmeta nfproto {name} meta mark {{ {gone} }} goto move_{name}");
        let _ = write!(
            moves,
            "\tchain move_{name} {{\n\t\tcomment \"To those that take new flows, by weight.\"\n\t\t{}\n\t}}\n",
            choice(&takers)
        );
    }
    text + "\t}\n" + &moves
}

/// Sources in prefixes that decide the ISP have been given its mark just before.
fn deciding_prefixes(isps: &[NatIsp]) -> String {
    let prefix = |isp: &NatIsp| match isp.ipv6 {
        Ipv6Nat::Source { own, decides: true } => Some(own),
        _ => None,
    };
    let prefixes: Vec<_> = isps.iter().filter_map(prefix).collect();
    if prefixes.is_empty() {
        return String::new();
    }
    format!("\t\tip6 saddr {{ {} }} return\n", elements(&prefixes, ToString::to_string))
}

/// The statement that gives packets one of these marks, each with its weight.
fn choice(takers: &[(u32, u32)]) -> String {
    if let [(only, _)] = takers {
        return format!("meta mark set {only:#x}");
    }
    let mut next = 0;
    let ranges = elements(takers, |(mark, weight)| {
        let first = next;
        next += weight;
        format!("{first}-{} : {mark:#x}", next - 1)
    });
    format!("meta mark set numgen random mod {next} map {{ {ranges} }}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chains(standings: &[([bool; 2], [u16; 2])]) -> String {
        let id = |number: usize| IspId::new(u8::try_from(number + 1).unwrap()).unwrap();
        let isps: Vec<NatIsp> = (0..standings.len())
            .map(|number| NatIsp { id: id(number), device: format!("eth{number}"), ipv6: Ipv6Nat::default() })
            .collect();
        let standings: Vec<Standing> = standings
            .iter()
            .enumerate()
            .map(|(number, &(usable, weights))| Standing { isp: id(number), usable, weights })
            .collect();
        local_chains(0x3f00, &isps, &standings)
    }

    #[test]
    fn while_all_isps_work_no_mark_is_wrong() {
        let text = chains(&[([true; 2], [3; 2]), ([true; 2], [1; 2])]);
        assert!(text.contains("oifname != { \"eth0\", \"eth1\" } return"), "{text}");
        assert!(!text.contains("move"), "{text}");
    }

    #[test]
    fn the_mark_of_an_isp_that_is_not_usable_is_replaced_in_that_family_by_weight() {
        let text = chains(&[([false, true], [0, 1]), ([true; 2], [3, 1]), ([true; 2], [1, 0])]);
        assert!(text.contains("meta nfproto ipv4 meta mark { 0x100 } goto move_ipv4"), "{text}");
        assert!(
            text.contains("meta mark set numgen random mod 4 map { 0-2 : 0x200, 3-3 : 0x300 }"),
            "{text}"
        );
        assert!(!text.contains("move_ipv6"), "{text}");
        assert!(text.contains("meta priority 6261:6c00 return"), "{text}");
    }

    #[test]
    fn marks_stay_where_nobody_else_could_take_the_flows() {
        let text = chains(&[([false; 2], [0; 2]), ([false; 2], [0; 2])]);
        assert!(!text.contains("move"), "{text}");
        assert_eq!(local_chains(0x3f00, &[], &[]), "");
    }
}
