//! What no ISP can take, and is not to go by any other way.

use std::fmt::Write as _;

/// Who is refused how: values inside the mask of the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// Senders are told (ICMP unreachable, no route).
    pub unreachable: u32,
    /// Packets are dropped.
    pub drop: u32,
}

/// The chain that refuses packets with these marks. What this machine sends has no such marks.
#[must_use]
pub fn chain(mask: u32, Refusals { unreachable, drop }: Refusals) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        r#"	chain refuse {{
		comment "Flows of policies that have no ISP left, and no other last resort."
		type filter hook forward priority filter - 1; policy accept;
		meta mark & {mask:#x} == {unreachable:#x} reject with icmpx no-route
		meta mark & {mask:#x} == {drop:#x} drop
	}}
"#
    );
    text
}
