//! Which kernel settings are needed.

use std::collections::BTreeMap;

use crate::core::plan::Sysctl;

/// The key that makes the machine an IPv6 router. IPv6 has no such setting per device before Linux 6.17.
pub(super) const FORWARD_V6: &str = "net/ipv6/conf/all/forwarding";

/// How long conntrack remembers flows of UDP that are silent.
pub(super) const UDP_TIMEOUTS: [&str; 2] =
    ["net/netfilter/nf_conntrack_udp_timeout", "net/netfilter/nf_conntrack_udp_timeout_stream"];

/// The same for echo.
pub(super) const ECHO_TIMEOUTS: [&str; 2] =
    ["net/netfilter/nf_conntrack_icmp_timeout", "net/netfilter/nf_conntrack_icmpv6_timeout"];

const LIBERAL_CONNTRACK: &str = "net/netfilter/nf_conntrack_tcp_be_liberal";

/// The kernel's own `nf_conntrack_tcp_timeout_established`, in seconds. Where that is shorter, it counts.
const ESTABLISHED_TIMEOUT: &str = "432000";

/// The settings on which the needed ones depend, as they would be without us; see [`super::Saved::facts`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SysctlFacts {
    /// `net/ipv4/conf/all/rp_filter`.
    pub rp_filter_all: u32,
    /// `net/ipv4/conf/<device>/rp_filter` of the ISPs' devices that exist.
    pub rp_filter: BTreeMap<String, u32>,
    /// `net/ipv6/conf/<device>/accept_ra` of the ISPs' devices that exist.
    pub accept_ra: BTreeMap<String, u32>,
    /// The kernel has IPv6.
    pub ipv6: bool,
    /// After how much silence conntrack forgets flows.
    pub flow_timeouts: FlowTimeouts,
}

/// After how much silence conntrack forgets flows of protocols that have no connections, in seconds: the least of its times for
/// each. None as long as nothing has loaded it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowTimeouts {
    /// Of UDP.
    pub udp: Option<u32>,
    /// Of echo.
    pub echo: Option<u32>,
}

/// The settings that balancing needs, in the order in which to set them. Depends on nothing that we set ourselves,
/// so it stays the same once it is carried out, also for a new daemon after a crash.
///
/// * Forwarding, if there is a LAN. For IPv4 per device, because the global switch also changes others, such
///   as `accept_redirects`.
/// * Reverse path filtering on ISPs' devices at most loose: replies come in by devices that the main table would not
///   choose. Off stays off.
/// * Router advertisements on ISPs' devices that listen to them keep being heard, though a router ignores them
///   normally. Before forwarding, since that throws away the default routes learned from them.
#[must_use]
pub fn plan(isps: &[&str], lans: &[&str], facts: &SysctlFacts) -> Vec<Sysctl> {
    const STRICT: u32 = 1;
    const LOOSE: &str = "2";
    const HEARD_BY_HOSTS: u32 = 1;
    const ALWAYS_HEARD: &str = "2";

    let set = |key: String, value: &str| Sysctl { key, value: value.to_owned() };
    let routes = !lans.is_empty();
    let mut wanted = Vec::new();
    for device in isps {
        // The kernel takes the greater of the two values.
        if facts.rp_filter.get(*device).is_some_and(|own| facts.rp_filter_all.max(*own) == STRICT) {
            wanted.push(set(rp_filter(device), LOOSE));
        }
        if routes && facts.ipv6 && facts.accept_ra.get(*device) == Some(&HEARD_BY_HOSTS) {
            wanted.push(set(accept_ra(device), ALWAYS_HEARD));
        }
    }
    if routes {
        wanted.extend(isps.iter().chain(lans).map(|device| set(forward_v4(device), "1")));
        if facts.ipv6 {
            wanted.push(set(FORWARD_V6.to_owned(), "1"));
        }
    }
    wanted
}

/// What the fast path needs besides: it hides packets of TCP flows from conntrack, which would take those that it sees
/// for invalid when it finds them beyond the window that it knows of, and then not translate them. There is no such
/// setting until something has loaded conntrack; our nft table does.
#[must_use]
pub fn liberal_conntrack() -> Sysctl {
    Sysctl { key: LIBERAL_CONNTRACK.to_owned(), value: "1".to_owned() }
}

/// What the fast path needs for the same reason: conntrack may have missed how data was acknowledged, and would forget an idle
/// connection after five minutes instead of after the time for established ones, five days if nobody has changed it. A port
/// would then no longer lead back to its host.
#[must_use]
pub fn patient_conntrack() -> [Sysctl; 2] {
    ["unacknowledged", "max_retrans"].map(|what| Sysctl {
        key: format!("net/netfilter/nf_conntrack_tcp_timeout_{what}"),
        value: ESTABLISHED_TIMEOUT.to_owned(),
    })
}

/// The shell commands that set these, for `--dry-run`. With slashes, because names of devices may contain dots.
#[must_use]
pub fn commands(plan: &[Sysctl]) -> Vec<String> {
    plan.iter().map(|Sysctl { key, value }| format!("sysctl -w {key}={value}")).collect()
}

pub(super) fn rp_filter(device: &str) -> String {
    format!("net/ipv4/conf/{device}/rp_filter")
}

pub(super) fn accept_ra(device: &str) -> String {
    format!("net/ipv6/conf/{device}/accept_ra")
}

fn forward_v4(device: &str) -> String {
    format!("net/ipv4/conf/{device}/forwarding")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(rp_filter_all: u32, rp_filter: u32, accept_ra: u32, ipv6: bool) -> SysctlFacts {
        SysctlFacts {
            rp_filter_all,
            rp_filter: [("eth0.5".to_owned(), rp_filter)].into(),
            accept_ra: [("eth0.5".to_owned(), accept_ra)].into(),
            ipv6,
            flow_timeouts: FlowTimeouts::default(),
        }
    }

    #[test]
    fn a_router_forwards_and_still_hears_router_advertisements() {
        let plan = plan(&["eth0.5"], &["lan0"], &facts(1, 0, 1, true));
        assert_eq!(
            commands(&plan),
            [
                "sysctl -w net/ipv4/conf/eth0.5/rp_filter=2",
                "sysctl -w net/ipv6/conf/eth0.5/accept_ra=2",
                "sysctl -w net/ipv4/conf/eth0.5/forwarding=1",
                "sysctl -w net/ipv4/conf/lan0/forwarding=1",
                "sysctl -w net/ipv6/conf/all/forwarding=1",
            ]
        );
    }

    #[test]
    fn a_host_without_lan_does_not_become_a_router() {
        let plan = plan(&["eth0.5"], &[], &facts(0, 1, 1, true));
        assert_eq!(commands(&plan), ["sysctl -w net/ipv4/conf/eth0.5/rp_filter=2"]);
    }

    #[test]
    fn settings_that_do_no_harm_are_left_alone() {
        for (all, own) in [(0, 0), (0, 2), (2, 1), (1, 2), (2, 0)] {
            assert_eq!(plan(&["eth0.5"], &[], &facts(all, own, 1, true)), [], "{all} {own}");
        }
        for accept_ra in [0, 2] {
            let keys = commands(&plan(&["eth0.5"], &["lan0"], &facts(0, 0, accept_ra, true)));
            assert!(!keys.iter().any(|key| key.contains("accept_ra")), "{keys:?}");
        }
    }

    #[test]
    fn without_ipv6_or_device_nothing_is_said_of_them() {
        let keys = commands(&plan(&["eth0.5"], &["lan0"], &facts(0, 0, 1, false)));
        assert!(!keys.iter().any(|key| key.contains("ipv6")), "{keys:?}");
        let plan = plan(&["ppp9"], &["lan0"], &facts(1, 1, 1, true));
        assert!(!commands(&plan).iter().any(|key| key.contains("rp_filter")), "{plan:?}");
    }
}
