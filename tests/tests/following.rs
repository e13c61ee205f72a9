//! The network changes under the daemon: devices get other names, routers announce other gateways and prefixes.
#![cfg(test)]

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use aya::programs::SchedClassifier;
use aya::programs::tc::TcAttachType;
use balance_lab::{Daemon, Family, Flows, Host, Lab, Transport, open_new_flows, ready, wait_until};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const SOON: Duration = Duration::from_secs(10);

/// The daemon, which takes ISPs back soon.
fn start(lab: &Lab) -> Daemon {
    let monitor = "\n[monitor]\nup_after = \"300ms\"\nup_after_max = \"300ms\"\n";
    lab.write_config(&format!("{}{monitor}", lab.config())).unwrap();
    lab.start_up().unwrap()
}

/// From which addresses new flows are seen to come.
fn seen(lab: &Lab, family: Family) -> BTreeSet<IpAddr> {
    let mut flows: Flows = open_new_flows(lab.lan(), 32, Transport::Udp, family).unwrap();
    flows.ask(Duration::from_millis(500)).into_iter().filter_map(Result::ok).collect()
}

/// The ISPs that new flows go by; an empty name where that is none.
fn used(lab: &Lab, family: Family) -> BTreeSet<String> {
    let name = |source: IpAddr| lab.isp_of(source).map_or("", balance_lab::Isp::name).to_owned();
    seen(lab, family).into_iter().map(name).collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// How many programs there are on a device of the router.
fn programs(lab: &Lab, device: &str) -> usize {
    lab.router()
        .run(|| {
            let all = [TcAttachType::Ingress, TcAttachType::Egress];
            all.map(|at| SchedClassifier::query_tcx(device, at).map_or(0, |(_, programs)| programs.len()))
        })
        .iter()
        .sum()
}

#[test]
fn a_device_is_used_while_it_has_its_name_and_nothing_of_ours_stays_on_it_when_it_gets_another() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let daemon = start(&lab);
    let both = names(["CABLE", "DSL"]);
    assert_eq!(used(&lab, Family::V4), both);
    let theirs = |device: &str| {
        let lines = [
            "ip -o -4 address show dev",
            "ip -o -6 address show scope global dev",
            "ip -4 route show default dev",
            "ip -6 route show default dev",
        ];
        let all = lines.map(|line| lab.router().sh(&format!("{line} {device}")).unwrap());
        all.concat().replace(device, "it")
    };
    let before = theirs("cable0");

    lab.router().sh("ip link set cable0 name wan0").unwrap();
    let says = |isp: &serde_json::Value| {
        isp["state"] == "down" && isp["reason"].as_str().is_some_and(|why| why.contains("no device cable0"))
    };
    lab.wait_isp("CABLE", says).unwrap();
    wait_until(SOON, "our programs leaving wan0", || programs(&lab, "wan0") == 0).unwrap();
    for family in Family::ALL {
        assert_eq!(used(&lab, family), names(["DSL"]));
    }
    assert_eq!(theirs("wan0"), before);

    lab.router().sh("ip link set wan0 name cable0").unwrap();
    lab.wait_up("CABLE").unwrap();
    assert!(programs(&lab, "cable0") > 0);
    for family in Family::ALL {
        assert_eq!(used(&lab, family), both);
    }

    lab.router().sh("ip link set lan0 name inside0").unwrap();
    wait_until(SOON, "our programs leaving inside0", || programs(&lab, "inside0") == 0).unwrap();
    assert!(!seen(&lab, Family::V4).is_empty(), "it is a plain router for those");
    lab.router().sh("ip link set inside0 name lan0").unwrap();
    wait_until(SOON, "the LAN being balanced again", || used(&lab, Family::V4) == both).unwrap();
    let said = daemon.stderr();
    assert!(!said.contains("DSL is down") && !said.contains("ERROR"), "{said}");
}

/// A router advertisement (RFC 4861, 4.2): for how long to use the sender, in seconds, and prefixes with the time for which they are
/// preferred.
fn advertise(isp: &Host, from: Ipv6Addr, lifetime: u16, prefixes: &[(Ipv6Addr, u32)]) {
    const VALID: u32 = 86_400;
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend(lifetime.to_be_bytes());
    message.extend([0; 8]);
    for (prefix, preferred) in prefixes {
        // On link, and for addresses.
        message.extend([3, 4, 64, 0xc0]);
        message.extend(VALID.to_be_bytes());
        message.extend(preferred.to_be_bytes());
        message.extend([0; 4]);
        message.extend(prefix.octets());
    }
    let send = || -> io::Result<usize> {
        let index = nix::net::if_::if_nametoindex("router")?;
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_multicast_hops_v6(255)?;
        socket.set_multicast_if_v6(index)?;
        let address = |ip| SockAddr::from(SocketAddrV6::new(ip, 0, 0, index));
        socket.bind(&address(from))?;
        socket.send_to(&message, &address(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)))
    };
    isp.run(send).unwrap();
}

#[test]
fn what_router_advertisements_change_is_followed_without_an_alarm() {
    const GATEWAYS: [Ipv6Addr; 2] =
        [Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x22)];
    const OLD: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0);
    const NEW: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0);
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let isp = lab.isp("CABLE").host();
    isp.ip(&GATEWAYS.map(|gateway| format!("addr add {gateway}/64 dev router nodad"))).unwrap();
    // The new prefix is this ISP's, too.
    isp.ip(&[format!("addr add {NEW}1/64 dev router nodad")]).unwrap();
    isp.feed("nft", &["-f", "-"], &format!("add element inet count own_v6 {{ {NEW}/64 }}")).unwrap();
    lab.internet().sh(&format!("ip route add {NEW}/64 via 2001:db8:ff00:1::1")).unwrap();
    let router = lab.router();
    router.sh("ip -6 route del default dev cable0; ip -6 addr flush dev cable0 scope global").unwrap();
    router
        .sysctls(&[
            ("net.ipv6.conf.cable0.accept_ra", "2"),
            ("net.ipv6.conf.cable0.autoconf", "1"),
            // Else it takes a second until an address can be used.
            ("net.ipv6.conf.cable0.accept_dad", "0"),
        ])
        .unwrap();
    let prefers = |prefix: Ipv6Addr| {
        let sources: Vec<IpAddr> = seen(&lab, Family::V6).into_iter().collect();
        let of = |prefix: Ipv6Addr, source: &IpAddr| matches!(source, IpAddr::V6(v6) if v6.segments()[..4] == prefix.segments()[..4]);
        let other = if prefix == OLD { NEW } else { OLD };
        sources.iter().any(|source| of(prefix, source)) && !sources.iter().any(|source| of(other, source))
    };
    let gateway_is = |gateway: Ipv6Addr| {
        let default = router.sh("ip -6 route show table 1001 default").unwrap();
        default.contains(&format!("via {gateway} "))
    };

    let [first, second] = GATEWAYS;
    advertise(isp, first, 1800, &[(OLD, 3600)]);
    wait_until(SOON, "an address", || {
        router.sh("ip -6 addr show dev cable0").unwrap().contains("2001:db8:1:")
    })
    .unwrap();
    let daemon = start(&lab);
    wait_until(SOON, "the first gateway", || gateway_is(first) && prefers(OLD)).unwrap();

    // Another router takes over.
    advertise(isp, first, 0, &[]);
    advertise(isp, second, 1800, &[(OLD, 3600)]);
    wait_until(SOON, "the second gateway", || gateway_is(second) && prefers(OLD)).unwrap();

    // Another prefix takes over; the old one may still be used by flows that have it.
    advertise(isp, second, 1800, &[(OLD, 0), (NEW, 3600)]);
    wait_until(SOON, "the new prefix", || gateway_is(second) && prefers(NEW)).unwrap();
    lab.wait_up("CABLE").unwrap();
    let said = daemon.stderr();
    let alarms = [" is down", " is degraded", "WARN", "ERROR"].into_iter().filter(|word| said.contains(word));
    assert_eq!(alarms.collect::<Vec<_>>(), Vec::<&str>::new(), "{said}");
}
