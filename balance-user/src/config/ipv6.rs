//! What an ISP's keys say of IPv6.

use std::net::Ipv6Addr;

use balance_common::Family;
use ipnet::Ipv6Net;

use super::error::Problem;
use super::reader::{Item, Table};
use super::{IspConfig, Target};

/// What becomes of the source addresses of an ISP's IPv6 flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ipv6Mode {
    /// The address of the ISP's device takes their place, as in IPv4.
    #[default]
    Masquerade,
    /// The LANs' prefixes are exchanged for those of the ISP's prefix, one to one.
    Npt,
    /// Hosts have addresses of the ISP's prefix. Flows from these use this ISP and no other, and stay as they are.
    Source,
    /// The ISP is not used for IPv6.
    Off,
}

/// The lengths of prefixes that are given to sites; up to those of a few hosts.
const LENGTHS: std::ops::RangeInclusive<u8> = 16..=120;

/// Reads an ISP's `ipv6` and `prefix`. `targets` are those that it has of its own, and where they stand.
pub(super) fn read(
    table: &Table<'_>,
    targets: Option<(Item<'_>, &[Target])>,
) -> Result<(Ipv6Mode, Option<Ipv6Net>), Problem> {
    let words = [
        ("masquerade", Ipv6Mode::Masquerade),
        ("npt", Ipv6Mode::Npt),
        ("source", Ipv6Mode::Source),
        ("off", Ipv6Mode::Off),
    ];
    let mode = table.choice("ipv6", &words)?;
    let prefix = match table.get("prefix") {
        None => None,
        Some(item) if matches!(mode, Ipv6Mode::Npt | Ipv6Mode::Source) => Some(item.text(prefix)?),
        Some(item) => {
            return Err(item.problem("prefix needs ipv6 = \"npt\" or \"source\": add one, or remove it"));
        }
    };
    if let Some((item, targets)) = targets
        && mode == Ipv6Mode::Off
        && !targets.is_empty()
        && !targets.iter().any(|target| target.is_for(Family::V4))
    {
        return Err(item.problem("targets are all IPv6, which is off for this ISP: add an IPv4 address"));
    }
    Ok((mode, prefix))
}

/// Two ISPs cannot have delegated the same addresses.
pub(super) fn check_overlaps(tables: &[Table<'_>], isps: &[IspConfig]) -> Result<(), Problem> {
    let with_prefix = || isps.iter().zip(tables).filter_map(|(isp, table)| Some((isp, table, isp.prefix?)));
    for (place, (_, table, prefix)) in with_prefix().enumerate() {
        let overlaps = |other: &Ipv6Net| other.contains(&prefix) || prefix.contains(other);
        if let Some((other, _, theirs)) = with_prefix().take(place).find(|(.., other)| overlaps(other)) {
            let message = format!("prefix has addresses of {theirs} of {}: give each its own", other.name);
            return Err(match table.get("prefix") {
                Some(item) => item.problem(message),
                None => table.problem(message),
            });
        }
    }
    Ok(())
}

fn prefix(text: &str) -> Result<Ipv6Net, String> {
    let Ok(prefix) = text.parse::<Ipv6Net>() else {
        return Err("prefix must be an IPv6 prefix such as \"2001:db8:a::/48\"".to_owned());
    };
    if !LENGTHS.contains(&prefix.prefix_len()) {
        return Err(format!("prefix must have a length from {} to {}", LENGTHS.start(), LENGTHS.end()));
    }
    if prefix.trunc() != prefix {
        return Err(format!("prefix has bits set behind its length: write \"{}\"", prefix.trunc()));
    }
    let address: Ipv6Addr = prefix.addr();
    if address.is_multicast() || address.is_unicast_link_local() || address.is_unspecified() {
        return Err("prefix must be of addresses that the ISP has given you".to_owned());
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_that_isps_delegate_are_taken() {
        for good in ["2001:db8:a::/48", "2001:db8:a:10::/60", "2001:db8::/32", "fd00:1::/64"] {
            assert_eq!(prefix(good).map(|prefix| prefix.to_string()).as_deref(), Ok(good));
        }
    }
}
