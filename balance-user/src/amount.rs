//! Amounts of data and rates, as people write them and read them.

use std::fmt;

/// So many decimals are taken: enough for a byte of a megabyte.
const DECIMALS: usize = 6;

const SIZES: [(&str, u64); 8] = [
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const RATES: [(&str, u64); 3] = [("kbit/s", 1_000), ("Mbit/s", 1_000_000), ("Gbit/s", 1_000_000_000)];

/// An amount of data in bytes. As text it is in the greatest of kB, MB, GB and TB, to four digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A rate in bits a second; as text likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

/// The bytes that a text such as `50 GB` means. Units are those of the SI (`GB`) and of IEC 80000-13 (`GiB`), written as there:
/// a `Gb` would be a bit, and `G` anything. Says what is wrong with any other text.
pub fn parse_size(text: &str) -> Result<u64, String> {
    read(text, &SIZES).ok_or_else(|| {
        "must be a number with kB, MB, GB or TB (of 1000), or KiB, MiB, GiB or TiB (of 1024), such as \"50 GB\"".to_owned()
    })
}

/// The bits a second that a text such as `40 Mbit/s` means. Says what is wrong with any other text.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    read(text, &RATES)
        .ok_or_else(|| "must be a number with kbit/s, Mbit/s or Gbit/s, such as \"40 Mbit/s\"".to_owned())
}

/// A number, a space if one likes, and a unit.
fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at_checked(end)?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, unit) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, part) = match number.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, part)) => (whole, part),
        None => (number, ""),
    };
    if part.len() > DECIMALS {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(*unit)?;
    let scale = 10_u64.pow(u32::try_from(part.len()).ok()?);
    let part = if part.is_empty() { 0 } else { part.parse::<u64>().ok()?.checked_mul(*unit)? / scale };
    whole.checked_add(part)
}

/// In the greatest unit that makes it one or more, to four digits.
fn show(f: &mut fmt::Formatter<'_>, amount: u64, smallest: &str, units: &[(&str, u64)]) -> fmt::Result {
    // What is rounded up to a thousand is one of the next unit.
    let fits = |unit: u64| amount.saturating_add(unit / 20_000) >= unit;
    let Some((name, unit)) = units.iter().rev().find(|(_, unit)| fits(*unit)) else {
        return write!(f, "{amount} {smallest}");
    };
    let value = amount as f64 / *unit as f64;
    let decimals = match value {
        ..9.9995 => 3,
        ..99.995 => 2,
        ..999.95 => 1,
        _ => 0,
    };
    let number = format!("{value:.decimals$}");
    let number = if decimals > 0 { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    write!(f, "{number} {name}")
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, "bytes", SIZES.get(..4).unwrap_or_default())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, "bit/s", &RATES)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_in_both_kinds_of_units() {
        for (text, bytes) in [
            ("50 GB", 50_000_000_000),
            ("50GB", 50_000_000_000),
            ("1.5 TB", 1_500_000_000_000),
            ("0.000001 MB", 1),
            ("1 KiB", 1024),
            ("2.5GiB", 2_684_354_560),
            ("007 kB", 7000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "50",
            "GB",
            "50 gb",
            "50 Gb",
            "50 G",
            "50  GB",
            " 50 GB",
            "50 GB ",
            "-1 GB",
            "+1 GB",
            "1e3 GB",
            "1,5 GB",
            ".5 GB",
            "5. GB",
            "1.2.3 GB",
            "1.0000001 GB",
            "99999999999999999999 GB",
            "20000000 TB",
            "50 Mbit/s",
            "50 ЁB",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_in_bits() {
        assert_eq!(parse_rate("40 Mbit/s"), Ok(40_000_000));
        assert_eq!(parse_rate("1.5Gbit/s"), Ok(1_500_000_000));
        for text in ["40", "40 Mbps", "40 MB/s", "40 mbit/s", "40 Mbit"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_are_shown_to_four_digits() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1000, "1 kB"),
            (40_123_456_789, "40.12 GB"),
            (50_000_000_000, "50 GB"),
            (999_949_999, "999.9 MB"),
            (999_960_000, "1 GB"),
            (1_234_567_000_000_000, "1235 TB"),
            (100_000_000_000_000, "100 TB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text, "{bytes}");
        }
        assert_eq!(Rate(41_250_000).to_string(), "41.25 Mbit/s");
        assert_eq!(Rate(12).to_string(), "12 bit/s");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again_as_almost_the_same(bytes in 1000_u64..1_000_000_000_000_000_000) {
            let read = parse_size(&Size(bytes).to_string()).unwrap();
            prop_assert!(read.abs_diff(bytes) as f64 <= bytes as f64 * 0.0006, "{read}");
        }
    }
}
