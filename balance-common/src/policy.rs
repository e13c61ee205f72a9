//! Policies: the number that stands for one, and what keeps flows together.

use crate::{Address, Flow};

/// The id of a policy. It is what a rule leads to, and the index of the policy's entry and tables in the maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct PolicyId(u8);

impl PolicyId {
    /// How many policies there can be.
    pub const COUNT: u8 = 64;
    /// The policy of flows that no rule is about.
    pub const DEFAULT: Self = Self(0);

    /// The id with this number, if it is one.
    #[must_use]
    #[inline(always)]
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// The number.
    #[must_use]
    #[inline(always)]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// All ids, lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }
}

/// Which flows of a policy have the same ISP, apart from what happens to ISPs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Sticky {
    /// Each has its own.
    #[default]
    Flow = 0,
    /// Those of one source.
    Source = 1,
    /// Those from one source to one destination.
    SourceDestination = 2,
    /// Those to one destination.
    Destination = 3,
}

impl Sticky {
    /// What is hashed to find the bucket of a flow.
    #[must_use]
    #[inline(always)]
    pub const fn key(self, flow: Flow) -> Flow {
        const NOBODY: Address = Address::v6([0; 16]);
        let (source, destination) = match self {
            Self::Flow => return flow,
            Self::Source => (flow.source, NOBODY),
            Self::SourceDestination => (flow.source, flow.destination),
            Self::Destination => (NOBODY, flow.destination),
        };
        Flow { source, destination, protocol: 0, source_port: 0, destination_port: 0, ..flow }
    }
}

impl From<u8> for Sticky {
    #[inline(always)]
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Source,
            2 => Self::SourceDestination,
            3 => Self::Destination,
            _ => Self::Flow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Family;

    #[test]
    fn flows_share_a_key_by_what_they_stick_to() {
        let address = |last| Address::v4([192, 0, 2, last]);
        let flow = |source, destination, port| Flow {
            family: Family::V4,
            source: address(source),
            destination: address(destination),
            protocol: 6,
            source_port: port,
            destination_port: 443,
        };
        let same = |sticky: Sticky, other: Flow| sticky.key(flow(1, 2, 3)) == sticky.key(other);
        let other_port = flow(1, 2, 4);
        let other_destination = flow(1, 9, 3);
        let other_source = flow(9, 2, 3);
        let expected = [
            (Sticky::Flow, [false, false, false]),
            (Sticky::Source, [true, true, false]),
            (Sticky::SourceDestination, [true, false, false]),
            (Sticky::Destination, [true, false, true]),
        ];
        for (sticky, expected) in expected {
            let found = [other_port, other_destination, other_source].map(|other| same(sticky, other));
            assert_eq!(found, expected, "{sticky:?}");
            assert_eq!(Sticky::from(sticky as u8), sticky);
        }
    }
}
