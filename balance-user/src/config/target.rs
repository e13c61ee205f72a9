//! What is asked, and whom, to see whether an ISP works.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use balance_common::Family;

use super::check;

/// One thing to ask through an ISP. Its [`Display`](fmt::Display) is what the config says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    text: String,
    ask: Ask,
    weight: usize,
}

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ask {
    /// Whether this host answers pings.
    Ping(IpAddr),
}

impl Target {
    /// What to ask whom.
    #[must_use]
    pub const fn ask(&self) -> &Ask {
        &self.ask
    }

    /// How much its answer counts for the quorum: at least 1.
    #[must_use]
    pub const fn weight(&self) -> usize {
        self.weight
    }

    /// Whether it is asked to see if an ISP works in this family.
    #[must_use]
    pub fn is_for(&self, family: Family) -> bool {
        match &self.ask {
            Ask::Ping(address) => address.is_ipv4() == (family == Family::V4),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A host to ping.
impl From<IpAddr> for Target {
    fn from(address: IpAddr) -> Self {
        Self { text: address.to_string(), ask: Ask::Ping(address), weight: 1 }
    }
}

/// The short form. The error is a sentence for whoever has written it.
impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        check::host("targets", text).map(Self::from)
    }
}
