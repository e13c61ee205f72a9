//! TCP by the fast path: every byte arrives, whatever happens.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use balance_lab::addresses::internet;
use balance_lab::{Lab, Tally, TransferServer, Transfers, wait_until};

use crate::support::{FAMILIES, SOON, fast_packets, fast_ways, lab, with_tc_alone};

const PORT: u16 = 7_002;
const MIB: u64 = 1 << 20;
const UNLIMITED: u32 = u32::MAX;

/// Servers of both families on the internet host.
fn servers(lab: &Lab, rate: u32) -> [TransferServer; 2] {
    ["0.0.0.0", "::"].map(|any| {
        let any: IpAddr = any.parse().unwrap();
        TransferServer::start(lab.internet(), SocketAddr::new(any, PORT), rate).unwrap()
    })
}

/// So many transfers to each.
fn targets(count: usize) -> Vec<SocketAddr> {
    FAMILIES.into_iter().flat_map(|family| vec![internet(family, PORT); count]).collect()
}

#[test]
fn a_thousand_transfers_at_once_arrive_intact() {
    with_tc_alone(|acceleration| {
        let (lab, _daemon) = lab(acceleration);
        // A thousand times what a connection may have on the way is a lot.
        for host in [lab.lan(), lab.internet()] {
            host.sysctls(&[
                ("net.ipv4.tcp_rmem", "4096 65536 131072"),
                ("net.ipv4.tcp_wmem", "4096 65536 131072"),
            ])
            .unwrap();
        }
        let _servers = servers(&lab, UNLIMITED);
        let transfers =
            Transfers::start(lab.lan(), targets(500), MIB, UNLIMITED, Duration::from_mins(1)).unwrap();
        let outcomes = transfers.wait().unwrap();
        assert_eq!(outcomes.len(), 1_000);
        let (mut sources, mut bytes) = (Vec::new(), 0);
        for outcome in outcomes {
            let transfer = outcome.unwrap();
            assert!(transfer.sent == MIB && transfer.received >= MIB, "{transfer:?}");
            bytes += transfer.sent + transfer.received;
            sources.push(transfer.source);
        }
        sources.sort();
        sources.dedup();
        assert_eq!(sources.len(), 4, "two ISPs of two families: {sources:?}");
        // In packets of 64 KiB at the most.
        assert!(fast_packets(&lab) > bytes / 65_536);
    });
}

#[test]
fn when_an_isp_dies_the_transfers_by_the_other_one_lose_nothing() {
    with_tc_alone(|acceleration| {
        for die in [|lab: &Lab| lab.isp("DSL").die_silently(), |lab: &Lab| lab.isp("DSL").set_carrier(false)]
        {
            let (lab, _daemon) = lab(acceleration);
            let rate = 500_000;
            let servers = servers(&lab, rate);
            let cable = lab.isp("CABLE");
            let transfers =
                Transfers::start(lab.lan(), targets(40), u64::MAX, rate, Duration::from_secs(20)).unwrap();
            let more = || {
                let before = fast_ways(&lab, cable);
                let both =
                    || fast_ways(&lab, cable).iter().zip(before).all(|(now, before)| now - before > 2_000);
                wait_until(SOON, "transfers by CABLE", both).unwrap();
            };
            more();
            die(&lab).unwrap();
            lab.wait_state("DSL", "down").unwrap();
            more();
            let outcomes = transfers.stop().unwrap();
            let intact: Vec<_> = outcomes.into_iter().flatten().collect();
            for family in FAMILIES {
                let source = cable.address(family);
                let by_cable: Vec<_> = intact.iter().filter(|transfer| transfer.source == source).collect();
                assert!(by_cable.len() > 10, "{family:?}: {intact:?}");
                assert!(by_cable.iter().all(|transfer| transfer.lost == 0), "{by_cable:?}");
                // All that the server knows of CABLE ended in peace, and nothing was lost on its way here.
                let expected = Tally { intact: by_cable.len(), broken: 0, lost: 0 };
                let tally = || servers.iter().find_map(|server| server.tallies().get(&source).copied());
                wait_until(SOON, "the ends of all transfers", || {
                    tally().is_some_and(|tally| tally.intact + tally.broken >= expected.intact)
                })
                .unwrap();
                assert_eq!(tally(), Some(expected), "{family:?}");
            }
        }
    });
}
