//! The ways to set up a router.

mod iptables;
mod kernel;
mod ours;

use balance_lab::{Daemon, Family, Lab};

pub(crate) use kernel::{gateway, lan_prefix};

use crate::harness::{Entrance, Exit};
use crate::traffic::Group;

/// A way to set up a router.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and none follows from another")]
pub struct Case {
    /// How it is chosen on the command line.
    pub name: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// Where its packets start.
    pub entrance: Entrance,
    /// Where they end.
    pub exit: Exit,
    /// Whether it spreads flows over ISPs.
    pub balances: bool,
    /// Whether conntrack sees its packets.
    pub tracks: bool,
    /// Whether it treats flows otherwise once it knows them.
    pub learns: bool,
    /// Whether it has IPv6.
    pub has_v6: bool,
    /// Whether the router has a default route by each ISP to begin with, as from DHCP; the first one is in use.
    pub default_routes: bool,
    /// Sets the router of a lab up.
    pub set_up: SetUp,
}

/// How a case sets up the router of a lab; what it returns runs as long as the lab.
pub type SetUp = fn(&Lab, Size) -> anyhow::Result<Option<Daemon>>;

/// For how much a router is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// At most so many flows.
    pub flows: u32,
}

impl Case {
    /// Whether it is measured with traffic of this group and family.
    #[must_use]
    pub fn takes(&self, group: Group, family: Family) -> bool {
        let in_group = match group {
            Group::Packets | Group::Flows => true,
            Group::Isps => self.balances || self.is_floor(),
            // Where packets do not arrive there is no TCP.
            Group::Bulk => !self.is_floor(),
        };
        // What is handed on as it is arrives nowhere, and differs between devices only.
        let in_group = in_group && (self.exit != Exit::Devices || group == Group::Isps);
        in_group && (self.has_v6 || family == Family::V4)
    }

    /// Whether it measures only what the harness itself costs.
    #[must_use]
    pub fn is_floor(&self) -> bool {
        matches!(self.exit, Exit::LanIngress | Exit::LanXdp)
    }

    /// Whether it is balance itself.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        ["off", "tc", "xdp"].contains(&self.name)
    }

    /// Number of ISPs that its lab has, if the cases that balance have this many.
    #[must_use]
    pub fn isps(&self, isps: u8) -> u8 {
        if self.balances { isps } else { 1 }
    }
}

/// What the harness costs with traffic of this group, where packets enter the stack, and where they come by wire. How many devices
/// packets leave by, each with a queue and a far end of its own, is the harness's choice: with more ISPs that is part of its cost.
#[must_use]
pub fn floor_of(group: Group, entrance: Entrance) -> &'static str {
    match (group, entrance) {
        (Group::Isps, Entrance::Stack) => "devices",
        (Group::Isps, Entrance::Wire) => "devices-xdp",
        (_, Entrance::Stack) => "floor",
        (_, Entrance::Wire) => "floor-xdp",
    }
}

const BALANCER: Case = Case {
    name: "",
    title: "",
    entrance: Entrance::Stack,
    exit: Exit::Isps,
    balances: true,
    tracks: true,
    learns: false,
    has_v6: true,
    default_routes: true,
    set_up: nothing,
};

/// Every case, in the order in which they are shown.
pub const ALL: [Case; 12] = [
    Case {
        name: "floor",
        title: "harness alone",
        exit: Exit::LanIngress,
        balances: false,
        tracks: false,
        ..BALANCER
    },
    Case {
        name: "floor-xdp",
        title: "harness alone, XDP",
        entrance: Entrance::Wire,
        exit: Exit::LanXdp,
        balances: false,
        tracks: false,
        ..BALANCER
    },
    Case {
        name: "devices",
        title: "handed to the ISPs' devices, TC",
        exit: Exit::Devices,
        tracks: false,
        has_v6: false,
        ..BALANCER
    },
    Case {
        name: "devices-xdp",
        title: "handed to the ISPs' devices, XDP",
        entrance: Entrance::Wire,
        exit: Exit::Devices,
        tracks: false,
        has_v6: false,
        ..BALANCER
    },
    Case {
        name: "plain",
        title: "plain forwarding",
        balances: false,
        tracks: false,
        set_up: kernel::plain,
        ..BALANCER
    },
    Case { name: "nat", title: "one ISP, masquerade", balances: false, set_up: kernel::nat, ..BALANCER },
    Case {
        name: "multipath",
        title: "kernel multipath, masquerade",
        default_routes: false,
        set_up: kernel::multipath,
        ..BALANCER
    },
    Case { name: "nft", title: "nft numgen, marks, masquerade", set_up: kernel::nft, ..BALANCER },
    Case {
        name: "iptables",
        title: "iptables, as Net::ISP::Balance",
        has_v6: false,
        set_up: iptables::set_up,
        ..BALANCER
    },
    Case { name: "off", title: "balance, acceleration off", set_up: ours::off, ..BALANCER },
    Case { name: "tc", title: "balance, acceleration tc", learns: true, set_up: ours::tc, ..BALANCER },
    Case {
        name: "xdp",
        title: "balance, acceleration xdp",
        entrance: Entrance::Wire,
        learns: true,
        set_up: ours::xdp,
        ..BALANCER
    },
];

#[expect(clippy::unnecessary_wraps, reason = "it stands where cases do something that may fail")]
fn nothing(_: &Lab, _: Size) -> anyhow::Result<Option<Daemon>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_floor() {
        for (case, group) in ALL.into_iter().flat_map(|case| [(case, Group::Packets), (case, Group::Isps)]) {
            let floor = ALL.iter().find(|it| it.name == floor_of(group, case.entrance)).unwrap();
            assert!(floor.takes(group, Family::V4) && floor.entrance == case.entrance, "{}", case.name);
            assert_eq!(
                floor.balances,
                group == Group::Isps,
                "it has as many ISPs as what it is the floor of"
            );
        }
    }

    #[test]
    fn a_floor_is_measured_with_all_packets_but_not_with_tcp() {
        let floor = ALL.iter().find(|case| case.is_floor()).unwrap();
        for group in [Group::Packets, Group::Flows, Group::Isps] {
            assert!(floor.takes(group, Family::V6));
        }
        assert!(!floor.takes(Group::Bulk, Family::V4));
    }
}
