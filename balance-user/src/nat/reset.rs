//! The chains that reset TCP connections that have lost their ISP.

use crate::conntrack::IspMark;

use super::table::{NatIsp, quoted};

/// What is to be added to the nft table for connections with the mark [`IspMark::lost`] ([`crate::conntrack::lose`]): each
/// packet that they send to an ISP is answered with a reset, whether it is forwarded or of this machine itself. Nothing
/// if there are no ISPs, or no such mark.
///
/// The segments that have them speak ([`crate::conntrack::provoke`]) have that as the mark of the packet. Conntrack must
/// not see them, because it would take them for a connection of its own, whose addresses clash with the real one's.
#[must_use]
pub fn chains(mark_mask: u32, isps: &[NatIsp]) -> String {
    let Some(lost) = IspMark::lost(mark_mask) else { return String::new() };
    let devices: Vec<String> = isps.iter().filter_map(|isp| quoted(&isp.device)).collect();
    if devices.is_empty() {
        return String::new();
    }
    let (devices, value, mask) = (devices.join(", "), lost.value(), lost.mask());
    let reset = format!(
        "oifname {{ {devices} }} ct mark & {mask:#x} == {value:#x} meta l4proto tcp reject with tcp reset"
    );
    format!(
        r#"	chain provoke {{
		comment "Segments of ours that make ends of lost connections speak: not tracked, and not for the ISPs."
		type filter hook output priority raw; policy accept;
		meta mark {value:#x} tcp sequence 0 tcp ackseq 0 goto provoked
	}}
	chain provoked {{
		oifname {{ {devices} }} drop
		notrack
	}}
	chain reset_forward {{
		comment "TCP connections that have lost their ISP."
		type filter hook forward priority -5; policy accept;
		{reset}
	}}
	chain reset_output {{
		comment "The same, of this machine itself."
		type filter hook output priority -5; policy accept;
		{reset}
	}}
"#
    )
}

#[cfg(test)]
mod tests {
    use balance_common::IspId;

    use super::*;

    #[test]
    fn without_isps_or_marks_nothing_is_reset() {
        assert_eq!(chains(0x3f00, &[]), "");
        let isp = NatIsp {
            id: IspId::new(1).unwrap(),
            device: "eth0".to_owned(),
            ipv6: crate::nat::Ipv6Nat::default(),
        };
        assert_eq!(chains(0, &[isp]), "");
    }
}
