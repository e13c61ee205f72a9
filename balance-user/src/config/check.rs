//! What single values must be like. Each check says what is wrong in one sentence, or gives the value.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

/// The longest device name: `IFNAMSIZ`, less the byte that ends it.
const DEVICE_BYTES: usize = 15;

/// The longest name of an ISP or a LAN.
const NAME_BYTES: usize = 31;

/// The name of an ISP or a LAN.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let fits = text.len() <= NAME_BYTES
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if fits {
        return Ok(text.to_owned());
    }
    Err(format!("name must be 1 to {NAME_BYTES} letters, digits, `-` and `_`, and start with a letter"))
}

/// The name of a network device. The kernel allows a few more: quotes, `*` and `\` mean something else to nft, and
/// beyond ASCII there are bytes that it takes for spaces.
pub(crate) fn device(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > DEVICE_BYTES {
        return Err(format!("device must be 1 to {DEVICE_BYTES} characters, as `ip link` shows it"));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic() || "/:\"'*\\".contains(*c)) {
        return Err(format!("device cannot have {c:?} in its name: use the one that `ip link` shows"));
    }
    match text {
        "." | ".." => Err("device cannot be `.` or `..`: use the name that `ip link` shows".to_owned()),
        "lo" => Err("device cannot be the loopback device: use the one that leads outside".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// The address of one other host: a gateway, or a target of probes.
pub(crate) fn host(what: &str, text: &str) -> Result<IpAddr, String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(format!("{what} must be an IPv4 or IPv6 address, without prefix length or device"));
    };
    let unfit = match address {
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an IPv4 address in the form of IPv6",
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_multicast() => "a multicast address",
        _ if address.is_loopback() => "a loopback address",
        _ => return Ok(address),
    };
    Err(format!("{what} cannot be {unfit}: use the address of one other host"))
}

/// A prefix that is not balanced, or a network behind a device.
pub(super) fn prefix(what: &str, text: &str) -> Result<IpNet, String> {
    let Ok(prefix) = text.parse::<IpNet>() else {
        return Err(match text.parse::<IpAddr>() {
            Ok(address) => {
                format!("{what} needs a prefix length: write \"{}\" for one address", IpNet::from(address))
            }
            Err(_) => format!("{what} must be a prefix such as \"10.9.0.0/16\" or \"fd00::/8\""),
        });
    };
    if prefix.prefix_len() == 0 {
        return Err(format!("{what} cannot be {prefix}: nothing would be balanced"));
    }
    if prefix.trunc() != prefix {
        return Err(format!("{what} has bits set behind the prefix: write \"{}\"", prefix.trunc()));
    }
    Ok(prefix)
}

/// A network, or one address.
pub(super) fn network(what: &str, text: &str) -> Result<IpNet, String> {
    let prefix = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let Ok(prefix) = prefix else {
        return Err(format!(
            "{what} must be an address or a prefix, such as \"192.168.1.0/24\" or \"2001:db8::1\""
        ));
    };
    if prefix.trunc() != prefix {
        return Err(format!("{what} has bits set behind the prefix: write \"{}\"", prefix.trunc()));
    }
    Ok(prefix)
}

/// A folder, wherever the daemon is started.
pub(super) fn folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() && !text.contains('\0') {
        Ok(path)
    } else {
        Err("folder must be a path from the root, such as \"/etc/balance\"".to_owned())
    }
}

/// The bits of the mark, which must have room for the ids 1 to `isps`.
pub(super) fn mark_mask(mask: u32, isps: usize) -> Result<u32, String> {
    let ids = ids(mask);
    // One and a carry through all ones: no bit in common.
    if ids == 0 || ids & ids.wrapping_add(1) != 0 {
        return Err("mask must have one run of adjacent bits, such as 0x3f00".to_owned());
    }
    if !has_room(mask, isps) {
        return Err(format!(
            "mask has room for the ids up to {ids} but there are {isps} ISPs: give it more bits"
        ));
    }
    Ok(mask)
}

/// Whether a mask has room for the ids 1 to `count`.
pub(super) fn has_room(mask: u32, count: usize) -> bool {
    usize::try_from(ids(mask)).is_ok_and(|ids| ids >= count)
}

/// The highest id that a mask has room for.
fn ids(mask: u32) -> u32 {
    mask.checked_shr(mask.trailing_zeros()).unwrap_or(0)
}

/// The first of our routing tables, of which there are `tables`.
pub(super) fn table(first: u32, tables: u32) -> Result<u32, String> {
    // Unspecified; and default, main and local.
    const RESERVED: [u32; 4] = [0, 253, 254, 255];
    let Some(last) = first.checked_add(tables - 1) else {
        return Err(format!(
            "table must leave room for {tables} tables: use one from 256 to {}",
            u32::MAX - tables + 1
        ));
    };
    match RESERVED.into_iter().find(|reserved| (first..=last).contains(reserved)) {
        Some(reserved) => Err(format!(
            "table would make us use the tables {first} to {last}, but {reserved} is the system's: use 256 or more"
        )),
        None => Ok(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_people_use_are_taken() {
        for good in ["CABLE", "dsl-2", "a", "LTE_backup", &"x".repeat(31)] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        for good in
            ["eth0", "ppp0", "enp0s31f6", "eth0.100", "wg-home", "br_lan", "fifteen-bytes-x", "eth0@if7"]
        {
            assert_eq!(device(good).as_deref(), Ok(good));
        }
    }

    #[test]
    fn masks_are_one_run_of_bits_with_room_for_every_isp() {
        for (mask, isps) in
            [(0x3f00, 63), (1, 1), (0b110, 3), (u32::MAX, 63), (0x8000_0000, 1), (0x7fff_ffff, 9)]
        {
            assert_eq!(mark_mask(mask, isps), Ok(mask), "{mask:#x}");
        }
        for (mask, isps) in [(0, 1), (0x3d00, 2), (0x8000_0001, 1), (0x100, 2), (0x3f00, 64)] {
            assert!(mark_mask(mask, isps).is_err(), "{mask:#x}");
        }
    }

    #[test]
    fn tables_keep_clear_of_those_of_the_system() {
        for good in [1, 189, 256, 1000, u32::MAX - 63] {
            assert_eq!(table(good, 64), Ok(good));
        }
        for bad in [0, 190, 253, 254, 255, u32::MAX - 62, u32::MAX] {
            assert!(table(bad, 64).is_err(), "{bad}");
        }
    }
}
