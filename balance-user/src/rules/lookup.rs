//! Compiled rules, asked on the host as the eBPF programs ask them (`balance-ebpf/src/classify.rs`).

use balance_common::layout::{MAX_RULES, RuleClass, RuleFields};
use balance_common::{Address, Flow};

/// The first rule that is about a flow from that LAN with that DSCP, from 0. `prefix` tells the class of the longest prefix of a
/// source (false) or destination, `class` what a class does not rule out.
pub fn first(
    fields: &RuleFields,
    (flow, lan, dscp): (&Flow, u8, u8),
    prefix: impl Fn(bool, Address) -> Option<u16>,
    class: impl Fn(u16) -> Option<RuleClass>,
) -> Option<usize> {
    if fields.count == 0 {
        return None;
    }
    let dscp = if fields.asks_dscp != 0 { dscp } else { 0 };
    let classes = [
        prefix(false, flow.source)?,
        prefix(true, flow.destination)?,
        *fields.protocols.get(usize::from(flow.protocol))?,
        *fields.source_ports.get(usize::from(flow.source_port))?,
        *fields.destination_ports.get(usize::from(flow.destination_port))?,
        *fields.lans.get(usize::from(lan))?,
        *fields.dscps.get(usize::from(dscp))?,
    ];
    let mut common = [u64::MAX; MAX_RULES / 64];
    for number in classes {
        let words = class(number)?.words;
        common.iter_mut().zip(words).for_each(|(common, word)| *common &= word);
    }
    let (word, bits) = (0..).zip(common).find(|(_, bits)| *bits != 0)?;
    Some(word * 64 + bits.trailing_zeros() as usize)
}
