//! Ports of TCP and UDP, one or a range, and the protocols that have them.

use std::fmt;

use super::error::Problem;
use super::reader::Item;

/// Ports, from the first to the last; never port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest; the same, if there is just one.
    pub last: u16,
}

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Ports {
    /// What `443` and `5000-5100` say.
    pub(super) fn parse(what: &str, text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse().ok().filter(|&port: &u16| port > 0);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let Some((first, last)) = number(first).zip(number(last)) else {
            return Err(format!("{what} must be a port from 1 to 65535, or a range such as \"5000-5100\""));
        };
        if last < first {
            return Err(format!("{what} has its range the wrong way round: write \"{last}-{first}\""));
        }
        Ok(Self { first, last })
    }

    /// A number, or a string with a range.
    pub(super) fn read(what: &str, item: Item<'_>) -> Result<Self, Problem> {
        if item.is_text() {
            return item.text(|text| Self::parse(what, text));
        }
        let port = item.number((1, u16::MAX))?;
        Ok(Self { first: port, last: port })
    }

    /// Whether any port is of both.
    #[must_use]
    pub const fn overlap(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Ports {
    /// As nft takes it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last { write!(formatter, "{first}") } else { write!(formatter, "{first}-{last}") }
    }
}

impl Protocol {
    /// What `tcp` and `udp` say.
    pub(super) fn parse(what: &str, text: &str) -> Result<Self, String> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(format!("{what} must be \"tcp\" or \"udp\"")),
        }
    }
}

impl fmt::Display for Protocol {
    /// As nft takes it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_a_first_and_a_last_port_and_never_port_0() {
        for (text, first, last) in [("443", 443, 443), ("5000-5100", 5000, 5100), ("1 - 65535", 1, 65535)] {
            assert_eq!(Ports::parse("port", text), Ok(Ports { first, last }));
        }
        for bad in ["", "0", "0-5", "65536", "a", "1-", "-1", "1-2-3", "5-4", "+-+"] {
            assert!(Ports::parse("port", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ranges_overlap_if_they_share_a_port() {
        let ports = |first, last| Ports { first, last };
        assert!(ports(1, 5).overlap(ports(5, 9)) && ports(5, 9).overlap(ports(1, 5)));
        assert!(ports(1, 9).overlap(ports(4, 4)) && ports(4, 4).overlap(ports(1, 9)));
        assert!(!ports(1, 4).overlap(ports(5, 9)) && !ports(5, 9).overlap(ports(1, 4)));
    }
}
