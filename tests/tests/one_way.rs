//! UDP that nobody answers stays on one ISP: its first packet decides, not each by itself.
#![cfg(test)]

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use balance_lab::addresses::{SINK_PORT, internet};
use balance_lab::{Family, Lab, ready, send_one_way, wait_until};

const SOON: Duration = Duration::from_secs(5);

/// A socket of the LAN host that sends to the internet host's sink.
fn talker(lab: &Lab, family: Family) -> UdpSocket {
    let any = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
    lab.lan().run(|| {
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(internet(family, SINK_PORT)).unwrap();
        socket
    })
}

/// What the sink has got since `before`, once that is so many packets.
fn arrived(lab: &Lab, before: &BTreeMap<IpAddr, u64>, packets: u64) -> BTreeMap<IpAddr, u64> {
    let mut new = BTreeMap::new();
    let all_there = || {
        new = lab.sink().counts();
        for (source, count) in before {
            new.entry(*source).and_modify(|new| *new -= count);
        }
        new.retain(|_, count| *count > 0);
        new.values().sum::<u64>() >= packets
    };
    wait_until(SOON, "one-way packets", all_there).unwrap();
    new
}

#[test]
fn every_packet_of_a_one_way_flow_comes_from_the_same_address() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = lab.start_up().unwrap();
    let mut used = BTreeMap::<IpAddr, u64>::new();
    for family in [Family::V4, Family::V6] {
        for _ in 0..24 {
            let before = lab.sink().counts();
            send_one_way(lab.lan(), 200, family).unwrap();
            let new = arrived(&lab, &before, 200);
            assert_eq!(new.values().copied().collect::<Vec<_>>(), [200], "{new:?}");
            used.extend(new);
        }
    }
    // 24 flows of each family: both ISPs have some (all but one case in a thousand).
    assert_eq!(used.len(), 4, "{used:?}");
}

#[test]
fn it_stays_across_a_new_weight_and_beyond_the_time_conntrack_remembers_silence() {
    if !ready() {
        return;
    }
    let lab = Lab::new().unwrap();
    let _daemon = lab.start_up().unwrap();
    lab.router().sysctls(&[("net.netfilter.nf_conntrack_udp_timeout", "1")]).unwrap();
    lab.balance_ok(&["set-weight", "CABLE", "1000"]).unwrap();
    for family in [Family::V4, Family::V6] {
        lab.balance_ok(&["set-weight", "DSL", "1"]).unwrap();
        let before = lab.sink().counts();
        let cable = lab.isp("CABLE").address(family);
        let socket = talker(&lab, family);
        let mut sent = 0;
        let mut say = || {
            socket.send(b"anyone").unwrap();
            sent += 1;
            sent
        };
        // One flow in a thousand would be DSL's.
        assert_eq!(arrived(&lab, &before, say()), BTreeMap::from([(cable, 1)]));

        // From now on all but one bucket in a thousand are DSL's; the flow talks for longer than conntrack remembers.
        lab.balance_ok(&["set-weight", "CABLE", "1"]).unwrap();
        lab.balance_ok(&["set-weight", "DSL", "1000"]).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1_500) {
            let next = say();
            assert_eq!(arrived(&lab, &before, next), BTreeMap::from([(cable, next)]));
            let pause = Instant::now();
            wait_until(SOON, "the next packet", || pause.elapsed() > Duration::from_millis(50)).unwrap();
        }

        // With the old weights it is the same flow again, also after it was forgotten.
        lab.balance_ok(&["set-weight", "CABLE", "1000"]).unwrap();
        lab.balance_ok(&["set-weight", "DSL", "1"]).unwrap();
        let port = socket.local_addr().unwrap().port();
        let forgotten = || {
            let list =
                format!("conntrack -L -p udp --sport {port}; conntrack -L -f ipv6 -p udp --sport {port}");
            lab.router().sh(&list).unwrap().is_empty()
        };
        wait_until(SOON, "conntrack having forgotten", forgotten).unwrap();
        let next = say();
        assert_eq!(arrived(&lab, &before, next), BTreeMap::from([(cable, next)]));
    }
}
